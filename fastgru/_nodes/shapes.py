"""Nodes that change shapes, many of which end a time axis or start one."""

import dataclasses
import math
from collections.abc import Sequence

from fastgru._compile import NO_MASK, ModelGraph
from fastgru._nodes._node import Node, Value


@dataclasses.dataclass(eq=False, kw_only=True)
class Pool(Node):
    """The mean over all timesteps, without masked ones, or the largest number of each feature.

    Parameters
    ----------
    largest : bool
    keepdims : bool
        Keep a time axis of one step.
    """

    largest: bool
    keepdims: bool = False

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.sequence(inputs)
        self.blocks(graph, "needs the whole sequence")
        number = graph.new_value(x.width, None)
        graph.add("most" if self.largest else "mean", x.number, number, mask=x.mask)
        out = Value(number, (x.width,), None)
        return [_reshaped(graph, out, (1, x.width)) if self.keepdims else out]


@dataclasses.dataclass(eq=False, kw_only=True)
class Last(Node):
    """The last timestep, masked or not.

    Parameters
    ----------
    first : bool
        The first one instead.
    """

    first: bool = False

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.sequence(inputs)
        if self.first:
            self.blocks(graph, "returns the first timestep alone")
        elif graph.streaming:  # every step is the last one so far
            return [x._replace(mask=NO_MASK)]
        number = graph.new_value(x.width, None)
        graph.add("first" if self.first else "last", x.number, number)
        return [Value(number, (x.width,), None)]


@dataclasses.dataclass(eq=False, kw_only=True)
class Repeat(Node):
    """A vector, repeated for a number of timesteps: Keras' RepeatVector."""

    times: int

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.one(inputs)
        self.blocks(graph, "makes timesteps of its own")
        if (
            x.clock is not None and not graph.streaming
        ) or self.times < 1:  # a stream has vectors at each step
            raise self.wrong(f"must repeat a vector once or more, got {x.shape}, {self.times} times")
        clock = graph.fixed(self.times)
        number = graph.new_value(x.width, clock)
        graph.add("repeat", x.number, number)
        return [Value(number, (self.times, x.width), clock)]


@dataclasses.dataclass(eq=False, kw_only=True)
class Reshape(Node):
    """The same numbers in another shape.

    Parameters
    ----------
    shape : tuple of int
        Without the batch: (width,) or (timesteps, width); one of them may be -1, for what is left.
    """

    shape: tuple[int, ...]

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.one(inputs)
        shape = list(self.shape)
        if len(shape) not in (1, 2) or shape.count(-1) > 1 or any(size < 1 and size != -1 for size in shape):
            raise self.wrong(f"must make (width,) or (timesteps, width), got {self.shape}")
        if x.timesteps is None:
            if len(shape) == 2 and shape[0] == -1 and shape[1] == x.width:
                return [x._replace(mask=self.mask_of(x))]
            raise self.wrong(
                f"must read a known number of timesteps, got {x.shape}: give the model an input of fixed size"
            )
        size = math.prod(n for n in x.shape if n is not None)
        if -1 in shape:
            known = math.prod(n for n in shape if n != -1)
            shape[shape.index(-1)] = size // known
        if math.prod(shape) != size:
            raise self.wrong(f"must make {self.shape} of a value with as many numbers, got {x.shape}")
        if tuple(shape) == x.shape:
            return [x._replace(mask=self.mask_of(x))]
        self.blocks(graph, "makes other timesteps")
        return [_reshaped(graph, x, tuple(shape))]


@dataclasses.dataclass(eq=False, kw_only=True)
class Transpose(Node):
    """Timesteps as features, and features as timesteps: Keras' Permute((2, 1))."""

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.sequence(inputs)
        if x.timesteps is None:
            raise self.wrong(
                f"must read a known number of timesteps, got {x.shape}: give the model an input of fixed size"
            )
        self.blocks(graph, "needs the whole sequence")
        clock = graph.fixed(x.width)
        number = graph.new_value(x.timesteps, clock)
        graph.add("transpose", x.number, number)
        return [Value(number, (x.width, x.timesteps), clock)]


@dataclasses.dataclass(eq=False, kw_only=True)
class Identity(Node):
    """What does nothing in inference: Dropout and the like."""

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        if len(inputs) != 1:
            raise self.wrong(f"must read one value, got {len(inputs)}")
        return [inputs[0] if self.passes_mask else inputs[0]._replace(mask=NO_MASK)]


def _reshaped(graph: ModelGraph, x: Value, shape: tuple[int, ...]) -> Value:
    clock = graph.fixed(shape[0]) if len(shape) == 2 else None
    number = graph.new_value(shape[-1], clock)
    graph.add("reshape", x.number, number)
    return Value(number, shape, clock)
