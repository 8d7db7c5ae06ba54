"""The C headers by themselves: without Python, in other languages, under sanitizers."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import fastgru
from fastgru import _core

TESTS = Path(__file__).resolve().parent
INCLUDE = f"-I{fastgru.get_include()}"
STRICT = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-ffp-contract=off", INCLUDE]
SCALAR = "-DFASTGRU_SCALAR=1"
C99 = ["-x", "c", "-std=c99", "-pedantic"]
GNU = ["-x", "c", "-std=gnu11"]
CPP = ["-x", "c++", "-std=c++11"]
COMPILERS = [["gcc", *GNU], ["gcc", *C99], ["g++", *CPP], ["clang", *GNU], ["clang", *C99], ["clang++", *CPP]]
COMPILERS = [command for command in COMPILERS if shutil.which(command[0])]

PROGRAM = """
#include <math.h>
#include <stdio.h>
#include "fastgru/engine.h"

int main(void)
{
    const struct fastgru_kernels *kernels = fastgru_kernels_at(0);
    double x[3] = {-1.5, 0.0, 2.0}, y[3];
    kernels->f64_functions.activate(FASTGRU_tanh, 0, 3, x, y);
    for (int i = 0; i < 3; ++i)
        if (fabs(y[i] - tanh(x[i])) > 1e-15)
            return 1;
    return puts(kernels->isa) < 0;
}
"""


def compiled(source, *command, check=True):
    """What the compiler says, given the text of a program."""
    run = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert run.returncode == 0 or not check, run.stderr
    return run


def output(source, folder, *command):
    """The words that a program prints; sanitizers report where a trap was."""
    program = folder / "program"
    compiled(source, *command, *STRICT, "-o", program, "-", "-lm")
    environment = os.environ | {"ASAN_OPTIONS": "handle_sigill=1"}
    run = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


# ---- compilers: examples/c is a program for all instruction sets, and tested for its results ---------


@pytest.mark.parametrize("kernels", [[], [SCALAR]], ids=["all", "scalar"])
@pytest.mark.parametrize("compiler", COMPILERS, ids=" ".join)
def test_they_compile_without_a_warning(compiler, kernels):
    compiled(PROGRAM, *compiler, *kernels, *STRICT, "-fsyntax-only", "-")


@pytest.mark.parametrize("compiler", COMPILERS, ids=" ".join)
def test_they_compute_without_python_and_without_extensions(compiler, tmp_path):
    assert output(PROGRAM, tmp_path, *compiler, SCALAR) == ["generic"]


def test_they_refuse_fast_math():
    run = compiled(PROGRAM, "gcc", *GNU, "-ffast-math", INCLUDE, "-fsyntax-only", "-", check=False)
    assert run.returncode != 0
    assert "IEEE arithmetic" in run.stderr


# ---- bounds -----------------------------------------------------------------------------------------


BOUNDS = (TESTS / "within_bounds.c").read_text()


@pytest.mark.parametrize(("kernels", "isas"), [([], _core.isas()), ([SCALAR], ("generic",))])
def test_kernels_stay_within_their_arrays(kernels, isas, tmp_path):
    words = output(BOUNDS, tmp_path, TESTS / "sanitizing-gcc", *GNU, *kernels)
    assert words[::2] == list(isas)


def test_tiles_for_32_registers_give_the_same_bits(tmp_path):
    # those of AVX-512 and NEON, on any machine: no result depends on how many registers there really are
    shutil.copytree(fastgru.get_include(), tmp_path / "include")
    header = tmp_path / "include" / "fastgru" / "engine.h"
    text, places = re.subn("FASTGRU_REGISTERS 16", "FASTGRU_REGISTERS 32", header.read_text())
    assert places == 3
    header.write_text(text)
    usual = output(BOUNDS, tmp_path, "gcc", "-O1", *GNU)
    assert output(BOUNDS, tmp_path, "gcc", "-O1", f"-I{tmp_path / 'include'}", *GNU) == usual


ARM = ["aarch64-linux-gnu-gcc", "qemu-aarch64"]


@pytest.mark.skipif(not all(map(shutil.which, ARM)), reason=f"needs {' and '.join(ARM)}")
@pytest.mark.skipif(not _core.packed_isas(), reason="no kernels here whose bits would be the same")
def test_arm64_has_the_same_bits(tmp_path):
    compiler, emulator = ARM
    here = output(BOUNDS, tmp_path, "gcc", "-O1", *GNU)
    program = tmp_path / "arm64"
    compiled(BOUNDS, compiler, "-O1", "-static", *GNU, *STRICT, "-o", program, "-", "-lm")
    there = subprocess.run([emulator, program], capture_output=True, text=True, check=True).stdout.split()
    assert there == ["neon", here[1]]


# ---- names ------------------------------------------------------------------------------------------


def preprocessed(*flags):
    """The lines that are the headers' own and not the system's."""
    run = compiled('#include "fastgru/engine.h"\n', "gcc", *GNU, "-E", *flags, INCLUDE, "-")
    lines, own = [], False
    for line in run.stdout.splitlines():
        if marker := re.match(r'# \d+ "(.*?)"', line):
            own = marker[1].startswith(fastgru.get_include())
        elif own:
            lines.append(line)
    return lines


def names_at_file_scope(lines):
    """Functions, variables, types and constants that C code declares outside of all braces."""
    text = "\n".join(line for line in lines if not line.startswith("#"))
    text = re.sub(r"__attribute__\(\((?:[^()]|\([^()]*\))*\)\)", "", text)
    names = set()
    for body in re.findall(r"\benum\b[^{;]*\{([^}]*)\}", text):
        names |= {constant.split("=")[0].strip() for constant in body.split(",") if constant.strip()}
    while "{" in text:
        text = re.sub(r"\{[^{}]*\}", ";", text)
    for declaration in text.split(";"):
        pointer = re.search(r"\(\*\s*(\w+)\)", declaration)
        words = re.findall(r"\w+", re.split(r"[(\[=]", declaration)[0])
        names |= {pointer[1]} if pointer else set(words[-1:])
    return names - {"enum"}


@pytest.mark.parametrize("flags", [[], [SCALAR]])
def test_names_begin_with_fastgru_or_end_in_an_instruction_set(flags):
    lines = preprocessed(*flags)
    isas = re.findall(r"fastgru_kernels_row_(\w+) =", "\n".join(lines))
    names = names_at_file_scope(lines)
    last = isas[-1]
    assert {f"vreal_f32_{last}", f"tanh_f64_{last}", f"sequence_f64_{last}", f"mills_f64_{last}"} <= names
    assert {"fastgru_layer", "fastgru_step", "fastgru_activation_names", "FASTGRU_tanh"} <= names
    assert [name for name in names if not re.match(rf"fastgru|FASTGRU_|.*_({'|'.join(isas)})$", name)] == []


@pytest.mark.parametrize("flags", [[], [SCALAR]])
def test_no_other_macro_is_left_behind(flags):
    defined = set()
    for line in preprocessed("-dD", *flags):
        if macro := re.match(r"#(define|undef) (\w+)", line):
            (defined.add if macro[1] == "define" else defined.discard)(macro[2])
    assert "FASTGRU_ACTIVATIONS" in defined
    assert [name for name in defined if not name.startswith("FASTGRU_")] == []


def test_they_leave_other_headers_alone():
    source = '#include "fastgru/engine.h"\n#include <complex>\n#include <algorithm>\n'
    compiled(source, "g++", *CPP, *STRICT, "-fsyntax-only", "-")
