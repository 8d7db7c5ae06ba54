"""Input of streams, pools and the batcher -> checked arrays and plain values, and the messages."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import _validate
from fastgru._validate import cast, converted, floats, indices, integer
from fastgru._validate_models import INDICES, indices_within

Array = NDArray[Any]


class StreamInput(NamedTuple):
    """What a step reads.

    Attributes
    ----------
    name : str
    width : int
    dtype : dtype
    limits : (int, int) or None
        Of indices: the least, and the first one that is too large.
    has_steps : bool
        False: (batch, width) in a chunk, too.
    """

    name: str
    width: int
    dtype: np.dtype[Any]
    limits: tuple[int, int] | None = None
    has_steps: bool = True


class StreamOutput(NamedTuple):
    """What a step returns; fields as those of `StreamInput`."""

    name: str
    width: int
    dtype: np.dtype[Any]
    has_steps: bool = True


def names(several: Sequence[StreamInput] | Sequence[StreamOutput]) -> str:
    """Their names, for messages."""
    return ", ".join(repr(one.name) for one in several)


def inputs_of(value: Any, inputs: Sequence[StreamInput]) -> list[tuple[str, Any]]:
    """What is given for each input, with what messages call it."""
    if isinstance(value, Mapping):
        if set(value) != {one.name for one in inputs}:
            raise ValueError(f"x must have arrays for {names(inputs)}, got {', '.join(map(repr, value))}")
        return [(f"input {one.name!r}", value[one.name]) for one in inputs]
    if len(inputs) == 1:
        return [("x", value)]
    if not isinstance(value, list | tuple) or len(value) != len(inputs):
        got = len(value) if isinstance(value, list | tuple) else type(value).__name__
        raise ValueError(f"x must be a list of {len(inputs)} arrays, for {names(inputs)}, got {got}")
    return [(f"input {one.name!r}", array) for one, array in zip(inputs, value, strict=True)]


def row(name: str, value: Any, features: int, wanted: np.dtype[Any]) -> Array:
    """A copy of one row, (features,), in the dtype `wanted`."""
    array = floats(name, value, wanted)
    if array.shape != (features,):
        raise ValueError(f"{name} must have shape ({features},), got {array.shape}")
    return array.copy() if array.dtype == wanted else cast(array, wanted)


def input_rows(value: Any, inputs: Sequence[StreamInput]) -> list[Array]:
    """Copies of one row of each input, (width,)."""
    return [
        index_row(name, array) if one.limits is not None else row(name, array, one.width, one.dtype)
        for one, (name, array) in zip(inputs, inputs_of(value, inputs), strict=True)
    ]


def stream_inputs(
    value: Any, inputs: Sequence[StreamInput], batch: int, time_major: bool
) -> tuple[list[Array], bool]:
    """Inputs of a stream, and True if they are a single step.

    They are (batch, timesteps, width), or with time first, and (batch, width) of those without timesteps.
    """
    time = 0 if time_major else 1
    arrays, kinds, shapes = [], [], []
    for one, (name, given) in zip(inputs, inputs_of(value, inputs), strict=True):
        array, single = _steps(name, given, one, batch, time_major)
        if one.has_steps:
            kinds.append(single)
            shapes.append(str(np.shape(given)))
        arrays.append(array)
    if True in kinds and False in kinds:
        raise ValueError(f"x must be one step or several in all inputs, got {', '.join(shapes)}")
    single = False not in kinds
    if single:
        arrays = [
            np.expand_dims(array, time) if one.has_steps and array.ndim == 2 else array
            for one, array in zip(inputs, arrays, strict=True)
        ]
    steps = {array.shape[time] for one, array in zip(inputs, arrays, strict=True) if one.has_steps}
    if len(steps) > 1:
        raise ValueError(f"x must have as many timesteps in all inputs, got {', '.join(shapes)}")
    return arrays, single


def _steps(
    name: str, value: Any, one: StreamInput, batch: int, time_major: bool
) -> tuple[Array, bool | None]:
    """An input, and True if it is a step, False if it is several; None: it may be either."""
    if one.limits is not None:
        array = indices(name, value)
        shapes = (batch,), (batch, *array.shape[1:2]), (batch, *array.shape[1:2], 1)
        if not 1 <= array.ndim <= 3 or array.shape != shapes[array.ndim - 1]:
            raise ValueError(f"{name} must have shape ({batch},) or ({batch}, timesteps), got {array.shape}")
        single = True if array.ndim == 1 else None if array.shape[1:] == (1,) else False
        return indices_within(name, array, one.limits).reshape(batch, -1, 1), single
    array = floats(name, value, one.dtype)
    rows = array.shape[1:2] if time_major and array.ndim == 3 else array.shape[:1]
    fits = array.ndim in (2, 3) and rows == (batch,) and array.shape[-1] == one.width
    if not fits and one.has_steps:
        chunk = f"(timesteps, {batch}, {one.width})" if time_major else f"({batch}, timesteps, {one.width})"
        raise ValueError(f"{name} must have shape ({batch}, {one.width}) or {chunk}, got {array.shape}")
    if not one.has_steps and array.shape != (batch, one.width):
        raise ValueError(
            f"{name} must have shape ({batch}, {one.width}), as it has no timesteps, got {array.shape}"
        )
    return cast(array, one.dtype), array.ndim == 2


def slot_inputs(value: Any, inputs: Sequence[StreamInput], slots: int) -> list[Array]:
    """Inputs of a step of this many slots, (slots, width) each."""
    arrays = []
    for one, (name, given) in zip(inputs, inputs_of(value, inputs), strict=True):
        if one.limits is not None:
            array = indices(name, given)
            if array.shape not in ((slots,), (slots, 1)):
                raise ValueError(
                    f"{name} must have shape {(slots,)}, an index for each slot, got {array.shape}"
                )
            arrays.append(indices_within(name, array, one.limits).reshape(slots, 1))
            continue
        array = floats(name, given, one.dtype)
        if array.shape != (slots, one.width):
            raise ValueError(
                f"{name} must have shape {(slots, one.width)}, a row for each slot, got {array.shape}"
            )
        arrays.append(np.require(cast(array, one.dtype), requirements=["C", "A"]))
    return arrays


def targets(
    value: Any, outputs: Sequence[StreamOutput], shapes: Sequence[tuple[int, ...]]
) -> list[Array] | None:
    """The arrays that outputs of these shapes are to be written to; None: none are given."""
    if value is None:
        return None
    given = [value] if len(outputs) == 1 else value
    if not isinstance(given, list | tuple) or len(given) != len(outputs):
        got = len(given) if isinstance(given, list | tuple) else type(given).__name__
        raise ValueError(f"out must be a list of {len(outputs)} arrays, for {names(outputs)}, got {got}")
    found = [
        _validate.out(array, shape, one.dtype, ())
        for one, shape, array in zip(outputs, shapes, given, strict=True)
    ]
    _validate.check_apart(found)
    return found


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
