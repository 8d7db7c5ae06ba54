"""Files, read once: what is checked is what is used, even if another program changes them."""

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any, NamedTuple

from fastgru._errors import FormatError
from fastgru.formats import _model, _zip

BLOCK = 512  # bytes, in which st_blocks counts
SAVED_MODEL = "a SavedModel of TensorFlow: save the model as .keras or .h5"
CHECKPOINT = (
    "a checkpoint of TensorFlow, which has variables and no layers: load it into the model, and save that as "
    ".keras or .h5"
)


class Source(NamedTuple):
    """What is to be loaded.

    Attributes
    ----------
    name : str
        In messages.
    content : bytes or Folder
    folder : Path or None
        Where files beside it are looked for; nowhere, if it is None.
    """

    name: str
    content: "bytes | Folder"
    folder: Path | None

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return self.content.size if isinstance(self.content, Folder) else len(self.content)

    @property
    def data(self) -> bytes:
        """Its bytes, which it must have.

        Raises
        ------
        FormatError
            If it is a folder.
        """
        if isinstance(self.content, Folder):
            raise FormatError("a folder, where a file is needed")
        return self.content


class Folder:
    """A .keras of Keras 3 that was saved with zipped=False: the members of the archive as files.

    Attributes
    ----------
    size : int
        Bytes of all of them.
    """

    MEMBERS = ("config.json", "metadata.json", "model.weights.h5")

    def __init__(self, path: Path) -> None:
        self._members = {name: read(path / name) for name in self.MEMBERS if (path / name).exists()}
        self.size = sum(map(len, self._members.values()))

    def read(self, name: str) -> bytes:
        """A member's bytes."""
        if name not in self._members:
            raise FormatError(f"the member {name} is missing")
        return self._members[name]

    def json(self, name: str) -> Any:
        """A member of JSON."""
        return _zip.parse_json(name, self.read(name), self.size)


def name_of(source: Any) -> str:
    """What messages call a path, bytes, or a file that is open.

    Raises
    ------
    TypeError
        If it is none of them.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return f"the {len(source)} bytes"
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        return name if isinstance(name, str) else "the open file"
    try:
        return str(Path(os.fspath(source)))
    except TypeError:
        raise TypeError(
            f"path must be a path, bytes or a file opened for reading bytes, got {type(source).__name__}"
        ) from None


def opened(source: Any) -> Source:
    """What a path, bytes or an open file hold, read once.

    Raises
    ------
    TypeError
        If it is none of them, or a file of text.
    FormatError
        If it is a SavedModel or a checkpoint of TensorFlow, or as for `read`.
    OSError
        If it cannot be opened.
    """
    name = name_of(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return Source(name, bytes(source), None)
    if hasattr(source, "read"):
        data = source.read()
        if not isinstance(data, bytes):
            raise TypeError(f"{name} must be opened for reading bytes, got {type(data).__name__} from it")
        return Source(name, data, None)
    path = Path(os.fspath(source))
    if re.search(r"\.data-\d{5}-of-\d{5}$", path.name) or (
        not path.exists() and path.with_name(f"{path.name}.index").exists()
    ):
        raise FormatError(CHECKPOINT)
    if path.is_dir():
        return Source(name, _folder(path), None)
    return Source(name, read(path), path.parent)


def _folder(path: Path) -> Folder:
    """The model that a folder is."""
    if (path / "saved_model.pb").exists():
        raise FormatError(SAVED_MODEL)
    there = {name for name in Folder.MEMBERS if (path / name).exists()}
    if "config.json" in there and (len(there) > 1 or path.suffix == ".keras"):
        return Folder(path)
    if (path / "checkpoint").exists():
        raise FormatError(CHECKPOINT)
    wanted = "the model.json" if (path / "model.json").exists() else "the model's file"
    raise IsADirectoryError(errno.EISDIR, f"Is a directory: give {wanted} in it", str(path))


def read(path: Path) -> bytes:
    """All of a plain file.

    Raises
    ------
    FormatError
        If it is something else, such as a pipe, which would be waited for, or nearly all holes.
    OSError
        If it cannot be opened.
    """
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


def is_plain_below(path: Path, folder: Path) -> bool:
    """True of a plain file in a folder, or below it, that no link leads to; the folder is resolved."""
    try:
        return path.resolve() == path and folder in path.parents and path.is_file()
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero in it, is none of a file
        if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
            raise
        return False


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
