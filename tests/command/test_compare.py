"""`fastgru compare`: it finds what is wrong, and nothing wrong with what is right."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from comparing import FEATURES, SEED, UNITS, assert_equal, gru_node, invoke, onnx_file, onnx_weights, weights
from safetensors.torch import save_file
from torch.nn.utils import prune

import fastgru
from fastgru import _kernels
from fastgru.cli import _compare, _convert, _model, _runtimes
from fastgru.cli._commands import fastgru as command
from fastgru.formats import _onnx_fold, _onnx_state, _torch_keys

ONNXRUNTIME = {"return_sequences": True, "return_state": True}


def layer(both=False, dtype="float32", values=None, **arguments):
    """A built layer that returns all."""
    options = {"reset_after": True, "recurrent_activation": "sigmoid", **ONNXRUNTIME, **arguments}
    made = fastgru.GRU(UNITS, dtype=dtype, **options)
    made = fastgru.Bidirectional(made) if both else made
    made.build((None, None, FEATURES))
    made.set_weights(weights(1 + both, 1 + options["reset_after"]) if values is None else values)
    return made


# ---- onnxruntime -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("both", "options"),
    [
        (False, {}),
        (True, {}),
        (False, {"go_backwards": True}),
        (False, {"reset_after": False}),
        (False, {"recurrent_activation": "hard_sigmoid", "activation": "relu"}),
        (False, {"default_state": np.linspace(-1, 1, UNITS, dtype=np.float32)}),
        (False, {"default_state": np.linspace(-1, 1, 3 * UNITS, dtype=np.float32).reshape(3, UNITS)}),
    ],
)
def test_an_onnx_model_is_compared(tmp_path, both, options):
    path = tmp_path / "model.onnx"
    onnx.save(layer(both, **options).to_onnx(), path)
    assert "onnxruntime" in assert_equal(path)


def test_a_batch_major_node_is_compared(tmp_path):
    # onnxruntime computes none, but that is the order of axes alone
    model = layer(default_state=np.linspace(-1, 1, UNITS, dtype=np.float32)).to_onnx()
    node, graph = model.graph.node[0], model.graph
    node.attribute.append(onnx.helper.make_attribute("layout", 1))
    [state] = [tensor for tensor in graph.initializer if tensor.name == "initial_h"]
    state.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(state).swapaxes(0, 1), "initial_h")
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert fastgru.load(path).time_major is False
    assert_equal(path)


STATE = np.linspace(-1, 1, UNITS, dtype=np.float32).reshape(1, 1, UNITS)


def folded(path):
    """A model whose weights and initial state come out of nodes."""
    values = onnx_weights()
    scale = np.float32(np.abs(values["W"]).max() / 127)
    update, reset, candidate = np.split(values.pop("R"), 3, axis=1)
    quantized = np.round(values.pop("W") / scale).astype(np.int8)
    values |= {"q": quantized, "scale": scale, "z": update, "r": reset, "h": candidate, "state": STATE}
    values |= {
        "one": np.array([1]),
        "one_more": np.array([1]),
        "end": np.array([2]),
        "units": np.array([UNITS]),
    }
    nodes = [
        ("DequantizeLinear", ["q", "scale"], ["W"]),
        ("Concat", ["z", "r", "h"], ["R"], ("axis", 1)),
        ("Shape", ["X"], ["shape"]),
        ("Slice", ["shape", "one", "end"], ["batch"]),
        ("Concat", ["one_more", "batch", "units"], ["wanted"], ("axis", 0)),
        ("Tanh", ["state"], ["bounded"]),
        ("Expand", ["bounded", "wanted"], ["H"]),
        gru_node("H"),
    ]
    onnx_file(path, nodes, values)


def test_weights_and_states_that_the_graph_computes_are_compared(tmp_path):
    folded(tmp_path / "model.onnx")
    loaded = fastgru.load(tmp_path / "model.onnx")
    np.testing.assert_allclose(loaded.default_state, np.tanh(STATE)[0], rtol=0, atol=1e-6)
    assert_equal(tmp_path / "model.onnx")


def halved(*arguments, original=_onnx_fold.Folder.constant):
    return original(*arguments) / 2


def turned(*arguments, original=_onnx_fold.Folder.constant):
    """Weights with the first two gates in each other's place."""
    array = original(*arguments)
    return (
        array
        if array.ndim < 3
        else np.concatenate([*np.split(array, 3, axis=1)[1::-1], array[:, -UNITS:]], 1)
    )


