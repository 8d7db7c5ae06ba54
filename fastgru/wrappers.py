"""Layers made of GRUs: `tf.keras.layers.Bidirectional`."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import _description, _keras_config, _validate
from fastgru._calls import commit, compiled
from fastgru._compile import Graph
from fastgru._composite import CompositeLayer
from fastgru._layer import Layer
from fastgru._member import Built, Call, Outcome, WeightedMember
from fastgru.gru import GRU

Array = NDArray[Any]

MERGE_MODES = ("sum", "mul", "ave", "concat", None)
FLAGS = ("stateful", "return_sequences", "return_state", "time_major")  # of a layer, which may be set


def _common(name: str) -> property:
    return property(lambda layer: getattr(layer.forward_layer, name), doc=f"`{name}` of both directions.")


def _gru(name: str, value: Any) -> GRU:
    if not isinstance(value, GRU):
        raise ValueError(f"{name} must be a fastgru.GRU, got {value!r} of type {type(value).__name__}")
    return value


def serialized(layer: Layer) -> dict[str, Any]:
    """The layer's class and config, as Keras writes them."""
    return _keras_config.serialized(type(layer).__name__, layer.get_config())


def deserialized(name: str, value: Any, *classes: Any) -> Any:
    """The layer that `serialized` wrote, which must be of one of these classes."""
    # no match statement, which does not see the dicts in the original's configs as mappings
    class_name, config = (value.get("class_name"), value.get("config")) if isinstance(value, dict) else (0, 0)
    cls = next((cls for cls in classes if cls.__name__ == class_name), None)
    if cls is None or not isinstance(config, dict):
        known = " or ".join(repr(cls.__name__) for cls in classes)
        raise ValueError(
            f"{name} must be a dict with {known} as its 'class_name' and a dict as its 'config', "
            f"got {value!r}"
        )
    return cls.from_config(config)


