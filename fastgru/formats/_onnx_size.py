"""Operators that are computed when a file is read, and bounds on the size of their results.

They are deterministic, made of numbers alone, and take time in proportion to their inputs and results.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError
from fastgru.formats._model import AXES

Array = NDArray[Any]
Inputs = Sequence[Array | None]
Given = Mapping[str, Any]  # attributes by name
Numbers = Callable[[Inputs, Given], int]  # that a result has, at most

WORK = 1 << 32  # multiplications in all matrix products of a file
SLOWER = 16  # a multiplication outside BLAS, of integers or float16, counts as this many
WIDEST = 8  # bytes of a number


def of(kind: str, inputs: Inputs, given: Given) -> tuple[int, int]:
    """Bytes that the results of an operator take, and the multiplications that it makes.

    Raises
    ------
    FormatError
        If the inputs are not those of the operator.
    """
    first = inputs[0] if inputs else None
    if first is None:
        raise FormatError(f"{kind} must have an input")
    numbers, itemsize = OPERATORS[kind](inputs, given), _itemsize(kind, inputs, given)
    work = 0
    if kind in ("MatMul", "Gemm"):
        inner = max(first.shape, default=1) if kind == "Gemm" else first.shape[-1] if first.ndim else 1
        work = numbers * inner * (1 if first.dtype in (np.float32, np.float64) else SLOWER)
    return numbers * itemsize, work


def owned(results: Sequence[Array], inputs: Inputs) -> int:
    """Bytes of results that share no memory with an input."""
    arrays = [array for array in inputs if array is not None]
    return sum(
        result.nbytes for result in results if not any(np.may_share_memory(result, array) for array in arrays)
    )


def _itemsize(kind: str, inputs: Inputs, given: Given) -> int:
    """Bytes of a number of the result, at most."""
    if kind in ("Cast", "ConstantOfShape", "Range", "NonZero", "DequantizeLinear"):
        return WIDEST
    return max(array.dtype.itemsize for array in inputs if array is not None)


def _shape(what: str, array: Array | None) -> list[int]:
    """A shape that is a value of the graph."""
    if array is None or array.ndim != 1 or array.dtype.kind not in "iu" or len(array) > AXES:
        raise FormatError(f"{what} must be a list of at most {AXES} integers")
    return [int(size) for size in array]


def _count(shape: Sequence[int]) -> int:
    """How many numbers an array has; 1 of axes of the size 0, for such shapes may be huge, too."""
    if any(size < 0 for size in shape):
        raise FormatError(f"a shape must have no negative size, got {list(shape)!s:.80}")
    return math.prod(max(size, 1) for size in shape)


def _none(inputs: Inputs, given: Given) -> int:
    """Of a view of the input."""
    return 0


def _same(inputs: Inputs, given: Given) -> int:
    """Of the first input."""
    assert inputs[0] is not None
    return inputs[0].size


def _reshaped(inputs: Inputs, given: Given) -> int:
    """Of the input, which is copied if it is not contiguous."""
    assert inputs[0] is not None
    return 0 if inputs[0].flags.c_contiguous else inputs[0].size


def _all(inputs: Inputs, given: Given) -> int:
    """Of all inputs together."""
    return sum(array.size for array in inputs if array is not None)


def _broadcast(inputs: Inputs, given: Given) -> int:
    """Of inputs that are broadcast to each other."""
    return _count(_broadcast_shape([array.shape for array in inputs if array is not None]))


def _broadcast_shape(shapes: Sequence[Sequence[int]]) -> list[int]:
    """The largest of the sizes of each axis, from the last one on."""
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return [max(sizes) for sizes in zip(*padded, strict=True)]


def _expanded(inputs: Inputs, given: Given) -> int:
    """Of Expand, which multiplies by ones of the shape, and so makes them, too."""
    assert inputs[0] is not None
    wanted = _shape("the shape of Expand", inputs[1] if len(inputs) > 1 else None)
    return 2 * _count(_broadcast_shape([inputs[0].shape, wanted]))


def _tiled(inputs: Inputs, given: Given) -> int:
    assert inputs[0] is not None
    repeats = _shape("the repeats of Tile", inputs[1] if len(inputs) > 1 else None)
    if len(repeats) != inputs[0].ndim:
        raise FormatError(f"Tile must have {inputs[0].ndim} repeats, got {len(repeats)}")
    return 2 * _count([size * times for size, times in zip(inputs[0].shape, repeats, strict=True)])


def _filled(inputs: Inputs, given: Given) -> int:
    return _count(_shape("the shape of ConstantOfShape", inputs[0]))


def _range(inputs: Inputs, given: Given) -> int:
    if len(inputs) != 3 or any(array is None or array.size != 1 for array in inputs):
        raise FormatError("Range must have three numbers")
    start, limit, delta = (float(array.ravel()[0]) for array in inputs if array is not None)
    count = (limit - start) / delta if delta else math.nan
    if not math.isfinite(count):
        raise FormatError("Range must have finite numbers, and a step other than 0")
    return 2 * max(0, math.ceil(count))


def _gathered(inputs: Inputs, given: Given) -> int:
    data, indices = inputs[0], inputs[1] if len(inputs) > 1 else None
    if data is None or indices is None:
        raise FormatError("Gather must have indices")
    axis = int(given["axis"].i) if "axis" in given else 0
    if not -data.ndim <= axis < data.ndim:
        raise FormatError(f"Gather must have an axis of {data.ndim}, got {axis}")
    copied = 0 if data.flags.c_contiguous else data.size
    row: int = _count(data.shape) // max(1, data.shape[axis])
    return copied + indices.size * row


def _padded(inputs: Inputs, given: Given) -> int:
    assert inputs[0] is not None
    mode = given["mode"].s if "mode" in given else b"constant"
    pads = [*given["pads"].ints] if "pads" in given else _pads(inputs)
    if mode != b"constant" or any(pad < 0 for pad in pads):
        raise FormatError(f"Pad must add constants, got the mode {mode!r:.40} and {pads!s:.80}")
    axes: list[int] = list(range(inputs[0].ndim))
    if len(inputs) > 3 and inputs[3] is not None:
        axes = [int(axis) for axis in inputs[3].ravel()]
    shape = list(inputs[0].shape)
    if len(pads) != 2 * len(axes) or any(not -len(shape) <= axis < len(shape) for axis in axes):
        raise FormatError(f"Pad must have two numbers for each of {len(axes)} axes, got {pads!s:.80}")
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        shape[axis] += before + after
    return 2 * _count(shape)


def _pads(inputs: Inputs) -> list[int]:
    array = inputs[1] if len(inputs) > 1 else None
    if array is None or array.ndim != 1 or array.dtype.kind not in "iu" or len(array) > 2 * AXES:
        raise FormatError(f"the pads of Pad must be a list of at most {2 * AXES} integers")
    return [int(pad) for pad in array]


def _product(inputs: Inputs, given: Given) -> int:
    """Of MatMul."""
    a, b = inputs[0], inputs[1] if len(inputs) > 1 else None
    if a is None or b is None or not a.ndim or not b.ndim:
        raise FormatError("MatMul must have two arrays")
    rows, columns = a.shape[-2:-1], b.shape[-1:] if b.ndim > 1 else ()
    return _count([*_broadcast_shape([a.shape[:-2], b.shape[:-2]]), *rows, *columns])


def _gemm(inputs: Inputs, given: Given) -> int:
    """Of Gemm, which may transpose both matrices, multiply and add."""
    a, b = inputs[0], inputs[1] if len(inputs) > 1 else None
    if a is None or b is None or a.ndim != 2 or b.ndim != 2:
        raise FormatError("Gemm must have two matrices")
    turned = [bool(given[key].i) if key in given else False for key in ("transA", "transB")]
    return 2 * _count([a.shape[turned[0]], b.shape[not turned[1]]])


def _indices(inputs: Inputs, given: Given) -> int:
    """Of the places of numbers."""
    assert inputs[0] is not None
    return max(1, inputs[0].ndim) * inputs[0].size


OPERATORS: dict[str, Numbers] = {
    **dict.fromkeys(("Dropout", "Identity", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"), _none),
    **dict.fromkeys(("Flatten", "Reshape"), _reshaped),
    **dict.fromkeys(
        # of one array, number by number
        [
            *(
                "Abs",
                "BitwiseNot",
                "Cast",
                "Ceil",
                "Clip",
                "Cos",
                "Elu",
                "Erf",
                "Exp",
                "Floor",
                "HardSigmoid",
            ),
            *("IsInf", "IsNaN", "LeakyRelu", "Log", "Neg", "Not", "Reciprocal", "Relu", "Round"),
            *("Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh"),
            *("DequantizeLinear", "QuantizeLinear", "CumSum"),
            *("ScatterElements", "ScatterND", "Shape", "Size", "Trilu"),
            *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
            *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
        ],
        _same,
    ),
    **dict.fromkeys(
        [
            *("Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater"),
            *("GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu"),
            *("Pow", "Sub", "Sum", "Where", "Xor"),
        ],
        _broadcast,
    ),
    "CastLike": _same,
    "Concat": _all,
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "Gather": _gathered,
    "Gemm": _gemm,
    "MatMul": _product,
    "NonZero": _indices,
    "Pad": _padded,
    "Range": _range,
    "Tile": _tiled,
}
