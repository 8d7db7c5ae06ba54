"""Models in fastgru's own files, as fastgru._writers.model writes them."""

import dataclasses
import functools
import math
import types
import typing
from typing import Any

from fastgru import activations
from fastgru._errors import FormatError
from fastgru._nodes import KINDS, Node
from fastgru._writers.model import LAYER
from fastgru.formats import _model, _zip, native
from fastgru.model import Input, Model, Output

LARGEST = 2**31  # that the absolute value of an integer must be less than
UNBOUNDED = ("the least of ", "the most of ", "the fill of ")  # fields that may be infinite, in messages


def archive_model(members: _zip.Archive, weights_dtype: str | None = None) -> Model:
    """The model of a file of `Model.save`.

    Parameters
    ----------
    members : Archive
    weights_dtype : {None, 'float16', 'int8'}
        None: that of the file.
    """
    config = _fields("the model", native.header(members, ("Model",))["config"], CONFIG, frozenset({"batch"}))
    packed = config["weights_dtype"] if weights_dtype is None else weights_dtype
    given = {} if weights_dtype is None else {"weights_dtype": weights_dtype}
    return Model(
        [Input(**_fields("an input", one, typing.get_type_hints(Input))) for one in config["inputs"]],
        [_node(members, number, one, given) for number, one in enumerate(config["nodes"])],
        [Output(**_fields("an output", one, typing.get_type_hints(Output))) for one in config["outputs"]],
        name=config["name"],
        dtype=config["dtype"],
        weights_dtype=None if packed == config["dtype"] else packed,
        states=config["states"],
        batch=config.get("batch"),
    )


CONFIG: dict[str, Any] = {
    "name": str,
    "dtype": str,
    "weights_dtype": str,
    "inputs": list,
    "outputs": list,
    "states": tuple[tuple[str, str], ...],
    "nodes": list,
    "batch": int | None,
}
NODE: dict[str, Any] = {"class_name": str, "config": dict}


def _node(members: _zip.Archive, number: int, described: Any, given: dict[str, Any]) -> Node:
    """A node with its arrays, which are named after its number, and arguments of its layer."""
    found = _fields(f"node {number}", described, NODE)
    kind = KINDS.get(found["class_name"])
    if kind is None:
        raise FormatError(f"node {number} must be one of {', '.join(KINDS)}, got {found['class_name']!r:.80}")
    hints, plain = _hints(kind.__name__), dict(found["config"])
    what = f"node {number}, the {kind.__name__} {plain.get('name')!r:.80},"
    made: dict[str, Any] = {}
    for name, hint in hints.items():
        if _array in typing.get_args(hint) or hint == _array:
            member = f"{number}.{name}.npy"
            if member in members or hint == _array:
                made[name] = _model.floats(member, members.array(member))
            if plain.pop(name, None) is not None:
                raise FormatError(f"{what} must have {name} as an array of its own, got it in the header")
    if "layer" in hints:
        layer = _fields(f"the layer of {what}", plain.pop("layer", None), NODE)
        made["layer"] = native.layer(members, layer, f"{number}.{LAYER}", given)
    if "activation" in hints:
        function = plain.pop("activation", None)
        _model.check_finite({"activation": function})
        made["activation"] = activations.get(function)
    rest = {name: hint for name, hint in hints.items() if name not in made and hint is not Any}
    rest = {name: hint for name, hint in rest.items() if _array not in typing.get_args(hint)}
    node: Node = kind(**made, **_fields(what, plain, rest, _defaults(kind)))
    return node


_array = _model.Array


@functools.lru_cache(maxsize=len(KINDS))
def _hints(kind: str) -> dict[str, Any]:
    """The types of the fields of a kind of node."""
    return typing.get_type_hints(KINDS[kind])


def _defaults(kind: type[Node]) -> frozenset[str]:
    """Names of the fields that may be left out."""
    return frozenset(
        field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING
    )


def _fields(
    what: str, given: Any, hints: dict[str, Any], optional: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The values of an object of JSON, which has these fields of these types."""
    if not isinstance(given, dict):
        raise FormatError(f"{what} must be an object, got {given!r:.80}")
    unknown = next((name for name in given if name not in hints), None)
    if unknown is not None:
        raise FormatError(f"{what} has no field {unknown!r:.80}")
    missing = next((name for name in hints if name not in given and name not in optional), None)
    if missing is not None:
        raise FormatError(f"{what} must have the field {missing!r}")
    return {name: _value(f"the {name} of {what}", value, hints[name]) for name, value in given.items()}


def _value(what: str, value: Any, hint: Any) -> Any:
    """A value of JSON as this type has it."""
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        hint, arguments = arguments[0], typing.get_args(arguments[0])
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise FormatError(f"{what} must be a list, got {value!r:.80}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise FormatError(f"{what} must be {len(kinds)} values, got {len(value)}")
        return tuple(_value(what, one, kind) for one, kind in zip(value, kinds, strict=True))
    if hint is float and type(value) is int and -LARGEST < value < LARGEST:
        value = float(value)
    if type(value) is not hint:
        raise FormatError(f"{what} must be of type {hint.__name__}, got {value!r:.80}")
    if hint is int and not -LARGEST < value < LARGEST:
        raise FormatError(f"{what} must lie between -{LARGEST} and {LARGEST}, got {value}")
    if hint is float and not (math.isfinite(value) or (value == value and what.startswith(UNBOUNDED))):
        raise FormatError(f"{what} must be finite, got {value}")
    return value
