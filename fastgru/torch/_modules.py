"""Into the modules of a model, and out of them again."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from fastgru import _config, _threads, _validate
from fastgru._kernels import float16_isas
from fastgru.torch._forward import CellForward, Forward, GRUForward, forward_of
from fastgru.torch._report import checked, hindrance

FORWARDS: dict[type, type[Forward]] = {torch.nn.GRU: GRUForward, torch.nn.GRUCell: CellForward}


def optimize(model: Any, *, weights_dtype: str | None = None, num_threads: int | str | None = None) -> Any:
    """Run the GRUs of a model on fastgru, where that gives what PyTorch would.

    The `forward` of every `torch.nn.GRU` and `torch.nn.GRUCell` in the model, itself included, is replaced.
    Their classes, parameters, hooks and places stay, and subclasses are left alone. PyTorch computes as
    before the calls that need a gradient, are on other devices or of other types than float32 and float64,
    have active dropout, are under autocast, or are traced or transformed.

    Parameters
    ----------
    model : torch.nn.Module
        It is changed in place. If it is optimized already, its weights are read anew.
    weights_dtype : {None, 'float32', 'float16', 'int8'}, keyword
        As for `fastgru.GRU`: with 'float16' or 'int8' calls compute with kernels rounded to that type, and
        parameters stay as they are.
    num_threads : int or 'auto', optional, keyword
        Threads that a call may have, by default as many as `fastgru.set_num_threads` says: 1 at first.
        `torch.set_num_threads` has no effect on them. In a model that is compiled or exported the default
        holds.

    Returns
    -------
    torch.nn.Module
        The model. `report` says what was changed.

    Raises
    ------
    TypeError
        If it is no module.
    ValueError
        If `weights_dtype` is none of these, the CPU cannot convert from it, or `num_threads` is not 1 to 64.

    Examples
    --------
    >>> import torch
    >>> import fastgru.torch
    >>> model = fastgru.torch.optimize(torch.nn.GRU(3, 4).eval())
    >>> with torch.inference_mode():
    ...     output, h_n = model(torch.zeros(5, 2, 3))
    >>> output.shape
    torch.Size([5, 2, 4])
    """
    checked(model)
    _validate.weights_dtype(weights_dtype, np.dtype(np.float32), _config.CHOICE.isa in float16_isas())
    threads = _threads.asked(num_threads)
    for module in model.modules():
        forward = forward_of(module)
        if forward is None and hindrance(module) is None:
            forward = FORWARDS[type(module)](module)
            forward.attach()
        if forward is not None:
            forward.renew(weights_dtype, threads)
    return model


def restore(model: Any) -> Any:
    """Run the GRUs of a model on PyTorch again.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.

    Returns
    -------
    torch.nn.Module
        The model.

    Raises
    ------
    TypeError
        If it is no module.
    """
    for module in checked(model).modules():
        forward = forward_of(module)
        if forward is not None:
            forward.detach()
    return model


@contextlib.contextmanager
def optimized(
    model: Any, *, weights_dtype: str | None = None, num_threads: int | str | None = None
) -> Iterator[Any]:
    """Run the GRUs of a model on fastgru in a `with` block, then as they ran before it.

    Parameters
    ----------
    model : torch.nn.Module
        What `with ... as` names, too.
    weights_dtype, num_threads : keyword
        As of `optimize`.

    Raises
    ------
    TypeError, ValueError
        As `optimize`.
    """
    before = [
        (forward, forward.weights_dtype, forward.threads)
        for module in checked(model).modules()
        if (forward := forward_of(module)) is not None
    ]
    optimize(model, weights_dtype=weights_dtype, num_threads=num_threads)
    kept = {id(forward) for forward, *_ in before}
    try:
        yield model
    finally:
        for module in model.modules():
            forward = forward_of(module)
            if forward is not None and id(forward) not in kept:
                forward.detach()
        for forward, own_dtype, own_threads in before:
            forward.renew(own_dtype, own_threads)
