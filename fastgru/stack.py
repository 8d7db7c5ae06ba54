"""Layers on top of each other: one call, one pass over time where the layers allow it."""

import contextlib
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import _validate
from fastgru._core import Plan, rows_are_whole
from fastgru._layer import CompositeLayer
from fastgru._loop import Loop
from fastgru._validate import InputSpec
from fastgru.gru import GRU
from fastgru.wrappers import Bidirectional, deserialized, serialized

Array = NDArray[Any]

# Of a sequence between two layers, as many bytes as stay in the second-level cache with the weights beside
# them; but enough steps that the start of a run costs little.
CHUNK_BYTES = 512 << 10
CHUNK_STEPS = 16


class Level(NamedTuple):
    """A layer in a call, with what its GRUs compute with and start from."""

    layer: Any
    plans: Sequence[Plan | Loop]
    states: Sequence[Array | None]


def _width(layer: Any) -> int:
    """Size of the last axis of what the layer returns."""
    units: list[int] = [part.units for part in layer._parts]
    merged = not isinstance(layer, Bidirectional) or layer.merge_mode != "concat"
    return units[0] if merged else sum(units)


def _output_dtype(layer: Any) -> np.dtype[Any]:
    """That of the first direction, in which others are merged."""
    dtype: np.dtype[Any] = layer._parts[0]._dtype
    return dtype


def _members(layers: Any) -> list[Any]:
    """The layers of the argument, those of a Stack in its place."""
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
    """Can one layer read what another one returns, as far as it is known?"""
    if isinstance(lower, Bidirectional) and lower.merge_mode is None:
        raise ValueError(
            f"layers must return one output each but for the last one, got merge_mode=None of {lower.name!r}"
        )
    features = [part._plan.features for part in upper._parts if part.built]
    if features and features[0] != _width(lower):
        raise ValueError(
            f"layers must fit each other, but {lower.name!r} returns {_width(lower)} units and "
            f"{upper.name!r} has been built for {features[0]} features"
        )


