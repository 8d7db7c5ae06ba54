"""Frames on a clock beside busy loops, with what a service may set: python -m benchmarks.frames.

Every frame is due at its time. Measured is how long after that its result is there: by default, with a
real-time priority (`chrt --fifo 10`), on a CPU that no busy loop may use, and with quotas of CPU time. Needs
Linux and root; quotas need version 1 of the control groups. Four minutes, while nothing else runs.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import fastgru
from benchmarks import busy

GROUP = Path("/sys/fs/cgroup/cpu/fastgru")
PERIOD, SECONDS = 0.01, 3.0
LAYERS = [(1, 512), (100, 256)]  # timesteps and units of a frame, of one row
DEFAULT, PRIORITY, OWN = "default", "priority", "own CPU"
QUOTAS = {"half a CPU": 0.5, "a tenth of a CPU": 0.1}


def lateness(setting: str, timesteps: int, units: int, threads: int) -> tuple[list[float], float]:
    """Milliseconds after its due time of each frame's result, and the CPU time of the process in percent."""
    if setting == PRIORITY:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    elif setting == OWN:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    elif setting in QUOTAS:
        (GROUP / "cgroup.procs").write_text(str(os.getpid()))
    layer = fastgru.GRU(units, reset_after=True, recurrent_activation="sigmoid", num_threads=threads)
    x = np.random.default_rng(0).normal(size=(1, timesteps, units)).astype("float32")
    for _ in range(20):
        layer(x)
    late, cpu, begin = [], time.process_time(), time.perf_counter()
    for frame in range(1, round(SECONDS / PERIOD) + 1):
        due = begin + frame * PERIOD
        time.sleep(max(due - time.perf_counter(), 0.0))
        layer(x)
        late.append(1e3 * (time.perf_counter() - due))
    return late, 100 * (time.process_time() - cpu) / (time.perf_counter() - begin)


def quota(cpus: float) -> None:
    """Give the processes of GROUP this much CPU time."""
    GROUP.mkdir(exist_ok=True)
    period = int((GROUP / "cpu.cfs_period_us").read_text())
    (GROUP / "cpu.cfs_quota_us").write_text(str(round(period * cpus)))


def measure(setting: str, timesteps: int, units: int, count: int) -> None:
    """Measure one and two threads beside this many loops, each in a process of its own, and print a line."""
    everywhere = os.sched_getaffinity(0)
    if setting == OWN:
        os.sched_setaffinity(0, everywhere - {max(everywhere)})  # the loops have it from here
    line = f"1x{timesteps}x{units}x{units}, {setting}, {count} busy loops"
    with busy.loops(count):
        os.sched_setaffinity(0, everywhere)
        for threads in (1, 2):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                late, cpu = process.submit(lateness, setting, timesteps, units, threads).result()
            median, p99, largest = np.percentile(late, [50, 99, 100])
            line += f"; {threads} threads {median:.2f} {p99:.2f} {largest:.2f}, {cpu:.0f} % of a CPU"
    print(line, flush=True)


def main() -> None:
    """Measure all settings."""
    print("milliseconds from when a frame is due until its result is there: median, 99th percentile, largest")
    for timesteps, units in LAYERS:
        for setting in (DEFAULT, PRIORITY, OWN, *QUOTAS):
            if setting in QUOTAS:
                quota(QUOTAS[setting])
            for count in (0, 1, 2):
                measure(setting, timesteps, units, count)
    GROUP.rmdir()


if __name__ == "__main__":
    main()
