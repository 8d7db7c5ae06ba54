"""Bidirectional: what the original's wrapper gives, and two directions that change together or not at all."""

import copy
import inspect
import json
import pickle
import sys
import threading
import time
from unittest import mock

import numpy as np
import pytest
import reference
from conftest import CHOICES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastgru
from fastgru import GRU, Bidirectional, _config, _layer

TOLERANCE = {"float32": 3e-5, "float64": 1e-10}
MODES = ["concat", "sum", "ave", "mul", None]
FLAGS = st.booleans()
X = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
H, H2 = np.random.default_rng(2).normal(size=(2, 2, 5)).astype(np.float32)
M = np.array([[False, True, True], [False, False, False]])


@pytest.fixture(scope="session")
def original(tensorflow):
    return tensorflow.compat.v1.keras.layers.GRU


@pytest.fixture(scope="session")
def wrapper(keras):
    return keras.layers.Bidirectional


def everywhere(layer):
    """Copies of a layer, one for every engine on every instruction set."""
    copies = []
    for choice in CHOICES:
        with mock.patch.object(_config, "CHOICE", choice):
            copies.append(copy.deepcopy(layer))
    return copies


def as_list(results):
    return results if isinstance(results, list) else [results]


def assert_close(found, expected, dtype="float32"):
    """Same structure, shapes and dtypes; values within the dtype's tolerance; whole arrays."""
    assert isinstance(found, list) == isinstance(expected, list)
    for ours, theirs in zip(as_list(found), as_list(expected), strict=True):
        theirs = np.asarray(theirs)
        assert type(ours) is np.ndarray
        assert ours.flags.c_contiguous
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE[dtype])


def assert_same_bits(found, expected):
    assert [a.tobytes() for a in as_list(found)] == [a.tobytes() for a in as_list(expected)]


def random_weights(layer, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 1 / max(1, w.shape[0]) ** 0.5, w.shape) for w in layer.get_weights()]


def built(*arguments, shape=X.shape, **options):
    """A layer with random weights."""
    layer = Bidirectional(*arguments, **options)
    layer.build(shape)
    layer.set_weights(random_weights(layer))
    return layer


# ---- the original --------------------------------------------------------------------------------

OWN = st.fixed_dictionaries(  # what the directions need not share, whatever is merged
    {
        "activation": st.sampled_from(["tanh", "sigmoid", "softsign"]),
        "recurrent_activation": st.sampled_from(["hard_sigmoid", "sigmoid"]),
        "use_bias": FLAGS,
        "reset_after": FLAGS,
        "zero_output_for_mask": FLAGS,
    }
)
SHARED = st.fixed_dictionaries(
    {
        "return_sequences": FLAGS,
        "return_state": FLAGS,
        "stateful": FLAGS,
        "time_major": FLAGS,
        "activity_regularizer": st.sampled_from([None, None, None, "l2"]),
        "dtype": st.sampled_from(["float32", "float64"]),
    }
)
CALLS = st.fixed_dictionaries(
    {
        "timesteps": st.integers(1, 5),
        "mask": st.sampled_from([None, None, "random", "leading", "trailing", "all"]),
        "masked": st.sampled_from([0.0, np.nan]),
        "state": st.sampled_from([None, "list", "tuple", "inputs"]),
        "reset": st.sampled_from([None, None, "zeros", "values"]),
        "order": st.sampled_from(["__call__", "call"]),
    }
)


def mask_of(kind, batch, timesteps, rng):
    """(batch, timesteps), or None."""
    first = rng.integers(0, timesteps + 1, (batch, 1))
    steps = np.arange(timesteps)
    masks = {"leading": steps >= first, "trailing": steps < first, "all": steps + 0 * first < 0}
    return rng.random((batch, timesteps)) < 0.6 if kind == "random" else masks.get(kind)


