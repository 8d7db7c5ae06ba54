"""Which axes of a value of an ONNX graph are the batch, timesteps and features, in any order."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError
from fastgru.formats._onnx_fold import Sizes

Array = NDArray[Any]
Axis = str | int
"""b, t, f: batch, timesteps, features. bt, tb: both in one axis. A number: groups of features, or 1."""

BATCH = "batch"  # the axis of made-up sizes that all values have in common


class OperatorError(FormatError):
    """What an operator does is not computed. The message follows the operator's name."""


class Steps(NamedTuple):
    """Timesteps of an input, or of windows of others.

    Attributes
    ----------
    name : str
        Of the input.
    size : int or None
        How many; None: any number.
    windows : tuple of (int, int)
        Spans and strides, one after the other.
    """

    name: str
    size: int | None
    windows: tuple[tuple[int, int], ...] = ()

    def of_windows(self, span: int, stride: int) -> "Steps":
        """The timesteps that windows of these timesteps make."""
        size = None if self.size is None else (self.size - span) // stride + 1
        windows = self.windows if span == stride == 1 else (*self.windows, (span, stride))
        return Steps(self.name, size, windows)

    def count(self, sizes: Sizes) -> int:
        """How many there are, if `sizes` are those that the file leaves open."""
        if self.size is not None:
            return self.size
        size = sizes.of((self.name, "steps"))
        for span, stride in self.windows:
            size = (size - span) // stride + 1
        return size


class Tracked(NamedTuple):
    """A value of the network, as the file sees it.

    Attributes
    ----------
    name : str
        In the network.
    axes : tuple of (str or int)
        What each axis in the file is. The axis of timesteps, batch or features may be missing if it is 1.
    width : int
        Of the axis f. Groups of features are axes of their own.
    steps : Steps or None
        None: it has no timesteps.
    indices : bool
        True of an input of integers.
    pads : tuple of (int, int)
        Zeros before and after its timesteps, which a convolution adds.
    turned : bool
        In the file its last timestep comes first.
    """

    name: str
    axes: tuple[Axis, ...]
    width: int
    steps: Steps | None
    indices: bool = False
    pads: tuple[int, int] = (0, 0)
    turned: bool = False

    @property
    def groups(self) -> int:
        """Groups of features."""
        return math.prod(axis for axis in self.axes if isinstance(axis, int))

    @property
    def features(self) -> int:
        """Numbers of a step."""
        return self.width * self.groups

    def place(self, axis: Axis) -> int:
        """The number of an axis, or -1."""
        return self.axes.index(axis) if axis in self.axes else -1

    def settled(self) -> "Tracked":
        """The same, but with groups of one feature each as features."""
        groups = [place for place, axis in enumerate(self.axes) if isinstance(axis, int) and axis > 1]
        if "f" in self.axes or self.width != 1 or len(groups) != 1:
            return self
        axes, width = [*self.axes], self.groups
        axes[groups[0]] = "f"
        return self._replace(axes=tuple(axes), width=width)

    def featured(self, place: int) -> "Tracked":
        """The same; but if it has one feature, an axis of size 1 at `place` becomes that of the features."""
        if "f" in self.axes or self.features != 1 or self.axes[place] != 1:
            return self
        axes = [*self.axes]
        axes[place] = "f"
        return self._replace(axes=tuple(axes), width=1)

    def shape(self, sizes: Sizes, batch: int | None) -> list[int]:
        """The shape in the file, if `sizes` are those that the file leaves open."""
        rows = sizes.of(BATCH) if batch is None else batch
        steps = 1 if self.steps is None else self.steps.count(sizes) + sum(self.pads)
        letters = {"b": rows, "t": steps, "f": self.width, "bt": rows * steps, "tb": rows * steps}
        return [axis if isinstance(axis, int) else letters[axis] for axis in self.axes]

    def layout(self) -> str:
        """As `fastgru.model.Input` has it."""
        if any(axis in ("bt", "tb") for axis in self.axes):
            raise FormatError(f"the value {self.name!r:.80} has its batch and its timesteps in one axis")
        return layout_of(self.axes)


def layout_of(axes: Sequence[Axis]) -> str:
    """Axes as one string; between two numbers is a comma."""
    text = ""
    for axis in axes:
        text += "," if isinstance(axis, int) and text[-1:].isdigit() else ""
        text += str(axis)
    return text


def axis_of(number: int, rank: int, what: str = "its axis") -> int:
    """An axis, which may count from the end."""
    if not -rank <= number < rank:
        raise OperatorError(f"{what} must be from {-rank} to {rank - 1}, got {number}")
    return number % rank


def along_features(array: Array, x: Tracked, what: str = "its constant") -> tuple[Array, int]:
    """A constant that is broadcast to a value, as (features,) or (1,), and how many axes it adds in front.

    Raises
    ------
    OperatorError
        If it differs along other axes than those of features.
    """
    added = max(0, array.ndim - len(x.axes))
    if any(size != 1 for size in array.shape[:added]):
        raise OperatorError(f"{what} has the shape {array.shape}, which adds axes to its other input")
    array = array.reshape(array.shape[added:])
    axes = x.axes[len(x.axes) - array.ndim :]
    shape: tuple[int, ...] = array.shape
    for axis, size in zip(axes, shape, strict=True):
        wanted = x.width if axis == "f" else axis
        if size == 1 or size == wanted or (axis == "f" and x.features == 1):
            continue
        raise OperatorError(f"{what} must not vary along {said(axis)}, got the shape {array.shape}")
    if array.size == 1:
        return array.reshape(1), added
    if x.features == 1:
        return array.reshape(-1), added
    groups = [place for place, axis in enumerate(axes) if isinstance(axis, int)]
    order = [*groups, *(place for place, axis in enumerate(axes) if axis == "f")]
    rest = [place for place in range(len(axes)) if place not in order]
    turned = array.transpose(rest + order)
    whole = [axes[place] if place in groups else x.width for place in order]
    if "f" not in axes and x.width > 1:  # it has groups alone, which lie outside
        turned, whole = turned[..., np.newaxis], [*whole, x.width]
    if math.prod(axis for axis in whole if isinstance(axis, int)) != x.features:
        raise OperatorError(f"{what} must have a number for each feature, got the shape {array.shape}")
    turned = turned.reshape(turned.shape[len(rest) :])
    sizes = [size for size in whole if isinstance(size, int)]
    return np.broadcast_to(turned, sizes).reshape(-1), added


def said(axis: Axis) -> str:
    """An axis in a message."""
    names = {"b": "the batch", "t": "the timesteps", "f": "the features"}
    both = "the batch and the timesteps"
    return names.get(str(axis), both if isinstance(axis, str) else f"an axis of size {axis}")
