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
from typing import Any

import numpy as np

from benchmarks.race.contenders import Call, Contender
from benchmarks.race.shapes import Arrays, Shape, Task


def block(call: Call, seconds: float) -> list[int]:
    """Nanoseconds of each call within that time, at least one."""
    clock = time.perf_counter_ns
    nanoseconds: list[int] = []
    start = end = clock()
    while not nanoseconds or end - start < 1e9 * seconds:
        before = clock()
        call()
        end = clock()
        nanoseconds.append(end - before)
    return nanoseconds


class Worker:
    """One contender and the layers that it has made ready."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.calls: dict[str, Call] = {}

    def start(self) -> dict[str, str]:
        """Import the contender's library; versions of what it needs."""
        self.contender.start()
        return {package: metadata.version(package) for package in self.contender.packages()}

    def prepare(self, key: str, task: list[Any], inputs: str, output: str, seconds: float) -> None:
        """Make a layer ready, call it for a while, save what it returns after that."""
        shape, *rest = task
        call = self.contender.prepare(Task(Shape(*shape), *rest), Arrays(**np.load(inputs)))
        block(call, seconds)
        np.save(output, call())
        self.calls[key] = call

    def block(self, key: str, seconds: float) -> list[int]:
        """Nanoseconds of each call to a layer within that time, at least one."""
        return block(self.calls[key], seconds)

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
