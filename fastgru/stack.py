"""Layers on top of each other: one call, one pass over time where the layers allow it."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import _description, _validate
from fastgru._calls import commit, compiled
from fastgru._compile import Graph
from fastgru._composite import CompositeLayer
from fastgru._layer import flag
from fastgru._member import Built, Call, Outcome, WeightedMember
from fastgru.gru import GRU
from fastgru.wrappers import Bidirectional, deserialized, serialized

Array = NDArray[Any]


def _output_dtype(layer: Any) -> np.dtype[Any]:
    """Dtype of a layer's output: that of its first direction."""
    dtype: np.dtype[Any] = layer._parts[0]._dtype
    return dtype


def _members(layers: Any) -> list[Any]:
    """The layers of the argument, with each Stack replaced by its layers."""
    if not isinstance(layers, (list, tuple)) or not layers:
        raise ValueError(f"layers must be a list of GRU and Bidirectional layers, got {layers!r}")
    members: list[Any] = []
    for layer in layers:
        if not isinstance(layer, GRU | Bidirectional | Stack):
            raise ValueError(
                f"layers must hold GRU and Bidirectional layers, got {layer!r} of type {type(layer).__name__}"
            )
        members += layer.layers if isinstance(layer, Stack) else [layer]
    parts = [part for layer in members for part in layer._parts]
    last = {id(part): i for i, part in enumerate(parts)}
    twice = next((part for i, part in enumerate(parts) if last[id(part)] != i), None)
    if twice is not None:
        raise ValueError(
            f"layers must hold every layer once, got {twice.name!r} twice: make another one from its config "
            "and set its weights"
        )
    for lower, upper in itertools.pairwise(members):
        _check_neighbours(lower, upper)
    return members


def _check_neighbours(lower: Any, upper: Any) -> None:
    """Refuse a layer that cannot read the output of the one below, as far as that is known."""
    if isinstance(lower, Bidirectional) and lower.merge_mode is None:
        raise ValueError(
            f"layers must return one output each but for the last one, got merge_mode=None of {lower.name!r}"
        )
    features = [part._plan.features for part in upper._parts if part.built]
    if features and features[0] != lower._width:
        raise ValueError(
            f"layers must fit each other, but {lower.name!r} returns {lower._width} units and "
            f"{upper.name!r} has been built for {features[0]} features"
        )


