"""Jobs over arrays in .npy files, in folders of them, and in Zarr: each part is a stretch of one axis."""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import need
from fastgru.cli import _files

Array = NDArray[Any]
Shape = tuple[int, ...]

PART_BYTES = 16 << 20  # of input and output of a part, about: a part costs milliseconds beside its computing


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of an array's axis that is computed at once."""

    file: int
    first: int
    end: int


@dataclasses.dataclass(frozen=True)
class ArrayJob:
    """Arrays that are computed part by part along an axis.

    Attributes
    ----------
    sources, targets : sequence of str
        Paths of the arrays that are read and written.
    lengths : str or None
        Of an array with the timesteps of each row.
    axis : int
        That is cut, of the inputs.
    out_axis : int or None
        The same axis of the outputs; None: a part replaces what the part before it has written.
    parts : sequence of Part
    durable : bool
        True: a part is on disk when it is done.
    """

    sources: Sequence[str]
    targets: Sequence[str]
    lengths: str | None
    axis: int
    out_axis: int | None
    parts: Sequence[Part]
    durable: bool = False

    unit = "rows"

    def size(self, number: int) -> int:
        """What a part counts in the progress."""
        return self.parts[number].end - self.parts[number].first

    def name(self, number: int) -> str:
        """A part, for messages."""
        part = self.parts[number]
        return f"{self.sources[part.file]}, {part.first} to {part.end - 1} of axis {self.axis}"

    def compute(self, function: Callable[..., Any], number: int) -> None:
        """Read a part, and write what the function makes of it."""
        part = self.parts[number]
        stretch = slice(part.first, part.end)
        x = np.asarray(opened(Path(self.sources[part.file]))[(slice(None),) * self.axis + (stretch,)])
        given = () if self.lengths is None else (np.asarray(opened(Path(self.lengths))[stretch]),)
        path, y = Path(self.targets[part.file]), function(x, *given)
        if not is_zarr(path):
            _put(path, y, self.out_axis, part.first, self.durable)
            return
        place = (...,) if self.out_axis is None else (slice(None),) * self.out_axis + (stretch,)
        opened(path, writable=True)[place] = y


def is_zarr(path: Path) -> bool:
    """True of the folder of an array or a group of Zarr."""
    return any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def _put(path: Path, y: Array, axis: int | None, first: int, durable: bool) -> None:
    """Write a stretch of an axis of an .npy file: faster than through a map, which faults on each page."""
    whole = np.load(path, mmap_mode="r")
    before = 1 if axis is None else math.prod(whole.shape[:axis])
    after = y.itemsize if axis is None else math.prod(whole.shape[axis + 1 :]) * y.itemsize
    row, start = 0 if axis is None else whole.shape[axis] * after, whole.offset
    with path.open("r+b", buffering=0) as file:
        for number, stretch in enumerate(np.ascontiguousarray(y, whole.dtype).reshape(before, -1)):
            file.seek(start + number * row + (0 if axis is None else first * after))
            left = stretch.data.cast("B") if stretch.size else stretch.data
            while left:
                left = left[file.write(left) :]
        if durable:
            os.fsync(file.fileno())


def opened(path: Path, writable: bool = False) -> Any:
    """An array of an .npy file, mapped, or of Zarr.

    Raises
    ------
    ValueError
        If it is none; names the path.
    """
    if not is_zarr(path):
        return _files.array(path, str(path))
    need("zarr", "batch", "Zarr")
    import zarr

    try:
        return zarr.open_array(path, mode="r+" if writable else "r")
    except Exception as error:  # of a group, or whatever damaged metadata make zarr raise
        names = sorted(found.name for found in path.iterdir() if found.is_dir() and is_zarr(found))
        inside = f"a group of the arrays {names}: name one of them" if names else str(error)
        raise ValueError(f"{path} must be an array of Zarr, got {inside}") from error


def created(path: Path, shape: Shape, dtype: Any, cut: Sequence[int | None]) -> None:
    """An array that is filled later, in an .npy file, or by the ending in Zarr with chunks of these sizes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".zarr":
        np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
        return
    need("zarr", "batch", "Zarr")
    import zarr

    chunks = tuple(max(1, min(size, one or size)) for size, one in zip(shape, cut, strict=True))
    zarr.create_array(store=path, shape=shape, dtype=dtype, chunks=chunks, fill_value=np.nan, overwrite=True)


def cut(
    arrays: Sequence[Any], axis: int, bytes_of: Callable[[Any], int], part_bytes: int | None = None
) -> list[Part]:
    """Parts of about `part_bytes`, by default `PART_BYTES`, which begin where chunks of Zarr do.

    Parameters
    ----------
    arrays : sequence of array
    axis : int
    bytes_of : callable
        From an array to the bytes of one place of its axis, in the input and the output.
    """
    parts = []
    for number, array in enumerate(arrays):
        size = max(1, (part_bytes or PART_BYTES) // max(1, bytes_of(array)))
        chunk = array.chunks[axis] if hasattr(array, "chunks") else 1
        size = max(1, size // chunk) * chunk
        whole = array.shape[axis]
        parts += [Part(number, first, min(whole, first + size)) for first in range(0, whole, size)]
    return parts
