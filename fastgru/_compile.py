"""Layers and nodes -> the network that runs them: nodes in running order, and the values between them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import _config, _validate
from fastgru._core import Network
from fastgru._plans import DensePlan, Plan

Array = NDArray[Any]

CHUNK_BYTES, CHUNK_STEPS = 0, 0  # of the values between nodes; 0 is the engine's default
MOST_NODES = 10_000  # of a network, and so of its clocks: a run goes through all of them for each
CALL_MASK, NO_MASK = 0, -1  # in place of a mask's number: that of the call, and none


class Clock(NamedTuple):
    """Timesteps that values have in common; fields as those of struct fastgru_clock."""

    input: int = -1
    source: int = -1
    span: int = 1
    stride: int = 1
    steps: int = 0


class State(NamedTuple):
    """A state of a network: its name in messages, width and type, and what it is by default."""

    name: str
    width: int
    dtype: np.dtype[Any]
    default: Array | None = None


class Graph:
    """The nodes of a network, as they are added.

    Parameters
    ----------
    features : int
        Width of the input, which is value 0.
    dtype : dtype
        Of the input.
    plans : mapping
        The packed weights of each GRU.
    """

    def __init__(self, features: int, dtype: np.dtype[Any], plans: Mapping[Any, Plan]) -> None:
        self.plans = plans
        self.threads = 0  # of a call, at most; 0: those of the process
        self._dtype = dtype
        self._values: list[tuple[int, np.dtype[Any], bool, int]] = [(features, dtype, False, 0)]
        self._inputs = 1
        self._nodes: list[tuple[Any, ...]] = []
        self.states = [State(part.name, plan.units, plan.dtype) for part, plan in plans.items()]
        self._numbers = {part: number for number, part in enumerate(plans)}  # of their states
        self._clocks = [Clock(input=0)]
        # what GRUs that are added next have in common
        self._clock, self._mask = 0, CALL_MASK
        self._wired: dict[Any, tuple[int, int]] = {}
        self._turned = False

    # ---- for layers ------------------------------------------------------------------------

    def value(self, width: int, dtype: np.dtype[Any], last: bool) -> int:
        """A new value, (batch, timesteps, width), or (batch, width) of the last step alone; its number."""
        self._values.append((width, dtype, last, self._clock))
        return len(self._values) - 1

    def gru(self, layer: Any, x: int, output: int, column: int = 0, reverse_output: bool = False) -> None:
        """Add a GRU that writes its units into a value from a column on, in the order in which it runs or,
        with `reverse_output`, in reverse.
        """
        initial, final = self._wired.get(layer, (0, 0))
        settings = {
            "plan": self.plans[layer],
            "column": column,
            "go_backwards": bool(layer.go_backwards),
            "reverse_output": reverse_output or self._turned,
            "zero_output_for_mask": bool(layer.zero_output_for_mask),
            "state": self._state_of(layer),
            "mask": self._mask,
            "initial": initial,
            "final": final,
        }
        self.add("gru", x, output, **settings)

    def _state_of(self, layer: Any) -> int:
        """The number of the state of a GRU that is being added."""
        return self._numbers[layer]

    def merge(self, mode: str, a: int, b: int) -> int:
        """The sum, product or average of two values of one type; its number."""
        output = self._like(a, self._values[a][1])
        self.add(mode, a, output, other=b)
        return output

    def cast(self, value: int, dtype: np.dtype[Any]) -> int:
        """A value in another type; its number."""
        if self._values[value][1] == dtype:
            return value
        output = self._like(value, dtype)
        self.add("cast", value, output)
        return output

    def _like(self, value: int, dtype: np.dtype[Any]) -> int:
        width, _, last, clock = self._values[value]
        self._values.append((width, dtype, last, clock))
        return len(self._values) - 1

    # ---- for nodes -------------------------------------------------------------------------

    def add(self, kind: str, x: int, output: int, **settings: Any) -> None:
        """Add a node; settings are those of struct fastgru_node, and of `Network`."""
        if len(self._nodes) == MOST_NODES:
            raise ValueError(
                f"a network must have at most {MOST_NODES} nodes, got more (a merge of n values has n - 1)"
            )
        self._nodes.append((kind, x, output, settings))

    def network(
        self,
        outputs: Sequence[int],
        time_major: bool,
        return_state: bool,
        optional: bool,
        default_states: tuple[Any, ...] | None = None,
    ) -> Network:
        """The network, which returns these values."""
        return Network(
            self._values,
            self._nodes,
            outputs,
            time_major,
            return_state,
            optional,
            default_states,
            inputs=self._inputs,
            clocks=self._clocks,
            states=[(state.width, state.dtype) for state in self.states],
            chunk_bytes=CHUNK_BYTES,
            chunk_steps=CHUNK_STEPS,
            threads=self.threads,
        )


class ModelGraph(Graph):
    """The nodes of a model's network, as they are added.

    Parameters
    ----------
    inputs : sequence of (shape, bool)
        The shape of each without the batch, and True if it is of indices.
    dtype : dtype
        That everything is computed in.
    plans : mapping
        The packed weights of each GRU.
    dense_plans : dict
        The packed weights of other nodes. Weights that are not packed yet are added to it.
    weights_dtype : {None, 'float16', 'int8'}
        The type of packed weights.
    streaming : bool
        True: the network runs step by step, and layers that return their last output return one at each step.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[tuple[int | None, ...], bool]],
        dtype: np.dtype[Any],
        plans: Mapping[Any, Plan],
        dense_plans: dict[Any, DensePlan],
        weights_dtype: str | None = None,
        streaming: bool = False,
    ) -> None:
        super().__init__(0, dtype, plans)
        self.streaming = streaming
        self.steps = {shape[0] for shape, indices in inputs if indices or len(shape) == 2}  # of the inputs
        self.limits: dict[int, tuple[int, int]] = {}  # of the inputs that are indices
        self.equal: list[tuple[str, int, int]] = []  # nodes, and clocks that must have as many timesteps
        self.blocking: list[str] = []  # nodes that cannot run step by step
        self._dense_plans, self._weights_dtype = dense_plans, weights_dtype
        self._values.clear()
        self.states.clear()
        self._numbers_of_clocks = {self._clocks[0]: 0}
        self._inputs = len(inputs)
        for number, (shape, indices) in enumerate(inputs):
            clock = None if len(shape) == 1 and not indices else 0
            if clock is not None and number and not streaming:  # in a stream all have the same timesteps
                clock = self._new_clock(Clock(input=number))
            width = 1 if indices else shape[-1]
            assert width is not None
            kind = np.dtype(np.int32) if indices else dtype
            self._values.append((width, kind, clock is None, clock or 0))
        self.clocks_of_inputs = [None if value[2] else value[3] for value in self._values]

    def _new_clock(self, clock: Clock) -> int:
        number = self._numbers_of_clocks.setdefault(clock, len(self._clocks))
        if number == len(self._clocks):
            self._clocks.append(clock)
        return number

    def new_value(self, width: int, clock: int | None) -> int:
        """A new value, (batch, timesteps, width), or (batch, width) without a clock; its number."""
        self._values.append((width, self._dtype, clock is None, clock or 0))
        return len(self._values) - 1

    def new_mask(self, clock: int | None) -> int:
        """A new mask, (batch, timesteps); its number."""
        self._values.append((1, np.dtype(np.bool_), clock is None, clock or 0))
        return len(self._values) - 1

    def either(self, mask: int, other: int, clock: int | None) -> int:
        """A mask that is true where one of two masks is; its number. `mask` is written by a node."""
        if mask == other:
            return mask
        output = self.new_mask(clock)
        self.add("either", mask, output, mask=other)
        return output

    def both(self, mask: int, other: int, clock: int | None) -> int:
        """A mask that is true where both masks are; its number. `mask` is written by a node."""
        if other == NO_MASK or mask == other:
            return mask
        output = self.new_mask(clock)
        if other == CALL_MASK:
            self.add("hide", mask, output, mask=CALL_MASK)
        else:
            self.add("both", mask, output, other=other)
        return output

    def repeated(self, vector: int, clock: int) -> int:
        """A vector as each timestep of a clock; its number."""
        output = self.new_value(self._values[vector][0], clock)
        self.add("repeat", vector, output)
        return output

    def windows(self, clock: int | None, span: int, stride: int) -> int:
        """The clock of windows of `span` steps, every `stride` steps; of a span below 1, of more steps."""
        assert clock is not None
        if span == stride == 1:
            return clock
        below = self._clocks[clock]
        if below.source >= 0:  # windows of windows: the same steps, however they are made, have one clock
            clock, span = below.source, below.span + (span - 1) * below.stride
            stride *= below.stride
        if span == stride == 1:
            return clock
        return self._new_clock(Clock(source=clock, span=span, stride=stride))

    def fixed(self, steps: int) -> int:
        """The clock of this many timesteps."""
        return self._new_clock(Clock(steps=steps))

    def agree(self, name: str, clock: int, other: int) -> None:
        """Require the same number of timesteps of two clocks in every call, for the node `name`."""
        if clock != other:
            self.equal.append((name, clock, other))

    def check_timesteps(self, steps: Sequence[int]) -> None:
        """Refuse a call in which clocks differ that must agree; `steps` is what `timesteps` returns."""
        for name, clock, other in self.equal:
            if steps[clock] != steps[other]:
                raise ValueError(
                    f"inputs must have the same number of timesteps, because {name!r} puts them together, "
                    f"got {steps[clock]} and {steps[other]}"
                )

    def state(self, name: str, width: int) -> int:
        """A new state, (batch, width), that is zeros at first; its number."""
        self.states.append(State(name, width, self._dtype))
        return len(self.states) - 1

    def _state_of(self, layer: Any) -> int:
        """The number of a new state: a layer may be in a model twice."""
        plan = self.plans[layer]
        self.states.append(State(layer.name, plan.units, plan.dtype, layer._default_state))
        return len(self.states) - 1

    def timesteps(self, given: Sequence[int | None]) -> list[int]:
        """The timesteps of every clock, if the inputs have `given`; less than 1 where these are too few."""
        found: list[int] = []
        for clock in self._clocks:
            if clock.input >= 0:
                found.append(given[clock.input] or 0)
            elif clock.source >= 0:
                found.append((found[clock.source] - clock.span) // clock.stride + 1)
            else:
                found.append(clock.steps)
        return found

    def least_timesteps(self) -> list[int]:
        """The fewest that inputs may have, in the order of the inputs."""
        needed = [1] * len(self._clocks)
        for number in reversed(range(len(self._clocks))):
            clock = self._clocks[number]
            if clock.source >= 0:
                least = clock.span + (needed[number] - 1) * clock.stride
                needed[clock.source] = max(needed[clock.source], least)
        of_inputs = {clock.input: least for clock, least in zip(self._clocks, needed, strict=True)}
        return [of_inputs.get(number, 1) for number in range(self._inputs)]

    def model_network(self, outputs: Sequence[int]) -> Network:
        """All of it; where all inputs have as many timesteps, `Network.call` may run it."""
        defaults = tuple(state.default for state in self.states)
        outputs = list(outputs)
        for i, value in enumerate(outputs):
            if (
                value < self._inputs or value in outputs[:i]
            ):  # an output is written by a node, and is one only
                outputs[i] = self._copied(value)
        fixed = [steps for steps in self.steps if steps is not None]
        least = max([*self.least_timesteps(), *fixed])
        return Network(
            self._values,
            self._nodes,
            outputs,
            False,
            False,
            True,
            defaults if any(default is not None for default in defaults) else None,
            inputs=self._inputs,
            clocks=self._clocks,
            states=[(state.width, state.dtype) for state in self.states],
            chunk_bytes=CHUNK_BYTES,
            chunk_steps=CHUNK_STEPS,
            isa=_config.CHOICE.isa,
            threads=self.threads,
            least=least,
            **({"most": min(fixed)} if fixed else {}),
        )

    def _copied(self, value: int) -> int:
        """A new value with the same numbers; its number."""
        width, dtype, _, _ = self._values[value]
        output = self._like(value, dtype)
        self.add("copy", value, output, size=width)
        return output

    def limit_indices(self, value: int, least: int, limit: int) -> None:
        """Require indices of an input to be at least `least` and less than `limit`."""
        low, high = self.limits.get(value, (least, limit))
        self.limits[value] = max(low, least), min(high, limit)

    def constant(self, array: Array | None) -> Array | None:
        """An array of a node, as the network reads it."""
        return None if array is None else np.ascontiguousarray(array, self._dtype)

    def filled(self, width: int, number: float) -> Array | None:
        """A constant that is the same everywhere."""
        return np.full(width, number, self._dtype)

    def table(self, array: Array) -> Array:
        """The table of an embedding, as the network reads it."""
        return np.ascontiguousarray(array, self._dtype)

    def dense(self, node: Any, kernel: Array, bias: Array | None) -> DensePlan:
        """The packed weights of a node; nodes that have the same arrays share them."""
        key = id(node.kernel), id(node.bias)
        if key not in self._dense_plans:
            kernel = np.ascontiguousarray(kernel, self._dtype)
            kernel = _validate.rounded(f"the kernel of {node.name!r}", kernel, self._weights_dtype)
            self._dense_plans[key] = DensePlan(
                kernel, self.constant(bias), _config.CHOICE.isa, self._weights_dtype
            )
        return self._dense_plans[key]

    def recurrent(
        self,
        layer: Any,
        x: int,
        last: bool,
        clock: int | None,
        mask: int,
        initial: Sequence[int],
        turned: bool = False,
    ) -> tuple[list[tuple[int, int]], list[int]]:
        """Add a recurrent layer, and return its outputs with their widths, and its last states.

        It starts from the values `initial`. With `turned` it writes its outputs from the last timestep on.
        """
        kinds = [self.plans[part].dtype for part in layer._parts]
        starts = [0] * len(kinds)
        for i, value in enumerate(initial):
            starts[i] = self.cast(value, kinds[i])
            if not starts[i]:  # which would be none: the first input
                starts[i] = self.new_value(self._values[value][0], None)
                self.add("copy", value, starts[i], size=self._values[value][0])
        states = [0] * len(kinds)
        if layer.return_state:
            for i, part in enumerate(layer._parts):
                self._values.append((part.units, kinds[i], True, 0))
                states[i] = len(self._values) - 1
        wired = dict(zip(layer._parts, zip(starts, states, strict=True), strict=True))
        with self._adding(self._values[x][3], mask, wired, turned):
            outputs = [self.cast(value, self._dtype) for value in layer._add_to(self, x, last)]
        states = [self.cast(value, self._dtype) if value else 0 for value in states]
        return [(value, self._values[value][0]) for value in outputs], states

    @contextmanager
    def _adding(
        self, clock: int, mask: int, wired: dict[Any, tuple[int, int]], turned: bool
    ) -> Iterator[None]:
        """Set what GRUs that are added in a `with` block have in common."""
        before = self._clock, self._mask, self._wired, self._turned
        self._clock, self._mask, self._wired, self._turned = clock, mask, wired, turned
        try:
            yield
        finally:
            self._clock, self._mask, self._wired, self._turned = before


Mask = frozenset[tuple[int, float]] | None  # values that differ from a number; None: nothing is masked
UNKNOWN: Mask = frozenset([(-1, 0.0)])  # a mask of another kind


def either(masks: Sequence[Mask]) -> Mask:
    """The mask that is true where one of these masks is."""
    found: Mask = frozenset()
    for mask in masks:
        found = None if found is None or mask is None else found | mask
    return found


class Sketch(ModelGraph):
    """A graph for the shapes and masks of its values alone: no weights are packed.

    Parameters
    ----------
    inputs : sequence of (shape, bool)
        As of `ModelGraph`.
    dtype : dtype
    """

    def __init__(self, inputs: Sequence[tuple[tuple[int | None, ...], bool]], dtype: np.dtype[Any]) -> None:
        super().__init__(inputs, dtype, {}, {})

    def constant(self, array: Array | None) -> None:
        return None

    def filled(self, width: int, number: float) -> None:
        return None

    def table(self, array: Array) -> Any:
        return None

    def dense(self, node: Any, kernel: Array, bias: Array | None) -> Any:
        return None

    def recurrent(self, layer: Any, *arguments: Any) -> tuple[list[tuple[int, int]], list[int]]:
        missing = {part: part._plan for part in layer._parts if part not in self.plans}
        self.plans = {**self.plans, **missing} if missing else self.plans
        return super().recurrent(layer, *arguments)

    def described_mask(self, mask: int) -> Mask:
        """What a mask is made of, apart from the mask of the call."""
        if mask in (NO_MASK, CALL_MASK):
            return None
        kind, x, settings = next((one[0], one[1], one[3]) for one in self._nodes if one[2] == mask)
        if kind in ("nonzero", "differs"):
            return frozenset([(x, float(settings.get("alpha", 0.0)))])
        if kind == "hide":  # by the mask of the call
            return self.described_mask(x)
        other = self.described_mask(settings["mask"] if kind == "either" else settings["other"])
        return either([self.described_mask(x), other]) if kind == "either" else UNKNOWN
