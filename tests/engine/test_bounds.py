"""Kernels stay within their arrays and have the same bits on every instruction set, by within_bounds.c."""

import os
import re
import shutil
from pathlib import Path

import pytest
from compilers import EMULATE, GNU, HERE, SANITIZED, SCALAR, USUAL, WARNINGS, include, needs_emulator, run

import fastgru
from fastgru import _kernels

pytestmark = pytest.mark.outside

LINK = [*include(), HERE / "within_bounds.c"]


def hashes(*program):
    """What the program prints: instruction sets with their hashes. Sanitizers report where a trap was."""
    lines = run(*program, env=os.environ | {"ASAN_OPTIONS": "handle_sigill=1"}).stdout.splitlines()
    return dict(map(str.split, lines))


@pytest.fixture(scope="module")
def usual(engine, tmp_path_factory):
    """The hashes of an ordinary build on this machine."""
    program = tmp_path_factory.mktemp("usual") / "program"
    run(*USUAL, *LINK, *engine(*USUAL), "-o", program, "-lm")
    return hashes(program)


@pytest.mark.parametrize(("flags", "isas"), [([], _kernels.isas()), ([SCALAR], ("generic",))])
def test_kernels_stay_within_their_arrays(engine, flags, isas, tmp_path):
    command = [SANITIZED[0], *GNU, *WARNINGS, *flags]
    run(*command, *LINK, *engine(*SANITIZED, *flags), "-o", tmp_path / "program", "-lm")
    assert tuple(hashes(tmp_path / "program")) == tuple(isas)


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
    assert hashes(program) == usual


# ---- this machine, and others -----------------------------------------------------------------------

ARM = ["aarch64-linux-gnu-gcc", "qemu-aarch64"]


@pytest.fixture(scope="module")
def fused(usual):
    """The hash of every instruction set that fuses multiply-adds."""
    if not _kernels.packed_isas():
        pytest.skip("no kernels here whose bits would be the same")
    return usual[_kernels.packed_isas()[0]]


def test_instruction_sets_of_this_machine_have_the_same_bits(usual, fused):
    found = {isa: usual[isa] for isa in _kernels.packed_isas()}
    assert found == dict.fromkeys(found, fused)


@pytest.mark.skipif(not all(map(shutil.which, ARM)), reason=f"needs {' and '.join(ARM)}")
def test_arm64_has_the_same_bits(engine, fused, tmp_path):
    command = [ARM[0], "-O1", *GNU, *WARNINGS]
    run(*command, "-static", *LINK, *engine(*command), "-o", tmp_path / "program", "-lm")
    assert hashes(ARM[1], tmp_path / "program") == {"neon": fused}


def test_avx_512_has_the_same_bits(engine, fused, tmp_path):
    needs_emulator()
    fast = ["gcc", "-O3", *GNU, *WARNINGS]
    emulated = next(file for file in fastgru.get_sources() if file.endswith("avx512.c"))
    others = [path for path in engine(*USUAL) if path.stem != "avx512"]
    objects = [*engine(*fast, sources=[emulated]), *others]
    run(*fast, "-static", *LINK, *objects, "-o", tmp_path / "program", "-lm")
    assert hashes(EMULATE, tmp_path / "program", "best") == {"avx512": fused}
