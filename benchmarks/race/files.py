"""The files of the models that are raced: made once by Keras and its converters, in their own environment.

    python -m benchmarks.race.files FOLDER NSNET2 '[["precise", 1, 29, false], ...]'

    NAME/model.keras, model.h5              the model for whole sequences, of Keras 3 and tf_keras
    NAME/weights.npz                        its weights, in the order of `networks.weighted`
    NAME/SHAPE/model.onnx                   converted by tf2onnx for calls of this shape
    NAME/SHAPE/step.keras, step.h5          of a stream: a step, states are inputs and outputs
    NAME/SHAPE/inputs.npz, exact.npy        what it is given, and what Keras makes of that in float64

NSNet2 is the ONNX file that its authors publish; its weights are read from that.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks import networks
from benchmarks.networks import NETWORKS, NetworkTask
from benchmarks.race import peers
from benchmarks.race.contenders.base import NUMPY, Contender
from benchmarks.race.process import ROOT, RaceError
from benchmarks.race.worker import STEPS
from benchmarks.tasks import FRAMES, Array

OPSET = 17
DENOISER = ROOT / "examples" / "denoise"  # whose program fetches the file of NSNet2
LENGTHS, INITIAL_H, Y_H = 4, 5, 1  # places among the inputs and outputs of an ONNX GRU


class Maker(Contender):
    """Takes part in no heat: its environment has what makes the files."""

    name = "models"
    requirements = (
        NUMPY,
        "tensorflow-cpu==2.21.0",
        "tf-keras==2.21.0",
        "keras==3.15.1",
        "tf2onnx==1.17.0",
        "onnx==1.23.2",
    )
    variables: ClassVar[dict[str, str]] = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}


def folder_of(task: NetworkTask, folder: Path) -> Path:
    """Where the files of a task are, in the folder of all."""
    return folder / task.name / f"{task.shape}{'-stream' * task.stream}"


def made(tasks: Sequence[NetworkTask], parent: Path = peers.PEERS) -> Path:
    """The folder of all files, with those of these tasks; RaceError if they cannot be made."""
    sources = "".join(file.read_text() for file in (Path(__file__), Path(networks.__file__)))
    told = hashlib.sha256("\n".join([sources, *Maker.requirements]).encode()).hexdigest()[:16]
    folder = parent / f"files-{told}"
    missing = [task for task in tasks if not (folder_of(task, folder) / "exact.npy").exists()]
    if missing:
        print(f"making the files of {len(missing)} models in {folder}, once", file=sys.stderr, flush=True)
        python = peers.python(Maker, parent)
        _run([python, "-m", "benchmarks.race.files", folder, _nsnet2(missing), json.dumps(missing)], ROOT)
    return folder


def _nsnet2(tasks: Sequence[NetworkTask]) -> str:
    """The file of NSNet2, if a task needs it."""
    if not any(task.name == "nsnet2" for task in tasks):
        return ""
    return _run([sys.executable, "-c", "import nsnet2; print(nsnet2.model_file())"], DENOISER).split("\n")[-2]


def _run(command: Sequence[str | Path], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **Maker.variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RaceError(f"no files of models: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
    return done.stdout


# ---- in the environment that has Keras -------------------------------------------------------------


def make(task: NetworkTask, folder: Path, nsnet2: str) -> None:
    """All files of a task; `exact.npy` last."""
    import keras
    import tf_keras

    here, network = folder_of(task, folder), NETWORKS[task.name]
    here.mkdir(parents=True, exist_ok=True)
    steps = 1 if task.stream else task.timesteps
    models = {flavour: networks.whole(flavour, task.name) for flavour in (keras, tf_keras)}
    shapes = [tuple(w.shape) for layer in networks.weighted(models[keras]) for w in layer.weights]
    weights = read_nsnet2(nsnet2) if task.name == "nsnet2" else networks.draw(shapes)
    for flavour, ending in ((keras, "keras"), (tf_keras, "h5")):
        save(models[flavour], weights, folder / task.name / f"model.{ending}")
        if task.stream:
            save(networks.step(flavour, task.name, task.batch), weights, here / f"step.{ending}")
    np.savez(folder / task.name / "weights.npz", *weights)
    if task.name == "nsnet2":
        fix_nsnet2(nsnet2, task, here / "model.onnx")
        Path(folder / task.name / "model.onnx").write_bytes(Path(nsnet2).read_bytes())
    elif task.stream:
        convert(set_weights(networks.step(tf_keras, task.name, task.batch), weights), here / "model.onnx")
    else:
        plain = networks.whole(tf_keras, task.name, task.batch, steps)
        convert(set_weights(plain, weights), here / "model.onnx", padded=network.padded and task.batch > 1)
    inputs = task.inputs()
    np.savez(here / "inputs.npz", *inputs)
    np.save(here / "exact.npy", exact(task, weights, inputs))


def set_weights(model: Any, weights: Sequence[Array]) -> Any:
    left = list(weights)
    for layer in networks.weighted(model):
        layer.set_weights([left.pop(0) for _ in layer.weights])
    return model


def save(model: Any, weights: Sequence[Array], file: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # HDF5 is said to be of the past
        set_weights(model, weights).save(file)


def exact(task: NetworkTask, weights: Sequence[Array], inputs: Sequence[Array]) -> Array:
    """What Keras returns in float64; of a stream the outputs of its first steps, (batch, STEPS, ...)."""
    import keras

    use_dtype(keras, "float64")
    try:
        arrays = [array.astype("float64") if array.ndim > 2 else array for array in inputs]
        if not task.stream:
            model = set_weights(networks.whole(keras, task.name), weights)
            return np.asarray(model(arrays if len(arrays) > 1 else arrays[0]))
        model = set_weights(networks.step(keras, task.name, task.batch), weights)
        states = [np.zeros(tensor.shape) for tensor in model.inputs[1:]]
        found = []
        for t in range(STEPS):
            y, *states = map(np.asarray, model([arrays[0][:, t % FRAMES : t % FRAMES + 1], *states]))
            found.append(y)
        return np.stack(found, axis=1)
    finally:
        use_dtype(keras, "float32")


def use_dtype(keras: Any, dtype: str) -> None:
    """Of the layers that are made from now on."""
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)


def convert(model: Any, file: Path, padded: bool = False) -> None:
    """A model of tf_keras as ONNX."""
    import tensorflow as tf
    import tf2onnx

    for layer in model.layers:  # of masks tf2onnx makes a Loop: better a GRU node, if need be with lengths
        layer.mask_zero = False
    signature = [tf.TensorSpec(one.shape, one.dtype, name=f"x{i}") for i, one in enumerate(model.inputs)]
    function = tf.function(
        lambda *inputs: model([*inputs] if len(inputs) > 1 else inputs[0]), input_signature=signature
    )
    converted, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    if padded:
        give_lengths(converted)
    file.write_bytes(converted.SerializeToString())


def give_lengths(model: Any) -> None:
    """Count the words of each row that are no padding, for the GRU nodes of a graph."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int32), "padding"))
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    counted = [
        helper.make_node("Equal", [graph.input[0].name, "padding"], ["is padding"]),
        helper.make_node("Not", ["is padding"], ["is word"]),
        helper.make_node("Cast", ["is word"], ["words"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["words", "axis"], ["lengths"], keepdims=0),
    ]
    for number, node in enumerate(counted):
        graph.node.insert(number, node)
    gru = next(node for node in graph.node if node.op_type == "GRU")
    gru.input.extend([""] * (INITIAL_H - len(gru.input)))
    gru.input[LENGTHS] = "lengths"
    gru.output.extend([""] * (1 + Y_H - len(gru.output)))
    gru.output[Y_H] = "last"  # the states, not the outputs of the last step
    place, joined = next((i, node) for i, node in enumerate(graph.node) if node.op_type == "Concat")
    graph.initializer.append(numpy_helper.from_array(np.array([0, -1], np.int64), "rows"))
    graph.node.remove(joined)
    last = [
        helper.make_node("Transpose", ["last"], ["last of rows"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["last of rows", "rows"], [*joined.output]),
    ]
    for number, node in enumerate(last):
        graph.node.insert(place + number, node)


def read_nsnet2(path: str) -> list[Array]:
    """The weights of NSNet2's file as Keras has them."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    value = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found: list[Array] = []
    for node in graph.node:
        if node.op_type in ("MatMul", "Add"):
            found.append(value[node.input[1]])
        elif node.op_type == "GRU":
            kernel, recurrent, bias = (value[name][0] for name in node.input[1:4])
            found += [kernel.T, recurrent.T, bias.reshape(2, -1)]
    return found


def fix_nsnet2(path: str, task: NetworkTask, file: Path) -> None:
    """NSNet2's file with sizes, and of a stream with the states of its GRUs as inputs and outputs."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    steps = 1 if task.stream else task.timesteps
    for value in (*graph.input, *graph.output):
        for size, dimension in zip((task.batch, steps), value.type.tensor_type.shape.dim, strict=False):
            dimension.dim_value = size
    if task.stream:
        for i, node in enumerate(node for node in graph.node if node.op_type == "GRU"):
            units = next(attribute.i for attribute in node.attribute if attribute.name == "hidden_size")
            node.input[INITIAL_H], node.output[Y_H] = f"before_{i}", f"after_{i}"
            for ends, name in (graph.input, f"before_{i}"), (graph.output, f"after_{i}"):
                shape = (1, task.batch, units)
                ends.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    file.write_bytes(model.SerializeToString())


def main() -> None:
    folder, nsnet2, tasks = sys.argv[1:]
    for task in json.loads(tasks):
        make(NetworkTask(*task), Path(folder), nsnet2)


if __name__ == "__main__":
    main()
