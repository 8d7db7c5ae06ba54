"""Packed weights of PyTorch's quantized GRUs, by the names that a GRU's own weights have in a state dict.

`torch.ao.quantization.quantize_dynamic` makes of a GRU a list `_all_weight_values` with an object for each
level and direction, and in it two more: the weight and the bias for the input, and those for the state. A
GRUCell has these two by the names `_packed_weight_ih` and `_packed_weight_hh`.

Source: torch/ao/nn/quantized/dynamic/modules/rnn.py, and aten/src/ATen/native/RNN.cpp, of PyTorch 2.13.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from fastgru._errors import FormatError

CELL = "__torch__.torch.classes.rnn.CellParamsBase"
LINEAR = "__torch__.torch.classes.quantized.LinearPackedParamsBase"
ATTRIBUTES = ("param", "_packed_weight_ih", "_packed_weight_hh")  # of modules, that are no members of theirs
OF_LEVEL = re.compile(
    r"(?P<module>.*?)\.?_all_weight_values\.(?P<number>0|[1-9][0-9]{0,5})\.param\.(?P<kind>\w+)", re.S
)
OF_CELL = re.compile(r"(?P<before>.*\.|)_packed_weight_(?P<end>[ih]h)", re.S)

State = Callable[[Any], tuple[str, Any]]  # the class of an object, and what it is made from again


def tensors(key: str, value: Any, state: State) -> dict[str, Any]:
    """The tensors in an object of such a class by their keys; none in others.

    Parameters
    ----------
    key : str
        Of the object.
    value : Any
    state : callable
    """
    match state(value):
        case str(name), (_, _, _, _, [first, second]) if name == CELL:
            parts = [(f"{key}.", "ih", state(first)), (f"{key}.", "hh", state(second))]
        case str(name), (_, _) if name == LINEAR and (cell := OF_CELL.fullmatch(key)):
            parts = [(cell["before"], cell["end"], state(value))]
        case _:
            return {}
    found = {}
    for before, end, part in parts:
        match part:
            case str(name), (weight, bias) if name == LINEAR:
                found[f"{before}weight_{end}"] = weight
                if bias is not None:
                    found[f"{before}bias_{end}"] = bias
    return found


def named(
    keys: Mapping[str, tuple[int, ...]], bidirectional: Mapping[str, bool]
) -> tuple[dict[str, str], dict[str, FormatError]]:
    """The names of a state dict for keys of `tensors`, whose levels and directions are numbered as one.

    Parameters
    ----------
    keys : mapping of str to tuple of int
        Shapes of tensors by key.
    bidirectional : mapping of str to bool
        Of modules by name, where it is known.

    Returns
    -------
    dict of str to str
        By key, for those of `tensors` that have a number.
    dict of str to FormatError
        What is wrong with a GRU, by the name of the module.
    """
    found: dict[str, dict[int, dict[str, str]]] = {}  # keys by module, number and kind
    for key in keys:
        if match := OF_LEVEL.fullmatch(key):
            numbers = found.setdefault(match["module"], {})
            numbers.setdefault(int(match["number"]), {})[match["kind"]] = key
    names: dict[str, str] = {}
    wrong: dict[str, FormatError] = {}
    for module, numbers in found.items():
        shapes = [
            (keys.get(kinds.get("weight_ih", ""), ()), keys.get(kinds.get("weight_hh", ""), ()))
            for _, kinds in sorted(numbers.items())
        ]
        directions = _directions(shapes)
        if module in bidirectional:
            directions = {1 + bidirectional[module]}
        if len(directions) > 1 and shapes[0][1][0] == 3 * shapes[0][1][1]:
            wrong[module] = FormatError(
                f"{module or 'gru'!r:.80} has two packed parameters that may be of two levels or of two "
                "directions: save the module itself by torch.save(model, path), which says what they are"
            )
        count = max(directions)
        for number, kinds in numbers.items():
            suffix = "_reverse" if number % count else ""
            for kind, key in kinds.items():
                names[key] = f"{module}.{kind}_l{number // count}{suffix}".removeprefix(".")
    return names, wrong


def _directions(shapes: list[Any]) -> set[int]:
    """How many directions a GRU of these kernels may have, which are those of each level in turn."""
    if any(len(shape) != 2 for both in shapes for shape in both):
        return {1}
    features, units = [kernel[1] for kernel, _ in shapes], shapes[0][1][1]
    possible = {1} if all(width == units for width in features[1:]) else set()
    if len(features) % 2 == 0 and features[1] == features[0] and all(n == 2 * units for n in features[2:]):
        possible.add(2)
    return possible or {1}
