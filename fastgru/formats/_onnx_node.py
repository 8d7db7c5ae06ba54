"""GRU nodes and loops of ONNX models: where they are, what they are given, and who uses what they return."""

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastgru._errors import FormatError
from fastgru._writers._onnx_gru import INPUTS
from fastgru.formats import _model, _onnx_graph
from fastgru.formats._onnx_graph import Inside, Walk

TYPES = {"f": 1, "i": 2, "s": 3, "floats": 6, "strings": 8}  # AttributeProto.AttributeType, by field
ATTRIBUTES: dict[str, tuple[str, Any]] = {  # field, and value by default
    "activation_alpha": ("floats", ()),
    "activation_beta": ("floats", ()),
    "activations": ("strings", ()),
    "clip": ("f", np.inf),
    "direction": ("s", b"forward"),
    "hidden_size": ("i", None),
    "layout": ("i", 0),
    "linear_before_reset": ("i", 0),
}
DIRECTIONS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}  # which go backwards


class Node(NamedTuple):
    """A GRU node, or a loop that may stand for one.

    Attributes
    ----------
    name : str
    proto : onnx.NodeProto
    inside : Inside
        The graph that it is in, with the values that it sees.
    is_used : callable
        True of the name of an output that its graph, or one in this, reads or returns.
    """

    name: str
    proto: Any
    inside: Inside
    is_used: Callable[[str], bool]

    def attributes(self) -> dict[str, Any]:
        """All attributes by name."""
        values = {}
        for attribute in _onnx_graph.attributes(self.proto, self.inside.attributes):
            field, _ = ATTRIBUTES.get(attribute.name, ("", None))
            if not field or attribute.type != TYPES[field] or attribute.name in values:
                raise FormatError(
                    f"the node {self.name!r:.80} has the attribute {attribute.name!r:.40} twice or of a "
                    "wrong type, or it is none of GRU"
                )
            values[attribute.name] = getattr(attribute, field)
        return {name: default for name, (_, default) in ATTRIBUTES.items()} | values

    def inputs(self) -> dict[str, str]:
        """Names of values by names of inputs, empty where there is none."""
        return dict.fromkeys(INPUTS, "") | dict(zip(INPUTS, self.proto.input, strict=False))

    def source(self, key: str) -> Any:
        """What stands behind the input of a name; None if nothing does."""
        name = self.inputs()[key]
        return self.inside.scope.get(name) if name else None

    def outputs(self) -> tuple[bool, bool]:
        """Whether Y and Y_h are used; if none of them is, whether they are there."""
        y, y_h = [*self.proto.output, "", ""][:2]
        used = bool(y) and self.is_used(y), bool(y_h) and self.is_used(y_h)
        return used if any(used) else (bool(y), bool(y_h))


def nodes(walk: Walk, names: _model.Names) -> Iterator[Node]:
    """The GRU nodes and loops of all graphs of a model, by name or number.

    Parameters
    ----------
    walk : Walk
    names : Names
        What names may take.
    """
    graphs = walk.found
    outputs = {
        (inside.root, name)
        for inside in graphs
        for node in inside.graph.node
        if _onnx_graph.is_gru(node) or _onnx_graph.is_loop(node)
        for name in node.output
    }
    readers: dict[Any, list[int]] = defaultdict(list)  # numbers of graphs that read an output, in order
    for number, inside in enumerate(graphs):
        for name in reads(inside.graph):
            key = inside.root, name
            if key in outputs and readers[key][-1:] != [number]:
                readers[key].append(number)
    for number, inside in enumerate(graphs):
        own = range(number, inside.end)

        def is_used(name: str, own: range = own, root: int = inside.root) -> bool:
            numbers = readers.get((root, name), [])
            first = bisect.bisect_left(numbers, own.start)
            return first < len(numbers) and numbers[first] < own.stop

        for name, node in _onnx_graph.named(inside.graph):
            if _onnx_graph.is_gru(node) or _onnx_graph.is_loop(node):
                yield Node(names.join(inside.prefix, name), node, inside, is_used)


def reads(graph: Any, besides: Sequence[str] = ()) -> Iterator[str]:
    """What a graph returns and its own nodes read, but for those of these operators."""
    for value in graph.output:  # of a function they are names
        yield value if isinstance(value, str) else value.name
    for node in graph.node:
        if node.op_type not in besides:
            yield from node.input
