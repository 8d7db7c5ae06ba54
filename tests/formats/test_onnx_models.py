"""Whole ONNX models: operators, layouts and states, as exporters write them and drawn at random."""

import io
import pickle
import warnings

import numpy as np
import onnx
import onnx_graphs
import onnx_random
import pytest
import torch
from onnx import TensorProto, helper
from onnx_graphs import TOLERANCE, Graph, assert_as_onnxruntime, expected, loaded
from streamed import assert_streams_as_called
from torch import nn

import fastgru

DRAWN, PER_TEST = 400, 20


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def drawn(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


# ---- drawn at random -------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(0, DRAWN, PER_TEST))
def test_random_graphs_are_computed_as_by_onnxruntime(first):
    for seed in range(first, first + PER_TEST):
        model, arrays = onnx_random.Drawn(seed).made()
        try:
            found = assert_as_onnxruntime(model, *arrays)
            given = dict(zip([one.name for one in model.graph.input], arrays, strict=True))
            assert_streams_as_called(found, [given[one.name] for one in found.inputs])
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"seed {seed}: {error}") from error


# ---- PyTorch's exporter ----------------------------------------------------------------------


class Tagger(nn.Module):
    def __init__(self, layers=1, bidirectional=False):
        super().__init__()
        self.gru = nn.GRU(6, 8, layers, batch_first=True, bidirectional=bidirectional)
        self.dense = nn.Linear(16 if bidirectional else 8, 5)

    def forward(self, x, h=None):
        y, h = self.gru(x, h)
        return self.dense(torch.relu(y)), h


class Sentiment(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 6)
        self.gru = nn.GRU(6, 8, 2, batch_first=True, bidirectional=True)
        self.dense = nn.Linear(16, 3)

    def forward(self, x):
        y, h = self.gru(self.table(x))
        return torch.softmax(self.dense(y[:, -1]), -1), h


class Spotter(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.scale = nn.Conv1d(6, 7, 3, padding=1), nn.BatchNorm1d(7)
        self.gru, self.norm, self.dense = nn.GRU(7, 8, batch_first=True), nn.LayerNorm(8), nn.Linear(8, 3)
        self.scale.running_mean.normal_()
        self.scale.running_var.uniform_(0.5, 2)

    def forward(self, x):
        y, _ = self.gru(torch.relu(self.scale(self.convolution(x.transpose(1, 2)))).transpose(1, 2))
        return self.dense(self.norm(y).mean(1))


class Frame(nn.Module):
    """A frame in, a frame out."""

    def __init__(self):
        super().__init__()
        self.gru, self.dense = nn.GRU(6, 8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x, h):
        y, h = self.gru(x[:, None], h)
        return torch.sigmoid(self.dense(y[:, 0])), h


def exported(module, *inputs, dynamo, axes=None):
    """The bytes of a module; of its first input and its state the open axes are named."""
    target = io.BytesIO()
    names = ["x", "h"][: len(inputs)]
    options = {"input_names": names, "verbose": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = None
            if axes:
                shapes = tuple(dict.fromkeys(axes[name], torch.export.Dim.AUTO) for name in names)
            options |= {"dynamo": True, "external_data": False, "dynamic_shapes": shapes}
        else:
            options |= {"dynamo": False, "dynamic_axes": axes}
        torch.onnx.export(module.eval(), inputs, target, **options)
    return target.getvalue()


MODULES = {
    "tagger": (lambda: Tagger(), {"x": {0: "b", 1: "t"}}),
    "tagger of both directions": (lambda: Tagger(bidirectional=True), {"x": {0: "b", 1: "t"}}),
    "deep tagger with a state": (lambda: Tagger(2), {"x": {0: "b", 1: "t"}, "h": {1: "b"}}),
    "sentiment": (lambda: Sentiment(), {"x": {0: "b", 1: "t"}}),
    "spotter": (lambda: Spotter(), {"x": {0: "b", 1: "t"}}),
    "frame": (lambda: Frame(), {"x": {0: "b"}, "h": {1: "b"}}),
}


@pytest.mark.parametrize("opset", [11, 13, 16, 17])
def test_norms_of_pytorch_are_one_node_in_every_opset(opset):
    torch.manual_seed(4)
    norms = nn.LayerNorm(6), nn.LayerNorm(6, elementwise_affine=False, eps=1e-3), nn.LayerNorm(6, bias=False)
    for norm in norms:
        for weight in norm.parameters():
            nn.init.normal_(weight)
    module = nn.Sequential(norms[0], nn.Tanh(), norms[1], nn.Linear(6, 6), norms[2]).eval()
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"x": {0: "b", 1: "t"}}
        x = torch.randn(2, 7, 6)
        torch.onnx.export(
            module, (x,), target, input_names=["x"], dynamic_axes=axes, opset_version=opset, dynamo=False
        )
    model = assert_as_onnxruntime(target.getvalue(), x.numpy())
    assert [node.label for node in model.nodes].count("LayerNormalization") == 3


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "fixed"])
@pytest.mark.parametrize("dynamo", [False, True], ids=["script", "dynamo"])
@pytest.mark.parametrize("name", MODULES)
def test_modules_of_pytorch_are_computed_as_by_onnxruntime(name, dynamo, is_open):
    torch.manual_seed(3)
    make, axes = MODULES[name]
    x = torch.randn(2, 6) if name == "frame" else torch.randn(2, 7, 6)
    x = torch.randint(0, 20, (2, 7)) if name == "sentiment" else x
    inputs = (x, torch.randn(2, 2, 8)) if "h" in axes else (x,)
    data = exported(make(), *inputs, dynamo=dynamo, axes=axes if is_open else None)
    model = assert_as_onnxruntime(data, *(each.numpy() for each in inputs))
    assert model.state_names == ((("h", list(model.outputs)[1]),) if "h" in axes else ())


