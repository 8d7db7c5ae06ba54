"""Graphs of an ONNX model: which are in which, and what their nodes see under which names."""

from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastgru._errors import FormatError
from fastgru.formats import _model

DEPTH = 32  # of graphs in nodes in graphs, and of functions in functions
LONGEST = 1000  # way of a value in and out of functions
VALUE = 400  # bytes that CPython takes for a name in a scope and what it stands for
STANDARD = ("", "ai.onnx")  # the domain of ONNX' own operators

Scope = ChainMap[str, Any]  # what a graph's nodes see, by name: an onnx.TensorProto, Output, Given or Alias


class Output(NamedTuple):
    """What a node returns.

    Attributes
    ----------
    node : onnx.NodeProto
    number : int
        Of the output.
    inside : Inside
        The graph of the node.
    """

    node: Any
    number: int
    inside: "Inside"


class Given(NamedTuple):
    """What a graph is given: an input of the model, or of the body of a loop.

    Attributes
    ----------
    value : onnx.ValueInfoProto
        Its name and type.
    """

    value: Any


class Alias(NamedTuple):
    """A value that has another name in another scope: what goes into a function, or comes out of it."""

    name: str
    scope: Scope


@dataclass(eq=False)
class Inside:
    """One graph of a model. Graphs are numbered from the outermost one on, each before those in it.

    Attributes
    ----------
    graph : onnx.GraphProto or onnx.FunctionProto
    scope : mapping
        The values that its nodes see.
    prefix : str
        What the names of its nodes begin with.
    opset : int
        The version of the standard operators.
    root : int
        The number of the outermost graph that its nodes see: that of the model's, or of a function's body.
    attributes : mapping
        Those of the call of the function that it is in, by name.
    end : int
        The number after that of the last graph in it.
    bodies : dict of int to (onnx.NodeProto, Inside)
        The loops among its nodes and their bodies, by the nodes' identities.
    """

    graph: Any
    scope: Scope
    prefix: str
    opset: int
    root: int
    attributes: Mapping[str, Any]
    end: int = 0
    bodies: dict[int, tuple[Any, "Inside"]] = field(default_factory=dict, repr=False)
    _types: dict[str, Any] | None = field(default=None, repr=False)

    def type_of(self, name: str) -> Any:
        """The onnx.ValueInfoProto that the graph has of a value, or None."""
        if self._types is None:
            infos = (
                [] if not hasattr(self.graph, "initializer") else [*self.graph.value_info, *self.graph.output]
            )
            self._types = {info.name: info for info in infos}
        return self._types.get(name)


def find(scope: Scope, name: str) -> Any:
    """What stands behind a name, through the calls of functions; None if it has no value."""
    seen = 0
    value = scope.get(name) if name else None
    while isinstance(value, Alias):
        seen += 1
        if seen > LONGEST:
            raise FormatError(f"the value {name!r:.80} goes through more than {LONGEST} calls of functions")
        value = value.scope.get(value.name) if value.name else None
    return value


def is_gru(node: Any) -> bool:
    """True of a GRU node."""
    return node.op_type == "GRU" and node.domain in STANDARD


def is_loop(node: Any) -> bool:
    """True of a Loop or Scan node."""
    return node.op_type in ("Loop", "Scan") and node.domain in STANDARD


def carried(node: Any) -> tuple[int, int, int]:
    """Where what a loop carries begins in its inputs and in its body's outputs, and how many values it is."""
    if node.op_type == "Loop":
        return 2, 1, max(0, len(node.input) - 2)
    scanned = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), 0)
    return 0, 0, max(0, len(node.input) - max(0, scanned))


def _hand_on(node: Any, body: Inside, outer: Scope) -> None:
    """Make the values that a loop carries unchanged aliases of their initial values."""
    first, returned, count = carried(node)
    values = body.scope.maps[0]
    inputs, outputs = body.graph.input[first : first + count], body.graph.output[returned : returned + count]
    for given, after, initial in zip(inputs, outputs, node.input[first : first + count], strict=False):
        if after.name == given.name and isinstance(values.get(given.name), Given):
            values[given.name] = Alias(initial, outer)


def said(node: Any) -> str:
    """How a message calls a node."""
    kind = f"{node.domain}.{node.op_type}".removeprefix(".")
    return f"the node {node.name!r:.80} ({kind:.80})" if node.name else f"a node {kind:.80}"


def attributes(node: Any, given: Mapping[str, Any]) -> Iterator[Any]:
    """The attributes of a node; references to a function's attributes become those of its call."""
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            yield attribute
        elif attribute.ref_attr_name in given:
            copied = type(attribute)()
            copied.CopyFrom(given[attribute.ref_attr_name])
            copied.name = attribute.name
            yield copied


