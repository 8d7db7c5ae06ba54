"""A heat: one layer or model by several contenders, checked against the equations, then timed in turns."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.networks import NetworkTask
from benchmarks.race.contenders.base import Contender
from benchmarks.race.files import folder_of
from benchmarks.race.process import Process, RaceError
from benchmarks.race.roofline import Roofline, step_bytes
from benchmarks.race.worker import STEPS
from benchmarks.tasks import Array, Task

LIMITS = {"float32": 3e-5, "float64": 1e-10}  # of the difference from the equations
PERIOD = 0.01  # seconds between the frames of a paced stream
SPIN = 0.15  # seconds after which threads of libraries that wait for work, on a CPU, have gone to sleep


@dataclass
class Entrant:
    """A contender's part in a heat: what it runs, and how that went."""

    contender: type[Contender]
    task: Task | NetworkTask
    difference: float = np.nan  # from the equations on weights as it rounds them to floats; nan: no result
    error: float = np.nan  # the same on weights that are not rounded
    wrong: bool = False
    failure: str = ""  # why it is out
    blocks: list[Array] = field(default_factory=list)  # nanoseconds of each call, a block for each round
    paced: list[Array] = field(default_factory=list)  # nanoseconds of each frame from when it was due

    @property
    def name(self) -> str:
        return self.contender.name

    @property
    def finished(self) -> bool:
        return not self.failure and bool(self.blocks)

    @property
    def itemsize(self) -> int | None:
        """Bytes of a weight as the contender keeps it; None if it multiplies bytes by bytes: no roofline."""
        dtype = np.dtype(self.contender.weights_dtype or self.task.dtype)
        return None if self.contender.byte_factors else dtype.itemsize

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


@dataclass
class Heat:
    """What all entrants of a heat did, and what the machine could have done meanwhile."""

    task: Task | NetworkTask
    label: str
    entrants: list[Entrant]
    plain: Entrant | None = None  # fastgru with the usual layer of that shape
    limits: list[Roofline] = field(default_factory=list)  # one for each round, or none

    def everyone(self) -> list[Entrant]:
        return [*self.entrants, *([self.plain] if self.plain else [])]

    def finisher(self, name: str) -> Entrant | None:
        """The entrant of that name, if it was timed to the end."""
        return next((entrant for entrant in self.entrants if entrant.name == name and entrant.finished), None)

    def best_peer(self, weights_dtype: str | None = None) -> Entrant | None:
        """The peer with the lowest median, of those with such weights; by default those they were given."""
        peers = [
            entrant
            for entrant in self.entrants
            if entrant.finished
            and entrant.contender.peer
            and entrant.contender.weights_dtype == weights_dtype
        ]
        return min(peers, key=lambda entrant: entrant.median, default=None)

    def against_peers(self, entrant: Entrant) -> Array | None:
        """How many times as fast as the best peer an entrant was, round by round.

        Those with int8 weights have such peers, others those that compute with the weights they were given.
        """
        own = entrant.contender.weights_dtype
        peer = self.best_peer(own if own == "int8" else None)
        return ratios(peer, entrant) if peer and entrant.finished else None

    def roof(self, itemsize: int) -> Array | None:
        """The least microseconds that a call could have taken, round by round."""
        rounds = max((len(entrant.blocks) for entrant in self.entrants), default=0)
        if isinstance(self.task, NetworkTask) or not 0 < len(self.limits) == rounds:
            return None
        return np.array([limits.microseconds(self.task, itemsize) for limits in self.limits])

    def of_roof(self, entrant: Entrant) -> float | None:
        """Share of what the machine could do: median over the rounds."""
        roof = self.roof(entrant.itemsize) if entrant.itemsize and entrant.finished else None
        return None if roof is None else float(np.median(roof / entrant.medians))


def rotated(entrants: Iterable[Entrant], turn: int) -> list[Entrant]:
    """Each round another one goes first."""
    order = deque(entrants)
    order.rotate(-turn)
    return [*order]


