"""Layers of Keras 3: whatever they compute, their configs, and the activations that Keras 3 alone has."""

import contextlib
import copy
import io
import json
import pickle
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fastgru

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using a softmax over axis"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept"),  # of Keras 3's variables
]
BATCH, FEATURES = 3, 4
TOLERANCE = {"float32": 3e-5, "float64": 1e-10}
BOUNDED = ["tanh", "sigmoid", "hard_sigmoid", "softsign", "sparse_sigmoid", "hard_tanh"]
FUNCTIONS = [
    *["linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "hard_silu", "mish"],
    *["softplus", "sparse_plus", "squareplus", "log_sigmoid", "hard_shrink", "soft_shrink", "tanh_shrink"],
    *["exponential", "softmax", "log_softmax", "sparsemax", None],
]
FLAGS = st.booleans()


@pytest.fixture(scope="module")
def keras3(tensorflow):
    return pytest.importorskip("keras")


# ---- any arguments, any calls ----------------------------------------------------------------

CALLS = st.fixed_dictionaries(
    {
        "timesteps": st.integers(1, 5),
        "mask": st.sampled_from([None, None, "random", "leading", "trailing", "all"]),
        "state": FLAGS,
        "training": st.sampled_from([None, False, True]),
        "reset": st.sampled_from([False, False, True]),
    }
)
PENALTIES = st.sampled_from([None, None, "l1", "l2"])
CONFIGS = st.fixed_dictionaries(
    {
        "units": st.integers(1, 9),
        "activation": st.sampled_from(BOUNDED) | st.sampled_from(BOUNDED + FUNCTIONS),
        "recurrent_activation": st.sampled_from(BOUNDED) | st.sampled_from(BOUNDED + FUNCTIONS),
        "use_bias": FLAGS,
        "kernel_regularizer": PENALTIES,
        "bias_regularizer": PENALTIES,
        "activity_regularizer": PENALTIES,
        "dropout": st.sampled_from([0.0, 0.0, 0.3]),
        "recurrent_dropout": st.sampled_from([0.0, 0.0, 0.5]),
        "return_sequences": FLAGS,
        "return_state": FLAGS,
        "go_backwards": FLAGS,
        "stateful": FLAGS,
        "unroll": FLAGS,
        "reset_after": FLAGS,
        "zero_output_for_mask": FLAGS,
        "trainable": FLAGS,
        "dtype": st.sampled_from(["float32", "float32", "float64"]),
    }
)
ANY = settings(
    max_examples=60,
    deadline=None,
    print_blob=True,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def mask_of(kind, timesteps, rng):
    first = rng.integers(0, timesteps + 1, (BATCH, 1))
    return {
        None: None,
        "random": rng.random((BATCH, timesteps)) < 0.6,
        "leading": np.arange(timesteps) >= first,
        "trailing": np.arange(timesteps) < first,
        "all": np.zeros((BATCH, timesteps), bool),
    }[kind]


def as_list(results):
    return list(results) if isinstance(results, list | tuple) else [results]


def assert_close(ours, theirs, dtype):
    for one, other in zip(as_list(ours), as_list(theirs), strict=True):
        other = np.asarray(other)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assume(not (np.abs(other) > 100).any())  # beyond, a state grows without bounds
        largest = np.max(np.abs(other), initial=1.0)
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE[dtype] * largest)


def randomize(layer, config, rng):
    bounded = {config["activation"], config["recurrent_activation"]} <= set(BOUNDED)
    scale = 1.0 if bounded else 0.1
    layer.set_weights(
        [rng.normal(0, scale / max(1, len(array)) ** 0.5, array.shape) for array in layer.get_weights()]
    )


def unroll_is_wrong(config, call):
    """Is this where Keras crashes, or zeroes outputs by the masks of other steps?"""
    masked = call["mask"] is not None and config["zero_output_for_mask"]
    return masked and (config["go_backwards"] or not config["return_sequences"])


def dropping(ours, theirs, keras3):
    """A context in which a layer of Keras 3 drops what fastgru's drops."""
    drawn = []
    draw = ours._dropout_masks

    def once(batch, features):
        drawn.append(draw(batch, features))
        return drawn[-1]

    def masks_of(kind):
        def masks(_):
            if not theirs.dropout or kind != "input_masks":
                tensors = [keras3.ops.convert_to_tensor(one) for one in drawn[-1].get(kind, [])]
                return tensors or None
            tensors = [keras3.ops.convert_to_tensor(one) for one in drawn[-1][kind]]
            return tensors if theirs.cell.implementation == 1 else tensors[0]

        return masks

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(ours, "_dropout_masks", once))
    stack.enter_context(mock.patch.object(theirs.cell, "get_dropout_mask", masks_of("input_masks")))
    stack.enter_context(
        mock.patch.object(theirs.cell, "get_recurrent_dropout_mask", masks_of("recurrent_masks"))
    )
    return stack


