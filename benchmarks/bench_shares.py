"""What something costs by what it is measured against, in turns in one process."""

from __future__ import annotations

import time

import numpy as np

import fastgru
from benchmarks.tasks import Shape, Task


class Lengths:
    """Rows of every length from one step to all of them."""

    params = ([64, 128, 256, 512], [32, 64, 128])
    param_names = ("units", "rows")
    timesteps = 50
    rounds = 20

    def setup(self, units: int, rows: int) -> None:
        task = Task(Shape(rows, self.timesteps, units, units))
        self.x, _, _, *weights = task.arrays()
        self.layer = fastgru.GRU(units, reset_after=True, return_sequences=True, weights=weights)
        lengths = np.linspace(1, self.timesteps, rows).round().astype(int)
        self.lengths = np.random.default_rng(0).permutation(lengths)

    def track_share_of_full_rows(self, *_: object) -> float:
        """Of the time of as many rows that have all steps: the median of pairs of calls."""
        shares = []
        for _ in range(self.rounds):
            start = time.perf_counter()
            self.layer(self.x)
            middle = time.perf_counter()
            self.layer(self.x, lengths=self.lengths)
            shares.append((time.perf_counter() - middle) / (middle - start))
        return round(float(np.median(shares[1:])), 3)

    track_share_of_full_rows.unit = "times"  # type: ignore[attr-defined]