@pytest.mark.parametrize("name", ["deep tagger with a state", "frame"])
def test_states_of_a_file_are_those_of_a_stream(name, rng):
    torch.manual_seed(4)
    make, axes = MODULES[name]
    x = torch.randn(2, 6) if name == "frame" else torch.randn(2, 1, 6)
    data = exported(make(), x, torch.zeros(2, 2, 8), dynamo=False, axes=axes)
    model = loaded(data)
    frames, state = drawn(rng, 9, 2, 6), np.zeros((2, 2, 8), np.float32)
    stream, pool = model.stream(2), fastgru.StreamPool(model, 2)
    slots = [pool.open(), pool.open()]
    for frame in frames:
        shaped = frame if name == "frame" else frame[:, np.newaxis]
        y, state = model([shaped, state])
        wanted = y.reshape(2, -1)
        np.testing.assert_array_equal(stream(frame), wanted)
        np.testing.assert_array_equal(pool.step(slots, frame), wanted)


@pytest.mark.parametrize("time_major", [False, True])
def test_a_file_of_several_inputs_and_outputs_streams(time_major, rng):
    graph = Graph(rng)
    axes = ["steps", "batch"] if time_major else ["batch", "steps"]
    x, c = graph.input("x", [*axes, 6]), graph.input("c", [*axes, 3])
    speaker, h = graph.input("speaker", ["batch", 5]), graph.input("h", [1, "batch", 4])
    both = graph.add("Concat", x, c, axis=2)
    voice = graph.add("MatMul", speaker, graph.constant((5, 9)))
    added = graph.add("Add", both, graph.add("Unsqueeze", voice, graph.integers(0 if time_major else 1)))
    first = added if time_major else graph.add("Transpose", added, perm=[1, 0, 2])
    y, last = graph.gru(first, 9, 4, state=h)
    y = graph.add("Squeeze", y, graph.integers(1))
    mask = graph.add("Sigmoid", graph.add("MatMul", y, graph.constant((4, 6))))
    for name, rank in [(mask, 3), (last, 3), (graph.add("Tanh", y), 3)]:
        graph.output(name, rank)
    shape = (7, 2) if time_major else (2, 7)
    arrays = [drawn(rng, *shape, 6), drawn(rng, *shape, 3), drawn(rng, 2, 5), drawn(rng, 1, 2, 4)]
    model = assert_as_onnxruntime(graph.model(), *arrays)
    assert model.stream().input_names == ("x", "c", "speaker")
    assert len(model.stream().output_names) == 2
    assert assert_streams_as_called(model, arrays) is None


def test_copies_and_own_files_are_the_same_model(rng, tmp_path):
    torch.manual_seed(5)
    make, axes = MODULES["deep tagger with a state"]
    model = loaded(exported(make(), torch.randn(2, 7, 6), torch.zeros(2, 2, 8), dynamo=False, axes=axes))
    arrays = [drawn(rng, 3, 5, 6), drawn(rng, 2, 3, 8)]
    model.save(tmp_path / "model.npz")
    for other in pickle.loads(pickle.dumps(model)), fastgru.load_model(tmp_path / "model.npz"):
        assert other.state_names == model.state_names
        for one, two in zip(model(arrays), other(arrays), strict=True):
            np.testing.assert_array_equal(one, two)


