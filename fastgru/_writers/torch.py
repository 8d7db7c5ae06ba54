"""State dicts of PyTorch.

PyTorch orders the gates r, z, n, stores matrices transposed, and has two biases in two arrays.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import _description, activations
from fastgru._description import GRU, Bidirectional, Layer

Array = NDArray[Any]

KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def swapped(array: Array) -> Array:
    """Blocks r | z | n along the first axis as z | r | n, or the other way round."""
    first, second, third = np.split(array, 3)
    return np.concatenate([second, first, third])


def to_state_dict(layer: Layer) -> dict[str, Array]:
    """The tensors of the layer by PyTorch's names; `Layer.to_torch_state_dict` has the rest."""
    if not _description.is_built(layer):
        raise ValueError(f"the layer {layer.name} must be built to be exported: it has no weights yet")
    levels = [_directions(one) for one in _description.layers(layer)]
    for what, facts in (
        ("number of directions", [len(directions) for directions in levels]),
        ("hidden_size", [directions[0].units for directions in levels]),
        ("dtype", [directions[0].dtype for directions in levels]),
    ):
        if len(set(facts)) > 1:
            raise ValueError(f"PyTorch's GRU has one {what} for all layers, got {facts}")
    use_bias = any(one.use_bias for directions in levels for one in directions)
    state = {}
    for level, directions in enumerate(levels):
        for suffix, one in zip(("", "_reverse"), directions, strict=False):
            _check(one)
            kernel, recurrent_kernel, *rest = one.weights
            tensors = [kernel.T, recurrent_kernel.T]
            if use_bias:
                tensors += [*rest[0]] if rest else [np.zeros(3 * one.units, one.dtype)] * 2
            for kind, tensor in zip(KINDS, tensors, strict=False):
                state[f"{kind}_l{level}{suffix}"] = np.ascontiguousarray(swapped(tensor))
    return state


def _directions(layer: GRU | Bidirectional) -> Sequence[GRU]:
    """The forward layer, and the backward one if there is one."""
    if isinstance(layer, Bidirectional):
        if layer.merge_mode != "concat":
            raise ValueError(
                f"PyTorch's GRU concatenates its directions, got merge_mode={layer.merge_mode!r}"
            )
        units = [one.units for one in layer.parts]
        if units[0] != units[1]:
            raise ValueError(f"PyTorch's GRU has one hidden_size for both directions, got {units}")
    if layer.parts[0].go_backwards:
        raise ValueError("PyTorch's GRU goes forward, or in both directions, got go_backwards=True")
    return layer.parts


def _check(layer: GRU) -> None:
    """Refuse a direction that PyTorch cannot compute."""
    if not layer.reset_after:
        raise ValueError(
            "PyTorch's GRU applies the reset gate after the recurrent product, got reset_after=False, which "
            "is another function: no weights of PyTorch compute it"
        )
    functions = layer.activation, layer.recurrent_activation
    if functions[0] is not activations.tanh or functions[1] is not activations.sigmoid:
        raise ValueError(
            "PyTorch's GRU has the activation tanh and the recurrent activation sigmoid, got "
            f"{functions[0]!r} and {functions[1]!r}"
        )
    if layer.default_state is not None:
        raise ValueError("PyTorch's GRU starts from zeros, got a default_state: give it as h_0")