def named(graph: Any) -> Iterator[tuple[str, Any]]:
    """The nodes of a graph by name: their own, or their kinds and their numbers among those."""
    numbers: Counter[str] = Counter()
    for node in graph.node:
        kind = node.op_type.lower()
        yield node.name or f"{kind}_{numbers[kind]}", node
        numbers[kind] += 1


def opset_of(holder: Any, default: int | None = None) -> int:
    """The version of the standard operators in a model or a function, which may have a default."""
    versions = [opset.version for opset in holder.opset_import if opset.domain in STANDARD]
    if not versions and default is not None:
        return default
    if len(versions) != 1:
        raise FormatError("no ONNX model: it must have the version of one opset")
    return int(versions[0])


class Walk:
    """All graphs of a model: its own, those in nodes as in If, Loop and Scan, and the bodies of functions.

    Parameters
    ----------
    graph : onnx.GraphProto
    opset : int
    names : Names
        What names and values may take.
    functions : sequence of onnx.FunctionProto
        That nodes may call.

    Attributes
    ----------
    found : list of Inside
    """

    def __init__(self, graph: Any, opset: int, names: _model.Names, functions: Any = ()) -> None:
        self.found: list[Inside] = []
        self._names = names
        self._functions = {(f.domain, f.name, getattr(f, "overload", "")): f for f in functions}
        self._graph(graph, Inside(graph, ChainMap(), "", opset, 0, {}), 0)

    def _graph(self, graph: Any, inside: Inside, depth: int) -> Scope:
        """Note a graph, whose scope has what it sees of others, and those in it; return the scope."""
        if depth > DEPTH:
            raise FormatError(f"graphs are nested deeper than {DEPTH}")
        self.found.append(inside)
        calls = self._values(graph, inside)
        for index, (name, node) in enumerate(named(graph)):
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    prefix = self._names.join(inside.prefix, name, "/", attribute.name, "/")
                    inner = Inside(
                        attribute.g,
                        inside.scope.new_child(),
                        prefix,
                        inside.opset,
                        inside.root,
                        inside.attributes,
                    )
                    self._graph(attribute.g, inner, depth + 1)
                    if is_loop(node) and attribute.name == "body":
                        inside.bodies[id(node)] = node, inner
                        _hand_on(node, inner, inside.scope)
            if index in calls:
                self._call(name, node, calls[index], inside, depth)
        inside.end = len(self.found)
        return inside.scope

    def _values(self, graph: Any, inside: Inside) -> dict[int, Any]:
        """Fill the scope of a graph; return the functions that its nodes call, by the nodes' numbers."""
        is_function = not hasattr(graph, "initializer")
        if not is_function:
            for value in graph.input:
                self._add(inside.scope, value.name, Given(value))
            given = {value.name for value in graph.input}
            for tensor in graph.initializer:  # the default of an input that a call may leave out
                if tensor.name in given:
                    del inside.scope.maps[0][tensor.name]
                    given.discard(tensor.name)
                self._add(inside.scope, tensor.name, tensor)
        calls = {}
        for number, node in enumerate(graph.node):
            key = node.domain, node.op_type, getattr(node, "overload", "")
            if key in self._functions:
                calls[number] = self._functions[key]
                for name in filter(None, node.output):
                    self._names.spend(VALUE + len(name))  # they come with the call
                continue
            for index, name in enumerate(node.output):
                if name:
                    self._add(inside.scope, name, Output(node, index, inside))
        return calls

    def _add(self, scope: Scope, name: str, value: Any) -> None:
        self._names.spend(VALUE + len(name))
        if name in scope.maps[0]:
            raise FormatError(f"two values have the name {name!r:.80}")
        scope.maps[0][name] = value

    def _call(self, name: str, node: Any, function: Any, outer: Inside, depth: int) -> None:
        """Note the body of a function that a node calls."""
        self._names.spend(VALUE)
        scope: Scope = ChainMap()
        for i, formal in enumerate(function.input):
            actual = node.input[i] if i < len(node.input) else ""
            self._add(scope, formal, Alias(actual, outer.scope))
        defaults = {attribute.name: attribute for attribute in function.attribute_proto}
        given = {attribute.name: attribute for attribute in attributes(node, outer.attributes)}
        prefix = self._names.join(outer.prefix, name, "/")
        root = len(self.found)
        body = Inside(function, scope, prefix, opset_of(function, outer.opset), root, defaults | given)
        for formal, actual in zip(function.output, node.output, strict=False):
            if actual:
                self._add(outer.scope, actual, Alias(formal, scope))
        self._graph(function, body, depth + 1)
