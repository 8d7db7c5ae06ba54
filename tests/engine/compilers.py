"""The compilers of this machine, and the flags that the tests of the engine hand them."""

import shutil
import subprocess
from pathlib import Path

import pytest

import fastgru
from fastgru import _kernels

HERE = Path(__file__).resolve().parent
EMULATE = HERE.parents[1] / "tools" / "emulate-avx512"
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]
SCALAR = "-DFASTGRU_SCALAR=1"
C99 = ["-std=c99", "-pedantic"]
GNU = ["-std=gnu11"]
CPP = ["-x", "c++", "-std=c++11"]
USUAL = ["gcc", "-O1", *GNU, *WARNINGS]
SANITIZED = [HERE / "sanitizing-gcc", *C99, *WARNINGS]

C_COMPILERS = [["gcc", *GNU], ["gcc", *C99], ["clang", *GNU], ["clang", *C99]]
C_COMPILERS = [command for command in C_COMPILERS if shutil.which(command[0])]
COMPILERS = C_COMPILERS + [[name, *CPP] for name in ("g++", "clang++") if shutil.which(name)]


def run(*command, source=None, check=True, **options):
    """A finished process; a compiler is given the text of a program."""
    finished = subprocess.run(command, input=source, capture_output=True, text=True, check=False, **options)
    assert finished.returncode == 0 or not check, finished.stderr
    return finished


def include(folder=None):
    """Flags for the face and, for tests of the inside, for the folder of the sources."""
    folder = folder or Path(fastgru.get_sources()[0]).parent
    return [f"-I{fastgru.get_include()}", f"-I{folder}"]


def needs_emulator():
    """Skip the test at hand if the machine has all of AVX-512, or lacks what it is emulated with."""
    if "avx512" in _kernels.dot_isas():
        pytest.skip("this machine has AVX-512, which the tests above have run on")
    if not EMULATE.exists():
        pytest.skip(f"needs {EMULATE}")
    missing = run(EMULATE, check=False).stderr.strip()
    if missing != "emulate-avx512: needs a program":
        pytest.skip(missing)
