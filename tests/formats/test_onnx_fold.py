"""Weights and states that nodes of an ONNX model compute, against onnxruntime and PyTorch."""

import importlib.util
import io
import itertools
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastgru

TIMESTEPS, BATCH, FEATURES, UNITS = 7, 3, 4, 5
TOLERANCE = 3e-5
OPSETS = [9, 11, 13, 17, 21, 22, 23]


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class Graph:
    """Nodes and initializers that come together one by one.

    Attributes
    ----------
    opset : int
    random : Generator
    """

    def __init__(self, opset, random):
        self.opset, self.random = opset, random
        self.nodes, self.tensors = [], []
        self._names = (f"v{i}" for i in itertools.count())

    def constant(self, array):
        """The name of an initializer, or of a Constant."""
        name = next(self._names)
        tensor = array if isinstance(array, TensorProto) else numpy_helper.from_array(np.asarray(array), name)
        tensor.name = name
        if self.random.integers(3):
            self.tensors.append(tensor)
        else:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def node(self, kind, inputs, outputs=1, **attributes):
        """The name of the first output of a node."""
        names = [next(self._names) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0]

    def gru(self, weights, *, state="", lengths="", layout=0, outputs=("Y", "Y_h"), x="X", **attributes):
        """A GRU of weights by name."""
        names = [x, weights["W"], weights["R"], weights.get("B", ""), lengths, state]
        if layout:
            attributes["layout"] = 1
        self.nodes.append(helper.make_node("GRU", names, outputs, "gru", hidden_size=UNITS, **attributes))

    def model(self, inputs=None, outputs=("Y", "Y_h"), **more):
        inputs = {"X": ["time", "batch", FEATURES]} if inputs is None else inputs
        shown = [
            shape
            if isinstance(shape, onnx.ValueInfoProto)
            else helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in inputs.items()
        ]
        returned = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "graph", shown, returned, self.tensors)
        opsets = [helper.make_opsetid("", self.opset), *more.pop("opsets", [])]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def weights_of(random, directions=1, scale=0.4):
    """W, R and B."""
    shapes = {"W": (3 * UNITS, FEATURES), "R": (3 * UNITS, UNITS), "B": (6 * UNITS,)}
    return {
        key: random.normal(scale=scale, size=(directions, *shape)).astype(np.float32)
        for key, shape in shapes.items()
    }


def ours(layer, x, **more):
    """Y (timesteps, directions, batch, units) and Y_h of a layer that returns all."""
    layers = layer._parts
    y, *states = layer(x if layer.time_major else x.swapaxes(0, 1), **more)
    y = y if layer.time_major else y.swapaxes(0, 1)
    if len(layers) == 1 and layers[0].go_backwards:
        y = y[::-1]
    return y.reshape(*y.shape[:2], len(layers), -1).swapaxes(1, 2), np.stack(states)


