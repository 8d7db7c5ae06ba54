"""Whole ONNX models: their graphs, operator by operator, as models of fastgru."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastgru._errors import FormatError
from fastgru._nodes import Slice
from fastgru._validate_models import Input
from fastgru._validate_models import Output as ModelOutput
from fastgru._writers import _onnx_gru
from fastgru.formats import (
    _fusion,
    _model,
    _onnx_graph,
    _onnx_loop,
    _onnx_norm,
    _onnx_operators,
    _onnx_recurrent,
    _onnx_shapes,
    _onnx_states,
    _onnx_windows,
    onnx,
)
from fastgru.formats._onnx_build import Builder, Open, Operator
from fastgru.formats._onnx_fold import NODE, Folder, Kind, Unknown
from fastgru.formats._onnx_graph import Given, Output, Walk, said
from fastgru.formats._onnx_layouts import Axis, OperatorError, Steps, Tracked
from fastgru.formats._onnx_node import Node, reads
from fastgru.formats._onnx_roles import Roles, key_of
from fastgru.formats._onnx_tensor import NO_LIMIT, Reader
from fastgru.model import Model

OPERATORS = _onnx_operators.OPERATORS | _onnx_shapes.OPERATORS | _onnx_windows.OPERATORS
FLOATS = {1: "float32", 10: "float32", 11: "float64", 16: "float32"}  # by TensorProto.DataType
INTEGERS = (2, 3, 4, 5, 6, 7, 12, 13)
SHOWN = 20  # problems in a message
MOST_NODES = 10_000  # of a graph
LAST_RESORT = (
    "take them out of the model, or load its GRUs alone by fastgru.load_all and compute the rest around them"
)


class Attempt(NamedTuple):
    """Which of the sizes that a file declares are taken as fixed.

    Attributes
    ----------
    batch, steps : bool
        False: calls may have any batch, any number of timesteps, whatever the file declares.
    """

    batch: bool
    steps: bool


def file_model(data: bytes, folder: Path | None, weights_dtype: str | None) -> Model:
    """The model of an ONNX file, of whose tensors some may lie in files in its folder, if it has one."""
    proto, limit = onnx.parsed(data)
    return _model_of(proto, lambda: Folder(Reader(folder, limit)), limit + onnx.STRUCTURE, weights_dtype)


def live_model(model: Any, weights_dtype: str | None) -> Model:
    """The model of an onnx.ModelProto that is in memory."""
    library = sys.modules.get("onnx")  # whoever has a model has imported it
    if library and isinstance(model, library.ModelProto):
        return _model_of(model, lambda: onnx.folder_of(model), NO_LIMIT, weights_dtype)
    raise TypeError(f"model must be an onnx.ModelProto, a path or bytes, got {type(model).__name__}")


def _model_of(proto: Any, folder: Any, names: int, weights_dtype: str | None) -> Model:
    """The model, with as few fixed sizes as possible."""
    if len(proto.graph.node) > MOST_NODES:
        raise FormatError(f"a model must have at most {MOST_NODES} nodes, got {len(proto.graph.node)}")
    opset = _onnx_graph.opset_of(proto)
    _onnx_gru.check_opset(opset, FormatError)
    first: FormatError | None = None
    attempts = [Attempt(batch=False, steps=False)]
    if _declares(proto.graph):
        attempts += [Attempt(batch=False, steps=True), Attempt(batch=True, steps=True)]
    for attempt in attempts:
        walk = Walk(proto.graph, opset, _model.Names(names), proto.functions)
        try:
            return _Reading(proto, walk, folder(), attempt, weights_dtype).model()
        except FormatError as error:
            error.__context__ = None
            first = error.with_traceback(None)  # so that nothing stays of what has been read
    assert first is not None
    raise first


def _declares(graph: Any) -> bool:
    """True if an input has fixed sizes besides its last one."""
    return any(axis.dim_value for value in graph.input for axis in value.type.tensor_type.shape.dim[:-1])


class _Reading:
    """Reads a graph into a model."""

    def __init__(
        self, proto: Any, walk: Walk, folder: Folder, attempt: Attempt, weights_dtype: str | None
    ) -> None:
        self._proto, self._walk, self._folder, self._attempt = proto, walk, folder, attempt
        self._main = walk.found[0]
        self._roles = Roles(folder)
        self._problems: list[str] = []
        self._values: dict[
            Any, Any
        ] = {}  # by key: Tracked, ndarray, Open, or None of what cannot be computed
        self._loops: dict[Any, Any] = {}  # what they are, or why they are not read
        self._norms: dict[Any, Any] = {}  # of Div nodes
        given = {value.name for value in proto.graph.initializer}
        self._given = [value for value in proto.graph.input if value.name not in given]
        self._lengths: Tracked | None = None
        self._written: set[str] = set()  # inputs, and outputs so far
        dtype = "float32"
        for value in self._given:
            dtype = "float64" if value.type.tensor_type.elem_type == 11 else dtype
        self._builder = Builder(folder, self._roles, None, dtype, weights_dtype)
        self._used = {name for inside in walk.found for name in reads(inside.graph)}

    # ---- the whole -------------------------------------------------------------------------

    def model(self) -> Model:
        """The model."""
        scope = self._main.scope
        returned = [(value.name, _onnx_graph.find(scope, value.name)) for value in self._proto.graph.output]
        missing = [name for name, value in returned if value is None]
        if missing:
            raise FormatError(f"its output {missing[0]!r:.80} is computed by no node")
        order = list(self._order([value for _, value in returned]))
        inputs = self._inputs(order, [value for _, value in returned])
        for node, inside in order:
            self._read(node, inside)
        self._complain()
        if not inputs:
            raise FormatError("the model must have an input that its nodes read, got none")
        self._written = {one.name for one in inputs}
        outputs = [self._output(name, value) for name, value in returned]
        self._complain()
        outputs = self._renamed(outputs, [name for name, _ in returned])
        nodes = _fusion.fused(self._builder.nodes, [x.name for x in outputs])
        states = _onnx_states.pairs(nodes, inputs, outputs)
        return Model(
            inputs,
            nodes,
            [ModelOutput(x.name, x.layout()) for x in outputs],
            name=self._proto.graph.name or "model",
            dtype=self._builder.dtype,
            weights_dtype=self._builder.weights_dtype,
            states=states,
            batch=self._builder.batch,
        )

    def _complain(self) -> None:
        """Raise an error that names all operators that are not computed, if there are any."""
        if not self._problems:
            return
        shown = "; ".join(self._problems[:SHOWN])
        more = f"; and {len(self._problems) - SHOWN} more" if len(self._problems) > SHOWN else ""
        raise FormatError(
            f"the model has operators that fastgru does not compute: {shown}{more}: {LAST_RESORT}"
        )

    def _order(self, values: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """The nodes that values depend on, without those that are constants, in running order."""
        done: set[Any] = set()
        begun: set[Any] = set()
        pending = [value for value in reversed(values) if isinstance(value, Output)]
        while pending:
            top = pending[-1]
            key = id(top.node), id(top.inside)
            if key in done:
                pending.pop()
                continue
            if self._folder.value(top) is not Kind.CALL and not isinstance(self._folder.value(top), Unknown):
                done.add(key)
                pending.pop()
                continue
            sources = self._read_by(top)
            wanted = [
                source
                for source in sources
                if isinstance(source, Output) and (id(source.node), id(source.inside)) not in done
            ]
            if wanted and key not in begun:
                begun.add(key)
                self._folder.spend(NODE)
                pending += wanted
                continue
            if wanted:
                raise FormatError("a value depends on itself")
            done.add(key)
            pending.pop()
            yield top.node, top.inside

    def _read_by(self, value: Output) -> list[Any]:
        """The values that the node of a value reads; for a loop or normalization, those it begins with."""
        node, inside = value.node, value.inside
        key = id(node), id(inside)
        if _onnx_graph.is_loop(node) and key not in self._loops:
            named = Node(inside.prefix + (node.name or node.op_type), node, inside, self._used.__contains__)
            try:
                self._loops[key] = _onnx_loop.find(named, self._folder)
            except FormatError as error:
                self._loops[key] = str(error)
        if isinstance(self._loops.get(key), _onnx_loop.Found):
            return [self._loops[key].sequence, self._loops[key].initial]
        if node.op_type == "Div" and node.domain in _onnx_graph.STANDARD:
            self._norms[key] = _onnx_norm.find(value, self._folder.value)
            if self._norms[key] is not None:
                return [self._norms[key].source]
        return [_onnx_graph.find(inside.scope, name) for name in node.input if name]

    # ---- inputs ----------------------------------------------------------------------------

    def _inputs(self, order: Sequence[tuple[Any, Any]], returned: Sequence[Any]) -> list[Input]:
        """Note the inputs that are read. How nodes use them says what their axes are."""
        scope, roles = self._main.scope, self._roles
        read = {
            key_of(source) for node, inside in order for source in self._read_by(Output(node, 0, inside))
        } | {key_of(value) for value in returned}
        self._given = [value for value in self._given if key_of(scope[value.name]) in read]
        given = [(value, scope[value.name]) for value in self._given]
        for value, source in given:
            if roles.given(source) is None:
                raise FormatError(f"its input {value.name!r:.80} must have a shape in the file")
        for node, inside in order:
            key = id(node), id(inside)
            found, norm = self._loops.get(key), self._norms.get(key)
            if isinstance(found, _onnx_loop.Found):
                names = [_onnx_graph.find(inside.scope, name) if name else None for name in found.names]
                roles.loop(found.sequence, found.initial, names, found.is_time_major)
            elif norm is not None:
                roles.same(norm.source, Output(node, 0, inside))
            else:
                roles.node(node, inside)
        kinds = [value.type.tensor_type.elem_type for value in self._given]
        roles.finish((source, kind in INTEGERS) for (_, source), kind in zip(given, kinds, strict=True))
        frames = roles.frames()
        lengths = self._names_of_lengths(order)
        found = []
        for (value, source), kind in zip(given, kinds, strict=True):
            x = self._input(value, source, kind, key_of(source) in frames, value.name in lengths)
            if x is None:
                continue
            found.append(x)
        return [Input(x.name, self._shape(x), x.indices, x.layout()) for x in found if x is not self._lengths]

    def _names_of_lengths(self, order: Sequence[tuple[Any, Any]]) -> set[str]:
        """Names of inputs that are sequence_lens of GRUs."""
        found = set()
        for node, inside in order:
            if not _onnx_graph.is_gru(node) or len(node.input) < 5 or not node.input[4]:
                continue
            source = _onnx_graph.find(inside.scope, node.input[4])
            while (
                isinstance(source, Output)
                and source.node.op_type in ("Cast", "Identity")
                and source.node.input
            ):
                source = _onnx_graph.find(source.inside.scope, source.node.input[0])
            if isinstance(source, Given):
                found.add(source.value.name)
        return found

    @staticmethod
    def _shape(x: Tracked) -> tuple[int | None, ...]:
        steps = () if x.steps is None else (x.steps.size,)
        return steps if x.indices else (*steps, x.features)

    def _input(
        self, value: Any, source: Given, kind: int, is_frame: bool, is_lengths: bool
    ) -> Tracked | None:
        name = self._builder.name(value.name)
        if kind not in FLOATS and kind not in INTEGERS:
            raise FormatError(f"its input {name!r:.80} must be of numbers, got the data type {kind}")
        sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        if is_lengths:
            if len(sizes) != 1 or self._lengths is not None:
                raise FormatError(f"its input {name!r:.80} must be the only one of lengths, (batch,)")
            self._lengths = Tracked(name, ("b",), 1, None, True)
            self._put(source, self._lengths)
            return self._lengths
        axes: list[Axis] = []
        width, steps = 1, Steps(name, 1) if is_frame else None
        roles = self._roles.of(source)
        for role, size in zip(roles, sizes, strict=True):
            if role == "b" and "b" not in axes:
                axes.append("b")
                if size and self._attempt.batch:
                    self._fix(size, name)
            elif role == "t" and "t" not in axes:
                axes.append("t")
                steps = Steps(name, size if size and self._attempt.steps else None)
            elif role == "f" and size > 0 and "f" not in axes:
                axes.append("f")
                width = size
            elif size > 0:
                axes.append(size)
            else:
                names = ", ".join(str(each) for each in roles)
                raise FormatError(
                    f"its input {name!r:.80} must have a size for each axis but batch and timesteps, got "
                    f"{sizes} (0: none) for axes that are used as {names}"
                )
        is_index = kind in INTEGERS
        groups = [axis for axis in axes if isinstance(axis, int) and axis != 1]
        if len(groups) == 1 and "f" not in axes and not is_index:
            axes[axes.index(groups[0])], width, groups = "f", groups[0], []
        if len(groups) > 1 or (is_index and (groups or "f" in axes or steps is None)):
            raise FormatError(
                f"its input {name!r:.80} must have axes that are known to be batch, timesteps or features, "
                f"got the sizes {sizes}"
            )
        if "b" not in axes:
            self._fix(1, name)
        if steps is not None and not self._builder.first:
            self._builder.first = name
        x = Tracked(name, tuple(axes), width, steps, is_index)
        if x.features > 1 << 31:
            raise FormatError(f"its input {name!r:.80} has {x.features} features")
        self._put(source, x)
        return x

    def _fix(self, batch: int, name: str) -> None:
        if self._builder.batch not in (None, batch):
            raise FormatError(f"its input {name!r:.80} must have the batch of the others, got {batch}")
        self._builder.batch = batch

    def _put(self, source: Any, x: Any) -> None:
        self._values[key_of(source)] = x
        if isinstance(x, Tracked):
            self._builder.note(source, x)

    # ---- nodes -----------------------------------------------------------------------------

    def _what(self, source: Any) -> Any:
        """What a value is: Tracked, an array, Open; None of what is refused."""
        if source is None:
            return None
        key = key_of(source)
        if key in self._values:
            return self._values[key]
        found = self._folder.value(source)
        if found is Kind.SIZES:
            found = Open(source)
        return found if isinstance(found, np.ndarray | Open) else None

    def _read(self, node: Any, inside: Any) -> None:
        """Make nodes of an operator, or note why not."""
        standard = node.domain in _onnx_graph.STANDARD
        is_gru, is_loop = _onnx_graph.is_gru(node), _onnx_graph.is_loop(node)
        if not standard or not (is_gru or is_loop or node.op_type in OPERATORS):
            self._problems.append(f"{said(node)}, which is none that is computed")
            return
        sources = [_onnx_graph.find(inside.scope, name) if name else None for name in node.input]
        inputs = [self._what(source) for source in sources]
        key = id(node), id(inside)
        if self._norms.get(key) is not None:
            sources = [self._norms[key].source]
            inputs = [self._what(sources[0])]
        elif isinstance(self._loops.get(key), _onnx_loop.Found):
            sources = [self._loops[key].sequence]
            inputs = [self._what(sources[0])]
        missing = [
            source
            for found, source, name in zip(inputs, sources, node.input, strict=False)
            if found is None and name
        ]
        if missing:  # unless what it reads has been refused
            if None in missing:
                self._problems.append(f"{said(node)}, which reads a value that is nowhere")
            return
        found: Sequence[Tracked | None]
        try:
            if is_loop:
                self._loop(node, inside, self._loops[key])
                return
            of = Operator(self._builder, node, inside, inputs)
            if self._norms.get(key) is not None:
                found = _onnx_operators.normalized(of, self._norms[key].axis, self._norms[key].epsilon)
            elif is_gru:
                found = _onnx_recurrent.gru(of, self._used.__contains__, self._lengths)
            else:
                found = OPERATORS[node.op_type](of)
        except OperatorError as error:
            self._problems.append(f"{said(node)}: {error}")
            return
        for number, x in enumerate(found[: len(node.output)]):
            if x is not None:
                self._put(Output(node, number, inside), x.settled())

    def _loop(self, node: Any, inside: Any, found: Any) -> None:
        """Make nodes of a loop that is a GRU."""
        if isinstance(found, str):
            raise OperatorError(f"it is not read as a GRU, because {found}")
        x = self._what(found.sequence)
        initial = self._what(found.initial)
        if not isinstance(x, Tracked):
            raise OperatorError("its sequence must be computed from an input of the model")
        of = Operator(self._builder, node, inside, [x])
        start = initial if isinstance(initial, Tracked) else None
        for name, y in _onnx_recurrent.loop(of, found, x, start).items():
            if name:
                self._put(inside.scope[name], y)

    # ---- outputs ---------------------------------------------------------------------------

    def _output(self, name: str, source: Any) -> Tracked:
        """The value of an output of the model, with its name."""
        x = self._what(source)
        if not isinstance(x, Tracked) or any(x.pads) or x.turned:
            self._problems.append(
                f"its output {name!r:.80}: it must be computed from inputs, and not be padded"
            )
            return Tracked(name, (), 1, None)
        if x.indices:
            raise FormatError(f"its output {name!r:.80} is an input of integers")
        if x.name in self._written:  # a value may be returned once
            x = self._copied(name, x)
        self._written.add(x.name)
        return x

    def _copied(self, name: str, x: Tracked) -> Tracked:
        """Another value with the same numbers."""
        builder = self._builder
        copied = x._replace(name=builder.name(name))
        node = Slice(name=name, inputs=(x.name,), outputs=(copied.name,), start=0, stop=x.features)
        builder.nodes.append(node)
        return copied

    def _renamed(self, outputs: Sequence[Tracked], names: Sequence[str]) -> list[Tracked]:
        """Outputs with the names that they have in the file; whatever else has these gets others."""
        builder = self._builder
        given = {key.name for key in self._values.values() if isinstance(key, Tracked)} & {
            value.name for value in self._given
        }
        new = {}
        for x, name in zip(outputs, names, strict=True):
            new[x.name] = builder.name(name) if name in given else name
        taken = set(new.values()) - set(new)
        for node in builder.nodes:
            new |= {name: builder.name(name) for name in node.outputs if name in taken and name not in new}
        builder.nodes[:] = [
            dataclasses.replace(
                node,
                inputs=tuple(new.get(name, name) for name in node.inputs),
                outputs=tuple(new.get(name, name) for name in node.outputs),
            )
            for node in builder.nodes
        ]
        return [x._replace(name=new[x.name]) for x in outputs]
