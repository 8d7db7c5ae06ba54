"""What every part of a campaign gets and gives."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from campaign.record import FAILED, NOT_RUN, PASSED, Record

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
sys.path += [str(TESTS), str(TESTS / "engine")]  # as for pytest


class Given(NamedTuple):
    """What a part has at its disposal.

    Attributes
    ----------
    name : str
        Of the part.
    seconds : float
        How long it may take.
    work : Path
        A folder for its files, kept until the next campaign.
    kept : Path
        A folder for what failed.
    seed : int
        Of its random numbers.
    """

    name: str
    seconds: float
    work: Path
    kept: Path
    seed: int

    def rng(self) -> random.Random:
        return random.Random(f"{self.name} {self.seed}")


class Part(NamedTuple):
    """A part of a campaign.

    Attributes
    ----------
    run : callable
        Of `Given`; yields a record of each subject, whose part need not be set.
    weight : float
        Its share of the time.
    tried : str
        What is tried and what must come of it, for the page.
    """

    run: Callable[[Given], Iterator[Record]]
    weight: float
    tried: str


def missing(*programs: str) -> str:
    """The programs among these that are not installed, as a note; empty if all are."""
    absent = [name for name in programs if shutil.which(name) is None]
    return f"needs {', '.join(absent)}" if absent else ""


def not_run(subject: str, why: str) -> Record:
    return Record("", subject, NOT_RUN, note=why)


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that imports this campaign, the tests and the package."""
    path = [str(ROOT), str(TESTS), str(TESTS / "engine"), os.environ.get("PYTHONPATH", "")]
    quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return os.environ | quiet | {"PYTHONPATH": os.pathsep.join(filter(None, path))} | more


def python(*arguments: object) -> list[str]:
    return [sys.executable, *map(str, arguments)]


def finished(
    command: Sequence[object], seconds: float, **options: Any
) -> subprocess.CompletedProcess[str] | None:
    """A process that has ended; None if it took too long, and it has been killed with all that it started."""
    options = {"env": environment(), "cwd": ROOT, "stdin": subprocess.DEVNULL, "text": True} | options
    with subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        errors="replace",
        start_new_session=True,
        **options,
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class Trials:
    """Counts trials of a subject until its time is over or one has failed.

    Parameters
    ----------
    subject : str
    unit : str
        What is counted.
    seconds : float
    kept : Path
        Where what failed is written, by the name of the subject.
    """

    def __init__(self, subject: str, unit: str, seconds: float, kept: Path) -> None:
        self.subject, self.unit = subject, unit
        self.count = 0
        self.figures: dict[str, float] = {}
        self._begun = time.monotonic()
        self._end = self._begun + seconds
        self._kept = kept
        self._note = ""

    @property
    def going(self) -> bool:
        """True until the time is over or a trial has failed; of one at least."""
        return not self._note and (not self.count or time.monotonic() < self._end)

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._end - time.monotonic())

    def fail(self, how: str, evidence: str | bytes = "") -> None:
        """Note that a trial has failed, and keep what shows it."""
        path = self._kept / f"{self.subject.replace(' ', '-').replace('/', '-')}.txt"
        data = evidence if isinstance(evidence, bytes) else f"{how}\n{evidence}".encode()
        path.write_bytes(data)
        self._note = how[:300]

    def record(self) -> Record:
        seconds = round(time.monotonic() - self._begun, 1)
        result = FAILED if self._note else PASSED
        return Record("", self.subject, result, self.count, self.unit, seconds, self.figures, self._note)