# ---- one subject each ------------------------------------------------------------------------


def test_lengths_of_a_file_are_the_lengths_of_a_call(rng):
    g = Graph(rng)
    x = g.input("x", ["t", "b", 4])
    lengths = g.input("lengths", ["b"], TensorProto.INT32)
    y, y_h = g.gru(x, 4, 3, 2, lengths=lengths)
    g.output(y, 4)
    g.output(y_h, 3)
    model, array, given = g.model(), drawn(rng, 6, 3, 4), np.array([2, 6, 4], np.int32)
    ours = loaded(model)
    assert [one.name for one in ours.inputs] == ["x"]
    for result, wanted in zip(ours(array, lengths=given), expected(model, array, given), strict=True):
        np.testing.assert_allclose(result, wanted, atol=TOLERANCE)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_gru_nodes_return_both_outputs_in_their_layout(rng, direction, layout):
    """onnxruntime computes no layout=1, so the layouts are compared with each other."""
    directions, results = 2 if direction == "bidirectional" else 1, []
    weights = [drawn(rng, directions, 12, 5), drawn(rng, directions, 12, 4), drawn(rng, directions, 24)]
    array, state = drawn(rng, 6, 3, 5), drawn(rng, directions, 3, 4)
    for axes in (layout, 0):
        g = Graph(rng)
        x = g.input("x", ["b", "t", 5] if axes else ["t", "b", 5])
        h = g.input("h", ["b", directions, 4] if axes else [directions, "b", 4])
        constants = [g.constant(weight) for weight in weights]
        settings = {"hidden_size": 4, "direction": direction, "layout": axes}
        y, y_h = g.add("GRU", x, *constants, "", h, outputs=2, **settings)
        g.output(y, 4)
        g.output(y_h, 3)
        given = [array.swapaxes(0, 1), state.swapaxes(0, 1)] if axes else [array, state]
        model = g.model()
        found = loaded(model)(given)
        results.append((found[0].transpose(1, 2, 0, 3), found[1].swapaxes(0, 1)) if axes else found)
    for one, other, wanted in zip(*results, expected(model, array, state), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(other, wanted, atol=TOLERANCE)


def deviation(g, x, axes, form):
    """x less its mean, that mean, and the variance of x, in one of the ways that there are."""
    mean = g.add("ReduceMean", x, axes=axes)
    d = g.add("Sub", x, mean)
    if form == "moments":
        squares = g.add("ReduceMean", g.add("Mul", x, x), axes=axes)
        return d, mean, g.add("Sub", squares, g.add("Mul", mean, mean))
    square = g.add("Pow", d, g.constant(np.float32(2))) if form == "power" else g.add("Mul", d, d)
    return d, mean, g.add("ReduceMean", square, axes=axes)


def one_over_root(g, variance, form):
    """1 / sqrt(variance + epsilon)"""
    total = g.add(
        "Add",
        *(
            (variance, g.constant(np.float32(1e-3)))
            if form
            else (g.constant(np.full(1, 1e-3, np.float32)), variance)
        ),
    )
    if form == 2:
        return g.add("Pow", total, g.constant(np.float32(-0.5)))
    root = g.add("Pow", total, g.constant(np.float32(0.5))) if form == 1 else g.add("Sqrt", total)
    one = g.constant(np.ones((), np.float32))
    return g.add("Reciprocal", root) if form else g.add("Div", one, root)


@pytest.mark.parametrize("root", [0, 1, 2])
@pytest.mark.parametrize("square", ["power", "product", "moments"])
@pytest.mark.parametrize("end", ["quotient", "product", "scaled", "batchnorm", "negative", "bare"])
def test_normalizations_of_many_operators_are_one_node(end, square, root, rng):
    g = Graph(rng, opset=13)
    x = g.input("x", ["b", "t", 6])
    x = g.add("MatMul", x, g.constant((6, 6)))
    d, mean, variance = deviation(g, x, [-1], square)
    r = one_over_root(g, variance, root)
    gamma, beta = g.constant((6,)), g.constant((1, 1, 6))
    match end:
        case "quotient":
            total = g.add("Add", variance, g.constant(np.float32(1e-3)))
            y = g.add("Add", g.add("Mul", gamma, g.add("Div", d, g.add("Sqrt", total))), beta)
        case "product":
            y = g.add("Add", g.add("Mul", g.add("Mul", d, r), gamma), beta)
        case "scaled":
            y = g.add("Sub", g.add("Mul", g.add("Mul", r, gamma), d), beta)
        case "batchnorm":
            scale = g.add("Mul", r, gamma)
            y = g.add("Add", g.add("Mul", x, scale), g.add("Sub", beta, g.add("Mul", mean, scale)))
        case "negative":
            y = g.add("Mul", g.add("Mul", g.add("Neg", d), r), g.constant(np.float32(-2.5)))
        case "bare":
            y = g.add("Mul", d, g.add("Identity", r))
    g.output(g.add("MatMul", y, g.constant((6, 3))), 3)
    model = assert_as_onnxruntime(g.model(), drawn(rng, 2, 5, 6))
    assert [node.label for node in model.nodes] == ["Dense", "LayerNormalization", "Dense"]


def test_a_root_of_mean_squares_is_a_normalization_without_a_mean(rng):
    g = Graph(rng, opset=13)
    x = g.input("x", ["b", "t", 6])
    squares = g.add("ReduceMean", g.add("Pow", x, g.constant(np.float32(2))), axes=[-1])
    r = one_over_root(g, squares, 1)
    g.output(g.add("Mul", g.constant((6,)), g.add("Mul", x, r)), 3)
    model = assert_as_onnxruntime(g.model(), drawn(rng, 2, 5, 6))
    assert [node.label for node in model.nodes] == ["LayerNormalization"]
    assert not model.nodes[0].centered


def test_normalizations_of_normalizations_and_of_centred_values_are_as_many(rng):
    g = Graph(rng, opset=13)
    x = g.input("x", ["b", "t", 6])
    d, _, _ = deviation(g, x, [-1], "product")
    for _ in range(3):
        d, _, variance = deviation(g, d, [-1], "power")
        d = g.add("Mul", d, one_over_root(g, variance, 1))
    g.output(d, 3)
    model = assert_as_onnxruntime(g.model(), drawn(rng, 2, 5, 6) * np.arange(1, 7, dtype=np.float32))
    assert [node.label for node in model.nodes].count("LayerNormalization") == 3


def without_mean(g, x, d, mean, r):
    return g.add("Mul", x, r)


def twice_the_mean(g, x, d, mean, r):
    return g.add("Mul", g.add("Sub", d, mean), r)


def by_another_root(g, x, d, mean, r):
    return g.add("Mul", g.add("Mul", d, r), r)


def of_another_value(g, x, d, mean, r):
    return g.add("Mul", g.add("Tanh", d), r)


@pytest.mark.parametrize("change", [without_mean, twice_the_mean, by_another_root, of_another_value])
def test_what_is_nearly_a_normalization_is_not_taken_for_one(change, rng):
    g = Graph(rng, opset=13)
    x = g.input("x", ["b", "t", 6])
    d, mean, variance = deviation(g, x, [-1], "product")
    g.output(change(g, x, d, mean, one_over_root(g, variance, 1)), 3)
    refused(g, r"\(Pow\), which is none that is computed")


def test_scales_and_activations_become_part_of_products(rng):
    g = Graph(rng)
    y = g.add("MatMul", g.input("x", ["b", "t", 6]), g.constant((6, 4)))
    y = g.add("Mul", g.add("Add", y, g.constant((4,))), g.constant((4,)))
    g.output(g.add("Relu", y), 3)
    model = assert_as_onnxruntime(g.model(), drawn(rng, 2, 5, 6))
    assert [node.label for node in model.nodes] == ["Dense"]


def test_a_batch_is_fixed_only_if_the_graph_depends_on_it(rng):
    for depends in (False, True):
        g = Graph(rng)
        y = g.gru(g.input("x", [5, 1, 4]), 4, 3)[0]
        y = g.add("Squeeze", y, g.integers(1, 2) if depends else g.integers(1))
        g.output(y, 2 if depends else 3)
        model = assert_as_onnxruntime(g.model(), drawn(rng, 5, 1, 4))
        assert model.batch == (1 if depends else None)
        if depends:
            with pytest.raises(ValueError, match="inputs must have a batch of 1, got 2"):
                model(drawn(rng, 5, 2, 4))
        else:
            assert model(drawn(rng, 8, 2, 4)).shape == (8, 2, 3)


def test_values_with_two_names_are_returned_twice(rng):
    g = Graph(rng)
    x = g.input("x", ["b", "t", 4])
    y = g.add("Relu", x)
    for name in (y, g.add("Identity", y), g.add("Identity", x)):
        g.output(name, 3)
    model = assert_as_onnxruntime(g.model(), drawn(rng, 2, 3, 4))
    assert list(model.outputs) == [one.name for one in g.outputs]


def test_weights_in_other_types_are_close(rng):
    model, arrays = onnx_random.Drawn(1).made()
    data = model.SerializeToString()
    given = dict(zip([one.name for one in model.graph.input], arrays, strict=True))
    exact = fastgru.load_model(data)(given)
    half = fastgru.load_model(data, weights_dtype="float16")
    assert half.weights_dtype == "float16"
    found = half(given)
    results = (exact, found) if isinstance(exact, list | tuple) else ([exact], [found])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-2)


