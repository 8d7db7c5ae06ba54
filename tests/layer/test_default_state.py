"""The state that a layer starts from when a call gives none: `default_state`, against the equations."""

import copy
import pickle

import numpy as np
import pytest
import reference

import fastgru

pytestmark = pytest.mark.usefixtures("choice")

UNITS, FEATURES = 5, 3


def close(result, wanted, dtype):
    np.testing.assert_allclose(
        result, wanted, atol={"float16": 4e-3, "float32": 1e-5, "float64": 1e-12}[dtype]
    )


def made(seed=0, batch=(), dtype="float32", **arguments):
    """A built layer and its default state, of finite weights of some size."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(*batch, UNITS)).astype(np.float32)
    layer = fastgru.GRU(UNITS, default_state=state, dtype=dtype, bias_initializer="ones", **arguments)
    layer.build((2, None, FEATURES))
    return layer, state, rng.normal(size=(2, 4, FEATURES)).astype(dtype)


def wanted(layer, x, state, mask=None):
    rows = np.broadcast_to(state, (len(x), UNITS))
    return reference.gru(
        x,
        *layer.get_weights(),
        activation=getattr(layer.activation, "__name__", layer.activation),
        reset_after=layer.reset_after,
        initial_state=rows,
        mask=mask,
        go_backwards=layer.go_backwards,
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("batch", [(), (1,), (2,)])
@pytest.mark.parametrize("reset_after", [False, True])
def test_a_call_without_a_state_starts_from_the_default(dtype, batch, reset_after):
    flags = {"return_sequences": True, "return_state": True, "reset_after": reset_after, "go_backwards": True}
    layer, state, x = made(batch=batch, dtype=dtype, **flags)
    mask = np.array([[True, False, True, True], [False, True, True, False]])
    for m in (None, mask):
        outputs, last = layer(x, mask=m)
        outputs_wanted, last_wanted = wanted(layer, x, state, m)
        close(outputs, outputs_wanted, dtype)
        close(last, last_wanted, dtype)
    out = np.empty_like(outputs)
    assert layer(x, out=out)[0] is out
    close(out, wanted(layer, x, state)[0], dtype)


def test_a_given_state_comes_before_the_default():
    layer, _, x = made()
    given = np.full((2, UNITS), 0.5, np.float32)
    for result in (layer(x, given), layer([x, given]), layer(x, np.zeros_like(given))):
        assert not np.array_equal(result, layer(x))
    close(layer(x, given), wanted(layer, x, given)[1], "float32")
    close(layer(x, np.zeros_like(given)), wanted(layer, x, 0 * given)[1], "float32")


def test_activations_in_numpy_and_dropout_start_from_it_too():
    layer, state, x = made(activation="softmax")
    close(layer(x), wanted(layer, x, state)[1], "float32")
    dropping, state, x = made(dropout=0.5)
    close(dropping(x), wanted(dropping, x, state)[1], "float32")
    fastgru.set_random_seed(0)
    unlike, _, x = made(dropout=0.5, kernel_initializer="zeros")  # whose input does not matter
    close(unlike(x, training=True), wanted(unlike, x, unlike.default_state)[1], "float32")


@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_stateful_layer_begins_with_it_and_goes_on_from_where_it_was(batch):
    layer, state, x = made(batch=batch, stateful=True)
    rows = np.broadcast_to(state, (2, UNITS))
    assert np.array_equal(layer.states[0], rows)
    first = layer(x)
    close(first, wanted(layer, x, state)[1], "float32")
    close(layer(x), wanted(layer, x, first)[1], "float32")
    layer.reset_states()
    assert np.array_equal(layer.states[0], rows)
    assert np.array_equal(layer(x), first)


def test_a_stateful_layer_takes_a_given_state_only_at_its_beginning():
    layer, _, x = made(stateful=True)
    given = np.full((2, UNITS), 0.5, np.float32)
    first = layer(x, given)
    close(first, wanted(layer, x, given)[1], "float32")
    close(layer(x, given), wanted(layer, x, first)[1], "float32")


def test_a_stateful_layer_set_to_zeros_goes_on_from_zeros():
    layer, _, x = made(stateful=True)
    layer.reset_states(np.zeros((2, UNITS), np.float32))
    close(layer(x), wanted(layer, x, np.zeros(UNITS))[1], "float32")


def test_the_initial_state_of_inputs_is_the_default():
    layer, state, x = made(dtype="float64")
    (initial,) = layer.get_initial_state(x)
    assert initial.dtype == np.float64
    assert np.array_equal(initial, np.broadcast_to(state, (2, UNITS)))


def test_configs_copies_and_pickles_have_it():
    layer, state, x = made(batch=(2,))
    assert np.array_equal(layer.default_state, state)
    assert not layer.default_state.flags.writeable
    state[...] = 7  # a copy was taken
    assert not np.array_equal(layer.default_state, state)
    config = layer.get_config()
    twin = fastgru.GRU.from_config(config)
    assert twin.get_config() == config
    assert np.array_equal(twin.default_state, layer.default_state)
    for kind in (copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        assert np.array_equal(kind(layer)(x), layer(x))
    assert "default_state" not in fastgru.GRU(3).get_config()
    assert fastgru.GRU(3).default_state is None


def test_a_default_state_for_a_batch_is_for_that_batch():
    layer, _, x = made(batch=(2,))
    with pytest.raises(ValueError, match="inputs must have the batch 2 of default_state, got 1"):
        layer(x[:1])
    assert layer(x[:1], np.zeros((1, UNITS), np.float32)).shape == (1, UNITS)
    stateful = fastgru.GRU(UNITS, default_state=np.ones((2, UNITS)), stateful=True)
    with pytest.raises(ValueError, match="inputs must have the batch 2 of default_state, got 3"):
        stateful.build((3, None, FEATURES))
    assert not stateful.built


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(4),
        np.zeros((0, UNITS)),
        np.zeros((1, 1, UNITS)),
        "zeros",
        [[1.0], [1.0, 2.0]],
        0.0,
        {},
        [None] * UNITS,
    ],
)
def test_what_is_no_state_is_refused(value):
    with pytest.raises(ValueError, match=r"default_state must be"):
        fastgru.GRU(UNITS, default_state=value)


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_both_directions_start_from_theirs(stateful, merge_mode):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(2, 4, FEATURES)).astype(np.float32)
    states = rng.normal(size=(2, UNITS)).astype(np.float32)
    forward, backward = (
        fastgru.GRU(UNITS, default_state=state, go_backwards=way, return_state=True, stateful=stateful)
        for way, state in enumerate(states)
    )
    layer = fastgru.Bidirectional(forward, backward_layer=backward, merge_mode=merge_mode)
    layer.build((2, None, FEATURES))
    *_, last, last_rev = layer(x)
    close(last, wanted(layer.forward_layer, x, states[0])[1], "float32")
    close(last_rev, wanted(layer.backward_layer, x, states[1])[1], "float32")
    if stateful:
        layer.reset_states()
    given = [np.full((2, UNITS), 0.25, np.float32), np.zeros((2, UNITS), np.float32)]
    *_, last, last_rev = layer(x, initial_state=given)
    close(last, wanted(layer.forward_layer, x, given[0])[1], "float32")
    close(last_rev, wanted(layer.backward_layer, x, given[1])[1], "float32")
    twin = fastgru.Bidirectional.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()


@pytest.mark.parametrize("rows", [1, 3])
def test_later_calls_start_from_the_default_as_the_first_one_does(rows):
    rng = np.random.default_rng(8)
    state, x = rng.normal(size=(rows, UNITS)), rng.normal(size=(3, 4, FEATURES)).astype("float32")
    lower, upper = (fastgru.GRU(UNITS, default_state=state, return_sequences=True) for _ in range(2))
    stack = fastgru.Stack([lower, upper], return_state=True)
    both = [np.broadcast_to(state, (3, UNITS)).astype("float32")] * 2
    first = stack(x)  # makes the network that the others run
    for given in (None, both, [None, both[1]], [both[0], None]):
        for found, wanted in zip(stack(x, initial_state=given), first, strict=True):
            assert np.array_equal(found, wanted)
    if rows > 1:
        with pytest.raises(ValueError, match="inputs must have the batch 3 of default_state, got 2"):
            stack(x[:2])


def test_later_calls_of_float16_are_the_first():
    rng = np.random.default_rng(9)
    x, state = rng.normal(size=(2, 4, FEATURES)).astype("float16"), np.ones((2, UNITS), "float16")
    layer = fastgru.GRU(UNITS, dtype="float16", default_state=state)
    first = layer(x)
    for given in (None, state, state.astype("float32")):
        found = layer(x, given)
        assert found.dtype == np.float16
        assert np.array_equal(found, first)
