"""The race's end of a contender's process: requests with a time limit, failures with a reason."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

from benchmarks.race.contenders.base import Contender

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120.0  # seconds for one request
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class RaceError(Exception):
    """Why a contender, or something else that the race can do without, is out."""


class Process:
    """A contender's worker, from its start to its end; several threads may ask it.

    Parameters
    ----------
    contender : type of Contender
    python : Path
        The interpreter of an environment that has what the contender requires.
    timeout : float
        Seconds after which a request is given up, and the process with it.
    threads : int
        That its libraries may start, for those that read it from the environment.
    """

    def __init__(
        self,
        contender: type[Contender],
        python: Path = Path(sys.executable),
        timeout: float = TIMEOUT,
        threads: int = 1,
    ) -> None:
        self._timeout = timeout
        self._failure = ""
        self._lock = threading.Lock()
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.race.worker", f"{contender.__module__}:{contender.__qualname__}"],
            cwd=ROOT,
            env={**os.environ, **dict.fromkeys(THREADS, str(threads)), **contender.variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ask(self, do: str, **arguments: Any) -> Any:
        """The result of a method of the worker; RaceError if there is none."""
        with self._lock:
            if self._failure:
                raise RaceError(self._failure)
            reply = self._exchange({"do": do, **arguments})
        if "failed" in reply:
            raise RaceError(" ".join(reply["failed"].split()))
        return reply["result"]

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._ended() from None
        if not select.select([self._process.stdout], [], [], self._timeout)[0]:
            self._process.kill()
            self._failure = f"no answer within {self._timeout:g} s"
            raise RaceError(self._failure)
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> RaceError:
        """How the process ended, with the last line that it wrote; the same to all further requests."""
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        self._failure = ": ".join([f"ended with status {status}", *lines[-1:]])
        return RaceError(self._failure)
