"""Weights by the names that TensorFlow, Theano or Keras 3 gave them: .h5, and TensorFlow.js."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fastgru._errors import FormatError
from fastgru._keras_config import an_object
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
    slashed,
)
from fastgru.formats._model import Makers

PASSES = 3
MOST_FITTING = 16  # folders with a name in them, beyond which it tells nothing: a bound on the time


class _Slot(NamedTuple):
    """A direction, or a cell, of a layer.

    Attributes
    ----------
    entry : int
        The layer's number.
    names : set of str
        Those in the folder of its weights.
    around : set of str
        Those of the models that the layer lies in.
    """

    entry: int
    names: set[str]
    around: set[str]


def names_in(attributes: Mapping[str, Any], kind: str) -> list[str]:
    """layer_names or weight_names, which Keras cuts into several attributes when they are long."""
    if kind in attributes:
        parts = [attributes[kind]]
    else:
        parts = []
        while f"{kind}{len(parts)}" in attributes:
            parts.append(attributes[f"{kind}{len(parts)}"])
    if not all(isinstance(part, list) for part in parts):
        raise FormatError(f"{kind} must be a list of names")
    return [name for part in parts for name in part]


def _cells(weights: Weights, group: str, joined: _model.Names) -> dict[str, list[str]]:
    """Paths of the weights of every GRU cell in a layer's group, by the folder that they lie in.

    gru_1/gru_cell/kernel:0 lies in gru_1/gru_cell; Keras 1's gru_1_W_z lies in gru_1. An alpha of PReLU has
    a folder of its own, gru_1/gru_cell/p_re_lu/alpha:0, in that of its cell.
    """
    folders: dict[str, list[str]] = {}
    alphas: dict[str, list[str]] = defaultdict(list)
    for name in names_in(weights.attributes.get(group, {}), "weight_names"):
        keras_1 = re.fullmatch(r"(.*)_[WUb](?:_[zrh])?(?:_\d+)?(?::0)?", name, re.S)
        folder, _, last = (keras_1[1], "", "") if keras_1 else name.rpartition("/")
        path = joined.join(group, "/", name)
        if last.startswith("alpha"):
            alphas[folder.rpartition("/")[0]].append(path)
        else:
            folders.setdefault(folder, []).append(path)
    return {
        folder: [*paths, *alphas[folder]]
        for folder, paths in folders.items()
        if all(path in weights.shapes for path in paths) and is_gru([weights.shapes[path] for path in paths])
    }


def _directions(entry: Entry, version: int) -> list[set[str]]:
    """For each direction, or cell, names in the folder of its weights: of the layer, and its own."""
    own = slashed(entry.names[-1]).split("/")
    if entry.cells is not None:
        configs = (an_object("config of the cell", cell.get("config")) for cell in entry.cells)
        return [{*own, *slashed(str(config.get("name"))).split("/")} for config in configs]
    if entry.class_name != "Bidirectional":
        return [set(own)]
    named = []
    for way, key in (("forward_", "layer"), ("backward_", "backward_layer")):
        layer = an_object(key, entry.config.get(key) or entry.config["layer"])
        name = str(an_object(f"config of {key}", layer.get("config")).get("name"))
        if version < 3 or key not in entry.config:
            name = way + name  # which Keras 3 has in the config
        named.append({*own, *slashed(name).split("/")})
    return named


def _by_names(slots: Sequence[_Slot], folders: Sequence[str]) -> dict[int, str]:
    """Folders of the slots by the slots' numbers, as far as names identify them.

    A slot gets the only free folder that has its names in it: first with the names of the models around the
    layer, and then, because not every file has these, without. A folder that is taken is no longer free for
    slots that were ambiguous before, so these are tried again.
    """
    holding: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        for part in folder.split("/"):
            holding[part].add(folder)
    found: dict[int, str] = {}
    taken: set[str] = set()
    for _ in range(PASSES):
        for number, slot in enumerate(slots):
            for names in (slot.names | slot.around, slot.names) if number not in found else ():
                sets = sorted((holding.get(name, set()) for name in names), key=len)
                fitting = set.intersection(*sets) - taken if len(sets[0]) <= MOST_FITTING else ()
                if len(fitting) == 1:
                    found[number] = fitting.pop()
                    taken.add(found[number])
                    break
    return found


def _folders(
    entries: Sequence[Entry], version: int, folders: Sequence[str], ordered: bool
) -> list[list[str]]:
    """The folder of each direction, or cell, of each of the layers that are saved in one group.

    By names, and where these are ambiguous or others, as those of a layer that was built before its model,
    by order: that of the model, but weights that are not trainable come last.

    Parameters
    ----------
    entries : sequence of Entry
    version : int
        Keras' major version.
    folders : sequence of str
    ordered : bool
        True if they are in that order. Otherwise several layers cannot be told apart by order.
    """
    slots = [
        _Slot(i, names, {part for name in entry.names[:-1] for part in slashed(name).split("/")})
        for i, entry in enumerate(entries)
        for names in _directions(entry, version)
    ]
    found = _by_names(slots, folders)
    if len(found) < len(slots):
        those = ", ".join(entry.name for entry in entries)
        if len(folders) != len(slots):
            raise FormatError(f"weights of {those:.200} are missing or have other shapes")
        if len(entries) > 1 and not ordered:
            raise FormatError(
                f"weights of {those:.200} must lie in folders named after these layers, got "
                f"{', '.join(folders):.200}"
            )
        by_order = sorted(range(len(slots)), key=lambda number: not entries[slots[number].entry].trainable)
        found = dict(zip(by_order, folders, strict=True))
    of_entries: list[list[str]] = [[] for _ in entries]
    for number, slot in enumerate(slots):
        of_entries[slot.entry].append(found[number])
    return of_entries


class _Found(NamedTuple):
    """A layer found by its weights.

    Attributes
    ----------
    names : tuple of str
        Ever longer ones: the last part of its folder, the folder without that of the cell, all of it.
    directions : list of list of str
    """

    names: tuple[str, ...]
    directions: Directions


def _layers_in(weights: Weights, layer: str, cells: Mapping[str, list[str]]) -> list[_Found]:
    """The layers that the GRU cells in a layer's group are: GRUs, and Bidirectionals of two of them."""
    # bi/forward_gru/gru_cell: what both directions lie in, the direction, its name
    pattern = r"(?:(.*)/)?(forward|backward)_(.*?)(?:/gru_cell[^/]*)?"
    ways: dict[str, dict[str, dict[str, list[str]]]] = defaultdict(lambda: defaultdict(dict))
    for folder in cells:
        match = re.fullmatch(pattern, folder, re.S)
        if match and "/stacked_rnn_cells" not in match[3]:  # cells in a row, which are no direction
            ways[match[1] or ""][match[2]].setdefault(match[3], []).append(folder)
    partner: dict[str, tuple[str, str, str]] = {}  # of a forward folder: the backward one, prefix, name
    for prefix, both in ways.items():
        forward, backward = both["forward"], both["backward"]
        pairs = [(name, forward[name], backward[name]) for name in forward if name in backward]
        alone = [
            [one[name] for name in one if name not in other]
            for one, other in ((forward, backward), (backward, forward))
        ]
        if len(alone[0]) == len(alone[1]) == 1:  # of two layers, with names of their own
            pairs.append((next(name for name in forward if name not in backward), alone[0][0], alone[1][0]))
        for name, ones, others in pairs:
            fitting = len(ones) == len(others) == 1
            if fitting and read_the_same(weights, [cells[ones[0]][0], cells[others[0]][0]]):
                partner[ones[0]] = others[0], prefix, name
    paired = {backward for backward, _, _ in partner.values()}

    def relative(path: str) -> str:
        return path.removeprefix(f"{layer}/") or "gru"

    found = []
    for folder, paths in cells.items():
        if folder in partner:
            other, inside, name = partner[folder]
            names = inside.rpartition("/")[2] or "gru", relative(inside), relative(f"{inside}/{name}")
            found.append(_Found(names, [paths, cells[other]]))
        elif folder not in paired:
            # without a folder if it was built before its model
            inside = re.sub("(?:^|/)gru_cell[^/]*$", "", folder)
            names = inside.rpartition("/")[2] or "gru", relative(inside), relative(folder)
            found.append(_Found(names, [paths]))
    return found


