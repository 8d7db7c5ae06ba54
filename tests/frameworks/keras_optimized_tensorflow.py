"""What TensorFlow's graphs, tapes and files make of an optimized model. Imported by keras_optimized.py."""

import numpy as np
import pytest
import tensorflow as tf
from keras_models import FLAVOUR, assert_same, keras, random_input, randomize

import fastgru.keras


@pytest.fixture
def model():
    model = keras.Sequential(
        [
            keras.Input((None, 4)),
            keras.layers.Bidirectional(keras.layers.GRU(3, return_sequences=True)),
            keras.layers.GRU(2, activation="sigmoid", reset_after=False),
        ]
    )
    randomize(model, np.random.default_rng(1))
    return model


@pytest.fixture
def x():
    return tf.constant(random_input(np.random.default_rng(2), "float32"))


def variables(model):
    return [v if FLAVOUR == "tf_keras" else v.value for v in model.trainable_variables]


def numbers(*tensors):
    return [np.array(tensor) for tensor in tensors]


def test_graphs_compute_the_same_and_see_new_weights(model, x, runs):
    wanted = numbers(model(x))
    fastgru.keras.optimize(model)
    compute = tf.function(lambda x: model(x, training=False))
    assert_same(numbers(compute(x)), wanted)
    assert len(runs) == 2
    for variable in variables(model):
        variable.assign_add(tf.ones_like(variable))
    found = numbers(compute(x))
    fastgru.keras.restore(model)
    assert_same(found, numbers(model(x)))
    assert_same(numbers(compute(x)), numbers(model(x)))  # as it was traced
    assert np.abs(found[0] - wanted[0]).max() > 1e-3


def test_shapes_that_are_not_known_when_traced_may_differ(model, runs):
    fastgru.keras.optimize(model)
    compute = tf.function(
        lambda x: model(x, training=False), input_signature=[tf.TensorSpec((None, None, 4))]
    )
    shape = compute.get_concrete_function().output_shapes
    assert shape.as_list() == [None, 2]
    for batch, timesteps in ((1, 1), (2, 7)):
        x = tf.constant(np.random.default_rng(batch).normal(size=(batch, timesteps, 4)).astype("float32"))
        with fastgru.keras.optimized(model):
            found = numbers(compute(x))
        fastgru.keras.restore(model)
        assert_same(found, numbers(model(x)))
    assert runs


@pytest.mark.parametrize("where", ["around the function", "in the function"])
def test_gradients_of_graphs_are_keras_own(where, model, x, runs):
    def gradients():
        def forward(x):
            return tf.reduce_sum(model(x, training=False) ** 2)

        def gradient(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                found = tf.function(forward)(x) if where == "around the function" else forward(x)
            return tape.gradient(found, [x, *variables(model)])

        return numbers(*(gradient(x) if where == "around the function" else tf.function(gradient)(x)))

    wanted = gradients()
    fastgru.keras.optimize(model)
    runs.clear()
    found = gradients()
    assert runs
    assert_same(found, wanted)


def test_xla_compiles_keras_own_computation(model, x, runs):
    wanted = numbers(model(x))
    fastgru.keras.optimize(model)
    runs.clear()
    assert_same(numbers(tf.function(model, jit_compile=True)(x)), wanted)
    assert not runs


def test_masks_and_states_go_into_graphs(runs):
    rng = np.random.default_rng(3)
    layer = keras.layers.GRU(3, return_sequences=True, return_state=True)
    x = tf.constant(rng.normal(size=(2, 5, 4)).astype("float32"))
    mask, state = (
        tf.constant(rng.random((2, 5)) < 0.6),
        tf.constant(rng.normal(size=(2, 3)).astype("float32")),
    )
    layer(x)
    randomize(layer, rng)
    wanted = numbers(*layer(x, mask=mask, initial_state=[state]))
    fastgru.keras.optimize(layer)
    compute = tf.function(lambda x, mask, state: layer(x, mask=mask, initial_state=[state]))
    assert_same(numbers(*compute(x, mask, state)), wanted)
    assert len(runs) == 1


def test_tapes_and_other_gradients_take_keras_own(model, x, runs):
    fastgru.keras.optimize(model)
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = model(x, training=False)
    assert not runs
    assert np.abs(tape.gradient(found, x)).max() > 0
    with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as accumulator:
        found = model(x, training=False)
    assert not runs
    assert np.abs(accumulator.jvp(found)).max() > 0
    model(x)
    assert runs


def test_exported_models_and_graphs_have_nothing_of_fastgru(model, x, tmp_path):
    wanted = numbers(model(x))
    fastgru.keras.optimize(model)
    if FLAVOUR == "tf_keras":
        model.save(tmp_path / "model", save_format="tf")
        served = tf.saved_model.load(tmp_path / "model")
        assert_same(numbers(served(x)), wanted)
    else:
        model.export(tmp_path / "model", verbose=False)
        served = tf.saved_model.load(tmp_path / "model")
        assert_same(numbers(served.serve(x)), wanted)
    assert b"PyFunc" not in (tmp_path / "model" / "saved_model.pb").read_bytes()
    module = tf.Module()
    module.model = model
    module.compute = tf.function(lambda x: model(x, training=False))
    module.compute(x)
    tf.saved_model.save(module, tmp_path / "other")
    served = tf.saved_model.load(tmp_path / "other")
    assert_same(numbers(served.compute(x)), wanted)
    assert b"PyFunc" not in (tmp_path / "other" / "saved_model.pb").read_bytes()


def test_results_are_in_memory_that_is_not_written_again(model, x):
    fastgru.keras.optimize(model)
    first = model(x)
    before = numbers(first)
    for _ in range(3):
        model(2 * x)
    np.testing.assert_array_equal(first, before[0])
