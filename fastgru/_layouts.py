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


def batch_major(array: Array, layout: str, shape: tuple[int | None, ...], indices: bool) -> Array | None:
    """An array of a layout as (batch, timesteps, features), or without timesteps; None if groups do not fit.

    Parameters
    ----------
    array : ndarray
        With as many axes as the layout.
    layout : str
        As `fastgru.model.Input` has it.
    shape : tuple of (int or None)
        Of the input, without the batch.
    indices : bool
        True: there are no features.
    """
    has_steps = indices or len(shape) == 2
    if layout == ("bt" if indices else "btf" if has_steps else "bf"):
        return array
    names = axes(layout)
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
