"""All benchmarks on the working tree: the asv suite, then the race against Keras.

    python -m benchmarks

Nothing is recorded. Exit status: 0, or that of the first part that failed.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    folder = ROOT / ".asv"
    folder.mkdir(exist_ok=True)
    # asv describes the machine in a file in the home directory: it gets one of its own.
    environment = os.environ | {"HOME": str(folder), "OPENBLAS_NUM_THREADS": "1"}
    asv = [sys.executable, "-m", "asv"]
    subprocess.run([*asv, "machine", "--yes"], cwd=ROOT, env=environment, check=True, capture_output=True)
    suite = [*asv, "run", "--python=same", "--attribute", "rounds=1", "--show-stderr"]
    race = [sys.executable, "-m", "benchmarks.keras_race"]
    statuses = [
        subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        for command in (suite, race)
    ]
    return next(filter(None, statuses), 0)


if __name__ == "__main__":
    sys.exit(main())
