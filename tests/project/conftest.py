"""The distributions of the package, which are built once."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def distributions(tmp_path_factory):
    """The sdist, and a wheel built from it alone, in a folder that holds nothing else."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    with (tmp_path_factory.getbasetemp().parent / "dist.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # setuptools writes into the checkout: one worker at a time
        run = subprocess.run(build, capture_output=True, text=True, check=False)  # sdist, then wheel from it
    assert run.returncode == 0, run.stdout + run.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel
