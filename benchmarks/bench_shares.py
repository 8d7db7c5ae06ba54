"""What something costs by what it is measured against, in turns in one process."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import fastgru
from benchmarks.tasks import Shape, Task


def share(rounds: int, measured: Callable[[], object], of: Callable[[], object]) -> float:
    """What one takes of the time of the other: the median of pairs, the first pair left out."""
    shares = []
    for _ in range(rounds):
        start = time.perf_counter()
        of()
        middle = time.perf_counter()
        measured()
        shares.append((time.perf_counter() - middle) / (middle - start))
    return round(float(np.median(shares[1:])), 3)


class Lengths:
    """Rows of every length from one step to all of them."""

    params = ([64, 128, 256, 512, 1024], [32, 64, 128])
    param_names = ("units", "rows")
    timesteps = 50
    rounds = 12

    def setup(self, units: int, rows: int) -> None:
        task = Task(Shape(rows, self.timesteps, units, units))
        self.x, _, _, *weights = task.arrays()
        self.layer = fastgru.GRU(units, reset_after=True, return_sequences=True, weights=weights)
        lengths = np.linspace(1, self.timesteps, rows).round().astype(int)
        self.lengths = np.random.default_rng(0).permutation(lengths)

    def track_share_of_full_rows(self, *_: object) -> float:
        """Of the time of as many rows that have all steps."""
        return share(
            self.rounds, lambda: self.layer(self.x, lengths=self.lengths), lambda: self.layer(self.x)
        )

    track_share_of_full_rows.unit = "times"  # type: ignore[attr-defined]


class Steps:
    """One step of one row, by a stream."""

    params = ([1, 64, 256],)
    param_names = ("units",)
    rounds = 2000

    def setup(self, units: int) -> None:
        task = Task(Shape(1, 1, units, units), stream=True)
        arrays = task.arrays()
        self.frame = arrays.x[:, :1]
        self.layer = fastgru.GRU(
            units,
            reset_after=task.reset_after,
            recurrent_activation=task.recurrent_activation,
            stateful=True,
            weights=[arrays.kernel, arrays.recurrent_kernel, arrays.bias],
        )
        self.layer.build(self.frame.shape)
        self.x, self.out = self.frame[:, 0], np.empty((1, units), np.float32)
        self.stream = self.layer.stream()
        self.stream(self.x)

    def time_step(self, *_: object) -> None:
        self.stream(self.x)

    def track_share_of_a_stateful_call(self, *_: object) -> float:
        """Of the time of the layer itself, as it keeps its state and is given where to write."""
        return share(
            self.rounds, lambda: self.stream(self.x), lambda: self.layer(self.frame, None, None, out=self.out)
        )

    track_share_of_a_stateful_call.unit = "times"  # type: ignore[attr-defined]


class Slots:
    """A step of 32 clients of a pool of 1000, whose states lie apart."""

    params = ([64, 256],)
    param_names = ("units",)
    clients, capacity = 32, 1000
    rounds = 300

    def setup(self, units: int) -> None:
        self.x, _, _, *weights = Task(Shape(self.clients, 1, units, units)).arrays()
        layer = fastgru.GRU(units, reset_after=True, weights=weights)
        layer.build(self.x.shape)
        self.x, self.out = self.x[:, 0], np.empty((self.clients, units), np.float32)
        self.stream, self.pool = layer.stream(self.clients), fastgru.StreamPool(layer, self.capacity)
        slots, rng = [self.pool.open() for _ in range(self.capacity)], np.random.default_rng(0)
        self.slots = [rng.permutation(slots)[: self.clients].copy() for _ in range(self.rounds)]

    def track_share_of_a_stream(self, *_: object) -> float:
        """Of the time of a step of a stream of as many rows."""
        slots = iter(self.slots)
        return share(
            self.rounds,
            lambda: self.pool.step(next(slots), self.x, self.out),
            lambda: self.stream(self.x, self.out),
        )

    track_share_of_a_stream.unit = "times"  # type: ignore[attr-defined]


class SmallWeights:
    """A layer with weights in fewer bits, as wide as its inputs, by the same one with weights in float32."""

    params = (["float16", "int8"], [64, 128, 256, 512, 1024], [1, 4, 16])
    param_names = ("weights_dtype", "units", "rows")
    rounds = 60
    calls = 20  # in a block: with both layers' weights between them, caches would hold neither's
    steps = 100  # that the largest error is of

    def setup(self, weights_dtype: str, units: int, rows: int) -> None:
        task = Task(Shape(rows, self.steps, units, units))
        arrays = task.arrays()
        self.x, self.state, self.exact = arrays.x, arrays.state, task.exact
        self.full, self.small = (
            fastgru.GRU(
                units,
                recurrent_activation=task.recurrent_activation,
                reset_after=task.reset_after,
                return_sequences=True,
                weights_dtype=kept_in,
                weights=[arrays.kernel, arrays.recurrent_kernel, arrays.bias],
            )
            for kept_in in ("float32", weights_dtype)
        )
        self.frame, self.out = self.x[:, :1].copy(), np.empty((rows, 1, units), np.float32)
        self.block(self.full)
        self.block(self.small)

    def block(self, layer: fastgru.GRU) -> None:
        """Single steps from one state."""
        for _ in range(self.calls):
            layer(self.frame, self.state, out=self.out)

    def track_share_of_float32(self, *_: object) -> float:
        """Of the time of a step."""
        return share(self.rounds, lambda: self.block(self.small), lambda: self.block(self.full))

    track_share_of_float32.unit = "times"  # type: ignore[attr-defined]

    def track_max_error(self, *_: object) -> float:
        """Against the equations in float64 on the weights as they were before they were rounded."""
        error = np.abs(self.small(self.x, self.state) - self.exact()).max()
        return float(f"{error:.1e}")

    track_max_error.unit = "absolute"  # type: ignore[attr-defined]
