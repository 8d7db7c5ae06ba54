"""Judges files by seed, of any kind: mutants of real files, and what the generators make up.

As a program it repeats a seed, runs as many as are wanted, or goes round all kinds for a time:

    python tests/formats/hostile/campaign.py KIND FIRST_SEED COUNT
    python tests/formats/hostile/campaign.py all --minutes MINUTES
    python tests/formats/hostile/campaign.py each < KINDS

The last one judges as many files of each kind as the tests do. A line of JSON for each seed that fails; the
last line has what became of the others. With `--files FOLDER` the files that fail are kept there.
"""

import argparse
import functools
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # the folder of tests, as for pytest

from formats.hostile import judging, mutants, real_files
from formats.hostile.generators import (
    archives,
    hdf5,
    keras,
    native,
    npy,
    onnx,
    onnx_loops,
    pickles,
    safetensors,
    tfjs,
)

from fastgru.formats import _hdf5

BATCH = 250  # files that one process judges at most


class Kind(NamedTuple):
    """A kind of files.

    Attributes
    ----------
    make : callable
        The file of a seed. Of mutants, with the folder of real files as a second argument.
    count : int
        How many files the tests judge.
    real : RealFile or None
        What the mutants are of.
    hostile : tuple of str
        The hostile productions of a generator.
    same_weights : bool
        Whether all archives have the same HDF5 file in them, which is opened once.
    """

    make: Callable[..., Any]
    count: int
    real: Any = None
    hostile: tuple[str, ...] = ()
    same_weights: bool = False


def mutant_of(name, seed, folder):
    real = real_files.FILES[name]
    return mutants.mutant(folder / real.name, seed, real.arguments)


def mutants_of(name, count):
    return Kind(functools.partial(mutant_of, name), count, real_files.FILES[name])


def generated_by(generator, hostile, count, same_weights=False):
    """What a generator makes: a function of a random.Random."""
    name = f"{generator.__module__} {generator.__name__}"

    def make(seed):
        return generator(random.Random(f"{name} {seed}"))

    return Kind(make, count, hostile=tuple(hostile), same_weights=same_weights)


KINDS = {
    "mutants-tf_keras-h5": mutants_of("tf_keras-h5", 55),
    "mutants-tf_keras-h5-weights": mutants_of("tf_keras-h5-weights", 35),
    "mutants-tf_keras-keras": mutants_of("tf_keras-keras", 70),
    "mutants-tf_keras-weights-h5": mutants_of("tf_keras-weights-h5", 22),
    "mutants-keras3-keras": mutants_of("keras3-keras", 70),
    "mutants-keras3-weights-h5": mutants_of("keras3-weights-h5", 22),
    "mutants-torch-zip": mutants_of("torch-zip", 750),
    "mutants-torch-legacy": mutants_of("torch-legacy", 750),
    "mutants-torch-checkpoint": mutants_of("torch-checkpoint", 300),
    "mutants-torch-module": mutants_of("torch-module", 400),
    "mutants-torch-script": mutants_of("torch-script", 400),
    "mutants-safetensors": mutants_of("safetensors", 1000),
    "mutants-npz": mutants_of("npz", 1000),
    "mutants-onnx": mutants_of("onnx", 1000),
    "mutants-onnx-folded": mutants_of("onnx-folded", 1000),
    "mutants-onnx-external": mutants_of("onnx-external", 1000),
    "mutants-native": mutants_of("native", 1000),
    "mutants-native-bidirectional": mutants_of("native-bidirectional", 1000),
    "mutants-native-stack": mutants_of("native-stack", 1000),
    "pickles-zipped": generated_by(pickles.zipped, pickles.OF_ARCHIVES, 1200),
    "pickles-legacy": generated_by(pickles.legacy, pickles.OF_LEGACY, 1200),
    "pickles-torchscript": generated_by(pickles.torchscript, pickles.OF_TORCHSCRIPT, 800),
    "archives": generated_by(archives.archive, archives.PRODUCTIONS, 1500),
    "onnx": generated_by(onnx.model, onnx.PRODUCTIONS, 800),
    "onnx-loops": generated_by(onnx_loops.model, onnx_loops.PRODUCTIONS, 800),
    "safetensors": generated_by(safetensors.file, safetensors.PRODUCTIONS, 1000),
    "npy": generated_by(npy.file, npy.PRODUCTIONS, 1000),
    "native": generated_by(native.file, native.PRODUCTIONS, 1000),
    "tfjs": generated_by(tfjs.model, tfjs.PRODUCTIONS, 500),
    "keras-archives": generated_by(keras.archive, keras.PRODUCTIONS, 600, same_weights=True),
    "keras-h5": generated_by(keras.h5, keras.OF_H5, 12),
    "hdf5": generated_by(hdf5.file, hdf5.PRODUCTIONS, 24),
}


