"""Operators of ONNX as nodes of a network: those that work number by number, or multiply."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import activations
from fastgru._nodes import (
    Activation,
    Clip,
    Concatenate,
    Dense,
    Embedding,
    LayerNormalization,
    Merge,
    PReLU,
    Scale,
    Slice,
)
from fastgru.formats import _onnx_activation
from fastgru.formats._onnx_build import Operator
from fastgru.formats._onnx_layouts import Axis, OperatorError, Tracked, along_features, axis_of, said

Array = NDArray[Any]
Rule = Callable[[Operator], Sequence[Tracked]]

FLOATS = (1, 10, 11, 16)  # TensorProto.DataType: float32, float16, float64, bfloat16
INTEGERS = (6, 7)  # int32, int64
SOFTMAX_OF_ONE_AXIS = 13  # the opset since which it works along one axis
MERGES = {"Add": "sum", "Sum": "sum", "Mul": "mul", "Sub": "sub", "Max": "max", "Min": "min", "Mean": "ave"}

# ---- number by number ------------------------------------------------------------------------


def same(of: Operator) -> list[Tracked]:
    """Nothing, as in inference."""
    if of.kind == "Dropout" and (len(of.node.output) > 1 and of.node.output[1]):
        raise OperatorError("its mask is used, which is for training")
    if of.kind == "Dropout" and of.has(2) and of.constant(2, "training_mode").any():
        raise OperatorError("it is in training mode")
    (x,) = of.values
    return [x]


def cast(of: Operator) -> list[Tracked]:
    """Between float types, or between integer types. Numbers stay as they are: a model has one float type."""
    (x,) = of.values
    to = of.integer("to", 1)
    if to not in (INTEGERS if x.indices else FLOATS):
        raise OperatorError(f"it casts {'integers' if x.indices else 'floats'} to the data type {to}")
    return [x]


def activation(of: Operator) -> list[Tracked]:
    """With any parameters that fastgru's activation has."""
    x = of.value()
    function = _onnx_activation.of_operator(of.kind, of.given)
    if function is None:
        raise OperatorError("fastgru has no such activation with these attributes")
    return [of.like(Activation, x, activation=function)]


def negative(of: Operator) -> list[Tracked]:
    """Of any value."""
    return [_scaled(of, of.value(), np.full(1, -1.0), np.zeros(1))]


def prelu(of: Operator) -> list[Tracked]:
    """With constant slopes, one for each feature."""
    x = of.value()
    slope, added = along_features(of.floats(1, "its slope"), x, "its slope")
    if added:
        raise OperatorError("its slope has more axes than its input")
    alpha = of.floats_of(np.broadcast_to(slope, x.features))
    return [of.like(PReLU, x, alpha=alpha)]


def clip(of: Operator) -> list[Tracked]:
    """With constant bounds."""
    x = of.value()
    bounds = []
    for number, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        bound = of.number(name, default) if name in of.given else default
        if of.has(number):
            array = of.constant(number, name)
            if array.size != 1 or array.dtype.kind != "f":
                raise OperatorError(f"{name} must be one float, got {array.dtype} {array.shape}")
            bound = float(array.ravel()[0])
        bounds.append(bound)
    least, most = bounds
    if not least <= most or np.inf in (least, -most):
        raise OperatorError(f"its bounds must be numbers in their order, got {least} and {most}")
    return [of.like(Clip, x, least=least, most=most)]


def softmax(of: Operator) -> list[Tracked]:
    """Along the features."""
    x = of.value()
    is_new = of.inside.opset >= SOFTMAX_OF_ONE_AXIS
    rank = len(x.axes)
    axis = axis_of(of.integer("axis", -1 if is_new else 1), rank)
    if not is_new and any(each != 1 for each in x.axes[axis + 1 :]):
        raise OperatorError(
            f"it works along axis {axis} and all after it together, as before opset {SOFTMAX_OF_ONE_AXIS}"
        )
    x = of.along(x, axis)
    function = activations.softmax if of.kind == "Softmax" else activations.log_softmax
    return [of.like(Activation, x, activation=function)]


# ---- with constants, and of several values ---------------------------------------------------


