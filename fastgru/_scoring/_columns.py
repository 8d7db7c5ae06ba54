"""Columns of tables to the arrays of a network's inputs, and outputs to columns.

Tables are read through pyarrow; dicts of arrays and lists need NumPy alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._scoring._sequences import Ragged
from fastgru._validate_models import Input, has_steps

Array = NDArray[Any]


def column(name: str, given: Any, one: Input) -> Array | Ragged:
    """The array of an input from one column.

    Parameters
    ----------
    name : str
        Of the column, for messages.
    given : ndarray, sequence of rows, or Array of pyarrow
    one : Input

    Raises
    ------
    ValueError
        If a row is missing or has another shape than the input; names the column and the row.
    TypeError
        If it holds other things than numbers, or than integers for indices.
    """
    if hasattr(given, "combine_chunks"):
        given = given.combine_chunks()
    if hasattr(given, "null_count") and hasattr(given, "type"):
        found = _of_arrow(name, given, one)
    elif isinstance(given, np.ndarray) and given.dtype != object:
        narrow = given.ndim == len(one.shape) and one.shape[-1] == 1 and not one.indices
        found = given[..., np.newaxis] if narrow else given
    else:
        found = _of_rows(name, list(given), one)
    values = found.values if isinstance(found, Ragged) else found
    _check_kind(name, values.dtype.kind, one)
    return _check_axes(name, found, one)


def joined(names: Sequence[str], parts: Sequence[Array | Ragged], one: Input) -> Array | Ragged:
    """The input of several columns, each a feature."""
    wanted = one.shape[-1]
    if len(parts) != wanted:
        raise ValueError(f"columns must name {wanted} columns, a feature each, got {list(names)}")
    first = parts[0]
    for name, part in zip(names, parts, strict=True):
        if isinstance(part, Ragged) != isinstance(first, Ragged) or (
            not np.array_equal(part.starts, first.starts)
            if isinstance(part, Ragged) and isinstance(first, Ragged)
            else np.shape(part) != np.shape(first)
        ):
            raise ValueError(f"column {name!r} must have rows of the same lengths as {names[0]!r}")
    if isinstance(first, Ragged):
        values = np.concatenate([part.values for part in parts if isinstance(part, Ragged)], axis=-1)
        return Ragged(values, first.starts)
    return np.concatenate([np.asarray(part) for part in parts], axis=-1)


def lengths(name: str, given: Any) -> Array:
    """The column that says how many timesteps each row has."""
    if hasattr(given, "combine_chunks"):
        given = given.combine_chunks()
    if getattr(given, "null_count", 0):
        raise ValueError(
            f"column {name!r} must have a length in each row, got None in row {_first_null(given)}"
        )
    array = given.to_numpy(zero_copy_only=False) if hasattr(given, "null_count") else np.asarray(given)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"column {name!r} must have integers, the lengths of rows, got {array.dtype}")
    return np.asarray(array, np.int64)


def _check_kind(name: str, kind: str, one: Input) -> None:
    if kind not in ("iu" if one.indices else "f"):
        wanted = "integers" if one.indices else "floats"
        got = {"f": "floats", "i": "integers", "u": "integers", "b": "booleans"}.get(kind, "other things")
        raise TypeError(f"column {name!r} must hold {wanted} for the input {one.name!r}, got {got}")


def _check_axes(name: str, found: Array | Ragged, one: Input) -> Array | Ragged:
    """Refuse another number of axes, features or timesteps than the input has."""
    steps = has_steps(one)
    axes = (("timesteps",) if steps else ()) + (() if one.indices else (str(one.shape[-1]),))
    wanted = f"({', '.join(axes)})" if len(axes) > 1 else f"({axes[0]},)"
    if isinstance(found, Ragged):
        shape: tuple[Any, ...] = ("timesteps", *found.values.shape[1:])
        fits = steps and (one.indices or found.values.shape[1:] == one.shape[-1:])
        counts = found.counts
        if fits and one.shape[0] is not None and (counts != one.shape[0]).any():
            row = int(np.argmax(counts != one.shape[0]))
            raise ValueError(
                f"column {name!r} must have {one.shape[0]} timesteps in each row, got {counts[row]} in row "
                f"{row}"
            )
    else:
        shape = found.shape[1:]
        fits = len(shape) == len(axes) and (one.indices or shape[-1] == one.shape[-1])
    if not fits:
        raise ValueError(f"column {name!r} must have rows of the shape {wanted}, got {shape}")
    return found


# ---- rows of Python ----------------------------------------------------------------------------


def _of_rows(name: str, rows: list[Any], one: Input) -> Array | Ragged:
    """The array of a list of rows, each an array or a list."""
    arrays = [_row(name, number, row, one) for number, row in enumerate(rows)]
    dtype = arrays[0].dtype if arrays else np.dtype(np.int64 if one.indices else np.float32)
    if not has_steps(one):
        width = one.shape[-1] or 0
        return np.stack(arrays) if arrays else np.zeros((0, width), dtype)
    starts = np.concatenate([[0], np.cumsum([len(array) for array in arrays], dtype=np.int64)])
    tail = () if one.indices else (one.shape[-1] or 0,)
    values = np.concatenate(arrays) if arrays else np.zeros((0, *tail), dtype)
    return Ragged(values, starts)


def _row(name: str, number: int, row: Any, one: Input) -> Array:
    """One row in the axes of the input."""
    if row is None:
        raise ValueError(
            f"column {name!r} must have an array or a list in each row, got None in row {number}"
        )
    array = (
        np.asarray(row)
        if not isinstance(row, np.ndarray) or row.dtype != object
        else _nested(name, number, row)
    )
    dims = len(one.shape)
    if not array.size and has_steps(one) and array.shape[:1] == (0,):
        tail = () if one.indices else (one.shape[-1] or 0,)
        kind = np.int64 if one.indices else np.float32
        return np.zeros((0, *tail), kind)
    if array.dtype == object:
        raise ValueError(
            f"column {name!r} must have numbers alone in each row, got None or others in row {number}"
        )
    if array.ndim == dims - 1 and one.shape[-1] == 1 and not one.indices:
        array = array[..., np.newaxis]
    wanted = one.shape[dims - 1 :] if not one.indices else ()
    if array.ndim != dims or (wanted and array.shape[-1:] != wanted):
        axes = "(timesteps,)" if one.indices else str(("timesteps", *wanted) if has_steps(one) else wanted)
        raise ValueError(
            f"column {name!r} must have rows of the shape {axes.replace(chr(39), '')}, "
            f"got {array.shape} in row {number}"
        )
    _check_kind(name, array.dtype.kind, one)
    return array


def _nested(name: str, number: int, row: Array) -> Array:
    """An array of arrays as one."""
    if any(step is None for step in row):
        raise ValueError(f"column {name!r} must have numbers alone in each row, got None in row {number}")
    sizes = {np.size(step) for step in row}
    if len(sizes) > 1:
        raise ValueError(
            f"column {name!r} must have as many features in each timestep, got {sorted(sizes)} in row "
            f"{number}"
        )
    return np.array([np.asarray(step) for step in row])


# ---- Arrow ---------------------------------------------------------------------------------------


def _first_null(array: Any) -> int:
    return int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))


def _of_arrow(name: str, array: Any, one: Input) -> Array | Ragged:
    """The array of a column of lists, of lists of lists, or of numbers."""
    import pyarrow

    types = pyarrow.types
    if isinstance(array.type, pyarrow.FixedShapeTensorType):
        if array.null_count:
            raise ValueError(
                f"column {name!r} must have a tensor in each row, got None in row {_first_null(array)}"
            )
        return array.to_numpy_ndarray()  # type: ignore[no-any-return]
    shape: list[int] = []  # of the levels below the rows, if all lists of a level are as long
    counts: list[Array] = []
    owners = np.arange(len(array))  # the row of each element of this level
    while (
        types.is_list(array.type) or types.is_large_list(array.type) or types.is_fixed_size_list(array.type)
    ):
        if array.null_count:
            row = owners[_first_null(array)]
            raise ValueError(f"column {name!r} must have a list in each row, got None in row {row}")
        sizes = array.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        counts.append(sizes)
        shape.append(array.type.list_size if types.is_fixed_size_list(array.type) else -1)
        owners = np.repeat(owners, sizes)
        array = array.flatten()
    if array.null_count:
        if not counts:
            raise ValueError(
                f"column {name!r} must have a number in each row, got None in row {_first_null(array)}"
            )
        row = owners[_first_null(array)]
        raise ValueError(f"column {name!r} must have numbers alone in each row, got None in row {row}")
    if not (types.is_floating(array.type) or types.is_integer(array.type)):
        if types.is_null(array.type) and not len(array):  # lists that all are empty
            array = array.cast(pyarrow.int64() if one.indices else pyarrow.float32())
        else:
            raise TypeError(f"column {name!r} must hold numbers or lists of them, got {array.type}")
    values = array.to_numpy(zero_copy_only=False)
    return _shaped(name, values, counts, shape, owners, one)


def _shaped(
    name: str, values: Array, counts: list[Array], shape: list[int], owners: Array, one: Input
) -> Array | Ragged:
    """Values of nested lists in the axes of the input; those of one feature may lack its level."""
    steps, features = has_steps(one), None if one.indices else one.shape[-1]
    levels = (1 if steps else 0) + (0 if one.indices else 1)
    if len(counts) == levels - 1 and features == 1:
        values = values[:, np.newaxis]
    elif len(counts) != levels:
        kinds = ("numbers", "lists of numbers", "lists of lists of numbers", "lists of lists of lists")
        raise ValueError(
            f"column {name!r} must hold {kinds[levels]} for the input {one.name!r}, got "
            f"{kinds[min(len(counts), 3)]}"
        )
    elif features is not None:
        wrong = counts[-1] != features
        if wrong.any():
            first = int(np.argmax(wrong))
            row = (
                first if len(counts) == 1 else int(np.searchsorted(np.cumsum(counts[0]), first, side="right"))
            )
            what = "in each timestep" if steps else "in each row"
            raise ValueError(
                f"column {name!r} must have {features} numbers {what}, got {counts[-1][first]} in row {row}"
            )
        values = values.reshape(-1, features)
    if not steps:
        return values
    if shape[0] >= 0:  # all as long
        return values.reshape(-1, shape[0], *values.shape[1:])
    return Ragged(values, np.concatenate([[0], np.cumsum(counts[0])]))


def to_arrow(found: Array | Ragged) -> Any:
    """A column of lists, or of lists of lists, of an output.

    Raises
    ------
    ValueError
        If it has 2**31 numbers or more, which no column of one part may have.
    """
    import pyarrow

    values = found.values if isinstance(found, Ragged) else found
    if values.size >= 2**31:
        raise ValueError(f"a part must have less than 2**31 numbers in a column, got {values.size}: cut it")
    if isinstance(found, Ragged):
        return pyarrow.ListArray.from_arrays(found.starts.astype(np.int32), _lists(values))
    if found.ndim == 2:
        return _lists(found)
    starts = np.arange(len(found) + 1, dtype=np.int32) * found.shape[1]
    return pyarrow.ListArray.from_arrays(starts, _lists(found.reshape(-1, found.shape[2])))


def _lists(values: Array) -> Any:
    """A list of each row."""
    import pyarrow

    starts = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pyarrow.ListArray.from_arrays(starts, pyarrow.array(values.reshape(-1)))