def test_models_in_memory_are_models(rng):
    model, arrays = onnx_random.Drawn(2).made()
    assert_as_onnxruntime(model, *arrays, found=fastgru.from_onnx_model(model))
    with pytest.raises(TypeError, match=r"model must be an onnx\.ModelProto"):
        fastgru.from_onnx_model(3)


# ---- timesteps that are added and left out ---------------------------------------------------


def both(steps):
    """A number of timesteps as files declare it: open, and fixed."""
    return pytest.mark.parametrize("declared", ["t", steps], ids=["open", "fixed"])


@both(9)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    ("pads", "stride", "dilation"),
    [
        ([1, 0], 1, 1),
        ([2, 2], 2, 1),
        ([0, 3], 1, 2),
        ([5, 1], 3, 1),
        ([1, 1], 2, 2),
        ([4, 4], 1, 1),
        ([2, 0], 2, 1),
    ],
)
def test_convolutions_have_any_pads(pads, stride, dilation, groups, declared, rng):
    g = Graph(rng)
    x = g.input("x", ["b", 4, declared])
    kernel = g.constant((8, 4 // groups, 3))
    settings = {"pads": pads, "strides": [stride], "dilations": [dilation], "group": groups}
    g.output(g.add("Relu", g.add("Conv", x, kernel, **settings)), 3)
    model = assert_as_onnxruntime(g.model(), drawn(rng, 3, 4, 9))
    causal = pads == [2 * dilation, 0]
    assert ("Pad" in [node.label for node in model.nodes]) != causal


@both(10)
@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("kind", ["Conv", "MaxPool", "AveragePool"])
@pytest.mark.parametrize(("size", "stride"), [(4, 1), (3, 1), (4, 3), (2, 2)])
def test_auto_pad_is_that_of_onnx(kind, auto, size, stride, declared, rng):
    g = Graph(rng)
    x = g.input("x", ["b", 4, declared])
    weights = [g.constant((3, 4, size))] if kind == "Conv" else []
    y = g.add(kind, x, *weights, kernel_shape=[size], strides=[stride], auto_pad=auto)
    g.output(y, 3)
    array = drawn(rng, 3, 4, 10)
    if auto == "SAME_LOWER" and stride > 1 and declared == "t":
        refused(g, "its auto_pad SAME_LOWER with strides needs timesteps that are fixed")
    elif auto == "SAME_LOWER" and kind == "AveragePool" and size == 4:
        refused(g, "are not those of Keras' 'same', and do not count")
    else:
        assert_as_onnxruntime(g.model(), array)


@both(11)
@pytest.mark.parametrize(
    ("pads", "stride"), [([1, 0], 1), ([2, 0], 1), ([2, 2], 2), ([0, 1], 3), ([1, 1], 1)]
)
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_pooling_has_any_pads_that_count(kind, pads, stride, declared, rng):
    g = Graph(rng)
    x = g.input("x", ["b", 4, declared])
    settings = {"count_include_pad": 1} if kind == "AveragePool" else {}
    g.output(g.add(kind, x, kernel_shape=[3], strides=[stride], pads=pads, **settings), 3)
    model = assert_as_onnxruntime(g.model(), drawn(rng, 2, 4, 11) - 3)
    again = io.BytesIO()
    model.save(again)
    x = drawn(rng, 2, 4, 11) - 3
    np.testing.assert_array_equal(fastgru.load_model(again.getvalue())(x), model(x))


@both(8)
@pytest.mark.parametrize(
    ("pads", "fill"), [((2, 0), 0), ((0, 3), 0), ((1, 2), 1.5), ((-2, 1), 0), ((-1, -3), 0), ((0, 0), 0)]
)
def test_pad_serves_any_operator(pads, fill, declared, rng):
    g = Graph(rng)
    x = g.input("x", [declared, "b", 4])
    padded = g.add("Pad", x, g.integers(pads[0], 0, 0, pads[1], 0, 0), g.constant(np.float32(fill)))
    y = g.add("Squeeze", g.gru(padded, 4, 3)[0], g.integers(1))
    for one in (y, g.add("Add", g.add("Tanh", padded), padded), g.add("Transpose", padded, perm=[1, 0, 2])):
        g.output(one, 3)
    model = assert_as_onnxruntime(g.model(), drawn(rng, 8, 2, 4))
    assert [node.label for node in model.nodes].count("Pad") == (pads != (0, 0))


def test_two_pads_become_the_causal_one_of_a_convolution(rng):
    g = Graph(rng)
    x = g.input("x", ["b", 4, "t"])
    x = g.add("Pad", x, g.integers(0, 0, 3, 0, 0, 0))
    g.output(g.add("Conv", x, g.constant((3, 4, 5)), pads=[1, 0]), 3)
    model = assert_as_onnxruntime(g.model(), drawn(rng, 2, 4, 9))
    assert [node.label for node in model.nodes] == ["Convolution"]
    frames = drawn(rng, 2, 4, 9)
    stream = model.stream(2)
    found = np.stack([stream(frames[..., t]).copy() for t in range(9)], -1)
    np.testing.assert_array_equal(found, model(frames))


@both(10)
@pytest.mark.parametrize("bounds", [(2, 2**40), (0, -3), (1, -1), (0, 2**40), (0, 1), (-1, 2**40)])
def test_slices_leave_timesteps_out(bounds, declared, rng):
    g = Graph(rng)
    y = g.add("Squeeze", g.gru(g.input("x", [declared, "b", 4]), 4, 3)[0], g.integers(1))
    y = g.add("Slice", y, g.integers(bounds[0]), g.integers(bounds[1]), g.integers(0))
    g.output(g.add("Tanh", y), 3)
    assert_as_onnxruntime(g.model(), drawn(rng, 10, 2, 4))


@pytest.mark.parametrize("bounds", [(-4, 2**40), (3, 7), (-5, -2), (4, 5), (0, 6)])
def test_slices_of_timesteps_that_are_fixed_have_any_bounds(bounds, rng):
    g = Graph(rng)
    y = g.add("Squeeze", g.gru(g.input("x", [10, "b", 4]), 4, 3)[0], g.integers(1))
    cut = g.add("Slice", y, g.integers(bounds[0]), g.integers(bounds[1]), g.integers(0))
    one = g.add("Gather", y, g.constant(np.int64(bounds[0])), axis=0)
    g.output(g.add("Tanh", cut), 3)
    g.output(g.add("Tanh", one), 2)
    assert_as_onnxruntime(g.model(), drawn(rng, 10, 2, 4))


def test_bounds_of_a_slice_may_be_computed_of_sizes(rng):
    g = Graph(rng)
    y = g.add("Squeeze", g.gru(g.input("x", ["t", "b", 4]), 4, 3)[0], g.integers(1))
    steps = g.add("Gather", g.add("Shape", y), g.integers(0))
    end = g.add("Sub", steps, g.integers(2))
    g.output(g.add("Tanh", g.add("Slice", y, g.integers(1), end, g.integers(0))), 3)
    assert_as_onnxruntime(g.model(), drawn(rng, 10, 2, 4))


# ---- quotients -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (1,), (), (1, 1, 4)])
def test_constants_are_divided_by_values(shape, rng):
    g = Graph(rng)
    x = g.add("Exp", g.input("x", ["b", "t", 4]))
    g.output(g.add("Div", g.constant(shape), x), 3)
    g.output(g.add("Reciprocal", x), 3)
    model = assert_as_onnxruntime(g.model(), drawn(rng, 2, 5, 4))
    assert [node.label for node in model.nodes].count("Inverse") == 2


def test_one_feature_divides_many(rng):
    g = Graph(rng)
    x = g.add("Exp", g.input("x", ["b", "t", 1]))
    y = g.input("y", ["b", "t", 4])
    g.output(g.add("Div", g.constant((4,)), x), 3)
    g.output(g.add("Div", y, x), 3)
    g.output(g.add("Div", x, g.add("Exp", y)), 3)
    assert_as_onnxruntime(g.model(), drawn(rng, 2, 5, 1), drawn(rng, 2, 5, 4))


# ---- what is refused -------------------------------------------------------------------------


def refused(graph, match):
    with pytest.raises(fastgru.FormatError, match=match):
        fastgru.load_model(graph.model().SerializeToString())


def test_every_operator_in_the_way_is_named(rng):
    g = Graph(rng)
    y = g.add("Erf", g.input("x", ["b", "t", 4]), name="first")
    y = g.add("Relu", y)
    y = g.add("Cos", y, name="second")
    g.output(g.add("Softmax", y, axis=1, name="third"), 3)
    refused(g, r"'first' \(Erf\).*'second' \(Cos\).*fastgru\.load_all")


@pytest.mark.parametrize(
    ("kind", "attributes", "complaint"),
    [
        ("Softmax", {"axis": 1}, "works along axis 1"),
        ("ReduceMax", {"axes": [2]}, "works along the features"),
        ("AveragePool", {"kernel_shape": [2]}, "must have the axes batch, features, timesteps"),
    ],
)
def test_other_axes_are_refused(rng, kind, attributes, complaint):
    g = Graph(rng)
    y = g.gru(g.input("x", ["t", "b", 4]), 4, 3)[0]
    y = g.add("Squeeze", y, g.integers(1))
    g.output(g.add(kind, y, **attributes), 2 if kind == "ReduceMax" else 3)
    refused(g, complaint)


def test_pads_that_do_not_count_are_refused_unless_keras_has_them(rng):
    g = Graph(rng)
    x = g.input("x", ["b", 4, "t"])
    g.output(g.add("AveragePool", x, kernel_shape=[5], pads=[2, 2], strides=[2]), 3)
    refused(
        g, r"its pads \(2, 2\) of windows of 5 steps, every 2, are not those of Keras' 'same', and do not"
    )


def test_timesteps_from_the_end_of_any_number_are_refused(rng):
    g = Graph(rng)
    y = g.add("Squeeze", g.gru(g.input("x", ["t", "b", 4]), 4, 3)[0], g.integers(1))
    g.output(g.add("Slice", y, g.integers(-3), g.integers(2**40), g.integers(0)), 3)
    refused(g, "any number of timesteps: give the model a fixed number of them")
    g = Graph(rng)
    y = g.add("Conv", g.input("x", ["b", 4, "t"]), g.constant((3, 4, 1)))
    g.output(g.add("Gather", y, g.constant(np.int64(2)), axis=2), 2)
    refused(g, "it takes the timestep 2: of timesteps that are not fixed only the first and the last")


def damaged(change):
    """A model that `change` has spoilt, unchecked."""
    g = Graph(np.random.default_rng(1))
    y = g.add("MatMul", g.input("x", ["b", "t", 4]), g.constant((4, 3), "kernel"))
    g.output(g.gru(g.add("Transpose", g.add("Relu", y), perm=[1, 0, 2]), 3, 2)[0], 4)
    model = g.model()
    change(model.graph)
    return model.SerializeToString()


def cycle(graph):
    graph.node[0].input[0] = graph.node[1].output[0]


def missing(graph):
    graph.node[1].input[0] = "nowhere"


def no_input(graph):
    graph.node[0].ClearField("input")


def wrong_perm(graph):
    graph.node[2].attribute[0].ints[0] = 7


def wrong_type(graph):
    graph.node[2].attribute[0].CopyFrom(helper.make_attribute("perm", "text"))


def mismatch(graph):
    graph.initializer[0].dims[:] = [3, 4]


def huge(graph):
    graph.initializer[0].dims[:] = [1 << 40, 1 << 20]


def huge_input(graph):
    graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 60


def unknown_rank(graph):
    graph.input[0].type.tensor_type.ClearField("shape")


def open_features(graph):
    graph.input[0].type.tensor_type.shape.dim[2].dim_param = "f"


def no_output(graph):
    graph.output[0].name = "nowhere"


def infinite(graph):
    graph.initializer[0].raw_data = np.full((4, 3), np.inf, np.float32).tobytes()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (cycle, "a value depends on itself"),
        (missing, r"\(Relu\), which reads a value that is nowhere"),
        (no_input, "MatMul"),
        (wrong_perm, r"\(Transpose\): its perm must be an order of 3 axes"),
        (wrong_type, "'perm' twice or of a wrong type"),
        (mismatch, r"\(MatMul\): it multiplies 4 features by a matrix \(3, 4\)"),
        (huge, "kernel"),
        (huge_input, "features"),
        (unknown_rank, "its input 'x' must have a shape"),
        (open_features, "its input 'x' must have a size for each axis but batch and timesteps"),
        (no_output, "its output 'nowhere' is computed by no node"),
        (infinite, r"\(MatMul\): its second input must be finite"),
    ],
)
def test_damaged_models_are_refused_by_name(change, complaint):
    with pytest.raises(fastgru.FormatError, match=complaint):
        fastgru.load_model(damaged(change))


