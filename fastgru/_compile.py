"""Layers -> the network that runs them: nodes in running order, and the values between them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastgru._core import Network, Plan

CHUNK_BYTES, CHUNK_STEPS = 0, 0  # of the values between nodes; 0 is the engine's default


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
        self._features, self._dtype = features, dtype
        self._values: list[tuple[int, np.dtype[Any], bool]] = []
        self._nodes: list[tuple[Any, ...]] = []
        self._states = {part: number for number, part in enumerate(plans)}

    def value(self, width: int, dtype: np.dtype[Any], last: bool) -> int:
        """A new value, (batch, timesteps, width), or (batch, width) of the last step alone; its number."""
        self._values.append((width, dtype, last))
        return len(self._values)

    def gru(self, layer: Any, x: int, output: int, column: int = 0, reverse_output: bool = False) -> None:
        """Add a GRU that writes its units into a value from a column on, in time as it runs or reversed."""
        self._nodes.append(
            (
                "gru",
                self.plans[layer],
                x,
                output,
                column,
                bool(layer.go_backwards),
                reverse_output,
                bool(layer.zero_output_for_mask),
                self._states[layer],
            )
        )

    def merge(self, mode: str, a: int, b: int) -> int:
        """The sum, product or average of two values of one type; its number."""
        width, dtype, last = self._values[a - 1]
        output = self.value(width, dtype, last)
        self._nodes.append((mode, a, b, output))
        return output

    def cast(self, value: int, dtype: np.dtype[Any]) -> int:
        """A value in another type; its number."""
        width, own, last = self._values[value - 1] if value else (self._features, self._dtype, False)
        if own == dtype:
            return value
        output = self.value(width, dtype, last)
        self._nodes.append(("cast", value, output))
        return output

    def network(
        self,
        outputs: Sequence[int],
        time_major: bool,
        return_state: bool,
        optional: bool,
        default_states: tuple[Any, ...] | None = None,
    ) -> Network:
        """All of it, returning these values."""
        return Network(
            self._features,
            self._dtype,
            self._values,
            self._nodes,
            outputs,
            time_major,
            return_state,
            optional,
            default_states,
            CHUNK_BYTES,
            CHUNK_STEPS,
        )
