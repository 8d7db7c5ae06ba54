""".npy files that need not fit into memory, and files that appear whole or not at all."""

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
STANDARD = Path("-")  # standard input or output


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[Array]:
    """The array of an .npy file, mapped into memory; standard input is copied to disk first.

    Raises
    ------
    ValueError
        If it is none; names the file.
    """
    if path != STANDARD:
        yield array(path, str(path))
        return
    with tempfile.NamedTemporaryFile(suffix=".npy") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield array(Path(copy.name), "standard input")


def array(path: Path, name: str) -> Array:
    """The array of an .npy file, mapped into memory."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{name} must be an .npy file with an array of numbers: {error}") from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{name} must be an .npy file with one array, got an .npz")
    return found


def arrays(path: Path) -> list[Array]:
    """The arrays of an .npz file in their order, or the one of an .npy file."""
    try:
        found = np.load(path, allow_pickle=False)
        return [found] if isinstance(found, np.ndarray) else [found[name] for name in found.files]
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must be an .npz file with arrays of numbers: {error}") from error


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[IO[bytes]]:
    """A file that is at `path` once the block has ended, in place of one that may be there.

    If the block fails or the process is killed, `path` is as before, and where the system has files without
    names (Linux) nothing else is left either. Standard output gets all of it at the end.
    """
    if path == STANDARD:
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return
    target = path.resolve()  # a link stays one
    if target.exists() and not target.is_file():
        raise OSError(f"{path} must be a plain file where it is one already")
    unfinished = target.with_name(f".{secrets.token_hex(8)}{target.suffix}")
    try:
        with _nameless(target.parent) or unfinished.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not unfinished.exists():
                # given any folder, Python follows the link as it says
                os.link(f"/proc/self/fd/{file.fileno()}", unfinished, src_dir_fd=file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _nameless(folder: Path) -> IO[bytes] | None:
    """A new file on the folder's disk that vanishes with the process, where there are such."""
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").exists():
        return None
    try:
        return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666), "w+b")
    except OSError:  # not on this kind of disk; or the folder is none, of which `open` complains
        return None


class Pieces:
    """An array of three axes in an .npy file, written piece by piece, in any order.

    Parameters
    ----------
    file : file
        Empty; written from here on.
    shape : tuple of int
        That the file gets. Of two axes: they are the last two.
    dtype : dtype
    """

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        self._file, self._dtype, self._start = file, dtype, file.tell()
        self._width, self._row_bytes = shape[-2], shape[-1] * dtype.itemsize
        file.truncate(self._start + int(np.prod(shape)) * dtype.itemsize)

    def put(self, first: int, second: int, piece: Array) -> None:
        """Write a piece whose first two axes begin at these places; its last axis is whole."""
        for i, rows in enumerate(np.ascontiguousarray(piece, self._dtype), first):
            self._file.seek(self._start + (i * self._width + second) * self._row_bytes)
            self._file.write(rows)
