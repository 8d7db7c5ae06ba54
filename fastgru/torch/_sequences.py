"""Packed sequences: a block of rows after the other, read and written in PyTorch's memory."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fastgru.torch._weights import TYPES, Packed, Unfit

Array = NDArray[Any]

ARGUMENTS = "its arguments are not plain tensors of the CPU, of the weights' type and of the right shapes"


def array_of(tensor: Any) -> Array:
    """A tensor's memory as an array.

    Raises
    ------
    Unfit
        If it has none that a CPU reads element by element.
    """
    try:
        array: Array = tensor.detach().numpy()
    except (TypeError, RuntimeError):
        raise Unfit(ARGUMENTS) from None
    return array


class Segment(NamedTuple):
    """Steps of a packed sequence that have equally many rows, which lie in a block."""

    first: int  # row of the data
    steps: int
    rows: int


def segments_of(batch_sizes: Sequence[int]) -> list[Segment]:
    """The blocks that a packed sequence is made of."""
    segments = []
    first = 0
    for rows, steps in itertools.groupby(batch_sizes):
        count = len(list(steps))
        segments.append(Segment(first, count, rows))
        first += count * rows
    return segments


def run_packed(packed: Packed, data: Any, batch_sizes: Any, hx: Any) -> tuple[Any, Any]:
    """What a GRU returns for a packed sequence.

    It is run as it lies there: a block of equally many rows after the other, the states of rows that go on
    being the first ones. So there is no padding.

    Parameters
    ----------
    packed : Packed
    data : Tensor, shape (sum of lengths, features)
    batch_sizes : Tensor, shape (timesteps,)
        Rows of each step.
    hx : Tensor, shape (levels * directions, batch, units), or None
        In the order of the data's rows.

    Returns
    -------
    output : Tensor, shape (sum of lengths, directions * units)
    h_n : Tensor, shape as of hx

    Raises
    ------
    Unfit
        If PyTorch has to say what is wrong.
    """
    if not all(type(each) in TYPES and each.dtype is packed.dtype for each in (data, hx) if each is not None):
        raise Unfit(ARGUMENTS)
    sizes = batch_sizes.tolist()
    source = array_of(data)
    count, units, directions = len(packed.alone), packed.units, packed.width // packed.units
    if (
        source.ndim != 2
        or source.shape[1] != packed.features
        or len(source) != sum(sizes)
        or not all(a >= b > 0 for a, b in itertools.pairwise([sizes[0], *sizes]))
        or not (hx is None or tuple(hx.shape) == (count, sizes[0], units))
    ):
        raise Unfit(ARGUMENTS)
    segments = segments_of(sizes)
    output = torch.empty(len(source), packed.width, dtype=packed.dtype)
    h_n = torch.zeros(count, sizes[0], units, dtype=packed.dtype)
    states = h_n.numpy()
    if hx is not None:
        states[...] = array_of(hx)
    source = np.require(source, requirements=["C", "A"])
    for level in range(count // directions):
        final = level == count // directions - 1
        target = output.numpy() if final else np.empty((len(source), packed.width), source.dtype)
        for direction in range(directions):
            node = level * directions + direction
            columns = target[:, direction * units : (direction + 1) * units]
            _run_segments(
                packed.alone[node], source, columns, states[node], segments[::-1] if direction else segments
            )
        source = target
    return output, h_n


def _run_segments(
    network: Any, source: Array, target: Array, state: Array, segments: Sequence[Segment]
) -> None:
    """Run one direction of a level over blocks, in their order of time.

    Parameters
    ----------
    network : Network
    source : ndarray, shape (sum of lengths, features)
    target : ndarray, shape (sum of lengths, units)
        Overwritten with outputs.
    state : ndarray, shape (batch, units)
        Initial ones, overwritten with the last ones.
    segments : sequence of Segment
    """
    for first, steps, rows in segments:
        block = slice(first, first + steps * rows)
        now = (state[:rows],)
        x, y = (array[block].reshape(steps, rows, array.shape[1]) for array in (source, target))
        network.run(x, now, now, (y,))
