"""Initial states and lengths of GRU nodes of ONNX, as far as the file fixes them."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError
from fastgru.formats._onnx_fold import Folder, Kind, Unknown
from fastgru.formats._onnx_graph import Output
from fastgru.formats._onnx_node import Node
from fastgru.formats._onnx_tensor import floats

Array = NDArray[Any]


def initial(node: Node, folder: Folder, directions: int, units: int, layout: int) -> list[Array | None]:
    """initial_h of each direction, as `of_value` has it."""
    if not node.inputs()["initial_h"]:
        return [None] * directions
    return of_value(node.source("initial_h"), folder, directions, units, layout)


def of_value(
    value: Any, folder: Folder, directions: int, units: int, layout: int | None
) -> list[Array | None]:
    """States of each direction, (1 or batch, units); None if they are zeros, or the caller's.

    Parameters
    ----------
    value : Output, Given, Alias, onnx.TensorProto or None
        A constant, or one row that the graph repeats to the batch.
    folder : Folder
    directions, units : int
    layout : int or None
        Of the GRU node. None: there is no axis of directions, as in a loop.
    """
    none: list[Array | None] = [None] * directions
    found = folder.value(value)
    repeated = _repeated(folder, value) if found is Kind.CALL else None
    if repeated is not None:
        found = repeated
    elif found is Kind.CALL:
        return none
    if isinstance(found, Kind):
        rows = _repeated_rows(folder, value, directions, units, layout)
    else:
        rows = _rows(found, directions, units, layout, repeated is not None)
        if isinstance(found, np.ndarray):
            folder.share(found)
    if rows.shape[1] > 1 and (rows == rows[:, :1]).all():
        rows = rows[:, :1]
    return [state if state.any() else None for state in rows]


def _repeated_rows(folder: Folder, value: Any, directions: int, units: int, layout: int | None) -> Array:
    """States (directions, 1, units) of a value that depends on the sizes of inputs, whatever these are.

    Raises
    ------
    FormatError
        If its rows are not all the same, or it cannot be determined.
    """
    made = [folder.value(value, sizes) for sizes in folder.batches]
    if any(
        isinstance(found, Unknown) for found in made
    ):  # sizes that are made up may not fit those of the file
        told = [folder.value(value, sizes) for sizes in folder.declared(value.inside)]
        made = [found for found in told if not isinstance(found, Unknown)] or made
    states = [_rows(found, directions, units, layout, repeated=False) for found in made]
    row = states[0][:, :1]
    if any(state.shape[1] == 0 or (state != row).any() for state in states):
        raise FormatError("initial_h cannot be determined: its rows depend on the sizes of inputs")
    return row


def _repeated(folder: Folder, value: Any) -> Any:
    """The constant that an Expand to a shape known only in a call repeats, or None."""
    while isinstance(value, Output) and value.node.op_type == "Expand" and value.node.input:
        source = value.inside.scope.get(value.node.input[0])
        found = folder.value(source)
        if not isinstance(found, Kind):
            return found
        value = source
    return None


def _rows(found: Any, directions: int, units: int, layout: int | None, repeated: bool) -> Array:
    """States (directions, batch, units) of a value; a repeated one may lack axes, or have shorter ones."""
    if isinstance(found, Unknown):
        raise FormatError(f"initial_h cannot be determined: {found.reason}")
    if not isinstance(found, np.ndarray):
        raise FormatError(f"initial_h cannot be determined: it depends on {found.value}")
    states = floats("initial_h", found)
    if layout is None and states.ndim == 2:
        states = states[np.newaxis]
    if repeated and states.shape[-1:] == (units,) and states.ndim <= 3:
        one_row = (1, directions, units) if layout else (directions, 1, units)
        states = np.broadcast_to(states, np.broadcast_shapes(states.shape, one_row))
    axis = 1 if layout else 0  # of directions; the other one is the batch
    if states.ndim != 3 or (states.shape[axis], states.shape[2]) != (directions, units):
        if states.any():
            raise FormatError(
                f"initial_h must have the shape ({directions}, batch, {units}), got {states.shape}"
            )
        return np.zeros((directions, 1, units), states.dtype)
    return np.moveaxis(states, axis, 0)


def check_lengths(node: Node, folder: Folder, time_axis: int) -> None:
    """Warn if the file fixes sequence_lens, except to the number of timesteps.

    Raises
    ------
    FormatError
        If they cannot be determined.
    """
    if not node.inputs()["sequence_lens"]:
        return
    value = node.source("sequence_lens")
    found = folder.value(value)
    if found is Kind.CALL:
        return
    whole = True
    for sizes in folder.apart:
        lengths = folder.value(value, sizes)
        if isinstance(lengths, Unknown):
            raise FormatError(f"sequence_lens cannot be determined: {lengths.reason}")
        shape = folder.shape(node.source("X"), sizes)
        whole &= shape is not None and len(shape) == 3 and bool((lengths == shape[time_axis]).all())
    if not whole:
        made = "is a constant of the file" if isinstance(found, np.ndarray) else "comes from sizes of inputs"
        warnings.warn(
            f"{node.name}: sequence_lens {made}; give every call the mask that it means", stacklevel=2
        )