class Exact:
    """What the layers of a heat are given and should return, made once for all its contenders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def inputs(self, task: Task) -> Path:
        """A file with the arrays of a task."""
        return self._once(task, lambda: self._save(task))

    def output(self, name: str, task: Task | NetworkTask) -> Path:
        """Where a contender saves what it returns."""
        return self._folder / f"{name} {task}.npy"

    def result(self, task: Task, weights_dtype: str | None) -> Array:
        """What a layer should return; a type that is none of floats does not round its weights."""
        dtype = np.dtype(weights_dtype or task.dtype)
        rounded = dtype.name if dtype.kind == "f" else None
        return self._once((task, rounded), lambda: task.exact(STEPS, rounded))

    def _save(self, task: Task) -> Path:
        file = self._folder / f"{task}.npz"
        np.savez(file, **task.arrays()._asdict())
        return file

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]


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
    threads : int
        That each may compute on; who takes more is out.
    paced : float
        Seconds of each round's block of a stream on a clock; 0 for none.
    most : float
        Seconds after which a heat begins no further round, once it had three.
    files : Path or None
        The folder of the files of models, if there are heats of models.
    measure : callable
        What the machine can do with so many bytes; None if that is unknown.
    tick : callable
        Called for every entrant of a heat once before the first round and once in each, with the
        number of those that are over.
    """

    processes: Mapping[str, Process]
    rounds: int
    seconds: float
    threads: int = 1
    paced: float = 0.0
    most: float = np.inf
    files: Path | None = None
    measure: Callable[[Sequence[int]], Roofline | None] = lambda sizes: None
    tick: Callable[[int], None] = lambda count: None

    def heat(
        self,
        contenders: Iterable[type[Contender]],
        task: Task | NetworkTask,
        label: str = "",
        plain: Task | None = None,
    ) -> Heat:
        """Check all, then time in turns; whoever fails or is wrong is out, and the others go on.

        With `plain` fastgru runs that task, too.
        """
        entrants = [Entrant(contender, task) for contender in contenders if contender.runs(task)]
        ours = next((entrant.contender for entrant in entrants if entrant.name == "fastgru"), None)
        heat = Heat(task, label, entrants, Entrant(ours, plain) if ours and plain else None)
        self._check(heat)
        roofed = [] if isinstance(task, NetworkTask) else [each for each in entrants if each.itemsize]
        sizes = [step_bytes(task, each.itemsize) for each in roofed]
        start = time.monotonic()
        for turn in range(self.rounds):
            if turn >= 3 and time.monotonic() - start > self.most:
                self.tick((self.rounds - turn) * len(heat.everyone()))
                break
            with suppress(MemoryError):  # then there is no roofline for this heat
                limits = self.measure(sizes) if sizes else None
                heat.limits += [limits] if limits else []
            for entrant in rotated(heat.everyone(), turn):
                self._run(entrant)
                self.tick(1)
        for process in {self._process(entrant) for entrant in heat.everyone()}:
            with suppress(RaceError):  # those that are dead have forgotten
                process.ask("forget")
        return heat

    def _process(self, entrant: Entrant) -> Process:
        return self.processes[entrant.name]

    def _check(self, heat: Heat) -> None:
        """Make all layers ready, at the same time, for nothing is timed yet; and see what they return."""
        with TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
            exact = Exact(Path(folder))

            def check(entrant: Entrant) -> None:
                try:
                    self._make_ready(entrant, exact)
                except RaceError as failure:
                    entrant.failure = str(failure)

            for _ in pool.map(check, heat.everyone()):
                self.tick(1)

    def _make_ready(self, entrant: Entrant, exact: Exact) -> None:
        contender, task = entrant.contender, entrant.task
        asked = {"key": str(task), "task": task, "seconds": self.seconds}
        process = self._process(entrant)
        if isinstance(task, NetworkTask):
            assert self.files
            files = folder_of(task, self.files)
            expected = unrounded = np.load(files / "exact.npy")
            output = exact.output(contender.name, task)
            cores = process.ask("prepare_network", files=str(files), output=str(output), **asked)
        else:
            expected, unrounded = exact.result(task, contender.weights_dtype), exact.result(task, None)
            inputs, output = exact.inputs(task), exact.output(contender.name, task)
            cores = process.ask("prepare", inputs=str(inputs), output=str(output), **asked)
        if cores > self.threads + 0.4:
            raise RaceError(f"takes {cores:.1f} cores, not {self.threads}")
        result = np.load(output)
        entrant.wrong = result.size != expected.size
        if entrant.wrong:
            raise RaceError(f"wrong, its result has the shape {result.shape}")
        entrant.difference = float(np.abs(result.reshape(expected.shape) - expected).max())
        entrant.error = float(np.abs(result.reshape(unrounded.shape) - unrounded).max())
        limit = contender.network_limit if isinstance(task, NetworkTask) else contender.limit
        entrant.wrong = not entrant.difference < (limit or LIMITS[task.dtype])
        if entrant.wrong:
            raise RaceError(f"wrong by {entrant.difference:.1e}")

    def _run(self, entrant: Entrant) -> None:
        if entrant.failure:
            return
        process, key = self._process(entrant), str(entrant.task)
        if self.threads > 1:
            time.sleep(SPIN)
        try:
            entrant.blocks.append(np.array(process.ask("block", key=key, seconds=self.seconds)))
            if self.paced and entrant.task.stream:
                frames = process.ask("paced", key=key, seconds=self.paced, period=PERIOD)
                entrant.paced.append(np.array(frames))
        except RaceError as failure:
            entrant.failure = str(failure)
