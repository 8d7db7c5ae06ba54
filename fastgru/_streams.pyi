from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from fastgru._core import Network

@disjoint_base
class Steps:
    @property
    def _outputs(self) -> tuple[NDArray[Any], ...]: ...
    def __init__(
        self,
        network: Network | None,
        states: tuple[NDArray[Any], ...],
        outputs: tuple[NDArray[Any], ...],
        inputs: tuple[tuple[np.dtype[Any], tuple[int, int] | None], ...],
    ) -> None: ...
    def __call__(self, x: object, out: object = None) -> Any: ...
    def _chunk(
        self,
        x: NDArray[Any] | tuple[NDArray[Any], ...],
        targets: Sequence[NDArray[Any]] | None,
        single: bool,
    ) -> Any: ...
    def _states(self) -> list[NDArray[Any]]: ...
    def _assign(self, states: Iterable[NDArray[Any]]) -> None: ...

@final
class Alone:
    def __init__(self, stream: Steps) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
