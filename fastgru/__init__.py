"""fastgru: the GRU layer of Keras, exact in every argument, fast on CPUs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgru import activations, constraints, initializers, regularizers
    from fastgru._batcher import MicroBatcher
    from fastgru._config import show_config
    from fastgru._include import get_include, get_sources
    from fastgru._quantize import quantize
    from fastgru._random import set_random_seed
    from fastgru._validate import InputSpec
    from fastgru.formats import FormatError, from_keras, from_onnx, from_torch, load, load_all
    from fastgru.formats.models import from_keras_model, from_onnx_model, load_model
    from fastgru.gru import GRU
    from fastgru.model import Model
    from fastgru.scorer import Scorer
    from fastgru.stack import Stack
    from fastgru.streaming import Stream, StreamPool
    from fastgru.wrappers import Bidirectional

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "Bidirectional",
    "FormatError",
    "InputSpec",
    "MicroBatcher",
    "Model",
    "Scorer",
    "Stack",
    "Stream",
    "StreamPool",
    "activations",
    "constraints",
    "from_keras",
    "from_keras_model",
    "from_onnx",
    "from_onnx_model",
    "from_torch",
    "get_include",
    "get_num_threads",
    "get_sources",
    "initializers",
    "load",
    "load_all",
    "load_model",
    "quantize",
    "regularizers",
    "set_num_threads",
    "set_random_seed",
    "show_config",
]

# The module of each name. A module is imported when one of its names is first used, so that `fastgru --help`
# does not wait for NumPy, nor a layer for the readers of files.
_HOMES = {
    "GRU": "gru",
    "Bidirectional": "wrappers",
    "InputSpec": "_validate",
    "MicroBatcher": "_batcher",
    "Model": "model",
    "Scorer": "scorer",
    "Stack": "stack",
    "Stream": "streaming",
    "StreamPool": "streaming",
    "get_include": "_include",
    "get_sources": "_include",
    "quantize": "_quantize",
    "set_random_seed": "_random",
    "from_keras_model": "formats.models",
    "from_onnx_model": "formats.models",
    "load_model": "formats.models",
    "show_config": "_config",
    "get_num_threads": "_threads",
    "set_num_threads": "_threads",
} | dict.fromkeys(["FormatError", "from_keras", "from_onnx", "from_torch", "load", "load_all"], "formats")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_HOMES.get(name, name)}")
    except ImportError as error:
        from fastgru import _interpreter

        if _interpreter.is_another():
            raise ImportError(_interpreter.ONE) from error
        raise
    found = globals()[name] = getattr(module, name) if name in _HOMES else module
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
