"""HDF5 files, read in a process of their own: the HDF5 library hangs or crashes on some that are damaged.

Of 6000 random changes of a Keras model, HDF5 1.14.6 did not come back from 23 and crashed on one. The process
is trusted no more than the file, which may have taken it over.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError, need
from fastgru.formats import _hdf5_start, _model

READY = b'{"ready": true}\n'  # the first line of the process
SECONDS = 10  # of processor time, besides one for every 50 MB; the process starts in a quarter of one
PATIENCE = 12  # times as many seconds on the clock, for a machine that is busy
CRASHED = "the HDF5 library crashed on it or took too long"
ANSWER = 10_000  # bytes of a line that is not an index, at most: an error has 500 characters
FLOATS = {
    dtype.str: dtype for dtype in map(np.dtype, ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "V2"))
}  # and V2, which is bfloat16 in files of Keras


class Tree:
    """An open file.

    Attributes
    ----------
    attributes : dict
        Of every group, by its path without a slash in front: those that are strings or lists of them.
    shapes : dict
        Of every dataset, by its path.
    """

    def __init__(self, requests: IO[bytes], answers: IO[bytes], limit: int) -> None:
        self._requests, self._answers, self._left = requests, answers, limit
        index = self._answer(max(limit, ANSWER))
        if not _is_index(index):
            raise FormatError(CRASHED)
        self.attributes: dict[str, dict[str, str | list[str]]] = index["attributes"]
        self.shapes = {
            path: tuple(shape) for path, (shape, _) in index["datasets"].items() if shape is not None
        }
        self._dtypes: dict[str, str] = {path: dtype for path, (_, dtype) in index["datasets"].items()}

    def _answer(self, size: int) -> dict[str, Any]:
        """A line of no more than `size` bytes."""
        line = self._answers.readline(size)
        try:
            answer = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise FormatError(CRASHED)
        if "error" in answer:
            raise FormatError(f"no sound HDF5 file: {answer['error']}")
        return answer

    def floats(self, path: str) -> NDArray[Any]:
        """A dataset of finite floats; of bfloat16, two opaque bytes in files of Keras, as float32.

        All that are read together are no larger than the file may hold, however often it names one.
        """
        if path not in self.shapes:
            raise FormatError(f"the dataset {path} is missing")
        dtype = FLOATS.get(self._dtypes[path])
        if dtype is None:
            got = self._dtypes[path]
            raise FormatError(f"{path} must be of float16, bfloat16, float32 or float64, got {got:.50}")
        shape = self.shapes[path]
        size = _model.check_size(path, shape, dtype.itemsize, self._left)
        self._left -= size
        with _hdf5_start.closed_pipes_ignored():  # there will be no answer
            self._requests.write(json.dumps(path).encode() + b"\n")
            self._requests.flush()
        self._answer(ANSWER)
        data = self._answers.read(size)
        if len(data) != size:
            raise FormatError(CRASHED)
        if dtype.kind == "V":  # bfloat16, for which NumPy has no type
            array = _model.of_bfloat16(np.frombuffer(data, "<u2"))
        else:
            array = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
        return _model.floats(path, array.reshape(shape))


def _is_index(answer: dict[str, Any]) -> bool:
    """Whether it has the form of what there is in a file."""
    attributes, datasets = answer.get("attributes"), answer.get("datasets")
    if not isinstance(attributes, dict) or "" not in attributes or not isinstance(datasets, dict):
        return False
    return all(map(_are_texts, attributes.values())) and all(map(_is_entry, datasets.values()))


def _are_texts(value: Any) -> bool:
    """Whether it is a group's attributes: strings and lists of them."""
    return isinstance(value, dict) and all(
        isinstance(text, str) or (isinstance(text, list) and all(isinstance(one, str) for one in text))
        for text in value.values()
    )


def _is_entry(value: Any) -> bool:
    """Whether it is a dataset's shape, or None, and its dtype."""
    match value:
        case [None, str()]:
            return True
        case [list(shape), str()]:
            return all(type(length) is int and length >= 0 for length in shape)
    return False


@contextlib.contextmanager
def open_tree(data: bytes | memoryview, limit: int) -> Iterator[Tree]:
    """The file, for as long as the context lasts.

    Parameters
    ----------
    data : bytes or memoryview
        The whole file.
    limit : int
        Most bytes of all datasets that are read, and of all names and attributes.

    Raises
    ------
    FormatError
        If it is no HDF5 file, or the HDF5 library crashes on it or does not come to an end.
    ImportError
        If h5py is not installed, or cannot be imported by the process.
    OSError
        If the process cannot be started.
    """
    need("h5py", "keras")
    seconds = SECONDS + len(data) // 50_000_000
    process = _hdf5_start.started(seconds, limit, len(data))
    watch = threading.Timer(PATIENCE * seconds, process.kill)
    try:
        watch.start()
        _check_ready(process.answers)
        with _hdf5_start.closed_pipes_ignored():  # the process has ended, and may have said why
            process.requests.write(data)  # all of which it reads before it answers
            process.requests.flush()
        yield Tree(process.requests, process.answers, limit)
    finally:
        watch.cancel()
        if watch.ident is not None:  # it has started
            watch.join()
        process.close()


def _check_ready(answers: IO[bytes]) -> None:
    """Wait until the process is ready: an error before that is not the file's."""
    line = answers.readline(ANSWER)
    if line == READY:
        return
    try:
        message = str(json.loads(line)["unable"])
    except (ValueError, TypeError, KeyError):
        raise OSError(f"the process that reads HDF5 files did not start: it said {line!r:.80}") from None
    if message.startswith("MemoryError"):
        raise MemoryError("there is none for the process that reads HDF5 files")
    raise ImportError(f"h5py cannot be imported by the process that reads HDF5 files: {message}", name="h5py")
