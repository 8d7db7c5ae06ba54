"""Operators of ONNX on windows of timesteps, (batch, features, timesteps): convolutions and pooling."""

from collections.abc import Callable, Sequence

import numpy as np

from fastgru._nodes import Convolution, Depthwise, Pool, WindowPool
from fastgru.formats._onnx_build import Operator
from fastgru.formats._onnx_layouts import OperatorError, Steps, Tracked, said

Rule = Callable[[Operator], Sequence[Tracked]]


def _place_of_time(x: Tracked) -> tuple[Tracked, int]:
    """A value (batch, features, timesteps), which may have more axes of size 1; and its axis of timesteps."""
    x = x.featured(1) if len(x.axes) > 1 else x
    if len(x.axes) < 3 or x.axes[:2] != ("b", "f") or x.groups > 1 or x.place("t") < 2:
        names = ", ".join(said(axis) for axis in x.axes)
        raise OperatorError(f"its input must have the axes batch, features, timesteps, and has {names}")
    return x, x.place("t")


def _one(of: Operator, name: str, x: Tracked, place: int, default: int = 1) -> int:
    """What an attribute says of the timesteps; of other axes it must say 1."""
    found = of.numbers(name)
    if found is None:
        return default
    if len(found) != len(x.axes) - 2:
        raise OperatorError(f"its {name} must be {len(x.axes) - 2} integers, got {found!s:.80}")
    number = found[place - 2]
    if number < 1 or any(
        each != 1 for axis, each in enumerate(found) if axis != place - 2 and name != "strides"
    ):
        raise OperatorError(f"its {name} must be 1 but for the timesteps, got {found!s:.80}")
    return number


def _padding(of: Operator, x: Tracked, place: int, span: int, stride: int) -> str:
    """Keras' name for the padding."""
    auto = of.text("auto_pad", "NOTSET")
    if auto == "SAME_UPPER" and not any(x.pads):
        return "same"
    if auto not in ("NOTSET", "VALID"):
        raise OperatorError(f"its auto_pad must be NOTSET, VALID or SAME_UPPER, got {auto!r:.40}")
    count = len(x.axes) - 2
    pads = of.numbers("pads") if auto == "NOTSET" else None
    pads = [0] * (2 * count) if pads is None else pads
    if len(pads) != 2 * count:
        raise OperatorError(f"its pads must be {2 * count} integers, got {pads!s:.80}")
    before, after = pads[place - 2], pads[count + place - 2]
    if min(pads) < 0 or sum(pads) != before + after:
        raise OperatorError(f"its pads must be 0 but for the timesteps, got {pads!s:.80}")
    return padding_of(x.steps, before + x.pads[0], after + x.pads[1], span, stride)