@settings(
    max_examples=30,
    deadline=None,
    print_blob=True,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
@given(
    mode=st.sampled_from(MODES),
    shared=SHARED,
    own=OWN,
    other=st.none() | OWN,
    go_backwards=FLAGS,
    units=st.integers(1, 9) | st.integers(30, 40),
    more_units=st.integers(0, 3),
    batch=st.integers(1, 5),
    features=st.integers(1, 7),
    calls=st.lists(CALLS, min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_calls_of_any_layer_agree(
    mode, shared, own, other, go_backwards, units, more_units, batch, features, calls, seed,
    original, wrapper, tensorflow,
):  # fmt: skip
    rng = np.random.default_rng(seed)
    dtype, time_major = shared["dtype"], shared["time_major"]
    sizes = [units, units + (more_units if other is not None and mode in ("concat", None) else 0)]

    def wrapped(bidirectional, gru):
        backward = None
        if other is not None:
            backward = gru(sizes[1], go_backwards=not go_backwards, **other, **shared)
        layer = gru(sizes[0], go_backwards=go_backwards, **own, **shared)
        return bidirectional(layer, merge_mode=mode, backward_layer=backward, dtype=dtype)

    ours, theirs = wrapped(Bidirectional, GRU), wrapped(wrapper, original)
    first = np.zeros((1, batch, features) if time_major else (batch, 1, features), dtype)
    ours(first), theirs(first)
    assert [w.shape for w in ours.get_weights()] == [w.shape for w in theirs.get_weights()]
    weights = random_weights(ours, seed)
    for layer in (ours, theirs):
        layer.set_weights(weights)
        if shared["stateful"]:
            layer.reset_states()
    ours = everywhere(ours)

    for call in calls:
        x = rng.normal(size=(batch, call["timesteps"], features)).astype(dtype)
        mask = mask_of(call["mask"], batch, call["timesteps"], rng)
        if mask is not None:
            x[~mask] = call["masked"]
        if time_major:
            x, mask = x.swapaxes(0, 1), None if mask is None else mask.T
        states = [rng.normal(0, 0.5, (batch, size)).astype(dtype) for size in sizes]
        if shared["stateful"] and call["reset"] is not None:
            for layer in (*ours, theirs):
                layer.reset_states(None if call["reset"] == "zeros" else states)

        def result(layer, array, call=call, x=x, mask=mask, states=states):
            inputs, options = x, {} if mask is None else {"mask": mask}
            if call["state"] == "inputs":
                inputs = [array(x), *map(array, states)]
            elif call["state"] is not None:
                options["initial_state"] = (list if call["state"] == "list" else tuple)(map(array, states))
            if call["order"] == "call" and isinstance(layer, Bidirectional):
                return layer.call(inputs, None, mask, options.get("initial_state"))
            return layer(inputs, **options)

        expected = result(theirs, tensorflow.constant)
        for layer in ours:
            assert_close(result(layer, np.asarray), expected, dtype)
            if shared["stateful"]:
                recorded = theirs.forward_layer.states + theirs.backward_layer.states
                assert_close(layer.states, recorded, dtype)
            assert len(layer.losses) == len(theirs.losses)
            tolerance = TOLERANCE[dtype]
            np.testing.assert_allclose(layer.losses, theirs.losses, rtol=20 * tolerance, atol=tolerance)


@pytest.mark.parametrize(("mode", "options"), [("concat", {}), ("ave", {"reset_after": True})], ids=repr)
def test_larger_sizes_agree(mode, options, original, wrapper):
    x = np.random.default_rng(0).normal(size=(33, 40, 17)).astype(np.float32)
    mask = np.random.default_rng(1).random((33, 40)) < 0.8
    options = {"return_sequences": True, "return_state": True} | options
    ours, theirs = Bidirectional(GRU(65, **options), mode), wrapper(original(65, **options), mode)
    for layer in (ours, theirs):
        layer.build(x.shape)
    theirs.set_weights(random_weights(ours))
    ours.set_weights(theirs.get_weights())
    for given_mask in (None, mask):
        expected = theirs(x, mask=given_mask)
        for layer in everywhere(ours):
            assert_close(layer(x, mask=given_mask), expected)


PLAIN = [
    {},
    {"merge_mode": None, "name": "mine", "trainable": False},
    {"merge_mode": "sum", "dtype": "float64", "batch_input_shape": (2, None, 4)},
    {"merge_mode": "mul", "input_shape": (3, 4), "batch_size": 2},
]
LAYERS = [  # and is there a backward layer?
    ({}, False),
    ({"return_sequences": True, "return_state": True, "stateful": True, "name": "inner"}, True),
    ({"go_backwards": True, "reset_after": True, "zero_output_for_mask": True, "trainable": False}, False),
    ({"go_backwards": True, "return_sequences": True, "zero_output_for_mask": True}, True),
    ({"kernel_regularizer": "l2", "bias_constraint": "non_neg", "batch_input_shape": (2, 3, 4)}, False),
]


def layers_of(gru, options, with_backward, units=5):
    """Arguments of a wrapper."""
    made = {"layer": gru(units, **{"name": "gru"} | options)}
    if with_backward:
        turned = {"name": "other", "go_backwards": not options.get("go_backwards"), "activation": "sigmoid"}
        made["backward_layer"] = gru(units, **options | turned)
    return made


@pytest.mark.parametrize(("options", "with_backward"), LAYERS, ids=repr)
@pytest.mark.parametrize("kwargs", PLAIN, ids=repr)
def test_config_and_weights_move_both_ways(kwargs, options, with_backward, original, wrapper):
    kwargs = {"name": "bi"} | kwargs
    ours = Bidirectional(**layers_of(GRU, options, with_backward), **kwargs)
    theirs = wrapper(**layers_of(original, options, with_backward), **kwargs)
    config = ours.get_config()
    assert list(config.items()) == list(theirs.get_config().items())
    assert [d.name for d in (ours.forward_layer, ours.backward_layer)] == [
        d.name for d in (theirs.forward_layer, theirs.backward_layer)
    ]
    before = copy.deepcopy(config)
    again, across = Bidirectional.from_config(config), wrapper.from_config(config)
    assert config == before
    assert again.get_config() == Bidirectional.from_config(theirs.get_config()).get_config() == config
    assert Bidirectional.from_config(json.loads(json.dumps(config))).built is False
    for layer in (ours, theirs, across, again):
        layer(X.astype(ours.dtype))
        layer.set_weights(random_weights(ours))
    ours.set_weights(theirs.get_weights())
    across.set_weights(ours.get_weights())
    for layer in (theirs, ours, across, again):
        if layer.stateful:
            layer.reset_states()
    x = X.astype(ours.dtype)
    expected = theirs(x, mask=M)
    assert_close(as_list(ours(x, mask=M)), as_list(expected))
    assert_close(as_list(again(x, mask=M)), as_list(expected))
    assert_close([np.array(a) for a in as_list(across(x, mask=M))], as_list(expected))


@pytest.mark.parametrize("with_backward", [False, True])
def test_config_of_older_versions_is_taken(with_backward):
    layer = Bidirectional(**layers_of(GRU, {}, with_backward), name="bi")
    config = layer.get_config() | {"num_constants": 0}
    for name in ("layer", "backward_layer"):
        if name in config:
            config[name] = {key: config[name][key] for key in ("class_name", "config")}
    assert Bidirectional.from_config(config).get_config() == layer.get_config()


def test_a_config_is_no_part_of_the_layer():
    layer = Bidirectional(GRU(5))
    layer.get_config()["layer"]["config"]["units"] = 6
    assert layer.get_config()["layer"]["config"]["units"] == 5


def test_default_dtype_is_that_of_the_layer_and_loses_nothing(original, wrapper):
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    layer = built(GRU(5, dtype="float64"))
    assert layer.dtype == "float64"
    forward = reference.gru(x, *layer.get_weights()[:3])[1]
    np.testing.assert_allclose(layer(x)[:, :5], forward, rtol=0, atol=1e-12)
    rounding = built(GRU(5, dtype="float64"), dtype="float32")  # which is the original's default
    theirs = wrapper(original(5, dtype="float64"))
    theirs.build(x.shape)
    theirs.set_weights(rounding.get_weights())
    assert_close(rounding(x), theirs(x), "float64")
    assert np.abs(rounding(x) - layer(x)).max() > 1e-10


@pytest.mark.parametrize(
    ("flags", "kwargs"),
    [
        ((True, False), {}),
        ((False, True), {}),
        ((False, True), {"trainable": True}),
        ((True, False), {"trainable": False}),
        ((True, True), {"trainable": True}),
    ],
    ids=repr,
)
def test_weights_have_the_order_of_the_original(kwargs, flags, original, wrapper):
    def wrapped(bidirectional, gru):
        backward = gru(5, go_backwards=True, trainable=flags[1])
        layer = bidirectional(gru(5, trainable=flags[0]), backward_layer=backward, **kwargs)
        layer(X)
        return layer

    ours, theirs = wrapped(Bidirectional, GRU), wrapped(wrapper, original)
    for trainable in (None, False, True):
        if trainable is not None:
            ours.trainable = theirs.trainable = trainable
        assert ours.trainable == theirs.trainable
        theirs.set_weights(random_weights(ours))
        ours.set_weights(theirs.get_weights())
        assert_close(ours(X), theirs(X))
        for name in ("weights", "trainable_weights", "non_trainable_weights"):
            found, expected = getattr(ours, name), getattr(theirs, name)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
        assert ours.count_params() == theirs.count_params() == 300
        assert ours.forward_layer.trainable == theirs.forward_layer.trainable


def plain(shapes):
    return [tuple(s) for s in shapes] if isinstance(shapes, list) else tuple(shapes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("state", [False, True])
def test_shapes_and_masks_are_those_of_the_original(mode, sequences, state, original, wrapper):
    options = {"return_sequences": sequences, "return_state": state}
    ours, theirs = Bidirectional(GRU(5, **options), mode), wrapper(original(5, **options), mode)
    for shape in ((2, 3, 4), (None, None, 4), (None, 2, None)):
        found, expected = ours.compute_output_shape(shape), theirs.compute_output_shape(shape)
        assert plain(found) == plain(expected)
    assert plain(ours.compute_output_shape(X.shape)) == plain(
        [r.shape for r in ours(X)] if isinstance(ours(X), list) else ours(X).shape
    )
    for mask in (None, M, [M]):
        found, expected = ours.compute_mask(X, mask), theirs.compute_mask(X, mask)
        assert isinstance(found, list) == isinstance(expected, list)
        assert all(a is b for a, b in zip(as_list(found), as_list(expected), strict=True))


def test_shapes_of_different_sizes_are_those_of_the_results():
    for mode, expected in (("concat", (2, 11)), (None, [(2, 5), (2, 6)])):
        layer = Bidirectional(GRU(5), mode, backward_layer=GRU(6, go_backwards=True))
        assert layer.compute_output_shape(X.shape) == expected
        assert plain([r.shape for r in layer(X)] if mode is None else layer(X).shape) == expected


def test_signatures_are_those_of_the_original(wrapper):
    for name in ("__init__", "call"):
        ours, theirs = (inspect.signature(getattr(c, name)).parameters for c in (Bidirectional, wrapper))
        expected = [(p.name, p.default) for p in theirs.values() if p.name != "constants"]
        assert [(p.name, p.default) for p in ours.values() if p.name not in ("lengths", "out")] == expected


# ---- the engines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{}, {"return_sequences": True}, {"activation": np.tanh}], ids=repr)
def test_results_are_those_of_both_directions(choice, mode, options):
    """bidirectional_test, test_Bidirectional_merged_value, bit for bit."""
    layer = built(GRU(5, return_state=True, **options), mode)
    y, forward = layer.forward_layer(X, H, M)
    y_rev, backward = layer.backward_layer(X, H2, M)
    y_rev = y_rev[:, ::-1] if layer.return_sequences else y_rev
    merged = {
        "concat": [np.concatenate([y, y_rev], -1)],
        "sum": [y + y_rev],
        "ave": [(y + y_rev) / 2],
        "mul": [y * y_rev],
        None: [y, y_rev],
    }
    assert_same_bits(layer(X, [H, H2], M), [*merged[mode], forward, backward])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
def test_results_share_no_memory(choice, mode, stateful, sequences):
    options = {"return_sequences": sequences, "return_state": True, "stateful": stateful}
    layer = built(GRU(5, **options), mode)
    kept = []
    for mask in (None, M, None):
        kept += layer(X, [H, H2], mask)
    recorded = [d._state for d in (layer.forward_layer, layer.backward_layer) if stateful]
    arrays = [*kept, *recorded, H, H2]
    for i, array in enumerate(arrays):
        assert array.flags.owndata or array is H or array is H2
        assert not any(np.shares_memory(array, other) for other in arrays[:i] if array is not other)
    before = [a.copy() for a in kept]
    layer(X[::-1], mask=M)
    assert_same_bits(kept, before)


# ---- themes of the original's own tests ----------------------------------------------------------


def test_a_wrapped_layer_gives_its_config_alone():
    """test_reset_states and the source: weights and states are not taken over."""
    inner = GRU(5, name="inner", stateful=True)
    inner(X)
    layer = Bidirectional(inner)
    assert not layer.built
    assert layer.states == [None, None]
    assert (layer.forward_layer.name, layer.backward_layer.name) == ("forward_inner", "backward_inner")
    assert inner.name == "inner"
    assert inner.states[0].any()


@pytest.mark.parametrize("give", [True, False])
def test_a_backward_layer_keeps_its_weights_and_is_left_alone(give):
    backward = GRU(5, go_backwards=True, return_sequences=True, name="mine")
    if give:
        backward.build(X.shape)
    layer = Bidirectional(GRU(5, return_sequences=True), backward_layer=backward)
    layer(X)
    assert layer.backward_layer.name == "backward_mine"
    assert backward.name == "mine"
    assert not backward.zero_output_for_mask
    assert backward.built is give
    if give:
        assert_same_bits(layer.get_weights()[3:], backward.get_weights())
        layer.set_weights(random_weights(layer))
        assert layer.get_weights()[3].tobytes() != backward.get_weights()[0].tobytes()


def test_wrapping_a_backward_layer_swaps_the_roles():
    layer = built(GRU(5, go_backwards=True, return_sequences=True))
    assert layer.forward_layer.go_backwards
    assert not layer.backward_layer.go_backwards
    assert_same_bits(layer(X)[..., 5:].copy(), layer.backward_layer(X)[:, ::-1].copy())


@pytest.mark.parametrize("sequences", [False, True])
def test_masked_outputs_are_zero_in_sequences_only(choice, sequences):
    """test_Bidirectional_sequence_output_with_masking, test_Bidirectional_last_output_with_masking."""
    mask = np.array([[True, True, False], [True, True, True]])
    layer = Bidirectional(GRU(3, return_sequences=sequences, return_state=True, zero_output_for_mask=True))
    output, forward, backward = layer(X, mask=mask, training=True)
    if sequences:
        assert not output[0, 2].any()
        assert output[0, :2].all()
    else:
        np.testing.assert_array_equal(output, np.concatenate([forward, backward], axis=1))


@pytest.mark.parametrize("time_major", [False, True])
def test_time_major_is_batch_major_turned(choice, time_major):
    """test_Bidirectional_with_time_major_input: rows of one and of two valid steps."""
    mask = np.array([[True, False, False], [True, True, False]])
    layer = built(GRU(1, return_sequences=True, time_major=time_major))
    output = layer(X.swapaxes(0, 1), mask=mask.T).swapaxes(0, 1) if time_major else layer(X, mask=mask)
    for row, steps in ((0, 1), (1, 2)):
        alone = X[row : row + 1, :steps]
        expected = layer(alone.swapaxes(0, 1)).swapaxes(0, 1) if time_major else layer(alone)
        np.testing.assert_allclose(output[row, :steps], expected[0], rtol=0, atol=1e-6)
        assert not output[row, steps:].any()


def test_layers_stack():
    """test_bidirectional_stacked."""
    first = Bidirectional(GRU(2, return_sequences=True), "sum")
    assert Bidirectional(GRU(3), "sum")(first(X)).shape == (2, 3)


def test_states_move_to_another_layer():
    """test_Bidirectional_state_reuse, and with_np_input."""
    _, *states = Bidirectional(GRU(5, return_state=True, return_sequences=True))(X)
    layer = built(GRU(5))
    assert_same_bits(layer([X, *states]), layer(X, initial_state=states))
    assert layer(X, states).tobytes() != layer(X).tobytes()
    with pytest.raises(ValueError, match="the state should be a list"):
        layer(X, initial_state=states[0])


def test_states_persist_until_they_are_reset(choice):
    """test_bidirectional_statefulness, test_full_input_spec, test_reset_states."""
    layer = built(GRU(5, stateful=True))
    assert layer.stateful
    first, second = layer(X, [H, H2]), layer(X, [H, H2])
    assert np.abs(first - second).max() > 1e-3
    layer.reset_states()
    assert_same_bits(layer(X, [H, H2]), first)
    np.testing.assert_array_equal(layer.states, np.split(first, 2, axis=1))
    layer.reset_states([H, H2])
    np.testing.assert_array_equal(layer.states, [H, H2])
    layer.reset_states((H2, H))
    assert_same_bits(layer.states, [H2, H])


def test_losses_are_those_of_both_directions():
    """test_Bidirectional_losses."""
    options = {f"{w}_regularizer": "l1" for w in ("kernel", "bias", "activity")}
    layer = Bidirectional(GRU(3, **options))
    layer(X)
    assert len(layer.losses) == 6
    assert layer.losses == layer.forward_layer.losses + layer.backward_layer.losses


def test_dropout_is_drawn_for_each_direction():
    """test_Bidirectional_dropout."""
    layer = built(GRU(50, dropout=0.5, recurrent_dropout=0.5))
    fastgru.set_random_seed(0)
    trained = layer(X, training=True)
    assert np.abs(trained - layer(X)).max() > 1e-3
    assert_same_bits(layer(X, training=False), layer(X))
    fastgru.set_random_seed(0)
    halves = [d(X, training=True) for d in (layer.forward_layer, layer.backward_layer)]
    assert_same_bits(trained, np.concatenate(halves, axis=1))


def test_constraints_hold_for_both_directions():
    layer = built(GRU(5, kernel_constraint="non_neg"))
    before = layer.get_weights()
    layer.apply_constraints()
    after = layer.get_weights()
    for i in (0, 3):
        assert (before[i] < 0).any()
        np.testing.assert_array_equal(after[i], np.maximum(before[i], 0))


def test_weights_of_the_constructor_are_there_once_it_is_built():
    source = built(GRU(5))
    for backward in (None, GRU(5, go_backwards=True)):
        layer = Bidirectional(GRU(5), weights=source.get_weights(), backward_layer=backward)
        assert_same_bits(layer(X), source(X))
        layer.set_weights([w * 0 for w in layer.get_weights()])
        layer.build(X.shape)
        assert not layer(X).any()
    layer = Bidirectional(GRU(5), weights=source.get_weights()[:5], batch_input_shape=X.shape)
    for _ in range(2):
        with pytest.raises(ValueError, match="list of length 5, but the layer was expecting 6"):
            layer.build()
        assert not layer.built
        assert not layer.forward_layer.built
    Bidirectional(GRU(5), weights=[])(X)


@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
@pytest.mark.parametrize("mode", MODES)
def test_copies_are_equal_and_apart(choice, twin_of, mode):
    layer = built(GRU(5, stateful=True, return_sequences=True), mode)
    layer(X)
    twin = twin_of(layer)
    assert twin.get_config() == layer.get_config()
    assert_same_bits(twin.states, layer.states)
    states = layer.states
    assert_same_bits(twin(X), layer(X))
    layer.reset_states(states)
    twin.set_weights([w * 0 for w in twin.get_weights()])
    assert np.array_equal(layer.states, states)
    assert layer.get_weights()[0].any()
    twin_of(Bidirectional(GRU(5)))(X)


def test_names_and_text():
    layer = Bidirectional(GRU(5, name="a"), name="b")
    assert Bidirectional(GRU(5)).name.rstrip("_0123456789") == "bidirectional"
    assert repr(layer).startswith("<Bidirectional 'b': concat of <GRU 'forward_a': unknown features, 5 units")
    layer(X)
    assert "<GRU 'backward_a': 4 features" in repr(layer)
    assert layer.supports_masking


# ---- wrong use -----------------------------------------------------------------------------------

BACK = {"go_backwards": True}
CONSTRUCTOR = {
    "layer: a number": (lambda gru: {"layer": 3}, "layer must be a fastgru.GRU, got 3 of type int"),
    "layer: an array": (lambda gru: {"layer": X}, "layer must be a fastgru.GRU"),
    "backward_layer: a class": (lambda gru: {"backward_layer": int}, "backward_layer must be a fastgru.GRU"),
    "merge_mode: a name": (lambda gru: {"merge_mode": "max"}, "Invalid merge mode.*'sum'.*got 'max'"),
    "merge_mode: a list": (lambda gru: {"merge_mode": ["sum"]}, "Invalid merge mode"),
    "merge_mode: an array": (lambda gru: {"merge_mode": X}, "Invalid merge mode"),
    "backward_layer: forwards": (lambda gru: {"backward_layer": gru(5)}, "different `go_backwards` value"),
    **{
        f"backward_layer: {flag}": (
            lambda gru, flag=flag: {"backward_layer": gru(5, **BACK, **{flag: True})},
            f'same value for attribute "{flag}", got "False" for forward layer and "True" for backward',
        )
        for flag in ("stateful", "return_sequences", "return_state")
    },
}
EARLIER = {  # the original finds these when it merges, if at all
    "time_major": {"backward_layer": GRU(5, time_major=True, **BACK), "merge_mode": None},
    "dtype": {"backward_layer": GRU(5, dtype="float64", **BACK)},
    "units": {"backward_layer": GRU(1, **BACK), "merge_mode": "sum"},
}


@pytest.mark.parametrize("name", CONSTRUCTOR)
def test_wrong_argument_is_the_error_of_the_original(name, original, wrapper):
    arguments, message = CONSTRUCTOR[name]
    with pytest.raises(ValueError, match=message):
        Bidirectional(**{"layer": GRU(5)} | arguments(GRU))
    with pytest.raises(ValueError):  # noqa: PT011
        wrapper(**{"layer": original(5)} | arguments(original))


@pytest.mark.parametrize("name", EARLIER)
def test_directions_that_cannot_be_merged_are_refused(name):
    with pytest.raises(ValueError, match=f'same value for attribute "{name}"'):
        Bidirectional(GRU(5), **EARLIER[name])


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"bogus": 1}, TypeError),
        ({"activity_regularizer": "l2"}, TypeError),
        ({"trainable": 1}, TypeError),
        ({"name": 3}, TypeError),
        ({"weights": 3}, TypeError),
        ({"dtype": "int32"}, ValueError),
    ],
)
def test_wrong_keyword_is_an_error(kwargs, error):
    with pytest.raises(error):
        Bidirectional(GRU(5), **kwargs)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({}, TypeError),
        ({"layer": 3}, ValueError),
        ({"layer": {"class_name": "Dense", "config": {"units": 3}}}, ValueError),
        ({"layer": {"class_name": "GRU"}}, ValueError),
        ({"layer": {"class_name": "GRU", "config": {}}}, TypeError),
        ({"layer": {"class_name": "GRU", "config": {"units": 3}}, "num_constants": 1}, ValueError),
        ({"layer": {"class_name": "GRU", "config": {"units": 3}}, "backward_layer": []}, ValueError),
    ],
    ids=repr,
)
def test_wrong_config_is_an_error(config, error):
    before = copy.deepcopy(config)
    with pytest.raises(error):
        Bidirectional.from_config(config)
    assert config == before


