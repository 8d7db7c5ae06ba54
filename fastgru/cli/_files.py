""".npy files that need not fit into memory, and files that appear whole or not at all."""

import contextlib
import errno
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
STANDARD = Path("-")  # standard input or output
DESCRIPTORS = Path("/proc/self/fd")  # where a file without a name can be opened, on Linux


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[Array]:
    """The array of an .npy file, mapped into memory; standard input or a pipe is copied to disk first.

    Raises
    ------
    ValueError
        If it is none; names the file.
    """
    if path != STANDARD and not _flows(path):
        yield array(path, str(path))
        return
    nameless = DESCRIPTORS.exists()
    with tempfile.TemporaryFile() if nameless else tempfile.NamedTemporaryFile(suffix=".npy") as copy:
        if path == STANDARD:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        else:
            with path.open("rb") as stream:
                shutil.copyfileobj(stream, copy)
        copy.flush()
        name = "standard input" if path == STANDARD else str(path)
        yield array(DESCRIPTORS / str(copy.fileno()) if nameless else Path(copy.name), name)


def _flows(path: Path) -> bool:
    """True of a pipe or a device, which is read and written from beginning to end."""
    return path.exists() and not path.is_file() and not path.is_dir()


def array(path: Path, name: str) -> Array:
    """The array of an .npy file, mapped into memory."""
    try:
        with np.errstate(over="ignore"):  # of a shape, which is refused then
            found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged header makes NumPy and Python's parser raise
        raise ValueError(f"{name} must be an .npy file with an array of numbers: {_damage(error)}") from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{name} must be an .npy file with one array, got an .npz")
    return found


def arrays(path: Path) -> list[Array]:
    """The arrays of an .npz file in their order, or the one of an .npy file."""
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return [found]
            return [np.asarray(found[name]) for name in found.files]  # NumPy gives bytes of other members
    except (OSError, MemoryError):
        raise
    except Exception as error:  # as above, and zipfile's
        raise ValueError(f"{path} must be an .npz file with arrays of numbers: {_damage(error)}") from error


def _damage(error: Exception) -> str:
    """Why NumPy does not read a file, without its advice to unpickle it."""
    message = str(error)
    if "pickled" in message:
        return "it is in neither format"
    if "allow_pickle" in message or "Python objects" in message:
        return "it holds Python objects"
    return message or type(error).__name__


@contextlib.contextmanager
def resident(piece: Array) -> Iterator[None]:
    """Read the pages of a piece of a mapped file ahead, and release them when the block has ended.

    Otherwise they would be read slowly, page by page, and kept until memory is full. Arrays that are not
    mapped, and files whose rows are not in one stretch, are left to the system.
    """
    file: Any = getattr(piece, "_mmap", None)
    if not hasattr(file, "madvise") or not len(piece) or not piece[0].flags.c_contiguous:
        yield
        return
    base = np.lib.array_utils.byte_bounds(np.frombuffer(file, np.uint8))[0]
    stretches = []
    for row in piece:
        low, high = (address - base for address in np.lib.array_utils.byte_bounds(row))
        low -= low % mmap.PAGESIZE
        stretches.append((low, high - low))
    for start, length in stretches:
        file.madvise(mmap.MADV_WILLNEED, start, length)
    try:
        yield
    finally:
        for start, length in stretches:
            file.madvise(mmap.MADV_DONTNEED, start, length)


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[IO[bytes]]:
    """A file that is at `path` once the block has ended, in place of one that may be there.

    If the block fails or the process is killed, `path` is as before. Where the system has files without names
    (Linux) nothing else is left either, unless the process is killed in the moment when the new file replaces
    another one: then a whole copy may be beside it. Standard output, a pipe or a device gets all of it at the
    end.
    """
    if path == STANDARD and sys.stdout.isatty():
        raise ValueError("OUT must be a file where standard output is a terminal, got -")
    if path == STANDARD or _flows(path):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with contextlib.nullcontext(sys.stdout.buffer) if path == STANDARD else path.open("wb") as stream:
                shutil.copyfileobj(file, stream)
                stream.flush()
        return
    target = Path(os.path.realpath(path))  # a link stays one
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    unfinished = target.with_name(f".{os.urandom(8).hex()}{target.suffix}")
    try:
        with (nameless := _nameless(target.parent)) or unfinished.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if nameless:
                if _linked(file, target):  # unless there is a file already
                    return
                _name(file, unfinished)
        if target.exists():
            shutil.copymode(target, unfinished)
        unfinished.replace(target)
    except OSError as error:
        if error.filename == str(unfinished):  # which nobody knows
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _nameless(folder: Path) -> IO[bytes] | None:
    """A new file on the folder's disk that vanishes with the process, where there are such."""
    if not hasattr(os, "O_TMPFILE") or not DESCRIPTORS.exists():
        return None
    try:
        return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666), "w+b")
    except OSError:  # not on this kind of disk; or the folder is none, of which `open` complains
        return None


def _linked(file: IO[bytes], path: Path) -> bool:
    """Give a file without a name one on the same disk; True if that could be done."""
    try:
        # given any folder, Python follows the link as it says
        os.link(DESCRIPTORS / str(file.fileno()), path, src_dir_fd=file.fileno())
    except OSError:
        return False
    return True


def _name(file: IO[bytes], path: Path) -> None:
    """Give a file without a name one on the same disk, or copy it there."""
    if not _linked(file, path):  # a sandbox or the disk may forbid it: the result is not to be lost
        file.seek(0)
        with path.open("xb") as copy:
            shutil.copyfileobj(file, copy)
            copy.flush()
            os.fsync(copy.fileno())


class Pieces:
    """An array of three axes in an .npy file, written piece by piece, in any order.

    Parameters
    ----------
    file : file
        Empty; written from here on.
    shape : tuple of int
        That the file gets. Of two axes: they are the last two.
    dtype : dtype
    said : tuple of int, optional
        The shape that the file says it has, of as many numbers.
    """

    def __init__(
        self,
        file: IO[bytes],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        said: tuple[int, ...] | None = None,
    ) -> None:
        said = shape if said is None else said
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": said}
        np.lib.format.write_array_header_1_0(file, header)
        self._file, self._dtype, self._start = file, dtype, file.tell()
        self._width, self._row_bytes = shape[-2], shape[-1] * dtype.itemsize
        file.truncate(self._start + int(np.prod(shape)) * dtype.itemsize)

    def put(self, first: int, second: int, piece: Array) -> None:
        """Write a piece whose first two axes begin at these places; its last axis is whole."""
        for i, rows in enumerate(np.ascontiguousarray(piece, self._dtype), first):
            self._file.seek(self._start + (i * self._width + second) * self._row_bytes)
            self._file.write(rows)
