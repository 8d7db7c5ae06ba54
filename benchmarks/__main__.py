"""The asv suite on the working tree, or what became slower since another commit.

    python -m benchmarks                    # every benchmark on the tree as it is; nothing is recorded
    python -m benchmarks --quick            # each function once: finds what fails, not what is slow
    python -m benchmarks --compare main~1   # HEAD against that commit, each in an environment of its own

The exit status is asv's: with --compare 1 if something became slower by a tenth.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FACTOR = "1.1"  # of times, from which on a benchmark has become slower


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run the asv suite.")
    parser.add_argument("--quick", action="store_true", help="each function once")
    parser.add_argument("--compare", metavar="REV", help="print what became slower since this commit")
    parser.add_argument("--bench", metavar="REGEX", help="these benchmarks only")
    options = parser.parse_args(arguments)
    folder = ROOT / ".asv"
    folder.mkdir(exist_ok=True)
    # asv describes the machine in a file in the home directory: it gets one of its own.
    environment = os.environ | {"HOME": str(folder), "OPENBLAS_NUM_THREADS": "1"}
    asv = [sys.executable, "-m", "asv"]
    subprocess.run([*asv, "machine", "--yes"], cwd=ROOT, env=environment, check=True, capture_output=True)
    if options.compare:
        command = [*asv, "continuous", "--factor", FACTOR, "--show-stderr", options.compare, "HEAD"]
    else:
        command = [*asv, "run", "--python=same", "--attribute", "rounds=1", "--show-stderr"]
    command += ["--quick"] * options.quick + (["--bench", options.bench] if options.bench else [])
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
