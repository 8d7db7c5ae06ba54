"""The runtimes of ONNX: a graph of one GRU node, or a model's file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from benchmarks.networks import NetworkTask
from benchmarks.race.contenders.base import (
    NUMPY,
    Call,
    Contender,
    NetworkFunction,
    frames,
    network_frames,
    steps_first,
)
from benchmarks.tasks import Array, Arrays, Task

ONNX = "onnx==1.23.2"


def onnx_model(task: Task, arrays: Arrays) -> bytes:
    """x (timesteps, batch, features) and h (directions, batch, units) to y, in a stream the next h.

    y is (timesteps, directions, batch, units), or (1, batch, units) if it is not all outputs: then it is
    the last state. Gates are z | r | h.
    """
    from onnx import TensorProto, helper, numpy_helper

    batch, timesteps, features, units = task.shape
    bias = arrays.bias if task.reset_after else np.stack([arrays.bias, 0 * arrays.bias])
    constants = {
        "W": arrays.kernel.T[np.newaxis],
        "R": arrays.recurrent_kernel.T[np.newaxis],
        "B": bias.reshape(1, -1),
    }
    directions = 1 + task.bidirectional
    constants = {name: np.repeat(array, directions, axis=0) for name, array in constants.items()}
    if task.masked:
        constants["lengths"] = arrays.lengths.astype(np.int32)
    names = {"sigmoid": "Sigmoid", "hard_sigmoid": "HardSigmoid"}
    node = helper.make_node(
        "GRU",
        ["x", "W", "R", "B", "lengths" if task.masked else "", "h"],
        ["y"] if task.sequences else ["", "y"],
        hidden_size=units,
        linear_before_reset=int(task.reset_after),
        direction="bidirectional" if task.bidirectional else "forward",
        activations=[names[task.recurrent_activation], "Tanh"] * directions,
    )
    state_shape = (directions, batch, units)

    def value(name: str, shape: tuple[int, ...]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [node],
        "gru",
        [value("x", (timesteps, batch, features)), value("h", state_shape)],
        [value("y", (timesteps, directions, batch, units) if task.sequences else state_shape)],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def first_state(task: Task, arrays: Arrays) -> Array:
    """That graph's h."""
    return np.repeat(arrays.state[np.newaxis], 1 + task.bidirectional, axis=0)


def outputs(y: Array) -> Array:
    """That graph's y as (batch, timesteps, units), (batch, timesteps, 2, units) or (batch, units), a view."""
    if y.ndim == 3:
        return y[0]
    return y[:, 0].swapaxes(0, 1) if y.shape[1] == 1 else y.transpose(2, 0, 1, 3)


class OnnxRuntime(Contender):
    """Called as its users call it."""

    name = "onnxruntime"
    requirements = (NUMPY, "onnxruntime==1.32.0", ONNX)
    networks = True
    lacks = frozenset({"float64"})

    def start(self, threads: int) -> None:
        import onnxruntime

        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads, self.options.inter_op_num_threads = threads, 1
        for kind in ("intra", "inter"):
            self.options.add_session_config_entry(f"session.{kind}_op.allow_spinning", "0")

    def session(self, task: Task, arrays: Arrays) -> Any:
        import onnxruntime

        model = onnx_model(task, arrays)
        return onnxruntime.InferenceSession(model, self.options, ["CPUExecutionProvider"])

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        session, state = self.session(task, arrays), first_state(task, arrays)
        x = steps_first(arrays.x)
        inputs = itertools.cycle([steps_first(frame) for frame in frames(arrays)])

        def call() -> Array:
            [y] = session.run(None, {"x": x, "h": state})
            return outputs(y)

        def step() -> Array:
            nonlocal state
            [state] = session.run(None, {"x": next(inputs), "h": state})
            return outputs(state)

        return step if task.stream else call

    def network_session(self, files: Path) -> Any:
        import onnxruntime

        return onnxruntime.InferenceSession(files / "model.onnx", self.options, ["CPUExecutionProvider"])

    def network_function(self, task: NetworkTask, files: Path) -> NetworkFunction:
        session = self.network_session(files)
        names = [given.name for given in session.get_inputs()]
        self.state_shapes = [given.shape for given in session.get_inputs()][1:] * task.stream

        def run(inputs: Sequence[Array], states: Sequence[Array]) -> tuple[Array, Sequence[Array]]:
            y, *states = session.run(None, dict(zip(names, (*inputs, *states), strict=True)))
            return y, states

        return run

    def network_states(self, task: NetworkTask) -> list[Array]:
        return [np.zeros(shape, task.dtype) for shape in self.state_shapes]


