"""Which modules of a model run on fastgru, and why others do not."""

from typing import Any, NamedTuple

import torch

from fastgru.torch._forward import forward_of
from fastgru.torch._weights import Unfit, check


class Entry(NamedTuple):
    """One recurrent module of a model.

    Attributes
    ----------
    name : str
        As `named_modules` has it; empty for the model itself.
    kind : str
        The name of its class.
    changed : bool
        True if `optimize` has changed it.
    reason : str or None
        Why it has not been changed, or why PyTorch computes all its calls; None: nothing prevents fastgru.
    last : str or None
        Why PyTorch computed the last call that fastgru did not; None if there was none since `optimize`.
    """

    name: str
    kind: str
    changed: bool
    reason: str | None
    last: str | None

    def __str__(self) -> str:
        where = "fastgru" if self.changed and self.reason is None else "PyTorch"
        text = f"{self.name or '(the model)'}: {self.kind}, {where}"
        if self.reason is not None:
            text += f": {self.reason}"
        if self.last is not None:
            text += f"; PyTorch computed a call, because {self.last}"
        return text


class Report(tuple[Entry, ...]):
    """An entry for each recurrent module of a model. Printed, it has a line for each."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no recurrent modules"


def checked(model: Any) -> Any:
    """The model, which must be a module."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return model


def hindrance(module: Any) -> str | None:
    """Why a module cannot be optimized; None: it can."""
    if type(module) not in (torch.nn.GRU, torch.nn.GRUCell):
        if isinstance(module, torch.nn.GRU | torch.nn.GRUCell):
            return "it is of a subclass, which may compute something else"
        return "it is no GRU"
    if "forward" in module.__dict__ and forward_of(module) is None:
        return "something else has replaced its forward"
    return None


def report(model: Any) -> Report:
    """Say which modules of a model run on fastgru, and why others do not.

    Parameters
    ----------
    model : torch.nn.Module
        Optimized or not.

    Returns
    -------
    Report
        An `Entry` for each RNN, LSTM, GRU and cell in it. Printed, it has a line for each.

    Raises
    ------
    TypeError
        If it is no module.

    Examples
    --------
    >>> import torch
    >>> import fastgru.torch
    >>> model = torch.nn.ModuleDict({"a": torch.nn.GRU(3, 4), "b": torch.nn.LSTM(3, 4)})
    >>> print(fastgru.torch.report(fastgru.torch.optimize(model)))
    a: GRU, fastgru
    b: LSTM, PyTorch: it is no GRU
    """
    return Report(
        _entry(name, module)
        for name, module in checked(model).named_modules()
        if isinstance(module, torch.nn.RNNBase | torch.nn.RNNCellBase)
    )


def _entry(name: str, module: Any) -> Entry:
    forward = forward_of(module)
    reason, last = hindrance(module), None
    if forward is not None:
        reason, last = None, forward.reason
        try:
            check(*forward.weights(module), forward.weights_dtype)
        except Unfit as error:
            reason = str(error)
    elif reason is None:
        reason = "it has not been optimized"
    return Entry(name, type(module).__name__, forward is not None, reason, last)
