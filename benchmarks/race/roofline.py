"""What this machine can do at best, measured by a small C program: products per second, bytes per second."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

import numpy as np

from benchmarks.race.process import RaceError
from benchmarks.race.worker import cache_bytes
from benchmarks.tasks import Task

SOURCE = Path(__file__).with_name("roofline.c")

# Cycles of three activations and the update of a float32 state, by lanes of a vector, and of one unit's chain
# from its last product to its state. Counted, not measured: about 50 instructions a vector and two divisions;
# an exponential, a division, an exponential, a division one after the other.
GATES = {16: 2.0, 8: 4.0, 4: 8.0}
CHAIN = 180.0


class Roofline(NamedTuple):
    """What the machine did at some moment, on all threads of the race together."""

    peak: float  # GFLOP/s of fused multiply-adds on float32
    lanes: int  # floats in a vector
    clock: float  # GHz, of one core
    bandwidth: dict[int, float]  # bytes that are read over and over: GB/s

    def microseconds(self, task: Task, itemsize: int) -> float:
        """The least that a call can take if its weights are numbers of so many bytes.

            step = max(bytes / bandwidth, operations / peak) + gates + chain
            call = timesteps * step + operations of x.kernel / peak, if that is done ahead

        A single step reads both kernels, one of many the recurrent kernel. Two directions take twice as long.
        """
        batch, timesteps, features, units = task.shape
        rate = 1 if task.dtype == "float32" else 0.5  # of what a vector holds
        width = units + features if timesteps == 1 else units
        size = step_bytes(task, itemsize)
        streaming = 1e-3 * size / self.bandwidth[size]
        products = 1e-3 * 6 * batch * units * width / (rate * self.peak)
        cores = self.peak / (4 * self.lanes * self.clock)
        gates = 1e-3 * GATES[self.lanes] * batch * units / (rate * self.clock * cores)
        step = max(streaming, products) + gates + 1e-3 * CHAIN / self.clock
        ahead = 0 if timesteps == 1 else 6 * batch * timesteps * units * features
        return (1 + task.bidirectional) * (timesteps * step + 1e-3 * ahead / (rate * self.peak))


def step_bytes(task: Task, itemsize: int) -> int:
    """Weights that a step reads, in bytes."""
    units = task.shape.units
    return itemsize * (task.shape.weights if task.shape.timesteps == 1 else 3 * units * units)


class Meter:
    """The compiled program. RaceError without a compiler.

    Parameters
    ----------
    threads : int
        So many of it run at once, each on its part of the bytes.
    cold : bool
        Read from memory, whatever the caches hold.
    """

    def __init__(self, threads: int = 1, cold: bool = False) -> None:
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            raise RaceError("there is no C compiler")
        self._threads, self._cold = threads, cold
        with ExitStack() as stack:
            self._program = Path(stack.enter_context(TemporaryDirectory()), "roofline")
            command = [compiler, "-O2", "-march=native", SOURCE, "-o", self._program]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RaceError(f"{Path(compiler).name} failed: {done.stderr.strip()}")
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, sizes: Iterable[int]) -> Roofline:
        """What can be done now, with so many bytes each."""
        sizes = sorted(set(sizes))
        read = [2 * cache_bytes() if self._cold else size for size in sizes]
        command = [self._program, *(str(-(-size // self._threads)) for size in read)]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(self._threads)]
        outputs = [process.communicate()[0].split() for process in running]
        if any(process.returncode for process in running):
            raise RaceError("there is too little memory to measure bandwidth")
        figures = np.array(outputs, float)
        peak, *bandwidths = map(float, figures[:, [0, *range(3, figures.shape[1])]].sum(0))
        lanes, clock = int(figures[0, 1]), float(figures[:, 2].mean())
        return Roofline(peak, lanes, clock, dict(zip(sizes, bandwidths, strict=True)))
