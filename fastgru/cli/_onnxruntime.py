"""A GRU node of an ONNX file as onnxruntime computes it: the file's own nodes, cut out around the GRU.

This tests fastgru's reader, so it uses nothing of it: onnx inlines functions, and onnxruntime
computes whatever the file makes of its constants.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastgru.cli._runtime import Array, File, Runtime, lengths, need

STANDARD = ("", "ai.onnx")
X, W, R, B, LENGTHS, STATE = range(6)  # inputs of the operator
GIVEN = {LENGTHS: "fastgru.sequence_lens", STATE: "fastgru.initial_h"}  # what a call gives the node
SHAPE = "fastgru.shape"
RETURNED = "fastgru.Y", "fastgru.Y_h"


def model(path: Path) -> Any:
    """What a file holds, with the data beside it."""
    need("onnxruntime", "to run ONNX models")
    return need("onnx", "to read ONNX models").load(path)


def whole(path: Path) -> Callable[[Mapping[str, Array]], list[Array]]:
    """A function from the inputs of a whole model, by name, to its outputs."""
    session = need("onnxruntime", "to run ONNX models").InferenceSession(path)
    types = {one.name: one.type for one in session.get_inputs()}

    def run(inputs: Mapping[str, Array]) -> list[Array]:
        given = {
            name: array.astype(np.int64) if types[name] == "tensor(int64)" else array
            for name, array in inputs.items()
        }
        return [np.asarray(one) for one in session.run(None, given)]

    return run


def file(path: Path) -> File:
    """The GRU nodes of a file."""
    read = model(path)

    def layer(name: str) -> Runtime:
        gru = Gru(read, name)
        return runtime(gru)._replace(time_major=not gru.batch_major)

    return File([name for name, _ in _grus([read.graph], read.functions)], layer)


def runtime(gru: "Gru") -> Runtime:
    """A node, with what the model has for it."""
    features, units = gru.sizes()

    def run(x: Array, mask: Array | None, states: Sequence[Array] | None) -> list[Array]:
        return gru.run(x, lengths(mask, x), states)

    return Runtime(features, units, run)


class Place(NamedTuple):
    """A GRU node, and the graphs that it is in, the outermost first."""

    node: Any
    graphs: tuple[Any, ...]


class Gru:
    """A GRU node that computes in onnxruntime what it is given.

    Parameters
    ----------
    model : onnx.ModelProto
        With all its data.
    name : str or None
        The node's, with those of the graphs and calls that it is in, or its kind and number; None: that of
        the first one.

    Attributes
    ----------
    batch_major : bool
        The file says that the batch is the first axis.
    """

    def __init__(self, model: Any, name: str | None) -> None:
        import onnx
        import onnx.inliner

        names = [found for found, _ in _grus([model.graph], model.functions)]
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        places = [place for _, place in _grus([model.graph], ())]
        if len(places) != len(names):
            raise ValueError(f"onnx finds {len(places)} GRU nodes where there are {len(names)}")
        self._model = model
        if name is not None and name not in names:
            raise ValueError(f"onnx finds no GRU node of the name {name!r}")
        self._place = places[0 if name is None else names.index(name)]
        attributes = {each.name: each for each in self._place.node.attribute}
        direction = attributes["direction"].s if "direction" in attributes else b"forward"
        self._backwards, self._directions = direction == b"reverse", 1 + (direction == b"bidirectional")
        self.batch_major = "layout" in attributes and attributes["layout"].i == 1
        self._inputs = [*self._place.node.input, *[""] * 6][:6]
        self._graph = _Flat(self._place.graphs, self._inputs[X])
        self._session: Any = None

    def run(self, x: Array, lengths: Array, states: Sequence[Array] | None) -> list[Array]:
        """Outputs (batch, timesteps, directions * units) in the order of the run, and the last states.

        Parameters
        ----------
        x : ndarray, shape (batch, timesteps, features)
        lengths : ndarray of int, shape (batch,)
        states : sequence of ndarray, shape (batch, units)
            Of each direction. None: those that the file starts from, zeros where they are the caller's.
        """
        if self._session is None:
            self._session = self._made(x.dtype)
        start = self._own_states(x) if states is None else np.stack(states)
        given = {
            self._inputs[X]: np.ascontiguousarray(x if self.batch_major else x.swapaxes(0, 1)),
            GIVEN[LENGTHS]: lengths.astype(np.int32),
            GIVEN[STATE]: np.ascontiguousarray(start).astype(x.dtype),
        }
        y, y_h = self._session.run(RETURNED, given)
        outputs = y.transpose(2, 0, 1, 3).reshape(*x.shape[:2], -1)
        return [outputs[:, ::-1] if self._backwards else outputs, *y_h]  # Keras has the order of the run

    def _made(self, dtype: np.dtype[Any]) -> Any:
        """A session of the node, with the nodes that its weights come from."""
        import onnx

        node = onnx.NodeProto()
        node.CopyFrom(self._place.node)
        for index, attribute in enumerate(node.attribute):
            if attribute.name == "layout":  # not in onnxruntime: the axes of X are transposed before it
                del node.attribute[index]
                break
        inputs = [GIVEN.get(index, name) for index, name in enumerate(self._inputs)]
        turned = []
        if self.batch_major:
            turned = [onnx.helper.make_node("Transpose", [self._inputs[X]], ["fastgru.X"], perm=[1, 0, 2])]
            inputs[X] = "fastgru.X"
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(RETURNED)
        element = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        types = {self._inputs[X]: element, GIVEN[LENGTHS]: onnx.TensorProto.INT32, GIVEN[STATE]: element}
        weights = [self._inputs[key] for key in (W, R, B) if self._inputs[key]]
        return self._graph.session(self._model, [*turned, node], weights, types, RETURNED)

    def _own_states(self, x: Array) -> Array:
        """The states that the file starts from, (directions, batch, units)."""
        name, batch = self._inputs[STATE], x.shape[0]
        if not name or self._graph.reads_values(name):
            return np.zeros((self._directions, batch, self.sizes()[1][0]), x.dtype)
        import onnx

        given = {self._inputs[X]: x if self.batch_major else x.swapaxes(0, 1)}
        types = {self._inputs[X]: onnx.helper.np_dtype_to_tensor_dtype(x.dtype)}
        for key, (kind, shape) in self._graph.given(name).items():  # of which only the shapes matter
            types[key] = kind
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
            given[key] = np.zeros([size or batch for size in shape], dtype)
        (states,) = self._graph.session(self._model, [], [name], types, [name]).run([name], given)
        states = states.swapaxes(0, 1) if self.batch_major else states
        rows: Array = states[:, np.arange(batch) % states.shape[1]]  # one row, or those of a batch
        return rows

    def sizes(self) -> tuple[int, tuple[int, ...]]:
        """Features of the inputs, and units of each direction."""
        directions, _, features = self._shape(self._inputs[W])
        return features, (self._shape(self._inputs[R])[2],) * directions

    def _shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value of the file."""
        import onnx

        node = onnx.helper.make_node("Shape", [name], [SHAPE])
        (shape,) = self._graph.session(self._model, [node], [name], {}, [SHAPE]).run([SHAPE], {})
        return tuple(map(int, shape))