def _scaled(of: Operator, x: Tracked, factor: Array, shift: Array, added: int = 0) -> Tracked:
    """x * factor + shift, of (features,) or (1,); one number of a step becomes as many as are factors."""
    axes: tuple[Axis, ...] = (1,) * added + x.axes
    width = max(x.features, factor.size, shift.size)
    factor, shift = (of.floats_of(np.broadcast_to(each, width)) for each in (factor, shift))
    if width == x.features:
        return of.add(Scale, [x], axes, x.width, x.steps, factor=factor, shift=shift)
    if "f" not in axes:
        raise OperatorError("its constant has features, and its other input has no axis of them")
    return of.add(Dense, [x], axes, width, x.steps, kernel=factor[np.newaxis], bias=shift)


def arithmetic(of: Operator) -> list[Tracked]:
    """Of values that are broadcast to each other, or of a value and a constant, which is one number or one
    for each feature. Div only by a constant.
    """
    first = of.inputs[0]
    if of.kind in ("Max", "Min", "Sum", "Mean") and len(of.inputs) == 1:
        return same(of)
    if all(isinstance(each, Tracked) for each in of.inputs):
        return [merged(of, [of.value(number) for number in range(len(of.inputs))])]
    if len(of.inputs) != 2:
        raise OperatorError(f"it must read a value and one constant, or values alone, got {len(of.inputs)}")
    is_first = isinstance(first, Tracked)  # x before the constant
    x = of.value(0 if is_first else 1)
    constant, added = along_features(of.floats(1 if is_first else 0, "its constant"), x)
    numbers = constant.astype(np.float64)
    one, zero = np.ones(1), np.zeros(1)
    match of.kind:
        case "Add" | "Sum":
            return [_scaled(of, x, one, numbers, added)]
        case "Sub":
            return [_scaled(of, x, one if is_first else -one, -numbers if is_first else numbers, added)]
        case "Mul":
            return [_scaled(of, x, numbers, zero, added)]
        case "Div" if is_first and numbers.all():
            return [_scaled(of, x, 1 / numbers, zero, added)]
        case "Max" | "Min" if numbers.size == 1 and not added:
            bounds = {"least": -np.inf, "most": np.inf}
            bounds["least" if of.kind == "Max" else "most"] = float(numbers[0])
            return [of.like(Clip, x, **bounds)]
    raise OperatorError(
        "with a constant it must add, subtract, multiply, divide by numbers other than 0, or take the "
        "maximum or minimum with one number"
    )


def merged(of: Operator, values: Sequence[Tracked]) -> Tracked:
    """Values number by number, broadcast to each other."""
    if of.kind not in MERGES:
        raise OperatorError(
            "one of its inputs must be a constant, got values that are all computed from inputs of the model"
        )
    longest = max(values, key=lambda x: len(x.axes))
    axes = [*longest.axes]
    for x in values:
        for place in range(1, len(x.axes) + 1):
            one, other = axes[-place], x.axes[-place]
            if one == 1:
                axes[-place] = other
            elif other not in (1, one):
                raise OperatorError(f"its inputs have {said(one)} and {said(other)} as the same axis")
    width = max(x.features for x in values)
    whole = next(x for x in values if x.features == width)
    if any(x.features not in (1, width) for x in values):
        features = ", ".join(str(x.features) for x in values)
        raise OperatorError(f"its inputs must have the same features, or one each, got {features}")
    for x in values:  # what lacks the batch or the time must lack it in the file, too
        if "t" in axes and x.steps is None and "t" in x.axes:
            raise OperatorError("its inputs have different timesteps")
    widened = [x if x.features == width else _scaled(of, x, np.ones(width), np.zeros(1)) for x in values]
    steps = next((x.steps for x in values if x.steps is not None), None)
    return of.add(Merge, widened, axes, whole.width, steps, mode=MERGES[of.kind])


