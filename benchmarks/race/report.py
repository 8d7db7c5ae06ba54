"""A race on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.keras_race import BUSY
from benchmarks.race.heats import Entrant, best_peer, ratios
from benchmarks.race.record import Judgement, Record, judge_variant
from benchmarks.race.shapes import OVERHEAD, Array, Variant

# rich is imported where it is used: asv imports this module too, in environments without it.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 130  # at least; a wrapped row says more than one that is cut off


def show(record: Record, console: Console) -> None:
    """Everything, the most important things last."""
    console.width = max(console.width, WIDTH)
    console.print(heading(record), highlight=False, soft_wrap=True)
    console.print(contenders_table(record))
    if record.variants or record.judge_overhead():
        console.print(variants_table(record))
    for line in (*notes(record), summary(record)):
        console.print(line, highlight=False, soft_wrap=True)


def heading(record: Record) -> str:
    """What ran this, what was run, how busy the machine was and what it can do."""
    machine = record.machine
    packages = dict(pair for versions in record.versions.values() for pair in versions.items())
    busy = " [bold red]- the machine was busy, run this again[/]" if record.load > BUSY else ""
    peak = f"\npeak {record.roofline.peak:.1f} GFLOP/s, one core" if record.roofline else ""
    return (
        f"{machine.date}, {machine.cpu}, {machine.cores} cores, {machine.instruction_set}\n"
        f"Python {machine.python}, {', '.join(f'{name} {version}' for name, version in packages.items())}\n"
        f"load average {record.load:.1f}, of which 1 is this program{busy}{peak}"
    )


def notes(record: Record) -> list[str]:
    """Who is out, and why."""
    from rich.markup import escape

    where: dict[tuple[str, str], list[str]] = {(name, why): [] for name, why in record.failures.items()}
    for entrant in record.entrants():
        if entrant.failure:
            shapes = where.setdefault((entrant.contender.name, entrant.failure), [])
            shapes.append(str(entrant.task.shape))
    return [
        f"[yellow]failed[/] {', '.join([name, *dict.fromkeys(shapes)])}: {escape(why)}"
        for (name, why), shapes in where.items()
    ]


def summary(record: Record) -> str:
    """How much of what is wanted was reached, and what was not."""
    judgements = record.judgements()
    missed = [judgement for judgement in judgements if not judgement.met]
    lines = [f"reached {len(judgements) - len(missed)} of {len(judgements)} figures that are wanted"]
    lines += [f"  {j.what}: {j.reached:.3g}, {_judged(j)}" for j in missed]
    return "\n".join(lines)


def contenders_table(record: Record) -> Table:
    """A section for each shape, a row for each contender in it."""
    table = _table("One call, batch x timesteps x features x units", "contender")
    columns = (
        "median\nus",
        "min\nus",
        "p99\nus",
        "% of\npeak",
        "% of\nroof",
        "largest\ndifference",
        "best peer / it\n(min - max)",
        "wanted",
    )
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for shape, entrants in record.heats.items():
        table.add_section()
        best = best_peer(entrants)
        for index, entrant in enumerate(entrants):
            figures = _figures(record, entrant, entrant is best)
            table.add_row("" if index else str(shape), entrant.contender.name, *figures)
    return table


def _figures(record: Record, entrant: Entrant, is_best_peer: bool) -> list[str]:
    difference = f"{entrant.difference:.1e}"
    if entrant.failure:
        verdict = f"[bold red]{difference} WRONG[/]" if entrant.wrong else ""
        return ["[yellow]failed[/]", *[""] * 4, verdict]
    ratio, peak = record.judge_ratio(entrant), record.judge_peak(entrant)
    return [
        *(f"{microseconds:.1f}" for microseconds in (entrant.median, entrant.fastest, entrant.p99)),
        _percent(record.of_peak(entrant)) + (f", {_judged(peak, 100)}" if peak else ""),
        _percent(record.of_roof(entrant)),
        difference,
        "[bold]the best peer[/]" if is_best_peer else _ratio(record.against_peers(entrant)),
        _judged(ratio) if ratio else "",
    ]


def variants_table(record: Record) -> Table:
    """fastgru with other layers, and what a call costs that computes nothing."""
    table = _table("Other layers, and the cost of a call", "fastgru")
    columns = ("baseline\nus", "fastgru\nus", "baseline / fastgru\n(min - max)", "wanted")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for variant, pair in record.variants:
        table.add_row(str(variant.task.shape), variant.label, *_variant_figures(variant, pair))
    overhead = record.judge_overhead()
    if overhead:
        table.add_section()
        table.add_row(str(OVERHEAD), "a call", "", f"{overhead.reached:.2f}", "", _judged(overhead))
    return table


def _variant_figures(variant: Variant, pair: list[Entrant]) -> list[str]:
    judgement = judge_variant(variant, pair)
    if judgement is None:
        return ["[bold red]WRONG[/]" if any(entrant.wrong for entrant in pair) else "[yellow]failed[/]"]
    return [*(f"{entrant.median:.1f}" for entrant in pair), _ratio(ratios(*pair)), _judged(judgement)]


def _table(title: str, second: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("shape", no_wrap=True)
    table.add_column(second, no_wrap=True)
    return table


def _judged(judgement: Judgement, scale: float = 1) -> str:
    wanted = f"{'<= ' if judgement.at_most else ''}{scale * judgement.wanted:g}"
    return f"[green]{wanted} met[/]" if judgement.met else f"[bold red]{wanted} missed[/]"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}"


def _ratio(values: Array | None) -> str:
    if values is None:
        return ""
    return f"{np.median(values):.3g} ({values.min():.3g} - {values.max():.3g})"