def wrong(use, match, error=ValueError, **options):
    return use, match, error, options


WRONG = {
    "inputs: rank": wrong(lambda b: b(X[0]), "expected ndim=3, found ndim=2"),
    "inputs: integers": wrong(lambda b: b(X.astype(int)), "inputs must be an array of float32", TypeError),
    "inputs: nothing": wrong(lambda b: b(None), "inputs must be an array", TypeError),
    "inputs: no timesteps": wrong(lambda b: b(X[:, :0]), "at least one timestep"),
    "inputs: no rows": wrong(lambda b: b(X[:0]), "batch size|incompatible", stateful=True),
    "inputs: a state missing": wrong(lambda b: b([X, H]), "states of the underlying RNNs"),
    "inputs: states twice": wrong(lambda b: b([X, H, H], [H, H]), "initial_state must be given once"),
    "state: an array": wrong(lambda b: b(X, H), "should be a list .* got ndarray"),
    "state: three": wrong(lambda b: b(X, [H] * 3), "should be a list .* got 3 states"),
    "state: four": wrong(lambda b: b(X, [H] * 4), "must be one state, got 2"),
    "state: none": wrong(lambda b: b(X, []), "must be one state, got 0"),
    "state: second of other units": wrong(
        lambda b: b(X, [H, H[:, :4]]), r"initial_state of backward_gru must have shape \(2, 5\), got \(2, 4\)"
    ),
    "state: second of integers": wrong(
        lambda b: b(X, [H, H.astype(int)]), "initial_state of backward_gru must be an array", TypeError
    ),
    "mask: turned": wrong(lambda b: b(X, mask=M.T), r"mask must have shape \(2, 3\), got \(3, 2\)"),
    "mask: words": wrong(lambda b: b(X, mask=M.astype(str)), "mask must be castable to bool"),
    "training: words": wrong(lambda b: b(X, training="yes"), "training must be True, False", TypeError),
    "training: all of it": wrong(lambda b: b(X, training=True), "dropout in training", dropout=1.0),
    "constants": wrong(lambda b: b(X, constants=[H]), "constants", TypeError),
    "reset_states: stateless": wrong(lambda b: b.reset_states(), "must be stateful", AttributeError),
    "build: nothing": wrong(lambda b: b.build(), "input_shape must be a shape"),
    "build: no features": wrong(lambda b: b.build((2, 3, None)), "with features known", TypeError),
    "build: no batch": wrong(lambda b: b.build((None, 3, 4)), "batch size|have the batch 2", stateful=True),
}
UNBUILT = {
    "set_weights": wrong(lambda b: b.set_weights([X]), "length 1, but the layer was expecting 0 weights"),
    "count_params": wrong(lambda b: b.count_params(), "isn't built"),
    "reset_states": wrong(lambda b: b.reset_states(), "needs to know its batch size", stateful=True),
}