def assert_agrees(model, feed=None):
    """The layer of a model computes what onnxruntime does; the layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = fastgru.from_onnx(model)
    x = np.random.default_rng(1).normal(size=(TIMESTEPS, BATCH, FEATURES)).astype(np.float32)
    theirs = session(model).run(["Y", "Y_h"], {"X": x} | (feed or {}))
    for our, their in zip(ours(layer, x), theirs, strict=True):
        np.testing.assert_allclose(our, their, rtol=0, atol=TOLERANCE)
    assert np.abs(theirs[0]).max() > 1e-3
    return layer


# ---- random chains of nodes --------------------------------------------------------------------


class Chain:
    """Random nodes that end in values of a shape, each made for the shape that the next one needs."""

    def __init__(self, graph):
        self.graph, self.random = graph, graph.random

    def made(self, shape, steps):
        """The name of a value of a shape that so many nodes in a row compute."""
        graph, random = self.graph, self.random
        if not steps:
            return graph.constant(random.normal(scale=0.4, size=shape).astype(np.float32))
        kinds = [getattr(self, name) for name in dir(self) if name.startswith("by_")]
        found = None
        while found is None:
            found = kinds[random.integers(len(kinds))](list(shape), steps - 1)
        return found

    def axis(self, shape):
        return int(self.random.integers(len(shape))) if shape else None

    def integers(self, *values):
        return self.graph.constant(np.array(values, np.int64))

    def by_one(self, shape, steps):
        kind = self.random.choice(["Identity", "Neg", "Tanh", "Sigmoid", "Abs", "Sin", "Erf", "Softsign"])
        return self.graph.node(str(kind), [self.made(shape, steps)])

    def by_two(self, shape, steps):
        other = [size if self.random.integers(2) else 1 for size in shape]
        kind = self.random.choice(["Add", "Sub", "Mul"])
        pair = [self.made(shape, steps), self.made(other[self.random.integers(len(shape) + 1) :], 0)]
        return self.graph.node(str(kind), pair if self.random.integers(2) else pair[::-1])

    def by_turning(self, shape, steps):
        if not shape:
            return None
        perm = self.random.permutation(len(shape))
        before = [0] * len(shape)
        for after, axis in enumerate(perm):
            before[axis] = shape[after]
        return self.graph.node("Transpose", [self.made(before, steps)], perm=perm.tolist())

    def by_reshaping(self, shape, steps):
        size = int(np.prod(shape))
        first = int(self.random.choice([n for n in range(1, size + 1) if size % n == 0]))
        wanted = list(shape)
        if wanted and self.random.integers(2):
            wanted[self.axis(shape)] = -1
        return self.graph.node("Reshape", [self.made([first, size // first], steps), self.integers(*wanted)])

    def by_squeezing(self, shape, steps):
        at = int(self.random.integers(len(shape) + 1))
        value = self.made([*shape[:at], 1, *shape[at:]], steps)
        if self.graph.opset < 13:
            return self.graph.node("Squeeze", [value], axes=[at])
        return self.graph.node("Squeeze", [value, self.integers(at)])

    def by_unsqueezing(self, shape, steps):
        ones = [axis for axis, size in enumerate(shape) if size == 1]
        if not ones:
            return None
        at = int(self.random.choice(ones))
        value = self.made(shape[:at] + shape[at + 1 :], steps)
        if self.graph.opset < 13:
            return self.graph.node("Unsqueeze", [value], axes=[at])
        return self.graph.node("Unsqueeze", [value, self.integers(at)])

    def by_slicing(self, shape, steps):
        if not shape:
            return None
        axis, start, step = self.axis(shape), int(self.random.integers(3)), int(self.random.integers(1, 3))
        if self.graph.opset < 10:
            before = [*shape[:axis], shape[axis] + start, *shape[axis + 1 :]]
            value = self.made(before, steps)
            return self.graph.node("Slice", [value], starts=[start], ends=[2**31 - 1], axes=[axis])
        backwards = bool(self.random.integers(2))
        before = [*shape[:axis], step * (shape[axis] - 1) + 1 + start, *shape[axis + 1 :]]
        ends = [-(2**63) + 1, -step, -1 - start] if backwards else [2**63 - 1, step, start]
        names = [self.integers(value) for value in (ends[2], ends[0], axis, ends[1])]
        return self.graph.node("Slice", [self.made(before, steps), *names])

    def by_joining(self, shape, steps):
        axis = self.axis(shape)
        if axis is None or shape[axis] < 2:
            return None
        first = int(self.random.integers(1, shape[axis]))
        pieces = [[*shape[:axis], size, *shape[axis + 1 :]] for size in (first, shape[axis] - first)]
        names = [self.made(pieces[0], steps), self.made(pieces[1], 0)]
        return self.graph.node("Concat", names, axis=axis - len(shape) * int(self.random.integers(2)))

    def by_splitting(self, shape, steps):
        axis = self.axis(shape)
        if axis is None:
            return None
        rest = int(self.random.integers(1, 4))
        value = self.made([*shape[:axis], shape[axis] + rest, *shape[axis + 1 :]], steps)
        sizes = [shape[axis], rest]
        if self.graph.opset < 13:
            return self.graph.node("Split", [value], 2, axis=axis, split=sizes)
        return self.graph.node("Split", [value, self.integers(*sizes)], 2, axis=axis)

    def by_gathering(self, shape, steps):
        axis = self.axis(shape)
        if axis is None:
            return None
        indices = self.random.integers(-shape[axis], shape[axis], shape[axis])
        return self.graph.node("Gather", [self.made(shape, steps), self.integers(*indices)], axis=axis)

    def by_casting(self, shape, steps):
        other = int(self.random.choice([TensorProto.FLOAT16, TensorProto.DOUBLE]))
        value = self.graph.node("Cast", [self.made(shape, steps)], to=other)
        return self.graph.node("Cast", [value], to=TensorProto.FLOAT)

    def by_repeating(self, shape, steps):
        if not shape:
            return None
        axis = self.axis(shape)
        value = self.made([*shape[:axis], 1, *shape[axis + 1 :]], steps)
        if self.random.integers(2):
            return self.graph.node("Expand", [value, self.integers(*shape)])
        times = [size if i == axis else 1 for i, size in enumerate(shape)]
        return self.graph.node("Tile", [value, self.integers(*times)])

    def by_padding(self, shape, steps):
        axis = self.axis(shape)
        if axis is None or shape[axis] < 2 or self.graph.opset < 11:
            return None
        pads = [0] * 2 * len(shape)
        pads[axis + len(shape) * int(self.random.integers(2))] = 1
        value = self.made([*shape[:axis], shape[axis] - 1, *shape[axis + 1 :]], steps)
        return self.graph.node("Pad", [value, self.integers(*pads)])

    def by_multiplying(self, shape, steps):
        if len(shape) < 2:
            return None
        inner = int(self.random.integers(1, 4))
        names = [self.made([*shape[:-1], inner], steps), self.made([inner, shape[-1]], 0)]
        return self.graph.node("MatMul", names)

    def by_summing(self, shape, steps):
        at = int(self.random.integers(len(shape) + 1))
        value = self.made([*shape[:at], 2, *shape[at:]], steps)
        if self.graph.opset < 13:
            return self.graph.node("ReduceSum", [value], axes=[at], keepdims=0)
        return self.graph.node("ReduceSum", [value, self.integers(at)], keepdims=0)

    def by_filling(self, shape, steps):
        name = self.integers(*shape)
        value = numpy_helper.from_array(np.array([0.25], np.float32))
        return self.graph.node(
            "Add", [self.graph.node("ConstantOfShape", [name], value=value), self.made(shape, steps)]
        )

    def by_choosing(self, shape, steps):
        which = self.graph.constant(self.random.integers(2, size=shape).astype(bool))
        return self.graph.node("Where", [which, self.made(shape, steps), self.made(shape, 0)])

    def by_quantizing(self, shape, steps):
        if self.graph.opset < 10:
            return None
        scale, zero = np.float32(0.02), np.uint8(128)
        names = [self.graph.constant(each) for each in (scale, zero)]
        value = self.graph.node("QuantizeLinear", [self.made(shape, steps), *names])
        return self.graph.node("DequantizeLinear", [value, *names])


@pytest.mark.parametrize("seed", range(120))
def test_random_chains_of_nodes_are_computed(seed):
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    direction = str(random.choice(["forward", "reverse", "bidirectional"]))
    directions = 1 + (direction == "bidirectional")
    graph = Graph(int(random.choice(OPSETS)), random)
    shapes = {"W": [directions, 3 * UNITS, FEATURES], "R": [directions, 3 * UNITS, UNITS]}
    shapes |= {"B": [directions, 6 * UNITS]} if random.integers(2) else {}
    names = {key: Chain(graph).made(shape, int(random.integers(1, 9))) for key, shape in shapes.items()}
    names = {key: graph.node("Tanh", [name]) for key, name in names.items()}  # or states grow without bound
    attributes = {"direction": direction, "linear_before_reset": int(random.integers(2))}
    graph.gru(names, **attributes)
    assert_agrees(graph.model())


# ---- quantized weights -------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1])
@pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT16", "UINT16", "INT4", "UINT4", "FLOAT8E4M3FN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_quantized_weights_are_read(kind, axis, direction):
    random = np.random.default_rng(0)
    graph = Graph(21, random)
    element = getattr(TensorProto, kind)
    names, ends = {}, {"INT8": (-128, 127), "INT16": (-999, 999), "INT4": (-8, 7), "UINT4": (0, 15)}
    low, high = ends.get(kind, (0, 255))
    for key, array in weights_of(random, 1 + (direction != "forward")).items():
        if key == "B":
            names[key] = graph.constant(array)
            continue
        numbers = random.integers(low, high + 1, array.shape)
        if kind == "FLOAT8E4M3FN":
            numbers = random.normal(size=array.shape)
        of_axis = () if axis is None else (array.shape[axis],)
        scale = random.uniform(0.5, 1, of_axis).astype(np.float32) / (high - low)
        zero = (
            np.zeros(of_axis, int) if "FLOAT" in kind else random.integers(low // 2, high // 2 + 1, of_axis)
        )
        scale = scale * 100 if "FLOAT" in kind else scale
        tensors = [
            helper.make_tensor("q", element, array.shape, numbers.ravel()),
            scale,
            helper.make_tensor("z", element, of_axis, zero.ravel()),
        ]
        inputs = [graph.constant(tensor) for tensor in tensors]
        attributes = {} if axis is None else {"axis": axis}
        names[key] = graph.node("DequantizeLinear", inputs, **attributes)
    graph.gru(names, direction=direction, linear_before_reset=1)
    assert_agrees(graph.model())


@pytest.mark.parametrize("opset", [10, 13, 17])
def test_older_quantized_weights_are_read(opset):
    random = np.random.default_rng(0)
    graph, values = Graph(opset, random), weights_of(random)
    names = {"B": graph.constant(values["B"])}
    for key in "WR":
        scale = np.float32(np.abs(values[key]).max() / 127)
        inputs = [graph.constant(np.round(values[key] / scale).astype(np.int8)), graph.constant(scale)]
        names[key] = graph.node("DequantizeLinear", inputs)
    graph.gru(names)
    assert_agrees(graph.model())


def test_weights_of_4_bits_are_no_more_than_a_file_of_their_size_may_hold(tmp_path):
    units, features = 400, 300
    random = np.random.default_rng(0)
    nodes, tensors = [], []
    for key, columns in (("W", features), ("R", units)):
        shape = (1, 3 * units, columns)
        numbers = random.integers(-8, 8, shape)
        tensors.append(helper.make_tensor(f"q{key}", TensorProto.INT4, shape, numbers.ravel()))
        nodes.append(helper.make_node("DequantizeLinear", [f"q{key}", "scale"], [key]))
    tensors.append(numpy_helper.from_array(np.float32(0.01), "scale"))
    nodes.append(helper.make_node("GRU", ["X", "W", "R"], ["Y"], hidden_size=units))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "XY"]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], tensors)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    assert fastgru.load(path).units == units


# ---- initial states ----------------------------------------------------------------------------


def batch_of(graph, name="X", axis=1):
    """The name of the batch size as a list of one number."""
    shape = graph.node("Shape", [name])
    one = graph.node("Gather", [shape, graph.constant(np.array(axis))], axis=0)
    if graph.opset < 13:
        return graph.node("Unsqueeze", [one], axes=[0])
    return graph.node("Unsqueeze", [one, graph.constant(np.array([0]))])


STATES = {
    "expand": lambda g, row, n: g.node("Expand", [row, sizes(g, n)]),
    "tile": lambda g, row, n: g.node(
        "Tile", [row, g.node("Concat", [g.constant([1]), n, g.constant([1])], axis=0)]
    ),
    "tanh": lambda g, row, n: g.node("Tanh", [g.node("Expand", [row, sizes(g, n)])]),
    "tanh first": lambda g, row, n: g.node("Expand", [g.node("Tanh", [row]), sizes(g, n)]),
    "add zeros": lambda g, row, n: g.node("Add", [row, g.node("ConstantOfShape", [sizes(g, n)])]),
    "zeros": lambda g, row, n: g.node("ConstantOfShape", [sizes(g, n)]),
    "gather": lambda g, row, n: g.node(
        "Gather", [row, g.node("ConstantOfShape", [n], value=numpy_helper.from_array(np.array([0])))], axis=1
    ),
    "where": lambda g, row, n: g.node("Expand", [row, as_pytorch_says(g, sizes(g, n))]),
}


def sizes(graph, batch):
    """The name of (1, batch, units)."""
    return graph.node("Concat", [graph.constant([1]), batch, graph.constant([UNITS])], axis=0)


def as_pytorch_says(graph, shape):
    """A shape of which -1 is what was there, as PyTorch writes expand."""
    shape = graph.node("Reshape", [shape, graph.constant([-1])])
    ones = graph.node(
        "ConstantOfShape", [graph.node("Shape", [shape])], value=numpy_helper.from_array(np.array([1]))
    )
    minus = graph.node("Mul", [ones, graph.constant(-1)])
    return graph.node("Where", [graph.node("Equal", [shape, minus]), ones, shape])


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
@pytest.mark.parametrize("open_axes", [["t", "b"], [None, None], [TIMESTEPS, BATCH], ["t", BATCH]], ids=str)
@pytest.mark.parametrize("way", STATES)
def test_a_state_that_the_graph_repeats_to_the_batch_is_the_layer_s_default(way, open_axes, opset):
    random = np.random.default_rng(0)
    graph = Graph(opset, random)
    names = {key: graph.constant(array) for key, array in weights_of(random).items()}
    row = random.normal(size=(1, 1, UNITS)).astype(np.float32)
    graph.gru(names, state=STATES[way](graph, graph.constant(row), batch_of(graph)))
    layer = assert_agrees(graph.model({"X": [*open_axes, FEATURES]}))
    wanted = np.tanh(row[0]) if "tanh" in way else row[0]
    if way == "zeros":
        assert layer.default_state is None
    else:
        np.testing.assert_allclose(layer.default_state, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
@pytest.mark.parametrize("ways", [("expand", "tile"), ("tile", "expand"), ("expand", "expand")], ids=str)
def test_a_state_of_each_direction_is_joined(ways, direction):
    random = np.random.default_rng(0)
    graph = Graph(17, random)
    count = 1 + (direction == "bidirectional")
    names = {key: graph.constant(array) for key, array in weights_of(random, count).items()}
    rows = random.normal(size=(count, 1, 1, UNITS)).astype(np.float32)
    states = [
        STATES[way](graph, graph.constant(row), batch_of(graph)) for way, row in zip(ways, rows, strict=False)
    ]
    graph.gru(names, state=graph.node("Concat", states, axis=0), direction=direction)
    layer = assert_agrees(graph.model())
    for part, row in zip(layer._parts, rows, strict=True):
        np.testing.assert_array_equal(part.default_state, row[0])


def test_the_batch_may_be_that_of_what_x_comes_from():
    random = np.random.default_rng(0)
    graph = Graph(17, random)
    names = {key: graph.constant(array) for key, array in weights_of(random).items()}
    row = random.normal(size=(1, 1, UNITS)).astype(np.float32)
    x = graph.node("Transpose", ["input"], perm=[1, 0, 2])
    graph.gru(names, state=STATES["tile"](graph, graph.constant(row), batch_of(graph, "input", 0)), x=x)
    model = graph.model({"input": ["b", "t", FEATURES]})
    layer = fastgru.from_onnx(model)
    np.testing.assert_array_equal(layer.default_state, row[0])


def test_a_state_of_the_batch_of_a_layer_below_is_told():
    random = np.random.default_rng(0)
    for axes in (["t", "b"], [TIMESTEPS, BATCH]):
        graph = Graph(17, random)
        lower = {key: graph.constant(array) for key, array in weights_of(random).items()}
        graph.gru(lower, outputs=("below",))
        graph.nodes[-1].name = "lower"
        x = graph.node("Squeeze", ["below", graph.constant([1])])
        values = weights_of(random)
        values["W"] = random.normal(scale=0.4, size=(1, 3 * UNITS, UNITS)).astype(np.float32)
        upper = {key: graph.constant(array) for key, array in values.items()}
        row = random.normal(size=(1, 1, UNITS)).astype(np.float32)
        graph.gru(upper, state=STATES["expand"](graph, graph.constant(row), batch_of(graph, x)), x=x)
        layers = fastgru.from_onnx(graph.model({"X": [*axes, FEATURES]}))
        np.testing.assert_array_equal(layers["gru"].default_state, row[0])


def caller_s(graph, kind):
    """A state that the caller gives, through nodes."""
    match kind:
        case "turned":
            return graph.node("Transpose", ["before"], perm=[1, 0, 2])
        case "of zeros":
            state = graph.node("Mul", ["before", graph.constant(np.float32(0.5))])
            return graph.node("Transpose", [state], perm=[1, 0, 2])
        case "chosen":
            branch = helper.make_graph(
                [helper.make_node("Identity", ["before"], ["chosen"])],
                "branch",
                [],
                [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)],
            )
            which = graph.constant(np.array(True))
            found = graph.node("If", [which], then_branch=branch, else_branch=branch)
            return graph.node("Transpose", [found], perm=[1, 0, 2])


@pytest.mark.parametrize("kind", ["turned", "of zeros", "chosen"])
def test_a_state_that_depends_on_an_input_s_values_is_the_caller_s(kind):
    random = np.random.default_rng(0)
    graph = Graph(17, random)
    names = {key: graph.constant(array) for key, array in weights_of(random).items()}
    graph.gru(names, state=caller_s(graph, kind))
    model = graph.model({"X": ["t", "b", FEATURES], "before": ["b", 1, UNITS]})
    assert fastgru.from_onnx(model).default_state is None


def untold(graph, kind):
    """A state that nobody can tell."""
    match kind:
        case "random":
            return graph.node("RandomNormal", [], shape=[1, 1, UNITS])
        case "by size":
            size = graph.node("Cast", [batch_of(graph)], to=TensorProto.FLOAT)
            return graph.node(
                "Mul",
                [
                    graph.node(
                        "Expand", [graph.constant(np.ones((1, 1, UNITS), "f")), sizes(graph, batch_of(graph))]
                    ),
                    size,
                ],
            )
        case "numbered":
            numbers = graph.node(
                "Range", [graph.constant(0), graph.node("Squeeze", [batch_of(graph)]), graph.constant(1)]
            )
            rows = graph.node(
                "Cast", [graph.node("Reshape", [numbers, graph.constant([1, -1, 1])])], to=TensorProto.FLOAT
            )
            return graph.node("Add", [graph.constant(np.ones((1, 1, UNITS), "f")), rows])
        case "custom":
            return graph.node("Made", [graph.constant(np.ones((1, 1, UNITS), "f"))], domain="own")
        case "of another shape":
            return graph.node(
                "Expand",
                [
                    graph.constant(np.ones((1, 1, 1), "f")),
                    graph.node(
                        "Concat", [graph.constant([2]), batch_of(graph), graph.constant([UNITS])], axis=0
                    ),
                ],
            )
        case "nowhere":
            return "nowhere"


@pytest.mark.parametrize("kind", ["random", "by size", "numbered", "custom", "of another shape", "nowhere"])
def test_a_state_that_cannot_be_told_is_an_error(kind):
    random = np.random.default_rng(0)
    graph = Graph(17, random)
    names = {key: graph.constant(array) for key, array in weights_of(random).items()}
    graph.gru(names, state=untold(graph, kind))
    with pytest.raises(fastgru.FormatError, match=r"initial_h (cannot be determined|must have the shape)"):
        fastgru.from_onnx(graph.model(opsets=[helper.make_opsetid("own", 1)]))


@pytest.mark.parametrize("shape", [[1, BATCH, UNITS], [1, 1, UNITS]])
def test_rows_that_are_equal_are_one(shape):
    random = np.random.default_rng(0)
    graph = Graph(17, random)
    names = {key: graph.constant(array) for key, array in weights_of(random).items()}
    row = random.normal(size=UNITS).astype(np.float32)
    graph.gru(names, state=graph.constant(np.broadcast_to(row, shape)))
    np.testing.assert_array_equal(fastgru.from_onnx(graph.model()).default_state, row[None])


# ---- lengths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("axes", [["t", "b"], [None, None], [TIMESTEPS, BATCH]], ids=str)
def test_lengths_that_are_all_timesteps_are_none(axes, turned):
    random = np.random.default_rng(0)
    graph = Graph(17, random)
    names = {key: graph.constant(array) for key, array in weights_of(random).items()}
    source, x = ("input", graph.node("Transpose", ["input"], perm=[1, 0, 2])) if turned else ("X", "X")
    steps = batch_of(graph, source, 1 if turned else 0)
    lengths = graph.node("Expand", [steps, batch_of(graph, source, 0 if turned else 1)])
    graph.gru(names, lengths=graph.node("Cast", [lengths], to=TensorProto.INT32), x=x)
    if turned:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fastgru.from_onnx(graph.model({"input": [*axes[::-1], FEATURES]}))
    else:
        assert_agrees(graph.model({"X": [*axes, FEATURES]}))


def test_lengths_that_are_something_else_are_warned_of():
    random = np.random.default_rng(0)
    graph = Graph(17, random)
    names = {key: graph.constant(array) for key, array in weights_of(random).items()}
    steps = graph.node("Sub", [batch_of(graph, "X", 0), graph.constant([1])])
    lengths = graph.node("Expand", [steps, batch_of(graph)])
    graph.gru(names, lengths=graph.node("Cast", [lengths], to=TensorProto.INT32))
    with pytest.warns(UserWarning, match="gru: sequence_lens comes from sizes of inputs; give every call"):
        fastgru.from_onnx(graph.model())
    graph.nodes[-1].input[4] = "nowhere"
    with pytest.raises(
        fastgru.FormatError, match="sequence_lens cannot be determined: a value that is read is"
    ):
        fastgru.from_onnx(graph.model())


# ---- graphs in graphs, and functions -----------------------------------------------------------


def test_weights_in_a_branch_are_made_of_what_is_outside():
    random = np.random.default_rng(0)
    graph, values = Graph(17, random), weights_of(random)
    inside = Graph(17, random)
    inside._names = (f"inside{i}" for i in itertools.count())
    whole = graph.node("Neg", [graph.constant(-values["W"])])
    halves = [graph.constant(half) for half in np.split(values["R"], [UNITS], axis=1)]
    names = {"W": inside.node("Identity", [whole]), "R": inside.node("Concat", halves, axis=1)}
    names["B"] = graph.constant(values["B"])
    inside.gru(names, outputs=("Z", "Z_h"))
    shown = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("Z", "Z_h")]
    branch = helper.make_graph(inside.nodes, "branch", [], shown, inside.tensors)
    which = graph.constant(np.array(True))
    graph.nodes.append(helper.make_node("If", [which], ["Y", "Y_h"], then_branch=branch, else_branch=branch))
    model = graph.model()
    layers = fastgru.from_onnx(model)
    x = random.normal(size=(TIMESTEPS, BATCH, FEATURES)).astype(np.float32)
    theirs = session(model).run(["Y", "Y_h"], {"X": x})
    assert len(layers) == 2
    for layer in layers.values():
        for our, their in zip(ours(layer, x), theirs, strict=True):
            np.testing.assert_allclose(our, their, rtol=0, atol=TOLERANCE)


def function(name, inputs, outputs, nodes, attributes=(), opset=17):
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, inputs, outputs, nodes, opsets, [*attributes])


def test_a_gru_in_functions_gets_its_attributes_and_weights_from_the_calls():
    random = np.random.default_rng(0)
    graph, values = Graph(17, random), weights_of(random)
    node = helper.make_node("GRU", ["x", "w", "r", "b"], ["y", "y_h"], "core", hidden_size=UNITS)
    for name, given, kind in (("linear_before_reset", "after", 2), ("direction", "way", 3)):
        node.attribute.append(onnx.AttributeProto(name=name, ref_attr_name=given, type=kind))
    call = helper.make_node("Core", ["a", "turned", "c", "d"], ["e", "f"], "inner", domain="own", after=1)
    call.attribute.append(onnx.AttributeProto(name="way", ref_attr_name="where", type=3))
    functions = [
        function("Core", ["x", "w", "r", "b"], ["y", "y_h"], [node], ["after", "way"]),
        function(
            "Net",
            ["a", "b", "c", "d"],
            ["e", "f"],
            [helper.make_node("Transpose", ["b"], ["turned"], perm=[0, 2, 1]), call],
            ["where"],
        ),
    ]
    inputs = [graph.constant(each) for each in (values["W"].swapaxes(1, 2).copy(), values["R"], values["B"])]
    graph.nodes.append(
        helper.make_node("Net", ["X", *inputs], ["Y", "Y_h"], "outer", domain="own", where="reverse")
    )
    layer = assert_agrees(graph.model(functions=functions, opsets=[helper.make_opsetid("own", 1)]))
    assert (layer.name, layer.reset_after, layer.go_backwards) == ("outer/inner/core", True, True)


def test_weights_may_come_out_of_functions():
    random = np.random.default_rng(0)
    graph, values = Graph(17, random), weights_of(random)
    functions = [function("Halve", ["a"], ["b"], [helper.make_node("Div", ["a", "two"], ["b"])])]
    functions[0].node.insert(0, helper.make_node("Constant", [], ["two"], value_float=2.0))
    names = {key: graph.constant(array) for key, array in values.items()}
    for key in "WR":
        graph.nodes.append(helper.make_node("Halve", [names[key]], [f"half {key}"], domain="own"))
        names[key] = f"half {key}"
    graph.gru(names)
    assert_agrees(graph.model(functions=functions, opsets=[helper.make_opsetid("own", 1)]))


@pytest.mark.parametrize("kind", ["Loop", "Scan"])
def test_of_a_loop_it_is_said_who_writes_it_and_what_to_load(tmp_path, kind):
    graph = Graph(17, np.random.default_rng(0))
    body = helper.make_graph([helper.make_node("Identity", ["in"], ["out"])], "body", [], [])
    graph.nodes.append(helper.make_node(kind, ["", "", "X"], ["Y", "Y_h"], "model/gru/while", body=body))
    model, path = graph.model(), tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    said = f"no GRU node, but a {kind}, 'model/gru/while', as tf2onnx writes .* load the .keras or .h5 file"
    with pytest.raises(fastgru.FormatError, match=said):
        fastgru.load(path)
    with pytest.raises(fastgru.FormatError, match=said):
        fastgru.from_onnx(model)


# ---- files of exporters ------------------------------------------------------------------------


class Net:
    """Builds modules of PyTorch that start from a state of their own, or from zeros."""

    @staticmethod
    def made(start, **options):
        import torch

        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.gru = torch.nn.GRU(FEATURES, UNITS, **options)
                rows = self.gru.num_layers * (1 + self.gru.bidirectional)
                self.state = torch.nn.Parameter(torch.randn(rows, 1, UNITS))

            def forward(self, x):
                batch = x.shape[0] if self.gru.batch_first else x.shape[1]
                match start:
                    case "expand":
                        return self.gru(x, self.state.expand(-1, batch, -1).contiguous())
                    case "repeat":
                        return self.gru(x, self.state.repeat(1, batch, 1))
                    case "tanh":
                        return self.gru(x, torch.tanh(self.state).expand(-1, batch, -1).contiguous())
                    case _:
                        return self.gru(x)

        torch.manual_seed(0)
        return Module().eval()


def exported(module, x, dynamic, **options):
    """The model that an exporter of PyTorch writes."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if options.get("dynamo"):
            b, t = torch.export.Dim("b", min=2, max=64), torch.export.Dim("t", min=2, max=64)
            axes = (t, b) if not module.gru.batch_first else (b, t)
            given = {"dynamic_shapes": ({0: axes[0], 1: axes[1]},)} if dynamic else {}
            return torch.onnx.export(module, (x,), verbose=False, **given, **options).model_proto
        file = io.BytesIO()
        axes = {"x": {0: "first", 1: "second"}} if dynamic else None
        torch.onnx.export(module, (x,), file, input_names=["x"], dynamic_axes=axes, **options)
    return onnx.ModelProto.FromString(file.getvalue())


