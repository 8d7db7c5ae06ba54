"""examples/batch: each program as its user runs it, on every engine that is installed."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastgru

EXAMPLE = Path(__file__).parents[2] / "examples" / "batch"
README = (EXAMPLE / "README.md").read_text()
MODULES = {"joblib": "joblib", "dask": "distributed", "ray": "ray", "spark": "pyspark"}


def printed(engine):
    """What the README says that the program prints, up to what is left out there."""
    line = next(line for line in README.splitlines() if f"(with_{engine}.py)" in line)
    return [text.partition(" ...")[0] for text in re.findall("`([^`]+)`", line.split("|")[4])]


@pytest.mark.outside
@pytest.mark.xdist_group("clusters")
@pytest.mark.parametrize("engine", MODULES)
def test_the_job_has_the_bits_of_each_utterance_alone(engine, tmp_path):
    if importlib.util.find_spec(MODULES[engine]) is None:
        pytest.skip(f"{engine} is not installed")
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    package = str(Path(fastgru.__file__).parents[1])  # the one under test, installed or not
    search = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    assert f"python examples/batch/with_{engine}.py" in README
    done = subprocess.run(
        [sys.executable, EXAMPLE / f"with_{engine}.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "the same bits" in line]
    assert all(line.endswith("the same bits: True") for line in lines)
    assert len(lines) == len(printed(engine)) > 0
    for line, said in zip(lines, printed(engine), strict=True):
        assert line.startswith(said)
