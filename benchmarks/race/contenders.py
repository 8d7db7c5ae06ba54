"""The contenders: one small class each, which makes a layer of its library ready to be called.

Workers import this under the contender's own Python: at the top nothing but NumPy, libraries where
they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from benchmarks.race.shapes import Array, Arrays, Task

Call = Callable[[], Array]

NUMPY = "numpy==2.4.6"
ONNX = "onnx==1.23.2"


class Contender:
    """Base of all contenders; the methods run in the contender's own process."""

    name: ClassVar[str]
    peer: ClassVar[bool] = True  # or is it fastgru itself?
    requirements: ClassVar[tuple[str, ...]] = ()  # for pip; without any it runs in this environment
    environment: ClassVar[Mapping[str, str]] = {}  # variables that its process gets
    weights_dtype: ClassVar[str | None] = None  # what its weights are rounded to, if not the layer's

    @classmethod
    def packages(cls) -> tuple[str, ...]:
        """Distributions whose versions are reported."""
        return tuple(requirement.partition("==")[0] for requirement in cls.requirements)

    def start(self) -> None:
        """Import the library, restrict it to one thread."""
        raise NotImplementedError

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        """The layer as a function without arguments, inputs and initial state converted already.

        It returns a NumPy array, which the next call may overwrite: (batch, timesteps, units), or
        (batch, units) of a single timestep.
        """
        raise NotImplementedError


class FastGRU(Contender):
    name = "fastgru"
    peer = False
    options: ClassVar[Mapping[str, Any]] = {}  # further arguments of the layer

    @classmethod
    def packages(cls) -> tuple[str, ...]:
        return ("fastgru", "numpy", "scipy")

    def start(self) -> None:
        import fastgru  # noqa: F401

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        import fastgru

        batch, timesteps, _, units = task.shape
        x, state, *weights = arrays
        layer = fastgru.GRU(
            units,
            recurrent_activation=task.recurrent_activation,
            return_sequences=task.sequences,
            reset_after=task.reset_after,
            dtype=task.dtype,
            weights=weights,
            **self.options,
        )
        layer.build(x.shape)
        out = np.empty((batch, timesteps, units) if task.sequences else (batch, units), task.dtype)
        return lambda: layer(x, initial_state=state, out=out)


class FastGRUHalf(FastGRU):
    name = "fastgru-f16"
    weights_dtype = "float16"
    options: ClassVar[Mapping[str, Any]] = {"weights_dtype": "float16"}


class FastGRUBlas(FastGRU):
    name = "fastgru-blas"
    environment: ClassVar[Mapping[str, str]] = {"FASTGRU_ENGINE": "blas"}