def padding_of(steps: Steps | None, before: int, after: int, span: int, stride: int) -> str:
    """Keras' name of padding by these numbers of zeros."""
    if before == after == 0:
        return "valid"
    if (before, after) == (span - 1, 0):
        return "causal"
    size = None if steps is None else steps.size
    if stride == 1:
        whole = span - 1
    elif size is not None:
        whole = max((-(-size // stride) - 1) * stride + span - size, 0)
    else:
        whole = -1
    if before + after == whole and before == whole // 2:
        return "same"
    raise OperatorError(
        f"its pads must be 'valid', 'same' or 'causal' as in Keras, got ({before}, {after}) for windows of "
        f"{span} steps with strides of {stride}"
    )


def _windowed(x: Tracked, padding: str, span: int, stride: int) -> Steps:
    assert x.steps is not None
    return x.steps.of_windows(span if padding == "valid" else 1, stride)


def convolution(of: Operator) -> list[Tracked]:
    """Along time, with any groups, strides and dilations. Its pads must be those of `valid`, `same` or
    `causal` in Keras.
    """
    x = of.value(padded=True)
    x, place = _place_of_time(x)
    kernel = of.floats(1, "W")
    if kernel.ndim != len(x.axes):
        raise OperatorError(f"W must have {len(x.axes)} axes, got {kernel.shape}")
    if any(size != 1 for axis, size in enumerate(kernel.shape) if axis > 1 and axis != place):
        raise OperatorError(f"W must have the size 1 along all axes after timesteps, got {kernel.shape}")
    filters, channels, size = kernel.shape[0], kernel.shape[1], kernel.shape[place]
    kernel = kernel.reshape(filters, channels, size)
    groups = of.integer("group", 1)
    stride, dilation = _one(of, "strides", x, place), _one(of, "dilations", x, place)
    shape = of.numbers("kernel_shape")
    if size < 1 or (shape is not None and shape[place - 2 : place - 1] != [size]):
        raise OperatorError(f"its kernel_shape must be that of W, {size}, got {shape!s:.80}")
    if groups < 1 or channels * groups != x.width or filters % groups:
        raise OperatorError(f"W {kernel.shape} in {groups} groups does not fit {x.width} features")
    bias = None
    if of.has(2):
        bias = of.floats(2, "B")
        if bias.shape != (filters,):
            raise OperatorError(f"B must have the shape ({filters},), got {bias.shape}")
        bias = of.floats_of(bias)
    span = (size - 1) * dilation + 1
    padding = _padding(of, x, place, span, stride)
    settings = {"padding": padding, "strides": stride, "dilation": dilation, "bias": bias}
    steps = _windowed(x, padding, span, stride)
    if groups > 1 and channels == 1:  # (filters, 1, size) -> (size, features, multiplier)
        turned = kernel.reshape(groups, filters // groups, size).transpose(2, 0, 1)
        return [of.add(Depthwise, [x], x.axes, filters, steps, kernel=of.floats_of(turned), **settings)]
    if groups > 1:
        of.builder.folder.spend(kernel.size * groups * 8)
        whole = np.zeros((filters, x.width, size), of.builder.dtype)
        for group in range(groups):
            rows = slice(group * filters // groups, (group + 1) * filters // groups)
            whole[rows, group * channels : (group + 1) * channels] = kernel[rows]
        kernel = whole
    turned = np.ascontiguousarray(of.floats_of(kernel.transpose(2, 1, 0)))
    return [of.add(Convolution, [x], x.axes, filters, steps, kernel=turned, **settings)]


def pool(of: Operator) -> list[Tracked]:
    """Along time, without ceil_mode. Its pads must be those of `valid` or `same` in Keras."""
    x = of.value()
    x, place = _place_of_time(x)
    size = _one(of, "kernel_shape", x, place)
    stride = _one(of, "strides", x, place)
    dilation = _one(of, "dilations", x, place)
    if of.integer("ceil_mode", 0) or any(of.node.output[1:]):
        raise OperatorError("it has ceil_mode, or returns indices")
    span = (size - 1) * dilation + 1
    padding = _padding(of, x, place, span, stride)
    if padding == "causal" or (padding == "same" and of.integer("count_include_pad", 0)):
        raise OperatorError("it counts padding as timesteps, or has the pads of 'causal'")
    largest = of.kind == "MaxPool"
    settings = {"padding": padding, "strides": stride, "dilation": dilation}
    steps = _windowed(x, padding, span, stride)
    return [of.add(WindowPool, [x], x.axes, x.width, steps, size=size, largest=largest, **settings)]


def whole_pool(of: Operator) -> list[Tracked]:
    """Over all timesteps."""
    x = of.value()
    x, place = _place_of_time(x)
    rest = (*x.axes[:place], *x.axes[place + 1 :])
    found = of.add(Pool, [x], rest, x.width, None, largest=of.kind == "GlobalMaxPool")
    return [found._replace(axes=(*x.axes[:place], 1, *x.axes[place + 1 :]))]


def pad(of: Operator) -> list[Tracked]:
    """By zeros before or after timesteps, if a Conv reads the result."""
    x = of.value()
    if of.text("mode", "constant") != "constant":
        raise OperatorError("it must pad with zeros")
    pads = of.numbers("pads") or of.numbers("paddings") or of.integers(1, "its pads")
    value = of.number("value", 0.0)
    if of.has(2):
        value = float(of.floats(2, "its value").ravel()[0])
    axes = of.integers(3, "its axes") if of.has(3) else list(range(len(x.axes)))
    if len(pads) != 2 * len(axes):
        raise OperatorError(f"it must have two numbers for each of {len(axes)} axes, got {pads!s:.80}")
    if not any(pads):
        return [x]
    place = x.place("t")
    given = dict(
        zip((axis % len(x.axes) for axis in axes), zip(pads, pads[len(axes) :], strict=False), strict=True)
    )
    before, after = given.pop(place, (0, 0))
    if (
        place < 0
        or any(any(each) for each in given.values())
        or value
        or before < 0
        or after < 0
        or any(x.pads)
    ):
        raise OperatorError("it must add zeros, before or after timesteps alone")
    return [x._replace(pads=(before, after))]


OPERATORS: dict[str, Rule] = {
    "AveragePool": pool,
    "Conv": convolution,
    "GlobalAveragePool": whole_pool,
    "GlobalMaxPool": whole_pool,
    "MaxPool": pool,
    "Pad": pad,
}
