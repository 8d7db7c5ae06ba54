"""MODEL and --layer: the arguments that name layers, and the layers."""

from pathlib import Path
from typing import Any

import click

import fastgru

Layer = Any  # GRU, Bidirectional or Stack; its _parts are the GRUs in it

RETURNING_ALL = {"return_sequences": True, "return_state": True, "stateful": False}  # arguments of a layer

argument = click.argument("model", type=click.Path(path_type=Path))
option = click.option(
    "--layer", metavar="NAME", help="Which one, if there are several; 'fastgru inspect' lists them."
)


def read(model: Path, layer: str | None, **arguments: Any) -> Layer:
    """The layer, or the Stack, that `fastgru.load` gives.

    Raises
    ------
    ValueError
        As `fastgru.load`; it says --layer for layer.
    """
    try:
        return fastgru.load(model, layer, **arguments)
    except fastgru.FormatError:
        raise
    except ValueError as error:
        message = str(error)
        raise ValueError(f"--{message}" if message.startswith("layer must") else message) from error


def named(model: Path, layer: str | None, **arguments: Any) -> dict[str, Layer]:
    """The layers that `fastgru.load_all` gives, by name, or only the one that is named.

    Raises
    ------
    ValueError
        As `fastgru.load_all`, or if there is none of that name.
    """
    layers = fastgru.load_all(model, **arguments)
    if layer is None:
        return layers
    if layer not in layers:
        names = ", ".join(map(repr, layers))
        raise ValueError(f"--layer must be one of {names}, the GRUs in {model}, got {layer!r}")
    return {layer: layers[layer]}


def features(layer: Layer) -> int:
    """What the last axis of the layer's inputs counts."""
    return int(layer._parts[0].weights[0].shape[0])
