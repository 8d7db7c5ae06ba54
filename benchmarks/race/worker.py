"""The process around one contender: lines of JSON in, lines of JSON out.

    python -m benchmarks.race.worker benchmarks.race.contenders:Torch

A request names a method of `Worker` and its arguments, `{"do": "block", "key": "0", "seconds": 0.04}`;
the reply is `{"result": ...}`, or `{"failed": "TypeError: ..."}` after an exception. Between requests
the process waits for the next one and does nothing else; it ends with its standard input.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import NetworkTask
from benchmarks.race.contenders.base import Call, Contender
from benchmarks.tasks import Arrays, Shape, Task

STEPS = 20  # of a stream, from its start, that are checked
SHORT = 0.005  # seconds that are too few to tell how many cores were taken


def block(call: Call, seconds: float, evict: Call | None = None) -> list[int]:
    """Nanoseconds of each call within that time, at least one; what evicts the caches is not timed."""
    clock = time.perf_counter_ns
    nanoseconds: list[int] = []
    start = end = clock()
    while not nanoseconds or end - start < 1e9 * seconds:
        if evict:
            evict()
        before = clock()
        call()
        end = clock()
        nanoseconds.append(end - before)
    return nanoseconds


def paced(call: Call, seconds: float, period: float) -> list[int]:
    """Nanoseconds from when each frame was due to when its call had returned.

    Frames are due at the ticks of a clock, whether or not the one before is done: a call that takes
    long delays those after it, and that is in their figures.
    """
    clock = time.perf_counter_ns
    step = round(1e9 * period)
    due = clock() + step
    nanoseconds: list[int] = []
    for _ in range(max(1, round(seconds / period))):
        time.sleep(max(0, due - clock()) * 1e-9)
        call()
        nanoseconds.append(clock() - due)
        due += step
    return nanoseconds


def cache_bytes() -> int:
    """Size of the largest cache, where the system tells; else more than most have."""
    files = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((int(file.read_text().strip().removesuffix("K")) << 10 for file in files), default=64 << 20)


def evictor() -> Call:
    """Replaces what the caches hold."""
    memory = np.zeros(2 * cache_bytes() // 8)

    def evict() -> Any:
        memory.__iadd__(1)
        return memory

    return evict


class Worker:
    """One contender and the layers that it has made ready."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.calls: dict[str, Call] = {}
        self.evict: Call | None = None

    def start(self, threads: int, cold: bool) -> dict[str, str]:
        """Import the contender's library; versions of what it needs."""
        self.contender.start(threads)
        if cold:
            self.evict = evictor()
        return {package: metadata.version(package) for package in self.contender.packages()}

    def prepare(self, key: str, task: list[Any], inputs: str, output: str, seconds: float) -> float:
        """Make a layer ready and save what it returns, after it was called for a while; the cores it took.

        Of a stream that is all outputs of its first steps, (batch, STEPS, units).
        """
        shape, *rest = task
        made = Task(Shape(*shape), *rest)
        call = self.contender.prepare(made, Arrays(**np.load(inputs)))
        return self._ready(key, call, made.stream, output, seconds)

    def prepare_network(self, key: str, task: list[Any], files: str, output: str, seconds: float) -> float:
        """The same of a whole model, from the folder of its files."""
        made, folder = NetworkTask(*task), Path(files)
        with np.load(folder / "inputs.npz") as arrays:
            call = self.contender.prepare_network(made, folder, [*arrays.values()])
        return self._ready(key, call, made.stream, output, seconds)

    def _ready(self, key: str, call: Call, stream: bool, output: str, seconds: float) -> float:
        if stream:
            np.save(output, np.stack([call().copy() for _ in range(STEPS)], axis=1))
        call()  # the first one may compile, on as many threads as it likes
        start, processor_start = time.perf_counter(), time.process_time()
        block(call, seconds)
        processor_seconds, passed = time.process_time() - processor_start, time.perf_counter() - start
        if not stream:
            np.save(output, call())
        self.calls[key] = call
        return processor_seconds / max(passed, SHORT)

    def block(self, key: str, seconds: float) -> list[int]:
        """Nanoseconds of each call to a layer within that time, at least one."""
        return block(self.calls[key], seconds, self.evict)

    def paced(self, key: str, seconds: float, period: float) -> list[int]:
        """Nanoseconds that each frame took from when it was due."""
        return paced(self.calls[key], seconds, period)

    def ways(self, engine: str, rounds: int, seconds: float) -> Any:
        """What each way to call fastgru costs, whoever the contender is."""
        from benchmarks import ways  # it needs fastgru, which peers have not

        return ways.everything(engine, rounds, seconds)

    def forget(self) -> None:
        """Let go of all layers."""
        self.calls.clear()

    def reply(self, do: str, **arguments: Any) -> dict[str, Any]:
        """What a request is answered with."""
        try:
            return {"result": getattr(self, do)(**arguments)}
        except Exception as error:  # whatever a library may raise
            return {"failed": f"{type(error).__name__}: {error}"}


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no reply
    worker = Worker(getattr(importlib.import_module(module), name)())
    for request in sys.stdin:
        print(json.dumps(worker.reply(**json.loads(request))), file=replies, flush=True)


if __name__ == "__main__":
    main()
