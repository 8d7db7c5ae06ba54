"""NumPy: the equations as one would write them down, products of all inputs first."""

from __future__ import annotations

import numpy as np

from benchmarks.race.contenders.base import Contender, Function
from benchmarks.tasks import Array, Arrays, Task


class NumPy(Contender):
    name = "numpy"
    requirements = ()
    lacks = frozenset({"bidirectional"})

    @classmethod
    def packages(cls) -> tuple[str, ...]:
        return ("numpy",)

    def start(self, threads: int) -> None:
        pass  # its BLAS reads the number of threads from the environment

    def function(self, task: Task, arrays: Arrays) -> Function:
        _, _, mask, kernel, recurrent_kernel, bias = arrays
        units = task.shape.units
        x_bias, h_bias = bias if task.reset_after else (bias, 0)
        gates, candidate = recurrent_kernel[:, : 2 * units].copy(), recurrent_kernel[:, 2 * units :].copy()
        half, fifth = (np.array(number, task.dtype) for number in (0.5, 0.2))

        def f(x: Array) -> Array:
            if "hard_sigmoid" in task.needs:
                return np.clip(fifth * x + half, 0, 1)
            return half + half * np.tanh(half * x)

        def after(h: Array, xw: Array) -> Array:
            hu = h @ recurrent_kernel + h_bias
            zr = f(xw[:, : 2 * units] + hu[:, : 2 * units])
            z, r = zr[:, :units], zr[:, units:]
            new = np.tanh(xw[:, 2 * units :] + r * hu[:, 2 * units :])
            return new + z * (h - new)

        def before(h: Array, xw: Array) -> Array:
            zr = f(xw[:, : 2 * units] + h @ gates)
            z, r = zr[:, :units], zr[:, units:]
            new = np.tanh(xw[:, 2 * units :] + (r * h) @ candidate)
            return new + z * (h - new)

        advance = after if task.reset_after else before

        def run(x: Array, h: Array) -> tuple[Array, Array]:
            xw = x @ kernel + x_bias
            outputs = []
            for t in range(x.shape[1]):
                following = advance(h, xw[:, t])
                h = np.where(mask[:, t, np.newaxis], following, h) if task.masked else following
                outputs.append(h)
            return (np.stack(outputs, axis=1) if task.sequences else h), h

        return run
