"""Keras' own test cases of the layer, in our words; each docstring names the file and the case.

Of tf_keras/layers/rnn unless it says otherwise; "Keras 3" is keras/src/layers/rnn/gru_test.py and "Keras
2.3" is tests/keras/layers/recurrent_test.py of the multi-backend Keras 2.3.1. Their models, devices,
training and files are left out, Masking and Embedding layers are masks.
"""

import copy
import itertools

import numpy as np
import pytest
from keras_cases import FLAGS, KERAS3, assert_same, constant, random, twin

import fastgru
from fastgru import constraints, regularizers

pytestmark = pytest.mark.usefixtures("choice")


# ---- numbers -------------------------------------------------------------------------------------

COUNT = np.arange(72, dtype=np.float32).reshape(3, 6, 4)
FEW = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
FEW_MASK = np.array([[True, True, False, True], [True, False, False, True]])
FEW_STATE = np.arange(4, dtype=np.float32).reshape(2, 2)


@pytest.mark.parametrize("engine", [{"unroll": True}, {"implementation": 1}, {"implementation": 2}], ids=repr)
@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        (KERAS3, [0.5217289, 0.6371659, 0.3938496]),
        (KERAS3 | {"go_backwards": True}, [0.2440626, 0.6115160, 0.3928808]),
        (KERAS3 | {"reset_after": False}, [0.5144775, 0.6426879, 0.4020830]),
        (KERAS3 | {"use_bias": False}, [0.4998845, 0.6470119, 0.4103359]),
        ({}, [0.5341484, 0.6693320, 0.1783321]),
        ({"go_backwards": True}, [0.2289469, 0.6396974, 0.1809100]),
        ({"reset_after": True}, [0.5417490, 0.6618204, 0.1633294]),
        ({"use_bias": False}, [0.5189184, 0.6752263, 0.1975654]),
        ({"recurrent_activation": "sigmoid"}, [0.5144775, 0.6426880, 0.4020829]),
        ({"activation": "relu"}, [0.6338729, 1.1162339, 0.3842522]),
        ({"activation": None}, [0.6338729, 1.1162339, 0.3842522]),
    ],
    ids=repr,
)
def test_outputs_are_the_known_numbers(kwargs, expected, engine):
    """Keras 3, test_correctness; and the same sequence through the original with its own defaults."""
    output = constant(3, **kwargs, **engine)(COUNT)
    assert_same(output, np.repeat(np.array(expected)[:, np.newaxis], 3, axis=1))


@pytest.mark.parametrize("unroll", FLAGS)
@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        (
            KERAS3,
            [[0.0360669, 0.0949758, 0.0949758, 0.1939376], [0.1605141, 0.1605141, 0.1605141, 0.3081856]],
        ),
        ({}, [[0.0292449, 0.0857327, 0.0857327, 0.1873592], [0.1651231, 0.1651231, 0.1651231, 0.3222222]]),
        (
            {"go_backwards": True},
            [[0.1382380, 0.1382380, 0.1445763, 0.1048052], [0.2164695, 0.2164695, 0.2164695, 0.2929952]],
        ),
    ],
    ids=repr,
)
def test_masked_outputs_are_the_known_numbers(kwargs, expected, unroll):
    """Keras 3, test_masking; and the same sequence through the original with its own defaults."""
    expected = np.repeat(np.array(expected)[..., np.newaxis], 2, axis=-1)
    kwargs = kwargs | {"unroll": unroll}
    assert_same(constant(2, **kwargs)(FEW, mask=FEW_MASK), expected[:, -1])
    assert_same(constant(2, return_sequences=True, **kwargs)(FEW, mask=FEW_MASK), expected)
    kept = FEW_MASK[:, ::-1] if "go_backwards" in kwargs else FEW_MASK
    layer = constant(2, return_sequences=True, zero_output_for_mask=True, **kwargs)
    assert_same(layer(FEW, mask=FEW_MASK), expected * kept[..., np.newaxis])


def test_masked_backwards_output_is_the_known_number():
    """Keras 3, test_masking, its last part."""
    output = constant(2, go_backwards=True, **KERAS3)(FEW, mask=FEW_MASK)
    assert_same(output, np.repeat([[0.1166919], [0.2838097]], 2, axis=1))


