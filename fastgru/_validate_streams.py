"""Input of streams, pools and the batcher -> checked arrays and plain values, and the messages."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._validate import cast, converted, floats, indices, integer
from fastgru._validate_models import INDICES, indices_within

Array = NDArray[Any]


def row(name: str, value: Any, features: int, wanted: np.dtype[Any]) -> Array:
    """A copy of one row, (features,), in the dtype `wanted`."""
    array = floats(name, value, wanted)
    if array.shape != (features,):
        raise ValueError(f"{name} must have shape ({features},), got {array.shape}")
    return array.copy() if array.dtype == wanted else cast(array, wanted)


def stream_inputs(value: Any, batch: int, features: int, time_major: bool, wanted: np.dtype[Any]) -> Array:
    """Input of a stream: (batch, features), or several steps of that."""
    array = floats("x", value, wanted)
    rows = array.shape[1:2] if time_major and array.ndim == 3 else array.shape[:1]
    if array.ndim not in (2, 3) or rows != (batch,) or array.shape[-1] != features:
        chunk = f"(timesteps, {batch}, {features})" if time_major else f"({batch}, timesteps, {features})"
        raise ValueError(f"x must have shape ({batch}, {features}) or {chunk}, got {array.shape}")
    return cast(array, wanted)


def slot_inputs(value: Any, slots: int, features: int, wanted: np.dtype[Any]) -> Array:
    """Input of a step of this many slots."""
    array = floats("x", value, wanted)
    if array.shape != (slots, features):
        raise ValueError(f"x must have shape {(slots, features)}, a row for each slot, got {array.shape}")
    return cast(array, wanted)


def stream_indices(value: Any, batch: int, limits: tuple[int, int]) -> tuple[Array, bool]:
    """Indices that a stream reads, (batch, timesteps, 1), and True if they are a single step."""
    array = indices("x", value)
    shapes = (batch,), (batch, *array.shape[1:2]), (batch, *array.shape[1:2], 1)
    if not 1 <= array.ndim <= 3 or array.shape != shapes[array.ndim - 1]:
        raise ValueError(f"x must have shape ({batch},) or ({batch}, timesteps), got {array.shape}")
    single = array.ndim == 1 or array.shape[1:] == (1,)
    return indices_within("x", array, limits).reshape(batch, -1, 1), single


def slot_indices(value: Any, slots: int, limits: tuple[int, int]) -> Array:
    """Indices of a step of this many slots, (slots, 1)."""
    array = indices("x", value)
    if array.shape not in ((slots,), (slots, 1)):
        raise ValueError(f"x must have shape {(slots,)}, an index for each slot, got {array.shape}")
    return indices_within("x", array, limits).reshape(slots, 1)


def index_row(name: str, value: Any) -> Array:
    """A copy of one index, (1,)."""
    array = indices(name, value) if hasattr(value, "dtype") else np.array(integer(name, value))
    if array.shape not in ((), (1,)):
        raise ValueError(f"{name} must be an index, got an array of shape {array.shape}")
    return indices_within(name, array.reshape(1), INDICES)


def stream_state(value: Any, wanted_shape: tuple[int, ...], wanted: np.dtype[Any]) -> Array:
    """The state of a layer, C-contiguous."""
    array = floats("state", value, wanted)
    if array.shape != wanted_shape:
        raise ValueError(f"state must have shape {wanted_shape}, got {array.shape}")
    return np.require(cast(array, wanted), requirements=["C", "A"])


def _integers(name: str, value: Any) -> Array:
    """An array of int64, whatever integers it is made of."""
    array: Array = converted(np.asarray, value, f"{name} must be integers", TypeError)
    if array.size == 0 and not isinstance(value, np.ndarray):  # an empty list has no type
        array = array.astype(np.int64)
    if array.dtype == object and array.size and all(type(number) is int for number in array.flat):
        raise ValueError(f"{name} must lie between -2**63 and 2**63, got {max(array.flat, key=abs)}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must be less than 2**63, got {array.max()}")
    return array.astype(np.int64, order="C", copy=False)


def rows(value: Any, batch: int) -> Array:
    """Which rows of a batch."""
    array = _integers("rows", value)
    if array.size and not 0 <= array.min() <= array.max() < batch:
        raise ValueError(f"rows must lie between 0 and {batch - 1}, got {array.min()} to {array.max()}")
    return array


def slot(value: Any) -> int:
    """A number that a slot may have."""
    number = integer("slot", value)
    if not 0 <= number < 2**63:
        raise ValueError(f"slot must be the number of an open slot, got {number}")
    return number


def slots(value: Any, one: bool = False) -> Array:
    """The numbers of slots, (n,), or of `one` alone."""
    array = _integers("slots", value)
    if one and array.ndim == 0:
        array = array.reshape(1)
    if array.ndim != 1:
        raise ValueError(f"slots must have one axis, got shape {array.shape}")
    return np.require(array, requirements=["A"])