@ANY
@given(config=CONFIGS, calls=st.lists(CALLS, min_size=1, max_size=3), seed=st.integers(0, 2**32 - 1))
def test_any_calls_of_any_layer_agree(config, calls, seed, keras3):
    rng, dtype = np.random.default_rng(seed), config["dtype"]
    # "auto" takes another way for the input's dropout, and fails where there is a mask for each gate
    theirs = keras3.layers.GRU(name="gru", use_cudnn=False, **config)
    theirs.build((BATCH, None, FEATURES))
    randomize(theirs, config, rng)
    ours = fastgru.from_keras(theirs)
    assert ours.keras_version == 3
    assert ours.implementation == theirs.cell.implementation
    for call in calls:
        x = rng.normal(size=(BATCH, call["timesteps"], FEATURES)).astype(dtype)
        state = rng.normal(0, 0.5, (BATCH, config["units"])).astype(dtype) if call["state"] else None
        mask = mask_of(call["mask"], call["timesteps"], rng)
        if call["reset"] and config["stateful"] and any(state is not None for state in ours.states):
            ours.reset_states()
            theirs.reset_state()
        theirs.unroll = config["unroll"] and not unroll_is_wrong(config, call)
        options = {"initial_state": state, "training": call["training"]}
        drops = call["training"] and theirs.dropout + theirs.recurrent_dropout
        with dropping(ours, theirs, keras3) if drops else contextlib.nullcontext():
            found = ours(x, mask=mask, **options)
            tensor = None if mask is None else keras3.ops.convert_to_tensor(mask)
            assert_close(found, theirs(x, mask=tensor, **options), dtype)
        if config["stateful"]:
            assert_close(ours.states, [np.asarray(state) for state in theirs.states], dtype)
        losses = [np.asarray(loss) for loss in theirs.losses]
        assert len(ours.losses) == len(losses)
        np.testing.assert_allclose(ours.losses, losses, rtol=1e-3, atol=1e-6)