@pytest.mark.parametrize("form", [lambda x, h: (x, h), lambda x, h: ([x, h],), lambda x, h: (x, [h])])
@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        (KERAS3, [[0.2377410, 0.3350846], [0.8365991, 1.0227708]]),
        (KERAS3 | {"go_backwards": True}, [[0.1348605, 0.2326122], [0.7825730, 0.9691353]]),
        ({}, [[0.2293840, 0.3151481], [0.7762365, 0.9274654]]),
    ],
    ids=repr,
)
def test_initial_state_gives_the_known_numbers(kwargs, expected, form):
    """Keras 3, test_pass_initial_state and test_pass_return_state; and the original's own defaults."""
    output, state = constant(2, return_state=True, **kwargs)(*form(FEW, FEW_STATE))
    assert_same(output, expected)
    np.testing.assert_array_equal(state, output)


def test_stateful_outputs_are_the_known_numbers():
    """Keras 3, test_statefulness."""
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    layer = constant(4, stateful=True, **KERAS3)
    for _ in range(2):
        layer(x)
        assert_same(layer(x), np.repeat([[0.2954239], [0.5885018]], 4, axis=1))
        layer.reset_states()


def test_implementation_0_of_a_config_is_1():
    """Keras 3, test_legacy_implementation_argument."""
    config = constant(3, **KERAS3).get_config() | {"implementation": 0}
    layer = fastgru.GRU.from_config(config)
    assert layer.implementation == 1
    assert_same(layer(COUNT), np.repeat([[0.5217289], [0.6371659], [0.3938496]], 3, axis=1))


# ---- what their layer_test does to any layer -----------------------------------------------------


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"return_sequences": True},
        {"return_sequences": True, "dtype": "float64"},
        {"dropout": 0.1, "recurrent_dropout": 0.1},
        {"dropout": 0.1, "recurrent_dropout": 0.1, "unroll": True},
        {"reset_after": True},
        {"use_bias": False},
        *({"implementation": i} for i in (0, 1, 2)),
        *({"implementation": i, "dropout": 0.1, "recurrent_dropout": 0.1} for i in (1, 2)),
        *({"implementation": i, "use_bias": False} for i in (1, 2)),
        *({"bias_initializer": name} for name in ("zeros", "random_uniform")),
    ],
    ids=repr,
)
def test_layer_is_sound(kwargs):
    """gru_test, test_return_sequences, test_float64, test_dropout, test_implementation_mode, test_reset_after
    and test_gru_v2_model_save_load, which are all test_utils.layer_test; Keras 2.3, the same names."""
    layer = fastgru.GRU(2, **kwargs)
    x = random(2, 3, 4).astype(layer.dtype)
    output = layer(x)
    assert output.dtype == layer.dtype
    assert output.shape == layer.compute_output_shape((2, 3, 4))
    assert layer.compute_output_shape((None, None, 4))[0] is None
    for config in (layer.get_config(), layer.get_config() | {"batch_input_shape": (2, 3, 4)}):
        again = fastgru.GRU.from_config(config)
        again.build((2, 3, 4))
        again.set_weights(layer.get_weights())
        np.testing.assert_array_equal(again(x), output)
        assert config == again.get_config() | {"implementation": config["implementation"]}
    assert layer(x, training=True).shape == output.shape
    np.testing.assert_array_equal(layer(x), output)  # training leaves no trace


def test_unbuilt_layer_takes_back_no_weights():
    """test_utils.layer_test, its first step."""
    layer = fastgru.GRU(2)
    assert layer.get_weights() == []
    layer.set_weights(layer.get_weights())
    assert not layer.built


@pytest.mark.parametrize(
    ("kwargs", "shape", "losses"),
    [
        ({"dropout": 0.5}, (3, 3), 0),
        ({"dropout": 0.5, "recurrent_dropout": 0.5}, (3, 3), 0),
        (
            {
                "return_sequences": True,
                "bias_regularizer": "l1",
                "kernel_regularizer": "l2",
                "recurrent_regularizer": "l2",
            },
            (3, 2, 3),
            3,
        ),
    ],
    ids=repr,
)
def test_basics(kwargs, shape, losses):
    """Keras 3, test_basics."""
    layer = fastgru.GRU(3, **kwargs)
    assert layer(random(3, 2, 4), training=True).shape == shape
    assert len(layer.trainable_weights) == 3
    assert len(layer.non_trainable_weights) == 0
    assert len(layer.losses) == losses
    assert layer.supports_masking


