"""Optimized models of PyTorch: the same results whatever the model and call, before and after training."""

import copy
import random

import pytest
import torch
from torch_models import Model, assert_same, flat, inputs

import fastgru.torch

SEEDS = 400


def computed_by_fastgru(model):
    """True if no call since `optimize` was left to PyTorch."""
    entries = fastgru.torch.report(model)
    return bool(entries) and all(entry.changed and entry.last is None for entry in entries)


def train(model, seed):
    """A step of training, in which a seed makes all that is random; the gradients."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    model.train()
    call = inputs(draw, model)
    optimizer = draw.choice([torch.optim.SGD, torch.optim.Adam])(model.parameters(), lr=0.05)
    sum(tensor.square().sum() for tensor in flat(model(*call)) if tensor.requires_grad).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    optimizer.step()
    return gradients


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_random_model_gives_the_same_before_and_after_training(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    model = Model(draw, draw.choice([torch.float32, torch.float32, torch.float64])).eval()
    original = copy.deepcopy(model)
    assert fastgru.torch.optimize(model) is model
    for turn in range(2):
        calls = [inputs(draw, model) for _ in range(3)]
        with draw.choice([torch.no_grad, torch.inference_mode])():
            for call in calls:
                assert_same(model(*call), original(*call))
        assert computed_by_fastgru(model), seed
        assert_same(train(model, seed + turn), train(original, seed + turn), 0)  # both by PyTorch
        assert_same(list(model.parameters()), list(original.parameters()), 0)
        model.eval()
        original.eval()
        assert not computed_by_fastgru(model)
        fastgru.torch.optimize(model)  # forgets what has been left to PyTorch
    fastgru.torch.restore(model)
    assert not any(entry.changed for entry in fastgru.torch.report(model))
    with torch.no_grad():
        for call in calls:
            assert_same(model(*call), original(*call), 0)
