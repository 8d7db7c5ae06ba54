"""The layer normalization of Keras 2 as tf2onnx writes it: a batch normalization of one image.

shape = Shape(x)
image = Reshape(x, (1, -1, features, 1))
mean, variance = of image along the axes 0, 2 and 3
Reshape(BatchNormalization(image, ones, zeros, mean, variance), shape)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastgru.formats import _onnx_graph
from fastgru.formats._onnx_fold import Folder
from fastgru.formats._onnx_graph import Output
from fastgru.formats._onnx_roles import key_of

ALONG = [0, 2, 3]  # axes of the image
PASSING = ("Cast", "Expand", "Identity", "Squeeze", "Unsqueeze")  # by what numbers stay the same


class Found(NamedTuple):
    """What is normalized along its last axis.

    Attributes
    ----------
    source : Output, Given or onnx.TensorProto
    features : int
        The size that the axis must have.
    epsilon : float
    """

    source: Any
    features: int
    epsilon: float


def find(value: Output, folder: Folder) -> Found | None:
    """What the last Reshape normalizes; None if it is anything else."""
    data, shape = _inputs(value, "Reshape", 2)
    image, scale, shift, mean, variance = _inputs(data, "BatchNormalization", 5)
    source, sizes = _inputs(image, "Reshape", 2)
    features = _features(folder.value(sizes)) if source is not None else None
    (of_shape,) = _inputs(_passed(shape), "Shape", 1)
    if features is None or of_shape is None or key_of(of_shape) != key_of(source):
        return None
    if not (_is_filled(scale, 1, folder) and _is_filled(shift, 0, folder)):
        return None
    given = _attributes(data)
    if not _is_mean(_passed(mean), image) or not _is_variance(variance, image):
        return None
    if "training_mode" in given and given["training_mode"].i:
        return None
    return Found(source, features, float(given["epsilon"].f) if "epsilon" in given else 1e-5)


def _features(sizes: Any) -> int | None:
    """Those of an image, of its shape."""
    if not isinstance(sizes, np.ndarray) or sizes.dtype.kind not in "iu" or sizes.shape != (4,):
        return None
    batch, rows, features, columns = (int(size) for size in sizes)
    return features if (batch, rows, columns) == (1, -1, 1) and features > 0 else None


def _is_filled(value: Any, number: float, folder: Folder) -> bool:
    """True if all numbers of a value are this one."""
    found = folder.value(_passed(value))
    return isinstance(found, np.ndarray) and found.size > 0 and bool((found == number).all())


def _is_mean(value: Any, image: Any) -> bool:
    (of,) = _inputs(value, "ReduceMean", 1)
    return of is not None and key_of(of) == key_of(image) and _axes(value) == ALONG


def _is_variance(value: Any, image: Any) -> bool:
    squares, count = _inputs(value, "Div", 2)
    (difference,) = _inputs(squares, "ReduceSumSquare", 1)
    of, mean = _inputs(difference, "Sub", 2)
    if of is None or key_of(of) != key_of(image) or not _is_mean(mean, image) or _axes(squares) != ALONG:
        return False
    (sizes,) = _inputs(_passed(count), "ReduceProd", 1)
    shape, _ = _inputs(sizes, "Gather", 2)
    (counted,) = _inputs(shape, "Shape", 1)
    return counted is not None and key_of(counted) == key_of(image)


def _axes(value: Output) -> list[int]:
    given = _attributes(value)
    return [*given["axes"].ints] if "axes" in given else []


def _attributes(value: Output) -> dict[str, Any]:
    return {a.name: a for a in _onnx_graph.attributes(value.node, value.inside.attributes)}


def _passed(value: Any) -> Any:
    """What a value is made of by operators that keep its numbers."""
    while (
        isinstance(value, Output)
        and value.node.op_type in PASSING
        and value.node.domain in _onnx_graph.STANDARD
        and value.node.input
    ):
        value = _onnx_graph.find(value.inside.scope, value.node.input[0])
    return value


def _inputs(value: Any, kind: str, count: int) -> Sequence[Any]:
    """What a node of a kind reads; as many times None if the value is no output of one."""
    if not isinstance(value, Output) or value.node.op_type != kind or value.number:
        return [None] * count
    if value.node.domain not in _onnx_graph.STANDARD or len(value.node.input) != count:
        return [None] * count
    return [_onnx_graph.find(value.inside.scope, name) for name in value.node.input]
