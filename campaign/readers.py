"""Readers of files under a fuzzer with coverage, and files of grammars."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from campaign import fuzzed
from campaign.part import TESTS, Given, Trials, finished, python
from campaign.record import Record
from campaign.targets.readers import REAL, TARGETS

OF_GRAMMARS = 0.2  # of the time


def run(given: Given) -> Iterator[Record]:
    yield from fuzzed.run(TARGETS, given._replace(seconds=given.seconds * (1 - OF_GRAMMARS)))
    yield grammars(given, given.seconds * OF_GRAMMARS)


def grammars(given: Given, seconds: float) -> Record:
    """The campaign of tests/formats/hostile, whose judge counts memory and time of each file, too."""
    trials = Trials("files of grammars", "files", seconds, given.kept)
    program = TESTS / "formats" / "hostile" / "campaign.py"
    folders = "--files", given.kept / "grammars", "--real", REAL
    command = python(program, "all", "--minutes", seconds / 60, *folders)
    done = finished(command, seconds + 600)
    if done is None:
        trials.fail("it did not end in time")
        return trials.record()
    ended = re.findall(r'^\{"files".*', done.stdout, re.M)
    if ended:
        files = json.loads(ended[-1])["files"]
        trials.count = sum(files.values())
        trials.figures["kinds"] = len(files)
    if done.returncode or not ended:
        failed = [line for line in done.stdout.splitlines() if line.startswith("[")]
        trials.fail(" ".join(failed) or "it ended early", done.stdout[-20_000:] + done.stderr[-20_000:])
    return trials.record()