def concatenate(of: Operator) -> list[Tracked]:
    """Along the features; no input may be a constant."""
    if not all(isinstance(each, Tracked) for each in of.inputs):
        raise OperatorError("one of its inputs is a constant")
    values = [of.value(number) for number in range(len(of.inputs))]
    first = values[0]
    rank = len(first.axes)
    axis = axis_of(of.integer("axis", 0), rank)
    if len(values) == 1:
        return [first]
    if any(x.axes[axis : axis + 1] == ("f",) for x in values):
        values = [x.featured(axis) if len(x.axes) == rank else x for x in values]
        first = values[0]
    at = first.axes[axis]
    if any(len(x.axes) != rank for x in values) or (isinstance(at, str) and at != "f"):
        raise OperatorError(f"it must join features, got {said(at)}")
    rests = {x.axes[:axis] + x.axes[axis + 1 :] for x in values}
    if len(rests) > 1 or (at != "f" and len({x.width for x in values}) > 1):
        raise OperatorError("its inputs have different axes")
    axes: list[Axis] = [*first.axes]
    if at == "f":
        if first.groups > 1:
            raise OperatorError("it joins features that are in groups")
        width = sum(x.width for x in values)
    else:
        if first.groups > 1 and at == 1:
            raise OperatorError("it joins groups of groups")
        width = first.width
        axes[axis] = sum(int(x.axes[axis]) for x in values)
    return [of.add(Concatenate, values, axes, width, first.steps)]


# ---- parts -----------------------------------------------------------------------------------


def part(of: Operator, x: Tracked, axis: int, start: int, stop: int) -> Tracked:
    """Some neighbours along an axis of features or groups."""
    at = x.axes[axis]
    axes = [*x.axes]
    if at == "f":
        if x.groups > 1:
            raise OperatorError("it takes some features of each group")
        width = stop - start
        if width == x.width:
            return x
        return of.add(Slice, [x], axes, width, x.steps, start=start, stop=stop)
    if not isinstance(at, int):
        raise OperatorError(f"it takes a part of {said(at)}")
    if stop - start == at:
        return x
    if x.groups != at:
        raise OperatorError("it takes a part of groups of groups")
    axes[axis] = stop - start
    return of.add(Slice, [x], axes, x.width, x.steps, start=start * x.width, stop=stop * x.width)


