"""Keras' torch backend: fastgru reads and writes the memory of its tensors."""

from typing import Any

import torch

from fastgru.keras._variant import Variant

COSTS = (
    "calls that want no gradient (predict, torch.no_grad()) run on fastgru, in the memory of the tensors; "
    "Keras computes the others, and under torch.compile, tracing, autocast and on other devices"
)


def dtype(name: str) -> Any:
    """The type of that name."""
    return getattr(torch, name)


def run(
    call: Any, variant: Variant, x: Any, states: list[Any], mask: Any, weights: list[Any]
) -> list[Any] | None:
    """The layer's outputs, and states if they are wanted; None if Keras has to compute them."""
    tensors = [x, *weights, *states, *([] if mask is None else [mask])]
    if _is_watched() or not all(map(_is_plain, tensors)):
        return None
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return None
    if any(weight.is_inference() for weight in weights):  # these do not count their changes
        return None
    key = tuple((id(weight), weight._version, weight.data_ptr()) for weight in weights)
    layer = variant.packed(weights, key, lambda: [weight.detach().numpy() for weight in weights])
    x, *arrays = (tensor.detach().numpy() for tensor in (x, *states))
    found = variant.run(layer, x, arrays, None if mask is None else mask.numpy())
    return [torch.from_numpy(array) for array in found]


def _is_watched() -> bool:
    """True if somebody wants to see, or to change, what PyTorch would compute."""
    return bool(
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or torch.is_autocast_enabled("cpu")
    )


def _is_plain(tensor: Any) -> bool:
    """True of a tensor in the machine's memory, of no subclass."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.is_neg()
    )