def _grus(graphs: Sequence[Any], functions: Sequence[Any], prefix: str = "") -> Iterator[tuple[str, Place]]:
    """GRU nodes by name, in the order in which they stand where functions are in the place of their calls."""
    numbers: Counter[str] = Counter()
    for node in graphs[-1].node:
        kind = node.op_type.lower()
        name = prefix + (node.name or f"{kind}_{numbers[kind]}")
        numbers[kind] += 1
        called = [each for each in functions if _key(each) == (node.domain, node.op_type, _overload(node))]
        if called:
            yield from _grus([*graphs, called[0]], functions, f"{name}/")
        elif node.op_type == "GRU" and node.domain in STANDARD:
            yield name, Place(node, tuple(graphs))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _grus([*graphs, attribute.g], functions, f"{name}/{attribute.name}/")


def _key(function: Any) -> tuple[str, str, str]:
    """Domain, name and overload of a function, as in a node that calls it."""
    return function.domain, function.name, _overload(function)


def _overload(proto: Any) -> str:
    """Which of the functions of a name it is; older versions of onnx have one alone."""
    return str(getattr(proto, "overload", ""))


class _Flat:
    """Graphs in each other as one, with a value that is an input instead of computed.

    Parameters
    ----------
    graphs : sequence of onnx.GraphProto
        The outermost first.
    cut : str
        The value.
    """

    def __init__(self, graphs: Sequence[Any], cut: str) -> None:
        self._cut = cut
        self._makers: dict[str, Any] = {}
        self._tensors: dict[str, Any] = {}
        self._inputs: dict[str, Any] = {}
        for graph in graphs:  # what is inside hides what is outside
            for value in graph.input:
                self._forget(value.name)
                self._inputs[value.name] = value
            for tensor in graph.initializer:
                self._forget(tensor.name)
                self._tensors[tensor.name] = tensor
            for node in graph.node:
                for name in filter(None, node.output):
                    self._forget(name)
                    self._makers[name] = node
        self._forget(cut)

    def _forget(self, name: str) -> None:
        for values in (self._makers, self._tensors, self._inputs):
            values.pop(name, None)

    def _cone(self, names: Sequence[str], through_shapes: bool = True) -> set[str]:
        """Names of all values that these are computed from, themselves included."""
        found: set[str] = set()
        pending = [*names]
        while pending:
            name = pending.pop()
            if not name or name in found:
                continue
            found.add(name)
            maker = self._makers.get(name)
            if maker is not None and (through_shapes or maker.op_type not in ("Shape", "Size")):
                pending += _read(maker)
        return found

    def reads_values(self, name: str) -> bool:
        """True if a value depends on those of an input, and not on their shapes alone."""
        return any(each in self._inputs or each == self._cut for each in self._cone([name], False))

    def given(self, name: str) -> dict[str, tuple[int, list[int]]]:
        """Inputs that a value depends on: their types, and their shapes with 0 for what is open."""
        found = {}
        for each in self._cone([name]):
            if each in self._inputs:
                tensor = self._inputs[each].type.tensor_type
                found[each] = tensor.elem_type, [axis.dim_value for axis in tensor.shape.dim]
        return found

    def session(
        self,
        model: Any,
        nodes: Sequence[Any],
        names: Sequence[str],
        types: Mapping[str, int],
        outputs: Sequence[str],
    ) -> Any:
        """A session that computes values, and what nodes make of them.

        Parameters
        ----------
        model : onnx.ModelProto
            Whose opsets it has.
        nodes : sequence of onnx.NodeProto
            In their order.
        names : sequence of str
            The values.
        types : mapping
            The element types of inputs.
        outputs : sequence of str
            What it returns.
        """
        import onnx
        import onnxruntime

        needed = self._cone(names)
        missing = sorted(needed & self._inputs.keys() - types.keys())
        if missing:
            raise ValueError(f"the weights depend on {', '.join(missing)}, which are inputs of the graph")
        makers = {id(node): node for name, node in self._makers.items() if name in needed}
        graph = onnx.helper.make_graph(
            [*makers.values(), *nodes],
            "layer",
            [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in types.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [tensor for name, tensor in self._tensors.items() if name in needed],
        )
        made = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised, too
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(made.SerializeToString(), options, ["CPUExecutionProvider"])


def _read(node: Any) -> list[str]:
    """What a node reads, and what the nodes of graphs in it read, maybe from each other."""
    names = [*node.input]
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names += _read(inner)
        names += [value.name for value in attribute.g.output]
    return names
