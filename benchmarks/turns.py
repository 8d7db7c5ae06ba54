"""Alternating blocks of calls in one process, so that what is compared meets the same noise."""

from __future__ import annotations

import itertools
import timeit
from collections.abc import Sequence

import numpy as np

from benchmarks.tasks import Array


def raced(timers: Sequence[timeit.Timer], rounds: int, seconds: float) -> Array:
    """Seconds of a call, (timers, rounds): blocks in turns, another one first in each round.

    A block takes so many seconds, or one call.
    """
    numbers = [max(1, int(seconds / min(timer.repeat(3, 1)))) for timer in timers]
    times = np.empty((len(timers), rounds))
    for turn in range(rounds):
        for which in itertools.islice(itertools.cycle(range(len(timers))), turn, turn + len(timers)):
            times[which, turn] = timers[which].timeit(numbers[which]) / numbers[which]
    return times
