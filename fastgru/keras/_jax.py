"""Keras' jax backend: arrays are read in place, and traced functions call back."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from fastgru.keras._stateless import keras_own
from fastgru.keras._variant import Variant

Array = NDArray[Any]

COSTS = (
    "calls with arrays run on fastgru, and copy the output; traced ones (jit, predict) go through "
    "jax.pure_callback, which copies all it is given, weights too, and which jax.export cannot hold; Keras "
    "computes derivatives"
)


def dtype(name: str) -> Any:
    """The type of that name."""
    return np.dtype(name)


def run(
    call: Any, variant: Variant, x: Any, states: list[Any], mask: Any, weights: list[Any]
) -> list[Any] | None:
    """The layer's outputs, and states if they are wanted; None if Keras has to compute them."""
    if jax.default_backend() != "cpu" or not variant.scans(states, mask):
        return None
    masks = [] if mask is None else [mask]
    if _are_traced(weights):
        return _called_back(call, variant, None, (x, states, masks, weights))
    layer = variant.packed(weights, tuple(map(id, weights)), lambda: [np.asarray(w) for w in weights])
    if _are_traced([x, *states, *masks]):  # the weights are constants, as they would be for Keras
        return _called_back(call, variant, layer, (x, states, masks, []))
    x, states, masks = jax.tree.map(np.asarray, (x, states, masks))
    return [jax.numpy.asarray(array) for array in _computed(variant, layer, x, states, masks, [])]


def _are_traced(values: Sequence[Any]) -> bool:
    return any(isinstance(value, jax.core.Tracer) for value in values)


def _computed(
    variant: Variant, layer: Any, x: Array, states: list[Array], masks: list[Array], weights: list[Array]
) -> list[Array]:
    """What the layer computes, which is made of the weights if it is none."""
    layer = variant.packed_by_value(weights) if layer is None else layer
    return variant.scan(layer, x, states, masks[0] if masks else None)


def _called_back(call: Any, variant: Variant, layer: Any, operands: tuple[Any, ...]) -> list[Any]:
    """The results in a traced computation, whose derivatives are those of Keras' own."""
    x = operands[0]
    results = [jax.ShapeDtypeStruct(shape, x.dtype) for shape in variant.shapes(x.shape)]

    def compute(*arrays: Any) -> list[Array]:
        return _computed(variant, layer, *arrays)

    def forward(*operands: Any) -> Any:
        def on_host(*given: Any) -> list[Array]:
            return over_axes(compute, jax.tree.map(np.asarray, given))

        return jax.pure_callback(on_host, results, *operands, vmap_method="expand_dims")

    def derivative(primals: Any, tangents: Any) -> Any:
        return jax.jvp(lambda *operands: keras_own(call, *operands), primals, tangents)

    differentiable = jax.custom_jvp(forward)
    differentiable.defjvp(derivative)
    found: list[Any] = differentiable(*operands)
    return found


def over_axes(compute: Callable[..., list[Array]], operands: tuple[Any, ...]) -> list[Array]:
    """What is computed over the axes that `jax.vmap` has put before those of the operands.

    They become one with that of the batch; where the weights have them too, their elements are computed one
    by one.

    Parameters
    ----------
    compute : callable
        Takes the operands without these axes, returns arrays whose first axis is that of the batch.
    operands : tuple
        x, (..., batch, timesteps, features), a list of states, one of no mask or one, and one of weights.
        An axis that an operand does not depend on has the length 1.
    """
    x, states, masks, weights = operands
    axes = x.ndim - 3
    if not axes:
        return compute(*operands)
    mapped = np.broadcast_shapes(*(array.shape[:axes] for array in [x, *states, *masks, *weights]))

    def whole(array: Array) -> Array:
        return np.broadcast_to(array, (*mapped, *array.shape[axes:]))

    x, states, masks = whole(x), list(map(whole, states)), list(map(whole, masks))
    batch = x.shape[axes]
    if all(weight.shape[:axes] == (1,) * axes for weight in weights):
        x, *others = (array.reshape(-1, *array.shape[axes + 1 :]) for array in [x, *states, *masks])
        kept = [weight.reshape(weight.shape[axes:]) for weight in weights]
        found = compute(x, others[: len(states)], others[len(states) :], kept)
        return [array.reshape(*mapped, batch, *array.shape[1:]) for array in found]
    weights = list(map(whole, weights))
    each = [
        compute(x[i], [s[i] for s in states], [m[i] for m in masks], [w[i] for w in weights])
        for i in np.ndindex(mapped)
    ]
    return [np.stack(found).reshape(*mapped, *found[0].shape) for found in zip(*each, strict=True)]
