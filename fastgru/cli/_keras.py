"""Keras' recurrent layers, from files read by the version of Keras that wrote them."""

import importlib
import importlib.util
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastgru.cli import _model
from fastgru.cli._runtime import Array, File, Run, Runtime, need
from fastgru.formats import keras as keras_format

ROUNDOFF = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 2**-24, "float64": 2**-53}  # half a last place


def _model_of(path: Path, kind: str) -> Any:
    """The model of a file, read by the Keras that wrote it: Keras 3, or `tf_keras` for what was before."""
    if kind == "keras":
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json"))["keras_version"]
    else:
        with need("h5py", "to read .h5").File(path) as file:
            if "model_config" not in file.attrs:
                raise ValueError(
                    f"{path}: it holds weights only, of which Keras makes no model: name --against"
                )
            version = file.attrs.get("keras_version", "1")
    return package(3 if keras_format.major(version) >= 3 else 2).models.load_model(path, compile=False)


def package(version: int) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    return need("keras" if version == 3 else "tf_keras", f"to run models of Keras {version}")


def whole(path: Path, kind: str) -> Callable[[Mapping[str, Array]], list[Array]]:
    """A function from the inputs of a whole model, by name, to its outputs."""
    model = _model_of(path, kind)

    def run(inputs: Mapping[str, Array]) -> list[Array]:
        arrays = list(inputs.values())
        found = model(arrays if len(arrays) > 1 else arrays[0], training=False)
        return [np.asarray(one) for one in (found if isinstance(found, list | tuple) else [found])]

    return run


def file(path: Path, kind: str) -> File:
    """The recurrent layers of a model's file, of its format."""
    layers = dict(_layers(_model_of(path, kind)))

    def layer(name: str) -> Runtime:
        if name not in layers:
            raise ValueError(f"Keras finds no GRU of the name {name!r}")
        found = layers[name]
        made = runtime(_copy(found))
        return made._replace(
            time_major=_way(found, "time_major"),
            calls=(lambda batch: _calls(found, batch)) if _way(found, "stateful") else None,
        )

    return File(list(layers), layer)


def _layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Layers of GRUs by their names and those of the models around them; what is in a TimeDistributed."""
    for layer in model.layers:
        name = f"{prefix}{layer.name}"
        while type(layer).__name__ != "Bidirectional" and hasattr(layer, "layer"):
            layer = layer.layer
        if hasattr(layer, "layers"):
            yield from _layers(layer, f"{name}/")
        elif all(_is_gru(way) for way in _ways(layer)):
            yield name, layer


def _ways(layer: Any) -> list[Any]:
    """Both directions of a Bidirectional; any other layer itself."""
    if type(layer).__name__ == "Bidirectional":
        return [layer.forward_layer, layer.backward_layer]
    return [layer]


def _way(layer: Any, name: str) -> bool:
    """A flag of a layer, or of its directions; False if Keras lacks it."""
    return bool(getattr(_ways(layer)[0], name, False))


def _is_gru(layer: Any) -> bool:
    """True of Keras' own GRU, and of its RNN of GRUCells."""
    if type(layer).__module__.partition(".")[0] not in ("keras", "tf_keras"):
        return False
    cells = getattr(layer, "cell", None)
    kinds = {type(cell).__name__ for cell in getattr(cells, "cells", [cells])}
    return kinds == {"GRUCell"}


def _copy(layer: Any, batch: int | None = None, **arguments: Any) -> Any:
    """A layer of the same weights that returns all outputs and states, with these arguments besides."""
    config = _returning(layer.get_config(), _model.RETURNING_ALL | {"unroll": False} | arguments)
    home = importlib.import_module(type(layer).__module__.partition(".")[0])
    with home.utils.custom_object_scope({type(layer).__name__: type(layer)}):
        made = type(layer).from_config(config)
    weights = layer.get_weights()
    made.build((batch, None, weights[0].shape[0]))
    made.set_weights(weights)
    return made


def _calls(layer: Any, batch: int) -> Run:
    """A stateful copy of a layer."""
    made = _copy(layer, batch, stateful=True, return_state=False)  # Keras 3 fails on both in a Bidirectional
    run = runtime(made).run

    def call(x: Array, mask: Array | None, states: Sequence[Array] | None) -> list[Array]:
        outputs = run(x, mask, states)
        return [*outputs, *(np.asarray(state) for way in _ways(made) for state in _flat(way.states))]

    return call


def _flat(results: Any) -> Iterator[Any]:
    """Tensors in lists and tuples: Keras 3 has the states of several cells in one."""
    if isinstance(results, list | tuple):
        for result in results:
            yield from _flat(result)
    else:
        yield results


def _returning(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a layer, or of both directions, with these arguments where it has such."""
    made = {
        key: arguments.get(key, value)
        for key, value in config.items()
        if key not in ("batch_input_shape", "batch_shape")
    }
    for key in ("layer", "backward_layer"):
        if isinstance(config.get(key), dict):
            inner = {part: value for part, value in config[key].items() if part != "build_config"}
            made[key] = inner | {"config": _returning(inner["config"], arguments)}
    return made


def runtime(layer: Any) -> Runtime:
    """A built layer of Keras."""
    tensor = np.asarray
    if type(layer).__module__.startswith("keras."):
        tensor = importlib.import_module("keras").ops.convert_to_tensor
    else:
        tensor = importlib.import_module("tensorflow").constant
    ways = _ways(layer)
    dtype = ways[0].compute_dtype  # a wrapper has one of its own
    steps = _way(layer, "time_major")

    def run(x: Array, mask: Array | None, states: Sequence[Array] | None) -> list[Array]:
        def turned(array: Array) -> Array:
            return array.swapaxes(0, 1) if steps and array.ndim > 1 else array

        results = layer(
            tensor(np.ascontiguousarray(turned(x))),
            mask=None if mask is None else tensor(np.ascontiguousarray(turned(mask))),
            initial_state=None if states is None else [tensor(state, dtype=dtype) for state in states],
        )
        arrays = [np.asarray(result) for result in _flat(results)]
        return [turned(array) if array.ndim == 3 else array for array in arrays]

    units = tuple(int(size) for way in ways for size in np.ravel(way.cell.state_size))
    return Runtime(layer.get_weights()[0].shape[0], units, run, masks=True, roundoff=ROUNDOFF[dtype])