FAULTS = {
    "a wrong result of a node": (_onnx_fold.Folder, "constant", halved),
    "gates in another order": (_onnx_fold.Folder, "constant", turned),
    "a state that is dropped": (_onnx_state, "initial", lambda *arguments: [None]),
    "a state of another layer": (_onnx_state, "initial", lambda *arguments: [-STATE[0]]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_reader_of_onnx_is_a_difference(tmp_path, monkeypatch, fault):
    folded(tmp_path / "model.onnx")
    monkeypatch.setattr(*FAULTS[fault])
    status, output = invoke(tmp_path / "model.onnx")
    assert status == 1
    assert "DIFFERENT" in output


def test_a_state_that_the_graph_is_given_is_the_caller_s(tmp_path):
    inputs = [
        onnx.helper.make_tensor_value_info(name, 1, shape)
        for name, shape in (("X", ["t", "b", FEATURES]), ("before", ["b", UNITS]))
    ]
    nodes = [("Unsqueeze", ["before", "zero"], ["H"]), gru_node("H")]
    onnx_file(tmp_path / "model.onnx", nodes, onnx_weights() | {"zero": np.array([0])}, inputs=inputs)
    assert fastgru.load(tmp_path / "model.onnx").default_state is None
    assert_equal(tmp_path / "model.onnx")


@pytest.mark.parametrize("layout", [0, 1])
def test_a_state_of_the_batch_of_another_input_is_compared(tmp_path, layout):
    inputs = [
        onnx.helper.make_tensor_value_info(name, 1, shape)
        for name, shape in (("X", [None, None, FEATURES]), ("ids", ["b", 1]))
    ]
    values = onnx_weights() | {"state": STATE, "zero": np.array([0]), "end": np.array([1])}
    values |= {"one": np.array([1]), "once": np.array([1])}
    order = ["batch", "once"] if layout else ["once", "batch"]
    nodes = [
        ("Shape", ["ids"], ["shape"]),
        ("Slice", ["shape", "zero", "end"], ["batch"]),
        ("Concat", [*order, "one"], ["times"], ("axis", 0)),
        ("Tile", ["state", "times"], ["H"]),
        gru_node("H", **({"layout": 1} if layout else {})),
    ]
    onnx_file(tmp_path / "model.onnx", nodes, values, inputs=inputs)
    loaded = fastgru.load(tmp_path / "model.onnx")
    assert loaded.time_major != layout
    np.testing.assert_array_equal(loaded.default_state, STATE[0])
    assert_equal(tmp_path / "model.onnx")


def test_nodes_in_branches_and_functions_are_compared(tmp_path):
    helper = onnx.helper
    kind = helper.make_tensor_value_info("Z", 1, None)
    branches = []
    for name in ("then_branch", "else_branch"):
        node = helper.make_node("GRU", ["X", "W", "R", "B"], ["Z"], hidden_size=UNITS, linear_before_reset=1)
        branches.append((name, helper.make_graph([node], name, [], [kind])))
    inside = [helper.make_node("GRU", ["x", "w", "r", "b"], ["y"], linear_before_reset=1, hidden_size=UNITS)]
    inside[0].attribute[0].CopyFrom(onnx.AttributeProto(name="hidden_size", ref_attr_name="units", type=2))
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "Net", ["x", "w", "r", "b"], ["y"], inside, opsets, ["units"])
    nodes = [
        ("Net", ["X", "W", "R", "B"], ["N"], ("domain", "own"), ("units", UNITS), ("name", "called")),
        ("If", ["which"], ["P"], *branches),
        gru_node(),
    ]
    inputs = [helper.make_tensor_value_info("X", 1, ["t", "b", FEATURES])]
    path, values = tmp_path / "model.onnx", onnx_weights() | {"which": np.array(True)}
    more = {"functions": [function], "opsets": [helper.make_opsetid("own", 1)]}
    onnx_file(path, nodes, values, inputs=inputs, **more)
    output = assert_equal(path)
    for name in ("called/gru_0", "if_0/then_branch/gru_0", "if_0/else_branch/gru_0"):
        assert name in output


# ---- PyTorch ---------------------------------------------------------------------------------------


class Holder(torch.nn.Module):
    """Modules that TorchScript can be made of."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return x


@pytest.mark.parametrize("ending", ["safetensors", "pt", "npz", "whole.pt", "nested.pt", "script.pt"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript
def test_a_state_dict_is_compared(tmp_path, ending):
    torch.manual_seed(SEED)
    module = torch.nn.ModuleDict(
        {
            "deep": torch.nn.GRU(FEATURES, UNITS, num_layers=2, bidirectional=True),
            "plain": torch.nn.GRU(FEATURES, UNITS, bias=False),
            "cell": torch.nn.GRUCell(FEATURES, UNITS),
        }
    )
    state, path = module.state_dict(), tmp_path / f"model.{ending}"
    if ending == "safetensors":
        save_file(state, path)
    elif ending == "pt":
        torch.save({"state_dict": state}, path)
    elif ending == "whole.pt":
        torch.save({"net": module, "epoch": 3}, path)
    elif ending == "nested.pt":
        cell = {"plain": module["plain"].state_dict(), "cell": [module["cell"].state_dict()]}
        torch.save({"all": {**cell, "deep": module["deep"].state_dict()}}, path)
    elif ending == "script.pt":
        torch.jit.save(torch.jit.script(Holder(**module)), path)
    else:
        np.savez(path, **{key: tensor.numpy() for key, tensor in state.items()})
    output = assert_equal(path)
    assert all(name in output for name in ("deep", "plain", "cell"))
    cell = "cell.0" if ending == "nested.pt" else "cell"
    assert "plain" not in assert_equal(path, "--layer", cell)


CHANGES = {
    "_normed": torch.nn.utils.parametrizations.weight_norm,
    "_spectral": torch.nn.utils.parametrizations.spectral_norm,
    "_pruned": lambda module, name: prune.l1_unstructured(module, name, 0.5),
}


@pytest.mark.parametrize("fault", CHANGES)
def test_what_stands_for_a_weight_is_put_together_by_pytorch(fault, tmp_path, monkeypatch):
    torch.manual_seed(SEED)
    module = torch.nn.GRU(FEATURES, UNITS, 2, bidirectional=True)
    for name in ("weight_hh_l0", "weight_ih_l1_reverse"):
        CHANGES[fault](module, name)
    path = tmp_path / "model.pt"
    torch.save({"model": module.state_dict()}, path)
    assert_equal(path)
    standing = {
        names: (lambda weight, *_: weight * 1.01) if together.__name__ == fault else together
        for names, together in _torch_keys.STANDING.items()
    }
    monkeypatch.setattr(_torch_keys, "STANDING", standing)
    status, output = invoke(path)
    assert status == 1
    assert "DIFFERENT" in output


# ---- Keras -----------------------------------------------------------------------------------------


def keras_model(keras):
    """A GRU in a model in a model, and both directions."""
    layers = keras.layers
    inner = keras.Sequential(
        [layers.Input((None, FEATURES)), layers.GRU(UNITS, return_sequences=True)], name="inner"
    )
    x = keras.Input((None, FEATURES))
    y = layers.Bidirectional(layers.GRU(UNITS, recurrent_activation="hard_sigmoid"), name="both")(inner(x))
    model = keras.Model(x, layers.Dense(2)(y))
    rng = np.random.default_rng(SEED)
    model.set_weights([rng.normal(0, 0.4, array.shape) for array in model.get_weights()])
    return model


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_model_of_tf_keras_is_compared(tmp_path, keras, ending):
    path = tmp_path / f"model.{ending}"
    keras_model(keras).save(path)
    output = assert_equal(path)
    assert "inner/gru" in output
    assert "both" in output


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_model_of_keras_3_is_compared(tmp_path, tensorflow):
    import keras

    path = tmp_path / "model.keras"
    keras_model(keras).save(path)
    assert "inner/gru" in assert_equal(path)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_may_compute_in_less_than_its_weights_have(tmp_path, keras, policy, version):
    if version == 3:
        import keras
    layers, dtype, path = keras.layers, keras.mixed_precision.Policy(policy), tmp_path / "model.keras"
    both = layers.Bidirectional(layers.GRU(UNITS, dtype=dtype), name="both")
    model = keras.Sequential([layers.Input((None, FEATURES)), both])
    model.set_weights(weights(2))
    model.save(path)
    assert_equal(path)


# ---- another runtime than the file's ---------------------------------------------------------------


def test_another_runtime_is_said_not_to_test_the_reading(tmp_path, tensorflow):
    path = tmp_path / "layer.npz"
    layer().save(path)
    for against in ("onnxruntime", "torch", "keras"):
        assert "does not test how the file was read" in assert_equal(path, "--against", against)


def test_layers_of_a_stack_are_compared_one_by_one_where_there_are_no_stacks(tmp_path):
    upper = fastgru.GRU(3, reset_after=True, recurrent_activation="sigmoid", return_state=True, name="upper")
    stack = fastgru.Stack([layer(name="lower"), upper], name="stack")
    stack.build((None, None, FEATURES))
    stack.save(tmp_path / "stack.npz")
    output = assert_equal(tmp_path / "stack.npz", "--against", "onnxruntime")
    assert "stack: lower" in output
    assert "stack: upper" in output


@pytest.mark.parametrize("against", ["onnxruntime", "keras"])
def test_outputs_of_directions_that_are_apart_are_compared(tmp_path, tensorflow, against):
    made = fastgru.Bidirectional(layer(), merge_mode=None)
    made.build((None, None, FEATURES))
    made.set_weights(weights(2))
    made.save(tmp_path / "apart.npz")
    assert_equal(tmp_path / "apart.npz", "--against", against)


def test_a_wrong_output_of_a_direction_that_is_apart_is_a_difference():
    values, apart = weights(2), {}
    for dtype in ("float32", "float64"):
        apart[dtype] = fastgru.Bidirectional(layer(dtype=dtype), merge_mode=None)
        apart[dtype].build((None, None, FEATURES))
        apart[dtype].set_weights(values)
    runtime = _runtimes.of_layer(apart["float32"], "onnxruntime")

    def run(x, mask, states):
        y, *states = runtime.run(x, mask, states)
        return [y[..., ::-1], *states]

    for made, equal in ((runtime, True), (runtime._replace(run=run), False)):
        rng = np.random.default_rng(SEED)
        assert _compare.compared(apart["float32"], apart["float64"], made, rng).equal == equal


@pytest.mark.skipif(not _kernels.float16_isas(), reason="no float16 here")
def test_half_weights_are_compared(tmp_path):
    for both in (False, True):
        half, path = layer(both, weights_dtype="float16"), tmp_path / f"{both}.npz"
        half.save(path)
        assert_equal(path, "--against", "onnxruntime")


def test_what_a_runtime_does_not_have_is_not_compared(tmp_path):
    path = tmp_path / "layer.npz"
    layer(reset_after=False).save(path)
    status, output = invoke(path, "--against", "torch")
    assert status == 2
    assert "not compared: PyTorch's GRU applies the reset gate after" in output


def test_own_files_need_the_name_of_a_runtime(tmp_path):
    layer().save(tmp_path / "layer.npz")
    with pytest.raises(Exception, match="name one by --against"):
        invoke(tmp_path / "layer.npz")


# ---- what convert compares -------------------------------------------------------------------------


def convert(*arguments):
    CliRunner().invoke(
        command, ["convert", *map(str, arguments)], standalone_mode=False, catch_exceptions=False
    )


@pytest.mark.skipif(not _kernels.float16_isas(), reason="no float16 here")
@pytest.mark.parametrize("ending", _convert.WRITERS)
def test_layers_of_half_weights_are_converted(tmp_path, ending):
    half, out = layer(weights_dtype="float16"), tmp_path / f"out{ending}"
    half.save(tmp_path / "half.npz")
    convert(tmp_path / "half.npz", out)
    for found, weight in zip(fastgru.load(out).get_weights(), half.get_weights(), strict=True):
        np.testing.assert_array_equal(found, weight)


def test_a_layer_of_a_stack_is_converted_alone(tmp_path):
    torch.manual_seed(SEED)
    save_file(torch.nn.GRU(FEATURES, UNITS, num_layers=2).state_dict(), tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", tmp_path / "upper.onnx", "--layer", "gru.l1")
    upper = fastgru.load(tmp_path / "model.safetensors").layers[1]
    for found, weight in zip(
        fastgru.load(tmp_path / "upper.onnx").get_weights(), upper.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, weight)


def test_what_is_not_checked_yet_is_not_in_the_folder_of_out(tmp_path, monkeypatch):
    found = []

    def write(made, path):
        made.save(path)
        found.extend(entry.name for entry in tmp_path.iterdir())

    monkeypatch.setitem(_convert.WRITERS, ".npz", write)
    layer().save(tmp_path / "layer.npz")
    convert(tmp_path / "layer.npz", tmp_path / "out.npz")
    assert found == ["layer.npz"]
    assert (tmp_path / "out.npz").exists()


# ---- differences -----------------------------------------------------------------------------------


def comparison(values):
    """Of a layer whose weights were read as these with the right one in PyTorch."""
    runtime = _runtimes.of_layer(layer(), "torch")
    rng = np.random.default_rng(SEED)
    return _compare.compared(layer(values=values), layer(dtype="float64", values=values), runtime, rng)


def test_a_weight_off_by_a_rounding_is_no_difference():
    changed = weights()
    changed[1][2, 3] = np.nextafter(changed[1][2, 3], np.float32(9))
    assert comparison(changed).equal


@pytest.mark.parametrize("i", range(3))
def test_a_weight_off_by_a_thousandth_is_a_difference(i):
    changed = weights()
    changed[i][0, 3] += np.float32(1e-3)
    found = comparison(changed)
    assert not found.equal
    assert found.theirs > 10 * found.ours


def test_weights_read_in_another_order_are_a_difference(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    torch.manual_seed(SEED)
    save_file(torch.nn.GRU(FEATURES, UNITS).state_dict(), path)
    assert_equal(path)
    monkeypatch.setattr("fastgru.formats._torch_layers.swapped", lambda array: array)  # r | z for z | r
    status, output = invoke(path)
    assert status == 1
    assert "DIFFERENT" in output


@pytest.mark.parametrize("change", ["state", "shape", "nan"])
def test_wrong_results_are_a_difference(change):
    runtime = _runtimes.of_layer(layer(), "torch")

    def run(x, mask, states):
        y, h = runtime.run(x, mask, states)
        return {"state": [y, h * 1.001], "shape": [y[..., :1], h], "nan": [y * np.nan, h]}[change]

    rng = np.random.default_rng(SEED)
    arguments = layer(), layer(dtype="float64"), runtime._replace(run=run), rng
    assert not _compare.compared(*arguments).equal


@pytest.mark.parametrize(
    ("both", "zeros", "equal"), [(False, False, True), (False, True, False), (True, False, False)]
)
def test_what_lies_beyond_a_row_is_compared_where_the_layer_returns_zeros(both, zeros, equal):
    values = weights(1 + both)
    options = {"values": values, "zero_output_for_mask": zeros}
    runtime = _runtimes.of_layer(layer(both, **options), "torch")

    def run(x, mask, states):
        y, *last = runtime.run(x, mask, states)
        return [y if mask is None else np.where(mask[..., None], y, y + 1), *last]

    arguments = layer(both, **options), layer(both, dtype="float64", **options)
    for made, expected in ((runtime, True), (runtime._replace(run=run), equal)):
        found = _compare.compared(*arguments, made, np.random.default_rng(SEED))
        assert found.equal == expected, found


def test_infinities_and_nan_equal_themselves():
    array = np.array([np.inf, -np.inf, np.nan, 1.0])
    assert _compare._distance([array], [array.copy()]) == 0
    assert _compare._distance([array], [-array]) == np.inf


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.1, 1, 4])
def test_layers_that_amplify_errors_are_equal(scale, seed):
    values = weights(scale=scale, seed=seed)
    runtime = _runtimes.of_layer(layer(values=values), "onnxruntime")
    rng = np.random.default_rng(seed)
    found = _compare.compared(layer(values=values), layer(dtype="float64", values=values), runtime, rng)
    assert found.equal, (found, scale, seed)


# ---- the command -----------------------------------------------------------------------------------


def test_a_seed_decides_everything(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(layer().to_onnx(), path)
    assert invoke(path, "--seed", 1) == invoke(path, "--seed", 1)
    assert invoke(path, "--seed", 1) != invoke(path, "--seed", 2)


def test_a_layer_of_a_stack_is_compared_by_the_name_that_inspect_prints(tmp_path):
    torch.manual_seed(SEED)
    state = torch.nn.ModuleDict({"deep": torch.nn.GRU(FEATURES, UNITS, num_layers=2)}).state_dict()
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    assert "deep.l1" in assert_equal(path, "--layer", "deep.l1")
    one = _model.read(path, "deep.l1")
    assert _model.features(one) == UNITS
    with pytest.raises(ValueError, match=r"one of 'deep', 'deep\.l0', 'deep\.l1', .* got 'deep\.l2'"):
        invoke(path, "--layer", "deep.l2")


def test_one_of_several_layers_is_named_by_an_option(tmp_path):
    path = tmp_path / "model.safetensors"
    modules = torch.nn.ModuleDict({name: torch.nn.GRU(FEATURES, UNITS) for name in ("low", "high")})
    save_file(modules.state_dict(), path)
    names = "('high', 'low'|'low', 'high')"  # safetensors has no order of its own
    with pytest.raises(ValueError, match=f"^name one of {names}, the GRUs in .*, by --layer$"):
        _model.read(path, None)


def test_weights_alone_are_no_model_of_a_command(tmp_path, keras):
    path = tmp_path / "bare.h5"
    keras_model(keras).save_weights(path)
    wanted = "bare.h5: a file of weights alone: save the whole model, or load it in Python"
    for layer_name in (None, "gru"):
        with pytest.raises(fastgru.FormatError, match=wanted):
            _model.named(path, layer_name, **_model.RETURNING_ALL)
        with pytest.raises(fastgru.FormatError, match=wanted):
            _model.read(path, layer_name)


def test_what_is_no_model_is_named(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("hello")
    with pytest.raises(fastgru.FormatError, match=r"model\.onnx: no model file"):
        invoke(path)


def test_a_seed_is_not_negative(tmp_path):
    layer().save(tmp_path / "layer.npz")
    with pytest.raises(Exception, match="-1 is not in the range"):
        invoke(tmp_path / "layer.npz", "--against", "torch", "--seed", -1)


def test_a_name_that_is_none_is_an_error_that_lists_them(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(layer(name="encoder").to_onnx(), path)
    with pytest.raises(ValueError, match=r"--layer must be one of 'encoder', .* got 'decoder'"):
        invoke(path, "--layer", "decoder")


def test_a_missing_runtime_is_one_line_that_says_what_to_install(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(layer().to_onnx(), path)
    program = (
        "import sys, importlib.util as u; found = u.find_spec;"
        "u.find_spec = lambda name, *more: None if name == 'onnxruntime' else found(name, *more);"
        "import fastgru.cli; sys.argv[1:] = ['compare', sys.argv[1]]; fastgru.cli.main()"
    )
    run = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == "fastgru: onnxruntime is needed to run ONNX models: pip install onnxruntime\n"


def test_it_runs_as_a_program(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(layer().to_onnx(), path)
    run = subprocess.run(
        [sys.executable, "-m", "fastgru", "compare", path],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # nobody watches a bar
    assert "equal but for rounding" in run.stdout
