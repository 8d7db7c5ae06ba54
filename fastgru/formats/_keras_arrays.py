"""The arrays of every layer of a Keras model: from a file by names or by places, or from memory."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastgru._errors import FormatError
from fastgru._keras_config import cells_of, is_recurrent
from fastgru.formats import _model
from fastgru.formats._keras_by_name import has_names, names_in
from fastgru.formats._keras_by_place import paths_at
from fastgru.formats._keras_graph import Layer
from fastgru.formats._keras_layers import Array
from fastgru.formats._keras_model import Entry
from fastgru.formats._keras_weights import Weights, slashed

Names = Callable[[Layer], list[str]]  # of a layer's weights, in Keras' order

# names that tell weights apart, whose shapes often are the same
TELLING = (
    "kernel",
    "recurrent_kernel",
    "bias",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
    "embeddings",
)


class Arrays:
    """The arrays of layers, where their paths are.

    Parameters
    ----------
    weights : Weights
    paths : callable
        Of a layer, to the paths of its weights.
    """

    def __init__(self, weights: Weights, paths: Callable[[Layer], list[str]]) -> None:
        self._weights, self._paths = weights, paths

    def shapes(self, layer: Layer) -> list[tuple[int, ...]]:
        """The shapes of a layer's weights, in Keras' order."""
        paths = self._paths(layer)
        missing = [path for path in paths if path not in self._weights.shapes]
        if missing:
            raise FormatError(f"weights of {layer.name:.200} are missing: {missing[0]:.200}")
        return [self._weights.shapes[path] for path in paths]

    def read(self, layer: Layer) -> list[Array]:
        """A layer's weights, in Keras' order."""
        return [self._weights.floats(path) for path in self._paths(layer)]


def by_places(weights: Weights, names_of: Names) -> Arrays:
    """Of a file that goes by classes: .weights.h5, and .keras."""
    is_old = "_layer_checkpoint_dependencies" in weights.attributes  # Keras 2.12 and 2.13

    def paths(layer: Layer) -> list[str]:
        if is_recurrent(layer.described):
            entry = Entry(layer.names, layer.class_name, layer.config, layer.place, layer.trainable)
            return [path for direction in paths_at(weights, entry) for path in direction]
        place = layer.place.replace("layers/", "_layer_checkpoint_dependencies/") if is_old else layer.place
        place += "/layer" if layer.class_name == "TimeDistributed" else ""
        return [f"{place}/vars/{number}" for number in range(len(names_of(layer)))]

    return Arrays(weights, paths)


def by_names(weights: Weights, model: Layer, base: str, names_of: Names) -> Arrays:
    """Of a file that has a group for each layer of the model, with its weights in Keras' order.

    Where groups have other names than the layers, as after a model was made once more, those that have
    weights go by the order of the layers, as in Keras.
    """
    groups = {
        path.removeprefix(base): names_in(attributes, "weight_names")
        for path, attributes in weights.attributes.items()
        if path.startswith(base) and has_names(attributes, "weight_names")
    }
    slots = {layer: _slots(layer, names_of) for layer in model.inner or []}
    layers = [layer for layer in slots if slots[layer]]
    chosen = {layer: slashed(layer.names[-1]) for layer in layers}
    if any(name not in groups for name in chosen.values()):
        order = [
            name
            for name in names_in(weights.attributes.get(base[:-1], {}), "layer_names")
            if groups.get(name)
        ]
        if len(order) != len(layers):
            missing = next(name for name in chosen.values() if name not in groups)
            raise FormatError(f"weights of {missing:.200} are missing")
        chosen = dict(zip(layers, order, strict=True))
    places: dict[tuple[str, ...], dict[int, str]] = {}
    for layer in layers:
        group, wanted = chosen[layer], slots[layer]
        if len(groups[group]) != len(wanted):
            raise FormatError(
                f"{layer.name:.200} must have {len(wanted)} weights, got {len(groups[group])} in "
                f"{base}{group:.200}"
            )
        for (leaf, number, name), path in zip(wanted, groups[group], strict=True):
            said = re.sub(r"(_\d+)?(:\d+)?$", "", path.rpartition("/")[2])
            if name in TELLING and said in TELLING and said != name:
                raise FormatError(f"{leaf.name:.200} must have its {name} where {path:.200} is")
            places.setdefault(leaf.names, {})[number] = f"{base}{group}/{path}"

    def paths(layer: Layer) -> list[str]:
        found = places.get(layer.names, {})
        return [found[number] for number in range(len(found))]

    return Arrays(weights, paths)


def _slots(layer: Layer, names_of: Names) -> list[tuple[Layer, int, str]]:
    """The weights of a layer, or of those in a model, as Keras puts them in a row: the trainable ones first.

    Of each the layer, its number among the layer's, and its name.
    """
    every = [(leaf, number, name) for leaf in layer.leaves() for number, name in enumerate(names_of(leaf))]

    def is_frozen(slot: tuple[Layer, int, str]) -> bool:
        inner = slot[0].config.get("layer") if slot[0].class_name == "TimeDistributed" else None
        config = inner.get("config") if isinstance(inner, dict) else None
        frozen = isinstance(config, dict) and config.get("trainable") is False
        return frozen or not slot[0].trainable or slot[2].startswith("moving_")

    return sorted(every, key=is_frozen)


class _Live:
    """Weights of a live model."""

    def __init__(self) -> None:
        self.attributes: dict[str, dict[str, str | list[str]]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.arrays: dict[str, Any] = {}

    def floats(self, path: str) -> Array:
        return _model.floats(path, np.asarray(self.arrays[path]))


def of_live(model: Any) -> Arrays:
    """Of a model of Keras."""
    live = _Live()
    places: dict[tuple[str, ...], list[str]] = {}

    def add(inner: Sequence[Any], names: tuple[str, ...]) -> None:
        for layer in inner:
            own = (*names, layer.name)
            if type(layer).__name__ in ("Functional", "Sequential", "Model"):
                add(layer.layers, own)
                continue
            places[own] = []
            for number, weight in enumerate(_arrays_of(layer)):
                path = f"{'/'.join(own)}/{number}"
                live.arrays[path], live.shapes[path] = weight, tuple(weight.shape)
                places[own].append(path)

    add(model.layers, ())
    return Arrays(live, lambda layer: places.get(layer.names, []))


def _arrays_of(layer: Any) -> list[Any]:
    """A live layer's arrays, direction by direction, or cell by cell."""
    if type(layer).__name__ == "Bidirectional":
        return [*layer.forward_layer.get_weights(), *layer.backward_layer.get_weights()]
    cells = cells_of({"class_name": type(layer).__name__, "config": layer.get_config()})
    if cells is not None:
        return [array for cell in layer.cell.cells for array in cell.get_weights()]
    return list(layer.get_weights())
