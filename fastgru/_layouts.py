"""The axes of a model's arrays: from the order of its file to (batch, timesteps, features), and back."""

import functools
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@functools.lru_cache(256)
def axes(layout: str) -> tuple[str | int, ...]:
    """What each axis is: b, t, f, or so many groups of features."""
    found = re.findall(r"[btf]|[0-9]+", layout)
    return tuple(int(each) if each.isdigit() else each for each in found)


def plain(shape: tuple[int | None, ...], indices: bool = False) -> str:
    """The layout of a shape without the batch that needs no change of axes."""
    return "bt" if indices else "btf" if len(shape) == 2 else "bf"


def is_plain(layout: str, shape: tuple[int | None, ...], indices: bool = False) -> bool:
    """True if arrays are as the network reads and writes them."""
    return layout == plain(shape, indices)


def fits(layout: str, shape: tuple[int | None, ...], indices: bool) -> bool:
    """True if the axes of a layout are those of a shape."""
    names = axes(layout)
    if re.sub("[btf,0-9]", "", layout) or any(names.count(axis) > 1 for axis in "btf") or 0 in names:
        return False
    has_steps = indices or len(shape) == 2
    groups = math.prod(axis for axis in names if isinstance(axis, int))
    if has_steps and "t" not in names and shape[0] != 1:
        return False
    if ("t" in names and not has_steps) or (indices and (groups != 1 or "f" in names)):
        return False
    width = 1 if indices else shape[-1] or 0
    return width % groups == 0 and ("f" in names or width == groups)


def batch_axis(layout: str) -> int:
    """The axis of the batch.

    Raises
    ------
    ValueError
        If there is none.
    """
    names = axes(layout)
    if "b" not in names:
        raise ValueError(f"outputs must have an axis of the batch, got the layout {layout!r}")
    return names.index("b")


def batch_major(array: Array, layout: str, shape: tuple[int | None, ...], indices: bool) -> Array | None:
    """An array of a layout as (batch, timesteps, features), or without timesteps; None if axes do not fit.

    Parameters
    ----------
    array : ndarray
    layout : str
        As `fastgru.model.Input` has it.
    shape : tuple of (int or None)
        Of the input, without the batch.
    indices : bool
        True: there are no features.
    """
    has_steps = indices or len(shape) == 2
    names = axes(layout)
    if array.ndim != len(names):
        return None
    if is_plain(layout, shape, indices):
        return array
    groups = [place for place, axis in enumerate(names) if isinstance(axis, int)]
    if any(array.shape[place] != names[place] for place in groups):
        return None
    order = [place for name in "bt" for place, axis in enumerate(names) if axis == name]
    features = [*groups, *(place for place, axis in enumerate(names) if axis == "f")]
    turned = array.transpose(order + features)
    sizes = {axis: array.shape[place] for place, axis in enumerate(names)}
    whole = [sizes.get("b", 1)]
    whole += [sizes.get("t", 1)] if has_steps else []
    whole += [] if indices else [math.prod(array.shape[place] for place in features)]
    return turned.reshape(whole)


def written(array: Array, layout: str) -> Array:
    """A batch-major array in a layout."""
    names = axes(layout)
    if layout == "btf"[: array.ndim] or (layout == "bf" and array.ndim == 2):
        return array
    groups = [axis for axis in names if isinstance(axis, int)]
    rows, *steps = array.shape[: 2 if "t" in names or array.ndim == 3 else 1]
    width = math.prod(array.shape[1 + len(steps) :])
    order: list[str | int] = ["b", *(["t"] if steps else []), *groups]
    shape = [rows, *steps, *groups]
    if "f" in names:
        order.append("f")
        shape.append(width // math.prod(groups))
    whole = array.reshape(shape)
    missing = [place for place, axis in enumerate(order) if axis in ("b", "t") and axis not in names]
    whole = whole.reshape([size for place, size in enumerate(whole.shape) if place not in missing])
    order = [axis for axis in order if axis in names or isinstance(axis, int)]
    left = list(enumerate(order))
    perm = []
    for axis in names:
        found = next(pair for pair in left if pair[1] == axis)
        left.remove(found)
        perm.append(found[0])
    return np.ascontiguousarray(whole.transpose(perm))
