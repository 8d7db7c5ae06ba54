"""fastgru's own files: an .npz with a member of JSON, read without pickle.

fastgru.npy              the header as UTF-8 bytes: {"format": 1, "class_name": ..., "config": ...}
0.npy, 1.npy, ...        the weights of a GRU, in the order of get_weights()
forward.0.npy, ...       those of a Bidirectional's forward layer
backward.0.npy, ...      and of its backward layer
0.0.npy, 1.forward.0.npy  those of a Stack's layers, after the layer's number
scales.npy               after the same prefixes: the steps of int8 weights, (2, 3 * units), where they are
                         not the largest weight of each column divided by 127
"""

import io
import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from fastgru import _description
from fastgru._description import GRU, Bidirectional, Layer

FORMAT = 1
HEADER = "fastgru.npy"
DIRECTIONS = "forward.", "backward."  # before the names of the weights


def save(layer: Layer, path: Any) -> None:
    """Write a layer; `Layer.save` has the rest."""
    if not _description.is_built(layer):
        raise ValueError(f"the layer {layer.name} must be built to be saved: it has no weights yet")
    if not _description.is_finite(layer):
        raise ValueError(f"the layer {layer.name} must have finite weights and states to be saved")
    write({"format": FORMAT, "class_name": layer.cls.__name__, "config": config(layer)}, weights(layer), path)


def write(header: dict[str, Any], arrays: dict[str, Any], path: Any) -> None:
    """Write a header and arrays by name."""
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **{HEADER.removesuffix(".npy"): text}, **arrays)  # type: ignore[arg-type]
    if hasattr(path, "write"):
        path.write(buffer.getbuffer())
        return
    _replace(Path(os.fspath(path)), buffer.getbuffer())


def _parts(layer: Layer) -> dict[str, GRU]:
    """The GRUs of a layer by what stands before their weights' names."""
    if isinstance(layer, GRU):
        return {"": layer}
    if isinstance(layer, Bidirectional):
        return dict(zip(DIRECTIONS, layer.parts, strict=True))
    return {f"{i}.{way}": part for i, one in enumerate(layer.layers) for way, part in _parts(one).items()}


def weights(layer: Layer) -> dict[str, Any]:
    """The weights of a layer by their names."""
    found: dict[str, Any] = {}
    for prefix, part in _parts(layer).items():
        found |= {f"{prefix}{i}": array for i, array in enumerate(part.weights)}
        if part.scales is not None:
            found[f"{prefix}scales"] = part.scales
    return found


def config(layer: Layer) -> dict[str, Any]:
    """The layer's config, after a check that it makes the layer again."""

    def refuse(value: Any) -> Any:
        raise ValueError(f"it has the Python object {value!r}, and only what has a name can be saved")

    found = layer.get_config()
    try:
        layer.cls.from_config(json.loads(json.dumps(found, default=refuse)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the layer {layer.name} cannot be saved: {error}") from error
    return found


def _replace(path: Path, data: memoryview) -> None:
    """Write a file whole or not at all, for concurrent readers, too."""
    path = path.resolve()  # a link stays one
    if path.exists() and not path.is_file() and not path.is_dir():  # to replace a folder fails by itself
        raise OSError(f"{path} must be a plain file where it is one already, got a pipe or a device")
    unfinished = path.with_name(f".{secrets.token_hex(8)}.npz")
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
