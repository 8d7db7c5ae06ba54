"""`fastgru compare` finds what readers get wrong without a word: files are equal until a fault is there."""

import functools

import numpy as np
import pytest
import torch
from comparing import (
    FEATURES,
    SEED,
    UNITS,
    assert_different,
    assert_equal,
    gru_node,
    invoke,
    onnx_file,
    onnx_weights,
)
from safetensors.torch import save_file
from torch.nn.utils import parametrizations, prune

from fastgru import _keras_config
from fastgru.cli import _compare
from fastgru.formats import (
    _keras_by_name,
    _keras_by_place,
    _onnx_activation,
    _onnx_node,
    _torch_file,
    _torch_keys,
    _torch_layers,
)
from fastgru.formats import (
    onnx as onnx_reader,
)


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """Rows of few timesteps, of which Keras computes each for itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compare, "MOST_STEPS", 6)
        yield


def given(module, name, **arguments):
    """A patch: `module.name` whose last argument, those of the caller, has these besides."""
    original = getattr(module, name)
    return module, name, lambda *before: original(*before[:-1], {**before[-1], **arguments})


def returning(module, name, change):
    """A patch: `module.name` whose result is changed."""
    original = getattr(module, name)
    return module, name, lambda *arguments, **named: change(original(*arguments, **named))


# ---- PyTorch ---------------------------------------------------------------------------------------


def torch_file(path, whole=False, **options):
    """A GRU beside another one."""
    torch.manual_seed(SEED)
    modules = {"gru": torch.nn.GRU(FEATURES, UNITS, **options), "other": torch.nn.GRU(FEATURES, UNITS)}
    if whole:
        torch.save(modules, path)
    else:
        save_file(torch.nn.ModuleDict(modules).state_dict(), path)


def quantized_file(path):
    torch.manual_seed(SEED)
    state = torch.nn.GRU(FEATURES, UNITS).state_dict()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        state[name] = torch.quantize_per_tensor(state[name], 0.004, 3, torch.qint8)
    torch.save(state, path)


def lowest_level(levels):
    return {0: levels[0]}


def forward_only(levels):
    return {level: {"": directions[""]} for level, directions in levels.items()}


def first_only(found):
    return dict(list(found.items())[:1])


def rescaled(tensor):
    return tensor._replace(scale=tensor.scale * 1.01)


DEEP, BOTH, STEPS = {"num_layers": 2}, {"bidirectional": True}, {"whole": True, "batch_first": False}
TORCH = {
    "a level that is left out": (DEEP, returning(_torch_keys, "_levels", lowest_level)),
    "a direction that is left out": (BOTH, returning(_torch_keys, "_levels", forward_only)),
    "a module that is left out": ({}, returning(_torch_keys, "modules", first_only)),
    "no biases": ({}, returning(_torch_layers, "_arrays", lambda arrays: arrays[:2])),
    "gates in another order": ({}, (_torch_layers, "swapped", lambda array: array)),
    "the last output repeated": ({}, given(_torch_layers, "_level", zero_output_for_mask=False)),
    "that of levels": (DEEP, given(_torch_layers, "_level", zero_output_for_mask=False)),
    "batch and time in another order": (STEPS, given(_torch_layers, "_level", time_major=False)),
}


@pytest.mark.parametrize("fault", TORCH)
def test_a_fault_of_the_reader_of_pytorch_is_a_difference(fault, tmp_path, monkeypatch):
    options, patch = TORCH[fault]
    path = tmp_path / "model.pt"
    torch_file(path, **options)
    assert_equal(path)
    monkeypatch.setattr(*patch)
    assert_different(path)


@pytest.mark.filterwarnings("ignore")  # of quantized tensors: fastgru's, and PyTorch's that they are old
def test_a_wrong_scale_of_quantized_weights_is_a_difference(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    quantized_file(path)
    assert_equal(path)
    monkeypatch.setattr(*returning(_torch_file, "_quantized", rescaled))
    assert_different(path)


def weight_drop(module, name):
    """As WeightDrop has it: what it drops from, and what the last step of training used."""
    weight = getattr(module, name)
    module.register_parameter(f"{name}_raw", torch.nn.Parameter(weight.detach().clone()))
    with torch.no_grad():
        weight[::2] = 0


STANDING = {
    "_g, _v": torch.nn.utils.weight_norm,
    "_orig, _u, _v": torch.nn.utils.spectral_norm,
    "_orig, _mask": functools.partial(prune.l1_unstructured, amount=0.5),
    "_raw": weight_drop,
    "parametrizations.original0": parametrizations.weight_norm,
    "parametrizations.original": parametrizations.spectral_norm,
}


@pytest.mark.parametrize("keys", STANDING)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_keys_that_are_not_understood_and_ignored_are_a_difference(keys, tmp_path, monkeypatch):
    torch.manual_seed(SEED)
    module, path = torch.nn.GRU(FEATURES, UNITS, 2, bias=False), tmp_path / "model.pt"
    for name in ("weight_ih_l1", "weight_hh_l1"):
        STANDING[keys](module, name)
    torch.save(module.state_dict(), path)
    assert_equal(path)
    place = _torch_keys.place

    def plain(key):
        found = place(key)
        return None if found is None or found.part else found

    monkeypatch.setattr(_torch_keys, "place", plain)
    assert_different(path)


# ---- ONNX ------------------------------------------------------------------------------------------


def two_nodes(path, inputs="XWRB", **attributes):
    """A node of which all may be told, and another one."""
    node = gru_node(**attributes)
    node = (node[0], [*inputs], *node[2:])
    other = ("GRU", [*inputs], ["Z"], ("name", "other"), ("hidden_size", UNITS), ("linear_before_reset", 1))
    values = onnx_weights()
    onnx_file(path, [node, other, ("Identity", ["Z"], ["Z_read"])], values)


def without_bias(weights):
    return {key: array for key, array in weights.items() if key != "B"}


def tanh_and_sigmoid(functions):
    return ["sigmoid", "tanh"]


ONNX = {
    "the last output repeated": ({}, given(onnx_reader, "layer_of", zero_output_for_mask=False)),
    "batch and time in another order": ({"layout": 1}, given(onnx_reader, "layer_of", time_major=True)),
    "time and batch in another order": ({}, given(onnx_reader, "layer_of", time_major=False)),
    "forward for reverse": (
        {"direction": "reverse"},
        (onnx_reader, "DIRECTIONS", _onnx_node.DIRECTIONS | {"reverse": [False]}),
    ),
    "the reset gate before": ({"inputs": "XWR"}, given(onnx_reader, "layer_of", reset_after=False)),
    "other activations": (
        {"activations": ["HardSigmoid", "Relu"]},
        returning(_onnx_activation, "read", tanh_and_sigmoid),
    ),
    "no biases": ({}, returning(onnx_reader, "_weights", without_bias)),
    "a node that is left out": ({}, returning(_onnx_node, "nodes", lambda nodes: [*nodes][:1])),
}


@pytest.mark.parametrize("fault", ONNX)
def test_a_fault_of_the_reader_of_onnx_is_a_difference(fault, tmp_path, monkeypatch):
    options, patch = ONNX[fault]
    path = tmp_path / "model.onnx"
    two_nodes(path, **options)
    assert_equal(path)
    monkeypatch.setattr(*patch)
    assert_different(path)


# ---- Keras -----------------------------------------------------------------------------------------


def random_weights(model):
    rng = np.random.default_rng(SEED)
    model.set_weights([rng.normal(0, 0.5, array.shape) for array in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def keras2_file(few_steps, keras, tmp_path_factory):
    """Layers of which each says something that is not fastgru's default."""
    layers, x = keras.layers, keras.Input((None, FEATURES), batch_size=3)
    found = [
        layers.GRU(UNITS, go_backwards=True, name="backwards"),
        layers.GRU(UNITS, reset_after=True, use_bias=False, name="after"),
        layers.GRU(UNITS, time_major=True, name="steps"),
        layers.GRU(UNITS, activation="relu", name="relu"),
        layers.GRU(UNITS, stateful=True, name="stateful"),
        layers.Bidirectional(layers.GRU(UNITS, stateful=True), name="both_stateful"),
    ]
    path = tmp_path_factory.mktemp("keras2") / "model.keras"
    random_weights(keras.Model(x, [layer(x) for layer in found])).save(path)
    assert "both_stateful, 5 calls in a row" in assert_equal(path)
    return path


