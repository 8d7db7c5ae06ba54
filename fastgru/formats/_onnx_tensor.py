"""Tensors of ONNX models as arrays: of every type of numbers, in the model or in files beside it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError
from fastgru.formats import _file, _model

Array = NDArray[Any]

NO_LIMIT = 1 << 62  # bytes
EXTERNAL = 1  # TensorProto.DataLocation

# TensorProto.DataType: its name, and the type and the field of values that are not raw bytes
TYPES = {
    1: ("<f4", "float_data"),
    2: ("|u1", "int32_data"),
    3: ("|i1", "int32_data"),
    4: ("<u2", "int32_data"),
    5: ("<i2", "int32_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("|b1", "int32_data"),
    10: ("<f2", "int32_data"),
    11: ("<f8", "double_data"),
    12: ("<u4", "uint64_data"),
    13: ("<u8", "uint64_data"),
}
# Types that NumPy lacks, and their bits: bfloat16, floats of 8, integers and floats of 4, integers of 2
FOREIGN = {16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}


class Reader:
    """Arrays of tensors, and what is left of the bytes that they may take.

    Parameters
    ----------
    folder : Path or None
        Where the model's file lies; None: external data is refused.
    limit : int
        The most bytes that tensors and all that is computed from them may take, together.
    """

    def __init__(self, folder: Path | None, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._files: set[Path] = set()
        self._packed: dict[int, Any] = {}  # tensors of less than a byte a number, by what they are in memory

    @property
    def left(self) -> int:
        """Bytes that may still be taken."""
        return self._limit

    def spend(self, size: int) -> None:
        """Count what is going to be taken.

        Raises
        ------
        FormatError
            If it is more than there may be.
        """
        if size > self._limit:
            raise FormatError(
                "its tensors, and what nodes make of them, take more memory than a file of its size may: "
                "many GRU nodes share tensors, or constants are expanded"
            )
        self._limit -= size

    def array(self, what: str, tensor: Any) -> Array:
        """The values of a TensorProto, of the type that they have in the file.

        Raises
        ------
        FormatError
            If they are no numbers, not all there, or too many.
        """
        kind, shape = tensor.data_type, tuple(tensor.dims)
        if kind in TYPES:
            dtype = np.dtype(TYPES[kind][0])
            size = _model.check_size(what, shape, dtype.itemsize, NO_LIMIT)
            data = self._data(what, tensor, size, dtype, TYPES[kind][1])
            self.spend(size)
            if dtype.kind == "b":  # of which a byte may be neither 0 nor 1
                data = (np.frombuffer(data, np.uint8) != 0).tobytes()
            return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
        if kind not in FOREIGN:
            raise FormatError(f"{what} must be of numbers, got the data type {kind}")
        return self._foreign(what, tensor, shape, FOREIGN[kind])

    def _foreign(self, what: str, tensor: Any, shape: tuple[int, ...], bits: int) -> Array:
        """Values of a type that NumPy lacks."""
        from onnx import TensorProto, numpy_helper

        numbers = _model.check_size(what, shape, 1, NO_LIMIT)
        size = (numbers * bits + 7) // 8
        dtype = np.dtype("<u2" if bits == 16 else "|u1")
        data = self._data(what, tensor, size, dtype, "int32_data")
        if (
            bits < 8 and id(tensor) not in self._packed
        ):  # a file of such is measured as if they had a byte each
            self._packed[id(tensor)] = tensor
            self._limit += _model.EXPANSION * (numbers - size)
        self.spend(max(size, numbers))
        whole = TensorProto(data_type=tensor.data_type, dims=shape, raw_data=data)
        found: Array = numpy_helper.to_array(whole)
        return found

    def _data(self, what: str, tensor: Any, size: int, dtype: np.dtype[Any], field: str) -> bytes:
        """The bytes of a tensor, which must be of this size."""
        if tensor.data_location == EXTERNAL:
            return self._external(what, tensor, size)
        data: bytes = tensor.raw_data or _bytes(getattr(tensor, field), dtype)
        if len(data) != size:
            raise FormatError(f"{what} of shape {tuple(tensor.dims)} needs {size} bytes, has {len(data)}")
        return data

    def _external(self, what: str, tensor: Any, size: int) -> bytes:
        """Bytes of a tensor in a file beside the model: a plain file in the same folder or below."""
        keys = [entry.key for entry in tensor.external_data]
        if len(set(keys)) != len(keys):
            raise FormatError(f"{what} must have each key of its external data once, got one twice")
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if self._folder is None:
            raise FormatError(f"{what} lies in another file, {location!r:.80}: load the model by its path")
        folder = self._folder.resolve()
        path = folder / location
        if not _file.is_plain_below(path, folder):
            raise FormatError(f"{what} lies in {location!r:.80}, which is no plain file beside the model")
        offset = _number(what, entries.get("offset", "0"))
        length = _number(what, entries.get("length", str(size)))
        data, available = _file.read_part(path, offset, size)
        if length != size or len(data) != size:
            raise FormatError(
                f"{what} needs {size} bytes, has {length} from {offset} on in {location!r:.80} of {available}"
            )
        if path not in self._files:
            self._files.add(path)
            self._limit += _model.size_limit(available)
        return data


def floats(what: str, array: Array) -> Array:
    """Finite floats; bfloat16 as float32.

    Raises
    ------
    FormatError
        If they are of another type, or not finite.
    """
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind != "f":
        raise FormatError(f"{what} must be of floats, got the data type {array.dtype}")
    return _model.floats(what, array)


def _bytes(values: Any, dtype: np.dtype[Any]) -> bytes:
    """Of a tensor's values in a field of its type; those of fewer bytes are the low ones of each int32."""
    if dtype.itemsize > 2:
        return np.fromiter(values, dtype, len(values)).tobytes()
    numbers = np.fromiter(values, "<i4", len(values))
    return numbers.astype(f"<u{dtype.itemsize}").tobytes()


def _number(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise FormatError(f"{what} has the offset or length {text!r:.40}")
    return int(text)
