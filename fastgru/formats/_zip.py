"""Zip archives and the arrays in them, taken apart without trust in what they say of themselves."""

import contextlib
import json
import math
import re
import struct
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastgru.formats import _model
from fastgru.formats._model import FormatError

JSON = 8_000_000  # bytes of a text, each of which takes up to 26 as objects; large models have two millions
NPY_HEADER = 1000  # bytes: that of an array of numbers takes a hundred, and the rest is blanks
HEADER = re.compile(  # without blanks; everyone writes it in this order
    r"\{'descr':'([<>=|]?(?:b1|[iu][1248]|f[248]))','fortran_order':(True|False),"
    r"'shape':\(((?:\d{1,18},)*(?:\d{1,18})?)\),?\}"
)


class Archive:
    """A zip archive, no larger when unpacked than files of its size may be.

    Attributes
    ----------
    names : list of str
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.size = file.seek(0, 2)
        with _damage("the archive"):
            self._zip = zipfile.ZipFile(file)
        self.names = self._zip.namelist()
        if len(set(self.names)) != len(self.names):
            raise FormatError("the archive has two members of one name")
        unpacked = sum(member.file_size for member in self._zip.infolist())
        if unpacked > _model.size_limit(self.size):
            raise FormatError(f"the archive of {self.size} bytes unpacks to {unpacked}")

    def read(self, name: str) -> bytes:
        """A member's bytes."""
        try:
            member = self._zip.getinfo(name)
        except KeyError:
            raise FormatError(f"the member {name} is missing") from None
        if member.flag_bits & 1:
            raise FormatError(f"the member {name} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"the member {name} is packed by method {member.compress_type}")
        with _damage(f"the member {name}"), self._zip.open(member) as file:
            data = file.read(member.file_size)  # no more, whatever it unpacks to
        if len(data) != member.file_size:
            raise FormatError(f"the member {name} must have {member.file_size} bytes, got {len(data)}")
        return data

    def json(self, name: str) -> Any:
        """A member of JSON."""
        text = self.read(name)
        if len(text) > self.size + _model.ALLOWANCE:  # objects take many times as much
            raise FormatError(f"the archive of {self.size} bytes has {len(text)} of {name}")
        return parse_json(name, text)

    def array(self, name: str) -> NDArray[Any]:
        """A member that is an .npy file."""
        return _npy(name, self.read(name))


@contextlib.contextmanager
def _damage(what: str) -> Iterator[None]:
    """Says of what zipfile stumbles over, in many ways, that it is damaged."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise FormatError(f"{what} is damaged: {error}") from error


def parse_json(what: str, text: bytes | str) -> Any:
    """What a JSON text says; every name in an object once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise FormatError(f"{what} has the same name twice in one object")
        return made

    if len(text) > JSON:
        raise FormatError(f"{what} is JSON of {len(text)} bytes, more than {JSON}")
    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise FormatError(f"{what} is nested too deeply") from None
    except FormatError:
        raise
    except ValueError as error:  # no UTF-8, no JSON, or a number of thousands of digits
        raise FormatError(f"{what} is no JSON: {error}") from None


def _npy(name: str, data: bytes) -> NDArray[Any]:
    """An array of numbers from the bytes of an .npy file, which NumPy would allocate by its header's word.

    Source: NEP 1, versions 1.0 to 3.0 of the format.
    """
    if data[:6] != b"\x93NUMPY" or len(data) < 12 or data[6] not in (1, 2, 3):
        raise FormatError(f"{name} is no .npy file")
    start, length = (
        (10, struct.unpack_from("<H", data, 8)[0])
        if data[6] == 1
        else (12, struct.unpack_from("<I", data, 8)[0])
    )
    if length > NPY_HEADER or start + length > len(data):
        raise FormatError(f"{name} has a header of {length} bytes")
    text = re.sub(r"\s", "", data[start : start + length].decode("latin1"))
    match = HEADER.fullmatch(text)
    if match is None:
        raise FormatError(f"{name} must be an array of numbers, has the header {text!r:.120}")
    descr, order, lengths = match.groups()
    dtype, shape = np.dtype(descr), tuple(int(n) for n in lengths.split(",") if n)
    size = _model.check_size(name, shape, dtype.itemsize, len(data))
    if size != len(data) - start - length:
        raise FormatError(f"{name} of shape {shape} needs {size} bytes, has {len(data) - start - length}")
    array = np.frombuffer(data, dtype, math.prod(shape), start + length)
    array = array.astype(dtype.newbyteorder("="), copy=False)
    return array.reshape(shape, order="F" if order == "True" else "C")
