"""The face of the engine, in C and C++; and what the engine's files say to compilers and linkers."""

import re
import shutil
from pathlib import Path

import pytest
from compilers import C99, C_COMPILERS, COMPILERS, CPP, GNU, SANITIZED, SCALAR, USUAL, WARNINGS, include, run

import fastgru
from fastgru import _kernels, _plans

pytestmark = pytest.mark.outside

HEADER = Path(fastgru.get_include(), "fastgru", "fastgru.h")
HEADERS = sorted(HEADER.parent.glob("*.h"))
TEXT = "\n".join(path.read_text() for path in HEADERS)
FUNCTIONS = set(re.findall(r"^\w[\w *]*?\b(fastgru_\w+)\(", TEXT, re.M))

PROGRAM = """
#include <math.h>
#include <stdio.h>
#include "fastgru/fastgru.h"

int main(void)
{
    const struct fastgru_kernels *kernels = fastgru_kernels_at(0);
    double x[3] = {-1.5, 0.0, 2.0}, y[3];
    kernels->f64_functions.activate(FASTGRU_tanh, 0, 3, x, y);
    for (int i = 0; i < 3; ++i)
        if (fabs(y[i] - tanh(x[i])) > 1e-15)
            return 1;
    return puts(kernels->isa) < 0 || puts(fastgru_activation_names[FASTGRU_tanh]) < 0;
}
"""


def language(compiler):
    return [] if "c++" in compiler else ["-x", "c"]


# ---- compilers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", COMPILERS, ids=" ".join)
def test_programs_compile_without_a_warning(compiler):
    run(*compiler, *language(compiler), *WARNINGS, *include()[:1], "-fsyntax-only", "-", source=PROGRAM)


@pytest.mark.parametrize("kernels", [[], [SCALAR]], ids=["all", "scalar"])
@pytest.mark.parametrize("compiler", C_COMPILERS, ids=" ".join)
def test_the_engine_compiles_without_a_warning(compiler, kernels, engine):
    command = [compiler[0], "-O1", *compiler[1:], *WARNINGS, *kernels]
    if kernels or compiler[0] == "gcc":  # other tests link what they compile it to
        engine(*(SANITIZED if compiler == ["gcc", *C99] and not kernels else command))
        return
    for source in fastgru.get_sources():
        run(*command, "-ffp-contract=off", *include(), "-fsyntax-only", source)


@pytest.mark.parametrize("compiler", COMPILERS, ids=" ".join)
def test_programs_compute_without_python(compiler, engine, tmp_path):
    c = {"g++": "gcc", "clang++": "clang"}.get(compiler[0], compiler[0])
    standard = C99 if compiler[1:] == CPP else compiler[1:]
    for flags, isa in ([], _kernels.isas()[0]), ([SCALAR], "generic"):
        objects = engine(c, "-O1", *standard, *WARNINGS, *flags) if flags else engine(*USUAL)
        command = [*compiler, *language(compiler), *WARNINGS, *include()[:1], "-o", tmp_path / "program", "-"]
        run(*command, "-x", "none", *objects, "-lm", source=PROGRAM)
        assert run(tmp_path / "program").stdout.split() == [isa, "tanh"]


def test_fast_math_is_refused():
    source = next(file for file in fastgru.get_sources() if file.endswith("avx2.c"))
    finished = run("gcc", *GNU, "-ffast-math", *include(), "-fsyntax-only", source, check=False)
    assert finished.returncode != 0
    assert "IEEE arithmetic" in finished.stderr


# ---- names ------------------------------------------------------------------------------------------


def test_the_header_leaves_only_documented_macros_behind():
    preprocess = ["gcc", *GNU, "-x", "c", "-E", "-dD", *include()[:1], "-"]
    lines = run(*preprocess, source='#include "fastgru/fastgru.h"')
    defined, own = set(), False
    for line in lines.stdout.splitlines():
        if marker := re.match(r'# \d+ "(.*?)"', line):
            own = marker[1] == str(HEADER)
        elif own and (macro := re.match(r"#(define|undef) (\w+)", line)):
            (defined.add if macro[1] == "define" else defined.discard)(macro[2])
    assert defined == {"FASTGRU_H", "FASTGRU_ACTIVATIONS"}


def test_the_header_leaves_other_headers_alone():
    source = '#include "fastgru/fastgru.h"\n#include <complex>\n#include <algorithm>\n'
    run("g++", *CPP, *WARNINGS, *include()[:1], "-fsyntax-only", "-", source=source)


def test_the_header_is_short_and_compiles_nothing():
    text = HEADER.read_text()
    assert text.count("\n") < 300
    assert "inline" not in text
    assert "static" not in text


@pytest.mark.skipif(not all(map(shutil.which, ["nm", "readelf"])), reason="needs nm and readelf")
@pytest.mark.parametrize("flags", [[], [SCALAR]], ids=["all", "scalar"])
def test_the_engine_exports_its_functions_and_hides_all_else(engine, flags):
    objects = engine(*USUAL, *flags)
    listing = run("nm", "--extern-only", "--defined-only", "--format=posix", *objects).stdout
    names = set(re.findall(r"^(\w+) [A-Z]", listing, re.M))
    isas = ["generic"] if flags else ["avx512", "avx2", "sse2", "neon"]
    face = FUNCTIONS | {"fastgru_activation_names"}
    assert face <= names
    sources = "\n".join(path.read_text() for path in Path(fastgru.get_sources()[0]).parent.glob("*.h"))
    inside = set(re.findall(r"^HIDDEN [\w *]*?\b(fastgru_\w+)\(", sources, re.M))
    assert names - face <= inside | {f"fastgru_kernels_{isa}" for isa in isas}
    symbols = run("readelf", "--syms", "--wide", *objects).stdout
    seen = re.findall(r" (?:GLOBAL|WEAK) +DEFAULT +(?!UND)\w+ (\w+)$", symbols, re.M)
    assert set(seen) == face  # the others are hidden from the programs that link a library of it


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_the_extension_exports_only_what_threadpoolctl_calls():
    listing = run("nm", "--dynamic", "--defined-only", "--format=posix", _plans.__file__).stdout
    assert re.findall(r"^(\w+) [A-Z]", listing, re.M) == [
        "PyInit__plans",
        "fastgru_limit_threads",
        "fastgru_threads_limit",
    ]
