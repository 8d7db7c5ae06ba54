"""Environments of the peers: made once, under .venv/peers, each with what its contender requires."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.race.contenders.base import Contender
from benchmarks.race.process import ROOT, RaceError

PEERS = ROOT / ".venv" / "peers"


def python(contender: type[Contender], folder: Path = PEERS) -> Path:
    """The interpreter that the contender runs under; RaceError if its environment cannot be made.

    Without requirements it is the one that runs this. A change of the requirements, which pin the
    versions, makes the environment anew.
    """
    if not contender.requirements:
        return Path(sys.executable)
    environment = folder / (contender.home or contender.name)
    interpreter = environment / "bin" / "python"
    stamp, requirements = environment / "installed", "\n".join(contender.requirements)
    if not stamp.exists() or stamp.read_text() != requirements:
        print(f"installing {contender.name} into {environment}, once", file=sys.stderr, flush=True)
        _run(sys.executable, "-m", "venv", "--clear", environment)
        _run(interpreter, "-m", "pip", "install", "--quiet", *contender.requirements)
        stamp.write_text(requirements)
    return interpreter


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise RaceError(f"not installed: {' '.join(errors) or done.stderr.strip()}")
