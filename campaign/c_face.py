"""The C face under libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer: c_face.c."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from campaign import fuzzed
from campaign.part import ROOT, TESTS, Given, Trials, finished, missing, not_run
from campaign.record import Record

SUBJECT = "C face"
PROGRAM = Path(__file__).with_suffix(".c")
CORPUS = Path(__file__).parent / "corpus" / "c_face.txt"  # an input a line, in hexadecimal
COMPILING = 1200  # s that it may take
TIMEOUT = 300  # s of one input, on the clock of a machine that may be busy
SHORTEST = 10  # s
FLAGS = ["-std=gnu11", "-O1", "-g1", "-ffp-contract=off", "-fno-math-errno", f"-I{ROOT / 'include'}"]
SANITIZERS = "address,undefined"
# What has no branches but for sizes is compiled without coverage, by gcc: Clang 14 takes ten minutes for it.
KERNELS = {"avx512", "avx2", "sse2", "neon"}


def run(given: Given) -> Iterator[Record]:
    if why := missing("clang", "gcc"):
        yield not_run(SUBJECT, why)
        return
    begun = time.monotonic()
    try:
        program = built(given.work)
    except CannotBuildError as error:
        yield not_run(SUBJECT, f"clang cannot build it: {error}")
        return
    left = given.seconds - (time.monotonic() - begun)
    yield fuzz(program, given._replace(seconds=max(SHORTEST, left)))


class CannotBuildError(Exception):
    """The fuzzer cannot be compiled here."""


def built(folder: Path) -> Path:
    """The fuzzer; the object of a file is made anew if anything of the engine has changed."""
    headers = sorted([*ROOT.glob("include/fastgru/*.h"), *ROOT.glob("src/*.h")])
    known = b"".join(path.read_bytes() for path in headers)
    objects = []
    for source in [*sorted(ROOT.glob("src/*.c")), PROGRAM]:
        kernels = source.stem in KERNELS
        compiler = [TESTS / "engine" / "sanitizing-gcc"] if kernels else ["clang"]
        flags = [] if kernels else [f"-fsanitize=fuzzer-no-link,{SANITIZERS}", "-fno-sanitize-recover=all"]
        command = [*compiler, *FLAGS, *flags, "-c", source]
        text = repr(command).encode() + known + source.read_bytes()
        target = folder / f"{source.stem}-{hashlib.sha256(text).hexdigest()[:16]}.o"
        objects.append(target)
        if not target.exists():
            for old in folder.glob(f"{source.stem}-*.o"):
                old.unlink()
            compiled([*command, "-o", target])
    program = folder / "c_face"
    compiled(["clang", f"-fsanitize=fuzzer,{SANITIZERS}", *objects, "-lm", "-pthread", "-o", program])
    return program


def compiled(command: list[object]) -> None:
    done = finished(command, COMPILING)
    if done is None or done.returncode:
        raise CannotBuildError("it takes too long" if done is None else done.stderr[-300:])


def fuzz(program: Path, given: Given) -> Record:
    corpus = given.work / "corpus"
    corpus.mkdir(exist_ok=True)
    for i, line in enumerate(CORPUS.read_text().split() if CORPUS.exists() else []):
        (corpus / f"kept-{i}").write_bytes(bytes.fromhex(line))
    trials = Trials(SUBJECT, "calls", given.seconds, given.kept)
    options = [
        f"-max_total_time={max(1, round(given.seconds))}",
        f"-timeout={TIMEOUT}",
        f"-artifact_prefix={given.kept / 'c_face'}-",
        f"-seed={given.seed or 1}",
        "-max_len=120",
        "-len_control=0",
        "-print_final_stats=1",
        "-detect_leaks=0",
    ]
    done = finished([program, *options, corpus], given.seconds + 10 * TIMEOUT)
    if done is None:
        trials.fail("it did not end in time")
        return trials.record()
    fuzzed.read_log(done.stderr, trials)
    if done.returncode:
        lines = done.stderr.splitlines()
        said = [line for line in lines if line.startswith(("SUMMARY", "c_face.c"))] or lines[-1:]
        trials.fail(" ".join(said), done.stderr[-20_000:])
    return trials.record()