class Stack(CompositeLayer):
    """Layers on top of each other: each reads what the one before returns.

    Parameters
    ----------
    layers : list or tuple of GRU, Bidirectional or Stack
        The lowest first. They are not copied, and keep their weights and recorded states. A Stack
        contributes its layers. All but the last one must return sequences.
    return_state : bool, optional
        Return the last states of all layers, too. Defaults to that of the last layer; the others' own
        `return_state` has no meaning here.
    name : str, keyword

    Raises
    ------
    ValueError
        If there is no layer, one is of another class or is listed twice, one below the last returns no
        sequences or two outputs, `time_major` differs, or one was built for other features than it gets.
    TypeError
        If `name` is no string.

    Notes
    -----
    The results are those of the layers called one after the other, each with the mask. GRUs in a row that go
    forward run together, chunk by chunk of time, so that the values between them stay in the cache and take
    at most the memory of two chunks, however many steps there are. The packed engine
    gives the same bits as for whole sequences. Bidirectional layers, those that go backwards or have an
    `activity_regularizer`, and dropout in training take whole sequences.

    States, given and returned, are in the order of the layers: one of a GRU, two of a Bidirectional, forward
    and backward. Weights are in the order of the layers.

    A call that fails leaves no layer changed. Calls with a recorded state, an activity regularizer or
    `training=True`, and the first one, run one after the other; others run side by side.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru
    >>> stack = fastgru.Stack([fastgru.GRU(8, return_sequences=True), fastgru.GRU(4)], return_state=True)
    >>> output, *states = stack(np.zeros((2, 5, 3), np.float32))
    >>> output.shape, [state.shape for state in states]
    ((2, 4), [(2, 8), (2, 4)])
    """

    def __init__(
        self,
        layers: Sequence["GRU | Bidirectional | Stack"],
        return_state: bool | None = None,
        *,
        name: str | None = None,
    ) -> None:
        members = _members(layers)
        super().__init__(name=name, dtype=_output_dtype(members[-1]))
        self._compose(members)
        self._check_flags()
        self.return_state = (
            bool(members[-1].return_state)
            if return_state is None
            else _validate.flag("return_state", return_state)
        )

    def __repr__(self) -> str:
        return f"<Stack {self.name!r}: {', '.join(map(repr, self._members))}>"

    return_state = flag("return_state")
    _takes_none = True

    # ---- its layers ------------------------------------------------------------------------

    @property
    def layers(self) -> tuple[Any, ...]:
        """The layers, the lowest first."""
        return self._members

    @property
    def units(self) -> int:
        """Size of the last axis of the output."""
        return self._width

    @property
    def return_sequences(self) -> bool:
        """True if the last layer returns the output of every step."""
        return bool(self._members[-1].return_sequences)

    @property
    def time_major(self) -> bool:
        """`time_major` of all layers."""
        return bool(self._members[0].time_major)

    @property
    def stateful(self) -> bool:
        """True if any layer records its state."""
        return any(part.stateful for part in self._parts)

    def _check_flags(self) -> None:
        for layer in self._members[:-1]:
            if not layer.return_sequences:
                raise ValueError(
                    "layers must return sequences for those above them, all but the last one, got "
                    f"return_sequences=False of {layer.name!r}: set its return_sequences to True"
                )
        for layer in self._members:
            layer._check_flags()
            if bool(layer.time_major) != self.time_major:
                raise ValueError(
                    f"layers must agree in time_major, got {self.time_major} of {self._members[0].name!r} "
                    f"and {bool(layer.time_major)} of {layer.name!r}"
                )

    # ---- building and weights --------------------------------------------------------------

    def build(self, input_shape: Any = None) -> None:
        """Make the weights of all layers, or of none; the first call does this by itself.

        Parameters
        ----------
        input_shape : tuple, optional
            As for `GRU.build`. By default the shape that the lowest layer was given.

        Raises
        ------
        ValueError
            If the shape is invalid, a stateful layer's batch is unknown or 0, or a layer has been built for
            other features.
        TypeError
            If the features are unknown.
        """
        lowest = self._members[0]
        shapes = [layer._batch_input_shape for layer in (lowest, *lowest._inner())]
        given = next((shape for shape in shapes if shape is not None), None)
        self._build(given if input_shape is None else input_shape)

    def _builds(self, shape: tuple[int | None, ...]) -> dict[WeightedMember, Built]:
        made: dict[WeightedMember, Built] = {}
        for layer in self._members:
            made |= layer._builds(shape)
            shape = (*shape[:2], layer._width)
        return made

    @property
    def trainable(self) -> bool:
        """True if an optimizer would change any weights. Setting it sets that of all layers."""
        return any(layer.trainable for layer in self._members)

    @trainable.setter
    def trainable(self, value: Any) -> None:
        value = _validate.trainable(value)
        with self._alone():
            for layer in self._members:
                layer.trainable = value

    @property
    def trainable_weights(self) -> list[Array]:
        """Those of all layers."""
        with self._alone():
            return [array for layer in self._members for array in layer.trainable_weights]

    @property
    def non_trainable_weights(self) -> list[Array]:
        with self._alone():
            return [array for layer in self._members for array in layer.non_trainable_weights]

    # ---- calling ---------------------------------------------------------------------------

    @compiled
    def call(
        self,
        inputs: Any,
        training: Any = None,
        mask: Any = None,
        initial_state: Any = None,
        *,
        lengths: Any = None,
        out: Any = None,
    ) -> Any:
        """Run all layers: `stack(...)` with Keras' other order of arguments.

        Parameters
        ----------
        inputs : ndarray, shape (batch, timesteps, features)
            Or (timesteps, batch, features) if `time_major`; or a list of it and the initial states.
        initial_state : list or tuple of ndarrays, shape (batch, units), optional
            One for each GRU, in the order of the layers, of a Bidirectional forward, then backward. None
            stands for the state that the layer starts from by itself.
        mask : array_like, shape (batch, timesteps), optional
            Or (timesteps, batch) if `time_major`; for every layer, as for `GRU` and `Bidirectional`.
        training : bool, optional
            Drop out. By default a call does not.
        lengths : array_like of int, shape (batch,), optional
            Number of timesteps of each row, in place of a mask that is true at these first ones.
        out : ndarray, optional
            Where to write the output: of exactly its shape and dtype, sharing no memory with the inputs, the
            mask, the states or the weights.

        Returns
        -------
        ndarray or list
            What the last layer returns: (batch, timesteps, units), time-major as the inputs, with
            `return_sequences`, else (batch, units); two of them with its `merge_mode=None`. With
            `return_state` a list of it and of the last states, (batch, units), in the order of the layers.

        Raises
        ------
        ValueError
            If a shape does not fit, there is no timestep, there is not one initial state for each GRU, a
            stateful layer's batch is empty, flags of the layers no longer fit each other, `lengths` are no
            integers, out of range or beside a mask, `out` has another dtype, is read-only, shares memory or
            is given for two outputs, or a dropout rate is 1 in training.
        TypeError
            If an argument is no array, or not of floats (integers are not cast), or `training` is no flag.
        """

    def _given_states(self, initial_state: Any, batch: int) -> list[Array | None]:
        if initial_state is None:
            return [None] * len(self._parts)
        if not isinstance(initial_state, (list, tuple)) or len(initial_state) != len(self._parts):
            listed = isinstance(initial_state, (list, tuple))
            raise ValueError(
                f"initial_state must be a list of {len(self._parts)} states, one for each GRU in the order "
                f"of the layers, got {len(initial_state) if listed else type(initial_state).__name__}"
            )
        return [
            None
            if state is None
            else _validate.state(
                f"initial_state of {part.name}", state, (batch, part.units), part._compute_dtype
            )
            for part, state in zip(self._parts, initial_state, strict=True)
        ]

    @property
    def _input_dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self._members[0]._compute_dtype
        return dtype

    @property
    def _dtypes(self) -> list[np.dtype[Any]]:
        dtypes: list[np.dtype[Any]] = self._members[-1]._dtypes
        return dtypes

    @property
    def _width(self) -> int:
        width: int = self._members[-1]._width
        return width

    def _target(self, out: Any, rows: tuple[int, ...], read: Sequence[Any]) -> Array:
        target: Array = self._members[-1]._target(out, rows, [*read, *self.weights])
        return target

    def _check_fits(self, shape: tuple[int, ...], batch: int, parts: Mapping[Any, Built]) -> None:
        for layer in self._members:
            layer._check_fits(shape, batch, parts)
            shape = (*shape[:2], layer._width)

    def _add_to(self, graph: Graph, x: int, last: bool) -> list[int]:
        values = [x]
        for layer in self._members:
            values = layer._add_to(graph, values[0], last and layer is self._members[-1])
        return values

    def _evaluated(self, parts: Mapping[Any, Built], call: Call) -> Outcome:
        outputs, starts = [call.x], list(call.starts)
        states: list[Array] = []
        losses: dict[Any, list[Any]] = {}
        for layer in self._members:
            own = [starts.pop(0) for _ in layer._parts]
            sequences = call.sequences or layer is not self._members[-1]
            found = layer._evaluated(parts, call._replace(x=outputs[0], starts=own, sequences=sequences))
            outputs = found.outputs
            states += found.states
            losses |= found.losses
        return Outcome(outputs, states, losses)

    # ---- state -----------------------------------------------------------------------------

    def reset_states(self, states: Any = None) -> None:
        """Set the recorded states of stateful layers: all, or none.

        Parameters
        ----------
        states : list or tuple of ndarrays, shape (batch, units), optional
            As `states` returns them, one for each GRU; copied. None, for one or for all, means zeros or the
            layer's `default_state`. A layer that is not stateful takes None.

        Raises
        ------
        AttributeError
            If no layer is stateful.
        ValueError
            If the batch size is unknown because a layer is not built, or there is not one state for each GRU
            of the right shape and of a type that can be cast to the layer's.
        """
        if not self.stateful:
            raise AttributeError("Layer must be stateful.")
        if states is None:
            states = [None] * len(self._parts)
        if not isinstance(states, (list, tuple)) or len(states) != len(self._parts):
            got = len(states) if isinstance(states, (list, tuple)) else type(states).__name__
            raise ValueError(
                f"states must be a list of {len(self._parts)} states, one for each GRU in the order of the "
                f"layers, got {got}"
            )
        with self._alone():
            changes: list[tuple[Any, str, Any]] = []
            for part, state in zip(self._parts, states, strict=True):
                if part.stateful:
                    changes.append((part, "_state", part._reset_to(state)))
                elif state is not None:
                    raise ValueError(f"states must be None for {part.name!r}, which is not stateful")
            commit(changes, [])

    # ---- shapes and masks ------------------------------------------------------------------

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Shape of what a call returns for inputs of this shape: a tuple, or a list of them.

        Raises
        ------
        ValueError
            If `input_shape` is no shape of two axes or more.
        TypeError
            If one of its sizes is no integer.
        """
        shape = _validate.shape("input_shape", input_shape)
        states: list[Any] = []
        outputs: list[Any] = [shape]
        for layer in self._members:
            found = layer.compute_output_shape(outputs[0])
            outputs = found if isinstance(found, list) else [found]
            if layer.return_state:
                outputs = outputs[: -len(layer._parts)]
            states += [(shape[1 if self.time_major else 0], part.units) for part in layer._parts]
        results = outputs + states if self.return_state else outputs
        return results if len(results) > 1 else results[0]

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Mask of what a call returns: the mask for sequences, None for all else."""
        if isinstance(mask, (list, tuple)):
            mask = mask[0] if mask else None
        last = self._members[-1]
        unmerged = isinstance(last, Bidirectional) and last.merge_mode is None
        masks = [mask if self.return_sequences else None] * (2 if unmerged else 1)
        if self.return_state:
            masks += [None] * len(self._parts)
        return masks if len(masks) > 1 else masks[0]

    # ---- streams ---------------------------------------------------------------------------

    def _check_forward(self) -> None:
        for layer in self._members:
            layer._check_forward()

    # ---- config ----------------------------------------------------------------------------

    def _described(self) -> _description.Stack:
        layers = [layer._described() for layer in self._members]
        return _description.of(_description.Stack, self, cls=Stack, layers=layers)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; layers as Keras writes them."""
        layers = [serialized(layer) for layer in self._members]
        return {"name": self.name, "layers": layers, "return_state": self.return_state}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        layers = config.get("layers")
        if not isinstance(layers, list):
            raise ValueError(f"layers must be a list of dicts, got {layers!r}")
        config["layers"] = [deserialized("layers", layer, GRU, Bidirectional) for layer in layers]
        return super().from_config(config)
