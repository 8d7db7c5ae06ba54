"""The operators `fastgru::gru` and `fastgru::gru_cell`, which compiled and exported programs call.

Modules call them while PyTorch traces, and never else.
"""

import functools
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from fastgru.torch._weights import Packed, Sizes, Unfit

_library = torch.library.Library("fastgru", "DEF")
_library.define(
    "gru(Tensor input, Tensor? hx, Tensor[] weights, bool bias, int num_layers, bool bidirectional, "
    "bool batch_first, str? weights_dtype) -> (Tensor, Tensor)"
)
_library.define("gru_cell(Tensor input, Tensor? hx, Tensor[] weights, str? weights_dtype) -> Tensor")

gru = torch.ops.fastgru.gru.default
gru_cell = torch.ops.fastgru.gru_cell.default


def fits(inputs: Any, hx: Any, weights: Sequence[Any]) -> bool:
    """True if a call may become an operator; else PyTorch's forward is traced."""
    if torch.is_autocast_cpu_enabled():
        return False
    for tensor in [inputs, *weights] if hx is None else [inputs, hx, *weights]:
        if (
            not isinstance(tensor, torch.Tensor)
            or tensor.device.type != "cpu"
            or tensor.dtype not in (torch.float32, torch.float64)
            or tensor.dtype != weights[0].dtype
            or (torch.is_grad_enabled() and tensor.requires_grad)
        ):
            return False
    return True


# ---- shapes ----------------------------------------------------------------------------------


def _fake_gru(
    inputs: Any,
    hx: Any,
    weights: Sequence[Any],
    bias: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    weights_dtype: str | None,
) -> tuple[Any, Any]:
    first, second, _ = inputs.shape
    timesteps, batch = (second, first) if batch_first else (first, second)
    units, directions = weights[1].shape[1], 2 if bidirectional else 1
    output = inputs.new_empty(timesteps, batch, units * directions)
    h_n = inputs.new_empty(num_layers * directions, batch, units)
    return (output.transpose(0, 1) if batch_first else output), h_n


def _fake_gru_cell(inputs: Any, hx: Any, weights: Sequence[Any], weights_dtype: str | None) -> Any:
    return inputs.new_empty(*inputs.shape[:-1], weights[1].shape[1])


# ---- results ---------------------------------------------------------------------------------


class _Kept(NamedTuple):
    """Weights that an operator has been called with, which nothing here keeps alive but their memory."""

    references: tuple[Any, ...]
    aliases: dict[str, Any]
    packed: Packed

    def is_of(self, weights: Sequence[Any]) -> bool:
        """True if they are these tensors, of the same memory, and have not been written to."""
        return all(
            reference() is tensor and alias.data_ptr() == tensor.data_ptr()
            for reference, alias, tensor in zip(self.references, self.aliases.values(), weights, strict=True)
        ) and self.packed.is_of(self.aliases, None)


_kept: dict[Any, _Kept] = {}  # by the first of the weights


def _packed(weights: Sequence[Any], sizes: Sizes, weights_dtype: str | None) -> Packed:
    """These weights, packed once as long as they are the same and not written to."""
    key = id(weights[0]), len(weights), weights_dtype
    found = _kept.get(key)
    if found is not None and found.is_of(weights):
        return found.packed
    _kept.pop(key, None)
    aliases = {f"weights[{i}]": tensor.detach() for i, tensor in enumerate(weights)}
    packed = Packed(aliases, sizes, weights_dtype)
    first, *others = weights
    forget = functools.partial(_forget, _kept, key)
    _kept[key] = _Kept((weakref.ref(first, forget), *map(weakref.ref, others)), aliases, packed)
    return packed


def _forget(kept: dict[Any, _Kept], key: Any, reference: Any) -> None:
    """Give up packed weights whose first tensor is gone, unless another one has come to its address."""
    if key in kept and kept[key].references[0] is reference:
        del kept[key]


def _run_gru(
    inputs: Any,
    hx: Any,
    weights: Sequence[Any],
    bias: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    weights_dtype: str | None,
) -> tuple[Any, Any]:
    directions = 2 if bidirectional else 1
    sizes = Sizes(weights[0].shape[1], weights[1].shape[1], num_layers, directions, bias)
    try:
        result = _packed(weights, sizes, weights_dtype).run(inputs, hx, batch_first)
    except Unfit:
        result = NotImplemented
    if result is NotImplemented:
        if hx is None:
            batch = inputs.shape[0 if batch_first else 1]
            hx = inputs.new_zeros(num_layers * directions, batch, sizes.units)
        settings = bias, num_layers, 0.0, False, bidirectional, batch_first
        result = torch._VF.gru(inputs, hx, weights, *settings)
    output, h_n = result
    return output, h_n


def _run_gru_cell(inputs: Any, hx: Any, weights: Sequence[Any], weights_dtype: str | None) -> Any:
    sizes = Sizes(weights[0].shape[1], weights[1].shape[1], 1, 1, len(weights) == 4)
    try:
        result = _packed(weights, sizes, weights_dtype).run_cell(inputs, hx)
    except Unfit:
        result = NotImplemented
    if result is NotImplemented:
        single = inputs.dim() == 1
        x = inputs.unsqueeze(0) if single else inputs
        h = inputs.new_zeros(len(x), sizes.units) if hx is None else hx.unsqueeze(0) if single else hx
        result = torch._VF.gru_cell(x, h, *weights)
        result = result.squeeze(0) if single else result
    return result


# `register_fake` was `impl_abstract` before PyTorch 2.4.
_register_fake = getattr(torch.library, "register_fake", None) or torch.library.impl_abstract
for _name, _compute, _shapes in (
    ("gru", _run_gru, _fake_gru),
    ("gru_cell", _run_gru_cell, _fake_gru_cell),
):
    _library.impl(_name, _compute, "CPU")
    _register_fake(f"fastgru::{_name}", _shapes, lib=_library)
