"""Stack: what its layers give one after the other, bit for bit, wherever a chunk of time ends."""

import copy
import json
import pickle
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
import reference
from conftest import CHOICES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastgru
from fastgru import GRU, Bidirectional, Stack, _compile, _config

FLAGS = st.booleans()
TOLERANCE = {"float32": 3e-5, "float64": 1e-10, "float16": 5e-3}


def as_list(results):
    return results if isinstance(results, list) else [results]


def assert_same(found, wanted, choice=_config.CHOICE, computed=()):
    """The same bits; of the BLAS engine, whose products are cut by their size, nearly the same.

    That is, as exact as the dtypes that they were computed with on the way.
    """
    for ours, theirs in zip(as_list(found), as_list(wanted), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        if choice.engine == "packed":
            np.testing.assert_array_equal(ours, theirs)
        else:
            tolerance = max(TOLERANCE[dtype] for dtype in (ours.dtype.name, *computed))
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def parts(layer):
    return [layer.forward_layer, layer.backward_layer] if isinstance(layer, Bidirectional) else [layer]


def twins(layers):
    """Copies of layers that return their states."""
    copies = copy.deepcopy(list(layers))
    for layer in copies:
        for part in parts(layer):
            part.return_state = True
    return copies


def by_hand(layers, x, states=None, **options):
    """Outputs and all states of layers that return them, one after the other."""
    states, last, outputs = list(states or []), [], [x]
    for layer in layers:
        count = len(parts(layer))
        given_states, states = states[:count], states[count:]
        given_states = None if not given_states or given_states[0] is None else given_states
        results = layer(outputs[0], initial_state=given_states, **options)
        outputs, last = results[:-count], last + results[-count:]
    return outputs + last


def grus(*units, **options):
    """GRUs of which all return sequences but the last, which says so itself."""
    layers = [GRU(n, **options | {"return_sequences": True}) for n in units[:-1]]
    return [*layers, GRU(units[-1], **options)]


def randomised(layer, seed=0):
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(0, 0.5, w.shape) for w in layer.get_weights()])
    return layer


def built(layers, shape=(2, None, 3), **options):
    made = Stack(layers, **options)
    made.build(shape)
    return randomised(made)


@pytest.fixture
def short_chunks(monkeypatch):
    """Chunks of three steps."""
    monkeypatch.setattr(_compile, "CHUNK_BYTES", 1)
    monkeypatch.setattr(_compile, "CHUNK_STEPS", 3)


# ---- the layers one after the other --------------------------------------------------------------

OWN = st.fixed_dictionaries(
    {
        "units": st.integers(1, 9) | st.sampled_from([16, 33]),
        "activation": st.sampled_from(["tanh"] * 5 + ["relu", "softmax"]),
        "recurrent_activation": st.sampled_from(["hard_sigmoid", "sigmoid"]),
        "use_bias": FLAGS,
        "reset_after": FLAGS,
        "zero_output_for_mask": FLAGS,
        "go_backwards": st.sampled_from([False] * 5 + [True]),
        "return_state": FLAGS,
        "stateful": st.sampled_from([False] * 4 + [True]),
        "dtype": st.sampled_from(["float32"] * 4 + ["float64", "float16"]),
        "activity_regularizer": st.sampled_from([None] * 5 + ["l2"]),
        "default_state": st.sampled_from([None] * 4 + [0.3]),
    }
)
MEMBERS = st.lists(st.tuples(OWN, st.sampled_from([None] * 4 + ["concat", "sum"])), min_size=1, max_size=4)
CALLS = st.fixed_dictionaries(
    {
        "timesteps": st.integers(1, 12),
        "mask": st.sampled_from([None, "random", "leading", "trailing", "blocks", "lengths"]),
        "masked": st.sampled_from([0.0, np.nan]),
        "states": st.sampled_from([None, "all", "some"]),
        "out": FLAGS,
    }
)