def new_weights(change):
    return lambda b: b.set_weights(change(b.get_weights()))


BUILT = {
    "inputs: other features": wrong(
        lambda b: b(np.ones((2, 3, 6), np.float32)), "incompatible with the layer"
    ),
    "inputs: another batch": wrong(lambda b: b(X[:1]), "incompatible with the layer", stateful=True),
    "build: other features": wrong(lambda b: b.build((2, 3, 6)), "input_shape must end in 4"),
    "set_weights: five": wrong(new_weights(lambda w: w[:5]), "length 5, but the layer was expecting 6"),
    "set_weights: the last one wrong": wrong(new_weights(lambda w: [*w[:5], w[0]]), "is not compatible"),
    "set_weights: the last one words": wrong(
        new_weights(lambda w: [*(a * 0 for a in w[:5]), np.full(15, "a")]), "must be an array", TypeError
    ),
    "set_weights: a number": wrong(lambda b: b.set_weights(3), "weights must be a list", TypeError),
    "apply_constraints": wrong(
        lambda b: b.apply_constraints(), "is not compatible", bias_constraint=lambda w: w[:1]
    ),
    **{
        f"reset_states: {name}": wrong(lambda b, v=v: b.reset_states(v), match, stateful=True)
        for name, v, match in (
            ("an array", H, "Unrecognized value for `states`.*got ndarray"),
            ("a dict", {}, "Unrecognized value for `states`"),
            ("one", [H], "expects 1 states, but it received 0"),
            ("three", [H] * 3, "expects 1 states, but it received 2"),
            ("none", [], "expects 1 states, but it received 0"),
            ("the second one wrong", [H * 0, H[:, :4]], "State 0 is incompatible with layer backward_gru"),
            ("the second one words", [H * 0, H.astype(str)], "can be cast to float32"),
        )
    },
}


