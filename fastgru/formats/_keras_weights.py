"""Arrays in files of Keras, by their paths, and the layers that they are."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from fastgru._errors import FormatError
from fastgru._keras_config import CUDNN, Config
from fastgru.formats import _model
from fastgru.formats._keras_layers import Array, bidirectional_of, gru_of, is_cudnn, layer_of, shared
from fastgru.formats._keras_model import Entry, sequential_of
from fastgru.formats._model import Arguments, Layer, Maker, Makers

Directions = list[list[str]]  # paths of the weights of each direction, or of each cell


class Weights(Protocol):
    """Arrays by their paths: `_hdf5.Tree`, or what has the same attributes and method."""

    attributes: dict[str, dict[str, str | list[str]]]
    shapes: dict[str, tuple[int, ...]]

    def floats(self, path: str) -> Array:
        """An array of finite floats."""


class Architecture(NamedTuple):
    """A model's config, and Keras' major version."""

    model: Config
    version: int


# ---- names of Windows ------------------------------------------------------------------------


class Slashed:
    """A tree whose names have slashes where Keras 2.12 to 2.15 on Windows wrote backslashes."""

    def __init__(self, tree: Weights) -> None:
        self._tree = tree
        self._places = {slashed(path): path for path in tree.shapes}
        self.shapes = {path: tree.shapes[place] for path, place in self._places.items()}
        self.attributes = {
            slashed(path): {
                key: list(map(slashed, value)) if isinstance(value, list) else value
                for key, value in attributes.items()
            }
            for path, attributes in tree.attributes.items()
        }
        before, after = (len(one.shapes) + len(one.attributes) for one in (tree, self))
        if before != after:
            raise FormatError("two of its names differ in nothing but slashes and backslashes")

    def floats(self, path: str) -> Array:
        return self._tree.floats(self._places.get(path, path))


def slashed(name: str) -> str:
    return name.replace("\\", "/")


# ---- layers with a config, and without -------------------------------------------------------


def makers_of(
    weights: Weights,
    architecture: Architecture,
    entries: Sequence[Entry],
    paths: Callable[[Entry], Directions],
    hidden: Makers,
) -> Makers:
    """The layers of a model.

    Parameters
    ----------
    weights : Weights
    architecture : Architecture
    entries : sequence of Entry
        What its config shows.
    paths : callable
        Of an entry, to the paths of its weights.
    hidden : Makers
        Layers whose weights are there, and which the config does not show.
    """

    def maker(entry: Entry) -> Maker:
        def made(given: Arguments) -> Layer:
            arrays = [[weights.floats(path) for path in direction] for direction in paths(entry)]
            config = entry.config | {"name": entry.names[-1]}
            return layer_of(entry.class_name, config, architecture.version, arrays, given)

        return made

    makers = Makers({entry.name: maker(entry) for entry in entries})
    if len(makers) < len(entries):
        raise FormatError("two layers of the model have the same name")
    name = sequential_of(architecture.model, len(entries)) if len(entries) > 1 and not hidden else None
    if name is not None:
        makers.whole = lambda given: _model.stack(name, list(makers.values()), given)
    makers |= hidden
    makers.bare = hidden.bare
    return makers


def claimed_by(entries: Sequence[Entry], paths: Callable[[Entry], Directions]) -> set[str]:
    """The kernels of what the config shows."""
    kernels = set()
    for entry in entries:
        with contextlib.suppress(FormatError):  # said when the layer is asked for
            kernels |= {direction[0] for direction in paths(entry)}
    return kernels


def bare_maker(weights: Weights, name: str, directions: Directions, hidden: bool = False) -> Maker:
    """A layer without a config.

    Parameters
    ----------
    weights : Weights
    name : str
    directions : list of list of str
        Paths of the weights of one direction or of both.
    hidden : bool
        True if the file has a config that does not show the layer; False if it has no config.
    """

    def made(given: Arguments) -> Layer:
        shapes = [[weights.shapes[path] for path in paths] for paths in directions]
        if is_cudnn(shapes[0]):
            given = {**CUDNN, **given}
        elif not set(given) - {"name"}:
            held = " and ".join(
                "Keras 1's nine arrays" if len(shape) == 9 else _model.describe(shape) for shape in shapes
            )
            what = (
                f"the model's config does not show {name}, which lies in a layer or is of a class of one's "
                f"own; the file has its weights only, {held}"
                if hidden
                else f"the file has weights only, of {name} {held}"
            )
            raise FormatError(
                f"{what}: give the arguments that the layer was made with, such as "
                "recurrent_activation='sigmoid', reset_after=True"
            )
        arrays = [[weights.floats(path) for path in paths] for paths in directions]
        given = {"name": name.rpartition("/")[2], **given}
        if len(arrays) == 1:
            return gru_of(arrays[0], given)
        own, given = shared(given)
        given["name"] = own["name"]
        return bidirectional_of(arrays, given, given | {"go_backwards": not given.get("go_backwards")}, own)

    return made


def bare_layers(weights: Weights, found: Iterable[tuple[str, Directions]], hidden: bool = False) -> Makers:
    """Layers without a config, by name, each of its directions.

    Raises
    ------
    FormatError
        If two have the same name.
    """
    makers, bare = Makers(), set()
    for name, directions in found:
        if name in makers:
            raise FormatError(f"two layers have the name {name}")
        makers[name] = bare_maker(weights, name, directions, hidden)
        if not is_cudnn([weights.shapes[path] for path in directions[0]]):
            bare.add(name)
    makers.bare = frozenset(bare)
    return makers


def read_the_same(weights: Weights, kernels: Sequence[str]) -> bool:
    """True of kernels that have the same features, as those of both directions."""
    return len({weights.shapes[path][:1] for path in kernels}) == 1
