"""fastgru: the GRU layer of Keras, exact in every argument, fast on CPUs."""

from typing import TYPE_CHECKING, Any

from fastgru import activations, constraints, initializers, regularizers
from fastgru._config import show_config
from fastgru._include import get_include
from fastgru._random import set_random_seed
from fastgru._validate import InputSpec
from fastgru.gru import GRU
from fastgru.streaming import Stream, StreamPool
from fastgru.wrappers import Bidirectional

if TYPE_CHECKING:
    from fastgru.formats import FormatError, from_keras, from_onnx, from_torch, load, load_all

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "Bidirectional",
    "FormatError",
    "InputSpec",
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


def __getattr__(name: str) -> Any:
    """Names of fastgru.formats, imported when one is first asked for: it takes as long as all the rest."""
    if name in __all__:
        from fastgru import formats

        return getattr(formats, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
