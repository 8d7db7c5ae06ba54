"""The program in C that the documentation shows: built as it says, it has the bits of the layer in Python."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import fastgru
from fastgru import _config, _core

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "how-to"
PAGE = (FOLDER / "embed-in-c.md").read_text()
(COMMAND,) = re.findall(r"^cc (.*)$", PAGE, re.M)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_embedded_program_has_the_bits_of_the_stream(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_config, "CHOICE", _config.Choice("packed", _core.isas()[0]))
    shutil.copy(FOLDER / "embedded.c", tmp_path)
    exec("".join(re.findall(r"```python\n(.*?)```", PAGE, re.S)), {})
    arguments = COMMAND.replace("-O3", "-O1 -Wall -Wextra -Wconversion -Werror")
    arguments = re.sub(r'"\$\(python.*?\)"', fastgru.get_include(), arguments)
    subprocess.run(["cc", *arguments.split()], check=True)
    with Path("frames.bin").open("rb") as frames:
        run = subprocess.run(["./embedded"], stdin=frames, capture_output=True, check=True)
    assert run.stdout
    assert run.stdout == Path("expected.bin").read_bytes()
