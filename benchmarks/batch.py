"""What workers bring to a batch job, and what a part of it costs: python -m benchmarks.batch.

An array in an .npy file is computed into another one, by turns in one process, by one worker of Dask, and by
two, which have started before. The first table has rows and timesteps per second, medians of the turns, and
the largest memory of a process. The second one has smaller and smaller parts: what a part costs beside its
computing, and how much faster two workers are. The last line is the command with its start, as users run it.
Run it while nothing else runs.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import fastgru
from fastgru.cli._jobs import _arrays, _running
from fastgru.cli._jobs._arrays import ArrayJob

ROWS, STEPS, FEATURES, UNITS = 32768, 100, 40, 128
TURNS = 2
PARTS = (16 << 20, 4 << 20, 1 << 20, 256 << 10)  # bytes of input and output
FEW = 4096  # rows of the second table


def job_of(folder: Path, rows: int, part_bytes: int) -> ArrayJob:
    """A job over so many rows of x.npy, in parts of this size."""
    x = _arrays.opened(folder / "x.npy")[:rows]
    parts = _arrays.cut([x], 0, lambda _: 4 * (STEPS * FEATURES + UNITS), part_bytes)
    return ArrayJob([str(folder / "x.npy")], [str(folder / "y.npy")], None, 0, 0, parts)


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    """A client of worker processes of one thread each."""
    from distributed import Client

    with _running.local_cluster(workers) as found, Client(found) as client:
        yield client


def alone(job: ArrayJob, scorer: fastgru.Scorer, folder: Path) -> None:
    for _ in _running.here(job, scorer, range(len(job.parts)), lambda number: folder / f"done{number}"):
        pass


def by(client: Any, job: ArrayJob, scorer: fastgru.Scorer, folder: Path) -> None:
    numbers = range(len(job.parts))
    for _ in _running.by(client, job, scorer, numbers, lambda number: folder / f"done{number}"):
        pass


def seconds(run: Callable[..., None], *arguments: Any) -> float:
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


def peak() -> int:
    """The largest memory that this process had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def command(folder: Path, *options: str) -> float:
    """Seconds of `fastgru run` with its start."""
    given = [str(folder / "net.npz"), str(folder / "x.npy"), "-o", str(folder / "z.npy"), *options]
    return seconds(lambda: subprocess.run([sys.executable, "-m", "fastgru", "run", *given], check=True))


def main() -> None:
    """Measure, and print the tables."""
    layer = fastgru.GRU(UNITS, reset_after=True, recurrent_activation="sigmoid")
    layer.build((None, None, FEATURES))
    with tempfile.TemporaryDirectory() as name, cluster(1) as one, cluster(2) as two:
        folder = Path(name)
        layer.save(folder / "net.npz")
        np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(ROWS, STEPS, FEATURES)).astype("f4"))
        _arrays.created(folder / "y.npy", (ROWS, UNITS), "float32", [None] * 2)
        scorer = fastgru.Scorer(folder / "net.npz")
        ways: dict[str, Callable[..., None]] = {
            "one process": alone,
            "1 worker": lambda *given: by(one, *given),
            "2 workers": lambda *given: by(two, *given),
        }
        print(
            f"{ROWS} rows of {STEPS} timesteps, {FEATURES} features, {UNITS} units, {os.cpu_count()} CPUs\n"
        )
        times = turns(ways, job_of(folder, ROWS, PARTS[0]), scorer, folder)
        memory = {
            "one process": [peak()],
            "1 worker": list(one.run(peak).values()),
            "2 workers": list(two.run(peak).values()),
        }
        print(
            "| by | rows/s | timesteps/s | times one process, median (least to most) | largest memory, MB |"
        )
        print("|---|---|---|---|---|")
        for way, found in times.items():
            ratios = [alone / one for alone, one in zip(times["one process"], found, strict=True)]
            middle = statistics.median(found)
            print(
                f"| {way} | {ROWS / middle:,.0f} | {ROWS * STEPS / middle:,.0f} "
                f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
                f"| {', '.join(map(str, memory[way]))} |"
            )
        print(f"\n{FEW} rows in smaller parts\n")
        print(
            "| part, KB | parts | its computing, ms | what a worker adds, ms | 2 workers, times one process |"
        )
        print("|---|---|---|---|---|")
        for size in PARTS:
            job = job_of(folder, FEW, size)
            few = {way: statistics.median(found) for way, found in turns(ways, job, scorer, folder).items()}
            count = len(job.parts)
            cost = (few["1 worker"] - few["one process"]) / count
            print(
                f"| {size >> 10} | {count} | {1e3 * few['one process'] / count:.2f} | {1e3 * cost:.2f} "
                f"| {few['one process'] / few['2 workers']:.2f} |"
            )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layer.save(folder / "net.npz")
        np.save(folder / "x.npy", np.zeros((ROWS, STEPS, FEATURES), "f4"))
        print(
            f"\nfastgru run: {command(folder):.1f} s, --workers 2: {command(folder, '--workers', '2'):.1f} s"
        )


def turns(
    ways: dict[str, Callable[..., None]], job: ArrayJob, scorer: fastgru.Scorer, folder: Path
) -> dict[str, list[float]]:
    """Seconds of each way, which take turns; the first turn is not counted."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(TURNS + 1):
        for way, run in ways.items():
            taken = seconds(run, job, scorer, folder)
            if turn:
                found[way].append(taken)
    return found


if __name__ == "__main__":
    main()
