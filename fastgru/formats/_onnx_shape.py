"""Shapes of values that only a call has: by what the file says of them, or of what they are computed from.

The batch of such a value follows from the shape of another value, mostly X: through the layers below it, and
transpositions.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastgru.formats import _onnx_graph
from fastgru.formats._onnx_graph import Given, Output

STEPS = 64  # nodes that are followed back, at most
RECURRENT = ("GRU", "LSTM", "RNN")
# Whose first output has the shape of the first input
LIKE = frozenset(
    (
        *("BatchNormalization", "Cast", "Clip", "Dropout", "Elu", "Gelu", "Identity", "LayerNormalization"),
        *("LeakyRelu", "Neg", "Not", "PRelu", "Relu", "Selu", "Sigmoid", "Softmax", "Sqrt", "Tanh", "Abs"),
        "Exp",
    )
)
BROADCAST = frozenset(("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub"))
REDUCING = frozenset(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"))

Shape = list[int]
Step = Callable[[Shape], Shape | None]


def of(
    value: Any, size_of: Callable[[Any], int], constant: Callable[[Any], Any], left: list[int] | None = None
) -> Shape | None:
    """The shape of a value; None if it is unknown.

    Parameters
    ----------
    value : Output, Given, Alias or None
    size_of : callable
        The size of an axis that the file leaves open, by its name, or by the pair of an input's name and the
        axis' number.
    constant : callable
        An array, if the value is a constant.
    left : list of int, optional
        How many more nodes may be followed back.
    """
    left = [STEPS] if left is None else left
    steps: list[Step] = []
    while left[0] > 0:
        left[0] -= 1
        if isinstance(value, _onnx_graph.Alias):
            value = _onnx_graph.find(value.scope, value.name)
        declared = _declared(value)
        if declared is not None and declared.type.tensor_type.HasField("shape"):
            shape: Shape | None = [
                axis.dim_value if axis.dim_value > 0 else size_of(axis.dim_param or (declared.name, number))
                for number, axis in enumerate(declared.type.tensor_type.shape.dim)
            ]
            for step in reversed(steps):
                try:
                    shape = None if shape is None else step(shape)
                except (ValueError, IndexError):  # of axes that are not there
                    return None
            return shape
        if not isinstance(value, Output) or value.node.domain not in _onnx_graph.STANDARD:
            return None
        found = _back(value, constant, lambda other: of(other, size_of, constant, left))
        if found is None:
            return None
        value, step = found
        steps.append(step)
    return None


def _declared(value: Any) -> Any:
    """The onnx.ValueInfoProto of a value, or None."""
    if isinstance(value, Given):
        return value.value
    if isinstance(value, Output):
        return value.inside.type_of(value.node.output[value.number])
    return None


def _back(
    value: Output, constant: Callable[[Any], Any], shape_of: Callable[[Any], Shape | None]
) -> tuple[Any, Step] | None:
    """What a value is computed from, and how the shape of that becomes its own."""
    node, scope = value.node, value.inside.scope
    sources = [scope.get(name) if name else None for name in node.input]
    if not sources:
        return None
    given = {a.name: a for a in _onnx_graph.attributes(node, value.inside.attributes)}
    kind = node.op_type
    if kind in RECURRENT:
        return sources[0], _recurrent(value.number, given)
    if value.number:
        return None
    if kind in LIKE:
        return sources[0], lambda shape: shape
    if kind == "Transpose":
        perm = list(given["perm"].ints) if "perm" in given else None
        return sources[0], lambda shape: _turned(shape, perm)
    second = constant(sources[1]) if len(sources) > 1 else None
    if kind in BROADCAST:
        if isinstance(second, np.ndarray):
            return sources[0], lambda shape: shape if second.ndim <= len(shape) else None
        if second is None:
            return None
        if isinstance(constant(sources[0]), np.ndarray):
            return sources[1], lambda shape: shape
        return sources[0], lambda shape: _broadcast(shape, shape_of(sources[1]))
    if kind in REDUCING:
        gone = (list(given["axes"].ints) if "axes" in given else _integers(second)) or []
        keeps = given["keepdims"].i if "keepdims" in given else 1
        return (sources[0], lambda shape: _reduced(shape, gone, keeps)) if gone else None
    if kind == "Gather" and not ("axis" in given and given["axis"].i):
        rows = constant(sources[0])
        return (sources[1], lambda shape: [*shape, *rows.shape[1:]]) if isinstance(rows, np.ndarray) else None
    if kind in ("Squeeze", "Unsqueeze"):
        axes = list(given["axes"].ints) if "axes" in given else _integers(second)
        if axes is None:
            return None
        return sources[0], (lambda shape: _without(shape, axes)) if kind == "Squeeze" else (
            lambda shape: _with(shape, axes)
        )
    if (
        kind == "Reshape"
        and _integers(second) is not None
        and not ("allowzero" in given and given["allowzero"].i)
    ):
        return sources[0], lambda shape: _reshaped(shape, _integers(second) or [])
    if kind == "MatMul" and isinstance(second, np.ndarray) and second.ndim == 2:
        return sources[0], lambda shape: [*shape[:-1], second.shape[1]]
    return None


def _integers(array: Any) -> list[int] | None:
    if not isinstance(array, np.ndarray) or array.dtype.kind != "i" or array.ndim > 1 or array.size > STEPS:
        return None
    return [int(number) for number in array.ravel()]


def _recurrent(number: int, given: dict[str, Any]) -> Step:
    """From X to Y, or to the last states."""
    directions = 2 if "direction" in given and given["direction"].s == b"bidirectional" else 1
    units = given["hidden_size"].i if "hidden_size" in given else 0
    layout = given["layout"].i if "layout" in given else 0

    def step(shape: Shape) -> Shape | None:
        if len(shape) != 3 or not units:
            return None
        first, second, _ = shape
        if layout:
            return [first, second, directions, units] if number == 0 else [first, directions, units]
        return [first, directions, second, units] if number == 0 else [directions, second, units]

    return step


def _turned(shape: Shape, perm: Sequence[int] | None) -> Shape | None:
    perm = list(reversed(range(len(shape)))) if perm is None else perm
    return [shape[axis] for axis in perm] if sorted(perm) == list(range(len(shape))) else None


def _without(shape: Shape, axes: Sequence[int]) -> Shape:
    """A shape without axes of the length 1."""
    gone = {range(len(shape))[axis] for axis in axes}
    return [size for axis, size in enumerate(shape) if axis not in gone]


def _reduced(shape: Shape, axes: Sequence[int], keeps: int) -> Shape:
    """A shape with axes of the length 1, or without them."""
    if not keeps:
        return _without(shape, axes)
    gone = {range(len(shape))[axis] for axis in axes}
    return [1 if axis in gone else size for axis, size in enumerate(shape)]


def _broadcast(shape: Shape, other: Shape | None) -> Shape | None:
    """The shape of what two shapes are broadcast to."""
    return None if other is None else list(np.broadcast_shapes(shape, other))


def _with(shape: Shape, axes: Sequence[int]) -> Shape:
    """A shape with new axes of the length 1."""
    rank = len(shape) + len(axes)
    new = {range(rank)[axis] for axis in axes}
    sizes = iter(shape)
    return [1 if axis in new else next(sizes) for axis in range(rank)]


def _reshaped(shape: Shape, wanted: Sequence[int]) -> Shape | None:
    """A shape as Reshape makes it: 0 is the size that was there, and -1 what is left."""
    sizes = [shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    known = math.prod(size for size in sizes if size >= 0)
    whole = math.prod(shape)
    if sizes.count(-1) != 1:
        return sizes if known == whole else None
    return (
        [whole // known if size == -1 else size for size in sizes] if known and whole % known == 0 else None
    )
