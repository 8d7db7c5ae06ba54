"""PyTorch, eager: its layer as it is, on fastgru, and with its weights quantised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import NETWORKS, NetworkTask
from benchmarks.race.contenders.base import NUMPY, Contender, Function, NetworkFunction, steps_first
from benchmarks.tasks import Array, Arrays, Task


class Torch(Contender):
    name = "torch"
    # PyTorch's wheels for Linux on x86-64 bring CUDA with them, gigabytes of it, unless they are +cpu
    requirements = (
        NUMPY,
        "torch==2.13.0+cpu; sys_platform == 'linux' and platform_machine == 'x86_64'",
        "torch==2.13.0; sys_platform != 'linux' or platform_machine != 'x86_64'",
    )
    networks = True
    lacks = frozenset({"reset_before", "hard_sigmoid", "mask"})

    def start(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)

    def layer(self, task: Task, arrays: Arrays) -> Any:
        import torch

        def gates(weights: Array) -> Any:
            """Keras' columns z | r | h as torch's rows r | z | n."""
            z, r, h = np.split(weights, 3, axis=-1)
            return torch.nn.Parameter(torch.tensor(np.concatenate([r, z, h], axis=-1).T.copy()))

        dtype = getattr(torch, task.dtype)
        features, units = task.shape.features, task.shape.units
        layer = torch.nn.GRU(features, units, dtype=dtype, bidirectional=task.bidirectional).eval()
        kernels = {"weight_ih": arrays.kernel, "weight_hh": arrays.recurrent_kernel}
        biases = dict(zip(("bias_ih", "bias_hh"), arrays.bias, strict=True))
        for name, weights in (kernels | biases).items():
            for direction in ("", "_reverse")[: 1 + task.bidirectional]:
                setattr(layer, f"{name}_l0{direction}", gates(weights))
        return layer

    def function(self, task: Task, arrays: Arrays) -> Function:
        import torch

        layer = self.layer(task, arrays)

        @torch.inference_mode()
        def run(x: Any, state: Any) -> tuple[Any, Any]:
            y, state = layer(x, state.expand(2, -1, -1) if task.bidirectional else state)
            return (y if task.sequences else state[0]), state

        return run

    def tensor(self, array: Array) -> Any:
        import torch

        return torch.tensor(array[np.newaxis])  # states have an axis of layers

    def inputs(self, x: Array) -> Any:
        import torch

        return torch.tensor(steps_first(x))

    def outputs(self, y: Any) -> Array:
        array: Array = y.numpy()
        return array.swapaxes(0, 1) if array.ndim > 2 else array

    def network_tensor(self, array: Array) -> Any:
        import torch

        return torch.tensor(array)

    def network_states(self, task: NetworkTask) -> list[Array]:
        return [np.zeros((1, task.batch, units), task.dtype) for units in NETWORKS[task.name].units]

    def network_output(self, y: Any) -> Array:
        return y.numpy()

    def network_function(self, task: NetworkTask, files: Path) -> NetworkFunction:
        import torch

        from benchmarks.race.contenders.torch_networks import module

        with np.load(files.parent / "weights.npz") as arrays:
            network = module(task, [*arrays.values()])
        return torch.inference_mode()(network)


class TorchOnFastGRU(Torch):
    """The same module, with fastgru as its forward: what `fastgru.torch.optimize` makes of a program."""

    name = "torch+fastgru"
    home = "torch"
    networks = False
    peer = False

    def start(self, threads: int) -> None:
        super().start(threads)
        import fastgru

        fastgru.set_num_threads(threads)

    def layer(self, task: Task, arrays: Arrays) -> Any:
        import fastgru.torch

        return fastgru.torch.optimize(super().layer(task, arrays))


class TorchInt8(Torch):
    """Dynamically quantised: weights once, by the tensor; inputs and states at every step."""

    name = "torch-int8"
    home = "torch"
    networks = False
    weights_dtype = "int8"
    byte_factors = True
    limit = 0.2  # it only has to be the same layer
    lacks = Torch.lacks | {"float64", "bidirectional"}

    def layer(self, task: Task, arrays: Arrays) -> Any:
        import warnings

        import torch

        model = torch.nn.ModuleDict({"gru": super().layer(task, arrays)})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is said to move into a package of its own
            return torch.ao.quantization.quantize_dynamic(model, {torch.nn.GRU}, torch.qint8)["gru"]