@ANY
@given(
    config=CONFIGS,
    merge_mode=st.sampled_from(["concat", "sum", "mul", "ave", None]),
    calls=st.lists(CALLS, min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_calls_of_any_bidirectional_agree(config, merge_mode, calls, seed, keras3):
    rng, dtype = np.random.default_rng(seed), config["dtype"]
    config = config | {"go_backwards": False, "dropout": 0.0, "recurrent_dropout": 0.0, "unroll": False}
    if config["stateful"]:
        config["return_state"] = False  # Keras 3 fails: it multiplies a generator
    wrapped = keras3.layers.GRU(name="way", **config)
    theirs = keras3.layers.Bidirectional(wrapped, merge_mode=merge_mode, dtype=dtype)
    theirs.build((BATCH, None, FEATURES))
    for direction in (theirs.forward_layer, theirs.backward_layer):
        randomize(direction, config, rng)
    ours = fastgru.from_keras(theirs)
    for call in calls:
        x = rng.normal(size=(BATCH, call["timesteps"], FEATURES)).astype(dtype)
        states = list(rng.normal(0, 0.5, (2, BATCH, config["units"])).astype(dtype))
        states = states if call["state"] else None
        mask = mask_of(call["mask"], call["timesteps"], rng)
        if call["reset"] and config["stateful"] and any(state is not None for state in ours.states):
            ours.reset_states()
            theirs.reset_state()
        options = {"initial_state": states, "training": call["training"]}
        found = ours(x, mask=mask, **options)
        tensor = None if mask is None else keras3.ops.convert_to_tensor(mask)
        assert_close(found, theirs(x, mask=tensor, **options), dtype)
        losses = [np.asarray(loss) for loss in theirs.losses]
        np.testing.assert_allclose(sorted(ours.losses), sorted(losses), rtol=1e-3, atol=1e-6)


# ---- a given state ---------------------------------------------------------------------------


@pytest.mark.parametrize("two", [False, True])
def test_a_stateful_layer_starts_every_call_from_the_state_that_it_is_given(two, keras3, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 2, FEATURES)).astype(np.float32)
    h = list(rng.normal(size=(1 + two, 1, 2)).astype(np.float32))
    inputs = keras3.Input(batch_shape=(1, None, FEATURES))
    states = [keras3.Input(batch_shape=(1, 2)) for _ in h]
    layer = keras3.layers.GRU(2, stateful=True, name="gru")
    if two:
        layer = keras3.layers.Bidirectional(layer, name="both")
    model = keras3.Model([inputs, *states], layer(inputs, initial_state=states))
    model.save(tmp_path / "state.keras")
    from_file, made = fastgru.load(tmp_path / "state.keras"), fastgru.from_keras(layer)
    made.save(tmp_path / "layer.npz")
    copies = [copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))]
    copies.append(type(made).from_config(made.get_config()))
    copies[-1].build((1, None, FEATURES))
    copies[-1].set_weights(made.get_weights())
    given_state = h if two else h[0]
    expected = [np.asarray(model([x, *h])) for _ in range(3)]
    for ours in (from_file, made, *copies, fastgru.load(tmp_path / "layer.npz")):
        for theirs in expected:
            np.testing.assert_allclose(ours(x, initial_state=given_state), theirs, rtol=0, atol=1e-6)
    other = fastgru.load(tmp_path / "state.keras", keras_version=2)
    first, second = (other(x, initial_state=given_state) for _ in range(2))
    assert np.abs(first - second).max() > 0.01


def test_a_stack_starts_every_call_from_the_states_that_it_is_given(keras3):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, FEATURES)).astype(np.float32)
    states = list(rng.normal(size=(2, 2, 5)).astype(np.float32))
    layers = [keras3.layers.GRU(5, stateful=True, return_sequences=True) for _ in range(2)]
    for layer, width in zip(layers, (FEATURES, 5), strict=True):
        layer.build((2, 3, width))
    stack = fastgru.Stack([fastgru.from_keras(layer) for layer in layers])
    for given_states in (states, None, states, states, None):
        theirs = x
        for layer, state in zip(layers, given_states or [None, None], strict=True):
            theirs = layer(theirs, initial_state=state)
        np.testing.assert_allclose(
            stack(x, initial_state=given_states), np.asarray(theirs), rtol=0, atol=1e-5
        )


def test_calls_without_a_state_go_on_from_the_recorded_one(keras3):
    x = np.random.default_rng(0).normal(size=(2, 3, FEATURES)).astype(np.float32)
    h = np.full((2, 5), 0.5, np.float32)
    theirs = keras3.layers.GRU(5, stateful=True)
    theirs.build(x.shape)
    ours = fastgru.from_keras(theirs)
    for state in (None, h, None, h, h, None):
        expected = np.asarray(theirs(x, initial_state=state))
        np.testing.assert_allclose(ours(x, initial_state=state), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [1, 4, "3", 3.5, True, None])
def test_other_versions_are_refused(value):
    with pytest.raises(ValueError, match="keras_version must be 2, which is version 1's too, or 3, got"):
        fastgru.GRU(2, keras_version=value)


