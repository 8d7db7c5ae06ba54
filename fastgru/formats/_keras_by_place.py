"""Weights by their place among the objects that have them: .weights.h5, and in .keras."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from fastgru._errors import FormatError
from fastgru.formats import _model
from fastgru.formats._keras_layers import is_gru
from fastgru.formats._keras_model import Entry, entries_of, inner_layers
from fastgru.formats._keras_weights import (
    Architecture,
    Directions,
    Weights,
    bare_layers,
    claimed_by,
    makers_of,
    read_the_same,
)
from fastgru.formats._model import Makers

WAYS = ("/forward_layer", "/backward_layer")


def _variables(weights: Weights, path: str) -> list[str]:
    """Paths of the weights of the layer at a path, and of its activations, which it shares with its cell."""
    cell = f"{path}/cell" if f"{path}/cell/vars/0" in weights.shapes else path  # a CuDNNGRU has none
    places = [f"{cell}/vars/{i}" for i in range(3)]
    for activation in ("activation", "recurrent_activation"):
        places += [f"{owner}/{activation}/vars/0" for owner in (path, f"{path}/cell")]
    return [place for place in places if place in weights.shapes]


def paths_at(weights: Weights, entry: Entry) -> list[list[str]]:
    """Paths of the weights of each direction, or cell, of a layer of a model."""
    path = entry.path
    if "_layer_checkpoint_dependencies" in weights.attributes:  # Keras 2.12 and 2.13
        path = path.replace("layers/", "_layer_checkpoint_dependencies/")
    if entry.cells is not None:
        numbers = (f"_{i}" if i else "" for i in range(len(entry.cells)))
        ways: Sequence[str] = [f"/cell/cells/gru_cell{number}" for number in numbers]
    else:
        ways = WAYS if entry.class_name == "Bidirectional" else ("",)
    paths = [_variables(weights, path + way) for way in ways]
    if not all(paths):
        raise FormatError(f"weights of {entry.name} are missing")
    return paths


def layers_by_places(
    weights: Weights, claimed: Collection[str] = (), taken: Collection[str] = (), hidden: bool = False
) -> Makers:
    """The layers of a .weights.h5, by their names where Keras 3 gives them, else by their paths.

    Parameters
    ----------
    weights : Weights
    claimed : collection of str
        Kernels of layers that are known.
    taken : collection of str
        Names of layers that are known.
    hidden : bool
        As of `bare_maker`.
    """
    found: dict[str, Directions] = {}
    for group in sorted(weights.attributes, key=_numbers_as_such):
        if not group.endswith("/vars") or group.startswith("optimizer/"):
            continue
        variables = [f"{group}/{i}" for i in range(3) if f"{group}/{i}" in weights.shapes]
        if not is_gru([weights.shapes[variable] for variable in variables]) or variables[0] in claimed:
            continue
        path = group.removesuffix("/vars").removesuffix("/cell")
        if path in found:  # a layer that has weights besides those of its cell
            found[group] = [variables]
        else:
            found[path] = [_variables(weights, path)]
    found = _with_both_directions(weights, found)
    return bare_layers(weights, _named(weights, found, taken), hidden)


def _named(
    weights: Weights, found: dict[str, Directions], taken: Collection[str]
) -> Iterator[tuple[str, Directions]]:
    """The layers by their names, or by their paths where these are others' names, too."""
    names = {path: weights.attributes.get(f"{path}/vars", {}).get("name") for path in found}
    used = Counter(name for name in names.values() if isinstance(name, str))
    given = set(taken)
    for path, directions in found.items():
        name = names[path]
        if not isinstance(name, str) or used[name] > 1 or name in given:
            name = re.sub("(^|/)(layers|_layer_checkpoint_dependencies)/", r"\1", path)
            if name in given:
                name = path
        given.add(name)
        yield name, directions


def _with_both_directions(weights: Weights, found: dict[str, Directions]) -> dict[str, Directions]:
    """The same layers, but those that are directions of a Bidirectional as one."""
    layers: dict[str, Directions] = {}
    for path, directions in found.items():
        outer, _, way = path.rpartition("/")
        both = [found.get(outer + way) for way in WAYS]
        kernels = [one[0][0] for one in both if one is not None]
        paired = f"/{way}" in WAYS and outer not in found and len(kernels) == 2
        if paired and read_the_same(weights, kernels):
            layers[outer] = [paths for one in both if one is not None for paths in one]
        else:
            layers[path] = directions
    return layers


def _numbers_as_such(path: str) -> list[Any]:
    """A key for sorting that puts gru_9 before gru_10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]{1,9})", path))]


def model_by_places(weights: Weights, architecture: Architecture, joined: _model.Names) -> Makers:
    """The layers of a model whose weights are in groups by the classes of its layers."""
    entries = list(entries_of(inner_layers(architecture.model) or [], joined))

    def paths(entry: Entry) -> Directions:
        return paths_at(weights, entry)

    names = {entry.name for entry in entries}
    hidden = layers_by_places(weights, claimed_by(entries, paths), names, hidden=True)
    return makers_of(weights, architecture, entries, paths, hidden)
