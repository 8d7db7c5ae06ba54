"""MODEL and --layer: the arguments that name layers, and the layers."""

from pathlib import Path
from typing import Any

import click

import fastgru

Layer = Any  # GRU, Bidirectional or Stack; its _parts are the GRUs in it

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


def features(layer: Layer) -> int:
    """What the last axis of the layer's inputs counts."""
    return int(layer._parts[0].weights[0].shape[0])
