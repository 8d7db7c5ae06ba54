"""Counts what it takes to read a file: lines of fastgru that run, and bytes of memory, but never seconds.

As a program it reads lines of JSON, ["lines" or "memory", path, arguments], measures each in a process of its
own, and writes [number, outcome].
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the folder of tests, as for pytest

from formats.hostile import judging

import fastgru

PACKAGE = str(Path(fastgru.__file__).parent)


class Lines:
    """Counts the lines and calls of fastgru's functions while they run, and not those of other modules."""

    def __init__(self):
        self.count = 0

    def _call(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        self.count += 1
        return self._line

    def _line(self, frame, event, argument):
        self.count += 1
        return self._line

    def __enter__(self):
        sys.settrace(self._call)
        return self

    def __exit__(self, *error):
        sys.settrace(None)


def measured(what, path, arguments):
    """The number of lines, or of bytes besides its layers, that reading takes, and what comes of the file."""
    outcome, layers = "loaded", {}
    counted = Lines() if what == "lines" else None
    memory = judging.Memory()
    with counted or contextlib.nullcontext():
        try:
            layers = fastgru.load_all(path, **arguments)
        except fastgru.FormatError as error:
            outcome = str(error).removeprefix(f"{path}: ")
    return counted.count if counted else memory.peak() - judging.held(layers.values()), outcome


class Measurer:
    """This file as a program that waits for files, which need not be started for each."""

    def __init__(self):
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True)

    def measure(self, what, path, arguments=None):
        """As `measured`."""
        self._process.stdin.write(json.dumps([what, str(path), arguments or {}]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.communicate()


def main():
    judging.prepare()
    for line in sys.stdin:
        what, path, arguments = json.loads(line)
        if not os.fork():
            judging.confine()
            judging.limit_time()
            print(json.dumps(measured(what, Path(path), arguments)), flush=True)
            os._exit(0)
        _, status = os.wait()
        if status:
            print(json.dumps([0, f"the process ended with status {status}"]), flush=True)


if __name__ == "__main__":
    main()
