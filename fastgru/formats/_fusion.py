"""Nodes of a model made fewer: biases, scales and activations become part of the product before them."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fastgru import activations
from fastgru._nodes import (
    Activation,
    Array,
    Convolution,
    Dense,
    Depthwise,
    Identity,
    LayerNormalization,
    Node,
    Pad,
    Scale,
)

PRODUCTS = (Dense, Convolution, Depthwise)


def fused(
    nodes: Sequence[Node], outputs: Iterable[str], spend: Callable[[int], object] = lambda _: None
) -> list[Node]:
    """The same model with fewer nodes.

    A Scale after a product becomes part of its kernel and bias, which are computed in float64 and rounded;
    one that only adds changes the bias alone. An activation that has a kernel becomes that of the product.
    Zeros before the first timestep that make a convolution causal become part of it.

    Parameters
    ----------
    nodes : sequence of Node
        In running order.
    outputs : iterable of str
        Values that the model returns.
    spend : callable
        Told how many numbers of weights are made anew.
    """
    nodes = _needed(nodes, set(outputs := list(outputs)))
    readers = Counter(name for node in nodes for name in node.inputs)
    readers.update(outputs)
    found: list[Node] = []
    writers: dict[str, int] = {}  # numbers of nodes in `found` by their output
    for node in nodes:
        number = writers.get(node.inputs[0]) if len(node.inputs) == 1 else None
        before = None if number is None or readers[node.inputs[0]] > 1 else found[number]
        joined = None if before is None else _joined(before, node, spend)
        if joined is None:
            found.append(node)
            writers |= dict.fromkeys(node.outputs, len(found) - 1)
        else:
            assert number is not None
            found[number] = joined
            writers |= dict.fromkeys(node.outputs, number)
    return found


def _needed(nodes: Sequence[Node], wanted: set[str]) -> list[Node]:
    """The nodes that values depend on."""
    found = []
    for node in reversed(nodes):
        if wanted & {*node.outputs}:
            wanted |= {*node.inputs}
            found.append(node)
    return found[::-1]


def _joined(before: Node, node: Node, spend: Callable[[int], object]) -> Node | None:
    """One node that does what two do, or None."""
    if len(before.outputs) > 1 or isinstance(node, Identity):
        return None
    if isinstance(before, Pad) and isinstance(node, Convolution | Depthwise):
        return _padded(before, node)
    ends: dict[str, Any] = {"outputs": node.outputs, "passes_mask": before.passes_mask and node.passes_mask}
    if isinstance(node, Activation) and isinstance(before, PRODUCTS) and _is_linear(before):
        if getattr(activations.get(node.activation), "kernel", None) is None:
            return None
        return dataclasses.replace(before, activation=node.activation, **ends)
    if not isinstance(node, Scale):
        return None
    weights: dict[str, Any]
    if isinstance(before, PRODUCTS) and _is_linear(before):
        weights = _scaled(before, node, spend)
    elif isinstance(before, LayerNormalization):
        weights = dict(zip(("gamma", "beta"), _composed(before.gamma, before.beta, node), strict=True))
    elif isinstance(before, Scale):
        weights = dict(zip(("factor", "shift"), _composed(before.factor, before.shift, node), strict=True))
    else:
        return None
    if not all(np.isfinite(array).all() for array in weights.values()):
        return None
    return dataclasses.replace(before, **weights, **ends)


def _padded(before: Pad, node: Convolution | Depthwise) -> Node | None:
    """A convolution that adds zeros itself."""
    reach = (len(node.kernel) - 1) * node.dilation
    if before.fill or node.padding != "valid" or (before.before, before.after) != (reach, 0):
        return None
    return dataclasses.replace(node, inputs=before.inputs, padding="causal")


def _composed(factor: Array, shift: Array, node: Scale) -> tuple[Array, Array]:
    """The factor and the shift of x * factor + shift with another scale after it."""
    by, plus = node.factor.astype(np.float64), node.shift.astype(np.float64)
    return _like(factor, factor * by), _like(shift, shift * by + plus)


def _is_linear(node: Dense | Convolution | Depthwise) -> bool:
    return activations.get(node.activation) is activations.linear or node.activation is None


def _scaled(
    before: Dense | Convolution | Depthwise, node: Scale, spend: Callable[[int], object]
) -> dict[str, Array]:
    """The weights of a product with the factor and the shift of a node after it."""
    factor, shift = (np.asarray(each, np.float64) for each in (node.factor, node.shift))
    bias = shift if before.bias is None else before.bias * factor + shift
    kernel = before.kernel
    if (factor != 1).any():
        if isinstance(before, Depthwise):
            _, channels, multiplier = kernel.shape
            factor = factor.reshape(channels, multiplier)
        spend(2 * kernel.size)
        kernel = _like(kernel, kernel * factor)
    return {"kernel": kernel, "bias": _like(kernel, bias)}


def _like(of: np.ndarray, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, of.dtype)
