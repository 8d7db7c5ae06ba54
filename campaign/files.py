"""Commands that write files, on disks that are full or fail, and killed before each call of the system.

As a program, with faults.c loaded before the C library, it is the process whose children are the commands:

    python -m campaign.files SUBJECT SECONDS SEED FOLDER

A line of JSON for each fault that was not as it should be, and one with the number of trials.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from campaign.part import Given, Trials, environment, finished, missing, not_run, python
from campaign.record import Record

FAULTS = Path(__file__).with_name("faults.c")
SUBJECTS = ("calls that fail", "killed", "file size limit", "full disk")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EPERM)
DISK = 1 << 20  # bytes of the small disk
MOST_CALLS = 16  # of the system, that a command makes to write its file
STARTING = 60  # s


def preloaded(folder: Path) -> dict[str, str]:
    """The environment of a process that faults can be put into.

    Raises
    ------
    CalledProcessError
        If faults.c cannot be compiled.
    """
    library = folder / "faults.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", FAULTS, "-o", library, "-ldl"]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    return environment(LD_PRELOAD=str(library))


def run(given: Given) -> Iterator[Record]:
    if (why := missing("gcc")) or sys.platform != "linux":
        yield not_run("files", why or "needs Linux")
        return
    variables = preloaded(given.work)
    for subject in SUBJECTS:
        share = given.seconds / len(SUBJECTS)
        if subject == "full disk" and (why := cannot_mount(given.work)):
            yield not_run(subject, why)
            continue
        trials = Trials(subject, "commands", share, given.kept)
        command = python("-m", "campaign.files", subject, share, given.seed, given.work)
        done = finished(command, share + STARTING, env=variables)
        lines = [] if done is None else done.stdout.splitlines()
        *failed, ended = [json.loads(line) for line in lines] or [{}]
        trials.count = ended.get("trials", 0)
        if failed or done is None or done.returncode or not trials.count:
            trials.fail(str(failed[:1] or "it broke off"), "\n".join(lines) + (done.stderr if done else ""))
        yield trials.record()


def cannot_mount(folder: Path) -> str:
    """Why there can be no small disk; empty if there can."""
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    with mounted(place) as why:
        return why


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[str]:
    """A small disk at a folder; yields why there is none, or nothing."""
    if shutil.which("mount") is None:
        yield "needs mount"
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        yield "needs the right to mount"
        return
    try:
        yield ""
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


# ---- the process -----------------------------------------------------------------------------------


class Command(NamedTuple):
    """A command that writes a file.

    Attributes
    ----------
    arguments : list of str
        OUT among them.
    out : Path
    """

    arguments: list[str]
    out: Path


def commands(folder: Path, out: Path) -> list[Command]:
    """Commands on files in a folder, which write to another one."""
    import numpy as np

    import fastgru

    layer = fastgru.GRU(4, "tanh", "sigmoid", reset_after=True, return_sequences=True, name="gru")
    layer.build((None, None, 3))
    layer.save(folder / "gru.npz")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(64, 50, 3)).astype("f4"))
    model, x = str(folder / "gru.npz"), str(folder / "x.npy")
    made = [["run", model, x, "-o", "out.npy"], ["quantize", model, "-o", "out-int8.npz"]]
    made += [["convert", model, f"out{ending}"] for ending in (".npz", ".safetensors", ".onnx")]
    return [
        Command([str(out / one) if one.startswith("out") else one for one in each], out / each[-1])
        for each in made
    ]


class Outcome(NamedTuple):
    status: int  # of the process; negative: the signal
    said: str  # on standard error


def forked(act: Callable[[], None], arguments: list[str]) -> Outcome:
    """What becomes of a command in a child, after `act`."""
    from fastgru.cli import _main

    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 99
        try:
            act()
            status = _main.run(arguments)
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    return Outcome(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said)


def problem(command: Command, before: object, wanted: object, outcome: Outcome, killed: bool) -> str:
    """What is wrong with a command that was faulted; empty if nothing is."""
    after = content(command.out)
    others = [path for path in command.out.parent.iterdir() if path not in (command.out, ballast(command))]
    if after != before and after != wanted:
        return "the file is neither as it was nor whole"
    if killed:
        if outcome.status not in (0, -signal.SIGKILL):
            return f"it ended with {outcome.status}: {outcome.said}"
        whole = before is not None and [content(path) for path in others] == [wanted]
        return f"it left {others}" if others and not whole else ""
    if others:
        return f"it left {others}"
    if outcome.status == 0:
        return "" if after == wanted else "it has not written the file, and says nothing"
    if outcome.status != 2 or len(outcome.said.splitlines()) != 1 or "please report" in outcome.said:
        return f"it ended with {outcome.status}: {outcome.said}"
    if after == wanted != before and "fsync" not in outcome.said:
        return "it has written the file, and fails"
    return ""


def content(path: Path) -> object:
    """What is in a file; of an archive without the times of its members."""
    if not path.exists():
        return None
    data = path.read_bytes()
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return data
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def ballast(command: Command) -> Path:
    return command.out.parent / "ballast"


def fail_calls(rng: random.Random, folder: Path) -> Callable[[], None]:
    return environment_of(folder, FAULT_CALL=rng.randrange(1, MOST_CALLS), FAULT_ERROR=rng.choice(ERRORS))


def kill(rng: random.Random, folder: Path) -> Callable[[], None]:
    return environment_of(folder, FAULT_CALL=rng.randrange(1, MOST_CALLS))


def environment_of(folder: Path, **variables: int) -> Callable[[], None]:
    values = {name: str(value) for name, value in variables.items()} | {"FAULT_FOLDER": str(folder)}
    return lambda: os.environ.update(values)


def limit_size(rng: random.Random, folder: Path) -> Callable[[], None]:
    size = rng.randrange(60_000)
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def fill(rng: random.Random, folder: Path) -> Callable[[], None]:
    left = rng.randrange(60_000)
    with contextlib.suppress(OSError):
        (folder / "ballast").write_bytes(bytes(DISK))
    os.truncate(folder / "ballast", max(0, DISK - 8192 - left))
    return lambda: None


MAKE = dict(zip(SUBJECTS, (fail_calls, kill, limit_size, fill), strict=True))


def main(subject: str, seconds: str, seed: str, work: str) -> None:
    from fastgru.cli import _main

    end = time.monotonic() + float(seconds)
    rng = random.Random(f"{subject} {seed}")
    place = Path(work, "disk" if subject == "full disk" else "out").resolve()
    place.mkdir(exist_ok=True)
    given = Path(work, "given").resolve()
    given.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(given)
    with mounted(place) if subject == "full disk" else contextlib.nullcontext():
        each = commands(given, place)
        wanted = {}
        for command in each:
            clear(place)
            with contextlib.redirect_stdout(io.StringIO()):
                assert _main.run(command.arguments) == 0  # here, to import what it needs
            assert forked(lambda: None, command.arguments).status == 0
            wanted[command.out] = content(command.out)
        faulted = 0
        for trials in itertools.count(1):  # noqa: B007 - their number is told
            clear(place)
            command = rng.choice(each)
            before = rng.choice([None, b"old"])
            if before is not None:
                command.out.write_bytes(before)
            outcome = forked(MAKE[subject](rng, place), command.arguments)
            faulted += outcome.status != 0
            wrong = problem(command, before, wanted[command.out], outcome, subject == "killed")
            if wrong:
                print(json.dumps([command.arguments, before is not None, wrong]), flush=True)
            if time.monotonic() > end:
                break
        clear(place)
    print(json.dumps({"trials": trials, "faulted": faulted}))


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
