from typing import Any, final

from numpy.typing import NDArray

def isas() -> tuple[str, ...]: ...
def activations() -> tuple[str, ...]: ...
def rows_are_whole(array: NDArray[Any]) -> bool: ...
def activate(name: str, x: NDArray[Any], alpha: float = 0.0, isa: str | None = None) -> NDArray[Any]: ...

@final
class Plan:
    kernel: NDArray[Any]
    recurrent_kernel: NDArray[Any]
    bias: NDArray[Any]
    recurrent_bias: NDArray[Any]
    features: int
    units: int
    reset_after: bool
    isa: str
    def __init__(
        self,
        kernel: NDArray[Any],
        recurrent_kernel: NDArray[Any],
        bias: NDArray[Any] | None,
        reset_after: bool,
        activation: tuple[str, float],
        recurrent_activation: tuple[str, float],
        isa: str | None = None,
    ) -> None: ...
    def run(
        self,
        x: NDArray[Any],
        state: NDArray[Any],
        out: NDArray[Any] | None,
        mask: NDArray[Any] | None,
        time_major: bool,
        go_backwards: bool,
        zero_output_for_mask: bool,
    ) -> None: ...
