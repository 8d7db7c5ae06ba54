"""int8 weights against a reference in integers: every instruction set, in every size of tile."""

import numpy as np
import pytest

from fastgru import _core, _kernels, _plans

# instruction set, and whether bytes are multiplied where it can
KERNELS = [(isa, dot) for isa in _kernels.isas() for dot in (True, False)[: 1 + (isa in _kernels.dot_isas())]]
FUSED = [(isa, dot) for isa, dot in KERNELS if isa in _kernels.packed_isas()]
MOST = 32639  # of a factor
ROWS, TIMESTEPS = 14, 3


def rounded(matrix, scales=None):
    """Integers and scales of a kernel's columns, in float64."""
    largest = np.abs(matrix).max(axis=0, initial=0)
    scales = largest / np.float32(127) if scales is None else scales
    divisors = np.where(largest > 0, scales, np.float32(1))
    return np.rint(matrix / divisors).astype("int64"), np.where(largest > 0, scales, 0).astype("float32")


def factors(rows, integers):
    """int16 factors of rows and their scales, as large as the sums of these columns leave room for."""
    limit = np.float32(min(MOST, (2**31 - 1) // max(1, np.abs(integers).sum(axis=0).max(initial=0))))
    largest = np.maximum(np.abs(rows).max(axis=1, initial=0), np.float32(2.0**-100))
    _, exponents = np.frexp(limit / largest)
    powers = np.ldexp(1.0, exponents - 1)[:, np.newaxis]
    return np.rint(rows.astype("float64") * powers).astype("int64"), (1 / powers).astype("float32")


def product(rows, matrix, scales=None):
    """rows.matrix as it is defined, in float32."""
    integers, scales = rounded(matrix, scales)
    q, powers = factors(rows, integers)
    sums = q @ integers
    assert np.abs(sums).max(initial=0) < 2**31
    return sums.astype("float32") * (scales * powers)


def gru(x, h, kernel, recurrent, bias, reset_after, scales=None):
    """Outputs of all steps, (batch, timesteps, units): sums as above, all else in float64."""
    units, outputs = len(recurrent), []
    scales_x, scales_h = (None, None) if scales is None else scales

    def sigmoid(a):
        return 1 / (1 + np.exp(-a.astype("float64")))

    for step in range(x.shape[1]):
        a = product(x[:, step], kernel, scales_x) + (bias[0] if reset_after else bias)
        b = product(h, recurrent, scales_h) + (bias[1] if reset_after else 0)
        z, r = sigmoid(a[:, :units] + b[:, :units]), sigmoid((a + b)[:, units : 2 * units])
        if reset_after:
            hh = np.tanh(a[:, 2 * units :] + r * b[:, 2 * units :])
        else:
            hh = np.tanh(a + product((r * h).astype("float32"), recurrent, scales_h))[:, 2 * units :]
        h = (z * h + (1 - z) * hh).astype("float32")
        outputs.append(h)
    return np.stack(outputs, axis=1)


def random_weights(rng, features, units, reset_after):
    kernel = rng.normal(size=(features, 3 * units)) / max(features, 1) ** 0.5
    recurrent = rng.normal(size=(units, 3 * units)) / units**0.5
    bias = rng.normal(size=(2, 3 * units) if reset_after else 3 * units) / 10
    return [array.astype("float32") for array in (kernel, recurrent, bias)]


def plan_of(weights, reset_after, isa, dot, scales=None, activations=("tanh", "sigmoid")):
    g, f = ((name, 0.0) for name in activations)
    scales = None if scales is None else np.concatenate(scales).astype("float32")
    return _plans.Plan(*weights, reset_after, g, f, "packed", isa, "int8", scales, dot)


def run(plan, x, h, mask=None):
    """Outputs of all steps, and the last state."""
    values = [(x.shape[2], x.dtype, False, 0), (plan.units, x.dtype, False, 0)]
    nodes, states = [("gru", 0, 1, {"plan": plan, "state": 0})], [(plan.units, x.dtype)]
    return _core.Network(values, nodes, [1], False, True, states=states).call(x, h, mask, None, None)


def identical(found, wanted):
    return all(a.tobytes() == b.tobytes() for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("units", range(1, 71))
@pytest.mark.parametrize("reset_after", [False, True])
def test_every_tile_of_every_instruction_set_gives_the_exact_sums(reset_after, units):
    rng = np.random.default_rng(units)
    features = int(rng.integers(0, 40))
    weights = random_weights(rng, features, units, reset_after)
    x = rng.normal(size=(ROWS, TIMESTEPS, features)).astype("float32")
    h = rng.normal(size=(ROWS, units)).astype("float32")
    wanted = gru(x, h, *weights, reset_after)
    plans = [plan_of(weights, reset_after, isa, dot) for isa, dot in KERNELS]
    found = [run(plan, x, h) for plan in plans]
    for (output, state), (isa, dot) in zip(found, KERNELS, strict=True):
        # a state that is rounded to another float32 may be rounded to another factor, too
        np.testing.assert_allclose(output, wanted, rtol=0, atol=2e-4, err_msg=f"{isa}, {dot}")
        assert np.median(np.abs(output - wanted)) < 2e-7, (isa, dot)
        assert state.tobytes() == output[:, -1].tobytes()
    results = [result for result, kernels in zip(found, KERNELS, strict=True) if kernels in FUSED]
    assert all(identical(result, results[0]) for result in results)
    for plan, result in zip(plans, found, strict=True):
        for rows in range(1, ROWS):  # every tile, with x.kernel ahead and within the step
            assert identical(run(plan, x[:rows], h[:rows]), [array[:rows] for array in result])
            assert run(plan, x[:rows, :1], h[:rows])[0].tobytes() == result[0][:rows, :1].tobytes()


@pytest.mark.parametrize(("isa", "dot"), KERNELS)
@pytest.mark.parametrize("features", [515, 1040, 4128, 9001])
def test_no_sum_leaves_int32(isa, dot, features):
    rng = np.random.default_rng(features)
    weights = random_weights(rng, features, 3, True)
    weights[0][:, ::2] = np.where(rng.random((features, 5)) < 0.999, 1, -1)  # 127 each
    x = np.ones((2, 1, features), "float32")
    x[1] = -1
    h, linear = np.zeros((2, 3), "float32"), ("linear", "linear")
    found, _ = run(plan_of(weights, True, isa, dot, activations=linear), x, h)
    a = product(x[:, 0], weights[0]) + weights[2][0]
    b = weights[2][1]
    z, r = (a + b)[:, :3].astype("float64"), (a + b)[:, 3:6].astype("float64")
    wanted = (1 - z) * (a[:, 6:] + r * b[6:])
    np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-5)


@pytest.mark.parametrize(("isa", "dot"), KERNELS)
def test_given_scales_are_those_of_the_integers(isa, dot):
    rng = np.random.default_rng(1)
    integers = [rng.integers(-128, 128, (n, 15)) for n in (7, 5)]
    for each in integers:
        each[0, ::2] = -128
    scales = [(rng.random(15) + 0.5).astype("float32") / 100 for _ in range(2)]
    bias = rng.normal(size=(2, 15)).astype("float32")
    weights = [(q * s).astype("float32") for q, s in zip(integers, scales, strict=True)]
    x, h = (rng.normal(size=shape).astype("float32") for shape in ((3, 2, 7), (3, 5)))
    for matrix, q, s in zip(weights, integers, scales, strict=True):
        assert (rounded(matrix, s)[0] == q).all()
    found, _ = run(plan_of([*weights, bias], True, isa, dot, scales), x, h)
    np.testing.assert_allclose(found, gru(x, h, *weights, bias, True, scales), rtol=0, atol=2e-4)


# ---- any values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize(("isa", "dot"), KERNELS)
def test_a_row_with_nan_is_nan_and_no_other_one(isa, dot, reset_after):
    rng = np.random.default_rng(2)
    weights = random_weights(rng, 9, 20, reset_after)
    plan = plan_of(weights, reset_after, isa, dot)
    x, h = rng.normal(size=(6, 1, 9)).astype("float32"), rng.normal(size=(6, 20)).astype("float32")
    wanted, _ = run(plan, x, h)
    x[1, 0, 8], x[2, 0, :2], h[4, 3] = np.nan, [np.inf, np.nan], np.nan
    found, _ = run(plan, x, h)
    bad = [1, 2, 4]
    assert np.isnan(found[bad]).all()
    assert np.delete(found, bad, 0).tobytes() == np.delete(wanted, bad, 0).tobytes()
    mask = np.ones((6, 1), bool)
    mask[bad] = False
    masked, state = run(plan, x, h, mask)
    assert np.delete(masked, bad, 0).tobytes() == np.delete(wanted, bad, 0).tobytes()
    assert state[bad].tobytes() == h[bad].tobytes()


@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize(("isa", "dot"), KERNELS)
def test_infinities_are_passed_on_as_by_float32(isa, dot, reset_after):
    rng = np.random.default_rng(3)
    weights = random_weights(rng, 9, 20, reset_after)
    for matrix in weights[:2]:
        matrix[np.abs(matrix) < 0.05] = 0.05  # what is not zero is not rounded to zero
    weights[0][0, 2] = 0
    g, f = ("relu", 0.0), ("sigmoid", 0.0)
    plan = plan_of(weights, reset_after, isa, dot, activations=("relu", "sigmoid"))
    exact = _plans.Plan(*weights, reset_after, g, f, "packed", isa)
    x, h = rng.normal(size=(9, 1, 9)).astype("float32"), rng.normal(size=(9, 20)).astype("float32")
    x[0, 0, 0], x[1, 0, 4], x[2, 0, [3, 5]], x[3, 0, [1, 8]] = np.inf, -np.inf, np.inf, [np.inf, -np.inf]
    h[4, 0], h[5, 19], h[6, [2, 7]] = np.inf, -np.inf, [np.inf, -np.inf]
    found, wanted = run(plan, x, h)[0], run(exact, x, h)[0]
    for kind in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(kind(found), kind(wanted))
    assert np.isfinite(found[7:]).all()
    assert not np.isfinite(found[:7]).all(axis=(1, 2)).any()


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-20, 1.0, 300.0, 1e20, 1e37])
@pytest.mark.parametrize(("isa", "dot"), KERNELS)
def test_inputs_and_states_of_any_size_have_their_relative_error(isa, dot, size):
    rng = np.random.default_rng(4)
    weights = random_weights(rng, 12, 8, True)
    weights[2][:] = 0
    plan = plan_of(weights, True, isa, dot, activations=("linear", "sigmoid"))
    x = (rng.uniform(-1, 1, (5, 1, 12)) * size).astype("float32")
    h = (rng.uniform(-1, 1, (5, 8)) * size).astype("float32")
    found, wanted = run(plan, x, h)[0], gru_of_line(x, h, *weights)
    least = 2.0**-110  # less than that is zero beside it
    np.testing.assert_allclose(found[:, 0], wanted, rtol=0, atol=1e-3 * size + least)


def gru_of_line(x, h, kernel, recurrent, _):
    """One step, reset after, of rounded weights without a bias and with a linear candidate, in float64."""
    matrices = [integers * scales.astype("float64") for integers, scales in map(rounded, (kernel, recurrent))]
    a, b = (rows.astype("float64") @ matrix for rows, matrix in zip((x[:, 0], h), matrices, strict=True))
    with np.errstate(over="ignore"):
        z, r, _ = np.split(1 / (1 + np.exp(-(a + b))), 3, axis=1)
    a_hh, b_hh = a[:, 2 * h.shape[1] :], b[:, 2 * h.shape[1] :]
    return z * h + (1 - z) * (a_hh + r * b_hh)
