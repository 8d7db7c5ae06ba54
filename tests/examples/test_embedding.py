"""The program in C that the documentation shows: built as it says, it has the bits of the layer in Python."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compilers import USUAL

import fastgru
from fastgru import _config, _kernels

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "how-to"
PAGE = (FOLDER / "embed-in-c.md").read_text()
COMMAND, _ = re.findall(r"^cc (.*)$", PAGE, re.M)  # the C files; the library, as examples/c is linked


def printed(code):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_embedded_program_has_the_bits_of_the_stream(tmp_path, monkeypatch, engine):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_config, "CHOICE", _config.Choice("packed", _kernels.isas()[0]))
    shutil.copy(FOLDER / "embedded.c", tmp_path)
    exec("".join(re.findall(r"```python\n(.*?)```", PAGE, re.S)), {})
    flags, include, program, sources, output = re.fullmatch(
        r"(.*) -I\"\$\(python -c '(.*?)'\)\" (.*) \$\(python -c '(.*?)'\) (.*)", COMMAND
    ).groups()
    assert printed(include) == [fastgru.get_include()]
    assert printed(sources) == fastgru.get_sources()
    flags = flags.replace("-O3", "-O1").split()
    objects = engine(*USUAL)
    strict = ["-Wall", "-Wextra", "-Wconversion", "-Werror", f"-I{fastgru.get_include()}"]
    subprocess.run(["cc", *flags, *strict, *program.split(), *objects, *output.split()], check=True)
    with Path("frames.bin").open("rb") as frames:
        run = subprocess.run(["./embedded"], stdin=frames, capture_output=True, check=True)
    assert run.stdout
    assert run.stdout == Path("expected.bin").read_bytes()
