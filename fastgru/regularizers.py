"""Keras' regularizers: penalties on weights and outputs."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._registry import Configurable, Registry


class Regularizer(Configurable):
    """Base of all regularizers; subclasses define ``__call__(w)``.

    Strengths are rounded to float32, as Keras does, and must be finite ints or floats: ValueError otherwise.
    """

    def __call__(self, w: NDArray[Any]) -> Any:
        """The penalty, a NumPy scalar of the dtype of `w`."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(w)")


class L1(Regularizer):
    """``l1 * sum(|w|)``. None means the default; `l` is the argument's old name."""

    def __init__(self, l1: float | None = 0.01, *, l: float | None = None) -> None:  # noqa: E741
        self.l1 = _strength("l1", l1 if l is None else l, default=0.01)

    def __call__(self, w: NDArray[Any]) -> Any:
        return _absolute(self.l1, w)


class L2(Regularizer):
    """``l2 * sum(w**2)``, without a factor 1/2. None means the default; `l` is the argument's old name."""

    def __init__(self, l2: float | None = 0.01, *, l: float | None = None) -> None:  # noqa: E741
        self.l2 = _strength("l2", l2 if l is None else l, default=0.01)

    def __call__(self, w: NDArray[Any]) -> Any:
        return _square(self.l2, w)


class L1L2(Regularizer):
    """``l1 * sum(|w|) + l2 * sum(w**2)``. None is 0; a term of strength 0 is left out."""

    def __init__(self, l1: float | None = 0.0, l2: float | None = 0.0) -> None:
        self.l1 = _strength("l1", l1, default=0.0)
        self.l2 = _strength("l2", l2, default=0.0)

    def __call__(self, w: NDArray[Any]) -> Any:
        penalty = w.dtype.type(0)
        if self.l1:
            penalty += _absolute(self.l1, w)
        if self.l2:
            penalty += _square(self.l2, w)
        return penalty


class OrthogonalRegularizer(Regularizer):
    """`factor` times the mean of ``|cos(u, v)|`` over all pairs of different rows, or columns, of a matrix.

    NaN for fewer than two of them, as in Keras.

    Parameters
    ----------
    factor : float
    mode : {'rows', 'columns'}

    Raises
    ------
    ValueError
        If `mode` is neither, or, when called, `w` does not have two axes.
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        if mode not in ("rows", "columns"):
            raise ValueError(f"mode must be 'rows' or 'columns', got {mode!r}")
        self.factor = _strength("factor", factor)
        self.mode = mode

    def __call__(self, w: NDArray[Any]) -> Any:
        if w.ndim != 2:
            raise ValueError(f"w must have 2 axes for OrthogonalRegularizer, got shape {w.shape}")
        vectors = w if self.mode == "rows" else w.T
        units = vectors / np.sqrt(np.maximum(np.square(vectors).sum(axis=1, keepdims=True), 1e-12))
        cosines = np.abs(units @ units.T)
        np.fill_diagonal(cosines, 0)
        ordered_pairs = len(vectors) * (len(vectors) - 1)
        with np.errstate(invalid="ignore"):
            return w.dtype.type(self.factor) * cosines.sum() / w.dtype.type(ordered_pairs)


def l1_l2(l1: float = 0.01, l2: float = 0.01) -> L1L2:
    """`L1L2` with other defaults, which are those of the name ``"l1_l2"`` too."""
    return L1L2(l1, l2)


l1, l2, orthogonal_regularizer = L1, L2, OrthogonalRegularizer


def _strength(name: str, value: Any, default: float | None = None) -> float:
    if value is None:
        value = default
    if not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name} must be a finite int or float, got {value!r}")
    with np.errstate(over="ignore"):  # float32 is what Keras computes with
        return float(np.float32(value))


def _absolute(strength: float, w: NDArray[Any]) -> Any:
    return w.dtype.type(strength) * np.abs(w).sum()


def _square(strength: float, w: NDArray[Any]) -> Any:
    return w.dtype.type(strength) * np.square(w).sum()


_registry: Registry[Callable[[NDArray[Any]], Any]] = Registry(
    "regularizer",
    "keras.regularizers",
    makers={
        "l1": L1,
        "l2": L2,
        "l1_l2": l1_l2,
        "orthogonal_regularizer": OrthogonalRegularizer,
        "L1": L1,
        "L2": L2,
        "L1L2": L1L2,
        "OrthogonalRegularizer": OrthogonalRegularizer,
    },
)
get = _registry.get
serialize = _registry.serialize
