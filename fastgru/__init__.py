"""fastgru: the GRU layer of Keras, exact in every argument, fast on CPUs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastgru import activations, constraints, initializers, regularizers
from fastgru._config import show_config
from fastgru._include import get_include
from fastgru._random import set_random_seed
from fastgru._validate import InputSpec
from fastgru.gru import GRU
from fastgru.stack import Stack
from fastgru.streaming import Stream, StreamPool
from fastgru.wrappers import Bidirectional

if TYPE_CHECKING:
    from fastgru._batcher import MicroBatcher
    from fastgru.formats import FormatError, from_keras, from_onnx, from_torch, load, load_all

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "Bidirectional",
    "FormatError",
    "InputSpec",
    "MicroBatcher",
    "Stack",
    "Stream",
    "StreamPool",
    "activations",
    "constraints",
    "from_keras",
    "from_onnx",
    "from_torch",
    "get_include",
    "initializers",
    "load",
    "load_all",
    "regularizers",
    "set_random_seed",
    "show_config",
]


# Modules that are imported when one of their names is first asked for: each takes longer than all the rest.
_LATER = {"MicroBatcher": "fastgru._batcher"} | dict.fromkeys(
    ["FormatError", "from_keras", "from_onnx", "from_torch", "load", "load_all"], "fastgru.formats"
)


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
