"""What every node of a model has: its name, what it reads and writes, and how it joins a network."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._compile import NO_MASK, ModelGraph

Array = NDArray[Any]
Shape = tuple[int | None, ...]


class Value(NamedTuple):
    """What a node reads or writes, in a graph that is being compiled.

    Attributes
    ----------
    number : int
        The value's number in the network.
    shape : tuple of (int or None)
        Without the batch: (timesteps, width) of a sequence, (width,) of one vector for each row,
        (timesteps,) of a sequence of indices. None: any number.
    clock : int or None
        The network's number for these timesteps; None: there are none.
    mask : int
        The network's number of its mask, or CALL_MASK or NO_MASK.
    indices : bool
        True of integers that an Embedding reads.
    """

    number: int
    shape: Shape
    clock: int | None
    mask: int = NO_MASK
    indices: bool = False

    @property
    def width(self) -> int:
        """Numbers of a step; 1 for indices."""
        width = 1 if self.indices else self.shape[-1]
        if width is None:  # no input is made like that
            raise ValueError(f"the last axis must be known, got {self.shape}")
        return width

    @property
    def timesteps(self) -> int | None:
        """How many timesteps it has; None: any number."""
        return self.shape[0]


@dataclasses.dataclass(eq=False, kw_only=True)
class Node:
    """A layer of Keras, an operator of ONNX, or several of them in one.

    Subclasses are dataclasses, so that files hold them without code of their own. Their fields are arrays,
    plain values that JSON can hold, and at most one layer of fastgru.

    Parameters
    ----------
    name : str
        Its name in the model that it comes from, for messages.
    inputs, outputs : tuple of str
        Names of the values that it reads and writes.
    passes_mask : bool
        False: what it writes has no mask.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    passes_mask: bool = True

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        """Add what computes the node, and return what it writes.

        Raises
        ------
        ValueError
            If it cannot read such values. The message names the node.
        """
        raise NotImplementedError

    @property
    def weights(self) -> dict[str, Array]:
        """Its arrays by the names of their fields."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}

    @property
    def label(self) -> str:
        """What it is, for tables."""
        return type(self).__name__

    def wrong(self, what: str) -> ValueError:
        """An error that names the node."""
        return ValueError(f"{type(self).__name__} {self.name!r} {what}")

    def blocks(self, graph: ModelGraph, why: str) -> None:
        """Note that this node, for a reason, cannot be in a network that runs step by step."""
        if graph.streaming:
            graph.blocking.append(f"{type(self).__name__} {self.name!r} {why}")

    # ---- for subclasses --------------------------------------------------------------------

    def one(self, inputs: Sequence[Value]) -> Value:
        """The only value that it reads, which is no index."""
        if len(inputs) != 1:
            raise self.wrong(f"must read one value, got {len(inputs)}")
        if inputs[0].indices:
            raise self.wrong("must read numbers, got the indices of an Embedding")
        return inputs[0]

    def sequence(self, inputs: Sequence[Value]) -> Value:
        """The only value that it reads, which has timesteps."""
        x = self.one(inputs)
        if x.clock is None:
            raise self.wrong(f"must read (timesteps, features), got {x.shape}")
        return x

    def mask_of(self, x: Value) -> int:
        """The mask of what it writes, if it reads x."""
        return x.mask if self.passes_mask else NO_MASK

    def like(self, graph: ModelGraph, x: Value, width: int | None = None) -> Value:
        """A new value with the timesteps and the mask of another one, and with this width."""
        width = x.width if width is None else width
        number = graph.new_value(width, x.clock)
        return Value(number, (*x.shape[:-1], width), x.clock, self.mask_of(x))

    def check(self, name: str, array: Array, shape: tuple[int, ...]) -> None:
        """Refuse weights of another shape."""
        if array.shape != shape:
            raise self.wrong(f"must have {name} {shape}, got {array.shape}")
