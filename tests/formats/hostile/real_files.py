"""Real files, written by the libraries whose formats fastgru reads, each in a process of its own.

As a program it is that process:

    python tests/formats/hostile/real_files.py WRITER FOLDER
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastgru


def tf_keras(folder):
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tf_keras

    of_keras(tf_keras, folder)


def keras3(folder):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    of_keras(keras, folder)


def of_keras(keras, folder):
    keras.utils.set_random_seed(0)
    both = keras.layers.Bidirectional(keras.layers.GRU(2, name="inner"), name="both")
    model = keras.Sequential(
        [keras.Input((None, 3)), keras.layers.GRU(4, return_sequences=True, name="first"), both]
    )
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    if keras.__version__.startswith("2"):
        model.save(folder / "model.h5")
        model.save_weights(folder / "weights.h5")


def torch(folder):
    import torch
    from safetensors.torch import save_file

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.voice = torch.nn.GRU(3, 4, num_layers=2, bidirectional=True)

        def forward(self, x):
            return self.voice(x)[0]

    torch.manual_seed(0)
    model = Model()
    state = model.voice.state_dict()
    torch.save(state, folder / "model.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "model": state, "optimizer": {"state": {0: {"step": 1.5}}}}, folder / "epoch.pt")
    torch.save(model.voice, folder / "module.pt")
    torch.jit.save(torch.jit.script(model), folder / "script.pt")
    save_file(state, folder / "model.safetensors")
    np.savez(folder / "state.npz", **{key: tensor.numpy() for key, tensor in state.items()})


def onnx(folder):
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)

    def tensor(name, *shape):
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Constant", [], ["B"], value=tensor("b", 1, 24)),
        helper.make_node("GRU", ["X", "W", "R", "B"], ["Y"], "first", hidden_size=4, linear_before_reset=1),
        helper.make_node("Squeeze", ["Y", "one"], ["S"]),
        helper.make_node(
            "GRU",
            ["S", "W2", "R2", "", "", "h"],
            ["Y2", "Y_h2"],
            "second",
            hidden_size=2,
            direction="bidirectional",
            activations=["HardSigmoid", "Tanh", "Sigmoid", "LeakyRelu"],
            activation_alpha=[0.2, 0.1],
            activation_beta=[0.5],
        ),
    ]
    tensors = [tensor("W", 1, 12, 3), tensor("R", 1, 12, 4), tensor("W2", 2, 6, 4), tensor("R2", 2, 6, 2)]
    tensors += [tensor("h", 2, 1, 2), numpy_helper.from_array(np.array([1]), "one")]
    inputs = [helper.make_tensor_value_info("X", 1, ["time", "batch", 3])]
    outputs = [helper.make_tensor_value_info(name, 1, None) for name in ("Y2", "Y_h2")]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    onnx.save(model, folder / "model.onnx")
    (folder / "external").mkdir()
    onnx.save(
        model,
        folder / "external" / "model.onnx",
        save_as_external_data=True,
        location="data",
        size_threshold=0,
    )


def folded(folder):
    """Weights and a state that nodes compute, in a function and out of it."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    values = {
        "q": rng.integers(-99, 99, (1, 12, 3), np.int8),
        "s": np.float32(0.01),
        "z": rng.normal(size=(4, 4)).astype(np.float32),
        "rh": rng.normal(size=(4, 8)).astype(np.float32),
        "h": rng.normal(size=(1, 4)).astype(np.float32),
        "0": np.array([0]),
        "1": np.array([1]),
        "2": np.array([2]),
        "4": np.array([4]),
    }
    node = helper.make_node
    inside = [
        node("GRU", ["X", "W", "R", "", "", "H"], ["Y"], hidden_size=4, linear_before_reset=1),
    ]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "Net", ["X", "W", "R", "H"], ["Y"], inside, opsets)
    nodes = [
        node("DequantizeLinear", ["q", "s"], ["W"]),
        node("Transpose", ["rh"], ["turned"], perm=[1, 0]),
        node("Concat", ["z", "turned"], ["whole"], axis=0),
        node("Unsqueeze", ["whole", "0"], ["R"]),
        node("Shape", ["X"], ["shape"]),
        node("Slice", ["shape", "1", "2"], ["batch"]),
        node("Concat", ["1", "batch", "1"], ["times"], axis=0),
        node("Unsqueeze", ["h", "0"], ["row"]),
        node("Tile", ["row", "times"], ["H"]),
        node("Net", ["X", "W", "R", "H"], ["Y"], "net", domain="own"),
        node("Squeeze", ["Y", "1"], ["S"]),
        node("ConstantOfShape", ["1"], ["zeros"]),
        node("GRU", ["S", "W2", "R", "", "", "H"], ["Y2", "Y_h"], "upper", hidden_size=4),
        node("Slice", ["R", "0", "4", "2"], ["W2"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("X", 1, ["time", "batch", 3])],
        [helper.make_tensor_value_info(name, 1, None) for name in ("Y2", "Y_h")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in values.items()],
    )
    opsets.append(helper.make_opsetid("own", 1))
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[function]), folder / "model.onnx")