# ---- configs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["get_config", "file"])
def test_configs_of_keras_3_are_taken(way, keras3, tmp_path):
    gru = keras3.layers.GRU(
        3, recurrent_activation="hard_sigmoid", activation="celu", reset_after=False, seed=4, name="one"
    )
    both = keras3.layers.Bidirectional(
        keras3.layers.GRU(2, dropout=0.2, name="way"), merge_mode="sum", name="two"
    )
    inputs = keras3.Input((None, FEATURES))
    model = keras3.Model(inputs, [gru(inputs), both(inputs)])
    configs = [gru.get_config(), both.get_config()]
    if way == "file":
        config = json.loads(model.to_json())
        configs = [
            layer["config"]
            for layer in config["config"]["layers"]
            if layer["config"]["name"] in ("one", "two")
        ]
    before = copy.deepcopy(configs)
    ours = fastgru.GRU.from_config(configs[0]), fastgru.Bidirectional.from_config(configs[1])
    assert configs == before
    assert (ours[0].name, ours[1].name) == ("one", "two")
    assert [ours[1].forward_layer.name, ours[1].backward_layer.name] == ["forward_way", "backward_way"]
    assert ours[0].recurrent_activation is fastgru.activations.keras3_hard_sigmoid
    assert {part.keras_version for part in (ours[0], ours[1].forward_layer, ours[1].backward_layer)} == {3}
    assert (ours[1].merge_mode, ours[1].forward_layer.dropout, ours[0].reset_after) == ("sum", 0.2, False)
    x = np.random.default_rng(0).normal(size=(2, 6, FEATURES)).astype(np.float32)
    for layer, theirs in zip(ours, (gru, both), strict=True):
        layer.build(x.shape)
        layer.set_weights(theirs.get_weights())
        np.testing.assert_allclose(layer(x), np.asarray(theirs(x)), rtol=0, atol=1e-5)
        back = type(theirs).from_config(json.loads(json.dumps(layer.to_keras_config(3))))
        back.build(x.shape)
        back.set_weights(theirs.get_weights())
        np.testing.assert_allclose(np.asarray(back(x)), np.asarray(theirs(x)), rtol=0, atol=1e-6)


def test_a_bidirectional_config_of_another_layer_is_refused(keras3):
    config = keras3.layers.Bidirectional(keras3.layers.LSTM(2)).get_config()
    with pytest.raises(ValueError, match="layer must be a dict with 'GRU'"):
        fastgru.Bidirectional.from_config(config)


# ---- activations -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_activation_that_a_gru_can_take_is_that_of_keras_3(dtype, keras3):
    x = np.linspace(-12, 12, 400).reshape(-1, 8).astype(dtype)
    tolerance = {"float32": 2e-6, "float64": 1e-13}[dtype]
    unknown = []
    for name, function in keras3.src.activations.ALL_OBJECTS_DICT.items():
        try:
            ours = fastgru.activations.get("keras3_hard_sigmoid" if name == "hard_sigmoid" else name)
        except ValueError:
            unknown.append(name)
            continue
        expected = np.asarray(function(keras3.ops.convert_to_tensor(x)))
        found = ours(x)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=name)
    assert sorted(unknown) == ["glu", "threshold"]  # which halves the units, and has no defaults


@pytest.mark.parametrize("activation", fastgru.activations.KERAS_3, ids=repr)
def test_activations_of_keras_3_have_limits_names_and_copies(activation):
    name = activation.__name__
    far = activation(np.array([[-np.inf, np.inf, -1e38, 1e38]], np.float32))
    assert np.isfinite(far[0, 2:]).all() or name == "sparsemax"
    assert not np.isnan(far[0, :2]).any() or name == "sparsemax"
    assert fastgru.activations.get(fastgru.activations.serialize(activation)) is activation
    assert pickle.loads(pickle.dumps(activation)) is activation
    layer = fastgru.GRU(3, activation=activation)
    assert layer(np.ones((2, 3, 4), np.float32)).shape == (2, 3)
    buffer = io.BytesIO()
    layer.save(buffer)
    assert fastgru.load(buffer.getvalue()).activation is activation
    with pytest.raises(ValueError, match="Keras 2 has no activation"):
        layer.to_keras_config(2)