def facts_of(layer):
    """All that a call may leave behind."""
    directions = layer.forward_layer, layer.backward_layer
    arrays = [*layer.weights, *(state for state in layer.states if state is not None)]
    facts = [layer.built, layer.get_config(), layer.losses, layer.trainable]
    return facts, [a.tobytes() for a in arrays], [(d.built, d.get_config(), id(d._plan)) for d in directions]


@pytest.mark.parametrize(
    ("name", "is_built"), [*((n, False) for n in WRONG | UNBUILT), *((n, True) for n in WRONG | BUILT)]
)
def test_wrong_use_is_an_error_and_changes_nothing(name, is_built):
    use, match, error, options = (WRONG | (BUILT if is_built else UNBUILT))[name]
    regularizer = "l2" if is_built else None
    layer = Bidirectional(GRU(5, name="gru", activity_regularizer=regularizer, **options))
    if is_built:
        layer(X)
        if layer.stateful:
            layer.reset_states([H, H2])
    before = facts_of(layer)
    with pytest.raises(error, match=match):
        use(layer)
    assert facts_of(layer) == before


@pytest.mark.parametrize("is_built", [False, True])
@pytest.mark.parametrize("stateful", [False, True])
def test_a_backward_run_that_fails_takes_the_forward_one_back(is_built, stateful):
    calls = []

    def fails_later(x):
        calls.append(x)
        if len(calls) > later:
            raise ArithmeticError
        return np.tanh(x)

    later = 10**9
    options = {"stateful": stateful, "activity_regularizer": "l2"}
    backward = GRU(5, activation=fails_later, go_backwards=True, **options)
    layer = Bidirectional(GRU(5, **options), backward_layer=backward)
    if is_built:
        layer(X)
    before = facts_of(layer)
    calls.clear()
    later = 1
    with pytest.raises(ArithmeticError):
        layer(X * 2)
    assert len(calls) == 2
    assert facts_of(layer) == before


