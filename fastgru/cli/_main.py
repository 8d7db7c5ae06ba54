"""Runs a command; an error becomes one line and an exit status."""

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

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
        with _told():
            error.show()
        return WRONG
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != 1:  # click and rich make a 1 of a closed pipe
            raise
        _silence(sys.stdout)
        return CLOSED
    except Exception as error:
        if debug:
            with _told():
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
    with _told():
        print("fastgru:", printable(" ".join(message.split())), file=sys.stderr)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Write to standard error; if that fails, as on a full disk, only the exit status tells the error."""
    try:
        yield
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """Drop all further output of a stream, and what it has buffered, which would make Python's exit fail."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")
