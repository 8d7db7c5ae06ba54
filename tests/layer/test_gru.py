"""The layer against the equations: every argument, alone and together, on every instruction set."""

import copy
import pickle

import numpy as np
import pytest
import reference
from conftest import CHOICES
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import fastgru
from fastgru import _config

pytestmark = pytest.mark.usefixtures("choice")

TOLERANCE = {"float64": 1e-12, "float32": 2e-5, "float16": 6e-3}
BOUNDED = ["tanh", "sigmoid", "hard_sigmoid", "softsign", "softmax"]
SMOOTH = sorted(set(reference.ACTIVATIONS) - {"exponential", *BOUNDED})


def weights_for(layer, features, rng, scale=1.0):
    width = 3 * layer.units
    weights = [
        rng.normal(scale=scale / np.sqrt(max(features, 1)), size=(features, width)),
        rng.normal(scale=scale / np.sqrt(layer.units), size=(layer.units, width)),
    ]
    if layer.use_bias:
        weights.append(rng.normal(scale=scale, size=(2, width) if layer.reset_after else width))
    return weights


def expected(layer, x, weights, state=None, mask=None):
    outputs, last = reference.gru(
        x,
        *weights,
        activation=layer.activation if not hasattr(layer.activation, "kernel") else layer.activation.__name__,
        recurrent_activation=layer.recurrent_activation.__name__,
        reset_after=layer.reset_after,
        initial_state=state,
        mask=mask,
        go_backwards=layer.go_backwards,
        zero_output_for_mask=layer.zero_output_for_mask,
        time_major=layer.time_major,
    )
    return outputs, last


def check(layer, result, outputs, state):
    """Structure, shapes, dtype and values of a call's result."""
    tolerance = TOLERANCE[layer.dtype]
    assert isinstance(result, list) == layer.return_state
    output, *states = result if layer.return_state else [result]
    want = outputs if layer.return_sequences else outputs.take(-1, axis=0 if layer.time_major else 1)
    for got, wanted in zip([output, *states], [want, state][: 1 + layer.return_state], strict=True):
        assert got.dtype == layer.dtype
        assert got.flags.writeable
        # sums round relative to their largest term, which unbounded activations let grow
        size = max(1.0, np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance * size)


@st.composite
def calls(draw):
    """Constructor arguments, sizes and a seed: every argument of the layer at once."""
    flags = (
        "use_bias return_sequences return_state go_backwards stateful unroll reset_after time_major "
        "zero_output_for_mask"
    )
    arguments = {flag: draw(st.booleans()) for flag in flags.split()}
    arguments |= {
        "units": draw(st.sampled_from([1, 2, 3, 4, 7, 8, 9, 16, 17, 33])),
        "activation": draw(st.sampled_from(BOUNDED + SMOOTH)),
        "recurrent_activation": draw(st.sampled_from(["sigmoid", "hard_sigmoid", "softmax"])),
        "implementation": draw(st.sampled_from([1, 2])),
        "dtype": draw(st.sampled_from(["float32", "float64"])),
        "dropout": draw(st.sampled_from([0.0, 0.4])),
        "recurrent_dropout": draw(st.sampled_from([0.0, 0.4])),
    }
    sizes = {
        "batch": draw(st.integers(1, 11)),
        "timesteps": draw(st.integers(1, 7)),
        "features": draw(st.integers(0, 9)),
    }
    has = {"mask": draw(st.booleans()), "state": draw(st.booleans()), "nan": draw(st.booleans())}
    return arguments, sizes, has, draw(st.integers(0, 2**32 - 1))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls())
def test_every_combination_of_arguments_gives_the_equations(choice, call):
    arguments, sizes, has, seed = call
    note(f"seed {seed}")
    rng = np.random.default_rng(seed)
    layer = fastgru.GRU(**arguments)
    batch, timesteps, features = sizes.values()
    weights = [w.astype(layer.dtype) for w in weights_for(layer, features, rng, scale=0.6)]
    first = (timesteps, batch) if layer.time_major else (batch, timesteps)
    layer.build((*first, features))
    layer.set_weights(weights)

    state = None
    for number in range(3 if layer.stateful else 1):
        x = rng.normal(size=(*first, features)).astype(layer.dtype)
        mask = rng.random(first) < 0.6 if has["mask"] else None
        given_state = rng.normal(size=(batch, layer.units)).astype(layer.dtype) if has["state"] else None
        outputs, last = expected(
            layer, x, weights, given_state if state is None or not state.any() else state, mask
        )
        if has["nan"] and mask is not None:
            x[~mask] = np.nan
        if has["state"] and number == 0:
            result = layer([x, given_state], mask=mask)
        else:
            result = layer(x, given_state, mask)
        check(layer, result, outputs, last)
        if layer.stateful:
            state = layer.states[0]
            assert not state.flags.writeable
            np.testing.assert_allclose(state, last, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(last).max()))
        else:
            assert layer.states == [None]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize(
    ("batch", "timesteps", "features", "units"),
    [
        (1, 300, 40, 64),
        (3, 50, 17, 129),
        (9, 40, 128, 31),
        (70, 20, 5, 100),
        (400, 6, 3, 260),
        (2000, 3, 1, 1),
    ],
)
def test_larger_sizes_give_the_equations(choice, batch, timesteps, features, units, reset_after, dtype):
    rng = np.random.default_rng(units)
    layer = fastgru.GRU(units, return_sequences=True, return_state=True, reset_after=reset_after, dtype=dtype)
    weights = [w.astype(dtype) for w in weights_for(layer, features, rng)]
    layer.build((None, None, features))
    layer.set_weights(weights)
    x = rng.normal(size=(batch, timesteps, features)).astype(dtype)
    mask = rng.random((batch, timesteps)) < 0.8
    for m in (None, mask):
        check(layer, layer(x, mask=m), *expected(layer, x, weights, mask=m))


