"""What one core can do at best, measured by a small C program: products per second, bytes per second."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.race.process import RaceError
from benchmarks.race.shapes import Shape

SOURCE = Path(__file__).with_name("roofline.c")


class Roofline(NamedTuple):
    """The best that was seen."""

    peak: float  # GFLOP/s of fused multiply-adds on float32
    bandwidth: dict[int, float]  # bytes that are read over and over: GB/s

    def microseconds(self, shape: Shape, itemsize: int) -> float:
        """The least that a call can take if its weights are numbers of so many bytes."""
        bandwidth = self.bandwidth[shape.weights * itemsize]
        return 1e-3 * max(shape.reads * itemsize / bandwidth, shape.flop / self.peak)

    def better_of(self, other: Roofline) -> Roofline:
        bandwidth = {size: max(speed, other.bandwidth[size]) for size, speed in self.bandwidth.items()}
        return Roofline(max(self.peak, other.peak), bandwidth)


def measure(sizes: Iterable[int]) -> Roofline:
    """Compile the program and run it, for these numbers of bytes; RaceError without a compiler."""
    sizes = sorted(set(sizes))
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise RaceError("there is no C compiler")
    with TemporaryDirectory() as folder:
        program = Path(folder, "roofline")
        _run(compiler, "-O2", "-march=native", SOURCE, "-o", program)
        peak, *bandwidths = map(float, _run(program, *map(str, sizes)).split())
    return Roofline(peak, dict(zip(sizes, bandwidths, strict=True)))


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RaceError(f"{Path(command[0]).name} failed: {done.stderr.strip()}")
    return done.stdout