def test_a_backward_layer_of_other_features_leaves_the_forward_one_unbuilt():
    backward = GRU(5, go_backwards=True)
    backward.build((2, 3, 6))
    layer = Bidirectional(GRU(5), backward_layer=backward)
    with pytest.raises(ValueError, match="input_shape must end in 6"):
        layer(X)
    assert not layer.forward_layer.built


@pytest.mark.parametrize(
    "flag", ["stateful", "return_sequences", "return_state", "time_major", "go_backwards"]
)
def test_flags_that_do_not_fit_are_refused(flag):
    layer = built(GRU(5))
    with pytest.raises(AttributeError):
        setattr(layer, "merge_mode" if flag == "go_backwards" else flag, True)
    setattr(layer.forward_layer, flag, not getattr(layer.forward_layer, flag))
    with pytest.raises(ValueError, match=f'attribute "{flag}"|`{flag}` value'):
        layer(X.swapaxes(0, 1) if flag == "time_major" else X)


# ---- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"stateful": True}, {"activity_regularizer": "l2"}], ids=repr)
def test_a_call_sees_one_set_of_weights_of_both_directions(choice, options, monkeypatch):
    layer = built(GRU(16, **options))
    commit = _layer.commit

    def commit_late(changes, changed):  # as if the thread had been stopped in between
        half = len(changes) // 2
        commit(changes[:half], changed)
        time.sleep(1e-3)
        commit(changes[half:], changed)

    monkeypatch.setattr(_layer, "commit", commit_late)
    x = np.random.default_rng(1).normal(size=(2, 10, 4)).astype(np.float32)
    sets = [[np.full_like(w, v) for w in layer.get_weights()] for v in (0.1, -0.2)]
    wanted = set()
    for weights in sets:
        layer.set_weights(weights)
        if layer.stateful:
            layer.reset_states()
        wanted.add(layer(x).tobytes())
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for weights in sets:
                layer.set_weights(weights)
                assert len({w.flat[0] for w in layer.get_weights()}) == 1

    changer = threading.Thread(target=change)
    changer.start()
    seen = set()
    try:
        for _ in range(40):
            if layer.stateful:
                layer.reset_states()
            seen.add(layer(x).tobytes())
            assert len({w.flat[0] for w in layer.get_weights()}) == 1
    finally:
        stop.set()
        changer.join()
    assert seen <= wanted


