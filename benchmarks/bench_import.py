"""What a process pays before its first result."""

import os
import subprocess
import sys

FIRST_RESULT = """
import numpy, fastgru
fastgru.GRU(64)(numpy.zeros((1, 1, 64), numpy.float32))
"""
HELP = """
import contextlib, io
from fastgru.cli import _main
with contextlib.redirect_stdout(io.StringIO()) as shown:
    assert _main.run(["--help"]) == 0
assert "inspect" in shown.getvalue()
"""


class Import:
    """Statements in processes of their own, with all bytecode compiled."""

    env = {"PYTHONDONTWRITEBYTECODE": ""}  # noqa: RUF012
    repeat = 5

    def setup(self) -> None:
        subprocess.run([sys.executable, "-c", FIRST_RESULT], env=os.environ | self.env, check=True)

    def timeraw_fastgru(self) -> str:
        """The package alone."""
        return "import fastgru"

    def timeraw_help(self) -> str:
        """`fastgru --help`, but for the start of Python."""
        return HELP

    def timeraw_layer(self) -> str:
        return "from fastgru import GRU"

    def timeraw_numpy(self) -> str:
        """The part of it that is NumPy's."""
        return "import numpy"

    def timeraw_first_result(self) -> str:
        """Imports, weights, and BLAS, which is bound when a layer is built."""
        return FIRST_RESULT