@pytest.mark.parametrize("stateful", FLAGS)
def test_config_comes_back(stateful):
    """gru_test, test_from_config; Keras 2.3, test_from_config."""
    layer = fastgru.GRU(1, stateful=stateful)
    assert fastgru.GRU.from_config(layer.get_config()).get_config() == layer.get_config()
    assert layer.get_config()["stateful"] is stateful


def test_config_says_units_and_return_sequences():
    """layers/serialization_test, test_serialize_deserialize_gru."""
    layer = fastgru.GRU.from_config(fastgru.GRU(5, return_sequences=True).get_config())
    assert (layer.units, layer.return_sequences) == (5, True)


def test_clone_has_the_same_weights_in_the_same_order():
    """gru_test, test_cloned_weight_names; here weights have no names but their places."""
    layer = fastgru.GRU(3)
    layer.build((None, None, 3))
    assert [w.shape for w in twin(layer).weights] == [w.shape for w in layer.weights]
    assert [w.shape for w in layer.weights] == [(3, 9), (3, 9), (9,)]


def test_caching_device_of_a_config_means_nothing():
    """base_rnn_test, test_for_enable_caching_device_for_layer: no config has it by default."""
    config = fastgru.GRU(1).get_config()
    assert "enable_caching_device" not in config
    assert fastgru.GRU.from_config(config | {"enable_caching_device": False}).get_config() == config


def test_copies_are_made_before_and_after_a_call():
    """gru_test, test_deepcopy and test_deep_copy_gru."""
    layer = fastgru.GRU(5)
    assert copy.deepcopy(layer).units == 5
    assert copy.deepcopy(layer).get_config() == layer.get_config()
    x = random(32, 10, 8)
    layer = fastgru.GRU(4)
    early = copy.deepcopy(layer)
    output = layer(x)
    assert np.abs(early(x) - output).max() > 1e-3  # each has made its own weights
    np.testing.assert_array_equal(copy.deepcopy(layer)(x), output)


def test_half_precision_is_close():
    """mixed_precision/layer_correctness_test, test_layer, row GRU; float16 all through."""
    layer = fastgru.GRU(4)
    x = random(4, 4, 4).astype(np.float16)
    output = layer(x)
    half = twin(layer, dtype="float16", recurrent_initializer="zeros")(x)
    assert (output.dtype, half.dtype) == (np.float32, np.float16)
    np.testing.assert_allclose(half, output, rtol=2e-3, atol=2e-3)


# ---- shapes, weights, losses ---------------------------------------------------------------------


def test_any_number_of_timesteps_is_taken():
    """gru_test, test_dynamic_behavior; Keras 2.3, test_dynamic_behavior."""
    layer = fastgru.GRU(2, input_shape=(None, 4))
    x = random(2, 9, 4)
    for timesteps in (3, 9, 1):
        assert layer(x[:, :timesteps]).shape == (2, 2)
    sequences = twin(layer, return_sequences=True)(x)
    assert_same(sequences[:, 2], layer(x[:, :3]))


def test_layers_stack():
    """gru_test, test_stacking: the last output of two layers depends on all steps of the first."""
    first, second = fastgru.GRU(10, return_sequences=True), fastgru.GRU(5, return_sequences=True)
    x = random(2, 3, 4)
    outputs = second(first(x))
    assert outputs.shape == (2, 3, 5)
    x[:, 0] += 1
    assert (np.abs(second(first(x)) - outputs).max(axis=(0, 2)) > 1e-4).all()


def test_a_batch_of_one_is_a_row_of_a_batch():
    """Keras 2.3, test_batch_size_equal_one."""
    layer = fastgru.GRU(3)
    x = random(4, 5, 4)
    assert_same(np.concatenate([layer(x[i : i + 1]) for i in range(4)]), layer(x))


