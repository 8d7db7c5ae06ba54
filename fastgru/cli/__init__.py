"""The command `fastgru`: its arguments, a module for each of its commands, and what happens on errors."""

import importlib.util
import io
import os
import signal
import sys
from typing import NoReturn


def main() -> None:
    """Run the command with the arguments of the process, and end the process."""
    _open_streams()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup's is left
            signal.signal(number, _end)
    for module in ("click", "rich"):
        if importlib.util.find_spec(module) is None:
            print(f"fastgru: the command needs {module}: pip install 'fastgru[cli]'", file=sys.stderr)
            sys.exit(2)
    try:
        from fastgru.cli._main import run
    except KeyboardInterrupt:  # before `run` handles it
        print("fastgru: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))


def _open_streams() -> None:
    """Open closed standard streams: otherwise the next file gets their number, and then the messages.

    Names that the terminal has no characters for are escaped.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _end(number: int, _: object) -> NoReturn:
    """End by an exception, which cleans up: the cursor of the terminal, unfinished files."""
    raise SystemExit(128 + number)