def test_every_byte_may_be_damaged():
    """A byte of a small file is another one: a model or a FormatError."""
    data = damaged(lambda graph: None)
    rng = np.random.default_rng(11)
    for place in rng.choice(len(data), 300, replace=False):
        changed = bytearray(data)
        changed[place] = rng.integers(256)
        try:
            model = fastgru.load_model(bytes(changed))
        except fastgru.FormatError:
            continue
        assert model.outputs


@pytest.fixture(scope="module")
def from_keras(tensorflow):
    """Converts a model of tf_keras."""
    tf2onnx = pytest.importorskip("tf2onnx")

    def convert(model):
        spec = [tensorflow.TensorSpec([None, *model.input_shape[1:]], model.inputs[0].dtype, name="x")]
        return tf2onnx.convert.from_keras(model, input_signature=spec, opset=15)[0]

    return convert


def keras_model(name, keras):
    """One of the models of tf_keras."""
    layers = keras.layers

    def gru(units=6, **options):
        return layers.GRU(units, **{"return_sequences": True} | options)

    convolution = layers.Conv1D(8, 3, padding="causal"), layers.BatchNormalization(), layers.ReLU()
    last = {"return_sequences": False}
    made = {
        "reset before": [gru(reset_after=False), layers.Dense(3)],
        "hard sigmoid": [gru(reset_after=False, recurrent_activation="hard_sigmoid", **last)],
        "stack": [
            layers.Dense(7, activation="relu"),
            gru(),
            gru(4, **last),
            layers.Dense(2, activation="sigmoid"),
        ],
        "both directions": [layers.Bidirectional(gru()), layers.TimeDistributed(layers.Dense(3))],
        "last of both directions": [layers.Bidirectional(gru(**last)), layers.Dense(3)],
        "convolution": [*convolution, gru(), layers.GlobalAveragePooling1D(), layers.Dense(2)],
        "pooling": [layers.MaxPooling1D(2), gru(), layers.AveragePooling1D(2), gru(3, **last)],
        "backwards": [gru(go_backwards=True), layers.Dense(2)],
        "repeated": [gru(**last), layers.RepeatVector(4), gru(3)],
        "norms": [
            layers.LayerNormalization(),
            gru(),
            layers.LayerNormalization(epsilon=1e-5),
            layers.Dense(2),
        ],
        "norms of vectors": [
            gru(**last),
            layers.LayerNormalization(),
            layers.Dense(2),
            layers.LayerNormalization(epsilon=1e-6),
        ],
        "flat": [layers.Conv1D(8, 3, strides=2), gru(), layers.Flatten(), layers.Dense(2)],
    }
    return keras.Sequential([layers.Input((12, 5)), *made[name]])


