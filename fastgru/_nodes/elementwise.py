"""Nodes that work on each step by itself: activations, scales, norms, and merges of several values."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from fastgru import activations
from fastgru._compile import CALL_MASK, NO_MASK, ModelGraph
from fastgru._nodes._node import Array, Node, Value

MERGES = ("sum", "mul", "sub", "ave", "max", "min")


@dataclasses.dataclass(eq=False, kw_only=True)
class Activated(Node):
    """A node that may end in an activation.

    Parameters
    ----------
    activation : activation or None
        Of `fastgru.activations`, by Keras' names.
    """

    activation: Any = None

    def fused(self) -> tuple[dict[str, Any], Any]:
        """Settings of the network's node, and the activation if it needs a node of its own, else None."""
        function = activations.get(self.activation)
        kernel = getattr(function, "kernel", None)
        if kernel is None:
            return {}, function
        return {"activation": kernel[0], "alpha": kernel[1]}, None


def is_compiled(function: Any) -> bool:
    """True of an activation that nodes can end in."""
    if getattr(function, "kernel", None) is not None:
        return True
    if isinstance(function, activations.ReLU):
        return not function.threshold and not function.negative_slope
    known = activations.softmax, activations.log_softmax, activations.hard_tanh
    return any(function is one for one in known) or (
        isinstance(function, activations.Softmax) and function.axis == -1
    )


def activate(graph: ModelGraph, node: Node, function: Any, x: Value) -> Value:
    """Add a node for an activation without a kernel, and return what it writes; for None return x."""
    if function is None:
        return x
    out = x._replace(number=graph.new_value(x.width, x.clock))
    is_softmax = isinstance(function, activations.Softmax) and function.axis in (-1, len(x.shape))
    if is_softmax or function is activations.softmax:
        graph.add("softmax", x.number, out.number)
    elif function is activations.log_softmax:
        graph.add("log_softmax", x.number, out.number)
    elif isinstance(function, activations.ReLU) and not function.threshold and not function.negative_slope:
        graph.add("clip", x.number, out.number, alpha=0.0, beta=function.max_value)
    elif function is activations.hard_tanh:
        graph.add("clip", x.number, out.number, alpha=-1.0, beta=1.0)
    else:
        raise node.wrong(f"must have an activation that is compiled, got {function!r}")
    return out


@dataclasses.dataclass(eq=False, kw_only=True)
class Activation(Activated):
    """An activation by itself."""

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.one(inputs)
        settings, rest = self.fused()
        if rest is not None:
            return [activate(graph, self, rest, x)._replace(mask=self.mask_of(x))]
        out = self.like(graph, x)
        graph.add("activation", x.number, out.number, **settings)
        return [out]


@dataclasses.dataclass(eq=False, kw_only=True)
class Clip(Node):
    """max(least, min(x, most))."""

    least: float
    most: float

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.one(inputs)
        out = self.like(graph, x)
        graph.add("clip", x.number, out.number, alpha=self.least, beta=self.most)
        return [out]


@dataclasses.dataclass(eq=False, kw_only=True)
class PReLU(Node):
    """x where it is not negative, else x * alpha.

    Parameters
    ----------
    alpha : ndarray, shape (width,)
    """

    alpha: Array

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.one(inputs)
        self.check("an alpha", self.alpha, (x.width,))
        out = self.like(graph, x)
        graph.add("prelu", x.number, out.number, weights=graph.constant(self.alpha))
        return [out]


@dataclasses.dataclass(eq=False, kw_only=True)
class Scale(Node):
    """x * factor + shift: batch normalization, and operations with constants.

    Parameters
    ----------
    factor, shift : ndarray, shape (width,)
    """

    factor: Array
    shift: Array

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.one(inputs)
        self.check("a factor", self.factor, (x.width,))
        self.check("a shift", self.shift, (x.width,))
        out = self.like(graph, x)
        weights, bias = graph.constant(self.factor), graph.constant(self.shift)
        graph.add("scale", x.number, out.number, weights=weights, bias=bias)
        return [out]