def assert_as_pytorch(tmp_path, module, dynamic, **options):
    """The file of an exporter holds what PyTorch computes, layer by layer and as one."""
    import torch

    x = torch.randn((BATCH, TIMESTEPS, FEATURES) if module.gru.batch_first else (TIMESTEPS, BATCH, FEATURES))
    model = exported(module, x, dynamic, **options)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with torch.no_grad():
        y, h_n = (each.numpy() for each in module(x))
    inputs = x.numpy()
    if module.gru.batch_first:
        inputs, y = inputs.swapaxes(0, 1), y.swapaxes(0, 1)
    everything = {"return_sequences": True, "return_state": True}
    outputs, states = inputs, []
    layers = fastgru.load_all(path, **everything)
    assert len(layers) == module.gru.num_layers
    for layer in layers.values():
        outputs, *last = layer(outputs)
        states += last
    whole = fastgru.load(path, **everything)
    assert isinstance(whole, fastgru.Stack) == (module.gru.num_layers > 1)
    together, *ends = whole(inputs)
    for found, wanted in ((outputs, y), (np.stack(states), h_n), (together, y), (np.stack(ends), h_n)):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


STARTS = ["expand", "zeros", "tanh", "repeat"]
SHAPES = [
    {},
    {"bidirectional": True},
    {"num_layers": 2},
    {"num_layers": 3, "bidirectional": True},
    {"batch_first": True, "num_layers": 2},
    {"bias": False},
]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_what_the_older_exporter_of_pytorch_writes_is_read(tmp_path, options, start, dynamic):
    assert_as_pytorch(tmp_path, Net.made(start, **options), dynamic, dynamo=False)


@pytest.mark.parametrize("start", ["zeros", "tanh"])
@pytest.mark.parametrize("folding", [False, True])
@pytest.mark.parametrize("opset", [8, 9, 11, 13, 15, 17, 20])  # of 7 it has no expand
def test_every_opset_of_the_older_exporter_is_read(tmp_path, opset, folding, start):
    module = Net.made(start, num_layers=2, bidirectional=True)
    options = {"opset_version": opset, "do_constant_folding": folding}
    assert_as_pytorch(tmp_path, module, True, dynamo=False, **options)


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="onnxscript is not installed")
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("options", "start"), [*zip(SHAPES, [*STARTS, *STARTS], strict=False)], ids=str)
def test_what_the_default_exporter_of_pytorch_writes_is_read(tmp_path, options, start, dynamic):
    assert_as_pytorch(tmp_path, Net.made(start, **options), dynamic, dynamo=True)


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="onnxscript is not installed")
@pytest.mark.parametrize("opset", [18, 22, 23])
def test_every_opset_of_the_default_exporter_is_read(tmp_path, opset):
    module = Net.made("tanh", num_layers=2, bidirectional=True)
    assert_as_pytorch(tmp_path, module, True, dynamo=True, opset_version=opset)