class OnnxRuntimeBound(OnnxRuntime):
    """Its inputs and outputs bound to memory once, which takes less time, and a program around it."""

    name = "onnxruntime-bound"
    home = "onnxruntime"

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        session = self.session(task, arrays)

        def bound(*arrays: Array) -> tuple[Any, tuple[Array, ...]]:
            binding = session.io_binding()  # of addresses: the arrays are kept with it
            bind = (binding.bind_input, binding.bind_input, binding.bind_output)
            for name, array, to in zip("xhy", arrays, bind, strict=True):
                to(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            return binding, arrays

        state = first_state(task, arrays)
        y = np.empty(session.get_outputs()[0].shape, task.dtype)
        if task.stream:  # a step reads what the one before wrote; the number of frames is even
            states = itertools.cycle([(state, y), (y, state)])
            turns = [bound(steps_first(frame), *next(states)) for frame in frames(arrays)]
        else:
            turns = [bound(steps_first(arrays.x), state, y)]
        in_turn = itertools.cycle(turns)

        def call() -> Array:
            binding, (_, _, y) = next(in_turn)
            session.run_with_iobinding(binding)
            return outputs(y)

        return call

    def prepare_network(self, task: NetworkTask, files: Path, inputs: Sequence[Array]) -> Call:
        session = self.network_session(files)
        y, *after = [np.zeros(made.shape, task.dtype) for made in session.get_outputs()]
        before = [np.zeros_like(state) for state in after]

        def bound(given: Sequence[Array], results: Sequence[Array]) -> Any:
            binding = session.io_binding()  # of addresses: the arrays are kept with it
            for value, array in zip(session.get_inputs(), given, strict=True):
                binding.bind_input(value.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            for value, array in zip(session.get_outputs(), results, strict=True):
                binding.bind_output(value.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            return binding, given, results

        if task.stream:
            states = itertools.cycle([(before, after), (after, before)])
            turns = []
            for frame, (read, written) in zip(network_frames(inputs), states, strict=False):
                turns.append(bound((frame, *read), (y, *written)))
        else:
            turns = [bound(inputs, (y,))]
        in_turn = itertools.cycle(turns)

        def call() -> Array:
            session.run_with_iobinding(next(in_turn)[0])
            return y

        return call


class OpenVino(Contender):
    name = "openvino"
    requirements = (NUMPY, "openvino==2026.4.1", ONNX)
    networks = True
    lacks = frozenset({"float64", "hard_sigmoid", "mask"})

    def start(self, threads: int) -> None:
        import openvino

        self.core = openvino.Core()
        self.config = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # or it stays on one core, whoever else is there
        }

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        model = self.core.read_model(onnx_model(task, arrays))
        request = self.core.compile_model(model, "CPU", self.config).create_infer_request()
        x, state, y = (request.get_tensor(name).data for name in ("x", "h", "y"))
        x[:], state[:] = steps_first(arrays.x[:, : x.shape[0]]), arrays.state

        def call() -> Array:
            request.infer(share_outputs=True)
            return outputs(y)

        inputs = itertools.cycle([steps_first(frame) for frame in frames(arrays)])

        def step() -> Array:  # copying takes less time than other tensors for each call
            x[:] = next(inputs)
            request.infer(share_outputs=True)
            state[:] = y
            return outputs(y)

        return step if task.stream else call

    def prepare_network(self, task: NetworkTask, files: Path, inputs: Sequence[Array]) -> Call:
        model = self.core.read_model(files / "model.onnx")
        request = self.core.compile_model(model, "CPU", self.config).create_infer_request()
        x, *states = (request.get_input_tensor(i).data for i in range(len(model.inputs)))
        y, *following = (request.get_output_tensor(i).data for i in range(len(model.outputs)))
        if not task.stream:
            for tensor, array in zip((x, *states), inputs, strict=True):
                tensor[:] = array

            def call() -> Array:
                request.infer(share_outputs=True)
                return y

            return call
        turns = itertools.cycle(network_frames(inputs))
        for state in states:
            state[:] = 0

        def step() -> Array:
            x[:] = next(turns)
            request.infer(share_outputs=True)
            for state, after in zip(states, following, strict=True):
                state[:] = after
            return y

        return step


class Tract(Contender):
    """Sonos' runtime: it copies what it is given and what it returns."""

    name = "tract"
    requirements = (NUMPY, "tract==0.23.9", ONNX)
    variables: ClassVar[Mapping[str, str]] = {"RUST_BACKTRACE": "0"}  # errors without a hundred lines
    networks = True
    lacks = frozenset({"float64", "hard_sigmoid", "mask"})

    def start(self, threads: int) -> None:
        import tract  # noqa: F401 - it computes on the thread that calls it

    def model(self, file: Path) -> Any:
        import tract

        return tract.onnx().load(file).into_model().into_runnable()

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "gru.onnx"
            file.write_bytes(onnx_model(task, arrays))
            model = self.model(file)
        state = first_state(task, arrays)
        x = steps_first(arrays.x)
        inputs = itertools.cycle([steps_first(frame) for frame in frames(arrays)])

        def call() -> Array:
            [y] = model.run([x, state])
            return outputs(y.to_numpy())

        def step() -> Array:
            nonlocal state
            [y] = model.run([next(inputs), state])
            state = y.to_numpy()
            return outputs(state)

        return step if task.stream else call

    def network_function(self, task: NetworkTask, files: Path) -> NetworkFunction:
        model = self.model(files / "model.onnx")
        self.state_shapes = [
            [int(size) for size in model.input_fact(i).dims()] for i in range(1, model.input_count())
        ]

        def run(inputs: Sequence[Array], states: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
            y, *states = model.run([*inputs, *states])
            return y, states

        return run

    def network_states(self, task: NetworkTask) -> list[Array]:
        return [np.zeros(shape, task.dtype) for shape in self.state_shapes]

    def network_output(self, y: Any) -> Array:
        return y.to_numpy()
