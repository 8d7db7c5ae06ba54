"""What models take and return, their arguments -> checked arrays, and every message about them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import _validate
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
        The axes of its arrays by their letters: batch, timesteps, features, and 1 for an axis of one. "btf"
        stands for "bf" and "bt", too.
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
        As of `Input`.
    """

    name: str
    layout: str = "btf"


# ---- layouts ---------------------------------------------------------------------------------


def has_steps(one: Input) -> bool:
    """True of a sequence."""
    return one.indices or len(one.shape) == 2


def plain(layout: str) -> str:
    """The layout that needs no change of axes."""
    return {"tbf": "btf", "tb": "bt", "1bf": "bf"}.get(layout, layout)


def in_layout(array: Array, layout: str) -> Array:
    """A batch-major array as the layout wants it."""
    if layout in ("tbf", "tb"):
        return np.ascontiguousarray(array.swapaxes(0, 1))
    return array[np.newaxis] if layout == "1bf" else array


def _batch_major(array: Array, layout: str) -> Array:
    """A view with the batch first."""
    if layout in ("tbf", "tb"):
        return array.swapaxes(0, 1)
    return array[0] if layout == "1bf" else array


def _axes(one: Input) -> str:
    """The axes of an input, for messages."""
    sizes = iter(one.shape)
    of_letter = {"b": "batch", "1": "1"}
    named = {}
    for letter in plain(one.layout).replace("b", ""):
        size = next(sizes)
        named[letter] = str(size) if size is not None else {"t": "timesteps", "f": "features"}[letter]
    return "(" + ", ".join(of_letter.get(letter) or named[letter] for letter in one.layout) + ")"


# ---- what a model is made of -------------------------------------------------------------------


def model_input(one: Input) -> Input:
    """An input whose layout has the axes of its shape, of sizes that arrays may have."""
    wanted = ("bt", "tb") if one.indices else ("bf", "1bf") if len(one.shape) == 1 else ("btf", "tbf")
    if len(one.shape) not in (1, 2) or (one.indices and len(one.shape) != 1):
        axes = "(timesteps,) of indices" if one.indices else "(timesteps, features) or (features,)"
        raise ValueError(f"input {one.name!r} must have the shape {axes}, got {one.shape}")
    layout = wanted[0] if one.layout == "btf" else one.layout
    if layout not in wanted:
        raise ValueError(f"input {one.name!r} must have a layout among {wanted}, got {one.layout!r}")
    for size in one.shape:
        if size is not None:
            _validate.positive(f"the shape of the input {one.name!r}", size)
    if not one.indices and one.shape[-1] is None:
        raise ValueError(f"input {one.name!r} must have features of a known number, got {one.shape}")
    return one._replace(shape=tuple(one.shape), layout=layout)


def model_output(one: Output, shape: Shape) -> Output:
    """An output whose layout has the axes of its shape."""
    wanted = ("bf", "1bf") if len(shape) == 1 else ("btf", "tbf")
    layout = wanted[0] if one.layout == "btf" else one.layout
    if layout not in wanted:
        raise ValueError(
            f"output {one.name!r} of the shape {shape} must have a layout among {wanted}, got {one.layout!r}"
        )
    return one._replace(layout=layout)


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
        Of those of indices, by their numbers: the least, and the first one that is too large.
    wanted : dtype
        Of those of numbers.
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
    if given.ndim != len(one.layout) or (one.layout[0] == "1" and given.shape[0] != 1):
        raise ValueError(f"{name} must have the axes {_axes(one)}, got {given.shape}")
    array = _batch_major(given, one.layout)
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
    """Indices of which none is less than the first limit, or not less than the second, as int32.

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
    """The mask or the lengths of the first input, of this many steps."""
    name = "mask" if lengths is None else "lengths"
    if steps is None:
        raise ValueError(f"{name} must be None: the input {inputs[0].name!r} has no timesteps")
    if lengths is not None and mask is not None:
        raise ValueError("lengths must be given without a mask, got both")
    if lengths is not None:
        return None, _validate.lengths(lengths, batch, steps)
    if isinstance(mask, list | tuple) and len(mask) == len(inputs) and len(mask) > 1:
        if any(one is not None for one in mask[1:]):
            raise ValueError("mask must be that of the first input, got masks of others, too")
        mask = mask[0]
    return None if mask is None else _validate.mask(mask, (batch, steps)), None


def model_states(value: Any, states: Sequence[Any], batch: int) -> tuple[Array | None, ...]:
    """What every state of the network starts from; states are `State` of `_compile`."""
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
        raise ValueError("out must be arrays that do not overlap each other, got some that do")
    for target, result in zip(targets, results, strict=True):
        target[...] = result
    return given
