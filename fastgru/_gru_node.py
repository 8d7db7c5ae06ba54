"""How a GRU computes: its weights, and the node or the loop that it becomes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import _config, _random, _validate, activations, initializers
from fastgru._calls import commit
from fastgru._compile import Graph
from fastgru._loop import Loop
from fastgru._member import Built, Call, Outcome, Weight, WeightedMember
from fastgru._plans import Plan
from fastgru._weighted import WeightedLayer

Array = NDArray[Any]


class GRUNode(WeightedLayer):
    """The computation of a GRU; its subclass `GRU` adds Keras' interface, and sets these attributes."""

    go_backwards: Any
    zero_output_for_mask: Any
    input_spec: Any
    _units: int
    _activation: Any
    _recurrent_activation: Any
    _use_bias: bool
    _kernel_initializer: Any
    _recurrent_initializer: Any
    _bias_initializer: Any
    _kernel_regularizer: Any
    _recurrent_regularizer: Any
    _bias_regularizer: Any
    _kernel_constraint: Any
    _recurrent_constraint: Any
    _bias_constraint: Any
    _dropout: float
    _recurrent_dropout: float
    _implementation: int
    _reset_after: bool
    _keras_version: int
    _weights_dtype: np.dtype[Any]

    # ---- weights ---------------------------------------------------------------------------

    def _builds(self, shape: tuple[int | None, ...]) -> dict[WeightedMember, Built]:
        if len(shape) < 3 or shape[-1] is None:
            raise TypeError(
                f"input_shape must be (batch, timesteps, features) with features known, got {shape}"
            )
        features, batch = shape[-1], shape[1 if self.time_major else 0]
        if not self.built:
            return {self: self._made_for(features, batch)}
        if features != self._weights[0].shape[0]:
            raise ValueError(
                f"input_shape must end in {self._weights[0].shape[0]}, the features that the layer "
                f"{self.name} has been built for, got {shape}"
            )
        if self.stateful and self._state is not None and batch != self._state.shape[0]:
            raise ValueError(
                f"input_shape must have the batch {self._state.shape[0]} that the stateful layer "
                f"{self.name} has been built for, got {shape}"
            )
        return {}

    def _made_for(self, features: int, batch: int | None) -> Built:
        """What `build` makes by the initializers, with the first state of a stateful layer."""
        return self._built_of(features, self._first_state(batch) if self.stateful else None)

    def _built_of(self, features: int, state: Array | None = None, scales: Array | None = None) -> Built:
        """The same with this state; without one the first call of a stateful layer sets the batch."""
        if features > _validate.BLAS_LIMIT:
            raise ValueError(f"input_shape must have at most {_validate.BLAS_LIMIT} features, got {features}")
        return self._made(self._weight_specs(features), state, scales)

    def _build_of(self, arrays: Sequence[Array], scales: Array | None = None) -> None:
        self._given_weights = list(arrays)
        commit(self._changes(self._built_of(arrays[0].shape[0], scales=scales)), [self])

    def _weight_specs(self, features: int) -> list[Weight]:
        width = 3 * self._units
        glorot = initializers.get("glorot_uniform")
        specs = [
            Weight(
                "kernel",
                (features, width),
                self._kernel_initializer or glorot,
                self._kernel_regularizer,
                self._kernel_constraint,
            ),
            Weight(
                "recurrent_kernel",
                (self._units, width),
                self._recurrent_initializer or glorot,
                self._recurrent_regularizer,
                self._recurrent_constraint,
            ),
        ]
        if self._use_bias:
            specs.append(
                Weight(
                    "bias",
                    (2, width) if self._reset_after else (width,),
                    self._bias_initializer or glorot,
                    self._bias_regularizer,
                    self._bias_constraint,
                )
            )
        for activation in (self._activation, self._recurrent_activation):
            if isinstance(activation, activations.PReLU):
                specs.append(
                    Weight(
                        "alpha",
                        activation.alpha_shape(self._units),
                        activation.alpha_initializer or glorot,
                        activation.alpha_regularizer,
                        activation.alpha_constraint,
                    )
                )
        return specs

    def _prepare(self, arrays: tuple[Array, ...], scales: Array | None) -> Plan | Loop:
        kernel, recurrent_kernel, bias = self._computed(arrays, scales)
        f, g = (
            a.kernel if isinstance(a, activations.Activation) else None
            for a in (self._recurrent_activation, self._activation)
        )
        if f is None or g is None:
            return self._loop(arrays, scales)
        engine, isa = _config.engine_of(self._packed_as), _config.CHOICE.isa
        return Plan(
            kernel, recurrent_kernel, bias, self._reset_after, g, f, engine, isa, self._packed_as, scales
        )

    @property
    def _packed_as(self) -> str | None:
        """'float16' or 'int8'; None: as the weights are computed with."""
        return None if self._weights_dtype == self._compute_dtype else self._weights_dtype.name

    def _computed(self, arrays: tuple[Array, ...], scales: Array | None) -> tuple[Array, Array, Array | None]:
        """kernel, recurrent_kernel and bias in the dtype that is computed in."""
        kernel, recurrent_kernel, *rest = (array.astype(self._compute_dtype, copy=False) for array in arrays)
        of_kernel, of_recurrent = (None, None) if scales is None else scales
        kernel = _validate.rounded("kernel", kernel, self._packed_as, of_kernel)
        recurrent_kernel = _validate.rounded(
            "recurrent_kernel", recurrent_kernel, self._packed_as, of_recurrent
        )
        return kernel, recurrent_kernel, rest[0] if self._use_bias else None

    def _loop(self, arrays: tuple[Array, ...], scales: Array | None, **dropout: Any) -> Loop:
        alphas = iter(arrays[2 + self._use_bias :])
        activation, recurrent_activation = (
            a.with_alpha(next(alphas)) if isinstance(a, activations.PReLU) else a
            for a in (self._activation, self._recurrent_activation)
        )
        computed = self._computed(arrays, scales)
        return Loop(*computed, self._reset_after, activation, recurrent_activation, **dropout)

    # ---- calls -----------------------------------------------------------------------------

    def _given_states(self, initial_state: Any, batch: int) -> list[Array | None]:
        if initial_state is None:
            return [None]
        return [_validate.state("initial_state", initial_state, (batch, self._units), self._compute_dtype)]

    def _start(self, batch: int, initial_state: Array | None, recorded: Array | None) -> Array | None:
        if self.stateful:
            if initial_state is not None and self._keras_version == 3:
                return initial_state
            first = self._first_state(batch)
            recorded = first if recorded is None else recorded
            return recorded if initial_state is None or np.any(recorded != first) else initial_state
        if initial_state is None and self._default_state is not None:
            return _validate.broadcast_state(self._default_state, batch)
        return initial_state

    @property
    def _width(self) -> int:
        return self._units

    def _check_fits(self, shape: tuple[int, ...], batch: int, parts: Mapping[Any, Built]) -> None:
        self._check_fit(shape, batch, parts[self].plan, parts[self].state if self.stateful else None)

    def _add_to(self, graph: Graph, x: int, last: bool) -> list[int]:
        return [self._add_part(graph, x, last)]

    def _add_part(self, graph: Graph, x: int, last: bool, reverse_output: bool = False) -> int:
        output = graph.value(self._units, self._compute_dtype, last)
        graph.gru(self, graph.cast(x, self._compute_dtype), output, reverse_output=reverse_output)
        return graph.cast(output, self._dtype)

    def _check_fit(
        self, shape: tuple[int, ...], batch: int, plan: Plan | Loop, recorded: Array | None
    ) -> None:
        """Refuse inputs with other features than the weights, or another batch than the recorded state."""
        if shape[2] != plan.features or (recorded is not None and batch != recorded.shape[0]):
            raise ValueError(
                f'Input 0 of layer "{self.name}" is incompatible with the layer: expected '
                f"shape={self.input_spec[0].shape}, found shape={shape}"
            )

    def _evaluated(self, parts: Mapping[Any, Built], call: Call) -> Outcome:
        plan, [start] = parts[self].plan, call.starts
        x = _validate.cast(call.x, self._compute_dtype)
        if start is not None:
            start = np.require(start, self._compute_dtype, ["C", "A"])
        if call.training and self._drops:
            masks = self._dropout_masks(call.batch, x.shape[2])
            plan = self._loop(parts[self].arrays, parts[self].scales, **masks)
        states: list[Array] = []
        if isinstance(plan, Plan):
            network = self._network_of(parts, call, x.dtype)
            results = network.call(
                np.require(x, requirements="A"), start, call.mask, call.lengths, None, states, call.first
            )
            output = results[0] if isinstance(results, list) else results
        else:
            mask, seen = call.mask, np.zeros(call.batch, bool)
            backwards, zeros = bool(self.go_backwards), bool(self.zero_output_for_mask)
            if call.lengths is not None:
                timesteps = x.shape[0 if call.time_major else 1]
                mask = _validate.mask_of_lengths(call.lengths - call.first, timesteps, call.time_major)
                seen = (call.lengths > 0) & (call.first > 0) & (not backwards)
            output, state = plan.run(x, start, seen, mask, call.time_major, backwards, zeros, call.sequences)
            states.append(state)
        output = _validate.cast(output, self._dtype)
        return Outcome([output], states, self._activity(output, states[0]))

    def _activity(self, output: Array, state: Array) -> dict[Any, list[Any]]:
        """The losses of what a call returns."""
        if self.activity_regularizer is None:
            return {}
        returned = [output, _validate.cast(state, self._dtype)] if self.return_state else [output]
        with np.errstate(all="ignore"):  # divided by the length of the first axis; 0 for an empty batch
            losses = [self.activity_regularizer(array) / (array.shape[0] or np.inf) for array in returned]
        return {self: losses}

    def _dropout_masks(self, batch: int, features: int) -> dict[str, list[Array]]:
        """Arguments of Loop: 0 with probability p, else 1 / (1 - p), drawn anew for every call."""
        masks = {}
        for name, rate, size in (
            ("input_masks", self._dropout, features),
            ("recurrent_masks", self._recurrent_dropout, self._units),
        ):
            if rate:
                kept = _random.generator().random((3, batch, size)) >= rate
                masks[name] = list(kept.astype(self._compute_dtype) / self._compute_dtype.type(1 - rate))
        if "input_masks" in masks and self._implementation != 1:
            masks["input_masks"] = masks["input_masks"][:1] * 3
        return masks

    # ---- state and streams -----------------------------------------------------------------

    def _first_state(self, batch: int | None) -> Array:
        """What is recorded before the first call, of a batch that is not empty."""
        if not batch:
            raise ValueError(
                "If a RNN is stateful, it needs to know its batch size: build the layer with (batch, "
                f"timesteps, features), or call it, with a batch that is not empty, got batch={batch}"
            )
        if self._default_state is None:
            return np.zeros((batch, self._units), self._dtype)
        return _validate.broadcast_state(self._default_state, batch).astype(self._dtype)

    def _reset_to(self, states: Any) -> Array:
        """What the recorded state becomes by `reset_states`."""
        if not self.stateful:
            raise AttributeError("Layer must be stateful.")
        if self._state is None:
            raise ValueError(
                "If a RNN is stateful, it needs to know its batch size: build the layer with "
                "(batch, timesteps, features), or call it, before its states are reset"
            )
        shape = self._state.shape
        if states is None:
            return self._first_state(shape[0])
        return _validate.recorded_state(states, self.name, shape, self._dtype)

    def _check_forward(self) -> None:
        if self.go_backwards:
            raise ValueError(f"layer must go forward to be streamed, got go_backwards=True of {self.name!r}")
        if not self.built:
            raise ValueError(
                f"layer must be built to be streamed, got {self.name!r}, which is not: call its build"
            )
