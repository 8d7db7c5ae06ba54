"""Kernels stay within their arrays and have the same bits on every instruction set, by within_bounds.c."""

import os
import re
import shutil
from pathlib import Path

import pytest
from compilers import EMULATE, GNU, HERE, SCALAR, USUAL, WARNINGS, include, needs_emulator, run

import fastgru
from fastgru import _kernels

pytestmark = pytest.mark.outside

SANITIZING = HERE / "sanitizing-gcc"
LINK = [*include(), HERE / "within_bounds.c"]


def words(program):
    """What the program prints: instruction sets and hashes. Sanitizers report where a trap was."""
    return run(program, env=os.environ | {"ASAN_OPTIONS": "handle_sigill=1"}).stdout.split()


@pytest.fixture(scope="module")
def usual(engine, tmp_path_factory):
    """The words of an ordinary build on this machine."""
    program = tmp_path_factory.mktemp("usual") / "program"
    run(*USUAL, *LINK, *engine(*USUAL), "-o", program, "-lm")
    return words(program)


@pytest.mark.parametrize(("flags", "isas"), [([], _kernels.isas()), ([SCALAR], ("generic",))])
def test_kernels_stay_within_their_arrays(engine, flags, isas, tmp_path):
    command = [SANITIZING, *GNU, *WARNINGS, *flags]
    run(*command, *LINK, *engine(*command), "-o", tmp_path / "program", "-lm")
    assert words(tmp_path / "program")[::2] == list(isas)


def test_tiles_for_32_registers_give_the_same_bits(engine, usual, tmp_path_factory):
    # those of AVX-512 and NEON, on any machine: no result depends on how many registers there really are
    folder = tmp_path_factory.mktemp("registers") / "src"
    shutil.copytree(Path(fastgru.get_sources()[0]).parent, folder)
    changed = []
    for source in sorted(folder.glob("*.c")):
        text, count = re.subn("define REGISTERS 16", "define REGISTERS 32", source.read_text())
        source.write_text(text)
        changed += count * [source]
    assert len(changed) == 3  # other files do not know of it
    objects = [path for path in engine(*USUAL) if path.stem not in {source.stem for source in changed}]
    objects += engine(*USUAL, sources=list(map(str, changed)))
    program = folder / "program"
    run(*USUAL, *LINK, *objects, "-o", program, "-lm")
    assert words(program) == usual


# ---- other machines ---------------------------------------------------------------------------------

ARM = ["aarch64-linux-gnu-gcc", "qemu-aarch64"]
needs_fused = pytest.mark.skipif(
    not _kernels.packed_isas(), reason="no kernels here whose bits would be the same"
)


@needs_fused
@pytest.mark.skipif(not all(map(shutil.which, ARM)), reason=f"needs {' and '.join(ARM)}")
def test_arm64_has_the_same_bits(engine, usual, tmp_path):
    command = [ARM[0], "-O1", *GNU, *WARNINGS]
    run(*command, "-static", *LINK, *engine(*command), "-o", tmp_path / "program", "-lm")
    assert run(ARM[1], tmp_path / "program").stdout.split() == ["neon", usual[1]]


@needs_fused
def test_avx_512_has_the_same_bits(engine, usual, tmp_path):
    needs_emulator()
    fast = ["gcc", "-O3", *GNU, *WARNINGS]
    emulated = next(file for file in fastgru.get_sources() if file.endswith("avx512.c"))
    others = [path for path in engine(*USUAL) if path.stem != "avx512"]
    objects = [*engine(*fast, sources=[emulated]), *others]
    run(*fast, "-static", *LINK, *objects, "-o", tmp_path / "program", "-lm")
    assert run(EMULATE, tmp_path / "program", "best").stdout.split() == ["avx512", usual[1]]
