"""Reads one HDF5 file for _hdf5.py, in a process of its own: run as a program, it imports nothing of fastgru.

    python _hdf5_process.py SECONDS BYTES SIZE

writes the line {"ready": true}, or {"unable": message} if it cannot import h5py. Then it reads a file of SIZE
bytes from its standard input and writes a line of JSON, either {"error": message} or

    {"attributes": {path: {name: str or [str]}}, "datasets": {path: [shape, dtype]}}

and for each line of JSON that it reads then, a dataset's path, {"error": message}, or {} and the dataset's
bytes. The first line has at most BYTES, and so has a dataset. Before the process reads the file, it gives up
all that this does not take: other files, sockets, processes, more than SECONDS of processor time, and memory
out of proportion to the file.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import functools
import io
import json
import math
import os
import platform
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

try:
    if __name__ == "__main__":
        # h5py looks at uname()[4], and Python fills in all of the tuple for that: the processor's name, if it
        # is not there, by the program `uname`.
        vars(platform.uname())["processor"] = ""
    import h5py
    import numpy as np
    from h5py import h5, h5a, h5d, h5l, h5s, h5t
except Exception as error:
    if __name__ != "__main__":
        raise
    print(json.dumps({"unable": f"{type(error).__name__}: {error}"[:500]}), flush=True)
    sys.exit(1)

codecs.lookup("ascii")  # h5py asks for it when files can no longer be opened, and Python has it in one

DEPTH = 32  # Keras nests groups by layers in layers, a handful
OBJECTS = 100_000
ATTRIBUTES = 256  # of a group; Keras cuts a list of names that is longer than 64 KB into several
PATH = 4096  # characters; a name alone may have 65535, and is in the paths of all that is below it
ENTRY = 64  # bytes that a name, a text or a number takes besides its characters
COPIED = 256  # bytes of strings that HDF5 may copy for each byte that the file may hold
CHUNK = 4096  # bytes that HDF5 1.14 takes for each chunk of a dataset before it reads the first
MEMORY = "its content needs more memory than a file of its size may take"
# Bytes besides those of the file and of a dataset: a model of Keras with one layer takes 0.6 MB, one with 60
# and its optimizer 5 MB. Those with thousands take no more than a dataset may.
MARGIN = 32 << 20
# How the kernel numbers each kind of machine, and there the calls that open files, memory and the end of a
# process take: read, write, close, fstat, lseek, pread64, mmap, mprotect, munmap, brk, rt_sigaction,
# rt_sigprocmask, rt_sigreturn, sched_yield, mremap, madvise, getpid, exit, getcwd, getrusage, sigaltstack,
# gettid, futex, sched_getaffinity, clock_gettime, exit_group, getrandom.
CALLS = {
    "x86_64": (
        0xC000003E,
        "0 1 3 5 8 17 9 10 11 12 13 14 15 24 25 28 39 60 79 98 131 186 202 204 228 231 318",
    ),
    "aarch64": (
        0xC00000B7,
        "63 64 57 80 62 67 222 226 215 214 134 135 139 124 216 233 172 93 17 165 132 178 98 123 113 94 278",
    ),
}


def confine(seconds: int, size: int) -> None:
    """Give up for good every right that reading a file in memory does not need.

    Parameters
    ----------
    seconds : int
        Of processor time, after which the system ends this process.
    size : int
        Bytes that it may take besides those that it has.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {
        "CPU": seconds,
        "FSIZE": 0,
        "CORE": 0,
        "NPROC": 0,  # threads, too; root is exempt
        "NOFILE": 0,  # what is open stays open
    }
    with contextlib.suppress(OSError):  # Linux alone has the file
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits["AS"] = pages * resource.getpagesize() + size
    for name, value in limits.items():
        which = getattr(resource, f"RLIMIT_{name}", None)
        if which is not None:
            given = [limit for limit in resource.getrlimit(which) if limit != resource.RLIM_INFINITY]
            lowest = min([value, *given])
            resource.setrlimit(which, (lowest, lowest))
    refuse_calls()