@dataclasses.dataclass(eq=False, kw_only=True)
class LayerNormalization(Node):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, of the numbers of each step.

    Parameters
    ----------
    gamma, beta : ndarray, shape (width,)
    epsilon : float
    centered : bool
        False: the mean is taken to be 0, as by RMSNormalization.
    """

    gamma: Array
    beta: Array
    epsilon: float
    centered: bool = True

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.one(inputs)
        self.check("a gamma", self.gamma, (x.width,))
        self.check("a beta", self.beta, (x.width,))
        out = self.like(graph, x)
        graph.add(
            "norm",
            x.number,
            out.number,
            weights=graph.constant(self.gamma),
            bias=graph.constant(self.beta),
            alpha=self.epsilon,
            size=0 if self.centered else 1,
        )
        return [out]


@dataclasses.dataclass(eq=False, kw_only=True)
class Merge(Node):
    """Two or more values of one shape, number by number, from the first one on.

    Parameters
    ----------
    mode : {'sum', 'mul', 'sub', 'ave', 'max', 'min'}
    any_mask : bool
        As of `Concatenate`.
    """

    mode: str
    any_mask: bool = False

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        if self.mode not in MERGES:
            raise self.wrong(f"must have a mode among {MERGES}, got {self.mode!r}")
        first = self._longest(graph, inputs)
        selects = self.any_mask and self.passes_mask and self.mode in ("mul", "max", "min")
        if selects and any(value.mask != NO_MASK for value in inputs):
            return [self._unmasked(graph, inputs, first)]
        mask = _masks(graph, inputs, self.any_mask) if self.passes_mask else NO_MASK

        def merged(a: int, b: int) -> int:
            number = graph.new_value(first.width, first.clock)
            graph.add(mode, a, number, other=b)
            return number

        mean = self.mode == "ave" and len(inputs) > 2
        mode = "sum" if mean else self.mode
        number = functools.reduce(merged, [value.number for value in inputs])
        if mean:
            scaled = graph.new_value(first.width, first.clock)
            factor, zeros = graph.filled(first.width, 1 / len(inputs)), graph.filled(first.width, 0)
            graph.add("scale", number, scaled, weights=factor, bias=zeros)
            number = scaled
        return [Value(number, first.shape, first.clock, mask)]

    def _unmasked(self, graph: ModelGraph, inputs: Sequence[Value], first: Value) -> Value:
        """The product, maximum or minimum of those values that are not masked at a step, as in Keras 3."""

        def new(kind: str, x: int, **settings: int) -> int:
            number = graph.new_value(first.width, first.clock)
            graph.add(kind, x, number, **settings)
            return number

        result, *others = inputs
        number, mask = result.number, result.mask
        for value in others:
            x = value.number
            both = new(self.mode, number, other=x)
            both = new("select", both, other=number, mask=value.mask) if value.mask != NO_MASK else both
            if mask not in (NO_MASK, value.mask):
                alone = new("select", x, other=number, mask=value.mask) if value.mask != NO_MASK else x
                both = new("select", both, other=alone, mask=mask)
            number = both
            pair = [Value(0, (), first.clock, one) for one in (mask, value.mask)]
            mask = _masks(graph, pair, any_mask=True)
        if self.mode == "mul" and mask != NO_MASK:
            number = new("hide", number, mask=mask)
        return Value(number, first.shape, first.clock, mask)

    def _longest(self, graph: ModelGraph, inputs: Sequence[Value]) -> Value:
        """The value whose timesteps the result has."""
        if len(inputs) < 2 or any(value.indices for value in inputs):
            raise self.wrong(f"must read two values of numbers or more, got {len(inputs)}")
        if len({value.width for value in inputs}) > 1:
            shapes = ", ".join(str(value.shape) for value in inputs)
            raise self.wrong(f"must read values of one shape, got {shapes}")
        _agree(graph, self, inputs)
        # the reduction's first result must have timesteps if any has
        return next((value for value in inputs if value.clock is not None), inputs[0])


@dataclasses.dataclass(eq=False, kw_only=True)
class Concatenate(Node):
    """Values side by side, along the features.

    Parameters
    ----------
    any_mask : bool
        A timestep of the result is masked where it is masked in all of the values, as in Keras 3; False:
        where it is masked in one, as in Keras 2.
    """

    any_mask: bool = False

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        if not inputs or any(value.indices for value in inputs):
            raise self.wrong(f"must read values of numbers, got {len(inputs)}")
        first = inputs[0]
        if len({value.clock is None for value in inputs}) > 1:
            shapes = ", ".join(str(value.shape) for value in inputs)
            raise self.wrong(f"must read values with the same timesteps, got {shapes}")
        _agree(graph, self, inputs)
        width = sum(value.width for value in inputs)
        number, column = graph.new_value(width, first.clock), 0
        for value in inputs:
            graph.add("copy", value.number, number, column=column, size=value.width)
            column += value.width
        mask = _masks(graph, inputs, self.any_mask) if self.passes_mask else NO_MASK
        return [Value(number, (*first.shape[:-1], width), first.clock, mask)]


@dataclasses.dataclass(eq=False, kw_only=True)
class Slice(Node):
    """Some neighbouring features.

    Parameters
    ----------
    start, stop : int
        From 0 to the width.
    """

    start: int
    stop: int

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.one(inputs)
        if not 0 <= self.start < self.stop <= x.width:
            raise self.wrong(f"must take some of {x.width} features, got {self.start} to {self.stop}")
        out = self.like(graph, x, self.stop - self.start)
        settings = {"from_column": self.start, "size": self.stop - self.start}
        graph.add("copy", x.number, out.number, **settings)
        return [out]


@dataclasses.dataclass(eq=False, kw_only=True)
class Masking(Node):
    """Mask the timesteps of which all numbers are `value`, and make them zeros."""

    value: float

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.sequence(inputs)
        mask = graph.new_mask(x.clock)
        graph.add("differs", x.number, mask, alpha=self.value)
        out = self.like(graph, x)
        graph.add("hide", x.number, out.number, mask=mask)
        return [out._replace(mask=mask)]


def _agree(graph: ModelGraph, node: Node, inputs: Sequence[Value]) -> None:
    """Require the same number of timesteps of all values that have timesteps."""
    found = [value for value in inputs if value.clock is not None]
    if len({value.timesteps for value in found if value.timesteps is not None}) > 1:
        shapes = ", ".join(str(value.shape) for value in inputs)
        raise node.wrong(f"must read values with the same timesteps, got {shapes}")
    clocks = [value.clock for value in found if value.clock is not None]
    for clock in clocks[1:]:
        graph.agree(node.name, clocks[0], clock)


def _masks(graph: ModelGraph, inputs: Sequence[Value], any_mask: bool) -> int:
    """The mask of a merge: true where no value is masked, or with `any_mask` where one is not masked."""
    masks = list(dict.fromkeys(value.mask for value in inputs if value.mask != NO_MASK))
    if not masks or (any_mask and any(value.mask == NO_MASK for value in inputs)):
        return NO_MASK
    if CALL_MASK in masks and len(masks) > 1:
        masks = [CALL_MASK, *(mask for mask in masks if mask != CALL_MASK)]
    clock = next(value.clock for value in inputs if value.mask != NO_MASK)
    merged = graph.either if any_mask else graph.both
    return functools.reduce(lambda a, b: merged(b, a, clock), masks)
