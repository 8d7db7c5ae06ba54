"""What a core of this machine can do at best, and the least time that a GRU takes of it."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from fastgru import _kernels

MILLISECONDS = 4  # of each measurement
OPERATIONS = 4_000_000  # of a run, so that calling it does not count
BYTES = 1_000_000  # that a run reads, at least
LINE, BLOCK = 64, 12 * 64  # of the cache; whole blocks of every instruction set

# Cycles of three activations and the update of a float32 state, by lanes of a vector, and of one unit's chain
# from its last product to its state. Counted, not measured: about 50 instructions a vector and two divisions;
# an exponential, a division, an exponential, a division one after the other.
GATES = {16: 2.0, 8: 4.0, 4: 8.0, 1: 32.0}
CHAIN = 180.0


class Work(NamedTuple):
    """A GRU and how it is called."""

    batch: int
    timesteps: int
    features: int
    units: int
    itemsize: int = 4  # bytes of a number that is computed with: 4 or 8
    weight_itemsize: int = 4  # and of a weight

    @property
    def bytes(self) -> int:
        """Bytes of weights that a step reads: a single step both kernels, one of many the recurrent one."""
        rows = self.units + (self.features if self.timesteps == 1 else 0)
        return 3 * self.units * rows * self.weight_itemsize


class Limits(NamedTuple):
    """The limits of the machine, as measured at one moment."""

    peak: float  # GFLOP/s of fused multiply-adds on float32
    integer_peak: float  # the same of int8 weights and 16-bit integers
    lanes: int  # floats in a vector
    clock: float  # GHz, of one core
    bandwidth: dict[int, float]  # bytes that are read over and over: GB/s

    def least(self, work: Work, resident: int | None = None) -> float:
        """The least microseconds that a call can take.

            step = max(bytes / bandwidth, operations / peak) + gates + chain
            call = timesteps * step + operations of x.kernel / peak, if that is done ahead

        where the peak is that of integers if a weight is a byte.

        Parameters
        ----------
        work : Work
        resident : int, optional
            A key of `bandwidth`: bytes that are read before the same ones come again; by default the work's.
        """
        batch, timesteps, features, units = work[:4]
        rate = 4 / work.itemsize  # of what a vector holds
        peak = self.integer_peak if work.weight_itemsize == 1 else rate * self.peak
        width = units + features if timesteps == 1 else units
        streaming = 1e-3 * work.bytes / self.bandwidth[work.bytes if resident is None else resident]
        products = 1e-3 * 6 * batch * units * width / peak
        cores = self.peak / (4 * self.lanes * self.clock)
        gates = 1e-3 * GATES[self.lanes] * batch * units / (rate * self.clock * cores)
        step = max(streaming, products) + gates + 1e-3 * CHAIN / self.clock
        ahead = 0 if timesteps == 1 else 6 * batch * timesteps * units * features
        return timesteps * step + 1e-3 * ahead / peak


def measure(sizes: Iterable[int]) -> Limits:
    """Measure what one core can do now, reading this many bytes each.

    The clock is that at which a core starts two multiply-adds in a cycle.
    """
    lanes = _kernels.lanes()
    dot = _kernels.isas()[0] in _kernels.dot_isas()
    peak = _peak(_kernels.multiply_adds)
    integers = _peak(lambda turns: _kernels.integer_multiply_adds(turns, dot))
    bandwidth = {size: _bandwidth(size) for size in sorted(set(sizes))}
    return Limits(peak, integers, lanes, peak / (4 * lanes), bandwidth)


def _peak(multiply_adds: Callable[[int], int]) -> float:
    """Operations a nanosecond of such a loop."""
    turns = max(1, OPERATIONS // multiply_adds(1))
    return _rate(lambda: multiply_adds(turns))


def _bandwidth(size: int) -> float:
    """GB/s of reading this many bytes, rounded up to whole blocks, repeatedly."""
    memory = np.ones(-(-size // BLOCK) * BLOCK // 4 + LINE // 4, np.float32)  # zeros may share one page
    memory = memory[-memory.ctypes.data % LINE // 4 :][: -(-size // BLOCK) * BLOCK // 4]
    turns = 1 + BYTES // memory.nbytes
    return _rate(lambda: _kernels.reads(memory, turns))


def _rate(run: Callable[[], int]) -> float:
    """The count of a run per nanosecond, by the median of runs; the first one warms the caches."""
    clock = time.perf_counter_ns
    count, times = run(), list[int]()
    start = end = clock()
    while len(times) < 3 or end - start < 1e6 * MILLISECONDS:
        before = clock()
        run()
        end = clock()
        times.append(end - before)
    return count / float(np.median(times))
