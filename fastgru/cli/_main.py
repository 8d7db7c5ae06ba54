"""A command is run, and what becomes of an error: one line and an exit status."""

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import click

from fastgru.cli._commands import fastgru
from fastgru.cli._terminal import printable

# Exit statuses. The last ones are what a shell says of SIGINT and SIGPIPE: nobody reads the output any more.
WRONG, INTERRUPTED, CLOSED = 2, 130, 141


def run(arguments: Sequence[str]) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str
        Those behind the name of the program. `--debug` may stand anywhere before a `--`.

    Returns
    -------
    int
        The exit status: 0, 1 if `compare` found a difference, 2 if something is wrong with what was given,
        130 on Ctrl-C, 141 if a reader of the output went away.
    """
    given = list(arguments)
    options = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in options
    if debug:
        given.remove("--debug")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            status = fastgru.main(given, prog_name="fastgru", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return WRONG
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != 1:  # click and rich make a 1 of a closed pipe
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end
        return CLOSED
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            _say(_explained(error))
        return WRONG


def _explained(error: Exception) -> str:
    """An error in one line that says what to do."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        message = error.format_message()
        stop = "" if message.endswith((".", "?")) else "."
        return f"{message}{stop} See '{error.ctx.command_path} --help'."
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    if isinstance(error, (ValueError, TypeError, ImportError, OSError)):
        return str(error)
    if isinstance(error, MemoryError):
        return f"there is not enough memory: {error}" if str(error) else "there is not enough memory"
    return f"unexpected {type(error).__name__}: {error}; please report it with what --debug shows"


def _say(message: str) -> None:
    print("fastgru:", printable(" ".join(message.split())), file=sys.stderr)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")
