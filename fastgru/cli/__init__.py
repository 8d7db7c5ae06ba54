"""The command `fastgru`: a module for each of its commands, and one for the way that all of them fail."""

import sys

NEEDED = ("click", "rich")


def main() -> None:
    """Run the command with the arguments of the process, and end the process."""
    try:
        from fastgru.cli._commands import run
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        sys.exit(f"fastgru: the command needs {error.name}: pip install 'fastgru[cli]'")
    sys.exit(run(sys.argv[1:]))
