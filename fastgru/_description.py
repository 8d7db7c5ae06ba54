"""Descriptions of layers for writers: plain values and arrays."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
T = TypeVar("T")


class GRU(NamedTuple):
    """A layer of one direction.

    Attributes
    ----------
    cls : type
        fastgru's class of the layer, or the base of a user's subclass.
    get_config : callable
        Returns the layer's config at the time of the call.
    default_state : ndarray, shape (1 or batch, units), or None
    weights : sequence of ndarray
        In the order of `get_weights`; none of a layer that is not built.
    scales : ndarray, shape (2, 3 * units), or None
        The steps of int8 weights, if they are not the largest weight of each column divided by 127.
    """

    cls: Any
    name: str
    dtype: str
    trainable: bool
    units: int
    activation: Any
    recurrent_activation: Any
    use_bias: bool
    reset_after: bool
    go_backwards: Any
    return_sequences: Any
    return_state: Any
    default_state: Array | None
    weights: Sequence[Array]
    scales: Array | None
    get_config: Callable[[], dict[str, Any]]

    @property
    def parts(self) -> "tuple[GRU, ...]":
        """The GRUs of the layer: itself."""
        return (self,)


class Bidirectional(NamedTuple):
    """A layer of two directions; fields that a GRU has too mean the same."""

    cls: Any
    name: str
    trainable: bool
    merge_mode: str | None
    return_sequences: Any
    return_state: Any
    forward: GRU
    backward: GRU
    get_config: Callable[[], dict[str, Any]]

    @property
    def parts(self) -> tuple[GRU, ...]:
        """The GRUs of the layer, forward and backward."""
        return self.forward, self.backward


class Stack(NamedTuple):
    """Layers on top of each other, the lowest first."""

    cls: Any
    name: str
    return_state: Any
    layers: Sequence[GRU | Bidirectional]
    get_config: Callable[[], dict[str, Any]]

    @property
    def parts(self) -> tuple[GRU, ...]:
        """The GRUs of all layers."""
        return tuple(part for layer in self.layers for part in layer.parts)


Layer = GRU | Bidirectional | Stack


def of(kind: type[T], layer: Any, **others: Any) -> T:
    """A description made of the layer's attributes of the same names, and of `others`."""
    names: Sequence[str] = kind._fields  # type: ignore[attr-defined]
    return kind(**others, **{name: getattr(layer, name) for name in names if name not in others})


def layers(layer: Layer) -> Sequence[GRU | Bidirectional]:
    """Those of a Stack, or the layer itself."""
    return layer.layers if isinstance(layer, Stack) else [layer]


def is_built(layer: Layer) -> bool:
    """True if all weights are there."""
    return all(part.weights for part in layer.parts)


def is_finite(layer: Layer) -> bool:
    """True if all weights and the states to start from are finite."""
    states = [part.default_state for part in layer.parts if part.default_state is not None]
    arrays = [array for part in layer.parts for array in part.weights]
    return all(np.isfinite(array).all() for array in [*arrays, *states])