class Bidirectional(CompositeLayer):
    """Runs a GRU over its inputs forwards and another one backwards, and merges their outputs.

    Parameters
    ----------
    layer : GRU
        Its config makes the forward layer; weights and states are not taken over. With a layer that
        goes backwards the roles are swapped.
    merge_mode : {'concat', 'sum', 'mul', 'ave', None}
        How outputs are merged: side by side on the last axis, added, multiplied, averaged, or not at all.
    weights : list of ndarray, optional
        The first weights of both directions, in the order of `get_weights()`.
    backward_layer : GRU, optional
        Copied as the backward layer, with weights and state. By default one is made from `layer`, with
        the opposite `go_backwards`.
    batch_input_shape, input_shape, batch_size, input_dim, input_length : keyword
        The shape of inputs, for the config and for `build()` without an argument.
    name, dtype, trainable : keyword
        `dtype`: what inputs are cast to before both directions cast them to their own. By default `dtype`
        and `trainable` are those of `layer`.

    Raises
    ------
    ValueError
        If a layer is no GRU, `merge_mode` is unknown, or the layers do not fit: `go_backwards` must
        differ, `stateful`, `return_sequences`, `return_state` and `time_major` must agree, and so must
        units and dtype as far as outputs are merged.
    TypeError
        If another argument is of the wrong type or unknown.

    Notes
    -----
    Outputs of the backward layer are reversed in time, into the order of the inputs.
    `zero_output_for_mask` becomes `return_sequences` in both directions, whatever it was.

    Weights are those of the forward layer, then those of the backward layer; where only the latter are
    trainable, they come first, as in Keras. `set_weights` replaces all of them at once: a call in another
    thread sees either all of the old ones or all of the new ones.

    A call that fails leaves no direction changed. Calls with a recorded state, an activity regularizer or
    `training=True`, and the first one, run one after the other; others run side by side.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru
    >>> layer = fastgru.Bidirectional(fastgru.GRU(4, return_sequences=True, return_state=True))
    >>> outputs, forward_state, backward_state = layer(np.zeros((2, 5, 3), np.float32))
    >>> outputs.shape, forward_state.shape, backward_state.shape
    ((2, 5, 8), (2, 4), (2, 4))
    """

    def __init__(
        self,
        layer: GRU,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: GRU | None = None,
        **kwargs: Any,
    ) -> None:
        layer = _gru("layer", layer)
        if not isinstance(merge_mode, str | None) or merge_mode not in MERGE_MODES:
            raise ValueError(
                f"Invalid merge mode. merge_mode must be one of {', '.join(map(repr, MERGE_MODES))}, "
                f"got {merge_mode!r}"
            )
        if kwargs.get("dtype") is None:
            kwargs["dtype"] = layer.dtype
        super().__init__(**{"trainable": layer.trainable} | kwargs, weights=weights)
        self._merge_mode = merge_mode
        self._layer_configs = {"layer": serialized(layer)}
        made, config = type(layer).from_config, layer.get_config()
        forward = made(config | {"name": f"forward_{layer.name}"})
        if backward_layer is None:
            opposite = {"name": f"backward_{layer.name}", "go_backwards": not layer.go_backwards}
            backward = made(config | opposite)
        else:
            self._layer_configs["backward_layer"] = serialized(_gru("backward_layer", backward_layer))
            backward = copy.copy(backward_layer)
            backward.name = f"backward_{backward_layer.name}"
        self._compose([forward, backward])
        merged = {"concat": ("dtype",), None: ()}.get(merge_mode, ("dtype", "units"))
        self._check_directions([*FLAGS, *merged])
        for direction in self._parts:
            direction.zero_output_for_mask = direction.return_sequences

    def __repr__(self) -> str:
        forward, backward = self._members
        return f"<Bidirectional {self.name!r}: {self._merge_mode} of {forward!r} and {backward!r}>"

    # ---- both directions -------------------------------------------------------------------

    return_sequences = _common("return_sequences")
    return_state = _common("return_state")
    stateful = _common("stateful")
    time_major = _common("time_major")

    @property
    def forward_layer(self) -> GRU:
        """The layer whose outputs come in the order of its run."""
        layer: GRU = self._members[0]
        return layer

    @property
    def backward_layer(self) -> GRU:
        """The layer whose outputs are reversed in time."""
        layer: GRU = self._members[1]
        return layer

    @property
    def merge_mode(self) -> str | None:
        """The constructor's `merge_mode`; read-only."""
        return self._merge_mode

    def _check_flags(self) -> None:
        self._check_directions()

    def _check_directions(self, agreeing: Sequence[str] = FLAGS) -> None:
        """Refuse directions that do not fit each other."""
        forward, backward = self._members
        if bool(forward.go_backwards) == bool(backward.go_backwards):
            raise ValueError(
                "Forward layer and backward layer should have different `go_backwards` value, got "
                f"{forward.go_backwards} for both"
            )
        for name in agreeing:
            values = getattr(forward, name), getattr(backward, name)
            if values[0] != values[1]:
                raise ValueError(
                    "Forward layer and backward layer are expected to have the same value for attribute "
                    f'"{name}", got "{values[0]}" for forward layer and "{values[1]}" for backward layer'
                )

    # ---- building and weights --------------------------------------------------------------

    def build(self, input_shape: Any = None) -> None:
        """Make the weights of both directions, or of none; the first call does this by itself.

        Parameters
        ----------
        input_shape : tuple, optional
            As for `GRU.build`. By default the shape that the constructor was given, or `layer` was.

        Raises
        ------
        ValueError
            If the shape is invalid, a stateful layer's batch is unknown or 0, a direction has been built for
            other features, or the constructor's weights do not fit.
        TypeError
            If the features are unknown.
        """
        given = self._batch_input_shape if input_shape is None else input_shape
        self._build(self._members[0]._batch_input_shape if given is None else given)

    def _builds(self, shape: tuple[int | None, ...]) -> dict[WeightedMember, Built]:
        made: dict[WeightedMember, Built] = {}
        for layer in self._members:
            made |= layer._builds(shape)
        if self._given_weights:
            parts = self._in_order_of_weights()
            specs = [made[part].specs if part in made else part._specs for part in parts]
            values = list(self._counted(_validate.weight_list(self._given_weights), sum(map(len, specs))))
            for part, wanted in zip(parts, specs, strict=True):
                state = made[part].state if part in made else None
                ready = part._ready([values.pop(0) for _ in wanted], wanted)
                made[part] = Built(wanted, *ready, state)
        return made

    def _in_order_of_weights(self) -> list[WeightedMember]:
        """The directions, trainable ones first."""
        return sorted(self._members, key=lambda layer: self._trainable and not layer.trainable)

    @property
    def trainable_weights(self) -> list[Array]:
        """Weights of trainable directions, or none if the layer is not trainable."""
        with self._alone():
            layers = self._members if self._trainable else ()
            return [array for layer in layers for array in layer.trainable_weights]

    @property
    def non_trainable_weights(self) -> list[Array]:
        with self._alone():
            return self.weights[len(self.trainable_weights) :]

    @property
    def trainable(self) -> bool:
        """True if an optimizer would change any weights. Setting it sets that of both directions."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: Any) -> None:
        value = _validate.trainable(value)
        with self._alone():
            self._trainable = self.forward_layer.trainable = self.backward_layer.trainable = value

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
        """Run both directions: `layer(...)` with Keras' other order of arguments.

        Parameters
        ----------
        inputs : ndarray, shape (batch, timesteps, features)
            Or (timesteps, batch, features) if `time_major`; or a list of it and both initial states.
        initial_state : list or tuple of two ndarrays, shape (batch, units), optional
            The forward layer's, then the backward layer's.
        mask : array_like, shape (batch, timesteps), optional
            Or (timesteps, batch) if `time_major`; as for `GRU`, except that in a sequence the output
            of a masked step is zero.
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
            The output: (batch, timesteps, units), time-major as the inputs, with `return_sequences`, else
            (batch, units), where units are those of both directions with `merge_mode='concat'`. With
            `merge_mode=None` a list of the forward and of the backward output. With `return_state` a list
            that ends in the last states, (batch, units), of the forward and of the backward layer.

        Raises
        ------
        ValueError
            If a shape does not fit, there is no timestep, there are not two initial states, a stateful
            layer's batch is empty, flags of the directions no longer fit each other, `lengths` are no
            integers, out of range or beside a mask, `out` has another dtype, is read-only, shares memory or
            is given for two outputs, or a dropout rate is 1 in training.
        TypeError
            If an argument is no array, or not of floats (integers are not cast), or `training` is no flag.
        """

    def _given_states(self, initial_state: Any, batch: int) -> list[Array | None]:
        if initial_state is None:
            return [None, None]
        listed = isinstance(initial_state, (list, tuple))
        if not listed or len(initial_state) % 2:
            got = f"{len(initial_state)} states" if listed else type(initial_state).__name__
            raise ValueError(
                "When passing `initial_state` to a Bidirectional RNN, the state should be a list containing "
                f"the states of the underlying RNNs, forward and backward, got {got}"
            )
        half = len(initial_state) // 2
        halves = initial_state[:half], initial_state[half:]
        return [
            _validate.state(f"initial_state of {d.name}", state, (batch, d.units), d._compute_dtype)
            for d, state in zip(self._members, halves, strict=True)
        ]

    @property
    def _dtypes(self) -> list[np.dtype[Any]]:
        dtypes = [part._dtype for part in self._parts]
        return dtypes if self._merge_mode is None else dtypes[:1]

    @property
    def _width(self) -> int:
        units = [part.units for part in self._parts]
        return sum(units) if self._merge_mode == "concat" else units[0]

    def _target(self, out: Any, rows: tuple[int, ...], read: Sequence[Any]) -> Array:
        if self._merge_mode is None:
            raise ValueError("out must be None with merge_mode=None, as there are two outputs, got an array")
        return super()._target(out, rows, read)

    def _check_fits(self, shape: tuple[int, ...], batch: int, parts: Mapping[Any, Built]) -> None:
        for part in self._members:
            part._check_fits(shape, batch, parts)

    def _add_to(self, graph: Graph, x: int, last: bool) -> list[int]:
        x = graph.cast(x, self._compute_dtype)
        forward, backward = self._members
        reverse_output = {forward: False, backward: not last}
        # first what needs the whole input: the other direction then runs together with what reads the output
        order = sorted(self._members, key=lambda part: not (part.go_backwards or reverse_output[part]))
        if self._merge_mode == "concat":
            output = graph.value(self._width, forward._compute_dtype, last)
            for part in order:
                column = 0 if part is forward else forward.units
                graph.gru(part, graph.cast(x, part._compute_dtype), output, column, reverse_output[part])
            return [graph.cast(output, forward._dtype)]
        values = {part: part._add_part(graph, x, last, reverse_output[part]) for part in order}
        both = values[forward], values[backward]
        return list(both) if self._merge_mode is None else [graph.merge(self._merge_mode, *both)]

    def _evaluated(self, parts: Mapping[Any, Built], call: Call) -> Outcome:
        call = call._replace(x=_validate.cast(call.x, self._compute_dtype))
        found = [
            part._evaluated(parts, call._replace(starts=[start]))
            for part, start in zip(self._members, call.starts, strict=True)
        ]
        y, y_rev = (each.outputs[0] for each in found)
        if call.sequences:
            y_rev = y_rev[::-1] if call.time_major else y_rev[:, ::-1]
        outputs: list[Array] = [y, np.ascontiguousarray(y_rev)]
        if self._merge_mode == "concat":
            outputs = [np.concatenate(outputs, axis=-1)]
        elif self._merge_mode is not None:
            with np.errstate(all="ignore"):
                merged = y * y_rev if self._merge_mode == "mul" else y + y_rev
                outputs = [merged / y.dtype.type(2) if self._merge_mode == "ave" else merged]
        losses = {part: loss for each in found for part, loss in each.losses.items()}
        return Outcome(outputs, [each.states[0] for each in found], losses)

    def _structured(self, outputs: list[Any], states: list[Any]) -> Any:
        """The results as Keras returns them: a list, except for a single output."""
        results = outputs + states
        return results if states or self._merge_mode is None else results[0]

    # ---- state -----------------------------------------------------------------------------

    def reset_states(self, states: Any = None) -> None:
        """Set the recorded states of stateful directions: both, or none.

        Parameters
        ----------
        states : list or tuple of two ndarrays, shape (batch, units), optional
            The forward layer's, then the backward layer's; copied. Defaults to zeros or `default_state`.

        Raises
        ------
        AttributeError
            If the layer is not stateful.
        ValueError
            If the batch size is unknown because the layer is not built, or there is not one state for each
            direction of the right shape and of a type that can be cast to the layer's.
        """
        if not self.stateful:
            raise AttributeError("Layer must be stateful.")
        if states is not None and not isinstance(states, (list, tuple)):
            raise ValueError(
                "Unrecognized value for `states`. Expected `states` to be list or tuple, got "
                f"{type(states).__name__}"
            )
        half = 0 if states is None else len(states) // 2
        with self._alone():
            forward, backward = self._members
            first = forward._reset_to(None if states is None else states[:half])
            second = backward._reset_to(None if states is None else states[half:])
            commit([(forward, "_state", first), (backward, "_state", second)], [])

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
        shapes = [layer.compute_output_shape(input_shape) for layer in self._members]
        states = [state for _, state in shapes] if self.return_state else []
        outputs = [output for output, _ in shapes] if self.return_state else shapes
        if self._merge_mode == "concat":
            outputs = [(*outputs[0][:-1], outputs[0][-1] + outputs[1][-1])]
        elif self._merge_mode is not None:
            outputs = outputs[:1]
        return self._structured(outputs, states)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Mask of what a call returns: the mask for sequences, None for all else."""
        output = self.forward_layer.compute_mask(inputs, mask)
        outputs = [output[0] if self.return_state else output] * (2 if self._merge_mode is None else 1)
        return self._structured(outputs, [None, None] if self.return_state else [])

    # ---- streams ---------------------------------------------------------------------------

    def _check_forward(self) -> None:
        raise ValueError(
            "layer must not be Bidirectional to be streamed, as that reads a sequence from its end, too, "
            f"got {self!r}"
        )

    # ---- config and copies -----------------------------------------------------------------

    def _described(self) -> _description.Bidirectional:
        forward, backward = (layer._described() for layer in self._members)
        return _description.of(
            _description.Bidirectional, self, cls=Bidirectional, forward=forward, backward=backward
        )

    def get_config(self) -> dict[str, Any]:
        layers = copy.deepcopy(self._layer_configs)
        config = super().get_config() | {"layer": layers.pop("layer"), "merge_mode": self._merge_mode}
        return config | layers

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        layer = config.get("layer")
        if isinstance(layer, dict) and "seed" in (layer.get("config") or ()):  # as Keras 3 alone has it
            config = _keras_config.wrapper_of_keras_3(config)
        if config.pop("num_constants", 0):
            raise ValueError("num_constants must be 0, as a GRU takes no constants")
        for name in ("layer", "backward_layer"):
            if config.get(name) is not None:
                config[name] = deserialized(name, config[name], GRU)
        return super().from_config(config)
