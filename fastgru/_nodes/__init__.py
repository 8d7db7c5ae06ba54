"""The nodes of a model: what each reads and writes, its weights, and what computes it in a network."""

from fastgru._nodes._node import Array, Node, Shape, Value
from fastgru._nodes.dense import Convolution, Dense, Depthwise, Embedding, WindowPool
from fastgru._nodes.elementwise import (
    Activation,
    Clip,
    Concatenate,
    Inverse,
    LayerNormalization,
    Masking,
    Merge,
    PReLU,
    Scale,
    Slice,
    UnitNormalization,
    is_compiled,
)
from fastgru._nodes.recurrent import Recurrent
from fastgru._nodes.shapes import Identity, Last, Pad, Pool, Repeat, Reshape, Transpose

KINDS: dict[str, type[Node]] = {
    kind.__name__: kind
    for kind in (
        *(Activation, Clip, Concatenate, Convolution, Dense, Depthwise, Embedding, Identity, Inverse, Last),
        *(LayerNormalization, Masking, Merge, PReLU, Pad, Pool, Recurrent, Repeat, Reshape, Scale, Slice),
        *(Transpose, UnitNormalization, WindowPool),
    )
}

__all__ = [
    "KINDS",
    "Activation",
    "Array",
    "Clip",
    "Concatenate",
    "Convolution",
    "Dense",
    "Depthwise",
    "Embedding",
    "Identity",
    "Inverse",
    "Last",
    "LayerNormalization",
    "Masking",
    "Merge",
    "Node",
    "PReLU",
    "Pad",
    "Pool",
    "Recurrent",
    "Repeat",
    "Reshape",
    "Scale",
    "Shape",
    "Slice",
    "Transpose",
    "UnitNormalization",
    "Value",
    "WindowPool",
    "is_compiled",
]
