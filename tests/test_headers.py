"""The C headers by themselves: without Python, in other languages, under sanitizers."""

import subprocess
from pathlib import Path

import pytest

import fastgru
from fastgru import _core

STRICT = ["-Wall", "-Wextra", "-Werror", "-ffp-contract=off", f"-I{fastgru.get_include()}"]

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


def build_and_run(source, folder, *command):
    """Standard output of a C program."""
    program = folder / "program"
    subprocess.run([*command, *STRICT, str(source), "-o", str(program), "-lm"], check=True)
    run = subprocess.run([program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


@pytest.mark.parametrize(
    ("compiler", "isa"),
    [
        (["gcc", "-std=c99", "-pedantic", "-DFASTGRU_SCALAR=1"], "generic"),
        (["gcc", "-std=gnu11", "-O1"], _core.isas()[0]),
        (["g++", "-x", "c++", "-std=c++11", "-O1"], _core.isas()[0]),
    ],
)
def test_they_compile_as_c_and_as_cpp_without_python(compiler, isa, tmp_path):
    source = tmp_path / "program.c"
    source.write_text(PROGRAM)
    assert build_and_run(source, tmp_path, *compiler) == [isa]


def test_kernels_stay_within_their_arrays(tmp_path):
    source = Path(__file__).with_name("within_bounds.c")
    sanitized = ["gcc", "-std=gnu11", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    assert build_and_run(source, tmp_path, *sanitized) == list(_core.isas())


def test_they_leave_other_headers_alone(tmp_path):
    source = tmp_path / "program.cpp"
    source.write_text("""
#include "fastgru/engine.h"
#include <complex>
#include <algorithm>
int main() { return std::complex<double>(0, 1).real() != 0; }
""")
    assert build_and_run(source, tmp_path, "g++", "-std=c++11", "-Wno-unused") == []


def test_they_refuse_fast_math(tmp_path):
    source = tmp_path / "program.c"
    source.write_text(PROGRAM)
    command = [
        "gcc",
        "-ffast-math",
        f"-I{fastgru.get_include()}",
        "-c",
        str(source),
        "-o",
        str(tmp_path / "o"),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "IEEE arithmetic" in run.stderr
