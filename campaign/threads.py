"""Calls with helpers under ThreadSanitizer, and forks in the middle of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from campaign.part import ROOT, TESTS, Given, Trials, environment, finished, missing, not_run, python
from campaign.record import Record

CALLS = 100  # of one process
PATIENCE = 900  # s that a process may take
COMPILING = 900  # s
FLAGS = ["-O1", "-std=gnu11", "-ffp-contract=off", "-fsanitize=thread", "-DFASTGRU_SCALAR=1"]


def run(given: Given) -> Iterator[Record]:
    if why := missing("gcc"):
        yield not_run("ThreadSanitizer", why)
    else:
        yield sanitized(given, given.seconds / 2)
    if hasattr(os, "fork"):
        yield forked(given, given.seconds / 2)
    else:
        yield not_run("forks", "needs fork")


def sanitized(given: Given, seconds: float) -> Record:
    """tests/engine/threads.c, which compares the bits of calls with helpers and without."""
    program = given.work / "threads"
    source = TESTS / "engine" / "threads.c"
    include = [f"-I{ROOT / 'include'}", f"-I{ROOT / 'src'}"]
    sources = sorted(ROOT.glob("src/*.c"))
    compiled = finished(
        ["gcc", *FLAGS, *include, source, *sources, "-lm", "-pthread", "-o", program], COMPILING
    )
    if compiled is None or compiled.returncode:
        return not_run("ThreadSanitizer", "gcc cannot build it")
    trials = Trials("ThreadSanitizer", "calls", seconds, given.kept)
    helped = lost = 0
    while trials.going:
        first = (given.seed + trials.count) % (1 << 31)
        done = finished([program, first, CALLS, "small"], PATIENCE)
        if done is None or done.returncode:
            trials.fail(f"seed {first}", "it hangs" if done is None else done.stdout + done.stderr)
            break
        counts = re.search(r"(\d+) units helped, (\d+) lost", done.stdout)
        helped, lost = helped + int(counts[1]), lost + int(counts[2])
        trials.count += CALLS
    trials.figures = {"units helped": helped, "helpers left behind": lost}
    return trials.record()


def forked(given: Given, seconds: float) -> Record:
    """The program of tests/networks/test_processes.py, with helpers."""
    from networks import test_processes

    trials = Trials("forks", "children", seconds, given.kept)
    rng, batches, folder = given.rng(), 3, Path(given.work)
    while trials.going:
        kind = rng.choice(test_processes.KINDS)
        number = str(rng.choice([1, 2, 4]))
        command = python("-W", "ignore", "-c", test_processes.FORKED, kind, batches)
        done = finished(
            command, PATIENCE, cwd=folder, env=environment(FASTGRU_NUM_THREADS=number, OMP_NUM_THREADS=number)
        )
        if done is None or done.stdout != "0\n":
            trials.fail(
                f"{kind}, {number} threads", "it hangs" if done is None else done.stdout + done.stderr
            )
        trials.count += 10 * batches
    return trials.record()
