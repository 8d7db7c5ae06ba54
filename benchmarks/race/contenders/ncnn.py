"""ncnn: one row; its kernels for the GRU are those of ARM and RISC-V, elsewhere it is plain C++."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.race.contenders.base import NUMPY, Contender, Function
from benchmarks.tasks import Array, Arrays, Task

GRAPH = """7767517
3 3
Input x 0 1 x
Input h 0 1 h
GRU gru 2 1 x h y 0={units} 1={weights}
"""


class Ncnn(Contender):
    name = "ncnn"
    requirements = (NUMPY, "ncnn==1.0.20260526")
    lacks = frozenset({"batch", "float64", "reset_before", "hard_sigmoid", "mask", "bidirectional"})

    def start(self, threads: int) -> None:
        import ncnn  # noqa: F401

        self.threads = threads
        self.arrays: list[Array] = []  # Mats do not keep theirs

    def function(self, task: Task, arrays: Arrays) -> Function:
        import ncnn

        net = ncnn.Net()
        net.opt.num_threads = self.threads
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_packed = net.opt.use_bf16_storage = False
        graph = GRAPH.format(units=task.shape.units, weights=arrays.kernel.size)
        if net.load_param_mem(graph):
            raise RuntimeError("ncnn does not take the graph")
        net.load_model_mem(_weights(arrays))  # it does not say if it failed

        def run(x: Any, state: Any) -> tuple[Any, Any]:
            extractor, y = net.create_extractor(), ncnn.Mat()
            extractor.input("x", x)
            extractor.input("h", state)
            if extractor.extract("y", y):
                raise RuntimeError("ncnn has no result")
            return y, y  # a stream's outputs are its states

        return run

    def tensor(self, array: Array) -> Any:
        import ncnn

        self.arrays.append(array)
        return ncnn.Mat(array[0])

    def outputs(self, y: Any) -> Array:
        return np.array(y)[np.newaxis]


def _weights(arrays: Arrays) -> bytes:
    """The file of weights: kernel, biases, recurrent kernel, a tag before each; rows r | z | h."""

    def gates(weights: Array) -> Array:
        z, r, h = np.split(weights, 3, axis=-1)
        return np.concatenate([r, z, h], axis=-1).T

    (xz, xr, xh), (hz, hr, hh) = (np.split(bias, 3) for bias in arrays.bias)
    blobs = (gates(arrays.kernel), np.stack([xr + hr, xz + hz, xh, hh]), gates(arrays.recurrent_kernel))
    return b"".join(b"\0\0\0\0" + np.ascontiguousarray(blob, "<f4").tobytes() for blob in blobs)
