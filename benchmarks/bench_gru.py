"""One call of a layer: its time, the memory it takes, its largest error."""

import tracemalloc

import numpy as np

import fastgru
from benchmarks.tasks import Array, Shape, Task


class _Call:
    """A layer as wide as its inputs: every number of units, both reset modes and both dtypes.

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
    repeat = (3, 1000, 0.1)  # at least, at most, seconds
    warmup_time = 0.05
    task: Task | None = None

    def setup(self, units: int, reset: str, dtype: str) -> None:
        shape = Shape(self.batch, self.timesteps, units, units)
        task = Task(shape, dtype=dtype, reset_after=reset == "after")
        if task != self.task:
            self.task = task
            self.x, self.state, _, *weights = task.arrays()
            # given, not set afterwards: initializers would take more memory than the call that is measured
            self.layer = fastgru.GRU(
                units,
                recurrent_activation=task.recurrent_activation,
                return_sequences=task.sequences,
                reset_after=task.reset_after,
                dtype=task.dtype,
                weights=weights,
            )
            self.layer.build(self.x.shape)
            self.layer(self.x, self.state)  # the first call takes scratch

    def time_call(self, *_: object) -> None:
        self.layer(self.x, self.state)

    def peakmem_call(self, *_: object) -> None:
        """Of the whole process: interpreter, NumPy and weights too."""
        self.layer(self.x, self.state)

    def track_scratch(self, *_: object) -> int:
        """The most that a call allocates at a time, but for its result."""
        tracemalloc.start()
        result: Array = self.layer(self.x, self.state)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - result.nbytes

    track_scratch.unit = "bytes"  # type: ignore[attr-defined]

    def track_max_error(self, *_: object) -> float:
        """Against the equations in float64."""
        assert self.task is not None
        error = np.abs(self.layer(self.x, self.state) - self.task.exact()).max()
        return float(f"{error:.1e}")  # of more digits asv makes wider tables

    track_max_error.unit = "absolute"  # type: ignore[attr-defined]


class Stream(_Call):
    """One row, one step: a decision every few milliseconds."""

    batch, timesteps = 1, 1


class Sequence(_Call):
    """One row, a hundred steps."""

    batch, timesteps = 1, 100
    params = ([64, 256], *_Call.params[1:])


class Batch(_Call):
    """Many rows at once, where the matrix products are all that counts."""

    batch, timesteps = 64, 50
    params = ([256], *_Call.params[1:])