def split(of: Operator) -> list[Tracked]:
    """Along the features."""
    x = of.value()
    axis = axis_of(of.integer("axis", 0), len(x.axes))
    at = x.axes[axis]
    if at != "f" and not isinstance(at, int):
        raise OperatorError(f"it must split features, got {said(at)}")
    size = x.width if at == "f" else int(at)
    sizes = of.numbers("split") or (of.integers(1, "its split") if of.has(1) else None)
    if sizes is None:
        count = len(of.node.output)
        each = -(-size // count)
        sizes = [each] * (size // each) + ([size % each] if size % each else [])
    if sum(sizes) != size or any(each < 1 for each in sizes) or len(sizes) != len(of.node.output):
        raise OperatorError(f"it must split {size} into {len(of.node.output)}, got {sizes!s:.80}")
    found, start = [], 0
    for each in sizes:
        found.append(part(of, x, axis, start, start + each))
        start += each
    return found


# ---- products --------------------------------------------------------------------------------


def product(of: Operator) -> list[Tracked]:
    """Of a value and a constant matrix."""
    x = of.value(0)
    matrix = of.floats(1, "its second input")
    if matrix.ndim < 2 or any(size != 1 for size in matrix.shape[:-2]):
        raise OperatorError(f"it multiplies by a constant of the shape {matrix.shape}, which is no matrix")
    return [_multiplied(of, x, matrix.reshape(matrix.shape[-2:]), None)]


def _multiplied(of: Operator, x: Tracked, matrix: Array, bias: Array | None) -> Tracked:
    x = of.along(x, len(x.axes) - 1)
    if matrix.shape[0] != x.width:
        raise OperatorError(f"it multiplies {x.width} features by a matrix {matrix.shape}")
    return of.add(
        Dense,
        [x],
        x.axes,
        matrix.shape[1],
        x.steps,
        kernel=of.floats_of(matrix),
        bias=None if bias is None else of.floats_of(bias),
    )


def gemm(of: Operator) -> list[Tracked]:
    """Of (batch, features) and constant B and C, without transA."""
    x = of.value(0)
    matrix = of.floats(1, "B")
    if of.integer("transA", 0) or len(x.axes) != 2 or matrix.ndim != 2:
        raise OperatorError("it must multiply (batch, features), not transposed, by a matrix")
    matrix = (matrix.T if of.integer("transB", 0) else matrix) * of.number("alpha", 1.0)
    if not of.has(2):
        return [_multiplied(of, x, matrix, None)]
    units = matrix.shape[1]
    if isinstance(of.inputs[2], Tracked):
        raise OperatorError("C must be a constant of the file")
    added = of.floats(2, "C") * of.number("beta", 1.0)
    if added.ndim > 2 or added.shape[-1:] not in ((units,), (1,), ()) or added.size not in (1, units):
        raise OperatorError(f"C must be ({units},), got {added.shape}")
    return [_multiplied(of, x, matrix, np.broadcast_to(added.ravel(), units))]


def gather(of: Operator) -> list[Tracked]:
    """An embedding. `take` of `_onnx_shapes` is for values."""
    table, x = of.floats(0, "its table"), of.inputs[1]
    if not isinstance(x, Tracked) or not x.indices or table.ndim != 2 or axis_of(of.integer("axis", 0), 2):
        raise OperatorError("it must take rows of a constant matrix, by integers of an input of the model")
    axes = (*x.axes, "f")
    return [of.add(Embedding, [x], axes, table.shape[1], x.steps, table=of.floats_of(table), from_end=True)]


# ---- normalizations --------------------------------------------------------------------------


def batch_normalization(of: Operator) -> list[Tracked]:
    """Of the features, with constants."""
    x = of.value()
    if of.integer("training_mode", 0) or len([name for name in of.node.output if name]) > 1:
        raise OperatorError("it is in training mode")
    if len(x.axes) < 2:
        raise OperatorError("its input has no axis 1")
    x = of.along(x, 1)
    scale, bias, mean, variance = (
        of.floats(number, what).astype(np.float64)
        for number, what in enumerate(("scale", "B", "mean", "var"), start=1)
    )
    if any(array.shape != (x.width,) for array in (scale, bias, mean, variance)):
        raise OperatorError(f"its constants must have the shape ({x.width},)")
    spread = variance + of.number("epsilon", 1e-5)
    if (spread <= 0).any():
        raise OperatorError("its variance must not be negative")
    factor = scale / np.sqrt(spread)
    return [_scaled(of, x, factor, bias - mean * factor)]


def layer_normalization(of: Operator) -> list[Tracked]:
    """Along the last axis, which is that of the features."""
    x = of.value()
    axis = axis_of(of.integer("axis", -1), len(x.axes))
    x = of.along(x, axis)
    if axis != len(x.axes) - 1 or any(of.node.output[1:]):
        raise OperatorError("it must work along the last axis alone, and return neither mean nor deviation")
    gamma = of.floats(1, "its scale")
    beta = of.floats(2, "B") if of.has(2) else np.zeros(1)
    for array in (gamma, beta):
        if array.ndim > 1 or array.size not in (1, x.width):
            raise OperatorError(f"its constants must have the shape ({x.width},), got {array.shape}")
    gamma, beta = (of.floats_of(np.broadcast_to(each.ravel(), x.width)) for each in (gamma, beta))
    epsilon = of.number("epsilon", 1e-5)
    return [of.like(LayerNormalization, x, gamma=gamma, beta=beta, epsilon=epsilon)]


def normalized(of: Operator, axis: int, epsilon: float) -> list[Tracked]:
    """A layer normalization without a scale, of several operators."""
    x = of.value()
    x = of.along(x, axis_of(axis, len(x.axes)))
    gamma, beta = of.floats_of(np.ones(x.width)), of.floats_of(np.zeros(x.width))
    return [of.like(LayerNormalization, x, gamma=gamma, beta=beta, epsilon=epsilon)]


ACTIVATIONS = (
    *(
        "Relu",
        "Sigmoid",
        "Tanh",
        "Softplus",
        "Softsign",
        "LeakyRelu",
        "ThresholdedRelu",
        "Elu",
        "HardSigmoid",
    ),
    *("Selu", "Exp", "Mish", "HardSwish"),
)

OPERATORS: dict[str, Rule] = {
    **dict.fromkeys(ACTIVATIONS, activation),
    **dict.fromkeys(("Identity", "Dropout"), same),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"), arithmetic),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "Clip": clip,
    "Concat": concatenate,
    "Gemm": gemm,
    "LayerNormalization": layer_normalization,
    "MatMul": product,
    "Neg": negative,
    "PRelu": prelu,
    "Split": split,
}