def native(folder):
    rng = np.random.default_rng(0)

    def save(layer, name):
        layer.build((None, None, 3))
        layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
        layer.save(folder / name)

    layer = fastgru.GRU(4, activation="PReLU", kernel_initializer="he_normal", kernel_regularizer="l2")
    save(layer, "gru.npz")
    state = np.ones(2, np.float32)
    both = fastgru.Bidirectional(
        fastgru.GRU(2, activation={"class_name": "LeakyReLU", "config": {"alpha": 0.1}}, default_state=state)
    )
    save(both, "both.npz")
    below = fastgru.Bidirectional(fastgru.GRU(2, return_sequences=True))
    stack = fastgru.Stack([fastgru.GRU(3, return_sequences=True), below, fastgru.GRU(4, reset_after=True)])
    save(stack, "stack.npz")


WRITERS = {writer.__name__: writer for writer in (tf_keras, keras3, torch, onnx, folded, native)}
SIGMOID = {"recurrent_activation": "sigmoid", "reset_after": True}  # of files that hold weights alone


class RealFile(NamedTuple):
    """A file of a writer.

    Attributes
    ----------
    writer : str
    name : str
        In the writer's folder.
    arguments : dict
        Of `fastgru.load_all`.
    """

    writer: str
    name: str
    arguments: dict


FILES = {
    "tf_keras-h5": RealFile("tf_keras", "model.h5", {}),
    "tf_keras-h5-weights": RealFile("tf_keras", "weights.h5", SIGMOID),
    "tf_keras-keras": RealFile("tf_keras", "model.keras", {}),
    "tf_keras-weights-h5": RealFile("tf_keras", "model.weights.h5", SIGMOID),
    "keras3-keras": RealFile("keras3", "model.keras", {}),
    "keras3-weights-h5": RealFile("keras3", "model.weights.h5", SIGMOID),
    "torch-zip": RealFile("torch", "model.pt", {}),
    "torch-legacy": RealFile("torch", "legacy.pt", {}),
    "torch-checkpoint": RealFile("torch", "epoch.pt", {}),
    "torch-module": RealFile("torch", "module.pt", {}),
    "torch-script": RealFile("torch", "script.pt", {}),
    "safetensors": RealFile("torch", "model.safetensors", {}),
    "npz": RealFile("torch", "state.npz", {}),
    "onnx": RealFile("onnx", "model.onnx", {}),
    "onnx-external": RealFile("onnx", "external/model.onnx", {}),
    "onnx-folded": RealFile("folded", "model.onnx", {}),
    "native": RealFile("native", "gru.npz", {}),
    "native-bidirectional": RealFile("native", "both.npz", {}),
    "native-stack": RealFile("native", "stack.npz", {}),
}


def write(writer, folder):
    """Have a writer's files written to a folder by another process, which keeps its library to itself."""
    run = [sys.executable, __file__, writer, str(folder)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    WRITERS[sys.argv[1]](Path(sys.argv[2]))