def test_float16_comes_and_goes_and_is_computed_in_float32():
    rng = np.random.default_rng(0)
    layer = fastgru.GRU(20, return_sequences=True, return_state=True, dtype="float16", stateful=True)
    x = rng.normal(size=(2, 30, 5)).astype(np.float16)
    layer.build(x.shape)
    weights = [w.astype(np.float16) for w in weights_for(layer, 5, rng)]
    layer.set_weights(weights)
    assert all(w.dtype == np.float16 for w in layer.get_weights())
    outputs, last = expected(layer, x, weights)
    result = layer(x)
    check(layer, result, outputs, last)
    assert layer.states[0].dtype == np.float16
    # one rounding at the end, none on the way
    np.testing.assert_allclose(result[0], outputs, atol=2**-11, rtol=2**-11)


@pytest.mark.parametrize("name", sorted(reference.ACTIVATIONS))
def test_every_named_activation_runs_in_both_places(choice, name):
    rng = np.random.default_rng(1)
    for arguments in ({"activation": name}, {"recurrent_activation": name}):
        layer = fastgru.GRU(5, **arguments, return_sequences=True, return_state=True, dtype="float64")
        x = rng.normal(size=(3, 4, 2))
        weights = weights_for(layer, 2, rng, scale=0.3)
        layer.build(x.shape)
        layer.set_weights(weights)
        outputs, last = reference.gru(x, *weights, **arguments)
        check(layer, layer(x), outputs, last)


def test_a_python_callable_is_an_activation():
    def clipped(x):
        assert x.shape == (3, 5)
        return np.clip(x, -0.1, 0.3)

    rng = np.random.default_rng(2)
    for reset_after in (False, True):
        layer = fastgru.GRU(
            5,
            activation=clipped,
            recurrent_activation=fastgru.activations.sigmoid,
            return_sequences=True,
            return_state=True,
            reset_after=reset_after,
        )
        x = rng.normal(size=(3, 6, 2)).astype(np.float32)
        mask = rng.random((3, 6)) < 0.5
        weights = weights_for(layer, 2, rng)
        layer.build(x.shape)
        layer.set_weights(weights)
        outputs, last = reference.gru(
            x,
            *weights,
            activation=clipped,
            recurrent_activation="sigmoid",
            reset_after=reset_after,
            mask=mask,
        )
        check(layer, layer(x, mask=mask), outputs, last)


def test_a_callable_that_returns_another_shape_is_refused_and_changes_no_state():
    layer = fastgru.GRU(5, activation=lambda x: x[:, :2], stateful=True)
    layer.build((1, None, 2))
    with pytest.raises(ValueError, match=r"activation must return shape \(1, 5\)"):
        layer(np.zeros((1, 2, 2), np.float32))
    assert not layer.states[0].any()


def test_prelu_has_a_weight_behind_the_bias():
    rng = np.random.default_rng(3)
    layer = fastgru.GRU(4, activation="PReLU", return_sequences=True, return_state=True, dtype="float64")
    x = rng.normal(size=(2, 5, 3))
    layer.build(x.shape)
    assert [w.shape for w in layer.weights] == [(3, 12), (4, 12), (12,), (4,)]
    alpha = rng.normal(size=4)
    weights = weights_for(layer, 3, rng)
    layer.set_weights([*weights, alpha])
    outputs, last = reference.gru(x, *weights, activation=lambda v: np.where(v >= 0, v, alpha * v))
    check(layer, layer(x), outputs, last)


def test_no_features_leave_the_bias():
    layer = fastgru.GRU(3, bias_initializer="ones", dtype="float64")
    y = layer(np.zeros((2, 4, 0)))
    np.testing.assert_allclose(y, reference.gru(np.zeros((2, 4, 0)), *layer.get_weights())[1], atol=1e-12)


