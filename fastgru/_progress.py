"""A progress bar on a terminal, which rich draws."""

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any

NAME = 24  # columns of what is in progress, at most: the rest of 80 is for the bar


def printable(text: str) -> str:
    """A text with its control characters escaped: a terminal would obey those of a name in a file."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@contextlib.contextmanager
def progress(
    what: str, total: int, unit: str, stream: IO[str] | None = None
) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left while the block runs, if `stream` is a terminal.

    Parameters
    ----------
    what : str
        Stands before the bar.
    total : int
        How much there is to do.
    unit : str
        What is counted, in the plural.
    stream : file, optional
        Standard error by default.

    Yields
    ------
    callable
        To be called with how much more has been done.
    """
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {unit}/s" if speed else f"... {unit}/s")

    name = Column(max_width=NAME, overflow="ellipsis", no_wrap=True)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(),  # the only one that a narrow terminal makes narrower
        TextColumn("{task.percentage:>3.0f} %"),
        Rate(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task(printable(what), total=total)
        yield lambda done: bar.advance(task, done)


@contextlib.contextmanager
def predicting(given: Any, total: int, batch_size: int) -> Iterator[Callable[[int], Any]]:
    """What `Model.predict` calls with the number of rows that are done: what it was given, or a bar.

    There is none for `total` rows of one batch, for False, and without rich.
    """
    if callable(given):
        yield given
    elif given is False or total <= batch_size or importlib.util.find_spec("rich") is None:
        yield lambda done: None
    else:
        with progress("predicting", total, "rows") as advance:
            before = 0

            def tell(done: int) -> None:
                nonlocal before
                advance(done - before)
                before = done

            yield tell
