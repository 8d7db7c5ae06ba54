"""What PyTorch's transformations make of an optimized model. Imported by keras_optimized.py."""

import numpy as np
import pytest
import torch
from keras_models import assert_same, keras, random_input, randomize

import fastgru.keras


@pytest.fixture
def layer():
    layer = keras.layers.GRU(3, return_sequences=True)
    layer(torch.zeros(2, 5, 4))
    randomize(layer, np.random.default_rng(1))
    return fastgru.keras.optimize(layer)


@pytest.fixture
def x():
    return torch.tensor(random_input(np.random.default_rng(2), "float32"))


def own(layer, *args):
    with fastgru_off(layer):
        return layer(*args)


def fastgru_off(layer):
    import contextlib

    @contextlib.contextmanager
    def off():
        fastgru.keras.restore(layer)
        yield
        fastgru.keras.optimize(layer)

    return off()


def test_calls_run_on_fastgru_where_nothing_wants_a_gradient(layer, x, runs):
    layer(x)
    assert not runs
    with torch.no_grad():
        layer(x)
    assert len(runs) == 1
    with torch.inference_mode():
        layer(x)
    assert len(runs) == 2
    layer.trainable = False
    assert not layer(x).requires_grad
    assert len(runs) == 3
    assert layer(x.clone().requires_grad_()).requires_grad
    assert len(runs) == 3


def test_results_share_no_memory_and_inputs_may_be_strided(layer, x, runs):
    with torch.no_grad():
        wide = torch.stack([x, x], -1)[..., 0]
        assert not wide.is_contiguous()
        first = layer(wide)
        kept = first.clone()
        layer(2 * x)
        assert torch.equal(first, kept)
        assert_same([first.numpy()], [own(layer, x).numpy()])
    assert len(runs) == 2


def test_transformations_take_keras_own(layer, x, runs):
    with torch.no_grad():
        wanted = own(layer, x)
        found = torch.func.vmap(layer)(torch.stack([x, x]))
        assert_same([found[0].numpy()], [wanted.numpy()])
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)
    _, tangent = torch.func.jvp(layer, (x,), (torch.ones_like(x),))
    assert tangent.abs().max() > 0
    assert not runs
