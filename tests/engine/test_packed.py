"""The packed engine against the equations: every kernel on every instruction set, in every size of tile."""

import numpy as np
import pytest
import reference
from conftest import run_plan

import fastgru
from fastgru import _kernels, _plans

# instruction set and type of the weights
KERNELS = [(isa, weights) for isa in _kernels.isas() for weights in ("float32", "float64")]
KERNELS += [(isa, "float16") for isa in _kernels.float16_isas()]
HALF = {"float16": "float16"}
ROWS, TIMESTEPS = 20, 3
GUARDS = 40  # elements, more than a register has
# Sums of up to 90 terms of size 1 and less, three steps of them: some tens of roundings, of which few add up.
TOLERANCE = {"float32": 2e-6, "float64": 4e-15}


class Guarded:
    """An array among elements that no one may write to, and which are NaN, should anyone read them."""

    def __init__(self, values):
        *rows, n = values.shape
        whole = np.full((*rows, (n + 2 * GUARDS) * values.itemsize), 0xFF, "u1").view(values.dtype)
        self.guards = whole[..., :GUARDS], whole[..., -GUARDS:]
        self.values = whole[..., GUARDS:-GUARDS]
        self.values[...] = values

    def assert_whole(self):
        for guards in self.guards:
            assert (np.ascontiguousarray(guards).view("u1") == 0xFF).all()


def unwritten(*shape, dtype):
    """An array that equals none."""
    return np.full(shape, np.nan, dtype)


def random_weights(units, features, reset_after, weights, rng):
    dtype = "float64" if weights == "float64" else "float32"
    kernel = rng.normal(size=(features, 3 * units)) / max(features, 1) ** 0.5
    recurrent = rng.normal(size=(units, 3 * units)) / units**0.5
    bias = rng.normal(size=(2, 3 * units) if reset_after else 3 * units).astype(dtype)
    return *(w.astype(weights).astype(dtype) for w in (kernel, recurrent)), bias


def run(plan, x, h, mask, go_backwards=False, zero_output_for_mask=False):
    """Outputs of all steps and the last state; nothing else has been written."""
    batch, timesteps, _ = x.shape
    out = Guarded(unwritten(batch, timesteps, plan.units, dtype=x.dtype))
    state = Guarded(unwritten(batch * plan.units, dtype=x.dtype))
    last = state.values.reshape(batch, plan.units)
    run_plan(plan, x, h, last, out.values, mask, False, go_backwards, zero_output_for_mask)
    out.assert_whole()
    state.assert_whole()
    return out.values, last


@pytest.mark.parametrize("units", range(1, 71))
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize(("isa", "weights"), KERNELS)
def test_every_tile_gives_the_equations_and_writes_nothing_else(isa, weights, reset_after, units):
    rng = np.random.default_rng(units)
    features = int(rng.integers(0, 20))
    arrays = random_weights(units, features, reset_after, weights, rng)
    dtype = arrays[0].dtype
    plan = _plans.Plan(
        *arrays, reset_after, ("tanh", 0.0), ("sigmoid", 0.0), "packed", isa, HALF.get(weights)
    )
    x = Guarded(rng.normal(size=(ROWS, TIMESTEPS, features)).astype(dtype)).values
    h = Guarded(rng.normal(size=ROWS * units).astype(dtype)).values.reshape(ROWS, units)
    mask = rng.random((ROWS, TIMESTEPS)) < 0.7
    masked = Guarded(np.where(mask[..., np.newaxis], x, np.nan)).values
    cases = [
        (x[:, :1], None, {}),  # a step by itself
        (x, None, {}),  # with x.kernel computed ahead
        (masked[:, :1], mask[:, :1], {}),
        (masked, mask, {"go_backwards": True}),
        (masked, mask, {"zero_output_for_mask": True}),
    ]
    for x, mask, flags in cases:
        equations = {"recurrent_activation": "sigmoid", "reset_after": reset_after, "initial_state": h}
        wanted = reference.gru(x, *arrays, **equations, mask=mask, **flags)
        for rows in range(1, ROWS + 1):
            found = run(plan, x[:rows], h[:rows], None if mask is None else mask[:rows], **flags)
            for ours, theirs in zip(found, wanted, strict=True):
                np.testing.assert_allclose(
                    ours, theirs[:rows], rtol=0, atol=TOLERANCE[dtype.name], err_msg=f"{rows} rows, {flags}"
                )


# Activations as the engine knows them, by their functions in the reference.
ACTIVATIONS = {
    fastgru.activations.get(name).kernel: function
    for name, function in reference.ACTIVATIONS.items()
    if fastgru.activations.get(name).kernel is not None
}
ACTIVATIONS["thresholded_relu", 0.25] = lambda x: np.where(x > 0.25, x, 0)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda activation: activation[0])
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize(("isa", "weights"), KERNELS)
def test_every_activation_gives_the_equations_in_either_place(isa, weights, reset_after, activation):
    usual = {"tanh": ("tanh", 0.0), "hard_sigmoid": ("hard_sigmoid", 0.0)}
    for units in (1, 6, 21, 37):
        rng = np.random.default_rng(units)
        arrays = [w / 3 for w in random_weights(units, 5, reset_after, weights, rng)]
        arrays[:2] = [w.astype(weights).astype(w.dtype) for w in arrays[:2]]
        dtype = arrays[0].dtype
        x = rng.normal(size=(7, TIMESTEPS, 5)).astype(dtype)
        for g, f in ((activation, usual["hard_sigmoid"]), (usual["tanh"], activation)):
            plan = _plans.Plan(*arrays, reset_after, g, f, "packed", isa, HALF.get(weights))
            wanted, last = reference.gru(
                x,
                *arrays,
                activation=ACTIVATIONS[g],
                recurrent_activation=ACTIVATIONS[f],
                reset_after=reset_after,
            )
            size = max(1.0, np.abs(wanted).max())  # sums round relative to their largest term
            close = {"rtol": 0, "atol": TOLERANCE[dtype.name] * size, "err_msg": f"{units} units"}
            for steps in (1, TIMESTEPS):
                output, state = run(plan, x[:, :steps], None, None)
                np.testing.assert_allclose(output, wanted[:, :steps], **close)
                np.testing.assert_allclose(state, output[:, -1], rtol=0, atol=0)
            np.testing.assert_allclose(state, last, **close)
