"""Files of Keras: .h5 of models and of weights, .weights.h5, .keras, and an architecture in JSON."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from fastgru._errors import FormatError
from fastgru._keras_config import an_object, major
from fastgru.formats import _hdf5, _model, _zip
from fastgru.formats._keras_by_name import has_names, layers_by_names, model_by_names
from fastgru.formats._keras_by_place import layers_by_places, model_by_places
from fastgru.formats._keras_model import inner_layers
from fastgru.formats._keras_weights import Architecture, Slashed, Weights
from fastgru.formats._model import Maker


class Members(Protocol):
    """The files that a .keras is made of: an archive or a folder."""

    size: int

    def read(self, name: str) -> bytes:
        """All of one of them."""

    def json(self, name: str) -> Any:
        """What one of them says in JSON."""


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[tuple[Weights, _model.Names]]:
    """What an HDF5 file holds, and what counts the names that are made of it."""
    limit = _model.size_limit(len(data))
    with _hdf5.open_tree(data, limit) as tree:
        windows = any("\\" in path for path in (*tree.attributes, *tree.shapes))
        yield Slashed(tree) if windows else tree, _model.Names(limit)


def architecture_of(what: str, text: bytes, file_bytes: int) -> Architecture:
    """A model from the JSON that Keras' `to_json` gives.

    Parameters
    ----------
    what : str
        Its name in messages.
    text : bytes
    file_bytes : int
        Of the file that it comes from, which bound the memory that it may take.
    """
    model = an_object(what, _zip.parse_json(what, text, file_bytes))
    if "modelTopology" in model:
        raise FormatError(f"{what} is a model of TensorFlow.js with weights of its own: load that alone")
    if "class_name" not in model or "config" not in model:
        raise FormatError(f"{what} must have a class_name and a config, as Keras' to_json writes them")
    version = model.get("keras_version")
    return Architecture(model, 3 if version is None and "module" in model else major(version))


class Opened(NamedTuple):
    """A file that is open.

    Attributes
    ----------
    weights : Weights
    joined : _model.Names
    architecture : Architecture or None
        None: the file has none.
    base : str or None
        What groups lie in that are named after layers; None: weights go by their places.
    """

    weights: Weights
    joined: _model.Names
    architecture: Architecture | None
    base: str | None


@contextlib.contextmanager
def opened_hdf5(data: bytes, architecture: Architecture | None = None) -> Iterator[Opened]:
    """An .h5 file, as of `hdf5`."""
    with _opened(data) as (weights, joined):
        root = weights.attributes[""]
        whole = "model_config" in root
        if architecture is None and whole:
            text = str(root["model_config"]).encode()
            model = an_object("model_config", _zip.parse_json("model_config", text, len(data)))
            architecture = Architecture(model, major(root.get("keras_version")))
        if whole or "model_weights" in weights.attributes:
            base: str | None = "model_weights/"
        else:
            base = "" if has_names(root, "layer_names") else None
        yield Opened(weights, joined, architecture, base)


@contextlib.contextmanager
def opened_archive(members: Members) -> Iterator[Opened]:
    """A .keras archive, as of `archive`."""
    model = an_object("config.json", members.json("config.json"))
    metadata = an_object("metadata.json", members.json("metadata.json"))
    version = major(metadata.get("keras_version"))
    if version < 2:
        raise FormatError("metadata.json must say which version of Keras the model is of")
    with _opened(members.read("model.weights.h5")) as (weights, joined):
        yield Opened(weights, joined, Architecture(model, version), None)


@contextlib.contextmanager
def hdf5(data: bytes, architecture: Architecture | None = None) -> Iterator[dict[str, Maker]]:
    """The layers of an .h5 file, whole model or weights only, or of a .weights.h5.

    Parameters
    ----------
    data : bytes
        The whole file.
    architecture : Architecture, optional
        The model's, instead of that in the file, which may have none.
    """
    with opened_hdf5(data, architecture) as (weights, joined, model, base):
        if model is None:
            yield layers_by_names(weights, joined) if base == "" else layers_by_places(weights)
        elif base is not None:
            yield model_by_names(weights, model, base, joined)
        else:
            yield model_by_places(weights, model, joined)


@contextlib.contextmanager
def archive(members: Members) -> Iterator[dict[str, Maker]]:
    """The layers of a .keras archive; those of a model that has no layers in its config, by their weights."""
    with opened_archive(members) as (weights, joined, architecture, _):
        assert architecture is not None
        if inner_layers(architecture.model) is None:
            yield layers_by_places(weights)
        else:
            yield model_by_places(weights, architecture, joined)
