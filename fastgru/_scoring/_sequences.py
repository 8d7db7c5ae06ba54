"""Sequences of different lengths: similar ones run side by side, and each has the bits it has alone."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import _layouts
from fastgru._scoring._network import Network
from fastgru._validate_models import has_steps

Array = NDArray[Any]


class Ragged(NamedTuple):
    """Rows of different numbers of timesteps, one behind the other.

    Attributes
    ----------
    values : ndarray, shape (all timesteps, width), or (all timesteps,) of indices
    starts : ndarray, shape (rows + 1,)
        Where each row begins, and the end of the last one.
    """

    values: Array
    starts: Array

    @property
    def counts(self) -> Array:
        """Timesteps of each row."""
        return np.diff(self.starts)

    def rows(self) -> Iterator[Array]:
        """The rows, one by one."""
        for first, end in zip(self.starts[:-1], self.starts[1:], strict=True):
            yield self.values[first:end]


def run(
    network: Network, columns: Sequence[Array | Ragged], batch_size: int, names: Sequence[str]
) -> list[Array | Ragged]:
    """Each output of the network for these rows: ragged if the input is, and the output is a sequence.

    Parameters
    ----------
    network : Network
    columns : sequence of (ndarray or Ragged)
        Of each input, batch-major, with as many rows.
    batch_size : int
    names : sequence of str
        Of the columns, for messages.
    """
    counts = [column.counts for column in columns if isinstance(column, Ragged)]
    if not counts:
        return list(call(network, columns, None, batch_size))
    steps = counts[0]
    for name, column, one in zip(names, columns, network.inputs, strict=True):
        other = column.counts if isinstance(column, Ragged) else None
        if other is None and has_steps(one):
            other = np.full(len(steps), column.shape[1])  # type: ignore[union-attr]
        if other is not None and not np.array_equal(steps, other):
            row = int(np.flatnonzero(steps != other)[0])
            raise ValueError(
                f"column {name!r} must have as many timesteps in each row as {names[0]!r}, "
                f"got {other[row]} for {steps[row]} in row {row}"
            )
    if not network.takes_none and len(steps) and not steps.min():
        row = int(np.argmin(steps))
        raise ValueError(f"column {names[0]!r} must have a timestep or more in each row, got 0 in row {row}")
    return _side_by_side(network, columns, steps, batch_size)


def _side_by_side(
    network: Network, columns: Sequence[Any], steps: Array, batch_size: int
) -> list[Array | Ragged]:
    """The outputs of rows in batches of similar lengths, each put where it belongs."""
    order = np.argsort(steps, kind="stable")
    cells: list[list[Any]] = [[None] * len(steps) for _ in network.outputs]
    dtypes = [network.dtype] * len(cells)
    for some in _batches(order, steps, batch_size, network.pads):
        most = max(int(steps[some].max()), 1)
        given = [_padded(column, some, most) for column in columns]
        told = steps[some] if (steps[some] != most).any() else None
        results = call(network, given, told, len(some))
        dtypes = [result.dtype for result in results]
        for one, rows, result in zip(network.outputs, cells, results, strict=True):
            as_read = one.has_steps and result.shape[1] == most  # else rows of one length, some steps fewer
            for place, row in enumerate(some):
                rows[row] = result[place, : steps[row]] if as_read else result[place]
    found: list[Array | Ragged] = []
    for one, rows, dtype in zip(network.outputs, cells, dtypes, strict=True):
        if not one.has_steps:
            found.append(np.array(rows, dtype).reshape(-1, one.width))
            continue
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        values = np.concatenate(rows) if rows else np.empty((0, one.width), dtype)
        found.append(Ragged(values, starts))
    return found


def _batches(order: Array, steps: Array, size: int, pads: bool) -> Iterator[Array]:
    """Rows in the order of their lengths; without padding those of one length alone."""
    if not len(order):
        return
    groups = [order] if pads else np.split(order, np.flatnonzero(np.diff(steps[order])) + 1)
    for group in groups:
        for first in range(0, len(group), size):
            yield group[first : first + size]


def _padded(column: Array | Ragged, some: Array, most: int) -> Array:
    """Some rows of a column, with zeros up to this many timesteps."""
    if not isinstance(column, Ragged):
        return column[some]
    padded = np.zeros((len(some), most, *column.values.shape[1:]), column.values.dtype)
    for place, row in enumerate(some):
        first, end = column.starts[row], column.starts[row + 1]
        padded[place, : end - first] = column.values[first:end]
    return padded


def call(network: Network, columns: Sequence[Any], lengths: Array | None, batch_size: int) -> list[Array]:
    """The outputs, batch-major, of batch-major arrays."""
    given = [
        array if array.ndim != len(one.shape) + 1 else _layouts.written(array, one.layout)
        for array, one in zip(columns, network.inputs, strict=True)
    ]
    results = []
    for array, one in zip(network.run(given, lengths, batch_size), network.outputs, strict=True):
        shape = (None, one.width) if one.has_steps else (one.width,)
        turned = _layouts.batch_major(array, one.layout, shape, indices=False)
        assert turned is not None  # the network says its layout
        results.append(turned)
    return results
