"""The recurrent layers in a model's config: their names, and where their weights are."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fastgru._keras_config import Config, cells_of, is_recurrent
from fastgru.formats import _model

REFERENCE = 8  # bytes
# layers that pass inputs on unchanged, except in training
PASSING = (
    *("Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "AlphaDropout"),
    "ActivityRegularization",
)


class Entry(NamedTuple):
    """A recurrent layer in a model's config.

    Attributes
    ----------
    names : tuple of str
        Of the models that it lies in, from the outermost, and its own.
    class_name : str
    config : dict
    path : str
        Of its variables in a .weights.h5, which goes by classes: layers/functional/layers/gru_1.
    trainable : bool
        Its own, and that of every model that it lies in.
    """

    names: tuple[str, ...]
    class_name: str
    config: dict[str, Any]
    path: str
    trainable: bool

    @property
    def cells(self) -> list[dict[str, Any]] | None:
        """The cells of an RNN that has several; None for all else."""
        return cells_of({"class_name": self.class_name, "config": self.config})

    @property
    def name(self) -> str:
        """encoder/gru."""
        return "/".join(self.names)


def snake_case(name: str) -> str:
    """BatchNormalization -> batch_normalization, as Keras has it in paths."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def inner_layers(layer: Config) -> list[dict[str, Any]] | None:
    """The layers of a model, in old Sequentials the config itself; None for a layer that is no model."""
    config = layer.get("config")
    layers = config.get("layers") if isinstance(config, dict) else config
    if isinstance(layers, list) and all(isinstance(one, dict) and "class_name" in one for one in layers):
        return layers
    return None


def name_of(layer: Config) -> str:
    config = layer.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return str(layer.get("name", "") if name is None else name)  # an old Sequential in another has none


def entries_of(
    layers: Sequence[Config],
    joined: _model.Names,
    names: tuple[str, ...] = (),
    path: str = "",
    trainable: bool = True,
) -> Iterator[Entry]:
    """The recurrent layers among these and in the models and wrappers among them, in their order."""
    used: dict[str, int] = defaultdict(int)
    for layer in layers:
        name = name_of(layer)
        snake = snake_case(joined.join(str(layer.get("class_name"))))
        number = f"_{used[snake]}" if used[snake] else ""
        used[snake] += 1
        inner = joined.join(path, "layers/", snake, number)
        yield from _entries_in(layer, joined, (*names, name), inner, trainable)


def _entries_in(
    layer: Config, joined: _model.Names, names: tuple[str, ...], path: str, trainable: bool
) -> Iterator[Entry]:
    """The layer, if it is recurrent, or those in it."""
    config = layer.get("config")
    trainable = trainable and not (isinstance(config, dict) and config.get("trainable") is False)
    if isinstance(config, dict) and is_recurrent(layer):
        joined.join(*names)
        joined.spend(REFERENCE * len(names))
        yield Entry(names, layer["class_name"], config, path, trainable)
    elif (inner := inner_layers(layer)) is not None:
        yield from entries_of(inner, joined, names, joined.join(path, "/"), trainable)
    elif layer.get("class_name") == "Bidirectional":
        return  # of other layers: their weights show what GRUs are in them
    elif isinstance(config, dict) and isinstance(config.get("layer"), dict):  # TimeDistributed
        yield from _entries_in(config["layer"], joined, names, joined.join(path, "/layer"), trainable)


def sequential_of(model: Config, count: int) -> str | None:
    """The name of a Sequential in the model, or of the model, that has this many recurrent layers in a row.

    Each must return what the next one reads; between them may be layers that act in training only.
    """
    layers = inner_layers(model) or []
    recurrent = [layer for layer in layers if is_recurrent(layer)]
    if model.get("class_name") == "Sequential" and len(recurrent) == count:
        run = [is_recurrent(layer) for layer in layers if layer["class_name"] not in PASSING]
        first = run.index(True)
        together = all(run[first : first + count])
        return name_of(model) if together and all(map(_returns_sequences, recurrent[:-1])) else None
    return next((name for layer in layers if (name := sequential_of(layer, count)) is not None), None)


def _returns_sequences(layer: Config) -> bool:
    """True of a recurrent layer that returns sequences."""
    config = layer["config"]
    if layer["class_name"] == "Bidirectional":
        return _returns_sequences(config["layer"])
    return config.get("return_sequences") is True
