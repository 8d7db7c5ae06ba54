"""A heat: layers of several contenders, checked against the equations, then timed in turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.race.contenders import Contender
from benchmarks.race.process import Process, RaceError
from benchmarks.race.shapes import Array, Task
from benchmarks.workloads import REFERENCE

LIMITS = {"float32": 3e-5, "float64": 1e-10}  # of the difference from the equations


@dataclass
class Entrant:
    """A contender's part in a heat: what it runs, and how that went."""

    contender: type[Contender]
    task: Task
    key: str  # of its layer in the contender's process
    difference: float = np.nan  # from the equations, nan if there is no result
    wrong: bool = False
    failure: str = ""  # why it is out
    blocks: list[Array] = field(default_factory=list)  # nanoseconds of each call, a block for each round

    @property
    def medians(self) -> Array:
        """Microseconds per call of each block."""
        return 1e-3 * np.array([np.median(block) for block in self.blocks])

    @property
    def median(self) -> float:
        return float(np.median(self.medians))

    @property
    def fastest(self) -> float:
        """Microseconds of the fastest call."""
        return 1e-3 * float(min(block.min() for block in self.blocks))

    @property
    def p99(self) -> float:
        """Microseconds that 99 of 100 calls take at most."""
        return 1e-3 * float(np.percentile(np.concatenate(self.blocks), 99))


def ratios(baseline: Entrant, entrant: Entrant) -> Array:
    """How many times as fast as the baseline the entrant was, round by round."""
    return baseline.medians / entrant.medians


def finishers(entrants: Iterable[Entrant]) -> dict[str, Entrant]:
    """Those that were timed to the end, by their contender's name."""
    return {entrant.contender.name: entrant for entrant in entrants if not entrant.failure}


def best_peer(entrants: Iterable[Entrant]) -> Entrant | None:
    """The peer with the lowest median."""
    peers = [entrant for entrant in finishers(entrants).values() if entrant.contender.peer]
    return min(peers, key=lambda entrant: entrant.median, default=None)


@lru_cache(maxsize=2)
def exact(task: Task, weights_dtype: str | None) -> Array:
    """What a layer should return, (batch, timesteps, units), its weights rounded to a dtype first."""
    x, state, *weights = task.arrays()
    outputs, _ = REFERENCE["gru"](
        x,
        *(array.astype(weights_dtype or array.dtype) for array in weights),
        recurrent_activation=task.recurrent_activation,
        reset_after=task.reset_after,
        initial_state=state,
    )
    return outputs


def rotated(entrants: Iterable[Entrant], turn: int) -> list[Entrant]:
    """Each round another one goes first."""
    order = deque(entrants)
    order.rotate(-turn)
    return [*order]


@dataclass
class Race:
    """What all heats have in common.

    Parameters
    ----------
    processes : mapping of str to Process
        Workers that have started, by their contenders' names.
    rounds : int
        Blocks of each entrant.
    seconds : float
        Of a block; one call at least.
    tick : callable
        Called for every entrant of a heat once before the first round and once in each.
    """

    processes: Mapping[str, Process]
    rounds: int
    seconds: float
    tick: Callable[[], None] = lambda: None

    def heat(self, entries: Iterable[tuple[type[Contender], Task]]) -> list[Entrant]:
        """Check all, then time in turns; whoever fails or is wrong is out, and the others go on."""
        entrants = [Entrant(*entry, key=str(index)) for index, entry in enumerate(entries)]
        for entrant in entrants:
            self._attempt(self._make_ready, entrant)
        for turn in range(self.rounds):
            for entrant in rotated(entrants, turn):
                self._attempt(self._run_block, entrant)
        for process in {self._process(entrant) for entrant in entrants}:
            with suppress(RaceError):  # those that are dead have forgotten
                process.ask("forget")
        return entrants

    def _process(self, entrant: Entrant) -> Process:
        return self.processes[entrant.contender.name]

    def _attempt(self, part: Callable[[Entrant], None], entrant: Entrant) -> None:
        if not entrant.failure:
            try:
                part(entrant)
            except RaceError as failure:
                entrant.failure = str(failure)
        self.tick()

    def _make_ready(self, entrant: Entrant) -> None:
        task = entrant.task
        with TemporaryDirectory() as folder:
            inputs, output = Path(folder, "inputs.npz"), Path(folder, "output.npy")
            np.savez(inputs, **task.arrays()._asdict())
            self._process(entrant).ask(
                "prepare",
                key=entrant.key,
                task=task,
                inputs=str(inputs),
                output=str(output),
                seconds=self.seconds,
            )
            expected = exact(task, entrant.contender.weights_dtype)
            result = np.load(output)
        entrant.wrong = result.size != expected.size
        if entrant.wrong:
            raise RaceError(f"wrong, its result has the shape {result.shape}")
        entrant.difference = float(np.abs(result.reshape(expected.shape) - expected).max())
        entrant.wrong = not entrant.difference < LIMITS[task.dtype]
        if entrant.wrong:
            raise RaceError(f"wrong by {entrant.difference:.1e}")

    def _run_block(self, entrant: Entrant) -> None:
        nanoseconds = self._process(entrant).ask("block", key=entrant.key, seconds=self.seconds)
        entrant.blocks.append(np.array(nanoseconds))
