"""The GRUs that a stream runs, one after the other, as they are when the stream is made."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import _validate, _validate_streams
from fastgru._core import Network
from fastgru._loop import Loop
from fastgru._validate_streams import StreamInput, StreamOutput

Array = NDArray[Any]


class Part(NamedTuple):
    """One of the GRUs.

    Attributes
    ----------
    name : str
    units : int
    dtype, compute_dtype : dtype
        Of its outputs; of its inputs and state.
    default_state : ndarray, shape (1 or batch, units), or None
        The state that it starts from; None means zeros.
    """

    name: str
    units: int
    dtype: np.dtype[Any]
    compute_dtype: np.dtype[Any]
    default_state: Array | None


class Cascade(NamedTuple):
    """The GRUs, the lowest first, and what runs them.

    Attributes
    ----------
    layers : list
        The layers that they come from, which may change; for messages only.
    single : bool
        True for one GRU, whose state is an array and not a list.
    network : Network or None
        Runs all of them; None if one needs Python.
    alone : sequence of Network or Loop
        In that case, runs each GRU by itself, from a state to the last one.
    inputs, outputs : sequence of StreamInput, of StreamOutput
    """

    layers: list[Any]
    parts: Sequence[Part]
    time_major: bool
    single: bool
    network: Network | None
    alone: Sequence[Network | Loop]
    inputs: Sequence[StreamInput]
    outputs: Sequence[StreamOutput]

    @property
    def input_kinds(self) -> tuple[tuple[np.dtype[Any], tuple[int, int] | None], ...]:
        """Of each input its dtype, and the limits of indices."""
        return tuple((one.dtype, one.limits) for one in self.inputs)

    def zeros(self, rows: int) -> tuple[Array, ...]:
        """An array for each output of a step."""
        return tuple(np.zeros((rows, one.width), one.dtype) for one in self.outputs)

    def shapes(self, rows: int, steps: tuple[int, ...] | None) -> list[tuple[int, ...]]:
        """Those of the outputs, of a step, or of as many rows and steps as these."""
        return [
            (*steps, one.width) if steps is not None and one.has_steps else (rows, one.width)
            for one in self.outputs
        ]

    def default_states(self, rows: int) -> list[Array]:
        """What streams start from, each (rows, units)."""
        states = []
        for part in self.parts:
            state = np.zeros((rows, part.units), part.compute_dtype)
            if part.default_state is not None:
                if len(part.default_state) not in (1, rows):
                    raise ValueError(
                        f"layer must have a default_state of as many rows as are streamed, {rows}, or of "
                        f"one, got {len(part.default_state)} of {part.name!r}"
                    )
                state[...] = part.default_state
            states.append(state)
        return states

    def given_states(self, value: Any, rows: int | None) -> list[Array]:
        """The checked states of a user, each (rows, units), or (units,) if `rows` is None."""
        values = [value] if self.single else value
        if not isinstance(values, (list, tuple)) or len(values) != len(self.parts):
            got = f"{len(values)} of them" if isinstance(values, (list, tuple)) else type(values).__name__
            raise ValueError(f"state must be a list of {len(self.parts)} arrays, one per layer, got {got}")
        return [
            _validate_streams.stream_state(
                array, (part.units,) if rows is None else (rows, part.units), part.compute_dtype
            )
            for part, array in zip(self.parts, values, strict=True)
        ]

    def handed_out(self, states: list[Array]) -> Any:
        """States as users see them: that of a GRU, a list for a Stack."""
        return states[0] if self.single else states

    def run(self, x: Array, states: Sequence[Array]) -> tuple[Array, list[Array]]:
        """The outputs of all timesteps and the last states, GRU by GRU, if one needs Python.

        x is (batch, timesteps, features), or with time first if `time_major`.
        """
        last = []
        for part, runs, state in zip(self.parts, self.alone, states, strict=True):
            x = _validate.cast(x, part.compute_dtype)
            if isinstance(runs, Network):
                x, state = runs.call(x, state, None, None, None)
            else:
                x, state = runs.run(
                    x, state, np.zeros(len(state), bool), None, self.time_major, False, False, True
                )
            x = _validate.cast(x, part.dtype)
            last.append(state)
        return x, last
