"""Base of all layers: name, dtype, weights, losses, config, and the path of a call."""

import contextlib
import itertools
import os
import re
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import _threads, _validate
from fastgru._calls import Caller, Holding, Lock, commit
from fastgru._cascade import Cascade, Part
from fastgru._compile import Graph
from fastgru._core import Network
from fastgru._export import Exports
from fastgru._member import Built, Call, Member, Outcome
from fastgru._plans import Plan
from fastgru._validate_streams import StreamInput, StreamOutput
from fastgru.streaming import Streamable

Array = NDArray[Any]


_name_lock = threading.Lock()
_name_counters: dict[str, Iterator[int]] = {}
_layers: "weakref.WeakSet[Layer]" = weakref.WeakSet()


def _unlock_all() -> None:
    """Replace all locks in the child of a fork, in which threads that held them do not exist."""
    global _name_lock
    _name_lock = threading.Lock()
    for layer in _layers:
        layer._lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_all)


def _unique_name(cls: type) -> str:
    """gru, gru_1, ...: the class in snake case, numbered from the second layer on."""
    base = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<!^)(?=[A-Z][a-z])", "_", cls.__name__).lower()
    if base.startswith("_"):
        base = "private" + base
    with _name_lock:
        number = next(_name_counters.setdefault(base, itertools.count()))
    return f"{base}_{number}" if number else base


def flag(name: str) -> property:
    """An attribute that networks depend on: setting it invalidates them."""
    attribute = f"_{name}"

    def get(layer: "Layer") -> Any:
        return getattr(layer, attribute)

    def change(layer: "Layer", value: Any) -> None:
        setattr(layer, attribute, value)
        layer._changed()

    return property(get, change, doc=f"The constructor's `{name}`; it may be set.")


def threads() -> property:
    """The attribute `num_threads`."""

    def get(layer: "Layer") -> int | str | None:
        return _threads.given(layer._threads)

    def change(layer: "Layer", value: Any) -> None:
        layer._threads = _threads.asked(value)
        layer._changed()

    return property(get, change, doc="The constructor's `num_threads`; it may be set.")


