"""The protocol by which layers, calls and streams use a layer, and the records of a call.

The underscores mark these names as private to the package. Layers use no other private names of each other.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import _description, _validate
from fastgru._compile import Graph

Array = NDArray[Any]


class Weight(NamedTuple):
    """Name, shape, initializer, regularizer and constraint of one weight."""

    name: str
    shape: tuple[int, ...]
    initializer: Any
    regularizer: Any
    constraint: Any


class Built(NamedTuple):
    """New weights, plan and state of a layer, ready for `commit`.

    Attributes
    ----------
    scales : ndarray, shape (2, 3 * units), or None
        As of `WeightedMember`.
    """

    specs: Sequence[Weight]
    arrays: tuple[Array, ...]
    plan: Any
    state: Array | None
    scales: Array | None = None


class Call(NamedTuple):
    """A checked call. Flags that shapes depend on are read once: user code in an argument may set them."""

    x: Array
    starts: Sequence[Array | None]
    mask: Array | None
    lengths: Array | None
    training: bool
    time_major: bool
    sequences: bool
    return_state: bool
    out: Array | None = None
    first: int = 0  # the timestep of the sequence that x begins with, for lengths

    @property
    def batch(self) -> int:
        """Rows of the input."""
        return int(self.x.shape[1 if self.time_major else 0])


class Outcome(NamedTuple):
    """What a call has computed, before any of it is recorded.

    Attributes
    ----------
    outputs : list of ndarray
        In the layer's dtype.
    states : list of ndarray
        Of each GRU, in its compute dtype; empty if they are not wanted.
    losses : dict
        Of the activity of GRUs, by layer.
    """

    outputs: list[Array]
    states: list[Array]
    losses: dict[Any, list[Any]]


class Member:
    """A layer, as the layer around it, a call and a stream see it."""

    name: str
    trainable: Any
    time_major: Any
    return_sequences: Any
    return_state: Any
    _dtype: np.dtype[Any]
    _compute_dtype: np.dtype[Any]
    _batch_input_shape: tuple[int | None, ...] | None
    _takes_none = False  # True: one of several initial states may be None

    @property
    def built(self) -> bool:
        """True if the layer has its weights."""
        raise NotImplementedError

    @property
    def weights(self) -> list[Array]:
        """The weights themselves, read-only: `set_weights` replaces them."""
        raise NotImplementedError

    # ---- what it is made of ----------------------------------------------------------------

    @property
    def _parts(self) -> "tuple[WeightedMember, ...]":
        """The layers with weights of their own, in the order of their states."""
        raise NotImplementedError

    @property
    def _others(self) -> "tuple[WeightedMember, ...]":
        """The parts other than this layer."""
        return self._parts

    def _inner(self) -> "list[Any]":
        """The layers that this one is made of, and what they are made of."""
        return []

    def _in_order_of_weights(self) -> "list[WeightedMember]":
        """Those with weights of their own, in the order of `weights`."""
        raise NotImplementedError

    def _described(self) -> _description.Layer:
        """What writers read of the layer."""
        raise NotImplementedError

    # ---- what it takes and returns ---------------------------------------------------------

    @property
    def _input_dtype(self) -> np.dtype[Any]:
        """What inputs are cast to."""
        return self._compute_dtype

    @property
    def _dtypes(self) -> list[np.dtype[Any]]:
        """Those of the outputs."""
        return [self._dtype]

    @property
    def _width(self) -> int:
        """Size of the last axis of the output."""
        raise NotImplementedError

    def _given_states(self, initial_state: Any, batch: int) -> list[Array | None]:
        """The checked initial state of each GRU; None means its own."""
        raise NotImplementedError

    def _target(self, out: Any, rows: tuple[int, ...], read: Sequence[Any]) -> Array:
        """The checked array for the output, (*rows, units), which shares no memory with what is read."""
        return _validate.out(out, (*rows, self._width), self._dtypes[0], [*read, *self.weights])

    def _check_flags(self) -> None:
        """Refuse flags that do not fit each other; they may be set at any time."""

    def _check_fits(self, shape: tuple[int, ...], batch: int, parts: Mapping[Any, Built]) -> None:
        """Refuse inputs with other features than the weights, or another batch than a recorded state."""
        raise NotImplementedError

    def _check_forward(self) -> None:
        """Refuse a layer that cannot compute while its input arrives, or that is not built."""
        raise NotImplementedError

    # ---- what it does ----------------------------------------------------------------------

    def _builds(self, shape: tuple[int | None, ...]) -> "dict[WeightedMember, Built]":
        """New weights and states of the layers that are not built yet, for inputs of that shape."""
        raise NotImplementedError

    def _add_to(self, graph: Graph, x: int, last: bool) -> list[int]:
        """Add the layer to a graph, reading value x; its outputs, of the last step alone or of all."""
        raise NotImplementedError

    def _stepping(self, plans: Mapping[Any, Any], return_state: bool) -> Any:
        """The network of a stream, which returns all outputs."""
        raise NotImplementedError

    def _long_call(
        self,
        inputs: Any,
        initial_state: Any,
        mask: Any,
        training: Any,
        lengths: Any,
        out: Any,
        first: int = 0,
    ) -> Any:
        """Any call: check and convert the arguments, then run the network, or the loop in Python.

        The inputs are a sequence from its timestep `first` on; lengths are those of the sequence.
        """
        raise NotImplementedError

    def _evaluated(self, parts: Mapping[Any, Built], call: Call) -> Outcome:
        """The results of a call that needs Python, layer by layer."""
        raise NotImplementedError


class WeightedMember(Member):
    """A layer with weights of its own.

    Attributes
    ----------
    _plan : Plan or Loop or None
        What it computes with, once it is built.
    _scales : ndarray, shape (2, 3 * units), or None
        float32, of int8 weights that came with their own: what the integers of each column of both kernels
        are multiplied by. None: the largest weight of each column divided by 127.
    """

    units: int
    zero_output_for_mask: Any
    dropout: float
    recurrent_dropout: float
    activity_regularizer: Any
    stateful: Any
    _specs: tuple[Weight, ...]
    _plan: Any
    _scales: Array | None
    _default_state: Array | None

    @property
    def _drops(self) -> bool:
        """True if a call drops out in training."""
        raise NotImplementedError

    def _weight_specs(self, features: int) -> list[Weight]:
        """kernel, recurrent_kernel, bias, and an alpha for every PReLU."""
        raise NotImplementedError

    def _build_of(self, arrays: Sequence[Array], scales: Array | None = None) -> None:
        """Build with these weights; the first call of a stateful layer then sets the batch."""
        raise NotImplementedError

    def _start(self, batch: int, initial_state: Array | None, recorded: Array | None) -> Array | None:
        """The state that a call starts from, (batch, units); None means zeros."""
        raise NotImplementedError

    def _add_part(self, graph: Graph, x: int, last: bool, reverse_output: bool = False) -> int:
        """Add the layer to a graph; its value, in the layer's dtype."""
        raise NotImplementedError

    def _ready(
        self, values: Sequence[Any], specs: Sequence[Weight], scales: Array | None = None
    ) -> tuple[tuple[Array, ...], Any]:
        """Checked weights and their plan: everything that may fail is done before `commit`."""
        raise NotImplementedError

    def _as_built(self) -> Built:
        """What the layer has now."""
        raise NotImplementedError

    def _replaced(self, values: Sequence[Any]) -> Built:
        """Other weights."""
        raise NotImplementedError

    def _projected(self) -> list[Any]:
        """The weights as their constraints want them."""
        raise NotImplementedError

    def _reset_to(self, states: Any) -> Array:
        """What the recorded state becomes by `reset_states`."""
        raise NotImplementedError

    def _changes(self, built: Built) -> list[tuple[Any, str, Any]]:
        """The changes for `commit` that put these weights in place."""
        raise NotImplementedError
