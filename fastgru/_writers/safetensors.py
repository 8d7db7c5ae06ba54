"""Files of safetensors: the length of a header, the header as JSON, and tensors without gaps between them.

Source: https://github.com/huggingface/safetensors, "Format".
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
LENGTH = 8  # bytes of the header's length


def written(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """A file of these arrays, which are of floats."""
    names = {np.dtype(kind): name for name, kind in FLOATS.items() if name != "BF16"}
    header: dict[str, Any] = {}
    pieces: list[bytes] = []
    place = 0
    for key, array in tensors.items():
        pieces.append(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        offsets = [place, place + len(pieces[-1])]
        place = offsets[1]
        dtype = names[array.dtype.newbyteorder("<")]
        header[key] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % LENGTH)  # so that numbers lie at multiples of their size
    return b"".join([len(text).to_bytes(LENGTH, "little"), text, *pieces])