class Layer(Member, Exports, Streamable, Caller):
    """A layer, wherever its weights are kept."""

    _threads = 0  # also of one that was pickled before there were threads

    def __init__(
        self,
        name: Any = None,
        dtype: Any = None,
        trainable: Any = True,
        weights: Any = None,
        num_threads: Any = None,
        **kwargs: Any,
    ) -> None:
        self._batch_input_shape = _validate.batch_input_shape(kwargs)
        if kwargs:
            raise TypeError("Keyword argument not understood:", next(iter(kwargs)))
        self._dtype = _validate.dtype(dtype)
        self._compute_dtype = np.dtype(np.float32) if self._dtype == np.float16 else self._dtype
        self._trainable = _validate.trainable(trainable)
        self._given_weights = None if weights is None else _validate.weight_list(weights)
        self._lock = Lock()
        _layers.add(self)
        self.num_threads = num_threads
        self.name = _unique_name(type(self)) if name is None else _validate.layer_name(name)

    num_threads = threads()

    # ---- building and weights --------------------------------------------------------------

    def _build(self, input_shape: Any) -> None:
        """Make all weights for inputs of that shape, or none."""
        shape = _validate.shape("input_shape", input_shape)
        with self._alone():
            built = self._builds(shape)
            changes = [change for part, made in built.items() for change in part._changes(made)]
            commit([*changes, (self, "_given_weights", None)], list(built))

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace all weights, or none.

        Parameters
        ----------
        weights : sequence of array_like
            In the order and the shapes of `get_weights()`; copied, and cast to the layer's dtype.

        Raises
        ------
        ValueError
            If their number or a shape is not the layer's.
        TypeError
            If one of them is no array of numbers.
        """
        raise NotImplementedError

    def _counted(self, weights: Sequence[Any], wanted: int) -> Sequence[Any]:
        """The weights, of which there must be `wanted`."""
        if len(weights) != wanted:
            raise ValueError(
                f"You called `set_weights(weights)` on layer {self.name!r} with a weight list of length "
                f"{len(weights)}, but the layer was expecting {wanted} weights."
            )
        return weights

    def get_weights(self) -> list[Array]:
        """Copies of the weights; an empty list before the layer is built."""
        return [array.copy() for array in self.weights]

    @property
    def trainable_weights(self) -> list[Array]:
        """All weights, or none if the layer is not trainable."""
        return self.weights if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Array]:
        """The weights that are not in `trainable_weights`."""
        return [] if self.trainable else self.weights

    def count_params(self) -> int:
        """Number of weights, counted one by one.

        Raises
        ------
        ValueError
            If the layer is not built.
        """
        if not self.built:
            raise ValueError(f"You called `count_params` on layer {self.name}, but the layer isn't built.")
        return sum(array.size for array in self.weights)

    def apply_constraints(self) -> None:
        """Project every weight that has a constraint, as an optimizer does after each update.

        Arrays that `weights` has returned before keep their values.
        """
        raise NotImplementedError

    @property
    def losses(self) -> list[Any]:
        """Losses of the last call's activity, then those of the weights, in their order."""
        raise NotImplementedError

    # ---- plain facts -----------------------------------------------------------------------

    @property
    def dtype(self) -> str:
        """Name of the type of weights, input and output."""
        return self._dtype.name

    @property
    def trainable(self) -> bool:
        """True if an optimizer would change the weights."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: Any) -> None:
        self._trainable = _validate.trainable(value)

    @property
    def supports_masking(self) -> bool:
        """Always True: the layer takes masks."""
        return True

    # ---- streams ---------------------------------------------------------------------------

    def _cascade(self) -> Cascade:
        self._check_forward()
        with self._alone():
            plans = {part: part._plan for part in self._parts}
        fast = all(isinstance(plan, Plan) for plan in plans.values())
        parts = [*plans]
        network = self._stepping(plans, False) if fast else None
        features = next(iter(plans.values())).features
        dtype = parts[0]._compute_dtype if network is None else network.dtype
        units = parts[-1].units if network is None else network.units
        output_dtype = parts[-1]._dtype if network is None else network.output_dtype
        return Cascade(
            layers=parts,
            parts=[
                Part(part.name, part.units, part._dtype, part._compute_dtype, part._default_state)
                for part in parts
            ],
            time_major=bool(self.time_major),
            single=not self._inner(),
            network=network,
            alone=[]
            if fast
            else [
                part._stepping({part: plan}, True) if isinstance(plan, Plan) else plan
                for part, plan in plans.items()
            ],
            inputs=[StreamInput("x", features, dtype)],
            outputs=[StreamOutput("out", units, output_dtype)],
        )

    def _stepping(self, plans: Mapping[Any, Plan], return_state: bool) -> Network:
        graph = Graph(next(iter(plans.values())).features, self._input_dtype, plans)
        graph.threads = self._threads
        return graph.network(self._add_to(graph, 0, False), bool(self.time_major), return_state, False)

    # ---- config and copies -----------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": self.dtype}
        if self._batch_input_shape is not None:
            config["batch_input_shape"] = self._batch_input_shape
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A layer from the result of `get_config`, ours or Keras' own, which is left as it is.

        Raises
        ------
        ValueError, TypeError
            As the constructor.
        """
        return cls(**config)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()
        _layers.add(self)

    # ---- calling ---------------------------------------------------------------------------

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
        if isinstance(inputs, list):
            inputs, initial_state = _validate.inputs_and_state(inputs, initial_state)
        x = _validate.uncast_inputs(inputs, self.name, self._input_dtype)
        versions = self._versions(self._others)
        flags = bool(self.time_major), bool(self.return_sequences), bool(self.return_state)
        batch, timesteps = x.shape[:2][:: -1 if flags[0] else 1]
        if timesteps == 0:
            raise ValueError(f"inputs must have at least one timestep, got shape {x.shape}")
        read = [x, inputs, initial_state, mask, lengths]
        states = self._given_states(initial_state, batch)
        if mask is not None:
            mask = _validate.mask(mask, x.shape[:2])
        if lengths is not None:
            if mask is not None:
                raise ValueError("lengths must be given without a mask, got both")
            lengths = _validate.lengths(lengths, batch, first + timesteps)
        target = None
        if out is not None:
            rows = x.shape[:2] if flags[1] else (batch,)
            target = self._target(out, rows, [*read, mask, lengths, *states])
        rates = (rate for part in self._parts for rate in (part.dropout, part.recurrent_dropout))
        training = _validate.training(training, *rates)
        with self._alone() if self._needs_all(training) else contextlib.nullcontext():
            with self._alone():  # the weights in it may also change by themselves, or with another layer
                self._check_flags()
                built: dict[Any, Built] = {} if self.built else self._builds(x.shape)
                parts = {part: built[part] if part in built else part._as_built() for part in self._parts}
            self._check_fits(x.shape, batch, parts)
            starts = [
                part._start(batch, state, parts[part].state)
                for part, state in zip(self._parts, states, strict=True)
            ]
            call = Call(x, starts, mask, lengths, training, *flags, target, first)
            found = self._fast(parts, call, None if built else versions) or self._evaluated(parts, call)
            results = [
                _validate.cast(output, dtype)
                for output, dtype in zip(found.outputs, self._dtypes, strict=True)
            ]
            kept = [
                _validate.cast(state, part._dtype)
                for part, state in zip(self._parts, found.states, strict=False)  # or none
            ]
            if call.return_state:
                results += [
                    state.copy() if part.stateful else state
                    for part, state in zip(self._parts, kept, strict=True)
                ]
            if target is not None:
                if results[0] is not target:
                    np.copyto(target, results[0])
                results[0] = out
            changes = [change for part, made in built.items() for change in part._changes(made)]
            if built:
                changes.append((self, "_given_weights", None))
            changes += [
                (part, "_state", state)
                for part, state in zip(self._parts, kept, strict=False)
                if part.stateful
            ]
            changes += [(part, "_activity_losses", losses) for part, losses in found.losses.items()]
            result = results if len(results) > 1 else results[0]
            commit(changes, list(built))
        return result

    def _network_of(self, parts: Mapping[Any, Built], call: Call, dtype: np.dtype[Any]) -> Network:
        """A network of the layer with the flags of the call, for inputs of this dtype."""
        plans = {part: parts[part].plan for part in self._parts}
        graph = Graph(next(iter(plans.values())).features, dtype, plans)
        graph.threads = self._threads
        outputs = self._add_to(graph, 0, not call.sequences)
        defaults = tuple(part._default_state for part in plans)
        return graph.network(
            outputs,
            call.time_major,
            call.return_state,
            self._takes_none,
            defaults if any(state is not None for state in defaults) else None,
        )

    def _fast(self, parts: Mapping[Any, Built], call: Call, versions: list[int] | None) -> Outcome | None:
        """Run the network, and keep it for these versions; None if the call needs Python."""
        if any(not isinstance(built.plan, Plan) for built in parts.values()) or any(
            part.activity_regularizer is not None or (call.training and part._drops) for part in self._parts
        ):
            return None
        way, x = self._short_way(), call.x
        if way or not _validate.is_plain_float(x):
            x = _validate.cast(x, self._input_dtype)
        network = None if versions is None else self._current_network()
        flags = call.time_major, call.sequences, call.return_state
        if network is None or (network.dtype, network.flags) != (x.dtype, flags):
            network = self._network_of(parts, call, x.dtype)
            if versions is not None:
                self._keep_network(network, self._others, versions, way)
        given = None
        if any(start is not None for start in call.starts):
            given = [
                np.zeros((call.batch, part.units), part._compute_dtype)
                if start is None
                else np.require(start, part._compute_dtype, ["C", "A"])
                for part, start in zip(self._parts, call.starts, strict=True)
            ]
        wanted = call.return_state or any(part.stateful for part in self._parts)
        states: list[Array] | None = [] if wanted else None
        arguments = np.require(x, requirements="A"), given, call.mask, call.lengths
        results = network.call(*arguments, call.out, states, call.first)
        if results is NotImplemented:  # an `out` of another layout
            results = network.call(*arguments, None, states, call.first)
        outputs = results[: len(self._dtypes)] if isinstance(results, list) else [results]
        return Outcome(outputs, states or [], {})

    def _short_way(self) -> str | None:
        """The kind of call that needs only the network, as in `_keep_network`; None if no call does."""
        parts = self._parts
        if any(
            (part._dtype is not part._compute_dtype and (self.return_state or part.stateful))
            or part.activity_regularizer is not None
            for part in parts
        ):
            return None
        if not any(part.stateful for part in parts):
            return "plain"
        return None if self._inner() else "records"

    def _needs_all(self, training: bool) -> bool:
        """True if a call needs all layers in this one to itself, to change them or to draw numbers."""
        return (
            training
            or not self.built
            or any(part.stateful or part.activity_regularizer is not None for part in self._parts)
        )

    def _alone(self) -> Holding:
        """Keep other threads from changing this layer, or one in it, while a block runs.

        All threads take the locks in one order, because a layer may be in several others.
        """
        ordered = sorted(self._inner(), key=lambda layer: (not layer._inner(), id(layer)))
        return Holding([self._lock, *(layer._lock for layer in ordered)])
