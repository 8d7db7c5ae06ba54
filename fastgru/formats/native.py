"""fastgru's own files: an .npz with a member of JSON, read without pickle.

fastgru.npy              the header as UTF-8 bytes: {"format": 1, "class_name": ..., "config": ...}
0.npy, 1.npy, ...        the weights of a GRU, in the order of get_weights()
forward.0.npy, ...       those of a Bidirectional's forward layer
backward.0.npy, ...      and of its backward layer
0.0.npy, 1.forward.0.npy  those of a Stack's layers, after the layer's number
"""

import io
import itertools
import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from fastgru._errors import FormatError
from fastgru.formats import _model, _zip
from fastgru.formats._model import Arguments, Array, Layer, Maker
from fastgru.gru import GRU
from fastgru.stack import Stack
from fastgru.wrappers import Bidirectional

FORMAT = 1
HEADER = "fastgru.npy"
CLASSES: dict[str, Any] = {"GRU": GRU, "Bidirectional": Bidirectional, "Stack": Stack}


def save(layer: Layer, path: Any) -> None:
    """Write a layer; `Layer.save` has the rest."""
    if not layer.built:
        raise ValueError(f"the layer {layer.name} must be built to be saved: it has no weights yet")
    if not _model.finite(layer):
        raise ValueError(f"the layer {layer.name} must have finite weights and states to be saved")
    class_name = next(name for name, cls in CLASSES.items() if isinstance(layer, cls))
    header = {"format": FORMAT, "class_name": class_name, "config": _config(layer, CLASSES[class_name])}
    arrays = {"fastgru": np.frombuffer(json.dumps(header).encode(), np.uint8)}
    for prefix, direction in _directions(layer).items():
        arrays |= {f"{prefix}{i}": array for i, array in enumerate(direction.weights)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    if hasattr(path, "write"):
        path.write(buffer.getbuffer())
        return
    _replace(Path(os.fspath(path)), buffer.getbuffer())


def _directions(layer: Layer) -> dict[str, GRU]:
    """The GRUs of a layer by what stands before their weights' names."""
    if isinstance(layer, Bidirectional):
        return {"forward.": layer.forward_layer, "backward.": layer.backward_layer}
    if isinstance(layer, Stack):
        return {
            f"{i}.{prefix}": direction
            for i, one in enumerate(layer.layers)
            for prefix, direction in _directions(one).items()
        }
    return {"": layer}


def _config(layer: Layer, cls: Any) -> dict[str, Any]:
    """The layer's config, of which the layer can be made again."""

    def refuse(value: Any) -> Any:
        raise ValueError(f"it has the Python object {value!r}, and only what has a name can be saved")

    config = layer.get_config()
    try:
        cls.from_config(json.loads(json.dumps(config, default=refuse)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the layer {layer.name} cannot be saved: {error}") from error
    return config


def _replace(path: Path, data: memoryview) -> None:
    """Write a file whole or not at all, whoever else is looking."""
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


def archive(members: _zip.Archive) -> dict[str, Maker]:
    """The one layer of a file of `save`."""
    header = _zip.parse_json("the header", members.array(HEADER).tobytes(), members.size)
    if not isinstance(header, dict) or not isinstance(header.get("config"), dict):
        raise FormatError("the header must be an object with a config")
    if header.get("format") != FORMAT:
        raise FormatError(f"the format must be {FORMAT}, got {header.get('format')!r}: of a newer fastgru?")
    if header.get("class_name") not in CLASSES:
        raise FormatError(f"the class must be one of {', '.join(CLASSES)}, got {header.get('class_name')!r}")
    return {str(header["config"].get("name")): _maker(members, header, "")}


def _maker(members: _zip.Archive, header: Any, prefix: str) -> Maker:
    """The layer of such a class and config."""
    made: Any = {"GRU": _gru, "Bidirectional": _bidirectional, "Stack": _stack}[header["class_name"]]
    return lambda given: made(members, header["config"], given, prefix)


def _weights(members: _zip.Archive, prefix: str) -> list[Array]:
    """The arrays of a GRU, which are numbered without a gap."""
    names = itertools.takewhile(members.__contains__, (f"{prefix}{i}.npy" for i in itertools.count()))
    return [_model.floats(name, members.array(name)) for name in names]


def _gru(members: _zip.Archive, config: Arguments, given: Arguments, prefix: str) -> Layer:
    return _model.gru(_weights(members, prefix), {**config, **given})


def _stack(members: _zip.Archive, config: Arguments, given: Arguments, prefix: str) -> Layer:
    layers = config.get("layers")
    if not isinstance(layers, list) or not all(map(_is_of_a_stack, layers)):
        raise FormatError("the layers of a Stack must be GRUs and Bidirectionals with a config")
    makers = [_maker(members, layer, f"{prefix}{i}.") for i, layer in enumerate(layers)]
    return _model.stack(str(config.get("name")), makers, given, config.get("return_state"))


def _is_of_a_stack(layer: Any) -> bool:
    return (
        isinstance(layer, dict)
        and isinstance(layer.get("config"), dict)
        and layer.get("class_name") in ("GRU", "Bidirectional")
    )


def _bidirectional(members: _zip.Archive, config: Arguments, given: Arguments, prefix: str) -> Layer:
    _model.check_finite(config)
    own = {key: value for key, value in given.items() if key in ("name", "merge_mode")}
    of_both = {key: value for key, value in given.items() if key not in own}

    def direction(value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("config"), dict):
            return value | {"config": value["config"] | of_both}
        return value  # which from_config complains of

    directions = {key: direction(config[key]) for key in ("layer", "backward_layer") if key in config}
    layer = Bidirectional.from_config({**config, **directions, **own})
    for way, one in _directions(layer).items():
        _model.fill(one, _weights(members, prefix + way))
    _model.check_features(layer)
    return layer
