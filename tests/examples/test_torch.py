"""examples/torch: the program as its user runs it. No test depends on how long anything takes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastgru

EXAMPLE = Path(__file__).parents[2] / "examples" / "torch"


@pytest.mark.outside
def test_the_model_gives_the_same_on_fastgru(tmp_path):
    package = str(Path(fastgru.__file__).parents[1])  # the one under test, installed or not
    search = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, EXAMPLE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "gru1: GRU, fastgru\ngru2: GRU, fastgru\n" in done.stdout
    noisy, clean = (float(each) for each in re.findall(r"SI-SDR .* (\S+) dB", done.stdout))
    assert clean > noisy + 7
    assert len(re.findall(r"^  (?:frame by frame|whole) +[\d.]+ +[\d.]+ +[\d.]+$", done.stdout, re.M)) == 2
