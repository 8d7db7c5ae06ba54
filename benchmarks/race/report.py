"""A race on the terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.race.heats import PERIOD, Entrant, Heat, ratios
from benchmarks.race.record import Judgement, Record, judge_first, judge_way
from benchmarks.race.regimes import MODELS, OURS, REGIMES
from benchmarks.tasks import Array
from benchmarks.ways import TASK, WAYS, Times, Way

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BUSY = 1.2  # load average above which others ran too

WAYS_TITLE = f"Ways to call fastgru, {TASK}"
WAYS_EXPLAINED = (
    "cost: times the call gru(x), of a pool times the one with an array (middle half of the rounds)"
)
CODE = 50  # letters of a call in a line
WIDTH = 110  # letters of a line of Markdown
BEGIN, END = "<!-- tables of the race -->", "<!-- end of the tables of the race -->"  # in docs/benchmarks.md
BEGIN_MODELS, END_MODELS = "<!-- table of models -->", "<!-- end of the table of models -->"
TITLES = {regime.name: regime.title for regime in REGIMES} | {"asked": "The layers that were asked for"}


def show(record: Record, console: Console, details: bool = False) -> None:
    """Everything, the most important things last; in detail with a row for each contender."""
    console.print(heading(record), highlight=False, soft_wrap=True)
    for regime, heats in record.heats.items():
        tables = [details_table(regime, heats) if details else times_table(regime, heats)]
        if any(entrant.paced for heat in heats for entrant in heat.entrants):
            tables.append(paced_table(heats))
        for table in tables:
            _print(table, console)
    if record.ways:
        _print(ways_table(record.ways), console)
    for line in (*notes(record), summary(record)):
        console.print(line, highlight=False, soft_wrap=True)


def _print(table: Table, console: Console) -> None:
    """A row that the terminal wraps says more than one that is cut off."""
    widest = console.measure(table, options=console.options.update(width=1000)).maximum
    console.width = max(console.width, widest)
    console.print(table)


def heading(record: Record) -> str:
    """What ran this, what was run, how busy the machine was and what it could do."""
    machine = record.machine
    others = record.load - record.busy
    busy = " [bold red]- the machine was busy, run this again[/]" if others > BUSY else ""
    peak = ""
    if record.peak and record.integer_peak:
        peak = (
            f"\n{record.peak:.1f} GFLOP/s of multiply-adds at the median, of int8 and int16 "
            f"{record.integer_peak:.1f}"
        )
    threads = "one thread" if record.threads == 1 else f"{record.threads} threads"
    caches = "weights not in the caches" if record.cold else "weights in the caches as far as they fit"
    beside = f", beside {record.busy} busy loops" if record.busy else ""
    return (
        f"{machine.date}, {machine.cpu}, {machine.cores} cores, {machine.instruction_set}\n"
        f"Python {machine.python}, {', '.join(versions(record))}\n"
        f"{threads} each, {caches}{beside}\n"
        f"load average {record.load:.1f}, of which {record.threads + record.busy} is this race{busy}{peak}"
    )


def versions(record: Record) -> list[str]:
    """Names and versions of all that ran."""
    packages = dict(pair for versions in record.versions.values() for pair in versions.items())
    return [f"{name} {version}" for name, version in packages.items()]


def notes(record: Record) -> list[str]:
    """Who is out, and why; what was left out."""
    from rich.markup import escape

    where: dict[tuple[str, str], list[str]] = {(name, why): [] for name, why in record.failures.items()}
    for heat in record.all_heats():
        for entrant in heat.everyone():
            if entrant.failure:
                tasks = where.setdefault((entrant.name, entrant.failure), [])
                tasks.append(str(entrant.task))
    lines = [
        f"[yellow]failed[/] {', '.join([name, *dict.fromkeys(tasks)])}: {escape(why)}"
        for (name, why), tasks in where.items()
    ]
    if record.left_out:
        lines.append(f"[yellow]no time was left[/] for {', '.join(record.left_out)}")
    return lines


def summary(record: Record) -> str:
    """How much of what is wanted was reached, and what was not."""
    from rich.markup import escape

    judgements = record.judgements()
    missed = [judgement for judgement in judgements if not judgement.met]
    lines = [f"reached {len(judgements) - len(missed)} of {len(judgements)} figures that are wanted"]
    lines += [f"  {escape(j.what)}: {j.reached:.3g}, {_judged(j)}" for j in missed]
    return "\n".join(lines)


def times_table(regime: str, heats: list[Heat]) -> Table:
    """A row for each layer: microseconds of all contenders, and below its share of the roofline."""
    fullest = sorted(heats, key=lambda heat: -len(heat.entrants))
    names = list(dict.fromkeys(entrant.name for heat in fullest for entrant in heat.entrants))
    what = "" if regime == MODELS else ", share of the roofline"
    table = _table(f"{TITLES[regime]}: microseconds{what}", "model" if regime == MODELS else "layer")
    for name in names:
        table.add_column(_narrow(name), justify="right", no_wrap=True)
    table.add_column("best peer /\nfastgru (min - max)", no_wrap=True)
    if any(heat.plain for heat in heats):
        table.add_column("the usual layer /\nthis one", justify="right", no_wrap=True)
    for heat in heats:
        entrants = {entrant.name: entrant for entrant in heat.entrants}
        ranked = [entrant for entrant in heat.entrants if entrant.finished and entrant.contender.exact()]
        first = min(ranked, key=lambda entrant: entrant.median, default=None)
        cells = [_cell(heat, entrants.get(name), first) for name in names]
        layer = f"{heat.task}\n[dim]{heat.label}[/]" if heat.label else str(heat.task)
        table.add_row(layer, *cells, _against_peers(heat), *([_against_plain(heat)] if heat.plain else []))
    return table


def _cell(heat: Heat, entrant: Entrant | None, first: Entrant | None) -> str:
    if entrant is None:
        return ""
    if entrant.failure:
        return "[bold red]WRONG[/]" if entrant.wrong else "[yellow]failed[/]"
    time = _microseconds(entrant.median)
    share = heat.of_roof(entrant)
    lines = [f"[bold]{time}[/]" if entrant is first else time]
    return "\n".join([*lines, *([f"[dim]{_percent(share)}[/]"] if share is not None else [])])


def _against_peers(heat: Heat) -> str:
    judgement, peer = judge_first(heat), heat.best_peer()
    if judgement is None or peer is None:
        return ""
    entrant = heat.finisher(OURS)
    assert entrant
    text = f"{_ratio(ratios(peer, entrant))}\n{peer.name}"
    return text if judgement.met else f"[bold red]{text}[/]"


def _against_plain(heat: Heat) -> str:
    entrant = heat.finisher(OURS)
    return _ratio(ratios(heat.plain, entrant)) if entrant and heat.plain and heat.plain.finished else ""


def details_table(regime: str, heats: list[Heat]) -> Table:
    """A section for each layer, a row for each contender in it."""
    table = _table(TITLES[regime], "layer", "contender")
    columns = ("median\nus", "min\nus", "p99\nus", "calls", "% of\nroof", "largest\ndifference")
    for column in (*columns, "best peer / it\n(min - max)"):
        table.add_column(column, justify="right", no_wrap=True)
    for heat in heats:
        table.add_section()
        best = heat.best_peer(), heat.best_peer("int8")
        layers = [f"{heat.task}", heat.label]
        for entrant, layer in zip(heat.entrants, layers + [""] * len(heat.entrants), strict=False):
            table.add_row(layer, entrant.name, *_details(heat, entrant, entrant in best))
    return table


def _details(heat: Heat, entrant: Entrant, is_best_peer: bool) -> list[str]:
    difference = f"{entrant.difference:.1e}"
    if entrant.failure:
        return ["[yellow]failed[/]", *[""] * 4, f"[bold red]{difference} WRONG[/]" if entrant.wrong else ""]
    against = heat.against_peers(entrant)
    return [
        *map(_microseconds, (entrant.median, entrant.fastest, entrant.p99)),
        str(sum(map(len, entrant.blocks))),
        _percent(heat.of_roof(entrant)),
        difference,
        "[bold]the best peer[/]" if is_best_peer else "" if against is None else _ratio(against),
    ]


def paced_table(heats: list[Heat]) -> Table:
    """Of streams on a clock: how long after it was due a frame was ready."""
    table = _table(
        f"A frame every {1e3 * PERIOD:g} ms: microseconds from when it was due", "layer", "contender"
    )
    for column in ("frames", "p50", "p99", "p99.9", "max", "missed"):
        table.add_column(column, justify="right", no_wrap=True)
    for heat in heats:
        table.add_section()
        for entrant in heat.entrants:
            if entrant.paced:
                frames = 1e-3 * np.concatenate(entrant.paced)
                quantiles = map(_microseconds, np.percentile(frames, [50, 99, 99.9, 100]))
                missed = int((frames > 1e6 * PERIOD).sum())
                table.add_row(str(heat.task), entrant.name, str(len(frames)), *quantiles, str(missed))
    return table


def ways_table(ways: Mapping[str, Times]) -> Table:
    """A row for each way to call: microseconds, and what it costs by another one, on each engine."""
    from rich.markup import escape

    columns = _ways_columns(ways)
    table = _table(f"{WAYS_TITLE}:\n{WAYS_EXPLAINED}", *columns)
    for column in table.columns[2:]:
        column.justify = "right"
    for way in WAYS:
        table.add_row(escape(textwrap.fill(way.code, CODE)), *_ways_cells(way, ways, "[bold red]{}[/]"))
    return table


def _ways_columns(ways: Mapping[str, Times]) -> list[str]:
    return ["call", "at most", *(f"{engine}{what}" for engine in ways for what in (", us", ", cost"))]


def _ways_cells(way: Way, ways: Mapping[str, Times], missed: str) -> Iterator[str]:
    """All but its name; a cost that is more than is wanted goes into `missed`."""
    unit = " us more" if way.on_top else ""
    yield "" if way.most is None else f"{way.most:g}{unit}"
    for engine, times in ways.items():
        own, cost = times[way.code][1], way.cost(times[way.code])
        low, middle, high = np.percentile(cost, [25, 50, 75])
        text = f"{middle:.2f}{unit} ({low:.2f} - {high:.2f})"
        judgement = judge_way(way, engine, times[way.code])
        yield f"{np.median(own):.2f}"
        yield text if judgement is None or judgement.met else missed.format(text)


# ---- Markdown --------------------------------------------------------------------------------------


def markdown(record: Record) -> str:
    """All tables, for a file of their own."""
    parts = [layers_markdown(record)] if record.ways or {*record.heats} - {MODELS} else []
    return "\n".join([*parts, *([models_markdown(record)] if record.heats.get(MODELS) else [])])


def models_markdown(record: Record) -> str:
    """What ran, how often fastgru was the fastest, and the table of models, for docs/benchmarks.md."""
    lines = [*_ran(record), *_firsts(record.heats[MODELS], "heats of models")]
    return "\n".join([*lines, f"### {TITLES[MODELS]}", "", *_models_table(record.heats[MODELS]), ""])


def _ran(record: Record) -> list[str]:
    machine = record.machine
    ran = f"{machine.date}, {machine.cpu}, {machine.instruction_set}, Python {machine.python}"
    busy = f", load average {record.load:.1f}: the machine was busy" if record.load > BUSY else ""
    return [*textwrap.wrap(", ".join([ran, *versions(record)]) + f"{busy}.", WIDTH), ""]


def _firsts(heats: Iterable[Heat], what: str) -> list[str]:
    firsts = [judgement for heat in heats if (judgement := judge_first(heat))]
    won = sum(judgement.met for judgement in firsts)
    return (
        [f"fastgru was the fastest exact contender at {won} of {len(firsts)} {what}.", ""] if firsts else []
    )


def layers_markdown(record: Record) -> str:
    """The same of layers: a section for each regime, and the ways to call."""
    layers = {regime: heats for regime, heats in record.heats.items() if regime != MODELS}
    lines = [*_ran(record), *_firsts((heat for heats in layers.values() for heat in heats), "layers")]
    for regime, heats in layers.items():
        lines += [f"### {TITLES[regime]}", "", *_markdown_table(heats), ""]
    if record.ways:
        columns = _ways_columns(record.ways)
        lines += [
            f"### {WAYS_TITLE}\n\n{WAYS_EXPLAINED}\n",
            _markdown_row(columns),
            _markdown_row(["---"] * len(columns)),
            *(_markdown_row([f"`{way.code}`", *_ways_cells(way, record.ways, "**{}**")]) for way in WAYS),
            "",
        ]
    return "\n".join(lines)


def replaced(page: str, tables: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """A page with other tables between its two marks."""
    before, begin, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not end:
        raise ValueError(f"the page must have the marks {marks[0]} and {marks[1]}, got none or one")
    return f"{before}{begin}\n\n{tables}\n{end}{after}"


def _markdown_table(heats: list[Heat]) -> Iterator[str]:
    named = ("fastgru-f16", "torch-int8", "tf_keras")
    columns = ["layer", "fastgru", "of the roofline", "best peer", "best peer / fastgru", *named]
    plain = any(heat.plain for heat in heats)
    if plain:
        columns.append("usual layer / it")
    yield _markdown_row(columns)
    yield _markdown_row(["---"] * len(columns))
    for heat in heats:
        ours, peer = heat.finisher(OURS), heat.best_peer()
        if ours is None:
            continue
        ratio = float(np.median(ratios(peer, ours))) if peer else np.nan
        others = [heat.finisher(name) for name in named]
        cells = [
            str(heat.task) + (f", {heat.label}" if heat.label else ""),
            _microseconds(ours.median),
            _percent(heat.of_roof(ours)),
            f"{_microseconds(peer.median)} ({peer.name})" if peer else "",
            f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.3f}, slower**" if peer else "",
            *(_microseconds(other.median) if other else "" for other in others),
        ]
        if plain:
            cells.append(f"{np.median(ratios(heat.plain, ours)):.2f}" if heat.plain else "")
        yield _markdown_row(cells)


def _models_table(heats: list[Heat]) -> Iterator[str]:
    """All contenders, in the order of their first appearance, and the ratio of the best peer to fastgru."""
    names = dict.fromkeys(entrant.name for heat in heats for entrant in heat.entrants if entrant.name != OURS)
    columns = ["model", OURS, "best peer / fastgru", *names]
    yield _markdown_row(columns)
    yield _markdown_row(["---"] * len(columns))
    for heat in heats:
        ours, peer = heat.finisher(OURS), heat.best_peer()
        if ours is None:
            continue
        ratio = float(np.median(ratios(peer, ours))) if peer else np.nan
        others = [heat.finisher(name) for name in names]
        yield _markdown_row(
            [
                f"{heat.label}, {heat.task.shape}" + (", a step" if heat.task.stream else ""),
                _microseconds(ours.median),
                f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.3f}, slower**" if peer else "",
                *(_microseconds(other.median) if other else "" for other in others),
            ]
        )


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


# ---- cells -----------------------------------------------------------------------------------------


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _narrow(name: str) -> str:
    """A name on two lines if it has two parts."""
    return name.replace("onnxruntime", "onnx\nruntime").replace("-", "\n")


def _judged(judgement: Judgement) -> str:
    wanted = f"{'at most ' * judgement.at_most}{judgement.wanted:g}"
    return f"[green]{wanted} met[/]" if judgement.met else f"[bold red]{wanted} missed[/]"


def _microseconds(time: float) -> str:
    return f"{time:.1f}" if time < 100 else f"{time:.0f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _ratio(values: Array) -> str:
    return f"{np.median(values):.3g} ({values.min():.3g} - {values.max():.3g})"
