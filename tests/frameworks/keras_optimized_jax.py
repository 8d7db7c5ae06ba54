"""What jax's transformations make of an optimized model. Imported by keras_optimized.py."""

import jax
import numpy as np
import pytest
from keras_models import BATCH, assert_same, infer, keras, random_input, randomize

import fastgru.keras
from fastgru.keras._jax import over_axes


@pytest.fixture
def model():
    layer = keras.layers.GRU(3, activation="softsign", reset_after=False)
    model = keras.Sequential([keras.Input((5, 4)), layer])
    randomize(model, np.random.default_rng(1))
    return model


def of_weights(model):
    """The model as a function of its weights and its input."""
    fixed = [v.value for v in model.non_trainable_variables]
    return lambda weights, x: model.stateless_call(weights, fixed, x, training=False)[0]


def values(model):
    return [v.value for v in model.trainable_variables]


def each_way(model, x):
    """Transformations of the model, with their results."""
    compute, weights = of_weights(model), values(model)
    many = jax.numpy.stack([x, 2 * x, 3 * x])
    more = [jax.numpy.stack([w, 0.5 * w, -w]) for w in weights]

    def loss(weights, x):
        return (compute(weights, x) ** 2).sum()

    return {
        "jit": jax.jit(lambda x: model(x))(x),
        "vmap": jax.jit(jax.vmap(lambda x: model(x)))(many),
        "vmap of both": jax.jit(jax.vmap(compute))(more, many),
        "vmap of weights": jax.jit(jax.vmap(compute, (0, None)))(more, x),
        "grad": jax.jit(jax.grad(loss, (0, 1)))(weights, x),
        "jvp": jax.jit(lambda x: jax.jvp(lambda x: model(x), [x], [x]))(x),
    }


def test_transformed_models_compute_the_same(model, runs):
    x = jax.numpy.asarray(random_input(np.random.default_rng(2), "float32"))
    wanted = each_way(model, x)
    fastgru.keras.optimize(model)
    found = each_way(model, x)
    assert runs
    for name in wanted:
        assert_same(*(list(map(np.array, jax.tree.leaves(each[name]))) for each in (found, wanted)))


def test_a_compiled_function_gets_its_weights_with_each_call(model, runs):
    x = jax.numpy.asarray(random_input(np.random.default_rng(2), "float32"))
    fastgru.keras.optimize(model)
    compute = jax.jit(of_weights(model))
    for factor in (1, 2, 0, 1):
        weights = [factor * w for w in values(model)]
        found = compute(weights, x)
        fastgru.keras.restore(model)
        with jax.disable_jit():
            assert_same([np.array(found)], [np.array(of_weights(model)(weights, x))])
        fastgru.keras.optimize(model)
    assert len(runs) == 4


def test_masks_and_states_are_mapped_too(runs):
    rng = np.random.default_rng(3)
    layer = keras.layers.GRU(3, return_sequences=True)
    x = jax.numpy.asarray(rng.normal(size=(2, BATCH, 5, 4)).astype("float32"))
    mask, state = jax.numpy.asarray(rng.random((2, BATCH, 5)) < 0.6), rng.normal(size=(BATCH, 3))
    state = jax.numpy.asarray(state.astype("float32"))
    infer(layer, x[0])
    randomize(layer, rng)

    def mapped():
        return np.array(
            jax.vmap(lambda x, mask: layer(x, mask=mask, initial_state=[state]))(x, mask),
        )

    wanted = mapped()
    fastgru.keras.optimize(layer)
    assert_same([mapped()], [wanted])
    assert len(runs) == 1  # all rows together


def test_axes_before_those_of_the_operands_become_one_with_the_batch():
    def compute(x, states, masks, weights):
        return [x.sum((1, 2))[:, None] * weights[0].sum() + states[0] * masks[0].sum(1, keepdims=True)]

    rng = np.random.default_rng(4)
    x, state, mask = (
        rng.normal(size=(2, 1, 3, 5, 4)),
        rng.normal(size=(1, 6, 3, 7)),
        rng.random((2, 6, 3, 5)) < 0.5,
    )
    for weight in (rng.normal(size=(1, 1, 4, 3)), rng.normal(size=(2, 1, 4, 3))):
        found = over_axes(compute, (x, [state], [mask], [weight]))
        assert found[0].shape == (2, 6, 3, 7)
        for i, j in np.ndindex(2, 6):
            one = compute(x[i, 0], [state[0, j]], [mask[i, j]], [weight[i % len(weight), 0]])
            np.testing.assert_allclose(found[0][i, j], one[0], rtol=1e-12)