def _named(
    found: Sequence[_Found], layer: str, taken: Collection[str], joined: _model.Names
) -> Iterator[tuple[str, Directions]]:
    """The layers of a group, each with its shortest name that no other layer has."""
    if layer and len(found) == 1 and layer not in taken:
        yield layer, found[0].directions
        return
    prefix = f"{layer}/" if layer else ""
    lengths = [0] * len(found)
    names = [joined.join(prefix, one.names[0]) for one in found]
    for _ in range(2):
        used = Counter(names)
        for i, one in enumerate(found):
            if used[names[i]] > 1 or names[i] in taken:
                lengths[i] += 1
                names[i] = joined.join(prefix, one.names[lengths[i]])
    for name, one in zip(names, found, strict=True):
        yield name, one.directions


def has_names(attributes: Mapping[str, Any], kind: str) -> bool:
    return kind in attributes or f"{kind}0" in attributes


def _groups(weights: Weights, base: str) -> list[str]:
    """The groups of layers, in the model's order."""
    order = {
        f"{base}{name}": i
        for i, name in enumerate(names_in(weights.attributes.get(base[:-1], {}), "layer_names"))
    }
    groups = [
        path
        for path, attributes in weights.attributes.items()
        if path.startswith(base) and has_names(attributes, "weight_names")
    ]
    return sorted(groups, key=lambda path: order.get(path, len(order)))


