"""ONNX files whose nodes compute weights: what would explode, never end or read other files is refused."""

import itertools

import numpy as np
import pytest
from formats.hostile.test_refused import assert_refused

pytest.importorskip("onnx")


def model_of(nodes, values=None, functions=(), padding=0):
    """An ONNX model whose last node is a GRU of a W and an R that nodes compute.

    Parameters
    ----------
    nodes : list
        Arguments of make_node.
    values : dict, optional
        Initializers besides a W and an R that are sound, by the names w and r.
    functions : sequence of onnx.FunctionProto
    padding : int
        Bytes of an initializer that nothing reads: a large file may hold more.
    """
    from onnx import helper, numpy_helper

    values = {"w": np.zeros((1, 6, 3), "f"), "r": np.zeros((1, 6, 2), "f"), "one": np.array([1])} | (
        values or {}
    )
    values |= {"padding": np.zeros(padding, np.int8)} if padding else {}
    made = [helper.make_node(*each) if isinstance(each, tuple) else each for each in nodes]
    made.append(helper.make_node("GRU", ["X", "W", "r", "", "", "H"], ["Y"], "gru", hidden_size=2))
    outputs = {name for node in made for name in node.output}
    made[:0] = [helper.make_node("Identity", ["w"], ["W"])] if "W" not in outputs else []
    made[-1].input[5] = "H" if "H" in outputs else ""
    graph = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info("X", 1, ["time", "batch", 3])],
        [helper.make_tensor_value_info("Y", 1, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in values.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)
    return model.SerializeToString()


def doubling(op, times):
    """A chain of nodes each of which has twice as much as the one before, into W."""
    names = [f"v{i}" for i in range(times)] + ["W"]
    nodes = [("Identity", ["w"], [names[0]])]
    for lower, upper in itertools.pairwise(names):
        if op == "Concat":
            nodes.append(("Concat", [lower, lower], [upper]))
        else:
            nodes.append((op, [lower, "twice"], [upper]))
    from onnx import helper

    made = [helper.make_node(*each) for each in nodes]
    for node in made:
        if node.op_type == "Concat":
            node.attribute.append(helper.make_attribute("axis", 0))
    return made


def billion(levels):
    """Functions that call each other, ten times each."""
    from onnx import helper

    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(levels):
        kind, domain = (f"f{level - 1}", "own") if level else ("Neg", "")
        chain = [f"x{i}" for i in range(11)]
        nodes = [helper.make_node(kind, [a], [b], domain=domain) for a, b in itertools.pairwise(chain)]
        functions.append(helper.make_function("own", f"f{level}", ["x0"], ["x10"], nodes, opsets))
    return functions


def calling(function):
    from onnx import helper

    return helper.make_node(function, ["w"], ["W"], domain="own")


def test_constants_that_explode_are_refused(tmp_path):
    from onnx import helper

    huge = np.array([1 << 20, 1 << 20])
    axes = np.array([1] * 1000)
    node = helper.make_node
    memory = "take more memory than a file of its size may"
    own = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    loop = [
        helper.make_function(
            "own", f"f{i}", ["x0"], ["x1"], [node(f"f{1 - i}", ["x0"], ["x1"], domain="own")], own
        )
        for i in (0, 1)
    ]
    deep = [
        helper.make_function(
            "own", f"f{i}", ["x0"], ["x1"], [node(f"f{i + 1}", ["x0"], ["x1"], domain="own")], own
        )
        for i in range(5000)
    ]
    square = {"a": np.zeros((1, 200_000), "f"), "b": np.zeros((200_000, 1), "f")}
    shape = [("Shape", ["X"], ["shape"])]
    cases = {
        "filled.onnx": (model_of([("ConstantOfShape", ["huge"], ["W"])], {"huge": huge}), memory),
        "overflow.onnx": (
            model_of([("ConstantOfShape", ["n"], ["W"])], {"n": np.array([1 << 40] * 4)}),
            memory,
        ),
        "none.onnx": (
            model_of([("ConstantOfShape", ["n"], ["W"])], {"n": np.array([0, 1 << 62, 1 << 62])}),
            memory,
        ),
        "negative.onnx": (
            model_of([("ConstantOfShape", ["n"], ["W"])], {"n": np.array([-1, -(1 << 62)])}),
            "a shape must have no negative size",
        ),
        "expanded.onnx": (
            model_of([("Expand", ["w", "n"], ["W"])], {"n": np.array([1 << 40, 6, 3])}),
            memory,
        ),
        "rank.onnx": (model_of([("Expand", ["w", "n"], ["W"])], {"n": axes}), "at most 32 integers"),
        "unsqueezed.onnx": (
            model_of([("Unsqueeze", ["w", "n"], ["W"])], {"n": np.arange(1000)}),
            "cannot be computed",
        ),
        "tiled.onnx": (
            model_of([("Tile", ["w", "n"], ["W"])], {"n": np.array([1 << 20] * 3)}),
            memory,
        ),
        "range.onnx": (
            model_of(
                [("Range", ["a", "b", "c"], ["W"])],
                {"a": np.float32(0), "b": np.float32(1e30), "c": np.float32(1e-30)},
            ),
            "finite|memory",
        ),
        "long.onnx": (
            model_of(
                [("Range", ["a", "b", "c"], ["W"])],
                {"a": np.array(0), "b": np.array(1 << 62), "c": np.array(1)},
            ),
            memory,
        ),
        "padded.onnx": (
            model_of([("Pad", ["w", "n"], ["W"])], {"n": np.array([1 << 30] * 6)}),
            memory,
        ),
        "resized.onnx": (
            model_of([("Resize", ["w", "", "n"], ["W"])], {"n": np.array([1e9] * 3, "f")}),
            r"\(Resize\) is no operator|Resize is no operator",
        ),
        "gathered.onnx": (
            model_of(
                [("Gather", ["w", "n"], ["v"]), ("Gather", ["v", "n"], ["W"])],
                {"n": np.zeros(200_000, np.int64), "w": np.zeros((1, 60, 10), "f")},
            ),
            memory,
        ),
        "product.onnx": (model_of([("MatMul", ["b", "a"], ["W"])], square), memory),
        "doubled.onnx": (model_of(doubling("Concat", 60)), memory),
        "tiles.onnx": (model_of(doubling("Tile", 60), {"twice": np.array([2, 1, 1])}), memory),
        "functions.onnx": (
            model_of([calling("f11")], functions=billion(12)),
            "take more than a file of its size may hold",
        ),
        "recursion.onnx": (model_of([calling("f0")], functions=loop), "nested deeper than 32"),
        "deep_functions.onnx": (model_of([calling("f0")], functions=deep), "nested deeper than 32"),
        "cycle.onnx": (
            model_of([("Neg", ["W2"], ["W"]), ("Neg", ["W"], ["W2"])]),
            "a value depends on itself",
        ),
        "itself.onnx": (model_of([("Add", ["W", "W"], ["W"])]), "a value depends on itself"),
        "states.onnx": (
            model_of([*shape, ("ConstantOfShape", ["huge"], ["H"])], {"huge": np.array([1, 1 << 40, 2])}),
            memory,
        ),
        "batch.onnx": (
            model_of(
                [*shape, ("Mul", ["shape", "big"], ["n"]), ("ConstantOfShape", ["n"], ["H"])],
                {"big": np.array([1 << 40, 1 << 40, 1])},
            ),
            memory,
        ),
        "random.onnx": (
            model_of([node("RandomNormal", [], ["H"], shape=[1, 1, 2])]),
            "initial_h cannot be determined: a node RandomNormal is no operator",
        ),
        "texts.onnx": (
            model_of([node("Cast", ["w"], ["W"], to=8)]),
            "is no operator|must be|cannot",
        ),
        "custom.onnx": (
            model_of([node("Load", ["w"], ["W"], domain="own")]),
            "node own.Load is no operator that is computed when a file is read",
        ),
        "attribute.onnx": (
            model_of([node("Neg", ["w"], ["W"], _run="x")]),
            "has the attribute '_run' twice or of a wrong type",
        ),
    }
    assert_refused(cases, tmp_path)


def test_tensors_of_nodes_lie_in_no_other_file(tmp_path):
    from onnx import TensorProto, helper

    cases = {}
    for place in ("../outside", "/etc/passwd", "beside", ".."):
        tensor = TensorProto(name="v", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=place)
        shape = helper.make_node("ConstantOfShape", ["one"], ["W"], value=tensor)
        constant = helper.make_node("Constant", [], ["W"], value=tensor)
        name = place.replace("/", "_").replace(".", "_")
        cases[f"shape{name}.onnx"] = model_of([shape]), "a tensor in a node must be one number"
        cases[f"constant{name}.onnx"] = model_of([constant]), "is no plain file beside the model"
    assert_refused(cases, tmp_path)


@pytest.mark.parametrize("count", [20_000, 100_000])
@pytest.mark.parametrize("kind", ["Identity", "Neg", "Reshape", "If"])
def test_many_nodes_in_a_row_are_read_or_refused(tmp_path, kind, count):
    from onnx import helper

    names = ["w", *(f"v{i}" for i in range(count - 1)), "W"]
    nodes = []
    for lower, upper in itertools.pairwise(names):  # what an If reads is not run, but looked through
        inputs = [lower, "shape"] if kind == "Reshape" else [lower]
        nodes.append(helper.make_node(kind, inputs, [upper]))
    content = model_of(nodes, {"shape": np.array([1, 6, 3])}, padding=8 << 20)
    if count > 50_000:
        wanted = "take more memory than a file of its size may"
    else:
        wanted = "is no operator that is computed" if kind == "If" else "loaded"
    assert_refused({"model.onnx": (content, wanted)}, tmp_path)
