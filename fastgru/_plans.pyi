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
    def dtype(self) -> np.dtype[Any]: ...
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
class DensePlan:
    @property
    def nbytes(self) -> int: ...
    def __init__(
        self,
        kernel: NDArray[Any],
        bias: NDArray[Any] | None,
        isa: str | None = None,
        weights: str | None = None,
        scales: NDArray[np.float32] | None = None,
        dot: bool = True,
    ) -> None: ...

def set_threads(threads: int) -> None: ...
def get_threads() -> int: ...
def limit_threads(threads: int) -> None: ...
def threads_limit() -> int: ...
def stall_threads(microseconds: int, every: int) -> None: ...
def count_threads() -> tuple[int, int, int, int]: ...
def choices() -> list[tuple[int, int, int, int, float, float, bool]]: ...
