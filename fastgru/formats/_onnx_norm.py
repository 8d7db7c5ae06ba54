"""Layer normalizations that exporters write as single operators: what they normalize, and their epsilon."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastgru.formats import _onnx_graph
from fastgru.formats._onnx_graph import Output
from fastgru.formats._onnx_roles import key_of


class Normalized(NamedTuple):
    """(x - mean) / sqrt(variance + epsilon) along an axis.

    Attributes
    ----------
    source : Output, Given or onnx.TensorProto
        x.
    axis : int
    epsilon : float
    """

    source: Any
    axis: int
    epsilon: float


def find(value: Any, constant: Callable[[Any], Any]) -> Normalized | None:
    """What a Div divides by the root of a variance; None if it is anything else.

    That is Div(d, Sqrt(Add(ReduceMean(Pow(d, 2)), epsilon))) with d = Sub(x, ReduceMean(x)).

    Parameters
    ----------
    value : Output
    constant : callable
        The array of a value, if it is a constant.
    """
    difference, root = _inputs(value, "Div", 2)
    (total,) = _inputs(root, "Sqrt", 1)
    variance, added = _inputs(total, "Add", 2)
    epsilon = _number(constant(added)) if added is not None else None
    square, axis = _mean(variance, constant)
    base, exponent = _inputs(square, "Pow", 2)
    if base is None:
        base, exponent = _inputs(square, "Mul", 2)
        is_square = base is not None and key_of(base) == key_of(exponent)
    else:
        is_square = _number(constant(exponent)) == 2
    source, mean = _inputs(difference, "Sub", 2)
    of, other = _mean(mean, constant)
    if not is_square or epsilon is None or not 0 <= epsilon < 1 or axis is None or axis != other:
        return None
    if key_of(base) != key_of(difference) or key_of(of) != key_of(source):
        return None
    return Normalized(source, axis, epsilon)


def _inputs(value: Any, kind: str, count: int) -> list[Any]:
    """What a node of a kind reads; as many times None if the value is no output of one."""
    if not isinstance(value, Output) or value.node.op_type != kind or value.number:
        return [None] * count
    if value.node.domain not in _onnx_graph.STANDARD or len(value.node.input) != count:
        return [None] * count
    return [_onnx_graph.find(value.inside.scope, name) for name in value.node.input]


def _mean(value: Any, constant: Callable[[Any], Any]) -> tuple[Any, int | None]:
    """What a ReduceMean reads, and its axis, which stays."""
    if not isinstance(value, Output) or value.node.op_type != "ReduceMean" or not value.node.input:
        return None, None
    given = {a.name: a for a in _onnx_graph.attributes(value.node, value.inside.attributes)}
    sources = [_onnx_graph.find(value.inside.scope, name) for name in value.node.input]
    axes: Any = (
        [*given["axes"].ints] if "axes" in given else constant(sources[1]) if len(sources) > 1 else None
    )
    if isinstance(axes, np.ndarray):
        axes = [int(axis) for axis in axes.ravel()[:2]]
    if axes is None or len(axes) != 1 or ("keepdims" in given and not given["keepdims"].i):
        return None, None
    return sources[0], axes[0]


def _number(array: Any) -> float | None:
    if not isinstance(array, np.ndarray) or array.size != 1 or array.dtype.kind not in "fi":
        return None
    return float(array.ravel()[0])
