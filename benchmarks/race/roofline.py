"""What this machine can do at best while the race is on: products per second, bytes per second."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.race.worker import cache_bytes
from benchmarks.tasks import Task
from fastgru import _roofline
from fastgru._roofline import Work


class Roofline(_roofline.Limits):
    """What the machine did at some moment, on all threads of the race together."""

    __slots__ = ()

    def microseconds(self, task: Task, itemsize: int) -> float:
        """The least that a call can take if its weights are numbers of so many bytes.

        Two directions take twice as long as one.
        """
        return (1 + task.bidirectional) * self.least(work(task, itemsize))


def work(task: Task, itemsize: int) -> Work:
    """One direction of a task, with weights of so many bytes."""
    return Work(*task.shape, np.dtype(task.dtype).itemsize, itemsize)


def step_bytes(task: Task, itemsize: int) -> int:
    """Weights that a step reads, in bytes."""
    return work(task, itemsize).bytes


class Meter:
    """Measures what can be done now.

    Parameters
    ----------
    threads : int
        So many at once, each on its part of the bytes.
    cold : bool
        Read from memory, whatever the caches hold.
    """

    def __init__(self, threads: int = 1, cold: bool = False) -> None:
        self._threads, self._cold = threads, cold

    def measure(self, sizes: Iterable[int]) -> Roofline:
        """What can be done now, with so many bytes each. MemoryError if there is too little memory."""
        sizes = sorted(set(sizes))
        parts = [-(-(2 * cache_bytes() if self._cold else size) // self._threads) for size in sizes]
        with ThreadPoolExecutor(self._threads) as pool:  # nothing that is timed holds the GIL
            found = [*pool.map(_roofline.measure, [parts] * self._threads)]
        bandwidths = [sum(limits.bandwidth[part] for limits in found) for part in parts]
        return Roofline(
            sum(limits.peak for limits in found),
            sum(limits.integer_peak for limits in found),
            found[0].lanes,
            float(np.mean([limits.clock for limits in found])),
            dict(zip(sizes, bandwidths, strict=True)),
        )
