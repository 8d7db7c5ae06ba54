"""Keras' constraints: projections of weights, which its optimizers apply after each update."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._registry import Configurable, Registry

Axis = int | Sequence[int] | None

_EPSILON = 1e-7


class Constraint(Configurable):
    """Base of all constraints; subclasses define ``__call__(w)``.

    In the formulas n is the Euclidean norm of `w` along `axis`: one axis, several, or None for all.
    """

    def __call__(self, w: NDArray[Any]) -> NDArray[Any]:
        """A new array of the shape and dtype of `w`."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(w)")


class MaxNorm(Constraint):
    """``w * clip(n, 0, max_value) / (1e-7 + n)``; a `max_value` of None is no bound."""

    def __init__(self, max_value: float | None = 2, axis: Axis = 0) -> None:
        self.max_value = max_value
        self.axis = axis

    def __call__(self, w: NDArray[Any]) -> NDArray[Any]:
        n = _norm(w, self.axis)
        return w * (_clip(n, 0, self.max_value) / (_EPSILON + n))


class NonNeg(Constraint):
    """``w`` where not negative, else 0."""

    def __call__(self, w: NDArray[Any]) -> NDArray[Any]:
        return w * (w >= 0)


class UnitNorm(Constraint):
    """``w / (1e-7 + n)``."""

    def __init__(self, axis: Axis = 0) -> None:
        self.axis = axis

    def __call__(self, w: NDArray[Any]) -> NDArray[Any]:
        return w / (_EPSILON + _norm(w, self.axis))


class MinMaxNorm(Constraint):
    """``w * (rate * clip(n, min_value, max_value) + (1 - rate) * n) / (1e-7 + n)``; a None is no bound."""

    def __init__(
        self,
        min_value: float | None = 0.0,
        max_value: float | None = 1.0,
        rate: float = 1.0,
        axis: Axis = 0,
    ) -> None:
        self.min_value = min_value
        self.max_value = max_value
        self.rate = rate
        self.axis = axis

    def __call__(self, w: NDArray[Any]) -> NDArray[Any]:
        n, rate = _norm(w, self.axis), float(self.rate)
        return w * ((rate * _clip(n, self.min_value, self.max_value) + (1.0 - rate) * n) / (_EPSILON + n))


class RadialConstraint(Constraint):
    """Convolution kernels that are constant on each square ring around the centre.

    `w` has the shape ``(size, size, channels, filters)``. Ring r, counted from the centre, takes the value of
    the diagonal element ``size // 2 - 1 + r``; of the next one, if `size` is even and r > 0. This is Keras'
    result, although for an odd `size` that element lies in ring r - 1, and for r = 0 in ring 1.

    Raises
    ------
    ValueError
        When called with an array of another shape, or with a `size` below 2.
    """

    def __call__(self, w: NDArray[Any]) -> NDArray[Any]:
        if w.ndim != 4 or w.shape[0] != w.shape[1] or w.shape[0] < 2:
            raise ValueError(f"w must have shape (size, size, channels, filters), size > 1, got {w.shape}")
        size = len(w)
        position = np.arange(size)
        distance = np.maximum(position - size // 2, (size - 1) // 2 - position)
        ring = np.maximum.outer(distance, distance)
        source = size // 2 - 1 + ring + (ring > 0) * (size % 2 == 0)
        return np.asarray(w[source, source])


max_norm, non_neg, unit_norm = MaxNorm, NonNeg, UnitNorm
min_max_norm, radial_constraint = MinMaxNorm, RadialConstraint


def _norm(w: NDArray[Any], axis: Axis) -> NDArray[Any]:
    axes = tuple(axis) if isinstance(axis, Sequence) else axis
    return np.asarray(np.sqrt(np.square(w).sum(axis=axes, keepdims=True)))


def _clip(n: NDArray[Any], low: float | None, high: float | None) -> NDArray[Any]:
    """Clip to bounds; None means no bound, and the lower one wins if they cross."""
    low = -np.inf if low is None else float(low)  # not a NumPy scalar, which could change the dtype
    high = np.inf if high is None else float(high)
    return np.asarray(np.maximum(np.minimum(n, high), low))


_registry: Registry[Callable[[NDArray[Any]], NDArray[Any]]] = Registry(
    "constraint",
    "keras.constraints",
    makers={
        "max_norm": MaxNorm,
        "non_neg": NonNeg,
        "unit_norm": UnitNorm,
        "min_max_norm": MinMaxNorm,
        "radial_constraint": RadialConstraint,
        "MaxNorm": MaxNorm,
        "NonNeg": NonNeg,
        "UnitNorm": UnitNorm,
        "MinMaxNorm": MinMaxNorm,
        "RadialConstraint": RadialConstraint,
        "maxnorm": MaxNorm,
        "nonneg": NonNeg,
        "unitnorm": UnitNorm,
    },
)
get = _registry.get
serialize = _registry.serialize
