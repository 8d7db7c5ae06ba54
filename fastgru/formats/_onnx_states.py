"""States of a model: inputs that GRUs start from, and outputs that are their last states."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fastgru._nodes import Concatenate, Identity, Node, Recurrent, Slice
from fastgru.formats._onnx_layouts import Tracked
from fastgru._validate_models import Input

Place = tuple[int, int]  # the number of a Recurrent node, and of a GRU in it


def pairs(
    nodes: Sequence[Node], inputs: Sequence[Input], outputs: Sequence[Tracked]
) -> list[tuple[str, str]]:
    """Names of inputs and of the outputs that are their next values.

    An input is a state if only GRUs read it, which start from it or from its parts. An output is its next
    value if it is made of the last states of these GRUs, in their order.
    """
    readers: dict[str, list[int]] = defaultdict(list)
    writers: dict[str, int] = {}
    for number, node in enumerate(nodes):
        for name in node.inputs:
            readers[name].append(number)
        writers |= dict.fromkeys(node.outputs, number)
    returned = {x.name for x in outputs}
    last = {x.name: _written(x.name, nodes, writers) for x in outputs}
    found, taken = [], set()
    for one in inputs:
        if one.indices or len(one.shape) != 1:
            continue
        starts = _started(one.name, 0, one.shape[0] or 0, nodes, readers, returned)
        if starts is None or not starts or _is_cut(starts, one.shape[0] or 0):
            continue
        order = [place for _, _, place in sorted(starts)]
        for name, places in last.items():
            if places == order and name not in taken:
                found.append((one.name, name))
                taken.add(name)
                break
    return found


def _is_cut(starts: Sequence[tuple[int, int, Place]], width: int) -> bool:
    """True if the parts of a state are not all of it, one after the other."""
    at = 0
    for start, stop, _ in sorted(starts):
        if start != at:
            return True
        at = stop
    return at != width


def _started(
    name: str, start: int, stop: int, nodes: Sequence[Node], readers: dict[str, list[int]], returned: set[str]
) -> list[tuple[int, int, Place]] | None:
    """The GRUs that start from a value, each with the part that it takes; None if something else reads it."""
    if name in returned:
        return None
    found: list[tuple[int, int, Place]] = []
    for number in readers[name]:
        node: Any = nodes[number]
        if isinstance(node, Slice | Identity):
            first = start + (node.start if isinstance(node, Slice) else 0)
            end = start + node.stop if isinstance(node, Slice) else stop
            more = _started(node.outputs[0], first, end, nodes, readers, returned)
            if more is None:
                return None
            found += more
        elif isinstance(node, Recurrent) and name not in node.inputs[:1]:
            found += [(start, stop, (number, i)) for i, each in enumerate(node.inputs[1:]) if each == name]
        else:
            return None
    return found


def _written(name: str, nodes: Sequence[Node], writers: dict[str, int]) -> list[Place] | None:
    """The GRUs whose last states a value is made of, in their order; None if it is anything else."""
    if name not in writers:
        return None
    number = writers[name]
    node: Any = nodes[number]
    if isinstance(node, Concatenate | Identity):
        parts = [_written(each, nodes, writers) for each in node.inputs]
        return None if None in parts else [place for part in parts for place in part or []]
    if isinstance(node, Slice) and node.start == 0:
        below = _written(node.inputs[0], nodes, writers)
        return below
    if not isinstance(node, Recurrent):
        return None
    count = len(node.layer._parts)
    if not node.layer.return_sequences and not node.layer.return_state:
        return [(number, i) for i in range(count)]
    place = node.outputs.index(name) - 1
    return [(number, place)] if node.layer.return_state and place >= 0 else None