class Report(NamedTuple):
    """What became of the file of a seed.

    Attributes
    ----------
    seed : int
    outcome : str
        "loaded", the message of a FormatError, or what failed.
    hostile : list of str
        The hostile productions that the file was made with.
    memory : int
        Bytes that it took besides those in proportion to the file.
    """

    seed: int
    outcome: str
    hostile: list
    memory: int

    @property
    def failed(self):
        return self.outcome.startswith("FAILED")


def reports(kind, seeds, kept=None):
    """Judge the files of seeds in processes of their own, one after the other.

    Parameters
    ----------
    kind : Kind
    seeds : range
    kept : Path, optional
        A folder for files that fail.

    Yields
    ------
    Report
    """
    while seeds:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            judge_all(kind, seeds[:BATCH], writing, kept)
        os.close(writing)
        seed = seeds[0]  # the first one that nothing is known of
        with os.fdopen(reading) as lines:
            for line in lines:
                seed, *done = json.loads(line)
                if done:
                    report = Report(seed, *done)
                    if (
                        kind.hostile
                        and not report.hostile
                        and not report.failed
                        and report.outcome != "loaded"
                    ):
                        refused = f"FAILED: nothing hostile is in it: {report.outcome}"
                        report = report._replace(outcome=refused)
                    yield report
                    seed += 1
        _, status = os.waitpid(child, 0)
        if status:
            yield Report(seed, f"FAILED: the process ended with status {status}", [], 0)
            seed += 1
        seeds = range(seed, seeds[-1] + 1)


def judge_all(kind, seeds, report, kept):
    """In a process of its own: the seed before each file, and what became of it after."""

    def say(*what):
        os.write(report, json.dumps(what).encode() + b"\n")

    try:
        watch = judging.Watch()
        if kind.same_weights:
            _hdf5.open_tree = judging.KeptOpen()
        judging.confine()
        with tempfile.TemporaryDirectory() as folder:
            for seed in seeds:
                say(seed)
                try:
                    file = kind.make(seed)
                except Exception as error:
                    traceback.print_exc(limit=-10)
                    say(seed, f"FAILED: it cannot be made: {type(error).__name__}: {error}", [], 0)
                    continue
                contents = {Path(folder, file.name): file.content}
                contents |= {Path(folder, name): content for name, content in file.beside.items()}
                for path, content in contents.items():
                    path.write_bytes(content)
                try:
                    outcome, memory = judging.judge_confined(watch, list(contents), file.arguments)
                except BaseException as error:
                    outcome, memory = f"FAILED: {type(error).__name__}: {error}", 0
                    if kept:
                        (kept / f"{seed}-{file.name}").write_bytes(file.content)
                say(seed, outcome[:2000], file.hostile, memory)
                for path in contents:
                    path.unlink()
        os._exit(0)
    except BaseException:
        traceback.print_exc(limit=-10)
        os._exit(1)


def kind_of(text):
    """A message without what is of one file alone."""
    return "".join("#" if c.isdigit() else c for c in text)[:60]


def campaign(kind, seeds, kept=None):
    """Judge the files of seeds: a line of JSON for each that fails, and one of what became of the others."""
    outcomes, hostile, failures, memory = Counter(), Counter(), 0, 0
    for report in reports(kind, seeds, kept):
        if report.failed:
            failures += 1
            print(json.dumps([report.seed, report.outcome]), flush=True)
        else:
            outcomes[kind_of(report.outcome)] += 1
            hostile.update(report.hostile)
            memory = max(memory, report.memory)
    ended = {"outcomes": dict(outcomes.most_common()), "hostile": hostile, "memory": memory}
    print(json.dumps(ended))
    return failures