@pytest.mark.parametrize(
    ("kwargs", "shape"),
    [
        ({"input_length": 10, "input_dim": 8}, (None, 10, 8)),
        ({"input_dim": 8}, (None, None, 8)),
        ({"input_length": 10}, (None, 10, None)),
    ],
    ids=repr,
)
def test_input_dim_and_length_are_a_shape(kwargs, shape):
    """base_rnn_test, test_input_dim_length."""
    assert fastgru.GRU(5, **kwargs).get_config()["batch_input_shape"] == shape


def test_identity_is_that_of_the_whole_matrix():
    """Keras 2.3, test_rnn_cell_identity_initializer: there every gate had one, since 2.4 only z has."""
    layer = fastgru.GRU(3, recurrent_initializer="identity")
    layer.build((None, 5, 4))
    np.testing.assert_array_equal(layer.get_weights()[1], np.eye(3, 9))


def test_trainable_moves_the_weights():
    """base_rnn_test, test_rnn_dynamic_trainability and test_rnn_cell_trainability."""
    layer = fastgru.GRU(3, trainable=False)
    layer.build((None, None, 4))
    for trainable, count in ((None, 0), (True, 3), (False, 0), (True, 3)):
        if trainable is not None:
            layer.trainable = trainable
        assert len(layer.weights) == 3
        assert len(layer.trainable_weights) == count
        assert len(layer.non_trainable_weights) == 3 - count


def test_constraints_are_the_given_objects():
    """gru_test, test_constraints."""
    norms = [constraints.max_norm(0.01) for _ in range(3)]
    layer = fastgru.GRU(
        5,
        weights=None,
        input_shape=(None, 4),
        kernel_constraint=norms[0],
        recurrent_constraint=norms[1],
        bias_constraint=norms[2],
        bias_initializer="ones",
    )
    layer.build((None, None, 4))
    assert layer.kernel_constraint is norms[0]
    assert layer.recurrent_constraint is norms[1]
    assert layer.bias_constraint is norms[2]
    layer.apply_constraints()
    for weight in layer.weights:
        np.testing.assert_allclose(np.linalg.norm(weight, axis=0), 0.01, rtol=1e-5)


def test_unbuilt_layer_has_nothing_to_constrain():
    """gru_test, test_constraints, before the layer is built."""
    layer = fastgru.GRU(5, kernel_constraint="max_norm")
    layer.apply_constraints()
    assert not layer.built


def test_losses_are_three_and_a_fourth_after_a_call():
    """gru_test, test_regularizers; Keras 2.3, test_regularizer."""
    layer = fastgru.GRU(
        5,
        weights=None,
        input_shape=(None, 4),
        kernel_regularizer=regularizers.l1(0.01),
        recurrent_regularizer=regularizers.l1(0.01),
        bias_regularizer="l2",
        activity_regularizer="l1",
    )
    layer.build((None, None, 2))
    kernel, recurrent_kernel, bias = layer.get_weights()
    expected = [0.01 * np.abs(kernel).sum(), 0.01 * np.abs(recurrent_kernel).sum(), 0.01 * (bias**2).sum()]
    np.testing.assert_allclose(layer.losses, expected, rtol=1e-6)
    output = layer(np.ones((2, 3, 2), np.float32))
    np.testing.assert_allclose(layer.losses, [0.01 * np.abs(output).sum() / 2, *expected], rtol=1e-6)


# ---- directions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("go_backwards", FLAGS)
@pytest.mark.parametrize("time_major", FLAGS)
def test_time_major_and_backwards_are_the_same_layer(time_major, go_backwards):
    """gru_v1_test, test_time_major_and_go_backward_v1_v2."""
    layer = fastgru.GRU(8, return_sequences=True, **KERAS3)
    x = random(100, 4, 10)
    layer.build(x.shape)
    other = twin(layer, time_major=time_major, go_backwards=go_backwards)
    outputs = other(x.swapaxes(0, 1)).swapaxes(0, 1) if time_major else other(x)
    assert_same(outputs, layer(x[:, ::-1] if go_backwards else x))


@pytest.mark.parametrize("masked", FLAGS)
@pytest.mark.parametrize("go_backwards", FLAGS)
def test_unrolled_is_the_loop(go_backwards, masked):
    """backend_test, test_rnn and test_rnn_additional_states."""
    x, state = random(4, 6, 5), random(4, 3, seed=1)
    mask = np.random.default_rng(2).integers(2, size=(4, 6)) if masked else None
    layer = fastgru.GRU(3, return_sequences=True, return_state=True, go_backwards=go_backwards)
    expected = layer(x, state, mask)
    for found, wanted in zip(twin(layer, unroll=True)(x, state, mask), expected, strict=True):
        assert_same(found, wanted)