@pytest.mark.parametrize(
    ("layer", "ignored"),
    [
        ("backwards", "go_backwards"),
        ("after", "reset_after"),
        ("steps", "time_major"),
        ("relu", "activation"),
        ("stateful", "stateful"),
        ("both_stateful", "stateful"),
    ],
)
def test_what_a_reader_of_configs_ignores_is_a_difference(layer, ignored, keras2_file, monkeypatch):
    monkeypatch.setattr(_keras_config, "MEANINGLESS", _keras_config.MEANINGLESS | {ignored})
    assert_different(keras2_file, "--layer", layer)


@pytest.fixture(scope="module")
def keras3_file(few_steps, tensorflow, tmp_path_factory):
    """Layers that differ from those of version 1 and 2."""
    import keras

    layers, x = keras.layers, keras.Input((None, FEATURES), batch_size=3)
    leaky = layers.LeakyReLU(negative_slope=0.1)
    found = [
        layers.GRU(UNITS, recurrent_activation="hard_sigmoid", name="hard"),
        layers.GRU(UNITS, activation=leaky, name="leaky"),
        layers.GRU(UNITS, stateful=True, name="stateful"),
        layers.Bidirectional(layers.GRU(UNITS, stateful=True), name="both_stateful"),
        layers.RNN([layers.GRUCell(FEATURES), layers.GRUCell(FEATURES)], name="cells"),
    ]
    path = tmp_path_factory.mktemp("keras3") / "model.keras"
    random_weights(keras.Model(x, [layer(x) for layer in found])).save(path)
    assert "both_stateful, 5 calls in a row" in assert_equal(path)
    return path


