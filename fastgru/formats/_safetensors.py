"""Tensors of a file of safetensors; `fastgru._writers.safetensors` has the source."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError
from fastgru._writers.safetensors import FLOATS, LENGTH
from fastgru.formats import _model, _zip

Array = NDArray[Any]
Entry = tuple[str, tuple[int, ...], int, int]  # dtype, shape, where a tensor begins and ends

BYTES = {  # of a number
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 8),
}
METADATA = "__metadata__"


class Tensors:
    """The tensors of a file.

    Parameters
    ----------
    data : bytes
        The whole file.

    Attributes
    ----------
    shapes : dict of str to tuple
        Of every tensor, in the order of the header.

    Raises
    ------
    FormatError
        If the header does not say what all of the bytes are.
    """

    def __init__(self, data: bytes) -> None:
        length = int.from_bytes(data[:LENGTH], "little")
        self._data, self._start = data, LENGTH + length
        if length > _zip.JSON or self._start > len(data):
            raise FormatError(f"it has a header of {length} bytes")
        self._entries = _entries(_zip.parse_json("the header", data[LENGTH : self._start], len(data)))
        self.shapes = {name: shape for name, (_, shape, _, _) in self._entries.items()}
        place = 0
        for name, (dtype, shape, begin, end) in sorted(self._entries.items(), key=lambda pair: pair[1][2:]):
            size = _model.check_size(f"{name!r:.80}", shape, BYTES.get(dtype, 0), len(data))
            if begin != place or (size != end - begin and dtype in BYTES):
                raise FormatError(
                    f"{name!r:.80} of {size} bytes must begin at {place}, lies from {begin} to {end}"
                )
            place = end
        if self._start + place != len(data):
            raise FormatError(f"its tensors must end where the file does, end at {self._start + place!s:.40}")

    def floats(self, key: str) -> Array:
        """A tensor of finite floats; of bfloat16, as float32."""
        dtype, shape, begin, end = self._entries[key]
        if dtype not in FLOATS:
            raise FormatError(f"{key!r:.80} must be of {', '.join(FLOATS)}, got {dtype:.40}")
        array = np.frombuffer(self._data[self._start + begin : self._start + end], FLOATS[dtype]).reshape(
            shape
        )
        if dtype == "BF16":
            array = _model.of_bfloat16(array)
        return _model.floats(key, array.astype(array.dtype.newbyteorder("="), copy=False))


def _entries(header: Any) -> dict[str, Entry]:
    """What the header says of every tensor."""
    found: dict[str, Entry] = {}
    for name, entry in header.items() if isinstance(header, dict) else [("", header)]:
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if (
                all(type(number) is int and number >= 0 for number in (*shape, begin, end)) and begin <= end
            ):
                found[name] = dtype, tuple(shape), begin, end
            case _ if name != METADATA:
                raise FormatError("the header must say of every tensor where its data is")
    if not found:
        raise FormatError("the header must say where tensors are, and has none")
    return found