class RealFiles:
    """A folder of real files for each writer, written when it is first asked for.

    Parameters
    ----------
    folder : Path
        That all of them are in.
    """

    def __init__(self, folder):
        self.folder = folder

    def __getitem__(self, writer):
        folder = self.folder / writer
        if not folder.exists():
            folder.mkdir()
            real_files.write(writer, folder)
        return folder

    def kind(self, name):
        """A kind, whose files are of a seed alone."""
        kind = KINDS[name]
        if kind.real is None:
            return kind
        return kind._replace(make=functools.partial(kind.make, folder=self[kind.real.writer]))


class Campaigns:
    """This file as a program that waits for kinds, as it takes a second to start one.

    Parameters
    ----------
    folder : Path
        Of real files, by writer.
    """

    def __init__(self, folder):
        command = [sys.executable, __file__, "each", "--real", folder]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def run(self, name):
        """What became of the first seeds of a kind, none of which may fail."""
        print(name, file=self._process.stdin, flush=True)
        failures = []
        for line in self._process.stdout:
            found = json.loads(line)
            if isinstance(found, dict):
                break
            failures.append(found)
        else:
            raise AssertionError(f"the program ended with status {self._process.wait()}, before {name} did")
        repeat = f"repeat with: python tests/formats/hostile/campaign.py {name} SEED"
        assert not failures, f"seeds that fail: {failures}; {repeat}"
        return found

    def close(self):
        self._process.communicate()


def round_robin(real, minutes, kept):
    """Judge files of all kinds, with seeds that nobody has had, until the time is over."""
    end, told = time.monotonic() + 60 * minutes, time.monotonic()
    firsts = dict.fromkeys(KINDS, random.SystemRandom().randrange(1 << 40))
    failures, done, memory = 0, Counter(), {}
    for name in itertools.cycle(KINDS):
        if time.monotonic() > end:
            break
        count = 10 if KINDS[name].count < 100 else BATCH  # about as long
        seeds = range(firsts[name], firsts[name] + count)
        firsts[name] += count
        for report in reports(real.kind(name), seeds, kept):
            done[name] += 1
            memory[name] = max(memory.get(name, 0), report.memory)
            if report.failed:
                failures += 1
                print(json.dumps([name, report.seed, report.outcome]), flush=True)
        if time.monotonic() > told + 30:
            told = time.monotonic()
            print(
                f"{done.total()} files, {failures} failures, {(end - told) / 60:.0f} minutes left", flush=True
            )
    print(json.dumps({"files": done, "memory": memory}))
    return failures


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Judge files by seed.", epilog=f"kinds: {', '.join(KINDS)}")
    parser.add_argument("kind", choices=[*KINDS, "all", "each"], metavar="KIND")
    parser.add_argument("first", type=int, nargs="?", metavar="FIRST_SEED")
    parser.add_argument("count", type=int, nargs="?", default=1, metavar="COUNT")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--files", type=Path, help="a folder for files that fail", metavar="FOLDER")
    parser.add_argument("--real", type=Path, help="a folder of real files, by writer", metavar="FOLDER")
    given = parser.parse_args(arguments)
    if given.files:
        given.files.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as own:
        real = RealFiles(given.real or Path(own))
        judging.prepare()
        if given.kind == "all":
            return round_robin(real, given.minutes, given.files)
        if given.kind == "each":
            kinds = ((real.kind(name), KINDS[name].count) for name in map(str.strip, sys.stdin))
            return sum(campaign(kind, range(count), given.files) for kind, count in kinds)
        if given.first is None:
            parser.error("FIRST_SEED is missing")
        seeds = range(given.first, given.first + given.count)
        return campaign(real.kind(given.kind), seeds, given.files)


if __name__ == "__main__":
    sys.exit(main() != 0)
