"""What the tests share that are Keras' own cases: see layer/test_upstream.py."""

import numpy as np

import fastgru

KERAS3 = {"recurrent_activation": "sigmoid", "reset_after": True}
FLAGS = [False, True]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def constant(units, **kwargs):
    """A layer in which all elements of a weight are the same."""
    values = {"kernel_initializer": 0.01, "recurrent_initializer": 0.02, "bias_initializer": 0.03}
    given = {k: {"class_name": "Constant", "config": {"value": v}} for k, v in values.items()}
    return fastgru.GRU(units, **given, **kwargs)


def twin(layer, **kwargs):
    """A layer with the same arguments but for these, and with the same weights."""
    other = fastgru.GRU.from_config(layer.get_config() | kwargs)
    other.build((1, 1, len(layer.weights[0])))
    other.set_weights(layer.get_weights())
    return other


def assert_same(found, expected, atol=1e-6):
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
