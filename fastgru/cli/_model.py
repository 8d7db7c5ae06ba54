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
    _check_config(model, layer)
    try:
        return fastgru.load(model, layer, **arguments)
    except fastgru.FormatError:
        raise
    except ValueError as error:
        if not str(error).startswith("layer must"):
            raise
        names: list[str] = []
        for name, found in named(model, None, **arguments).items():
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

    Those of which the file has the weights only are not among them.

    Raises
    ------
    ValueError
        As `fastgru.load_all`, or if there is none of that name.
    """
    if layer is not None:
        return {layer: read(model, layer, **arguments)}
    known, bare = _check_config(model, None)
    if bare:
        return {name: fastgru.load(model, name, **arguments) for name in known}
    return fastgru.load_all(model, **arguments)


def _check_config(model: Path, layer: str | None) -> tuple[list[str], list[str]]:
    """Refuse weights alone: the commands' own arguments would pass for those that the layer was made with.

    Returns
    -------
    list of str, list of str
        Names of the layers that the file has a config of, and of the others.
    """
    from fastgru import formats  # not for --help

    known, bare = formats.with_and_without_config(model)
    if layer in bare or not known:
        raise without_config(model, layer if known else None)
    return known, bare


def without_config(model: Path, layer: str | None) -> fastgru.FormatError:
    """The error of a layer, or a file, of weights alone."""
    what = "a file of weights alone" if layer is None else f"of {layer!r} the file has the weights only"
    return fastgru.FormatError(
        f"{model}: {what}: save the whole model, or load it in Python with the layer's arguments"
    )


def features(layer: Layer) -> int:
    """What the last axis of the layer's inputs counts."""
    return int(layer._parts[0].weights[0].shape[0])
