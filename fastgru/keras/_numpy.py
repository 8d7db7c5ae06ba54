"""Keras' NumPy backend, whose tensors are arrays."""

from typing import Any

import numpy as np

from fastgru.keras._variant import Variant

COSTS = "calls run on fastgru, in the memory of the arrays; weights are seen when they are assigned"


def dtype(name: str) -> Any:
    """The type of that name."""
    return np.dtype(name)


def run(
    call: Any, variant: Variant, x: Any, states: list[Any], mask: Any, weights: list[Any]
) -> list[Any] | None:
    """The layer's outputs, and states if they are wanted; None if Keras has to compute them."""
    if type(x) is not np.ndarray or not variant.scans(states, mask):
        return None
    layer = variant.packed(weights, tuple(map(id, weights)), lambda: weights)
    return list(variant.scan(layer, x, states, mask))