class Stack(CompositeLayer):
    """Layers on top of each other: each reads what the one before returns.

    Parameters
    ----------
    layers : list or tuple of GRU, Bidirectional or Stack
        The lowest first. The objects themselves, so that weights and recorded states are theirs; a Stack
        contributes its layers. All but the last one return sequences.
    return_state : bool, optional
        Return the last states of all layers, too? By default what the last layer does; the others' own
        `return_state` has no meaning here.
    name : str, keyword

    Raises
    ------
    ValueError
        If there is no layer, one is none or there twice, one but the last returns no sequences or two
        outputs, `time_major` differs, or one has been built for other features than the one before returns.
    TypeError
        If `name` is no string.

    Notes
    -----
    The results are those of the layers called one after the other, each with the mask. GRUs in a row that go
    forward run together, a chunk of time after the other, so that what one hands to the next stays in the
    cache, and no more of it is in memory than two chunks, however many steps there are. The packed engine
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

    # ---- its layers ------------------------------------------------------------------------

    @property
    def layers(self) -> tuple[Any, ...]:
        """The layers, the lowest first."""
        return self._members

    @property
    def units(self) -> int:
        """Size of the last axis of the output."""
        return _width(self._members[-1])

    @property
    def return_sequences(self) -> bool:
        """Does the last layer return the output of every step?"""
        return bool(self._members[-1].return_sequences)

    @property
    def time_major(self) -> bool:
        """`time_major` of all layers."""
        return bool(self._members[0].time_major)

    @property
    def stateful(self) -> bool:
        """Has any layer a recorded state?"""
        return any(part.stateful for part in self._parts)

    def _check_flags(self) -> None:
        """Do the layers' flags, which may be set at any time, go together?"""
        for layer in self._members[:-1]:
            if not layer.return_sequences:
                raise ValueError(
                    "layers must return sequences for those above them, all but the last one, got "
                    f"return_sequences=False of {layer.name!r}: set its return_sequences to True"
                )
        for layer in self._members:
            if isinstance(layer, Bidirectional):
                layer._check_directions()
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
            If the shape is none, a stateful layer's batch is unknown or 0, or a layer has been built for
            other features.
        TypeError
            If the features are unknown.
        """
        with self._all_or_none():
            lowest = self._members[0]
            shapes = [layer._batch_input_shape for layer in (lowest, *lowest._inner())]
            given = next((shape for shape in shapes if shape is not None), None)
            shape = _validate.shape("input_shape", given if input_shape is None else input_shape)
            for layer in self._members:
                layer.build(shape)
                shape = (*shape[:2], _width(layer))

    @property
    def trainable(self) -> bool:
        """Would an optimizer change any weights? Setting it sets that of all layers."""
        return any(layer.trainable for layer in self._members)

    @trainable.setter
    def trainable(self, value: Any) -> None:
        value = _validate.trainable(value)
        with self._lock:
            for layer in self._members:
                layer.trainable = value

    @property
    def trainable_weights(self) -> list[Array]:
        """Those of all layers."""
        with self._lock:
            return [array for layer in self._members for array in layer.trainable_weights]

    @property
    def non_trainable_weights(self) -> list[Array]:
        with self._lock:
            return [array for layer in self._members for array in layer.non_trainable_weights]

    # ---- calling ---------------------------------------------------------------------------

    def __call__(
        self,
        inputs: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: Any = None,
        *,
        lengths: Any = None,
        out: Any = None,
    ) -> Any:
        """Run all layers.

        Parameters
        ----------
        inputs : ndarray, shape (batch, timesteps, features)
            Or (timesteps, batch, features) if `time_major`; or a list of it and the initial states.
        initial_state : list or tuple of ndarrays, shape (batch, units), optional
            One for each GRU, in the order of the layers, of a Bidirectional forward, then backward. None in
            place of one is what the layer starts from by itself.
        mask : array_like, shape (batch, timesteps), optional
            Or (timesteps, batch) if `time_major`; for every layer, as for `GRU` and `Bidirectional`.
        training : bool, optional
            Drop out?
        lengths : array_like of int, shape (batch,), optional
            In place of a mask that is true at the first steps of each row: how many these are.
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
            If an array is none, or not of floats (integers are not cast), or `training` is no flag.
        """
        if training is None and lengths is None and out is None:
            results = self._short_call(inputs, initial_state, mask)
            if results is not NotImplemented:
                return results
        if isinstance(inputs, list):
            inputs, initial_state = _validate.inputs_and_state(inputs, initial_state)
        x = _validate.uncast_inputs(inputs, self.name, self._members[0]._compute_dtype)
        batch, timesteps = x.shape[:2][:: -1 if self.time_major else 1]
        if timesteps == 0:
            raise ValueError(f"inputs must have at least one timestep, got shape {x.shape}")
        states = self._given_states(initial_state, batch)
        if mask is not None:
            mask = _validate.mask(mask, x.shape[:2])
        if lengths is not None:
            if mask is not None:
                raise ValueError("lengths must be given without a mask, got both")
            mask = _validate.lengths(lengths, batch, timesteps)
        rates = (rate for part in self._parts for rate in (part.dropout, part.recurrent_dropout))
        training = _validate.training(training, *rates)
        target = None
        if out is not None:
            target = self._target(out, x.shape, [x, inputs, mask, lengths, *states])
        alone, return_state = self._needs_all(training), bool(self.return_state)
        with self._all_or_none() if alone else contextlib.nullcontext():
            with self._lock:
                self._check_flags()
                if not self.built:
                    self.build(x.shape)
                plans = self._plans()
            levels = self._levels(plans, states, x.shape)
            outputs, last = self._run(levels, x, mask, training, alone, target)
        if out is not None:
            outputs[0] = out
        results = outputs + last if return_state else outputs
        return results if len(results) > 1 else results[0]

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
        """`__call__` with Keras' other order of arguments."""
        return Stack.__call__(self, inputs, initial_state, mask, training, lengths=lengths, out=out)

    def _short_call(self, x: Any, initial_state: Any, mask: Any) -> Any:
        """What a call returns that changes nothing and whose sequences fit into a chunk; else NotImplemented.

        That is for the few steps of small layers, which take a microsecond each: it converts nothing and
        complains of nothing.
        """
        layers, return_state = self._members, bool(self.return_state)
        states = [None] * len(layers) if initial_state is None else initial_state
        if type(x) is not np.ndarray or x.ndim != 3:
            return NotImplemented
        if not isinstance(states, (list, tuple)) or len(states) != len(layers):
            return NotImplemented
        dtype, time_major = x.dtype, bool(layers[0].time_major)
        rows, last = x.shape[0] * x.shape[1], []
        with self._lock:  # all of one set of weights
            plans: list[Any] = [layer._plan if type(layer) is GRU else None for layer in layers]
        for layer, plan in zip(layers, plans, strict=True):
            if (
                type(plan) is not Plan
                or layer._dtype != dtype
                or layer._dtype is not layer._compute_dtype
                or layer.stateful
                or layer.activity_regularizer is not None
                or layer._default_state is not None
                or bool(layer.time_major) is not time_major
                or not (layer.return_sequences or layer is layers[-1])
                or rows * layer.units * dtype.itemsize > CHUNK_BYTES
            ):
                return NotImplemented
        for layer, plan, state in zip(layers, plans, states, strict=True):
            sequences = bool(layer.return_sequences)
            results = plan.call(
                x,
                state,
                mask,
                None,
                None,
                None,
                time_major,
                layer.go_backwards,
                layer.zero_output_for_mask,
                sequences,
                return_state,
            )
            if results is NotImplemented:
                return results
            x = results
            if return_state:
                x, state = results
                last.append(state)
        return [x, *last] if return_state else x

    def _given_states(self, initial_state: Any, batch: int) -> list[Array | None]:
        """The checked initial state of each GRU; None: its own."""
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

    def _target(self, out: Any, input_shape: tuple[int, ...], read: Sequence[Any]) -> Array:
        """The checked array for the output."""
        last = self._members[-1]
        if isinstance(last, Bidirectional) and last.merge_mode is None:
            raise ValueError("out must be None with merge_mode=None, as there are two outputs, got an array")
        rows = input_shape[:2] if last.return_sequences else (input_shape[1 if self.time_major else 0],)
        return _validate.out(out, (*rows, self.units), _output_dtype(last), [*read, *self.weights])

    def _levels(
        self, plans: Sequence[Any], states: Sequence[Array | None], shape: tuple[int, ...]
    ) -> list[Level]:
        """The layers with their plans and states, once inputs of that shape fit all of them."""
        levels, first = [], 0
        batch = shape[1 if self.time_major else 0]
        for layer in self._members:
            end = first + len(layer._parts)
            levels.append(Level(layer, plans[first:end], states[first:end]))
            for part, plan in zip(layer._parts, plans[first:end], strict=True):
                part._check_fit(shape, batch, plan, part._state if part.stateful else None)
            first, shape = end, (*shape[:2], _width(layer))
        return levels

    def _run(
        self,
        levels: Sequence[Level],
        x: Array,
        mask: Array | None,
        training: bool,
        alone: bool,
        out: Array | None,
    ) -> tuple[list[Array], list[Array]]:
        """The outputs of a checked call, and all last states; a mask of one axis is lengths."""

        def goes_along(level: Level) -> bool:
            layer = level.layer
            return not (
                isinstance(layer, Bidirectional)
                or layer.go_backwards
                or layer.activity_regularizer is not None
                or (training and (layer.dropout or layer.recurrent_dropout))
            )

        outputs, last = [x], []
        for along, group in itertools.groupby(levels, goes_along):
            run = list(group)
            for part in [run] if along else [[level] for level in run]:
                target = out if part[-1] is levels[-1] else None
                if len(part) > 1:
                    output, states = self._together(part, outputs[0], mask, target)
                    outputs = [output]
                else:
                    outputs, states = _whole(part[0], outputs[0], mask, training, alone, target)
                last += states
        return outputs, last

    def _together(
        self, levels: Sequence[Level], x: Array, mask: Array | None, out: Array | None
    ) -> tuple[Array, list[Array]]:
        """The output of GRUs that go forward and their last states, chunk after chunk of time."""
        time_major, layers = self.time_major, [level.layer for level in levels]
        batch, timesteps = x.shape[:2][:: -1 if time_major else 1]
        top, sequences = layers[-1], bool(layers[-1].return_sequences)
        starts = [_start(level, batch) for level in levels]
        states = [np.empty((batch, layer.units), layer._compute_dtype) for layer in layers]
        if out is None:
            out = np.empty((*x.shape[:2], top.units) if sequences else (batch, top.units), top._dtype)
        in_place = sequences and out.dtype == top._compute_dtype and rows_are_whole(out)
        buffers = Buffers(layers if sequences and not in_place else layers[:-1], batch, timesteps)
        masks = None if mask is None else _Masks(mask, batch, time_major)

        for first in range(0, timesteps, buffers.steps):
            end = min(first + buffers.steps, timesteps)
            chunk = np.s_[first:end] if time_major else np.s_[:, first:end]
            y = x[chunk]
            if masks is not None:
                masks.move(first, end)
            for i, (layer, level, state) in enumerate(zip(layers, levels, states, strict=True)):
                y = _validate.cast(y, layer._compute_dtype)
                target = None
                if layer is not top or (sequences and not in_place):
                    target = buffers.of(i, layer, y.shape[:2])
                elif sequences:
                    target = out[chunk]
                plan, zeros = level.plans[0], bool(layer.zero_output_for_mask)
                before = None
                if masks is not None and masks.held is not None and target is not None and not zeros:
                    before = state.copy()
                start = state if first else starts[i]
                steps = None if masks is None else masks.of(plan)
                plan.run(y, start, state, target, steps, time_major, False, zeros)
                if target is not None:
                    if masks is not None and before is not None:
                        target[masks.held] = before[masks.held_rows]
                    y = _validate.cast(target, layer._dtype)
            if sequences and not in_place:
                out[chunk] = y

        for layer, state in zip(layers, states, strict=True):
            if layer.stateful:
                layer._keep(state.copy())
        last = [_validate.cast(state, layer._dtype) for layer, state in zip(layers, states, strict=True)]
        if not sequences:
            out[...] = last[-1]
            if masks is not None:
                out[~(masks.last if top.zero_output_for_mask else masks.seen)] = 0
        return out, last

    # ---- state -----------------------------------------------------------------------------

    def reset_states(self, states: Any = None) -> None:
        """Set the recorded states of stateful layers: all, or none.

        Parameters
        ----------
        states : list or tuple of ndarrays, shape (batch, units), optional
            As `states` has them, one for each GRU; copied. None, in place of one or of all: zeros, or the
            layer's `default_state`. A layer that is not stateful has none.

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
        with self._all_or_none():
            for part, state in zip(self._parts, states, strict=True):
                if part.stateful:
                    part.reset_states(state)
                elif state is not None:
                    raise ValueError(f"states must be None for {part.name!r}, which is not stateful")

    # ---- shapes and masks ------------------------------------------------------------------

    @property
    def input_spec(self) -> list[InputSpec]:
        """What a call expects of its inputs: their rank, and once built the shape."""
        spec: list[InputSpec] = self._members[0].input_spec
        return spec

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

    # ---- config ----------------------------------------------------------------------------

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


def _start(level: Level, batch: int) -> Array | None:
    """What the plan of a GRU starts from; None: zeros."""
    layer = level.layer
    start = layer._start(batch, level.states[0], bool(layer.stateful))
    return None if start is None else np.require(start, layer._compute_dtype, ["C", "A"])


class Buffers:
    """Memory for what one layer hands to the next, two pieces that are reused in turn.

    Attributes
    ----------
    steps : int
        Of one chunk.
    """

    def __init__(self, layers: Sequence[GRU], batch: int, timesteps: int) -> None:
        step_bytes = batch * max(layer.units * layer._compute_dtype.itemsize for layer in layers)
        self.steps = max(1, min(timesteps, max(CHUNK_STEPS, CHUNK_BYTES // max(1, step_bytes))))
        self._memory = [np.empty(self.steps * step_bytes, np.uint8) for _ in layers[:2]]

    def of(self, i: int, layer: GRU, rows: tuple[int, ...]) -> Array:
        """The array that the layer on level i writes into, with these first two axes."""
        dtype, shape = layer._compute_dtype, (*rows, layer.units)
        return np.ndarray(shape, dtype, self._memory[i % 2])


class _Masks:
    """The mask of a call, a chunk of time after the other.

    Attributes
    ----------
    held : bool ndarray or None
        (batch, steps), time-major as the mask: where the output is the state from before the chunk, as all
        steps of the row in this chunk are masked so far, but one in an earlier chunk was not. None: nowhere.
    held_rows : int ndarray
        The row of each of these places.
    seen : bool ndarray, shape (batch,)
        Has the row had a step that is not masked?
    last : bool ndarray, shape (batch,)
        Is the last step of the chunk one?
    """

    def __init__(self, mask: Array, batch: int, time_major: bool) -> None:
        self._mask = mask
        self._time_major = time_major
        self.seen = np.zeros(batch, bool)

    def move(self, first: int, end: int) -> None:
        """Go to the steps from `first` to before `end`."""
        if self._mask.ndim == 1:
            self._lengths: Array | None = np.clip(self._mask - first, 0, end - first)
            valid = _validate.mask_of_lengths(self._lengths, end - first, self._time_major)
        else:
            self._lengths = None
            valid = self._mask[first:end] if self._time_major else self._mask[:, first:end]
        time = 0 if self._time_major else 1
        started = np.logical_or.accumulate(valid, axis=time)
        held = ~started & (self.seen if self._time_major else self.seen[:, np.newaxis])
        self.held_rows = np.nonzero(held)[1 if self._time_major else 0]
        self._valid, self.held = valid, held if len(self.held_rows) else None
        self.last = valid.take(-1, axis=time)
        self.seen = self.seen | started.take(-1, axis=time)

    def of(self, plan: Plan | Loop) -> Array:
        """The chunk's mask as the plan takes it: packed weights are not read for rows that have ended."""
        packed = isinstance(plan, Plan) and plan.engine == "packed"
        return self._lengths if packed and self._lengths is not None else self._valid


def _whole(
    level: Level, x: Array, mask: Array | None, training: bool, alone: bool, out: Array | None
) -> tuple[list[Array], list[Array]]:
    """The outputs and the last states of one layer that takes whole sequences."""
    layer = level.layer
    mask, lengths = (mask, None) if mask is None or mask.ndim == 2 else (None, mask)
    if isinstance(layer, GRU):
        output, state = layer._long_call(
            x, mask, training, level.states[0], out, lengths, level.plans[0], return_state=True
        )
        return [output], [state]
    x = _validate.cast(x, layer._compute_dtype)
    outputs, states = layer._run(
        level.plans, x, level.states, mask, lengths, training, alone, return_state=True
    )
    if out is not None:
        out[...] = outputs[0]
    return outputs, states
