"""The number and the direction of the steps of a sequence that a loop reads, tested by made-up shapes."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastgru._errors import FormatError
from fastgru.formats import _onnx_graph
from fastgru.formats._onnx_cell import Below, Fixed, Going
from fastgru.formats._onnx_fold import Folder, Sizes
from fastgru.formats._onnx_graph import Output, Scope, said

ENDLESS = (1 << 31) - 1  # a number of trips from here on is no limit
SIZES = (5, 7, 11, 13, 17)  # of axes
SINGLE = Sizes(1)  # with which there is but one step
World = tuple[Folder, Any, Sequence[int]]  # the shape of a sequence, and how what depends on it is computed

# ---- values that depend on the shape of a sequence -------------------------------------------


def is_all(found: Any, wanted: Any, folder: Folder) -> bool:
    """True if all elements are `wanted`; the array counts towards the limit."""
    if not isinstance(found, np.ndarray) or not found.size:
        return False
    folder.spend(found.nbytes)
    return bool((found == wanted).all())


def _are(checks: Sequence[tuple[Any, Any]], sequence: Any, features: int, folder: Folder) -> bool:
    """True if values are as wanted for every shape of a sequence; None stands for its number of steps."""
    for worlds in (_named(sequence, folder), _assumed(sequence, features, folder)):
        if worlds and all(
            is_all(within.value(value, sizes), shape[0] if wanted is None else wanted, folder)
            for (within, sizes, shape), (value, wanted) in itertools.product(worlds, checks)
        ):
            return True
    return False


def _named(sequence: Any, folder: Folder) -> list[World]:
    """Shapes that a sequence has by what the file says of it."""
    shapes = [(sizes, folder.shape(sequence, sizes)) for sizes in folder.apart]
    worlds: list[World] = [
        (folder, sizes, shape) for sizes, shape in shapes if shape is not None and len(shape) == 3
    ]
    return worlds if len(worlds) == len(shapes) else []


def _assumed(sequence: Any, features: int, folder: Folder) -> list[World]:
    """Shapes that are made up, with arrays of them in the place of a sequence."""
    if not isinstance(sequence, Output) or sequence.number:
        return []
    sizes = [size for size in SIZES if size != features]
    shapes = [(*sizes[first : first + 2], features) for first in (0, 2)]
    none = np.zeros((), np.float32)
    return [(folder.assuming(sequence, (np.broadcast_to(none, shape),)), None, shape) for shape in shapes]


# ---- what a loop must do ---------------------------------------------------------------------


def forward(sequence: Any, features: int, folder: Folder) -> tuple[Any, bool]:
    """The sequence that this one reverses, and True; or itself and False, if it reverses none.

    Raises
    ------
    FormatError
        If it is reversed, but not known to be reversed as a whole.
    """
    node = sequence.node if isinstance(sequence, Output) else None
    if node is None or node.op_type != "ReverseSequence" or node.domain not in _onnx_graph.STANDARD:
        return sequence, False
    given = {name: each.i for name, each in folder.attributes(node, sequence.inside).items()}
    of, lengths = (_onnx_graph.find(sequence.inside.scope, name) for name in [*node.input, "", ""][:2])
    axes = given.get("batch_axis", 1), given.get("time_axis", 0)
    if axes != (1, 0) or not _are([(lengths, None)], of, features, folder):
        raise FormatError(f"{said(node)} is not known to reverse all of the steps")
    return of, True


def check_trips(node: Any, scope: Scope, going: Any, sequence: Any, features: int, folder: Folder) -> None:
    """Refuse a Loop that does not run as often as a sequence has steps.

    Parameters
    ----------
    node : onnx.NodeProto
    scope : mapping
        The values that it sees.
    going : Below, Going or Fixed
        The condition that its body returns.
    sequence : Output, Given or onnx.TensorProto
    features : int
        How many numbers a step has.
    folder : Folder

    Raises
    ------
    FormatError
        If it does not, or is not known to.
    """
    trips, first = [*node.input, "", ""][:2]
    bounds: list[Any] = []
    match going:
        case Below(1, values):
            bounds += values
        case Going():
            pass
        case Fixed(value) if is_all(folder.value(value), True, folder):
            pass
        case _:
            raise FormatError("its condition must be that steps are left, got another one")
    if trips and not (bounds and _is_endless(folder.value(scope.get(trips)))):
        bounds.append(scope.get(trips))
    checks = [(bound, None) for bound in bounds] + ([(scope.get(first), True)] if first else [])
    begins = not first or is_all(folder.value(scope.get(first), SINGLE), True, folder)
    if not bounds or not begins or not _are(checks, sequence, features, folder):
        raise FormatError("its number of trips is not known to be the number of steps of its sequence")


def _is_endless(found: Any) -> bool:
    return isinstance(found, np.ndarray) and found.size == 1 and bool((found >= ENDLESS).all())


def check_mask(mask: Any, folder: Folder) -> None:
    """Refuse a mask that does not have the shape (timesteps, batch, 1)."""
    worlds = _named(mask, folder)
    if not worlds or any(shape[-1] != 1 for _, _, shape in worlds):
        raise FormatError("its mask is not known to have the shape (timesteps, batch, 1)")
