"""One call of a layer: its time, the memory it takes, its largest error."""

import tracemalloc

import numpy as np

from benchmarks.workloads import Array, Dtype, Workload


class _Call:
    """A workload for every number of units, both reset modes and both dtypes.

    asv runs `setup` again between the calls that it times: it must not touch weights and caches then.
    """

    batch: int
    timesteps: int

    params: tuple[list[int], list[str], list[str]] = (
        [1, 64, 128, 256, 512],
        ["before", "after"],
        ["float32", "float64"],
    )
    param_names = ("units", "reset", "dtype")
    repeat = (10, 1000, 0.3)  # at least, at most, seconds
    workload: Workload | None = None

    def setup(self, units: int, reset: str, dtype: Dtype) -> None:
        workload = Workload(self.batch, self.timesteps, units, reset == "after", dtype)
        if workload != self.workload:
            self.workload = workload
            self.layer, self.x = workload.layer(), workload.inputs()
            self.layer(self.x)  # the first call of a process is slower

    def time_call(self, *_: object) -> None:
        self.layer(self.x)

    def peakmem_call(self, *_: object) -> None:
        """Of the whole process: interpreter, NumPy and weights too."""
        self.layer(self.x)

    def track_scratch(self, *_: object) -> int:
        """The most that a call allocates at a time, but for its result."""
        tracemalloc.start()
        result: Array = self.layer(self.x)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - result.nbytes

    track_scratch.unit = "bytes"  # type: ignore[attr-defined]

    def track_max_error(self, *_: object) -> float:
        """Against the equations in float64."""
        assert self.workload is not None
        error = np.abs(self.layer(self.x) - self.workload.exact(self.layer)).max()
        return float(f"{error:.1e}")  # of more digits asv makes wider tables

    track_max_error.unit = "absolute"  # type: ignore[attr-defined]


class Stream(_Call):
    """One row, one step: a decision every few milliseconds."""

    batch, timesteps = 1, 1


class Sequence(_Call):
    """One row, a hundred steps."""

    batch, timesteps = 1, 100


class Batch(_Call):
    """Many rows at once, where the matrix products are all that counts."""

    batch, timesteps = 64, 50
    params = ([512], *_Call.params[1:])
    repeat = (3, 10, 1.0)
