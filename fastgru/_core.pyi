from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__pyx_capi__: dict[str, object]

@final
class Plan:
    @property
    def features(self) -> int: ...
    @property
    def units(self) -> int: ...
    @property
    def reset_after(self) -> bool: ...
    @property
    def isa(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    def __init__(
        self,
        kernel: NDArray[Any],
        recurrent_kernel: NDArray[Any],
        bias: NDArray[Any] | None,
        reset_after: bool,
        activation: tuple[str, float],
        recurrent_activation: tuple[str, float],
        engine: str,
        isa: str | None = None,
        weights: str | None = None,
        scales: NDArray[np.float32] | None = None,
        dot: bool = True,
    ) -> None: ...

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
    def flags(self) -> tuple[bool, bool, bool]: ...
    def __init__(
        self,
        features: int,
        dtype: np.dtype[Any],
        values: Sequence[tuple[int, np.dtype[Any], bool]],
        nodes: Sequence[tuple[Any, ...]],
        outputs: Sequence[int],
        time_major: bool,
        return_state: bool,
        optional: bool = False,
        default_states: tuple[NDArray[Any] | None, ...] | None = None,
        chunk_bytes: int = 0,
        chunk_steps: int = 0,
    ) -> None: ...
    def call(
        self,
        x: object,
        initial_state: object,
        mask: object,
        lengths: object,
        out: object,
        states: list[NDArray[Any]] | None = None,
        first: int = 0,
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
    ) -> None: ...
