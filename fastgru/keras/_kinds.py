"""Which layers of Keras there are: of which package, on which backend, recurrent or not."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

CLASSES = ("GRU", "RNN", "Bidirectional")  # that fastgru runs


def package_of(layer: Any) -> str | None:
    """keras (version 3) or tf_keras, if the object is a layer of it."""
    for cls in type(layer).__mro__:
        package = cls.__module__.partition(".")[0]
        if cls.__name__ == "Layer" and package in ("keras", "tf_keras"):
            version = getattr(sys.modules[package], "__version__", "")
            return package if package == "tf_keras" or version.startswith("3.") else None
    return None


def backend_of(layer: Any) -> ModuleType:
    """The module that hands the tensors of a layer's backend to fastgru."""
    package = package_of(layer)
    name = "tensorflow" if package == "tf_keras" else sys.modules["keras"].backend.backend()
    return import_module(f"fastgru.keras._{name}")


def own_class(layer: Any) -> str | None:
    """The name of the class, if it is Keras' own, and no subclass of it."""
    cls = type(layer)
    return cls.__name__ if cls.__module__.partition(".")[0] in ("keras", "tf_keras") else None


def is_recurrent(layer: Any) -> bool:
    """True of an RNN of any cell, and of a Bidirectional."""
    own = (cls for cls in type(layer).__mro__ if cls.__module__.partition(".")[0] in ("keras", "tf_keras"))
    return any(cls.__name__ in ("RNN", "Bidirectional") for cls in own)


def directions(layer: Any) -> list[Any]:
    """The layers with weights: those of a Bidirectional, or this one."""
    return [layer.forward_layer, layer.backward_layer] if hasattr(layer, "forward_layer") else [layer]
