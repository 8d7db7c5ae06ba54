"""fastgru: the GRU layer of Keras, exact in every argument, fast on CPUs."""

from fastgru import activations, constraints, initializers, regularizers
from fastgru._config import show_config
from fastgru._include import get_include
from fastgru._random import set_random_seed
from fastgru._validate import InputSpec
from fastgru.gru import GRU
from fastgru.wrappers import Bidirectional

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "Bidirectional",
    "InputSpec",
    "activations",
    "constraints",
    "get_include",
    "initializers",
    "regularizers",
    "set_random_seed",
    "show_config",
]
