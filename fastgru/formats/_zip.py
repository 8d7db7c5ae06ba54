"""Zip archives and the arrays in them, taken apart without trust in what they say of themselves.

The module zipfile is not used: it may find another directory than other readers do.

Source: APPNOTE.TXT 6.3.10 of PKWARE.
"""

import itertools
import json
import math
import re
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError
from fastgru.formats import _model

JSON = 8_000_000  # bytes of a text; large models have two millions
# Bytes of what a character of JSON stands for: an object, a list, an entry of either, half a string
JSON_COSTS = {b"{": 232, b"[": 88, b",": 40, b":": 72, b'"': 32}
NPY_HEADER = 1000  # bytes: that of an array of numbers takes a hundred, and the rest is blanks
HEADER = re.compile(  # without blanks; everyone writes it in this order
    r"\{'descr':'([<>=|]?(?:b1|[iu][1248]|f[248]))','fortran_order':(True|False),"
    r"'shape':\(((?:\d{1,18},)*(?:\d{1,18})?)\),?\}"
)

# ---- archives --------------------------------------------------------------------------------

END = struct.Struct("<4s4H2LH")  # signature, two disks, two counts, size and place of the directory, comment
LOCATOR = struct.Struct("<4sLQL")  # signature, disk, place of the end record of zip64, disks
END64 = struct.Struct("<4sQ2H2L4Q")  # signature, its size, versions, disks, counts, size and place
ENTRY = struct.Struct("<4s6H3L5H2L")  # of the directory
LOCAL = struct.Struct("<4s5H3L2H")  # before a member
COMMENT = 0xFFFF  # bytes at most
STORED, DEFLATED = 0, 8
ENCRYPTED, SIZES_LATER, UTF8 = 1, 8, 1 << 11  # flags
ZIP64 = 1  # the kind of an extra field


class Member(NamedTuple):
    """What the directory says of a member, and where in the archive its bytes are."""

    method: int
    encrypted: bool
    crc: int
    packed: int
    size: int
    start: int


class Archive:
    """A zip archive, no larger when unpacked than files of its size may be.

    Its end record must be its end, and name the directory just before it: no reader finds another one.

    Parameters
    ----------
    data : bytes
        The whole file.

    Attributes
    ----------
    names : list of str
        In the order of the directory.
    size : int
        Bytes of the file.

    Raises
    ------
    FormatError
        If the archive is damaged, ambiguous or too large when unpacked, or its members overlap.
    """

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data
        self._members = _directory(data)
        self.names = list(self._members)
        unpacked = sum(member.size for member in self._members.values())
        if unpacked > _model.size_limit(self.size):
            raise FormatError(f"the archive of {self.size} bytes unpacks to {unpacked}")

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def member_size(self, name: str) -> int:
        """Bytes of a member when unpacked."""
        return self._member(name).size

    def _member(self, name: str) -> Member:
        try:
            return self._members[name]
        except KeyError:
            raise FormatError(f"the member {name:.80} is missing") from None

    def read(self, name: str, crc_may_be_zero: bool = False) -> bytes:
        """A member's bytes.

        Parameters
        ----------
        name : str
        crc_may_be_zero : bool
            Zero says that there is no checksum, as in archives of PyTorch.
        """
        member = self._member(name)
        if member.encrypted:
            raise FormatError(f"the member {name:.80} is encrypted")
        packed = self._data[member.start : member.start + member.packed]
        if member.method == STORED:
            data = packed
        elif member.method == DEFLATED:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                data = unpacker.decompress(packed, member.size + 1)  # no more, whatever it unpacks to
            except zlib.error as error:
                raise FormatError(f"the member {name:.80} is damaged: {error}") from None
        else:
            raise FormatError(f"the member {name:.80} is packed by method {member.method}")
        if len(data) != member.size:
            raise FormatError(f"the member {name:.80} must have {member.size} bytes, has others")
        if zlib.crc32(data) != member.crc and not (crc_may_be_zero and member.crc == 0):
            raise FormatError(f"the member {name:.80} is damaged: its checksum is another")
        return data

    def json(self, name: str) -> Any:
        """A member of JSON."""
        return parse_json(name, self.read(name), self.size)

    def array(self, name: str) -> NDArray[Any]:
        """A member that is an .npy file."""
        return _npy(name, self.read(name))


def _directory(data: bytes) -> dict[str, Member]:
    """The members of an archive by name."""
    start, end, count = _place_of_directory(data)
    members: dict[str, Member] = {}
    taken: list[tuple[int, int]] = []  # from where to where members lie
    place = start
    for _ in range(count):
        if end - place < ENTRY.size:
            raise FormatError("the archive is damaged: its directory is cut off")
        signature, _, _, flags, method, _, _, crc, packed, size, *rest = ENTRY.unpack_from(data, place)
        name_size, extra_size, comment_size, _, _, _, local = rest
        place += ENTRY.size + name_size + extra_size + comment_size
        if signature != b"PK\1\2" or place > end:
            raise FormatError("the archive is damaged: its directory is no directory")
        extra = place - comment_size - extra_size
        raw = data[extra - name_size : extra]
        size, packed, local = _wide(data[extra : extra + extra_size], size, packed, local)
        name = _name(raw, flags)
        if name in members:
            raise FormatError(f"the archive has two members of one name, {name!r:.80}")
        first = _start_of(data, name, raw, (flags, method, crc, packed, size), local, start)
        members[name] = Member(method, bool(flags & ENCRYPTED), crc, packed, size, first)
        taken.append((local, first + packed))
    if place != end:
        raise FormatError("the archive is damaged: its directory has more than its members")
    taken.sort()
    for (_, last), (following, _) in itertools.pairwise(taken):
        if last > following:
            raise FormatError("the archive is damaged: its members overlap")
    return members


