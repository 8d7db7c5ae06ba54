"""The runtimes that models were made for: each reads its own file and computes the layers in it."""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastgru import formats
from fastgru.cli import _keras, _model, _onnxruntime, _pytorch
from fastgru.cli._runtime import Array, File, Runtime, need

OWN = {  # by the format of a file
    "hdf5": "keras",
    "keras": "keras",
    "onnx": "onnxruntime",
    "npz": "torch",
    "torch": "torch",
    "safetensors": "torch",
}


def of_file(path: Path, against: str, kind: str) -> File:
    """A file of a format as its own runtime reads it."""
    if against == "onnxruntime":
        return _onnxruntime.file(path)
    if against == "torch":
        return _pytorch.file(path, kind)
    return _keras.file(path, kind)


def of_model(path: Path, against: str | None) -> tuple[str, Callable[[Mapping[str, Array]], list[Array]]]:
    """A whole model in the runtime that its file belongs to: the runtime's name, and what runs it.

    Raises
    ------
    ValueError
        If the file has none, or another one is wanted.
    """
    found, kind = own(path)
    if found not in ("keras", "onnxruntime"):
        raise ValueError(f"whole models have a runtime in files of Keras and ONNX, got a file of {kind!r}")
    if against not in (None, found):
        raise ValueError(f"--against must be {found} with --whole and this file, got {against}")
    return found, _onnxruntime.whole(path) if found == "onnxruntime" else _keras.whole(path, kind)


def of_layer(layer: Any, against: str) -> Runtime:
    """A layer as it is exported to a runtime.

    Raises
    ------
    ValueError
        If the runtime has no such layer.
    """
    if against == "onnxruntime":
        need("onnxruntime", "to run ONNX models")
        found = _onnxruntime.runtime(_onnxruntime.Gru(layer.to_onnx(), None))
    elif against == "torch":
        found = _pytorch.runtime(_pytorch.module(layer.to_torch_state_dict()))
    else:
        home = _keras.package(2 if importlib.util.find_spec("tf_keras") else 3)
        config = layer.to_keras_config(2 if home.__name__ == "tf_keras" else 3)
        made = getattr(home.layers, type(layer).__name__).from_config(config)
        made.build((None, None, _model.features(layer)))
        made.set_weights(layer.get_weights())
        found = _keras.runtime(made)
    return found._replace(zeros=all(part.zero_output_for_mask for part in layer._parts))


def own(path: Path) -> tuple[str | None, str]:
    """The runtime that a file belongs to, and its format."""
    kind = formats.format_of(path)
    return OWN.get(kind), kind