def test_one_step_is_unrolled():
    """base_rnn_test, test_unroll_single_step."""
    assert fastgru.GRU(5, return_sequences=True, unroll=True)(np.ones((6, 1, 5), "f")).shape == (6, 1, 5)


@pytest.mark.parametrize("unroll", FLAGS)
def test_no_step_is_an_error(unroll):
    """base_rnn_test, test_unroll_zero_step; an array always has a number of timesteps, but not 0."""
    with pytest.raises(ValueError, match="at least one timestep"):
        fastgru.GRU(5, return_sequences=True, unroll=unroll)(np.ones((6, 0, 5), np.float32))


# ---- dropout -------------------------------------------------------------------------------------


def test_recurrent_dropout_has_one_implementation():
    """gru_test, test_recurrent_dropout_with_implementation_restriction."""
    assert fastgru.GRU(2, recurrent_dropout=0.1, implementation=2).implementation == 1
    assert fastgru.GRU(2, dropout=0.1, implementation=2).implementation == 2


@pytest.mark.parametrize("kwargs", [{"dropout": 0.5}, {"dropout": 0.5, "recurrent_dropout": 0.5}], ids=repr)
@pytest.mark.parametrize("implementation", [1, 2])
def test_a_mask_serves_all_steps_of_one_call(implementation, kwargs):
    """base_rnn_test, test_dropout_mask_reuse: without recurrent weights and gates, steps are alike."""
    layer = fastgru.GRU(
        3,
        activation="linear",
        recurrent_activation=np.zeros_like,
        kernel_initializer="ones",
        recurrent_initializer="zeros",
        return_sequences=True,
        implementation=implementation,
        **kwargs,
    )
    x = np.ones((6, 2, 5), np.float32)
    fastgru.set_random_seed(0)
    calls = [layer(x, training=True) for _ in range(3)]
    for outputs in calls:
        np.testing.assert_array_equal(outputs[:, 0], outputs[:, 1])
        assert set(np.unique(outputs)) <= {0, 2, 4, 6, 8, 10}  # twice the elements that are kept
    assert not np.array_equal(calls[0], calls[1])
    assert not np.array_equal(calls[1], calls[2])
    assert (layer(x) == 5).all()


def test_masks_are_new_for_every_batch():
    """gru_lstm_test, test_reset_dropout_mask_between_batch."""
    x = random(8, 12, 10)
    for kwargs in ({"dropout": 0.5}, {"recurrent_dropout": 0.5}):
        layer = fastgru.GRU(5, **kwargs)
        outputs = [layer(x, training=True) for _ in range(5)]
        assert all(np.abs(a - b).max() > 1e-3 for a, b in itertools.pairwise(outputs))


@pytest.mark.parametrize("unroll", FLAGS)
def test_dropout_acts_in_training_only(unroll):
    """base_rnn_test, test_rnn_dropout; Keras 2.3, test_dropout."""
    layer = fastgru.GRU(3, dropout=0.5, recurrent_dropout=0.5, unroll=unroll)
    x = random(6, 5, 5)
    np.testing.assert_array_equal(layer(x), layer(x, training=False))
    trained = layer(x, training=True)
    assert trained.shape == (6, 3)
    assert np.abs(trained - layer(x)).max() > 1e-3


def test_dropout_and_state_go_together():
    """gru_lstm_test, test_recurrent_dropout_with_stateful_RNN."""
    layer = fastgru.GRU(
        128,
        stateful=True,
        return_sequences=True,
        dropout=0.2,
        batch_input_shape=(32, None, 5),
        recurrent_dropout=0.2,
    )
    layer.build()
    x = random(32, 3, 5)
    outputs = layer(x, training=True)
    assert outputs.shape == (32, 3, 128)
    np.testing.assert_array_equal(layer.states[0], outputs[:, -1])
    assert_same(layer(x), twin(layer, stateful=False, batch_input_shape=None)(x, outputs[:, -1]))
