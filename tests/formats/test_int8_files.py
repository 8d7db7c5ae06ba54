"""int8 weights that come in files: their integers and scales are kept where they are symmetric."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest

import fastgru

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

UNITS, FEATURES = 20, 12
KEPT, ROUNDED = 1e-4, 1e-3  # largest error of inputs in 16 bits alone; least one of weights on other steps
AXES = {None: "tensor", 0: "direction", 1: "unit", 2: "input"}


def inputs(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def quantized_model(axis=1, kind=np.int8, zero=None, directions=1, most=90, seed=0, key_of_floats=None):
    """A model with a GRU behind DequantizeLinear, of integers from -most to most, and -128 among them."""
    rng = np.random.default_rng(seed)
    nodes, tensors = [], []
    for key, columns in (("W", FEATURES), ("R", UNITS)):
        shape = (directions, 3 * UNITS, columns)
        integers = rng.integers(-most, most + 1, shape)
        integers[:, ::7, 0] = -128
        of_axis = () if axis is None else shape[axis]
        scales = rng.uniform(0.5, 1, of_axis).astype(np.float32) / 200
        if key == key_of_floats:
            tensors.append(numpy_helper.from_array((integers / 200).astype(np.float32), key))
            continue
        if kind == np.uint8:
            integers += 128
        arrays = [integers.astype(kind), np.asarray(scales)]
        if zero is not None:
            arrays.append(np.full(of_axis, zero, kind))
        names = [f"{key}{i}" for i in range(len(arrays))]
        tensors += [numpy_helper.from_array(array, name) for array, name in zip(arrays, names, strict=True)]
        nodes.append(helper.make_node("DequantizeLinear", names, [key], **({"axis": axis} if axis else {})))
        if axis == 0:
            nodes[-1].attribute.append(helper.make_attribute("axis", 0))
    options = {} if directions == 1 else {"direction": "bidirectional"}
    nodes.append(
        helper.make_node("GRU", ["X", "W", "R"], ["Y"], hidden_size=UNITS, linear_before_reset=1, **options)
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "XY"]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def theirs(model, x):
    """What onnxruntime returns, (timesteps, batch, directions * units)."""
    [y] = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"X": x})
    return np.concatenate([*y.swapaxes(0, 1)], axis=-1)


def assert_same_bits(layer, other, x):
    assert layer.weights_dtype == other.weights_dtype if hasattr(layer, "weights_dtype") else True
    assert np.asarray(layer(x)[0]).tobytes() == np.asarray(other(x)[0]).tobytes()


# ---- ONNX ------------------------------------------------------------------------------------


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("kind", "zero"), [(np.int8, None), (np.int8, 0), (np.uint8, 128)])
@pytest.mark.parametrize("axis", [None, 0, 1], ids=AXES.get)
def test_symmetric_bytes_of_onnx_keep_their_integers(axis, kind, zero, directions):
    model, x = quantized_model(axis, kind, zero, directions), inputs(9, 4, FEATURES)
    wanted = theirs(model, x)
    layer = fastgru.load(model.SerializeToString())
    parts = [layer] if directions == 1 else [layer.forward_layer, layer.backward_layer]
    assert [part.weights_dtype for part in parts] == ["int8"] * directions
    assert 0 < np.abs(layer(x) - wanted).max() < KEPT
    as_floats = fastgru.load(model.SerializeToString(), weights_dtype="float32")
    np.testing.assert_allclose(as_floats(x), wanted, rtol=0, atol=2e-6)
    for array, other in zip(layer.get_weights(), as_floats.get_weights(), strict=True):
        np.testing.assert_array_equal(array, other)
    layer.set_weights(layer.get_weights())  # which are rounded to steps of their own
    assert np.abs(layer(x) - wanted).max() > ROUNDED


@pytest.mark.parametrize(
    "options",
    [
        {"axis": 2},
        {"zero": 3},
        {"axis": None, "zero": -1},
        {"kind": np.uint8, "zero": 127},
        {"kind": np.uint8},
        {"kind": np.int16},
        {"key_of_floats": "R"},
        {"key_of_floats": "W"},
    ],
    ids=str,
)
def test_other_quantized_weights_of_onnx_are_floats(options):
    model, x = quantized_model(**options), inputs(9, 4, FEATURES)
    layer = fastgru.load(model.SerializeToString())
    assert layer.weights_dtype == "float32"
    np.testing.assert_allclose(layer(x), theirs(model, x), rtol=0, atol=1e-5)


def test_weights_of_onnx_that_cannot_be_int8_are_floats():
    data = quantized_model().SerializeToString()
    assert fastgru.load(data, dtype="float64").weights_dtype == "float64"
    assert fastgru.load(data, weights_dtype=None).weights_dtype == "float32"


# ---- what layers do with them ------------------------------------------------------------------


@pytest.fixture(params=[{}, {"directions": 2}, {"axis": None}], ids=str)
def layer(request):
    return fastgru.load(quantized_model(**request.param).SerializeToString())


def saved(layer):
    file = io.BytesIO()
    layer.save(file)
    return file.getvalue()


def test_scales_go_along_with_copies_and_files(layer):
    x = inputs(9, 4, FEATURES)
    for other in (
        fastgru.load(saved(layer)),
        fastgru.load(saved(fastgru.load(saved(layer)))),
        pickle.loads(pickle.dumps(layer)),
        copy.copy(layer),
        copy.deepcopy(layer),
        fastgru.quantize(layer).layer,
    ):
        assert_same_bits(layer, other, x)


def test_scales_go_along_in_a_stack(tmp_path):
    layer = fastgru.load(quantized_model().SerializeToString(), return_sequences=True)
    above = fastgru.GRU(5, name="above", time_major=True, reset_after=True)
    stack = fastgru.Stack([layer, above])
    stack.build((None, None, FEATURES))
    stack.save(tmp_path / "stack.npz")
    found = fastgru.load(tmp_path / "stack.npz")
    assert [one.weights_dtype for one in found.layers] == ["int8", "float32"]
    assert_same_bits(stack, found, inputs(9, 4, FEATURES))


def test_scales_are_those_of_python_activations_and_dropout():
    layer = fastgru.load(quantized_model().SerializeToString(), activation=np.tanh)
    assert layer.weights_dtype == "int8"
    x = inputs(9, 4, FEATURES)
    np.testing.assert_allclose(layer(x), theirs(quantized_model(), x), rtol=0, atol=1e-5)
    dropping = fastgru.load(quantized_model().SerializeToString(), dropout=1e-9)
    np.testing.assert_allclose(dropping(x, training=True), layer(x), rtol=0, atol=1e-5)


def test_scales_are_dropped_with_the_weights_that_they_are_of():
    weights = [inputs(FEATURES, 3 * UNITS), inputs(UNITS, 3 * UNITS, seed=2)]
    layer = fastgru.load(quantized_model().SerializeToString())
    other = fastgru.GRU.from_config(layer.get_config())
    other.build((None, None, FEATURES))
    other.set_weights(weights)
    layer.set_weights(weights)
    assert_same_bits(layer, other, inputs(9, 4, FEATURES))
    assert_same_bits(fastgru.load(saved(layer)), other, inputs(9, 4, FEATURES))


def test_a_constraint_drops_the_scales():
    layer = fastgru.load(quantized_model().SerializeToString(), kernel_constraint="non_neg")
    layer.apply_constraints()
    other = fastgru.GRU.from_config(layer.get_config())
    other.build((None, None, FEATURES))
    other.set_weights(layer.get_weights())
    assert_same_bits(layer, other, inputs(9, 4, FEATURES))


@pytest.mark.parametrize(
    "change",
    [
        lambda scales: scales[:1],
        lambda scales: scales[:, 1:],
        lambda scales: scales * 2,
        lambda scales: scales / 2,
        lambda scales: -scales,
        lambda scales: np.nan * scales,
        lambda scales: 0 * scales,
        lambda scales: scales.astype("i4"),
    ],
)
def test_damaged_scales_are_refused(change):
    layer = fastgru.load(quantized_model().SerializeToString())
    with np.load(io.BytesIO(saved(layer))) as members:
        arrays = dict(members)
    arrays["scales"] = change(arrays["scales"])
    file = io.BytesIO()
    np.savez(file, **arrays)
    with pytest.raises(fastgru.FormatError, match="scales"):
        fastgru.load(file.getvalue())


def test_a_file_with_scales_loads_as_floats_on_demand(layer):
    found = fastgru.load(saved(layer), weights_dtype="float32")
    assert {part.weights_dtype for part in getattr(found, "layers", [found]) if hasattr(part, "units")} <= {
        "float32"
    }
    for array, other in zip(found.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_array_equal(array, other)


# ---- PyTorch -----------------------------------------------------------------------------------

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's, of quantization, and ours, of its activations

OPTIONS = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True},
    {"batch_first": True},
]


def quantized_modules(per_unit=False, dtype=torch.qint8, features=FEATURES, **options):
    torch.manual_seed(0)
    modules = {"rnn": torch.nn.GRU(features, UNITS, **options), "lstm": torch.nn.LSTM(features, UNITS)}
    kinds = {torch.nn.GRU, torch.nn.LSTM}
    if dtype == torch.qint8:
        modules["cell"] = torch.nn.GRUCell(features, UNITS)
        kinds.add(torch.nn.GRUCell)
    net = torch.nn.ModuleDict(modules).eval()
    quantization = torch.ao.quantization
    if per_unit:
        kinds = dict.fromkeys(kinds, quantization.per_channel_dynamic_qconfig)
        return quantization.quantize_dynamic(net, kinds)
    return quantization.quantize_dynamic(net, kinds, dtype=dtype)


def file_of(value, legacy=False):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def script_of(net):
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(net), file)
    return file.getvalue()


WAYS = {
    "module": fastgru.from_torch,
    "state dict": lambda net: fastgru.from_torch(net.state_dict()),
    "a state dict's file": lambda net: fastgru.load_all(file_of(net.state_dict())),
    "an old file": lambda net: fastgru.load_all(file_of(net.state_dict(), legacy=True)),
    "a module's file": lambda net: fastgru.load_all(file_of(net)),
    "an old file of a module": lambda net: fastgru.load_all(file_of(net, legacy=True)),
    "TorchScript": lambda net: fastgru.load_all(script_of(net)),
}
OF_MODULES = {way for way in WAYS if "module" in way or way == "TorchScript"}


def parts_of(layer):
    if isinstance(layer, fastgru.Stack):
        return [part for one in layer.layers for part in parts_of(one)]
    return [layer.forward_layer, layer.backward_layer] if hasattr(layer, "forward_layer") else [layer]


def of_dequantized(net, **options):
    """A float32 module of PyTorch with the numbers that quantized weights stand for."""
    module = torch.nn.GRU(net["rnn"].input_size, UNITS, **options)
    state = net["rnn"].get_weight() | net["rnn"].get_bias()
    module.load_state_dict(
        {key: value.dequantize() if value.is_quantized else value for key, value in state.items()}
    )
    return module.eval()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("per_unit", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_quantized_modules_of_pytorch_keep_their_integers(options, per_unit, way):
    net = quantized_modules(per_unit, **options)
    found = WAYS[way](net)
    assert list(found) == ["rnn", "cell"]
    assert {part.weights_dtype for layer in found.values() for part in parts_of(layer)} == {"int8"}
    x = inputs(3, 9, FEATURES) if options.get("batch_first") else inputs(9, 3, FEATURES)
    with torch.no_grad():
        wanted, states = of_dequantized(net, **options)(torch.from_numpy(x))
    time_major = way in OF_MODULES and not options.get("batch_first")
    assert found["rnn"].time_major == time_major
    if not options.get("batch_first") and not time_major:
        x, wanted = x.swapaxes(0, 1), wanted.swapaxes(0, 1)
    output, *last = found["rnn"](x)
    np.testing.assert_allclose(output, wanted.numpy(), rtol=0, atol=KEPT)
    np.testing.assert_allclose(np.stack(last), states.numpy(), rtol=0, atol=KEPT)
    cell = net["cell"].get_weight()["weight_ih"]
    r, z, n = np.split(cell.dequantize().numpy().T, 3, axis=1)
    np.testing.assert_array_equal(found["cell"].get_weights()[0], np.hstack([z, r, n]))
    bias = net["cell"].get_bias()["bias_hh"].detach().numpy()
    r, z, n = np.split(bias, 3)
    np.testing.assert_array_equal(found["cell"].get_weights()[2][1], np.hstack([z, r, n]))


@pytest.mark.parametrize("way", WAYS)
def test_half_precision_of_pytorch_is_floats(way):
    net = quantized_modules(dtype=torch.float16, num_layers=2)
    found = WAYS[way](net)
    layers = parts_of(found["rnn"] if isinstance(found, dict) else found)
    assert [layer.weights_dtype for layer in layers] == ["float32"] * 2
    kernel = net["rnn"].get_weight()["weight_ih_l1"].numpy()
    r, z, n = np.split(kernel.T, 3, axis=1)
    np.testing.assert_array_equal(layers[1].get_weights()[0], np.hstack([z, r, n]))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}], ids=str)
def test_levels_that_may_be_directions_are_refused(options, way):
    net = quantized_modules(features=UNITS, **options)
    if way in OF_MODULES:
        assert len(parts_of(WAYS[way](net)["rnn"])) == 2
        return
    with pytest.raises(ValueError, match="two levels or of two directions"):
        WAYS[way](net)
    cell = fastgru.load(file_of(net.state_dict()), "cell")  # others are read
    assert cell.weights_dtype == "int8"


@pytest.mark.parametrize("options", [{"num_layers": 3}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_more_levels_are_told_from_directions(options):
    net = quantized_modules(features=UNITS, **options)
    layers = parts_of(fastgru.load(file_of(net.state_dict()), "rnn"))
    assert len(layers) == options["num_layers"] * (1 + options.get("bidirectional", False))
    for one, (key, weight) in zip(layers, list(net["rnn"].get_weight().items())[::2], strict=True):
        r, z, n = np.split(weight.dequantize().numpy().T, 3, axis=1)
        np.testing.assert_array_equal(one.get_weights()[0], np.hstack([z, r, n]), err_msg=key)


@pytest.mark.parametrize(
    ("quantized", "weights_dtype"),
    [
        (lambda w: torch.quantize_per_tensor(w, 0.01, 0, torch.qint8), "int8"),
        (lambda w: torch.quantize_per_tensor(w, 0.01, 128, torch.quint8), "int8"),
        (lambda w: torch.quantize_per_tensor(w, 0.01, 3, torch.qint8), "float32"),
        (lambda w: torch.quantize_per_tensor(w, 0.01, 0, torch.qint32), "float32"),
        (lambda w: per_channel(w, 0, 0), "int8"),
        (lambda w: per_channel(w, 0, 1), "float32"),
        (lambda w: per_channel(w, 1, 0), "float32"),
    ],
)
@pytest.mark.parametrize("way", ["memory", "file"])
def test_tensors_of_quantized_numbers_keep_symmetric_bytes(way, quantized, weights_dtype):
    torch.manual_seed(0)
    module = torch.nn.GRU(FEATURES, UNITS, batch_first=True)
    state = module.state_dict()
    state |= {key: quantized(state[key]) for key in state if key.startswith("weight")}
    layer = fastgru.from_torch(state) if way == "memory" else fastgru.load(file_of(state))
    assert layer.weights_dtype == weights_dtype
    numbers = {key: each.dequantize() if each.is_quantized else each for key, each in state.items()}
    module.load_state_dict(numbers)
    x = inputs(3, 9, FEATURES)
    with torch.no_grad():
        wanted, _ = module(torch.from_numpy(x))
    np.testing.assert_allclose(layer(x)[0], wanted.numpy(), rtol=0, atol=KEPT)


def per_channel(weight, axis, zero):
    scales = torch.rand(weight.shape[axis]) / 100 + 0.005
    zeros = torch.full((weight.shape[axis],), zero)
    return torch.quantize_per_channel(weight, scales, zeros, axis, torch.qint8)


def test_a_warning_says_what_pytorch_does_with_such_weights():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fastgru.load(file_of(quantized_modules().state_dict()), "rnn")
    assert any("rnn: its quantized weights are read" in str(one.message) for one in caught)
