"""What the commands draw: tables on standard output, progress on standard error."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import IO

WIDE = 10_000  # columns of what is no terminal: lines are for a program then, and whole
NAME = 24  # columns of what is in progress, at most: the rest of 80 is for the bar


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Print a table, or where the terminal is too narrow for it each row as lines of name and value.

    Parameters
    ----------
    columns : sequence of str
        What stands above them; those whose every value is a number, or missing, are set flush right.
    rows : sequence of sequences
        Of text; of integers, which get thousands separators; of floats, three digits of them; None: nothing.
    title : str
        Printed above the table.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, title=printable(title) or None, title_justify="left", pad_edge=False)
    for i, name in enumerate(columns):
        numbers = all(isinstance(row[i], (int, float, type(None))) for row in rows)
        drawn.add_column(name, justify="right" if numbers else "left")
    for row in rows:
        drawn.add_row(*map(text, row))
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, markup=False)
    if console.measure(drawn, options=console.options.update(width=WIDE)).maximum <= console.width:
        console.print(drawn)
        return
    console.print(printable(title))
    for row in rows:
        lines = Table.grid(padding=(0, 2))
        for name, value in zip(columns, row, strict=True):
            lines.add_row(name, text(value))
        console.print("", lines)


def text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"  # from there on .3g has an exponent
    return f"{value:,}" if isinstance(value, int) else printable(str(value))


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