def refuse_calls() -> None:
    """Have Linux refuse all calls of the system but `CALLS` from here on: seccomp, if it is there."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32 or os.uname().machine not in CALLS:
        return
    try:
        import ctypes
    except ImportError:
        return
    machine, text = CALLS[os.uname().machine]
    numbers = [*map(int, text.split())]
    load, jump_if_equal, end = 0x20, 0x15, 0x06
    refuse, allow = 0x00050000 | errno.EPERM, 0x7FFF0000
    count = len(numbers)
    program = [(load, 0, 0, 4), (jump_if_equal, 0, count + 1, machine), (load, 0, 0, 0)]
    program += [(jump_if_equal, count - i, 0, number) for i, number in enumerate(numbers)]
    program += [(end, 0, 0, refuse), (end, 0, 0, allow)]
    statements = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    whole = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(statements)))
    long, prctl = ctypes.c_ulong, ctypes.CDLL(None).prctl
    no_new_privileges, filter_calls, by_program = 38, 22, 2
    if prctl(no_new_privileges, long(1), long(0), long(0), long(0)) == 0:
        prctl(filter_calls, long(by_program), whole, long(0), long(0))


class Index:
    """What there is in a file, without its content.

    What is in a file once may be named many times: a dataset, the start of a path, a type, a string, a table
    of names. Each time counts, and counts before memory is taken for it.

    Attributes
    ----------
    attributes : dict
        Of every group, by its path: strings and lists of them.
    datasets : dict
        Shape and dtype by path.
    """

    def __init__(self, file: h5py.File, data: bytes, limit: int) -> None:
        self.attributes: dict[str, dict[str, str | list[str]]] = {}
        self.datasets: dict[str, tuple[tuple[int, ...] | None, str]] = {}
        self._data, self._left = data, limit
        self._width: int = file.id.get_create_plist().get_sizes()[1]
        self._met: dict[int, tuple[tuple[int, ...] | None, str] | None] = {}  # by address; None: no dataset
        self._objects = 0
        self._add(file["/"], "", 0)

    def _check(self, size: int) -> None:
        if size > self._left:
            raise ValueError("its names and attributes are larger than the file can hold")

    def _take(self, size: int) -> None:
        self._check(size)
        self._left -= size

    def _take_text(self, text: str) -> None:
        self._take(len(json.dumps(text)) + ENTRY)

    def _take_type(self, kind: h5t.TypeID) -> None:
        """Count a type that may be of any size."""
        self._take(len(kind.encode()))

    @functools.cached_property
    def _longest(self) -> int:
        """The most bytes that a string of variable length has: the size of the largest heap in the file."""
        longest, at = 0, self._data.find(b"GCOL")
        while at >= 0:
            size = int.from_bytes(self._data[at + 8 : at + 8 + self._width], "little")
            if size <= len(self._data) - at:  # else it is none, but the same four bytes
                longest = max(longest, size)
            at = self._data.find(b"GCOL", at + 4)
        return longest

    def _add(self, group: h5py.Group, path: str, depth: int) -> None:
        """A group and all below it, which must lie in this file, by hard links."""
        if depth > DEPTH:
            raise ValueError(f"groups are nested deeper than {DEPTH}")
        self._take_text(path)
        self.attributes[path] = self._attributes(group)
        links = self._listed(lambda see: group.id.links.iterate(see, order=h5.ITER_NATIVE, info=True))
        for name, kind, address in links:
            if len(path) + len(name) >= PATH:
                raise ValueError(f"a path has more than {PATH} characters")
            self._objects += 1
            if self._objects > OBJECTS:
                raise ValueError(f"there are more than {OBJECTS} objects")
            place = f"{path}/{name}" if path else name
            if kind != h5l.TYPE_HARD:
                raise ValueError(f"{place:.200} is a link to elsewhere")
            if address not in self._met:
                item = group[name]
                self._met[address] = self.entry(item, place) if isinstance(item, h5py.Dataset) else None
                if isinstance(item, h5py.Group):
                    self._add(item, place, depth + 1)
            elif self._met[address] is None:
                raise ValueError(f"{place:.200} has another name, too")
            entry = self._met[address]
            if entry is not None:
                self._take_text(place)
                self._take(ENTRY * (1 + len(entry[0] or ())))
                self.datasets[place] = entry

    def _listed(self, iterate: Callable[[Callable[..., bool | None]], object]) -> list[tuple[str, int, int]]:
        """Names that HDF5 goes through, with a link's type and address, in order.

        Parameters
        ----------
        iterate : callable
            Takes a callback for each name, which stops it by returning anything but None. It should use the
            native order: for others HDF5 first makes a list of all names.
        """
        found: list[tuple[str, int, int]] = []
        size = 0

        def see(name: bytes, link: Any = None) -> bool | None:
            nonlocal size
            size += len(name) + ENTRY
            text = name.decode("utf-8", "surrogateescape")
            found.append((text, link.type, link.u) if link is not None else (text, 0, 0))
            return size > self._left or len(found) > OBJECTS or None  # an exception is lost in HDF5

        iterate(see)
        self._take(size)
        if len(found) > OBJECTS:
            raise ValueError(f"there are more than {OBJECTS} objects")
        self._take(len(found) ** 2 // 64)  # to open one by its name, HDF5 may look at all
        return sorted(found)

    def _attributes(self, group: h5py.Group) -> dict[str, str | list[str]]:
        if h5a.get_num_attrs(group.id) > ATTRIBUTES:  # before HDF5 takes them apart
            raise ValueError(f"a group has more than {ATTRIBUTES} attributes")
        found = {}
        for name, *_ in self._listed(lambda see: h5a.iterate(group.id, see, order=h5.ITER_NATIVE)):
            text = self._text(group, name)
            if text is not None:
                self._take_text(name)
                for one in [text] if isinstance(text, str) else text:
                    self._take_text(one)
                found[name] = text
        return found

    def _text(self, group: h5py.Group, name: str) -> str | list[str] | None:
        """An attribute that is a string or a list of strings; None for all else, which is not read."""
        attribute = group.attrs.get_id(name)
        kind, shape = attribute.get_type(), attribute.shape
        if shape == (0,):  # an empty list, of whatever
            return []
        if kind.get_class() != h5t.STRING:
            self._take_type(kind)
            return None
        if shape is None or len(shape) > 1:
            return None
        count = math.prod(shape)
        if kind.is_variable_str():
            # Keras 3 writes names so. How long they are together is known when they are read: when they are
            # all one long string, the limit of memory ends that. What each may copy counts before.
            self._check(count * ENTRY)
            self._take(count * self._longest // COPIED)
        else:
            self._check(count * (kind.get_size() + ENTRY))
        value = group.attrs[name]
        return [decoded(item) for item in value.tolist()] if shape else decoded(value)

    def entry(self, item: h5py.Dataset, place: str) -> tuple[tuple[int, ...] | None, str]:
        """Shape and dtype of a dataset."""
        properties = item.id.get_create_plist()
        if properties.get_layout() == h5d.VIRTUAL or properties.get_external_count():
            # before its shape, which may be that of others
            raise ValueError(f"{place:.200} lies in other files")
        kind = item.id.get_type()
        match kind.get_class():
            case h5t.FLOAT:
                dtype = kind.dtype.str
            case h5t.INTEGER:
                dtype = str(kind.dtype)
            case h5t.OPAQUE:
                dtype = f"|V{kind.get_size()}"  # h5py's may be what the file says: a pointer, for example
            case _:
                self._take_type(kind)
                dtype = "another type"
        return item.shape, dtype


def decoded(text: bytes | str) -> str:
    """A string of an attribute: bytes if it is of fixed length."""
    return text.decode() if isinstance(text, bytes) else text


def content(index: Index, file: h5py.File, path: str, limit: int) -> np.ndarray[Any, Any]:
    """A dataset's numbers in C order."""
    item = file[path]
    shape, dtype = entry = index.datasets[path]
    if shape is None or index.entry(item, path) != entry:
        raise ValueError(f"{path:.200} is more than one dataset")
    wanted = np.dtype(dtype)
    size = math.prod(shape) * wanted.itemsize
    if item.chunks is not None:
        chunks = math.prod(-(-length // step) for length, step in zip(shape, item.chunks, strict=True))
        size = max(size, chunks * CHUNK, math.prod(item.chunks) * wanted.itemsize)
    if size > limit:
        raise ValueError(f"{path:.200} of shape {shape!s:.80} is larger than the file can hold")
    array = np.empty(shape, wanted)
    if array.size:
        # opaque bytes are converted only between types of one name
        item.id.read(h5s.ALL, h5s.ALL, array, item.id.get_type() if wanted.kind == "V" else None)
    return array


def main(
    seconds: int, limit: int, size: int, requests: BinaryIO, answers: BinaryIO, confined: bool = True
) -> None:
    """Answer requests until there are none; not confined in a process that also does other work."""

    def answer(message: dict[str, Any], array: np.ndarray[Any, Any] | None = None) -> None:
        answers.write(json.dumps(message).encode())
        answers.write(b"\n")
        if array is not None:
            answers.write(array.reshape(-1).view(np.uint8).data)
        answers.flush()

    answer({"ready": True})
    try:
        if confined:
            confine(seconds, size + limit + MARGIN)
        data = requests.read(size)
        with h5py.File(io.BytesIO(data), "r") as file:
            index = Index(file, data, limit)
            answer({"attributes": index.attributes, "datasets": index.datasets})
            for line in requests:
                answer({}, content(index, file, json.loads(line), limit))
        return
    except MemoryError:
        message = MEMORY
    except Exception as error:  # whatever HDF5 finds wrong
        message = f"{error}"[:500]
    answer({"error": message})  # when what was read is gone


if __name__ == "__main__":
    seconds, limit, size = map(int, sys.argv[1:])
    main(seconds, limit, size, sys.stdin.buffer, sys.stdout.buffer)
