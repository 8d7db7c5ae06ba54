"""The command `fastgru`: a module for each of its commands, and one for the way that all of them fail."""

import importlib.util
import sys


def main() -> None:
    """Run the command with the arguments of the process, and end the process."""
    for module in ("click", "rich"):
        if importlib.util.find_spec(module) is None:
            print(f"fastgru: the command needs {module}: pip install 'fastgru[cli]'", file=sys.stderr)
            sys.exit(2)
    from fastgru.cli._commands import run

    sys.exit(run(sys.argv[1:]))
