from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from fastgru._plans import Plan

__pyx_capi__: dict[str, object]

@final
class Network:
    @property
    def plans(self) -> tuple[Plan, ...]: ...
    @property
    def time_major(self) -> bool: ...
    @property
    def return_state(self) -> bool: ...
    @property
    def optional(self) -> bool: ...
    @property
    def features(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def units(self) -> int: ...
    @property
    def output_dtype(self) -> np.dtype[Any]: ...
    @property
    def flags(self) -> tuple[bool, bool, bool]: ...
    def __init__(
        self,
        values: Sequence[tuple[int, np.dtype[Any], bool, int]],
        nodes: Sequence[tuple[str, int, int, dict[str, Any]]],
        outputs: Sequence[int],
        time_major: bool,
        return_state: bool,
        optional: bool = False,
        default_states: tuple[NDArray[Any] | None, ...] | None = None,
        *,
        inputs: int = 1,
        clocks: Sequence[tuple[int, int, int, int, int]] = (),
        states: Sequence[tuple[int, Any]] = (),
        chunk_bytes: int = 0,
        chunk_steps: int = 0,
        isa: str | None = None,
        least: int = 1,
        most: int = ...,
        threads: int = 0,
    ) -> None: ...
    threads: int
    def call(
        self,
        x: object,
        initial_state: object,
        mask: object,
        lengths: object,
        out: object,
        states: list[NDArray[Any]] | None = None,
        first: int = 0,
        others: tuple[object, ...] | None = None,
    ) -> Any: ...
    def run(
        self,
        x: NDArray[Any],
        initial_states: tuple[NDArray[Any] | None, ...],
        states: tuple[NDArray[Any] | None, ...],
        out: tuple[NDArray[Any], ...],
        mask: NDArray[np.bool_] | None = None,
        lengths: NDArray[np.intp] | None = None,
        first: int = 0,
        others: tuple[NDArray[Any], ...] = (),
    ) -> None: ...
