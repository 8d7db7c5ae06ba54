"""Fuzzes targets with coverage, by atheris: the program behind the parts that do so.

    python -m campaign.fuzzed FOLDER KEPT SECONDS SEED TARGET...

FOLDER has a folder of inputs so far for each target, to which seeds are written if it is empty, and gets its
log; KEPT gets inputs that crash. A line of JSON for each target: its name and the status of its process.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import random
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from campaign.part import Given, Trials, finished, not_run, python
from campaign.record import Record
from campaign.targets import command, protocol, readers
from campaign.targets.target import Target

TARGETS: dict[str, Target] = {**readers.TARGETS, **command.TARGETS, **protocol.TARGETS}
STARTING = 120  # s that a target may take beyond its time, to start and to write its seeds
TIMEOUT = 300  # s of one input, on the clock of a machine that may be busy
CHANGED = 0.5  # share of inputs that stay sound


def slug(name: str) -> str:
    return name.replace(" ", "-")


def main(folder: str, kept: str, seconds: str, seed: str, *names: str) -> None:
    """Fuzz targets one after the other, each in a fork: what they share is instrumented once."""
    import atheris

    modules = {module for name in names for module in TARGETS[name].modules}
    with atheris.instrument_imports(include=[*modules]):
        for module in sorted(modules):
            importlib.import_module(module)
    for name in names:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            log = os.open(Path(folder, f"{slug(name)}.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            fuzz(name, Path(folder, slug(name)).resolve(), Path(kept).resolve(), float(seconds), int(seed))
        _, status = os.waitpid(child, 0)
        print(json.dumps([name, os.waitstatus_to_exitcode(status)]), flush=True)


def fuzz(name: str, corpus: Path, kept: Path, seconds: float, seed: int) -> None:
    """Be the fuzzer of a target, until its time is over or something is found."""
    import atheris

    target = TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for given, data in target.seeds().items():
            (corpus / given).write_bytes(data)
    one = target.prepare()

    def mutate(data: bytes, largest: int, number: int) -> bytes:
        rng = random.Random(number)
        if target.change is not None and rng.random() < CHANGED:
            try:
                if data[:4] == readers.ZIP and rng.random() < 0.5:
                    changed = readers.with_member(data, rng, lambda part: atheris.Mutate(part, largest))
                else:
                    changed = target.change(data, rng)
                return changed[:largest]
            except Exception:  # it is not sound: any bytes will do
                pass
        return atheris.Mutate(data, largest)

    options = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-timeout={TIMEOUT}",
        f"-artifact_prefix={kept / slug(name)}-",
        f"-seed={seed or 1}",
        "-max_len=65536",
        "-print_final_stats=1",
        "-rss_limit_mb=4096",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


def run(targets: Mapping[str, Target], given: Given) -> Iterator[Record]:
    """Fuzz each of some targets for its share of the time."""
    if importlib.util.find_spec("atheris") is None:
        yield from (not_run(name, "needs atheris") for name in targets)
        return
    share = given.seconds / len(targets)
    command = python("-m", "campaign.fuzzed", given.work, given.kept, share, given.seed, *targets)
    done = finished(command, given.seconds + len(targets) * (STARTING + TIMEOUT))
    lines = [] if done is None else [line for line in done.stdout.splitlines() if line.startswith("[")]
    statuses = dict(map(json.loads, lines))
    for name in targets:
        trials = Trials(name, "inputs", share, given.kept)
        log = given.work / f"{slug(name)}.log"
        said = log.read_text(errors="replace") if name in statuses else ""
        read_log(said, trials)
        if name not in statuses:
            trials.fail("the fuzzer did not end in time", "" if done is None else done.stderr[-20_000:])
        elif statuses[name]:
            found = re.findall(r"Uncaught Python exception: ===\n(.*)", said) or said.splitlines()[-1:]
            trials.fail(" ".join(found) or f"it ended with status {statuses[name]}", said[-20_000:])
        elif not trials.count:
            trials.fail("no input was tried", said[-20_000:])
        yield trials.record()._replace(seconds=round(share, 1))


def read_log(said: str, trials: Trials) -> None:
    """What libFuzzer says of itself: inputs run, and places in the code that they have reached."""
    executed = re.findall(r"stat::number_of_executed_units:\s+(\d+)|^#(\d+)\s", said, re.M)
    trials.count = max((int(a or b) for a, b in executed), default=0)
    reached = re.findall(r"cov: (\d+)", said)
    if reached:
        trials.figures["places reached"] = int(reached[-1])


if __name__ == "__main__":
    main(*sys.argv[1:])
