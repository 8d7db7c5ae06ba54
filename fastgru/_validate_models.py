"""The inputs and outputs of models; arguments of calls -> checked arrays, and every message about them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import _layouts, _validate
from fastgru._kernels import rows_are_whole

Array = NDArray[Any]
Shape = tuple[int | None, ...]
INDICES = -(2**31), 2**31  # that an input without a table may hold


class Input(NamedTuple):
    """An input of a model.

    Attributes
    ----------
    name : str
    shape : tuple of (int or None)
        Without the batch: (timesteps, features), (features,), or (timesteps,) of indices. None: any number.
    indices : bool
        True of integers, which an Embedding reads.
    layout : str
        The axes of its arrays: "b" is the batch, "t" timesteps, "f" features, and a number is that of groups
        of features: "2bf" is (2, batch, half of the features). Two numbers are separated by a comma. If "b"
        or "t" is missing, that axis is left out, and has the size 1. "btf", the default, also stands for "bf"
        if there are no timesteps, and for "bt" of indices.
    """

    name: str
    shape: Shape
    indices: bool = False
    layout: str = "btf"


class Output(NamedTuple):
    """An output of a model.

    Attributes
    ----------
    name : str
        Of the value.
    layout : str
        As for `Input`.
    """

    name: str
    layout: str = "btf"


# ---- layouts ---------------------------------------------------------------------------------


def has_steps(one: Input) -> bool:
    """True of a sequence."""
    return one.indices or len(one.shape) == 2


def _axes(one: Input) -> str:
    """The axes of an input, for messages."""
    names = _layouts.axes(one.layout)
    groups = math.prod(axis for axis in names if isinstance(axis, int))
    features = None if one.indices or one.shape[-1] is None else one.shape[-1] // groups
    known = {"t": one.shape[0] if has_steps(one) else None, "f": features}
    said = {"b": "batch", "t": "timesteps", "f": "features"}
    return "(" + ", ".join(str(known.get(axis) or said.get(axis, axis)) for axis in names) + ")"  # type: ignore


# ---- what a model is made of -------------------------------------------------------------------


def model_input(one: Input) -> Input:
    """An input whose layout has the axes of its shape, of sizes that arrays may have."""
    if len(one.shape) not in (1, 2) or (one.indices and len(one.shape) != 1):
        axes = "(timesteps,) of indices" if one.indices else "(timesteps, features) or (features,)"
        raise ValueError(f"input {one.name!r} must have the shape {axes}, got {one.shape}")
    layout = _layouts.plain(one.shape, one.indices) if one.layout == "btf" else one.layout
    for size in one.shape:
        if size is not None:
            _validate.positive(f"the shape of the input {one.name!r}", size)
    if not one.indices and one.shape[-1] is None:
        raise ValueError(f"input {one.name!r} must have a known number of features, got {one.shape}")
    _check_layout(f"input {one.name!r}", layout, one.shape, one.indices)
    return one._replace(shape=tuple(one.shape), layout=layout)


def model_output(one: Output, shape: Shape) -> Output:
    """An output whose layout has the axes of its shape."""
    layout = _layouts.plain(shape) if one.layout == "btf" else one.layout
    _check_layout(f"output {one.name!r}", layout, shape, indices=False)
    return one._replace(layout=layout)


def _check_layout(what: str, layout: str, shape: Shape, indices: bool) -> None:
    """Refuse a layout of other axes than those of a shape."""
    if not _layouts.fits(layout, shape, indices):
        wanted = _layouts.plain(shape, indices)
        raise ValueError(
            f"{what} of the shape {shape} must have a layout of the axes of {wanted!r}, got {layout!r}"
        )


# ---- arguments of calls ------------------------------------------------------------------------


def model_inputs(
    value: Any,
    inputs: Sequence[Input],
    least: Sequence[int],
    limits: Mapping[int, tuple[int, int]],
    wanted: np.dtype[Any],
) -> list[Array]:
    """The arrays of a call, batch-major, in the order of the inputs.

    Parameters
    ----------
    value : ndarray, or sequence or mapping of them
    inputs : sequence of Input
    least : sequence of int
        The fewest timesteps of each.
    limits : mapping
        For inputs of indices, by the input's number: the smallest index, and the first one that is too large.
    wanted : dtype
        The type of the other inputs.
    """
    if isinstance(value, Mapping):
        missing = [one.name for one in inputs if one.name not in value]
        if missing or len(value) != len(inputs):
            names = ", ".join(repr(one.name) for one in inputs)
            raise ValueError(f"inputs must be arrays for {names}, got {', '.join(map(repr, value))}")
        given = [value[one.name] for one in inputs]
    else:
        given = list(value) if isinstance(value, list | tuple) else [value]
        if len(given) != len(inputs):
            raise ValueError(f"inputs must be {len(inputs)} arrays, got {len(given)}")
    arrays = [
        _input(array, one, fewest, limits.get(number, INDICES), wanted)
        for number, (array, one, fewest) in enumerate(zip(given, inputs, least, strict=True))
    ]
    if len({array.shape[0] for array in arrays}) > 1:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(f"inputs must have the same batch, got {shapes}")
    return arrays


def _input(value: Any, one: Input, least: int, limits: tuple[int, int], wanted: np.dtype[Any]) -> Array:
    name = f"input {one.name!r}"
    given = _validate.indices(name, value) if one.indices else _validate.floats(name, value, wanted)
    array = _layouts.batch_major(given, one.layout, one.shape, one.indices)
    if array is None:
        raise ValueError(f"{name} must have the axes {_axes(one)}, got {given.shape}")
    for axis, (size, got) in enumerate(zip(one.shape, array.shape[1:], strict=True)):
        if size is not None and got != size:
            raise ValueError(f"{name} must have the shape {_axes(one)}, got {given.shape}")
        if axis == 0 and has_steps(one) and got < least:
            raise ValueError(f"{name} must have {least} timesteps or more, got {got}")
    if one.indices:
        return indices_within(name, array, limits)[:, :, np.newaxis]
    array = _validate.cast(array, wanted)
    return array if rows_are_whole(array) and array.flags.aligned else np.array(array, order="C")


def indices_within(name: str, array: Array, limits: tuple[int, int]) -> Array:
    """Indices as int32, of which each must be at least the first limit and less than the second one.

    They are copied before they are checked: another thread may write into the array.
    """
    low, limit = limits
    copied = np.array(array, order="C")
    wrong = (copied < low) | (copied >= limit)
    if wrong.any():
        place = tuple(int(axis[0]) for axis in np.nonzero(wrong))
        raise ValueError(
            f"{name} must have indices from {low} to {limit - 1}, got {copied[place]} at {place}"
        )
    return copied.astype(np.int32)


def model_mask(
    mask: Any, lengths: Any, inputs: Sequence[Input], batch: int, steps: int | None
) -> tuple[Array | None, Array | None]:
    """The mask or the lengths of the first input, which has `steps` timesteps."""
    name = "mask" if lengths is None else "lengths"
    if steps is None:
        raise ValueError(f"{name} must be None for the input {inputs[0].name!r}, which has no timesteps")
    if lengths is not None and mask is not None:
        raise ValueError("lengths must be given without a mask, got both")
    if lengths is not None:
        return None, _validate.lengths(lengths, batch, steps)
    if isinstance(mask, list | tuple) and len(mask) == len(inputs) and len(mask) > 1:
        if any(one is not None for one in mask[1:]):
            raise ValueError("mask must be that of the first input alone, got masks of other inputs, too")
        mask = mask[0]
    return None if mask is None else _validate.mask(mask, (batch, steps)), None


def model_states(value: Any, states: Sequence[Any], batch: int) -> tuple[Array | None, ...]:
    """The arrays that the states of the network start from; `states` are `State`s of `_compile`."""
    given = [None] * len(states) if value is None else value
    if not isinstance(given, list | tuple) or len(given) != len(states):
        got = len(given) if isinstance(given, list | tuple) else type(given).__name__
        names = ", ".join(repr(state.name) for state in states) or "nothing"
        raise ValueError(f"initial_state must be a list of {len(states)} arrays, of {names}, got {got}")
    found = []
    for state, one in zip(states, given, strict=True):
        if one is None:
            one = None if state.default is None else _validate.broadcast_state(state.default, batch)
        if one is not None:
            name = f"initial_state of {state.name!r}"
            one = _validate.state(name, one, (batch, state.width), state.dtype)
            one = np.require(one, requirements=["C", "A"])
        found.append(one)
    return tuple(found)


def model_out(out: Any, results: Sequence[Array], read: Sequence[Any]) -> list[Array]:
    """The caller's arrays, which results are copied into."""
    given = list(out) if isinstance(out, list | tuple) else [out]
    if len(given) != len(results):
        raise ValueError(f"out must be {len(results)} arrays, got {len(given)}")
    targets = [
        _validate.out(one, result.shape, result.dtype, read)
        for one, result in zip(given, results, strict=True)
    ]
    if any(np.shares_memory(a, b) for i, a in enumerate(targets) for b in targets[:i]):
        raise ValueError("out must be arrays that do not overlap, got arrays that do")
    for target, result in zip(targets, results, strict=True):
        target[...] = result
    return given