def test_an_empty_batch_gives_empty_results():
    layer = fastgru.GRU(3, return_sequences=True, return_state=True)
    sequences, state = layer(np.zeros((0, 4, 2), np.float32), mask=np.zeros((0, 4), bool))
    assert sequences.shape == (0, 4, 3)
    assert state.shape == (0, 3)


def test_results_are_arrays_of_the_callers_own():
    layer = fastgru.GRU(3, return_state=True, stateful=True)
    x = np.ones((1, 2, 4), np.float32)
    output, state = layer(x)
    before = layer.states[0].copy()
    output[...], state[...] = 7, 8
    assert (layer.states[0] == before).all()
    stateless = fastgru.GRU(3, return_state=True)
    output, state = stateless(x)
    output[...] = 7
    assert not (state == 7).any()


def test_without_a_regularizer_the_activity_is_no_loss():
    layer = fastgru.GRU(3, activity_regularizer="l2")
    layer(np.ones((2, 2, 4), np.float32))
    assert len(layer.losses) == 1
    layer.activity_regularizer = None
    layer(np.ones((2, 2, 4), np.float32))
    assert layer.losses == []


def test_splitting_in_time_equals_one_call(choice):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2, 20, 6)).astype(np.float32)
    whole = fastgru.GRU(10, return_sequences=True)
    parts = fastgru.GRU(10, return_sequences=True, stateful=True)
    once = whole(x)
    parts.build((2, None, 6))
    parts.set_weights(whole.get_weights())
    pieces = [parts(x[:, a:b]) for a, b in ((0, 1), (1, 8), (8, 20))]
    np.testing.assert_allclose(np.concatenate(pieces, 1), once, atol=1e-6)


def test_kinds_of_copies_compute_the_same():
    rng = np.random.default_rng(5)
    layer = fastgru.GRU(6, activation="mish", stateful=True, kernel_regularizer="l2", return_sequences=True)
    x = rng.normal(size=(2, 3, 4)).astype(np.float32)
    layer(x)
    kinds = (copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a)))
    copies = [make(layer) for make in kinds]
    wanted = layer(x)
    for twin in copies:
        np.testing.assert_array_equal(twin(x), wanted)
        np.testing.assert_array_equal(twin.states[0], layer.states[0])
        assert twin.get_config() == layer.get_config()
        assert twin.losses == layer.losses
        twin.set_weights([w * 0 for w in twin.get_weights()])
    assert all(w.any() for w in layer.get_weights()[:2])


@pytest.mark.parametrize("arguments", [{}, {"reset_after": True, "dtype": "float64"}, {"activation": "mish"}])
def test_a_pickle_says_nothing_of_where_it_was_made(choice, arguments, monkeypatch):
    rng = np.random.default_rng(6)
    layer = fastgru.GRU(9, stateful=True, return_sequences=True, **arguments)
    x = rng.normal(size=(2, 5, 4)).astype(layer.dtype)
    layer(x)
    pickled = pickle.dumps(layer)
    for name in ("packed", "blas", "avx512", "avx2", "sse2", "neon", "generic"):
        assert name.encode() not in pickled
    wanted = layer(x)
    for other in CHOICES:
        monkeypatch.setattr(_config, "CHOICE", other)
        twin = pickle.loads(pickled)
        same = choice.engine == other.engine == "packed" or choice == other
        np.testing.assert_allclose(twin(x), wanted, rtol=0, atol=0 if same else TOLERANCE[layer.dtype])
        assert pickle.dumps(pickle.loads(pickled)) == pickled


def test_out_is_written_and_returned(choice):
    rng = np.random.default_rng(6)
    x = rng.normal(size=(2, 3, 4)).astype(np.float32)
    mask = np.array([[True, False, True], [False, False, False]])
    for dtype in ("float32", "float16"):
        for arguments in ({}, {"return_sequences": True}, {"return_state": True}, {"stateful": True}):
            layer = fastgru.GRU(5, dtype=dtype, **arguments)
            twin = copy.deepcopy(layer)
            for m in (None, mask):
                wanted = layer(x, mask=m)
                twin.build(x.shape)
                twin.set_weights(layer.get_weights())
                shape = (2, 3, 5) if layer.return_sequences else (2, 5)
                big = np.full((*shape[:-1], 12), 9, dtype)
                for out in (
                    np.empty(shape, dtype),
                    big[..., 3:8],
                    big[..., 1:11:2],
                    np.empty(shape, dtype, "F"),
                ):
                    layer.reset_states() if layer.stateful else None
                    wanted = layer(x, mask=m)
                    twin.reset_states() if layer.stateful else None
                    result = twin(x, mask=m, out=out)
                    output = result[0] if layer.return_state else result
                    assert output is out
                    np.testing.assert_array_equal(out, wanted[0] if layer.return_state else wanted)
                assert (big[..., 11] == 9).all()
                assert (big[..., 0] == 9).all()