def without_config(identifier):
    return {"class_name": "LeakyReLU", "config": {}} if isinstance(identifier, dict) else identifier


VERSION_2 = _keras_config, "KERAS_3", {"implementation": 2}
KERAS_3 = {
    "hard": (_keras_config, "activation_of", lambda identifier, version: identifier),
    "leaky": returning(_keras_config, "activation_of", without_config),
    "stateful": VERSION_2,
    "both_stateful": VERSION_2,
    "cells": returning(_keras_by_place, "paths_at", lambda places: places[::-1]),
}


@pytest.mark.parametrize("layer", KERAS_3)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_layer_of_keras_3_read_as_another_is_a_difference(layer, keras3_file, monkeypatch):
    monkeypatch.setattr(*KERAS_3[layer])
    output = assert_different(keras3_file, "--layer", layer)
    assert ("equal but for rounding" in output) == ("stateful" in layer)  # single calls are


@pytest.fixture(scope="module")
def names_file(few_steps, keras, tmp_path_factory):
    """Layers of equal shapes whose weights lie in one group, by names that begin alike."""
    layers, x = keras.layers, keras.Input((None, FEATURES))
    found = [
        layers.GRU(FEATURES, return_sequences=True, name="forward_gru"),
        layers.GRU(FEATURES, return_sequences=True, name="backward_gru"),
        layers.RNN([layers.GRUCell(FEATURES), layers.GRUCell(FEATURES)], return_sequences=True, name="cells"),
        layers.Bidirectional(layers.GRU(FEATURES), name="gru"),
    ]
    inner = keras.Sequential([keras.Input((None, FEATURES)), *found], name="inner")
    path = tmp_path_factory.mktemp("names") / "model.h5"
    with pytest.warns(UserWarning, match="HDF5"):
        random_weights(keras.Model(x, inner(x))).save(path)
    assert_equal(path)
    return path


def turned(of_entries):
    """Each direction, and cell, with the folder of the next one."""
    folders = [folder for folders in of_entries for folder in folders]
    following = iter([*folders[1:], folders[0]])
    return [[next(following) for _ in folders] for folders in of_entries]


@pytest.mark.parametrize("layer", ["forward_gru", "backward_gru", "cells", "gru"])
def test_weights_of_another_layer_are_a_difference(layer, names_file, monkeypatch):
    monkeypatch.setattr(*returning(_keras_by_name, "_folders", turned))
    assert_different(names_file, "--layer", f"inner/{layer}")


def test_a_layer_that_the_reader_does_not_list_is_a_difference(names_file, monkeypatch):
    shorter = returning(_keras_by_name, "entries_of", lambda entries: [*entries][:2])
    monkeypatch.setattr(*shorter)
    output = assert_different(names_file)
    assert "DIFFERENT: fastgru has not read it" in output


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_layers_without_a_config_are_said_not_to_be_compared(tmp_path, tensorflow):
    import keras

    layers = keras.layers

    @keras.saving.register_keras_serializable("faults")
    class Block(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.up, self.both = (
                layers.GRU(FEATURES, return_sequences=True),
                layers.Bidirectional(layers.GRU(2)),
            )

        def build(self, shape):
            self.up.build(shape)
            self.both.build(shape)

        def call(self, x):
            return self.both(self.up(x))

    x, path = keras.Input((None, FEATURES)), tmp_path / "model.keras"
    keras.Model(x, [Block(name="block")(x), layers.GRU(UNITS, name="plain")(x)]).save(path)
    status, output = invoke(path)
    assert status == 2
    assert output.count("equal but for rounding") == 1
    assert output.count("not compared: the file has its weights only") == 2
