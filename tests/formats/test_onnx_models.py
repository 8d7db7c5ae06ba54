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
            assert_as_onnxruntime(model, *arrays)
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


def test_layer_normalization_of_many_operators_is_one_node(rng):
    g = Graph(rng, opset=13)
    x = g.input("x", ["b", "t", 6])
    d = g.add("Sub", x, g.add("ReduceMean", x, axes=[-1]))
    square = g.add("Pow", d, g.constant(np.float32(2)))
    variance = g.add("Add", g.add("ReduceMean", square, axes=[-1]), g.constant(np.float32(1e-5)))
    y = g.add("Mul", g.add("Div", d, g.add("Sqrt", variance)), g.constant((6,)))
    g.output(g.add("Add", y, g.constant((6,))), 3)
    model = assert_as_onnxruntime(g.model(), drawn(rng, 2, 5, 6))
    assert [node.label for node in model.nodes] == ["LayerNormalization"]


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


def test_paddings_that_keras_lacks_are_refused(rng):
    g = Graph(rng)
    x = g.input("x", ["b", 4, "t"])
    g.output(g.add("Conv", x, g.constant((3, 4, 5)), pads=[2, 2], strides=[2]), 3)
    refused(g, r"got \(2, 2\) for windows of 5 steps with strides of 2")


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
def from_keras():
    """Converts a model of tf_keras."""
    tf2onnx = pytest.importorskip("tf2onnx")
    tensorflow = pytest.importorskip("tensorflow")

    def convert(model):
        spec = [tensorflow.TensorSpec([None, *model.input_shape[1:]], model.inputs[0].dtype, name="x")]
        return tf2onnx.convert.from_keras(model, input_signature=spec, opset=15)[0]

    return convert


def keras_models():
    """Models of tf_keras by name."""
    import tf_keras

    layers = tf_keras.layers

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
        "flat": [layers.Conv1D(8, 3, strides=2), gru(), layers.Flatten(), layers.Dense(2)],
    }
    return {name: tf_keras.Sequential([layers.Input((12, 5)), *each]) for name, each in made.items()}


KERAS = ["reset before", "hard sigmoid", "stack", "both directions", "last of both directions", "convolution"]
KERAS += ["pooling", "backwards", "repeated", "flat"]


@pytest.mark.parametrize("name", KERAS)
def test_models_of_keras_through_tf2onnx_are_computed_as_by_onnxruntime(name, from_keras, rng):
    model = from_keras(keras_models()[name])
    onnx.checker.check_model(model)
    assert_as_onnxruntime(model, drawn(rng, 3, 12, 5))


def test_helpers_compare_what_differs(rng):
    """The comparison of these tests can fail."""
    g = Graph(rng)
    g.output(g.add("Relu", g.input("x", ["b", "t", 4])), 3)
    other = Graph(rng)
    other.output(other.add("Tanh", other.input("x", ["b", "t", 4])), 3)
    with pytest.raises(AssertionError):
        onnx_graphs.assert_as_onnxruntime(g.model(), drawn(rng, 2, 3, 4), found=loaded(other.model()))