def _place_of_directory(data: bytes) -> tuple[int, int, int]:
    """Where the directory begins and ends, and how many members it has."""
    place = data.rfind(b"PK\5\6", max(0, len(data) - COMMENT - END.size))
    if place < 0 or place + END.size > len(data):
        raise FormatError("the archive is damaged: it has no end, as if it were cut off")
    _, disk, first_disk, here, count, size, start, comment = END.unpack_from(data, place)
    if place + END.size + comment != len(data) or disk or first_disk or here != count:
        raise FormatError("the archive is damaged: its end record is not its end")
    found = count, size, start
    locator = place - LOCATOR.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\6\7":
        place = locator - END64.size
        _, disk, where, disks = LOCATOR.unpack_from(data, locator)
        if place < 0 or where != place or disk or disks > 1:
            raise FormatError("the archive is damaged: its end record is elsewhere than it says")
        signature, length, _, _, disk, first_disk, here, *wide = END64.unpack_from(data, place)
        narrow = zip(found, wide, (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF), strict=True)
        if (
            (signature, length, disk, first_disk, here) != (b"PK\6\6", END64.size - 12, 0, 0, wide[0])
        ) or any(short not in (most, long) for short, long, most in narrow):
            raise FormatError("the archive is damaged: its two end records differ")
        count, size, start = wide
    if start + size != place:
        raise FormatError("the archive is damaged: its directory is not where its end says")
    return start, place, count


def _wide(extra: bytes, *numbers: int) -> list[int]:
    """Numbers of 32 bits, those that are all ones from the extra field of zip64, in their order."""
    wide = b""
    place = 0
    while place + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, place)
        if kind == ZIP64:
            if wide or place + 4 + size > len(extra):
                raise FormatError("the archive is damaged: a member says twice how large it is")
            wide = extra[place + 4 : place + 4 + size]
        place += 4 + size
    found = []
    for number in numbers:
        if number == 0xFFFFFFFF:
            if len(wide) < 8:
                raise FormatError("the archive is damaged: a member does not say how large it is")
            number, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        found.append(number)
    return found


def _name(raw: bytes, flags: int) -> str:
    try:
        name = raw.decode("utf-8" if flags & UTF8 else "cp437")
    except UnicodeDecodeError:
        raise FormatError(f"the archive is damaged: the name {raw!r:.80} is not UTF-8") from None
    if "\0" in name or len(name) > _model.LONGEST:
        raise FormatError(f"the archive is damaged: the name {name!r:.80}")
    return name


def _start_of(
    data: bytes, name: str, raw: bytes, said: tuple[int, int, int, int, int], local: int, end: int
) -> int:
    """Where the bytes of a member begin; what stands before them must say what the directory has said."""
    if local + LOCAL.size > end:
        raise FormatError(f"the archive is damaged: the member {name!r:.80} is not in it")
    signature, _, *own, name_size, extra_size = LOCAL.unpack_from(data, local)
    flags, method, _, _, crc, packed, size = own
    place = local + LOCAL.size
    first: int = place + name_size + extra_size
    if signature != b"PK\3\4" or data[place : place + name_size] != raw or first + said[3] > end:
        raise FormatError(f"the archive is damaged: the member {name!r:.80} is not where the directory says")
    if flags & SIZES_LATER:
        crc, packed, size = said[2:]
    else:
        size, packed = _wide(data[first - extra_size : first], size, packed)
    if (flags, method, crc, packed, size) != said:
        raise FormatError(f"the archive is damaged: the member {name!r:.80} is not as the directory says")
    if method == STORED and packed != size:
        raise FormatError(f"the archive is damaged: the member {name!r:.80} has two sizes")
    return first


# ---- JSON ------------------------------------------------------------------------------------


def parse_json(what: str, text: bytes, file_bytes: int) -> Any:
    """Parse a JSON text, in which no object may have a name twice.

    Parameters
    ----------
    what : str
        Its name in messages.
    text : bytes
    file_bytes : int
        Of the file that it comes from, which bound the memory that it may take.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise FormatError(f"{what} has the same name twice in one object")
        return made

    text = text.removeprefix(b"\xef\xbb\xbf")  # a mark of UTF-8 that editors on Windows leave
    width = 1 if text.isascii() else 4  # bytes of a character
    size = width * len(text) + sum(text.count(character) * cost for character, cost in JSON_COSTS.items())
    if len(text) > JSON or size > _model.size_limit(file_bytes):
        raise FormatError(f"{what} is JSON of {len(text)} bytes that takes {size}, more than a file may hold")
    try:
        return json.loads(text.decode(), object_pairs_hook=once)
    except RecursionError:
        raise FormatError(f"{what} is nested too deeply") from None
    except FormatError:
        raise
    except ValueError as error:  # no UTF-8, no JSON, or a number of thousands of digits
        raise FormatError(f"{what} is no JSON: {error}") from None


# ---- arrays ----------------------------------------------------------------------------------


def _npy(name: str, data: bytes) -> NDArray[Any]:
    """An array of numbers from the bytes of an .npy file. NumPy would allocate whatever the header says.

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
