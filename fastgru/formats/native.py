"""fastgru's own files, as fastgru._writers.native has them -> layers."""

import itertools
from collections.abc import Sequence
from typing import Any

from fastgru._errors import FormatError
from fastgru._writers.native import DIRECTIONS, FORMAT, HEADER
from fastgru.formats import _model, _zip
from fastgru.formats._model import Arguments, Array, Layer, Maker
from fastgru.wrappers import Bidirectional


def archive(members: _zip.Archive) -> dict[str, Maker]:
    """The one layer of a file of `save`."""
    found = header(members, tuple(MAKERS))
    return {str(found["config"].get("name")): _maker(members, found, "")}


def header(members: _zip.Archive, classes: Sequence[str]) -> dict[str, Any]:
    """The header of a file, which must be of one of these classes and have a config."""
    found = _zip.parse_json("the header", members.array(HEADER).tobytes(), members.size)
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise FormatError("the header must be an object with a config")
    if found.get("format") != FORMAT:
        raise FormatError(
            f"the format must be {FORMAT}, got {found.get('format')!r}: a newer fastgru may read it"
        )
    if found.get("class_name") not in classes:
        whole = ", a whole model: fastgru.load_model reads it" if found.get("class_name") == "Model" else ""
        raise FormatError(
            f"the class must be one of {', '.join(classes)}, got {found.get('class_name')!r:.80}{whole}"
        )
    return found


def layer(members: _zip.Archive, description: Any, prefix: str) -> Layer:
    """A GRU or Bidirectional of a model, whose weights' names begin like this."""
    if not _is_of_a_stack(description):
        raise FormatError("the layer of a node must be a GRU or a Bidirectional with a config")
    return _maker(members, description, prefix)({})


def _maker(members: _zip.Archive, header: Any, prefix: str) -> Maker:
    """The layer of such a class and config."""
    make = MAKERS[header["class_name"]]
    return lambda given: make(members, header["config"], given, prefix)


def _weights(members: _zip.Archive, prefix: str) -> list[Array]:
    """The arrays of a GRU, which are numbered without a gap."""
    names = itertools.takewhile(members.__contains__, (f"{prefix}{i}.npy" for i in itertools.count()))
    return [_model.floats(name, members.array(name)) for name in names]


def _scales(members: _zip.Archive, prefix: str, arrays: list[Array]) -> Array | None:
    """The steps of int8 weights, if the file has any."""
    name = f"{prefix}scales.npy"
    if name not in members:
        return None
    scales = members.array(name)
    wanted = (2, *arrays[1].shape[1:]) if len(arrays) > 1 else None
    found = None if scales.shape != wanted else _model.scales_of(arrays, [*_model.floats(name, scales)])
    if found is None:
        raise FormatError(
            f"{name} must be the steps of int8 weights, (2, 3 * units), positive, got {scales.dtype} "
            f"{scales.shape!s:.80} of which the weights are no multiples"
        )
    return found


def _gru(members: _zip.Archive, config: Arguments, given: Arguments, prefix: str) -> Layer:
    arrays = _weights(members, prefix)
    return _model.gru(arrays, {**config, **given}, _scales(members, prefix, arrays))


def _stack(members: _zip.Archive, config: Arguments, given: Arguments, prefix: str) -> Layer:
    layers = config.get("layers")
    if not isinstance(layers, list) or not all(map(_is_of_a_stack, layers)):
        raise FormatError("the layers of a Stack must be GRUs and Bidirectionals with a config")
    makers = [_maker(members, layer, f"{prefix}{i}.") for i, layer in enumerate(layers)]
    return _model.stack(str(config.get("name")), makers, given, config.get("return_state"))


def _is_of_a_stack(layer: Any) -> bool:
    return (
        isinstance(layer, dict)
        and isinstance(layer.get("config"), dict)
        and layer.get("class_name") in ("GRU", "Bidirectional")
    )


def _bidirectional(members: _zip.Archive, config: Arguments, given: Arguments, prefix: str) -> Layer:
    _model.check_finite(config)
    own = {key: value for key, value in given.items() if key in ("name", "merge_mode")}
    of_both = {key: value for key, value in given.items() if key not in own}

    def direction(value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("config"), dict):
            return value | {"config": value["config"] | of_both}
        return value  # which from_config complains of

    directions = {key: direction(config[key]) for key in ("layer", "backward_layer") if key in config}
    layer = Bidirectional.from_config({**config, **directions, **own})
    for way, one in zip(DIRECTIONS, (layer.forward_layer, layer.backward_layer), strict=True):
        arrays = _weights(members, prefix + way)
        _model.fill(one, arrays, _scales(members, prefix + way, arrays))
    _model.check_features(layer)
    return layer


MAKERS: dict[str, Any] = {"GRU": _gru, "Bidirectional": _bidirectional, "Stack": _stack}