def mask_of(kind, batch, timesteps, rng):
    """(batch, timesteps), or None."""
    first = rng.integers(0, timesteps + 1, (batch, 1))
    steps = np.arange(timesteps)
    kinds = {
        "random": rng.random((batch, timesteps)) < 0.5,
        "leading": steps >= first,
        "trailing": steps < first,
        "lengths": steps < first,
        "blocks": (steps // 4 + first) % 3 == 0,  # some without a single step for longer than a chunk
    }
    return kinds.get(kind)


@settings(max_examples=120, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(
    members=MEMBERS,
    sequences=FLAGS,
    unmerged=st.sampled_from([False, False, True]),
    time_major=FLAGS,
    return_state=FLAGS,
    batch=st.integers(1, 5),
    calls=st.lists(CALLS, min_size=1, max_size=3),
    chunk=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_results_are_those_of_the_layers_one_after_the_other(
    members, sequences, unmerged, time_major, return_state, batch, calls, chunk, seed
):
    for choice in CHOICES:
        rng = np.random.default_rng(seed)
        with mock.patch.object(_config, "CHOICE", choice):
            layers = []
            for i, (options, merge_mode) in enumerate(members):
                last = i == len(members) - 1
                options = options | {"time_major": time_major, "return_sequences": sequences or not last}
                if options["default_state"] is not None:
                    options["default_state"] = np.full(options["units"], options["default_state"])
                layer = GRU(**options)
                if merge_mode is not None:
                    layer = Bidirectional(layer, None if last and unmerged else merge_mode)
                layers.append(layer)
            ours = Stack(layers, return_state=return_state)
            ours.build((1, batch, 3) if time_major else (batch, 1, 3))
            randomised(ours, seed)
            theirs = twins(layers)
        for call in calls:
            timesteps = call["timesteps"]
            x = rng.normal(size=(batch, timesteps, 3)).astype(rng.choice(["f2", "f4", "f8"]))
            mask = mask_of(call["mask"], batch, timesteps, rng)
            options = {}
            if mask is not None:
                x[~mask] = call["masked"]
                options = {"mask": mask.T if time_major else mask}
                if call["mask"] == "lengths":
                    options = {"lengths": mask.sum(1)}
            x = x.swapaxes(0, 1) if time_major else x
            states = None
            if call["states"] is not None:
                units = [part.units for layer in layers for part in parts(layer)]
                states = [rng.normal(size=(batch, n)).astype("f4") for n in units]
            if call["states"] == "some" and not any(isinstance(one, Bidirectional) for one in layers):
                states = [None if i % 2 else state for i, state in enumerate(states)]
            wanted = by_hand(theirs, x, states, **options)
            outputs = len(wanted) - len(ours.states)
            out = None
            if call["out"] and outputs == 1:
                out = options["out"] = np.full_like(wanted[0], 7)
            with mock.patch.multiple(_compile, CHUNK_BYTES=1, CHUNK_STEPS=chunk):
                found = as_list(ours(x, initial_state=states, **options))
            assert out is None or found[0] is out
            dtypes = {options["dtype"] for options, _ in members}
            assert_same(found, wanted if return_state else wanted[:outputs], choice, dtypes)
            for one, two in zip(ours.states, [s for layer in theirs for s in layer.states], strict=True):
                assert (one is None) == (two is None)
                assert one is None or choice.engine != "packed" or np.array_equal(one, two)


def test_results_are_those_of_the_equations(choice, short_chunks):
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(4, 20, 3)), rng.random((4, 20)) < 0.4
    ours = built(grus(6, 5, 7, reset_after=True, dtype="float64", return_sequences=True), return_state=True)
    y, states = x, []
    for layer in ours.layers:
        y, state = reference.gru(y, *layer.get_weights(), reset_after=True, mask=mask)
        states.append(state)
    for found, wanted in zip(ours(x, mask=mask), [y, *states], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("units", [(128, 64, 32), (400, 300)])
def test_chunks_of_their_usual_length_change_nothing(time_major, units, choice):
    x = np.random.default_rng(0).normal(size=(9, 301, 20)).astype("f4")
    mask = np.random.default_rng(1).random((9, 301)) < 0.7
    layers = grus(*units, return_sequences=True, time_major=time_major)
    ours = built(layers, (None, None, 20), return_state=True)
    ours.set_weights([w / 5 for w in ours.get_weights()])
    x, mask = (x.swapaxes(0, 1), mask.T) if time_major else (x, mask)
    theirs = twins(layers)
    for options in ({}, {"mask": mask}, {"lengths": np.arange(9) * 37}):
        assert_same(ours(x, **options), by_hand(theirs, x, **options), choice)


def test_keras_sequential_agrees(keras, short_chunks):
    layers = keras.layers
    x = np.random.default_rng(0).normal(size=(4, 11, 3)).astype("f4")
    x[1, :4] = x[2, 5:9] = x[3] = 0
    model = keras.Sequential(
        [
            layers.Masking(input_shape=(None, 3)),
            layers.GRU(5, return_sequences=True),
            layers.GRU(6, return_sequences=True, reset_after=False),
            layers.Bidirectional(layers.GRU(4, return_sequences=True)),
            layers.GRU(7, return_sequences=True),
        ]
    )
    ours = Stack([fastgru.from_keras(layer) for layer in model.layers[1:]])
    ours.set_weights([w * 2 for w in ours.get_weights()])
    model.set_weights(ours.get_weights())
    found = ours(x, mask=(x != 0).any(-1))
    np.testing.assert_allclose(found, model(x).numpy(), rtol=0, atol=3e-5)


# ---- states, losses, training --------------------------------------------------------------------


def test_states_are_given_and_returned_in_the_order_of_the_layers(choice):
    x = np.ones((2, 3, 3), "f4")
    ours = built([GRU(4, return_sequences=True), Bidirectional(GRU(5))], return_state=True)
    states = [np.full((2, n), i, "f4") for i, n in enumerate((4, 5, 5))]
    wanted = by_hand(twins(ours.layers), x, states)
    assert [a.shape for a in wanted] == [(2, 10), (2, 4), (2, 5), (2, 5)]
    assert_same(ours(x, states), wanted, choice)
    assert_same(ours([x, *states]), wanted, choice)
    assert_same(ours(x, tuple(states)), wanted, choice)
    assert_same(ours.call(x, None, None, states), wanted, choice)
    ours.return_state = False
    assert_same(ours(x, states), wanted[:1], choice)


@pytest.mark.parametrize("last", [False, True])
def test_states_are_returned_as_by_the_last_layer_unless_it_is_said(last):
    layers = [GRU(3, return_sequences=True, return_state=not last), GRU(3, return_state=last)]
    x = np.ones((2, 3, 3), "f4")
    assert Stack(layers).return_state is last
    assert isinstance(Stack(layers)(x), list) is last
    assert isinstance(Stack(layers, not last)(x), list) is not last
    assert [layer.return_state for layer in layers] == [not last, last]


def test_no_result_is_another_one_or_a_recorded_state(choice):
    ours = built(grus(3, 3, stateful=True), return_state=True)
    x = np.ones((2, 4, 3), "f4")
    results = ours(x)
    before = [state.copy() for state in ours.states]
    for i, array in enumerate(results):
        assert not any(np.shares_memory(array, other) for other in results[:i])
        array[...] = 9
    assert_same(ours.states, before)


def test_a_stateful_stack_goes_on_where_it_ended(choice, short_chunks):
    x = np.random.default_rng(0).normal(size=(2, 12, 3)).astype("f4")
    ours = built([GRU(4, return_sequences=True), *grus(5, 6, stateful=True)])
    assert ours.stateful
    assert ours.states[0] is None
    twin, states = twins(ours.layers), [None, np.ones((2, 5), "f4"), np.ones((2, 6), "f4")]
    for start in (0, 5, 6):
        piece = x[:, start : start + 5]
        assert_same(ours(piece), by_hand(twin, piece)[0], choice)
    ours.reset_states(states)
    assert_same(ours.states[1:], states[1:])
    ours.reset_states()
    assert not any(state.any() for state in ours.states[1:])
    for wrong, message in (
        (states[:2], "states must be a list of 3 states"),
        (states[1], "states must be a list of 3 states, .*, got ndarray"),
        ([states[1], *states[1:]], "states must be None for 'gru.*', which is not stateful"),
        ([None, states[1], states[1]], "State 0 is incompatible"),
    ):
        with pytest.raises(ValueError, match=message):
            ours.reset_states(wrong)
        assert not any(state.any() for state in ours.states[1:])
    with pytest.raises(AttributeError, match="must be stateful"):
        built(grus(3, 3)).reset_states()


def test_losses_are_those_of_the_layers():
    layers = [
        GRU(4, return_sequences=True, activity_regularizer="l2", kernel_regularizer="l1"),
        GRU(4, activity_regularizer="l2", return_state=True),
    ]
    ours, x = built(layers), np.ones((2, 3, 3), "f4")
    theirs = copy.deepcopy(layers)
    ours(x)
    theirs[1](theirs[0](x))
    assert ours.losses == [loss for layer in theirs for loss in layer.losses]
    assert len(ours.losses) == 4


def test_dropout_in_training_is_that_of_the_layers(short_chunks):
    layers = [*grus(4, 5, return_sequences=True), *grus(4, 6, dropout=0.5, recurrent_dropout=0.2)]
    ours, x = built(layers, return_state=True), np.ones((2, 10, 3), "f4")
    fastgru.set_random_seed(3)
    wanted = by_hand(twins(layers), x, training=True)
    fastgru.set_random_seed(3)
    assert_same(ours(x, training=True), wanted)
    assert not np.array_equal(ours(x)[0], wanted[0])


def test_python_activations_run_in_chunks_too(short_chunks):
    ours = built(grus(4, 5, 6, activation=np.tanh), return_state=True)
    x, mask = np.random.default_rng(0).normal(size=(2, 10, 3)).astype("f4"), np.eye(2, 10) < 1
    for options in ({}, {"mask": mask}, {"lengths": [5, 0]}):
        found, wanted = ours(x, **options), by_hand(twins(ours.layers), x, **options)
        for one, two in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


# ---- its face ------------------------------------------------------------------------------------


def test_weights_are_those_of_the_layers_in_their_order():
    layers = [GRU(4, return_sequences=True, trainable=False), Bidirectional(GRU(5))]
    ours = Stack(layers)
    assert not ours.built
    assert ours.weights == []
    with pytest.raises(ValueError, match="isn't built"):
        ours.count_params()
    ours.build((None, None, 3))
    assert ours.built
    assert all(layer.built for layer in layers)
    assert_same(ours.weights, layers[0].weights + layers[1].weights)
    assert ours.count_params() == sum(layer.count_params() for layer in layers)
    assert ours.trainable
    assert_same(ours.trainable_weights, layers[1].weights)
    assert_same(ours.non_trainable_weights, layers[0].weights)
    ours.trainable = True
    assert layers[0].trainable
    weights = [w + 1 for w in ours.get_weights()]
    ours.set_weights(weights)
    assert_same(layers[0].get_weights() + layers[1].get_weights(), weights)
    for wrong in (weights[:-1], [*weights[:-1], weights[0]]):
        with pytest.raises(ValueError, match=r"weight list of length 8|not compatible"):
            ours.set_weights([w + 1 for w in wrong])
        assert_same(ours.get_weights(), weights)


def test_constraints_hold_for_all_layers():
    ours = built(grus(4, 4, kernel_constraint="non_neg"))
    assert min(w.min() for w in ours.weights[::3]) < 0
    ours.apply_constraints()
    assert min(w.min() for w in ours.weights[::3]) == 0


@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("mode", ["none", "concat", None])
def test_shapes_and_masks_are_those_of_results(mode, time_major, sequences, return_state):
    options = {"time_major": time_major, "return_sequences": sequences, "return_state": True}
    layers = grus(4, 5, **options)
    layers = layers if mode == "none" else [layers[0], Bidirectional(layers[1], mode)]
    ours = Stack(layers, return_state=return_state)
    results = ours(np.ones((2, 6, 3), "f4"))
    shapes = [array.shape for array in as_list(results)]
    assert as_list(ours.compute_output_shape((2, 6, 3))) == shapes
    assert ours.units == shapes[0][-1]
    assert ours.return_sequences is sequences
    masks = as_list(ours.compute_mask(None, "mask"))
    outputs = 2 if mode is None else 1
    assert masks == ["mask" if sequences else None] * outputs + [None] * (len(shapes) - outputs)
    assert ours.input_spec == layers[0].input_spec


def test_a_stack_in_a_stack_contributes_its_layers():
    layers = grus(3, 4, 5, 6)
    nested = Stack([layers[0], Stack(layers[1:3]), layers[3]])
    assert nested.layers == tuple(layers)


def test_it_has_a_name_and_a_dtype():
    ours = Stack([GRU(3, return_sequences=True, name="a"), GRU(4, dtype="float64", name="b")], name="both")
    assert (ours.name, ours.dtype, ours.supports_masking) == ("both", "float64", True)
    assert repr(ours) == (
        "<Stack 'both': <GRU 'a': unknown features, 3 units, float32>, "
        "<GRU 'b': unknown features, 4 units, float64>>"
    )
    assert Stack(grus(3)).name.startswith("stack")


def test_the_shape_of_the_lowest_layer_builds_all():
    for lowest in (
        GRU(3, return_sequences=True, input_shape=(None, 7)),
        Bidirectional(GRU(3, return_sequences=True, input_shape=(None, 7)), "sum"),
        Bidirectional(GRU(3, return_sequences=True), "sum", input_shape=(None, 7)),
    ):
        ours = Stack([lowest, GRU(4)])
        ours.build()
        assert ours.weights[0].shape == (7, 9)
        assert ours.weights[-3].shape == (3, 12)


def test_a_stream_gives_the_bits_of_a_call(choice):
    ours = built(grus(4, 5, 6, return_sequences=True), (None, None, 3))
    x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype("f4")
    stream, wanted = ours.stream(2), ours(x)
    for time in range(7):
        assert_same(stream(x[:, time]), wanted[:, time], choice)
    assert_same(stream.state, by_hand(twins(ours.layers), x)[1:], choice)
    pool = fastgru.StreamPool(ours, 3)
    slots = [pool.open(), pool.open()]
    for time in range(7):
        assert_same(pool.step(slots, x[:, time]), wanted[:, time], choice)


@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_copies_compute_the_same_and_go_their_own_way(twin_of, choice):
    ours = built([Bidirectional(GRU(4, return_sequences=True)), *grus(5, 6, stateful=True)])
    x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype("f4")
    ours(x)
    twin = twin_of(ours)
    assert_same(twin.states[2:], ours.states[2:])
    wanted = ours(x)
    assert_same(twin(x), wanted)
    ours.set_weights([w * 2 for w in ours.get_weights()])
    assert not np.array_equal(twin.get_weights()[0], ours.get_weights()[0])


def test_a_config_makes_the_stack_again():
    layers = [
        Bidirectional(GRU(4, return_sequences=True, name="a"), "sum", name="both"),
        GRU(3, reset_after=True, stateful=True, name="b"),
    ]
    ours = Stack(layers, return_state=True, name="whole")
    config = ours.get_config()
    again = Stack.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert [type(layer) for layer in again.layers] == [Bidirectional, GRU]
    assert again.return_state
    again.build((2, None, 3))
    ours.build((2, None, 3))
    again.set_weights(ours.get_weights())
    x = np.ones((2, 3, 3), "f4")
    assert_same(again(x), ours(x))
    for layers in (None, 3, [{}], [3], [{"class_name": "LSTM", "config": {}}]):
        with pytest.raises(ValueError, match="layers must be a"):
            Stack.from_config({"name": "x", "layers": layers})


# ---- what is refused -----------------------------------------------------------------------------

SAME = GRU(3, return_sequences=True, name="same")
BUILT = GRU(3, weights=[np.ones((5, 9)), np.ones((3, 9)), np.ones(9)], name="built")
BUILT.build((None, None, 5))
NOT_STACKS = {
    "nothing": ([], "layers must be a list of GRU and Bidirectional layers, got \\[\\]"),
    "one": (SAME, "layers must be a list of GRU and Bidirectional layers, got <GRU"),
    "none": (None, "layers must be a list"),
    "other": ([SAME, 3], "layers must hold GRU and Bidirectional layers, got 3 of type int"),
    "class": ([GRU], "layers must hold GRU and Bidirectional layers, got <class"),
    "twice": ([SAME, GRU(3, return_sequences=True), SAME], "must hold every layer once, got 'same' twice"),
    "twice-inside": ([Stack([SAME]), SAME], "must hold every layer once, got 'same' twice"),
    "last-step": ([GRU(3, name="low"), GRU(3)], "got return_sequences=False of 'low': set its return_seq"),
    "time": (
        [SAME, GRU(3, time_major=True, name="t")],
        "agree in time_major, got False of 'same' and True of",
    ),
    "unmerged": (
        [Bidirectional(GRU(3, return_sequences=True), None, name="two"), GRU(3)],
        "one output each but for the last one, got merge_mode=None of 'two'",
    ),
    "features": ([SAME, BUILT], "'same' returns 3 units and 'built' has been built for 5 features"),
}


@pytest.mark.parametrize(("layers", "message"), NOT_STACKS.values(), ids=NOT_STACKS)
def test_layers_that_are_no_stack_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        Stack(layers)


def test_other_arguments_are_refused():
    with pytest.raises(TypeError, match="name"):
        Stack(grus(3), name=3)
    with pytest.raises(ValueError, match="return_state must be true or false"):
        Stack(grus(3), return_state=np.ones(2))


X = np.ones((2, 4, 3), "f4")
H = np.ones((2, 5), "f4")
WRONG_CALLS = {
    "rank": ({"inputs": X[0]}, ValueError, "expected ndim=3, found ndim=2"),
    "integers": ({"inputs": X.astype(int)}, TypeError, "inputs must be an array of float32, got int64"),
    "list": ({"inputs": [[1]]}, TypeError, "inputs must be an array of shape"),
    "no-steps": ({"inputs": X[:, :0]}, ValueError, "inputs must have at least one timestep"),
    "features": ({"inputs": X[..., :2]}, ValueError, "is incompatible with the layer"),
    "batch": ({"inputs": X[:1]}, ValueError, "is incompatible with the layer"),
    "state": ({"initial_state": H}, ValueError, "initial_state must be a list of 3 states, .*, got ndarray"),
    "states": ({"initial_state": [H, H]}, ValueError, "initial_state must be a list of 3 states, .*, got 2"),
    "state-shape": ({"initial_state": [H, H, H[:1]]}, ValueError, r"of c must have shape \(2, 5\), got \(1"),
    "states-twice": ({"inputs": [X, H, H, H], "initial_state": [H, H, H]}, ValueError, "given once"),
    "mask": ({"mask": np.ones((2, 3), bool)}, ValueError, r"mask must have shape \(2, 4\), got \(2, 3\)"),
    "lengths": ({"lengths": [5, 1]}, ValueError, "lengths must lie between 0 and the 4 timesteps"),
    "both": ({"lengths": [4, 1], "mask": X[..., 0]}, ValueError, "lengths must be given without a mask"),
    "training": ({"training": "yes"}, TypeError, "training must be True, False or None"),
    "dropout": ({"training": True}, ValueError, r"dropout in training must be in the range \[0, 1\)"),
    "out-type": ({"out": [1]}, TypeError, "out must be a NumPy array"),
    "out-shape": ({"out": np.empty((2, 4), "f4")}, ValueError, r"out must have shape \(2, 5\), got \(2, 4\)"),
    "out-dtype": ({"out": np.empty((2, 5))}, ValueError, "out must have dtype float32"),
    "out-overlap": ({"out": X.reshape(-1)[:10].reshape(2, 5)}, ValueError, "out must not overlap"),
}


def three():
    """A stateful stack whose last layer drops all."""
    layers = [GRU(5, return_sequences=True, stateful=True, name=name) for name in "abc"]
    layers[2].return_sequences = False
    layers[2]._dropout = 1.0
    return layers


@pytest.mark.parametrize(("arguments", "kind", "message"), WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_a_call_that_is_refused_changes_nothing(arguments, kind, message):
    ours = built(three())
    ours(X)
    before = ours.states
    with pytest.raises(kind, match=message):
        ours(**{"inputs": X} | arguments)
    assert_same(ours.states, before)
    assert X.all()


def test_two_outputs_do_not_go_into_one_array():
    ours = built([GRU(3, return_sequences=True), Bidirectional(GRU(5), None)])
    with pytest.raises(ValueError, match="out must be None with merge_mode=None"):
        ours(X, out=np.empty((2, 5), "f4"))


def test_flags_that_no_longer_fit_are_refused_at_the_call():
    ours = built(grus(3, 4, 5))
    ours.layers[1].return_sequences = False
    with pytest.raises(ValueError, match="layers must return sequences for those above them"):
        ours(X)
    ours.layers[1].return_sequences = True
    ours.layers[1].time_major = True
    with pytest.raises(ValueError, match="layers must agree in time_major"):
        ours(X)


class Failing:
    """An activation that fails at a call."""

    def __init__(self):
        self.calls, self.at = 0, None

    def __call__(self, x):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return np.tanh(x)


@pytest.mark.parametrize("both", [False, True])
def test_a_failure_in_the_middle_changes_nothing(both, short_chunks):
    failing = Failing()
    middle = GRU(4, return_sequences=True, stateful=True)
    layers = [GRU(4, return_sequences=True, stateful=True), Bidirectional(middle) if both else middle]
    ours = built([*layers, GRU(5, stateful=True, activation=failing)])
    x = np.ones((2, 8, 3), "f4")
    ours(x)
    before = ours.states
    failing.at = failing.calls + 5  # in the second chunk
    with pytest.raises(KeyboardInterrupt):
        ours(x)
    assert_same(ours.states, before)


def test_a_first_call_that_fails_builds_nothing():
    layers = [Bidirectional(GRU(3, return_sequences=True), weights=[np.ones((4, 9))]), GRU(3)]
    ours = Stack([GRU(3, return_sequences=True), *layers])
    for attempt in (lambda: ours(X), lambda: ours.build((None, None, 3))):
        with pytest.raises(ValueError, match="weight list of length 1"):
            attempt()
        assert not any(part.built for layer in ours.layers for part in parts(layer))
    other = Stack([GRU(3, return_sequences=True), GRU(3, weights=[np.ones((2, 9))] * 3)])
    ours = Stack([Bidirectional(GRU(3, return_sequences=True), weights=[]), other])
    with pytest.raises(ValueError, match="not compatible"):
        ours(X)
    assert not ours.built
    assert not any(part.built for layer in ours.layers for part in parts(layer))


# ---- memory and threads --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_long_sequence_is_in_memory_once(masked, dtype, choice):
    layers = grus(64, 64, 64, dtype=dtype)
    ours = built(layers, (None, None, 8))
    x = np.zeros((1, 20000, 8), dtype)
    mask = np.ones((1, 20000), bool) if masked else None
    ours(x[:, :5000], mask=None if mask is None else mask[:, :5000])
    for sequences in (False, True):  # 5 MB in float32, each
        layers[-1].return_sequences = sequences
        tracemalloc.start()
        output = ours(x, mask=mask)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < output.nbytes + (4 << 20)


def test_threads_get_the_bits_that_one_thread_gets(short_chunks):
    both = Bidirectional(GRU(5, return_sequences=True))
    ours = built([*grus(9, 9, return_sequences=True), both, *grus(7, 8)])
    inputs = [np.random.default_rng(i).normal(size=(3, 20, 3)).astype("f4") for i in range(6)]
    wanted = [ours(x) for x in inputs]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            assert_same(list(pool.map(ours, inputs)), wanted)


def test_a_call_sees_one_set_of_weights():
    ours, x = built(grus(6, 6, 6)), np.ones((2, 30, 3), "f4")
    sets, wanted = [[np.full_like(w, v) for w in ours.get_weights()] for v in (0.1, -0.2)], set()
    for weights in sets:
        ours.set_weights(weights)
        wanted.add(ours(x).tobytes())
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for weights in sets:
                ours.set_weights(weights)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        seen = {ours(x).tobytes() for _ in range(300)}
    finally:
        stop.set()
        changer.join()
    assert seen <= wanted


def test_stacks_that_share_layers_in_another_order_do_not_wait_for_each_other():
    one, two = (GRU(3, return_sequences=True, stateful=True) for _ in range(2))
    stacks = [Stack([one, two]), Stack([two, one])]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(lambda s=s: [s(X) for _ in range(100)]) for s in stacks * 2]
            assert all(call.result(timeout=60) for call in calls)
    finally:
        sys.setswitchinterval(interval)


def test_stateful_calls_come_one_after_the_other():
    ours = built(grus(4, 5, stateful=True))
    single = copy.deepcopy(ours)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: [ours(X) for _ in range(20)], range(6)))
    for _ in range(120):
        single(X)
    assert_same(ours.states, single.states)


def test_the_state_of_one_layer_is_in_a_list_too():
    stack, x, h = Stack([GRU(3)]), np.ones((2, 4, 5), np.float32), np.ones((2, 3), np.float32)
    stack.build(x.shape)
    for _ in range(2):  # the second call has a network to take the short way
        with pytest.raises(ValueError, match="initial_state must be a list of 1 states"):
            stack(x, initial_state=h)
        np.testing.assert_array_equal(stack(x, initial_state=[h]), stack.layers[0](x, initial_state=h))
