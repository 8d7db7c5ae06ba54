"""Files, read once: what is checked is what is used, whoever writes into them meanwhile."""

import errno
import os
import stat
from pathlib import Path

from fastgru.formats import _model
from fastgru.formats._model import FormatError

BLOCK = 512  # bytes, in which st_blocks counts


def read(path: Path) -> bytes:
    """All of a plain file.

    Raises
    ------
    FormatError
        If it is something else, such as a pipe, which would be waited for, or nearly all holes.
    OSError
        If it cannot be opened.
    """
    if path.is_dir() and (path / "saved_model.pb").exists():
        raise FormatError("a SavedModel of TensorFlow: save the model as .keras or .h5")
    with os.fdopen(_opened(path), "rb") as file:
        found = os.fstat(file.fileno())
        held = BLOCK * getattr(found, "st_blocks", 0)  # 0: of systems that do not say
        if held and found.st_size > _model.size_limit(held):
            raise FormatError(f"the file has {found.st_size} bytes, of which {held} are on the disk")
        return file.read()


def read_part(path: Path, start: int, size: int) -> tuple[bytes, int]:
    """Bytes of a plain file from a place on, fewer where it ends, and how many the file has.

    Raises
    ------
    FormatError
        If it is something else.
    OSError
        If it cannot be opened, or is a link.
    """
    with os.fdopen(_opened(path, getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
        whole = os.fstat(file.fileno()).st_size
        file.seek(min(start, whole))
        return file.read(max(0, min(size, whole - start))), whole


def _opened(path: Path, flags: int = 0) -> int:
    """A descriptor of a file, which must be a plain one."""
    flags |= os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise FormatError("no plain file")
    return descriptor
