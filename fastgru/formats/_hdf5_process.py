"""Reads one HDF5 file for _hdf5.py, in a process of its own: run as a program, it imports nothing of fastgru.

    python _hdf5_process.py FILE SECONDS BYTES

writes a line of JSON, either {"error": message} or

    {"attributes": {path: {name: str or [str]}}, "datasets": {path: [shape, dtype]}}

and for each line of JSON that it reads, a dataset's path, {"error": message}, or {} and the dataset's bytes.
SECONDS of processor time and a small multiple of BYTES, which a dataset may have, are all that it takes.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

DEPTH = 32  # Keras nests groups by layers in layers, a handful
OBJECTS = 100_000


def limit(seconds: int, size: int) -> None:
    """Let the system end this process when it takes more than it may."""
    with contextlib.suppress(ImportError, OSError):  # not on Windows; the second one on Linux only
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2 * size + (64 << 20),) * 2)


def texts(value: Any) -> str | list[str] | None:
    """A string or a list of strings, as attributes hold them; None for all else."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 1:
        items = [texts(item) for item in value.tolist()]
        return items if all(isinstance(item, str) for item in items) else None  # type: ignore[return-value]
    return None


def members(group: h5py.Group, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """All objects below a group that lie in this file itself, by hard links, with their paths."""
    if depth > DEPTH:
        raise ValueError(f"groups are nested deeper than {DEPTH}")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{path}{name} is a link to elsewhere")
        item = group[name]
        yield f"{path}{name}", item
        if isinstance(item, h5py.Group):
            yield from members(item, f"{path}{name}/", depth + 1)


def index(file: h5py.File, size: int) -> dict[str, Any]:
    """What there is, without its content."""
    attributes: dict[str, dict[str, Any]] = {"": {}}
    datasets: dict[str, Any] = {}
    for number, (path, item) in enumerate(members(file, "", 0)):
        if number == OBJECTS:
            raise ValueError(f"there are more than {OBJECTS} objects")
        if isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:  # before its shape, which may be that of others
                raise ValueError(f"{path} lies in other files")
            datasets[path] = [item.shape, item.dtype.str]
        elif isinstance(item, h5py.Group):
            attributes[path] = {}
    for path, found in attributes.items():
        for name in (group := file[path or "/"]).attrs:
            text = texts(group.attrs[name])
            size -= len(name) + sum(map(len, text or ""))
            if size < 0:
                raise ValueError("its attributes are larger than the file")
            if text is not None:
                found[name] = text
    return {"attributes": attributes, "datasets": datasets}


def content(item: h5py.Dataset, size: int) -> bytes:
    """A dataset's numbers in C order."""
    if item.size * item.dtype.itemsize > size:
        raise ValueError(f"{item.name} of shape {item.shape} is larger than the file can hold")
    array: bytes = item[()].tobytes()
    return array


def main(path: str, seconds: int, size: int, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there are no more requests."""

    def answer(message: dict[str, Any], data: bytes = b"") -> None:
        answers.write(json.dumps(message).encode() + b"\n" + data)
        answers.flush()

    try:
        limit(seconds, size)
        with Path(path).open("rb") as opened, h5py.File(opened, "r") as file:
            answer(index(file, size))
            for line in requests:
                answer({}, content(file[json.loads(line)], size))
    except Exception as error:  # whatever HDF5 finds wrong
        answer({"error": f"{error}"})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.stdin.buffer, sys.stdout.buffer)
