"""What tests of `fastgru compare` share: files, and the command."""

import numpy as np
import onnx
from click.testing import CliRunner

from fastgru.cli._commands import fastgru as command

SEED = 20261123
UNITS, FEATURES = 7, 5


def weights(directions=1, biases=2, scale=1.0, seed=SEED):
    """Of a GRU, or of both directions one after the other."""
    rng = np.random.default_rng(seed)
    shapes = [(FEATURES, 3 * UNITS), (UNITS, 3 * UNITS), (2, 3 * UNITS) if biases == 2 else (3 * UNITS,)]
    return [
        scale * rng.normal(0, 0.4, shape).astype(np.float32) for _ in range(directions) for shape in shapes
    ]


def invoke(*arguments):
    """Exit status and output."""
    result = CliRunner().invoke(command, ["compare", *map(str, arguments)], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.return_value, result.output


def assert_equal(path, *arguments):
    status, output = invoke(path, *arguments)
    assert status == 0, output
    assert "equal but for rounding" in output
    return output


def assert_different(path, *arguments):
    status, output = invoke(path, *arguments)
    assert status == 1, output
    assert "DIFFERENT" in output
    return output


def onnx_file(path, nodes, values, opset=17, inputs=None, **more):
    """A model with a GRU node and these besides; initializers by name."""
    helper = onnx.helper
    nodes = [helper.make_node(*each[:3], **dict(each[3:])) for each in nodes]
    tensors = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in values.items()]
    shown = [helper.make_tensor_value_info("X", 1, ["time", "batch", FEATURES])] if inputs is None else inputs
    outputs = [helper.make_tensor_value_info(name, 1, None) for name in ("Y", "Y_h")]
    graph = helper.make_graph(nodes, "graph", shown, outputs, tensors)
    opsets = [helper.make_opsetid("", opset), *more.pop("opsets", [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8, **more), path)


def onnx_weights():
    """W, R and B of a node."""
    kernel, recurrent, bias = weights()
    return {"W": kernel.T[None].copy(), "R": recurrent.T[None].copy(), "B": bias.reshape(1, -1)}


def gru_node(state="", name="gru", **attributes):
    attributes = {"hidden_size": UNITS, "linear_before_reset": 1} | attributes
    inputs = ["X", "W", "R", "B", *(["", state] if state else [])]
    return ("GRU", inputs, ["Y", "Y_h"], ("name", name), *attributes.items())
