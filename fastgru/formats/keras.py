"""Layers of Keras: live objects, and the readers of files."""

import re
import sys
from typing import Any

import numpy as np

from fastgru._keras_config import KERAS, cells_of, is_recurrent, major
from fastgru.formats._keras_files import architecture_of, archive, hdf5
from fastgru.formats._keras_layers import Array, layer_of
from fastgru.formats._keras_model import PASSING
from fastgru.formats._model import Layer
from fastgru.stack import Stack

__all__ = ["architecture_of", "archive", "from_keras", "hdf5", "major"]


def from_keras(layer: Any) -> Layer:
    """The layer that a layer of Keras is: of `tf_keras`, of TensorFlow or of Keras 3.

    Parameters
    ----------
    layer : keras.layers.GRU, CuDNNGRU, RNN of GRUCells, Bidirectional of one layer, or Sequential
        Or an object of a subclass, of which only the weights and what Keras' class has in its config are
        taken. A layer that is not built gives one that is not built. A recorded state stays behind, as it
        does in Keras' own files. Of a Sequential its layers of these kinds are taken, which must be in a row.

    Returns
    -------
    GRU, Bidirectional or Stack

    Raises
    ------
    TypeError
        If it is no such layer.
    ValueError
        If its configuration is not one of fastgru: an activation of its own, for example. If the layers of a
        Sequential are not in a row.
    """
    cls = _keras_class(layer)
    if cls is not None and cls.__name__ == "Sequential":
        return _of_sequential(layer)
    class_name, config, version, directions = parts_of(layer)
    weights = [[_numbers(array) for array in direction.get_weights()] for direction in directions]
    return layer_of(class_name, config, version, weights, {})


def parts_of(layer: Any) -> tuple[str, dict[str, Any], int, list[Any]]:
    """A live recurrent layer as `layer_of` wants it, but for the weights: the layers that have them.

    Raises
    ------
    TypeError
        If it is no layer that `from_keras` takes, or a Sequential.
    """
    cls = _keras_class(layer)
    config = {} if cls is None else cls.get_config(layer)
    if cls is None or not is_recurrent({"class_name": cls.__name__, "config": config}):
        raise TypeError(f"layer must be a GRU or a Bidirectional GRU of Keras, got {type(layer).__name__}")
    package = cls.__module__.partition(".")[0]
    version = major(getattr(sys.modules["keras"], "__version__", None)) if package == "keras" else 2
    directions = [layer]
    if cls.__name__ == "Bidirectional":
        directions = [layer.forward_layer, layer.backward_layer]
        config |= {
            key: _config_of(direction)
            for key, direction in zip(("layer", "backward_layer"), directions, strict=True)
        }
    elif cells_of({"class_name": cls.__name__, "config": config}) is not None:
        directions = layer.cell.cells
    return cls.__name__, config, version, directions


def _of_sequential(model: Any) -> Layer:
    """The recurrent layers of a live Sequential."""
    layers = [layer for layer in model.layers if type(layer).__name__ not in PASSING]
    run = [is_recurrent(_described(layer)) for layer in layers]
    if not any(run):
        raise TypeError("layer must be a GRU or a Bidirectional GRU of Keras, got a Sequential without one")
    first, count = run.index(True), run.count(True)
    if not all(run[first : first + count]):
        raise ValueError(
            f"layer must have its GRUs in a row, got the Sequential {model.name!r} with other layers between "
            "them: give them one by one"
        )
    found = [from_keras(layer) for layer in layers[first : first + count]]
    return Stack(found, name=model.name) if count > 1 else found[0]


def _described(layer: Any) -> dict[str, Any]:
    """A live layer as a model's config has it; nothing if it is of no known class of Keras."""
    cls = _keras_class(layer)
    return {} if cls is None else {"class_name": cls.__name__, "config": cls.get_config(layer)}


def _keras_class(layer: Any) -> Any:
    """Keras' own class that the layer is of; None if it is not Keras'."""
    known = ("GRU", "CuDNNGRU", "RNN", "Bidirectional", "Sequential")
    classes = (cls for cls in type(layer).__mro__ if cls.__module__.partition(".")[0] in KERAS)
    return next((cls for cls in classes if cls.__name__ in known), None)


def _numbers(weight: Any) -> Array:
    """A live weight; one of bfloat16, which is no type of NumPy's, as float32."""
    array = np.asarray(weight)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _config_of(direction: Any) -> dict[str, Any]:
    """A direction of a live Bidirectional as its config would have it, with `trainable` as it is now."""
    cls = _keras_class(direction)
    config = cls.get_config(direction)
    return {
        "class_name": cls.__name__,
        "config": config | {"name": re.sub("^(forward|backward)_", "", config["name"])},
    }
