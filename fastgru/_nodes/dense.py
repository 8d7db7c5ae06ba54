"""Nodes that multiply by packed weights: dense layers and convolutions; and tables of vectors."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from fastgru._compile import NO_MASK, ModelGraph
from fastgru._nodes._node import Array, Node, Value
from fastgru._nodes.elementwise import Activated, activate

PADDINGS = ("valid", "same", "causal")


@dataclasses.dataclass(eq=False, kw_only=True)
class Dense(Activated):
    """activation(x.kernel + bias), of each step.

    Parameters
    ----------
    kernel : ndarray, shape (features, units)
    bias : ndarray, shape (units,), or None
    activation : activation or None
        Of `fastgru.activations`, by Keras' names.
    """

    kernel: Array
    bias: Array | None = None

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.one(inputs)
        if self.kernel.ndim != 2:
            raise self.wrong(f"must have a kernel (features, units), got {self.kernel.shape}")
        self.check("a kernel", self.kernel, (x.width, self.kernel.shape[1]))
        units = self.kernel.shape[1]
        if self.bias is not None:
            self.check("a bias", self.bias, (units,))
        out = self.like(graph, x, units)
        fused, rest = self.fused()
        layer = graph.dense(self, self.kernel, self.bias)
        graph.add("dense", x.number, out.number, layer=layer, **fused)
        return [activate(graph, self, rest, out)]


@dataclasses.dataclass(eq=False, kw_only=True)
class Windowed(Activated):
    """A node that reads windows of timesteps.

    Parameters
    ----------
    padding : {'valid', 'same', 'causal'}
        As Keras has it.
    strides, dilation : int
    """

    padding: str = "valid"
    strides: int = 1
    dilation: int = 1

    def windows(self, graph: ModelGraph, x: Value, size: int, width: int) -> tuple[Value, dict[str, Any]]:
        """What it writes, and the settings of the network's node, for windows of `size` steps."""
        if self.padding not in PADDINGS:
            raise self.wrong(f"must have a padding among {PADDINGS}, got {self.padding!r}")
        for name, number in (("size", size), ("strides", self.strides), ("dilation", self.dilation)):
            if number < 1:
                raise self.wrong(f"must have {name} of 1 or more, got {number}")
        reach = (size - 1) * self.dilation + 1
        span = reach if self.padding == "valid" else 1
        steps = x.timesteps
        if steps is not None and steps < span:
            raise self.wrong(f"must read {span} timesteps or more, got {steps}")
        clock = graph.windows(x.clock, span, self.strides)
        if steps is not None:
            steps = (steps - span) // self.strides + 1
        number = graph.new_value(width, clock)
        mask = self.mask_of(x) if clock == x.clock else NO_MASK
        settings = {
            "size": size,
            "stride": self.strides,
            "dilation": self.dilation,
            "padding": PADDINGS.index(self.padding),
        }
        if self.padding == "causal" and self.strides == 1 and size > 1:
            settings["state"] = graph.state(self.name, (size - 1) * self.dilation * x.width)
        elif size > 1 or self.strides > 1:
            self.blocks(graph, "reads timesteps after the one that it writes, or not all of them")
        return Value(number, (steps, width), clock, mask), settings


@dataclasses.dataclass(eq=False, kw_only=True)
class Convolution(Windowed):
    """activation(convolution along time + bias): Keras' Conv1D.

    Parameters
    ----------
    kernel : ndarray, shape (size, channels, filters)
    bias : ndarray, shape (filters,), or None
    """

    kernel: Array
    bias: Array | None = None

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.sequence(inputs)
        if self.kernel.ndim != 3:
            raise self.wrong(f"must have a kernel (size, channels, filters), got {self.kernel.shape}")
        size, _, filters = self.kernel.shape
        self.check("a kernel", self.kernel, (size, x.width, filters))
        if self.bias is not None:
            self.check("a bias", self.bias, (filters,))
        out, settings = self.windows(graph, x, size, filters)
        fused, rest = self.fused()
        layer = graph.dense(self, self.kernel.reshape(size * x.width, filters), self.bias)
        graph.add("convolution", x.number, out.number, layer=layer, **settings, **fused)
        return [activate(graph, self, rest, out)]


@dataclasses.dataclass(eq=False, kw_only=True)
class Depthwise(Windowed):
    """activation(convolution of each channel along time + bias): Keras' DepthwiseConv1D.

    Parameters
    ----------
    kernel : ndarray, shape (size, channels, multiplier)
    bias : ndarray, shape (channels * multiplier,), or None
    """

    kernel: Array
    bias: Array | None = None

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.sequence(inputs)
        if self.kernel.ndim != 3:
            raise self.wrong(f"must have a kernel (size, channels, multiplier), got {self.kernel.shape}")
        size, _, multiplier = self.kernel.shape
        self.check("a kernel", self.kernel, (size, x.width, multiplier))
        width = x.width * multiplier
        if self.bias is not None:
            self.check("a bias", self.bias, (width,))
        out, settings = self.windows(graph, x, size, width)
        fused, rest = self.fused()
        graph.add(
            "depthwise",
            x.number,
            out.number,
            weights=graph.constant(self.kernel.reshape(size, width)),
            bias=graph.constant(self.bias),
            **settings,
            **fused,
        )
        return [activate(graph, self, rest, out)]


@dataclasses.dataclass(eq=False, kw_only=True)
class WindowPool(Windowed):
    """The mean or the maximum of each window: Keras' AveragePooling1D and MaxPooling1D.

    Parameters
    ----------
    size : int
    largest : bool
    """

    size: int
    largest: bool

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.sequence(inputs)
        if self.padding == "causal":
            raise self.wrong("must have a padding of 'valid' or 'same', got 'causal'")
        out, settings = self.windows(graph, x, self.size, x.width)
        graph.add("most" if self.largest else "mean", x.number, out.number, **settings)
        return [out]


@dataclasses.dataclass(eq=False, kw_only=True)
class Embedding(Node):
    """The rows of a table, by indices.

    Parameters
    ----------
    table : ndarray, shape (rows, width)
    mask_zero : bool
        The index 0 stands for a timestep that is masked.
    from_end : bool
        Negative indices count from the end, as in ONNX.
    """

    table: Array
    mask_zero: bool = False
    from_end: bool = False

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        if len(inputs) != 1 or not inputs[0].indices:
            raise self.wrong("must read an input of integers of the model, with no node in between")
        if self.table.ndim != 2 or not self.table.shape[0]:
            raise self.wrong(f"must have a table (rows, width), got {self.table.shape}")
        x = inputs[0]
        rows, width = self.table.shape
        graph.limit_indices(x.number, -rows if self.from_end else 0, rows)
        number = graph.new_value(width, x.clock)
        graph.add(
            "embedding", x.number, number, weights=graph.table(self.table), limit=rows, from_end=self.from_end
        )
        mask = x.mask
        if self.mask_zero:
            mask = graph.new_mask(x.clock)
            graph.add("nonzero", x.number, mask)
            mask = graph.both(mask, x.mask, x.clock)
        return [Value(number, (x.timesteps, width), x.clock, mask)]