KERAS = ["reset before", "hard sigmoid", "stack", "both directions", "last of both directions", "convolution"]
KERAS += ["pooling", "backwards", "repeated", "flat", "norms", "norms of vectors"]


@pytest.mark.parametrize("name", KERAS)
def test_models_of_keras_through_tf2onnx_are_computed_as_by_onnxruntime(name, keras, from_keras, rng):
    trained = keras_model(name, keras)
    for variable in trained.variables:
        variable.assign(variable + 0.1 * rng.random(variable.shape))
    model = from_keras(trained)
    onnx.checker.check_model(model)
    found = assert_as_onnxruntime(model, drawn(rng, 3, 12, 5))
    norms = sum("LayerNormalization" in type(layer).__name__ for layer in trained.layers)
    assert [node.label for node in found.nodes].count("LayerNormalization") == norms


def test_helpers_compare_what_differs(rng):
    """The comparison of these tests can fail."""
    g = Graph(rng)
    g.output(g.add("Relu", g.input("x", ["b", "t", 4])), 3)
    other = Graph(rng)
    other.output(other.add("Tanh", other.input("x", ["b", "t", 4])), 3)
    with pytest.raises(AssertionError):
        onnx_graphs.assert_as_onnxruntime(g.model(), drawn(rng, 2, 3, 4), found=loaded(other.model()))
