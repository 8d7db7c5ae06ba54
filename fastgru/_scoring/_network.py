"""Layers and models by one face: inputs and outputs with names, rows in batches, sequences side by side."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import _layouts, _nodes
from fastgru._validate_models import Input, has_steps
from fastgru.model import Model
from fastgru.stack import Stack
from fastgru.wrappers import Bidirectional

Array = NDArray[Any]

# Nodes that compute a timestep from that timestep alone.
BY_STEP = (
    *(_nodes.Activation, _nodes.Clip, _nodes.Concatenate, _nodes.Dense, _nodes.Embedding, _nodes.Identity),
    *(_nodes.Inverse, _nodes.LayerNormalization, _nodes.Merge, _nodes.PReLU, _nodes.Scale),
    *(_nodes.UnitNormalization,),
)


class Result(NamedTuple):
    """An output of a network.

    Attributes
    ----------
    name : str
    layout : str
        As of `fastgru.model.Output`.
    has_steps : bool
        True of a sequence.
    width : int
    """

    name: str
    layout: str
    has_steps: bool
    width: int

    @property
    def rows_axis(self) -> int:
        """The axis of the rows, 0 if there is none."""
        return _axis(self.layout) or 0


class Network:
    """What a scorer runs.

    Attributes
    ----------
    inputs : sequence of Input
    outputs : sequence of Result
    dtype : dtype
        Of inputs and outputs.
    batch : int or None
        The only batch that a call may have.
    pads : bool
        True if the first timesteps of a sequence have the same bits, with its length given, whatever follows.
    takes_none : bool
        True if a sequence may have no timestep.
    """

    inputs: Sequence[Input]
    outputs: Sequence[Result]
    dtype: np.dtype[Any]
    batch: int | None = None
    pads: bool
    takes_none: bool

    @property
    def rows_axis(self) -> int:
        """The axis of the rows of the first input, 0 if there is none."""
        return _axis(self.inputs[0].layout) or 0

    def call(self, arrays: Sequence[Array], lengths: Array | None) -> list[Array]:
        """The outputs of one call."""
        raise NotImplementedError

    def run(self, arrays: Sequence[Array], lengths: Any, batch_size: int) -> list[Array]:
        """The outputs of one call over all rows, which is made in parts of at most `batch_size` rows.

        Raises
        ------
        ValueError, TypeError
            As a call of the layer or the model.
        """
        layouts = [one.layout for one in self.inputs] + [one.layout for one in self.outputs]
        axes = [_axis(layout) for layout in layouts]
        if any(axis is None for axis in axes):
            return self.call(arrays, lengths)
        places = [(slice(None),) * (axis or 0) for axis in axes]
        places, results = places[: len(arrays)], places[len(arrays) :]
        found = {
            array.shape[len(place)] if array.ndim > len(place) else -1
            for place, array in zip(places, arrays, strict=True)
        }
        if len(found) > 1 or -1 in found:
            return self.call(arrays, lengths)  # which says what is wrong
        rows, size = found.pop(), self.batch or batch_size
        if lengths is not None:
            lengths = np.asarray(lengths)
            if lengths.shape != (rows,):
                raise ValueError(f"lengths must have shape ({rows},), one for each row, got {lengths.shape}")
        wholes: list[Array] = []
        for first in range(0, max(rows, 1), size):
            part = slice(first, min(rows, first + size))
            cut = [array[(*place, part)] for place, array in zip(places, arrays, strict=True)]
            some = None if lengths is None else lengths[part]
            if self.batch is not None:  # zeros behind them: a row's bits do not depend on other rows
                more = self.batch - (part.stop - first)
                cut = [_longer(array, len(place), more) for place, array in zip(places, cut, strict=True)]
                some = None if some is None else _longer(some, 0, more)
            parts = self.call(cut, some)
            if rows == part.stop and not wholes and self.batch is None:
                return parts
            if not wholes:
                wholes = [
                    np.empty((*one.shape[: len(place)], rows, *one.shape[len(place) + 1 :]), one.dtype)
                    for place, one in zip(results, parts, strict=True)
                ]
            for place, whole, one in zip(results, wholes, parts, strict=True):
                whole[(*place, part)] = one[(*place, slice(part.stop - first))]
        return wholes


def _axis(layout: str) -> int | None:
    """The axis of the rows."""
    names = _layouts.axes(layout)
    return names.index("b") if "b" in names else None


def _longer(array: Array, axis: int, more: int) -> Array:
    """With zeros behind it."""
    return np.pad(array, [(0, more if place == axis else 0) for place in range(array.ndim)])


class LayerNetwork(Network):
    """A GRU, a Bidirectional or a Stack: its input is `x`, its outputs `output` and the states `state`."""

    takes_none = True

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        order = "tbf" if layer.time_major else "btf"
        features = int(layer._parts[0].weights[0].shape[0])
        self.inputs = [Input("x", (None, features), False, order)]
        self.dtype = layer._dtype
        steps = bool(layer.return_sequences)
        found = [Result("output", order if steps else "bf", steps, layer._width)] * len(layer._dtypes)
        if layer.return_state:
            found += [Result("state", "bf", False, part.units) for part in layer._parts]
        self.outputs = _numbered(found)
        self.pads = not any(map(_is_reversed, _chain(layer)))

    def call(self, arrays: Sequence[Array], lengths: Array | None) -> list[Array]:
        found = self._layer(arrays[0], lengths=lengths)
        return list(found) if isinstance(found, list | tuple) else [found]


def _numbered(results: Sequence[Result]) -> list[Result]:
    """x, x_1, ... where several have the same name."""
    names = [one.name for one in results]
    counts = [names[:place].count(name) for place, name in enumerate(names)]
    return [
        one._replace(name=f"{one.name}_{count}" if count else one.name)
        for one, count in zip(results, counts, strict=True)
    ]


def _chain(layer: Any) -> list[Any]:
    return list(layer.layers) if isinstance(layer, Stack) else [layer]


def _is_reversed(layer: Any) -> bool:
    """True of a layer whose first output is that of the last timestep."""
    first = layer.forward_layer if isinstance(layer, Bidirectional) else layer
    return bool(first.go_backwards and layer.return_sequences)


class ModelNetwork(Network):
    """A whole model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.inputs, self.batch, self.dtype = model.inputs, model.batch, np.dtype(model.dtype)
        self.outputs = []
        for one in model.output_values:
            shape = model.shape_of(one.name)
            self.outputs.append(Result(one.name, one.layout, len(shape) == 2, int(shape[-1] or 0)))
        self.pads = self.takes_none = self._pads()

    def call(self, arrays: Sequence[Array], lengths: Array | None) -> list[Array]:
        found = self._model(list(arrays), lengths=lengths)
        return found if isinstance(found, list) else [found]

    def _pads(self) -> bool:
        """True if each node computes a timestep from itself, or is told the lengths."""
        if [one.name for one in self.inputs if has_steps(one)] != [self.inputs[0].name]:
            return False
        if self.inputs[0].shape[0] is not None or any("t" not in one.layout for one in self.inputs[:1]):
            return False
        masked = {self.inputs[0].name}  # values that the lengths reach
        for node in self._model.nodes:
            reached = [name in masked for name in node.inputs]
            if isinstance(node, _nodes.Recurrent):
                layer, told = node.layer, node.reads_mask and reached[0]
                both = isinstance(layer, Bidirectional) or layer.go_backwards
                if (both or layer.return_state or not layer.return_sequences) and not told:
                    return False
                if _is_reversed(layer) and not node.in_order:
                    return False
                passes = reached[0] and layer.return_sequences
            elif isinstance(node, BY_STEP):
                passes = all(reached) if getattr(node, "any_mask", False) else any(reached)
            else:
                return False
            if passes and node.passes_mask:
                masked |= {*node.outputs}
        return True
