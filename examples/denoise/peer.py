"""The same model file under onnxruntime, for comparison: the whole file at once, and frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from audio import BINS, Floats

INITIAL_H = 5  # place of the state before the first step among the inputs of an ONNX GRU
Y_H = 1  # place of the state after the last step among its outputs


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def whole_file(path: Path, features: Floats) -> Floats:
    """Gains of all frames from one run of the model.

    Parameters
    ----------
    features : ndarray of float32, shape (channels, frames, 161)

    Returns
    -------
    ndarray of float32, shape (channels, frames, 161)
    """
    return _session(path.read_bytes()).run(None, {"input": features})[0]


class OnnxRuntime:
    """The model with the states of its GRU layers as inputs and outputs: a frame at a time, one thread.

    Inputs and outputs are bound to their buffers ahead, and there are two sets of states, read and
    written in turns: no step allocates or copies a state. Faster than arrays in and out of `run`.

    Parameters
    ----------
    path : Path
        The ONNX file.
    channels : int
    """

    def __init__(self, path: Path, channels: int) -> None:
        model = onnx.load(path)
        grus = [node for node in model.graph.node if node.op_type == "GRU"]
        states = []
        for i, node in enumerate(grus):
            (units,) = (attribute.i for attribute in node.attribute if attribute.name == "hidden_size")
            shape = (1, channels, units)
            node.input[INITIAL_H], node.output[Y_H] = f"before_{i}", f"after_{i}"
            for ends, name in (model.graph.input, f"before_{i}"), (model.graph.output, f"after_{i}"):
                ends.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
            states.append((_zeros(shape), _zeros(shape)))

        self._session = _session(model.SerializeToString())
        self._features = _zeros((channels, 1, BINS))
        self._gains = _zeros((channels, 1, BINS))
        self._bindings = []
        for before, after in (0, 1), (1, 0):
            binding = self._session.io_binding()
            binding.bind_ortvalue_input("input", self._features)
            binding.bind_ortvalue_output("output", self._gains)
            for i, state in enumerate(states):
                binding.bind_ortvalue_input(f"before_{i}", state[before])
                binding.bind_ortvalue_output(f"after_{i}", state[after])
            self._bindings.append(binding)
        # A first run, as in NSNet2; it reads the first set of states and leaves it as it is: zero.
        self._session.run_with_iobinding(self._bindings[0])

    def step(self, features: Floats) -> Floats:
        """Gains of the next frame, shape (channels, 161) in and out."""
        self._features.update_inplace(features[:, np.newaxis])
        self._session.run_with_iobinding(self._bindings[0])
        self._bindings.reverse()
        return self._gains.numpy()[:, 0]


def _zeros(shape: tuple[int, ...]) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
