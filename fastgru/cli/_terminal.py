"""What the commands draw: tables on standard output, progress on standard error."""

import sys
from collections.abc import Sequence

from fastgru._progress import printable, progress

__all__ = ["printable", "progress", "table", "text"]

WIDE = 10_000  # columns of what is no terminal: lines are for a program then, and whole


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
