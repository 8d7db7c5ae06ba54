"""ONNX graphs for tests: made operator by operator, and computed by onnxruntime."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import fastgru

TOLERANCE = 3e-5


class Graph:
    """An ONNX graph while it is made.

    Parameters
    ----------
    rng : numpy.random.Generator
    opset : int
    """

    def __init__(self, rng, opset=17):
        self.rng, self.opset = rng, opset
        self.nodes, self.tensors, self.inputs, self.outputs = [], [], [], []
        self.feeds = {}

    def input(self, name, shape, kind=TensorProto.FLOAT):
        """An input of this shape, in which texts are open sizes."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name, rank):
        """Return a value of this many axes."""
        kind = TensorProto.FLOAT
        self.outputs.append(helper.make_tensor_value_info(name, kind, [None] * rank))
        return name

    def constant(self, array, name=None):
        """A constant; of a tuple, random numbers of this shape."""
        if isinstance(array, tuple):
            array = self.rng.standard_normal(array).astype(np.float32) * 0.5
        name = name or f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def integers(self, *numbers):
        """A constant of integers."""
        return self.constant(np.array(numbers, np.int64))

    def add(self, kind, *inputs, outputs=1, **attributes):
        """A node; the name of its output, or the names of several."""
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        attributes.setdefault("name", f"{kind.lower()}{len(self.nodes)}")
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def gru(self, x, features, units, directions=1, state="", lengths="", outputs=2, **attributes):
        """Y and Y_h of a GRU node."""
        w = self.constant((directions, 3 * units, features))
        r = self.constant((directions, 3 * units, units))
        b = self.constant((directions, 6 * units))
        kind = {1: "forward", 2: "bidirectional"}[directions]
        attributes = {"direction": kind, "hidden_size": units} | attributes
        return self.add("GRU", x, w, r, b, lengths, state, outputs=outputs, **attributes)

    def model(self):
        """The onnx.ModelProto, checked."""
        graph = helper.make_graph(self.nodes, "tested", self.inputs, self.outputs, self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def _bytes(model):
    return model if isinstance(model, bytes) else model.SerializeToString()


def expected(model, *arrays):
    """What onnxruntime computes."""
    data = _bytes(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))


def loaded(model):
    """The model of a file's bytes."""
    return fastgru.load_model(_bytes(model))


def assert_as_onnxruntime(model, *arrays, found=None):
    """Compare all outputs; return fastgru's model."""
    ours = loaded(model) if found is None else found
    names = [one.name for one in onnx.load_from_string(_bytes(model)).graph.input]
    given = dict(zip(names, arrays, strict=True))
    results = ours({one.name: given[one.name] for one in ours.inputs})
    results = list(results) if isinstance(results, list | tuple) else [results]
    wanted = expected(model, *arrays)
    assert len(results) == len(wanted)
    for result, array in zip(results, wanted, strict=True):
        assert result.shape == array.shape
        np.testing.assert_allclose(result, array, rtol=TOLERANCE, atol=TOLERANCE)
    return ours
