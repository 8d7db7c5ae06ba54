"""The layers that MODEL and --layer name."""

from pathlib import Path
from typing import Any

import fastgru

Layer = Any  # GRU, Bidirectional or Stack; its _parts are the GRUs in it

RETURNING_ALL: dict[str, Any] = {"return_sequences": True, "return_state": True, "stateful": False}


def read(model: Path, layer: str | None, **arguments: Any) -> Layer:
    """The layer, or the Stack, that `fastgru.load` gives, or one of a Stack's layers by its own name.

    Raises
    ------
    ValueError
        As `fastgru.load`; it says --layer for layer.
    """
    _check_whole(model)
    try:
        return fastgru.load(model, layer, **arguments)
    except fastgru.FormatError:
        raise
    except ValueError as error:
        if not str(error).startswith("layer must"):
            raise
        names: list[str] = []
        for name, found in fastgru.load_all(model, **arguments).items():
            members = found.layers if isinstance(found, fastgru.Stack) else []
            for member in members:
                if member.name == layer:
                    return member
            names += [name, *(member.name for member in members)]
        among = f"{', '.join(map(repr, names))}, the GRUs in {model}"
        if layer is None:
            raise ValueError(f"name one of {among}, by --layer") from error
        raise ValueError(f"--layer must be one of {among}, got {layer!r}") from error


def named(model: Path, layer: str | None, **arguments: Any) -> dict[str, Layer]:
    """The layers that `fastgru.load_all` gives, by name, or only the one that is named.

    Raises
    ------
    ValueError
        As `fastgru.load_all`, or if there is none of that name.
    """
    if layer is not None:
        return {layer: read(model, layer, **arguments)}
    _check_whole(model)
    return fastgru.load_all(model, **arguments)


def each(model: Path, **arguments: Any) -> dict[str, Layer]:
    """All layers by name, and a FormatError in the place of one that cannot be loaded.

    Raises
    ------
    FormatError
        If none can be.
    """
    from fastgru import formats  # not for --help

    _check_whole(model)
    return formats.load_each(model, **arguments)


def _check_whole(model: Path) -> None:
    """Refuse weights alone: the commands' own arguments would pass for those that the layer was made with."""
    from fastgru import formats  # not for --help

    if formats.format_of(model) != "hdf5":
        return
    try:
        fastgru.load_all(model)
    except fastgru.FormatError as error:
        if "the file has weights only" in str(error):
            raise fastgru.FormatError(
                f"{model}: a file of weights alone: save the whole model, or load it in Python with the "
                "layer's arguments"
            ) from error


def features(layer: Layer) -> int:
    """What the last axis of the layer's inputs counts."""
    return int(layer._parts[0].weights[0].shape[0])
