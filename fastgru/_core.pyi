from typing import Any, final

from numpy.typing import NDArray

def isas() -> tuple[str, ...]: ...
def packed_isas() -> tuple[str, ...]: ...
def float16_isas() -> tuple[str, ...]: ...
def activations() -> tuple[str, ...]: ...
def rows_are_whole(array: NDArray[Any]) -> bool: ...
def activate(name: str, x: NDArray[Any], alpha: float = 0.0, isa: str | None = None) -> NDArray[Any]: ...

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
        float16: bool = False,
    ) -> None: ...
    def run(
        self,
        x: NDArray[Any],
        initial_state: NDArray[Any] | None,
        state: NDArray[Any],
        out: NDArray[Any] | None,
        mask: NDArray[Any] | None,
        time_major: bool,
        go_backwards: bool,
        zero_output_for_mask: bool,
    ) -> None: ...
    def call(
        self,
        x: object,
        initial_state: object,
        mask: object,
        out: object,
        record: NDArray[Any] | None,
        time_major: bool,
        go_backwards: bool,
        zero_output_for_mask: bool,
        sequences: bool,
        return_state: bool,
    ) -> Any: ...
