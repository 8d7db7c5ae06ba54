"""A layer over sequences that need not fit into memory, piece by piece."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru.gru import GRU
from fastgru.stack import Stack

Array = NDArray[Any]

PIECE_BYTES = 8 << 20  # of input and output at a time: a fraction of a second of computing
ROWS = 32  # at a time by default: they share the reading of the weights
STEPS = (
    32  # at a time of time-major sequences, at least: more rows instead, which are next to each other there
)


class Piece(NamedTuple):
    """A part of the output.

    Attributes
    ----------
    place : tuple of two ints
        Where it begins on the first two axes of the output.
    output : ndarray
        Of three axes: an output without timesteps has one more in front. A later piece of the same place
        replaces the one before.
    done : int
        The timesteps of one row that have been computed for it.
    """

    place: tuple[int, int]
    output: Array
    done: int


def is_divisible(layer: Any) -> bool:
    """True if timesteps may be computed one part after the other, states handed on."""
    parts = layer._parts
    if any(gru._compute_dtype != gru._dtype for gru in parts):
        return False  # states would be rounded in between
    if isinstance(layer, Stack):
        return all(isinstance(part, GRU) and not part.go_backwards for part in layer.layers)
    return isinstance(layer, GRU)


def pieces(
    layer: Any,
    x: Array,
    states: Sequence[Array] | None,
    lengths: Array | None,
    batch: int | None = None,
    reading: Callable[[Array], Any] = contextlib.nullcontext,
) -> Iterator[Piece]:
    """Compute what one call would return, in bounded memory; two outputs side by side.

    Parameters
    ----------
    layer : GRU, Bidirectional or Stack
        Built, not stateful, returning its states.
    x : ndarray, shape (batch, timesteps, features)
        Or time-major; usually of a mapped file.
    states : sequence of ndarray, or None
        (batch, units) each; None: zeros.
    lengths : ndarray or None
        (batch,), checked.
    batch : int, optional
        Rows at a time.
    reading : callable
        From a part of x to a context manager in which it is read.
    """
    time_major, sequences = bool(layer.time_major), bool(layer.return_sequences)
    backwards, divisible = bool(getattr(layer, "go_backwards", False)), is_divisible(layer)
    everyone, timesteps = x.shape[:2][:: -1 if time_major else 1]
    outputs = len(layer._dtypes)
    step_bytes = (x.shape[2] + outputs * layer._width) * x.itemsize
    rows = batch or ROWS
    if batch is None and not divisible:
        rows = min(ROWS, PIECE_BYTES // (timesteps * step_bytes))
    elif batch is None and time_major:
        rows = max(ROWS, PIECE_BYTES // (STEPS * step_bytes))
    rows = max(1, min(rows, everyone))
    steps = max(1, PIECE_BYTES // (rows * step_bytes)) if divisible else timesteps
    for row in range(0, everyone, rows):
        part = x[:, row : row + rows] if time_major else x[row : row + rows]
        start = None if states is None else [state[row : row + rows] for state in states]
        for done in range(0, timesteps, steps):
            first, end = done, min(timesteps, done + steps)
            if backwards:
                first, end = timesteps - end, timesteps - first
            piece = part[first:end] if time_major else part[:, first:end]
            ends = None if lengths is None else np.minimum(lengths[row : row + rows], end)
            with reading(piece):
                results = layer._long_call(piece, start, None, None, ends, None, first)
            start = results[outputs:]
            output = results[0] if outputs == 1 else np.concatenate(results[:outputs], axis=-1)
            if not sequences:
                yield Piece((0, row), output[np.newaxis], output.shape[0] * (end - first))
            else:
                place = (done, row) if time_major else (row, done)
                yield Piece(place, output, output.shape[1 if time_major else 0] * (end - first))