def test_stateful_calls_come_one_after_the_other(choice):
    layer = built(GRU(5, stateful=True), shape=(2, 1, 4))
    alone = copy.deepcopy(layer)
    threads = [threading.Thread(target=lambda: [layer(X[:, :1]) for _ in range(25)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(100):
        alone(X[:, :1])
    assert_same_bits(layer.states, alone.states)


def test_the_first_call_builds_once():
    for _ in range(20):
        layer, results = Bidirectional(GRU(5)), []
        threads = [threading.Thread(target=lambda b=layer, r=results: r.append(b(X))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({r.tobytes() for r in results}) == 1
        assert len(results) == 4


def test_what_another_thread_does_to_a_direction_is_not_taken_back():
    others, armed = [], False

    def fails(x):
        if armed:
            others.append(threading.Thread(target=layer.forward_layer, args=(X,)))
            others[0].start()
            others[0].join(0.1)
            raise ArithmeticError
        return np.tanh(x)

    backward = GRU(5, activation=fails, go_backwards=True, stateful=True)
    layer = Bidirectional(GRU(5, stateful=True), backward_layer=backward)
    layer(X)
    expected = copy.deepcopy(layer.forward_layer)(X)
    armed = True
    with pytest.raises(ArithmeticError):
        layer(X)
    others[0].join()
    assert_same_bits(layer.states[0], expected)


@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_a_copy_has_both_states_from_between_the_same_calls(twin_of):
    layer = built(GRU(5, stateful=True))
    inputs = np.random.default_rng(0).normal(size=(300, *X.shape)).astype(np.float32)
    pairs = {tuple(state.tobytes() for state in layer.states)}
    for x in inputs:
        layer(x)
        pairs.add(tuple(state.tobytes() for state in layer.states))
    layer.reset_states()
    caller = threading.Thread(target=lambda: [layer(x) for x in inputs])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    caller.start()
    try:
        while caller.is_alive():
            assert tuple(state.tobytes() for state in twin_of(layer).states) in pairs
    finally:
        caller.join()
        sys.setswitchinterval(interval)
