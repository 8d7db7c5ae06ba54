"""The vocabularies of vectors: every verb of each, lane by lane against plain C. verbs.h has the checks."""

import shutil
from pathlib import Path

import pytest
from compilers import EMULATE, GNU, HERE, SANITIZED, SCALAR, USUAL, WARNINGS, include, needs_emulator, run

import fastgru
from fastgru import _kernels

pytestmark = pytest.mark.outside

ARM = ["aarch64-linux-gnu-gcc", "qemu-aarch64"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the engine's files, each of whose instruction sets checks its verbs and does nothing else."""
    folder = tmp_path_factory.mktemp("verbs") / "src"
    shutil.copytree(Path(fastgru.get_sources()[0]).parent, folder)
    shutil.copy(HERE / "verbs.h", folder / "kernels.h")
    return folder


def passed(folder, compiler, *emulator, arguments=()):
    """The instruction sets whose verbs did what they should; what did not is on standard output."""
    sources = [path for path in folder.glob("*.c") if path.stem not in ("layer", "network")]
    program = folder / "program"
    run(*compiler, "-ffp-contract=off", *include(folder), HERE / "verbs.c", *sources, "-o", program, "-lm")
    finished = run(*emulator, program, *arguments, check=False)
    assert finished.returncode == 0, finished.stdout
    return tuple(finished.stdout.split())


def test_every_verb_does_what_plain_c_does(folder):
    assert passed(folder, USUAL) == _kernels.isas()


def test_so_it_does_in_one_lane(folder):
    assert passed(folder, [*USUAL, SCALAR]) == ("generic",)


def test_so_it_does_under_sanitizers(folder):
    assert passed(folder, SANITIZED) == _kernels.isas()


@pytest.mark.skipif(not all(map(shutil.which, ARM)), reason=f"needs {' and '.join(ARM)}")
def test_so_it_does_on_arm64(folder):
    assert passed(folder, [ARM[0], "-O1", "-static", *GNU, *WARNINGS], ARM[1]) == ("neon",)


def test_so_it_does_with_avx_512(folder):
    needs_emulator()
    compiler = ["gcc", "-O1", "-static", *GNU, *WARNINGS]
    assert passed(folder, compiler, EMULATE, arguments=["emulated"]) == ("avx512", "avx2", "sse2")