def model_by_names(
    weights: Weights, architecture: Architecture, base: str, joined: _model.Names, *, together: bool = False
) -> Makers:
    """The layers of a model whose weights go by names.

    Parameters
    ----------
    weights : Weights
    architecture : Architecture
    base : str
        What the groups lie in that are named after the layers, with a slash at its end.
    joined : _model.Names
    together : bool
        All weights are in the root group, sorted by their layers' names, as those of TensorFlow.js.
    """
    entries = list(entries_of(inner_layers(architecture.model) or [], joined))
    sharing: dict[str, list[Entry]] = defaultdict(list)  # a group
    groups: dict[str, str] = {}
    for entry in entries:
        # the outermost model's name; Keras 1 had none for a Sequential in another
        names_of_groups = [""] if together else [f"{base}{slashed(name)}" for name in entry.names]
        group = next((group for group in names_of_groups if group in weights.attributes), None)
        if group is not None:
            groups[entry.name] = group
            sharing[group].append(entry)
    all_cells = {
        group: _cells(weights, group, joined) for group in dict.fromkeys([*sharing, *_groups(weights, base)])
    }
    places: dict[str, Directions] = {}
    wrong: dict[str, str] = {}
    for group, those in sharing.items():
        cells = all_cells[group]
        try:
            folders = _folders(those, architecture.version, list(cells), ordered=not together)
        except FormatError as error:  # said when one of them is asked for
            wrong[group] = str(error)
            continue
        for entry, own in zip(those, folders, strict=True):
            places[entry.name] = [cells[folder] for folder in own]

    def paths(entry: Entry) -> Directions:
        group = groups.get(entry.name, "missing")
        if group in wrong:
            raise FormatError(wrong[group])
        if entry.name not in places:
            raise FormatError(f"weights of {entry.name} are missing")
        return places[entry.name]

    claimed = claimed_by(entries, paths)
    names = {entry.name for entry in entries}

    def left() -> Iterator[tuple[str, Directions]]:
        for group, cells in all_cells.items():
            unclaimed = {folder: paths for folder, paths in cells.items() if paths[0] not in claimed}
            layer = group.removeprefix(base)
            taken = {*names, layer} if len(unclaimed) < len(cells) else names
            for name, directions in _named(_layers_in(weights, layer, unclaimed), layer, taken, joined):
                if name in names:  # of a layer whose weights are said to be missing
                    name = joined.join(directions[0][0].rpartition("/")[0])
                yield name, directions

    hidden = bare_layers(weights, left(), hidden=True)
    return makers_of(weights, architecture, entries, paths, hidden)


def layers_by_names(weights: Weights, joined: _model.Names) -> Makers:
    """The layers of an .h5 file of `save_weights`."""
    names = names_in(weights.attributes[""], "layer_names")
    if len(set(names)) < len(names):
        raise FormatError("two layers have the same name")

    def found() -> Iterator[tuple[str, Directions]]:
        for layer in names:
            yield from _named(_layers_in(weights, layer, _cells(weights, layer, joined)), layer, (), joined)

    return bare_layers(weights, found())