def onnx_model(task: Task, arrays: Arrays) -> bytes:
    """A graph of one GRU node: x (timesteps, batch, features) and h (1, batch, units) to y.

    y is (timesteps, 1, batch, units), or (1, batch, units) of a single timestep. Gates are z | r | h.
    """
    from onnx import TensorProto, helper, numpy_helper

    batch, timesteps, features, units = task.shape
    weights = {
        "W": arrays.kernel.T[np.newaxis],
        "R": arrays.recurrent_kernel.T[np.newaxis],
        "B": arrays.bias.reshape(1, -1),
    }
    outputs = ["y"] if task.sequences else ["", "y"]
    node = helper.make_node(
        "GRU", ["x", *weights, "", "h"], outputs, hidden_size=units, linear_before_reset=1
    )
    y_shape = (timesteps, 1, batch, units) if task.sequences else (1, batch, units)

    def value(name: str, shape: tuple[int, ...]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [node],
        "gru",
        [value("x", (timesteps, batch, features)), value("h", (1, batch, units))],
        [value("y", y_shape)],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def batch_major(y: Array) -> Array:
    """That graph's result as (batch, timesteps, units) or (batch, units), a view."""
    return y[0] if y.ndim == 3 else y[:, 0].swapaxes(0, 1)


def steps_first(x: Array) -> Array:
    """(batch, timesteps, features) as a contiguous (timesteps, batch, features)."""
    return np.ascontiguousarray(x.swapaxes(0, 1))


class OnnxRuntime(Contender):
    name = "onnxruntime"
    requirements = (NUMPY, "onnxruntime==1.32.0", ONNX)

    def start(self) -> None:
        import onnxruntime

        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = self.options.inter_op_num_threads = 1
        for kind in ("intra", "inter"):
            self.options.add_session_config_entry(f"session.{kind}_op.allow_spinning", "0")

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        import onnxruntime

        model = onnx_model(task, arrays)
        session = onnxruntime.InferenceSession(model, self.options, ["CPUExecutionProvider"])
        y = np.empty(session.get_outputs()[0].shape, task.dtype)
        binding = session.io_binding()
        binding.bind_cpu_input("x", steps_first(arrays.x))
        binding.bind_cpu_input("h", arrays.state[np.newaxis])
        binding.bind_output("y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)

        def call() -> Array:
            session.run_with_iobinding(binding)
            return batch_major(y)

        return call


class OpenVino(Contender):
    name = "openvino"
    requirements = (NUMPY, "openvino==2026.4.1", ONNX)

    def start(self) -> None:
        import openvino

        self.core = openvino.Core()
        self.config = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # or it stays on one core, whoever else is there
        }

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        model = self.core.read_model(onnx_model(task, arrays))
        request = self.core.compile_model(model, "CPU", self.config).create_infer_request()
        request.get_tensor("x").data[:] = steps_first(arrays.x)
        request.get_tensor("h").data[:] = arrays.state
        y = request.get_tensor("y").data

        def call() -> Array:
            request.infer(share_outputs=True)
            return batch_major(y)

        return call


class Torch(Contender):
    name = "torch"
    # PyTorch's wheels for Linux on x86-64 bring CUDA with them, gigabytes of it, unless they are +cpu
    requirements = (
        NUMPY,
        "torch==2.13.0+cpu; sys_platform == 'linux' and platform_machine == 'x86_64'",
        "torch==2.13.0; sys_platform != 'linux' or platform_machine != 'x86_64'",
    )

    def start(self) -> None:
        import torch

        torch.set_num_threads(1)
        torch.set_num_interop_threads(1)

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        import torch

        def gates(weights: Array) -> Any:
            """Keras' columns z | r | h as torch's rows r | z | n."""
            z, r, h = np.split(weights, 3, axis=-1)
            return torch.nn.Parameter(torch.tensor(np.concatenate([r, z, h], axis=-1).T.copy()))

        layer = torch.nn.GRU(task.shape.features, task.shape.units).eval()
        layer.weight_ih_l0, layer.weight_hh_l0 = gates(arrays.kernel), gates(arrays.recurrent_kernel)
        layer.bias_ih_l0, layer.bias_hh_l0 = gates(arrays.bias[0]), gates(arrays.bias[1])
        x, state = torch.tensor(steps_first(arrays.x)), torch.tensor(arrays.state[np.newaxis])

        @torch.inference_mode()
        def call() -> Array:
            return layer(x, state)[0].numpy().swapaxes(0, 1)

        return call


class Jax(Contender):
    name = "jax"
    requirements = (NUMPY, "jax==0.10.2", "jaxlib==0.10.2")
    environment: ClassVar[Mapping[str, str]] = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }

    def start(self) -> None:
        import jax

        jax.config.update("jax_cpu_enable_async_dispatch", False)

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        import jax
        from jax import lax
        from jax import numpy as jnp

        x, state, kernel, recurrent_kernel, bias = map(jnp.asarray, arrays)
        x = x.swapaxes(0, 1)

        def step(h: Any, xw: Any) -> tuple[Any, Any]:
            xz, xr, xh = jnp.split(xw, 3, axis=-1)
            hz, hr, hh = jnp.split(h @ recurrent_kernel + bias[1], 3, axis=-1)
            z, r = jax.nn.sigmoid(xz + hz), jax.nn.sigmoid(xr + hr)
            h = z * h + (1 - z) * jnp.tanh(xh + r * hh)
            return h, h

        @jax.jit
        def run(x: Any, state: Any) -> Any:
            return lax.scan(step, state, x @ kernel + bias[0])[1]

        return lambda: np.asarray(run(x, state)).swapaxes(0, 1)


class TfKeras(Contender):
    name = "tf_keras"
    requirements = (NUMPY, "tensorflow-cpu==2.21.0", "tf-keras==2.21.0")
    environment: ClassVar[Mapping[str, str]] = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

    def start(self) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        import tensorflow as tf

        x, state, *weights = arrays
        layer = tf.compat.v1.keras.layers.GRU(
            task.shape.units,
            recurrent_activation=task.recurrent_activation,
            return_sequences=task.sequences,
            reset_after=task.reset_after,
            dtype=task.dtype,
        )
        layer.build(x.shape)
        layer.set_weights(weights)
        function = tf.function(lambda x, state: layer(x, initial_state=state))
        x, state = tf.constant(x), tf.constant(state)
        return lambda: function(x, state).numpy()


ALL: tuple[type[Contender], ...] = (
    FastGRU,
    FastGRUHalf,
    FastGRUBlas,
    OnnxRuntime,
    OpenVino,
    Torch,
    Jax,
    TfKeras,
)
