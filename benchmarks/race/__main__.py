"""Race fastgru against its peers, every contender in a process of its own.

    python -m benchmarks.race                                  all regimes, about twenty minutes
    python -m benchmarks.race --quick                          some of each, within two minutes
    python -m benchmarks.race stream products                  these regimes only
    python -m benchmarks.race 1x1x64x64 8x50x128x128           these shapes only; of one step: a stream
    python -m benchmarks.race --only fastgru,onnxruntime       these contenders only
    python -m benchmarks.race stream --add fastgru-sse2        one more: another instruction set
    python -m benchmarks.race stream --paced                   a frame every 10 ms, too
    python -m benchmarks.race --threads 2 --busy 1 --details   beside a busy neighbour: how late are the last
    python -m benchmarks.race ways                             fastgru alone: the ways to call it
    python -m benchmarks.race --write-docs                     all regimes, and into docs/ what was measured
    python -m benchmarks.race models --write-docs              the same of whole models only

Writes results.json, tables.md and pictures to race-output/. Exit status 3 if a result of fastgru was
wrong, else 0: times are the machine's, and peers their own.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import busy, ways
from benchmarks.race import contenders, files, peers, pictures, report
from benchmarks.race.contenders import Contender
from benchmarks.race.heats import Race
from benchmarks.race.process import TIMEOUT, Process, RaceError
from benchmarks.race.record import Record
from benchmarks.race.regimes import MODELS, OURS, REGIMES, WAYS, Event
from benchmarks.race.roofline import Meter
from benchmarks.tasks import Shape, Task

if TYPE_CHECKING:
    from rich.progress import Progress

Contenders = Mapping[str, type[Contender]]  # by name
Plan = dict[str, tuple[Event, ...]]  # by regime

ROUNDS, SECONDS, MOST = 11, 0.04, 15.0  # blocks of each contender, how long one takes, and a heat at most
QUICK_ROUNDS, QUICK_SECONDS, QUICK_MOST = 5, 0.01, 2.0
QUICK_END = 100.0  # seconds after which no further heat begins: the last one takes some, too
PACED = 1.0  # seconds of each round
SPLIT = 20  # into so many blocks is one of a heat divided for the ways to call, which take a microsecond
WRONG = 3
DOCS = Path(__file__).parents[2] / "docs"
PICTURES = {  # of a race, and what they are called in the documentation
    "times.png": "race.png",
    "times-step.png": "race-step.png",
    "times-sequence.png": "race-sequence.png",
    "ratios.png": "race-ratios.png",
    "errors.png": "race-errors.png",
    "models.png": "race-models.png",
}


def named(everyone: Contenders, text: str) -> Contenders:
    """Those of everyone whose names the text lists, in everyone's order."""
    names = text.split(",")
    unknown = [name for name in names if name not in everyone]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"contenders must be among {', '.join(everyone)}, got {', '.join(unknown)}"
        )
    return {name: contender for name, contender in everyone.items() if name in names}


def race_argument(text: str) -> str | Shape:
    """The name of a regime, or a shape, with the error that argparse shows."""
    names = [*(regime.name for regime in REGIMES), WAYS]
    if text in names:
        return text
    try:
        return Shape.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; a regime must be among {', '.join(names)}") from None


def count(text: str) -> int:
    """A number of rounds or threads."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def parse(arguments: Sequence[str] | None, everyone: Contenders) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.race", description="Race fastgru against its peers."
    )
    add = parser.add_argument
    choose, default = functools.partial(named, everyone), [n for n, c in everyone.items() if not c.on_request]
    add(
        "what",
        nargs="*",
        type=race_argument,
        metavar="REGIME|BxTxDxH",
        help=f"of {', '.join(regime.name for regime in REGIMES)} and {WAYS}, or batch x timesteps x features "
        "x units; default: all regimes",
    )
    add("--only", type=choose, default=choose(",".join(default)), metavar="NAME,NAME", help="contenders")
    add(
        "--add",
        type=choose,
        default={},
        metavar="NAME,NAME",
        help=f"further contenders; there are {', '.join(everyone)}",
    )
    add("--quick", action="store_true", help="some layers of each regime, within two minutes")
    add("--rounds", type=count, metavar="N", help=f"blocks of each (default: {ROUNDS})")
    add("--threads", type=count, default=1, metavar="N", help="that each may use (default: 1)")
    add("--cold", action="store_true", help="evict the caches before each call")
    add("--busy", type=int, default=0, metavar="N", help="busy loops that run beside it (default: 0)")
    add("--paced", action="store_true", help="streams on a clock, too: a frame every 10 ms")
    add("--details", action="store_true", help="a row for each contender: median, min, p99, difference")
    add(
        "--timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"give up a contender that says nothing for so long (default: {TIMEOUT:g})",
    )
    add("--out", type=Path, default=Path("race-output"), metavar="DIR", help="default: race-output")
    add(
        "--write-docs",
        action="store_true",
        help=f"put the tables and pictures of a whole race, or of {MODELS}, into docs/",
    )
    options = parser.parse_args(arguments)
    if options.write_docs and (options.what not in ([], [MODELS]) or options.quick):
        parser.error(f"--write-docs must be of a whole race or of {MODELS}: without --quick and shapes")
    return options


def plan(what: Sequence[str | Shape], quick: bool) -> Plan:
    """The heats of each regime."""
    names = [each for each in what if isinstance(each, str)]
    shapes = [each for each in what if isinstance(each, Shape)]
    events: Plan = {
        regime.name: regime.quick if quick else regime.events
        for regime in REGIMES
        if regime.name in names or not what
    }
    if shapes:
        events["asked"] = tuple(Event(Task(shape, stream=shape.timesteps == 1)) for shape in shapes)
    return events


def start(
    chosen: Contenders, options: argparse.Namespace, stack: ExitStack, record: Record
) -> dict[str, Process]:
    """Processes of those that can be installed and imported; why others cannot goes on record."""
    pythons, threads = {}, options.threads

    def begin(contender: type[Contender]) -> Process | str:
        try:
            process = stack.enter_context(Process(contender, pythons[contender], options.timeout, threads))
            record.versions[contender.name] = process.ask("start", threads=threads, cold=options.cold)
        except RaceError as failure:
            return str(failure)
        return process

    for name, contender in chosen.items():
        try:
            pythons[contender] = peers.python(contender)
        except RaceError as failure:
            record.failures[name] = str(failure)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        begun = dict(zip(pythons, pool.map(begin, pythons), strict=True))
    record.failures |= {c.name: failure for c, failure in begun.items() if isinstance(failure, str)}
    return {c.name: process for c, process in begun.items() if isinstance(process, Process)}


def run(options: argparse.Namespace, everyone: Contenders) -> Record:
    """The race."""
    end = time.monotonic() + (QUICK_END if options.quick else float("inf"))
    rounds, seconds, most = (
        (QUICK_ROUNDS, QUICK_SECONDS, QUICK_MOST) if options.quick else (ROUNDS, SECONDS, MOST)
    )
    record = Record(options.rounds or rounds, seconds, options.threads, options.cold, options.busy)
    events = plan(options.what, options.quick)
    with ExitStack() as stack:
        stack.enter_context(busy.loops(options.busy))
        progress = stack.enter_context(progress_bar())
        bar = progress.add_task("starting", total=None)
        progress.refresh()
        chosen = options.only | options.add
        if not events:  # nobody else has ways to call it
            chosen = {name: contender for name, contender in chosen.items() if name == OURS}
        else:
            tasks = [event.task for each in events.values() for event in each]
            chosen = {name: each for name, each in chosen.items() if any(map(each.runs, tasks))}
        processes = start({n: c for n, c in everyone.items() if n in chosen}, options, stack, record)
        started = [everyone[name] for name in chosen if name in processes]
        entrants = sum(
            sum(contender.runs(event.task) for contender in started) + bool(event.plain)
            for each in events.values()
            for event in each
        )
        progress.reset(bar, total=entrants * (1 + record.rounds))
        race = Race(
            processes,
            record.rounds,
            record.seconds,
            options.threads,
            PACED if options.paced else 0,
            most,
            tick=lambda count: progress.update(bar, advance=count, refresh=True),
        )
        race.measure = Meter(options.threads, options.cold).measure
        files_of_models(race, events, record)
        for regime, event in ((name, event) for name, each in events.items() for event in each):
            if time.monotonic() > end:
                record.left_out.append(str(event.task))
                continue
            progress.update(bar, description=f"{regime} {event.task}")
            record.heats.setdefault(regime, []).append(race.heat(started, *event))
        if OURS in processes and (not options.what or WAYS in options.what):
            blocks = {"rounds": SPLIT * record.rounds, "seconds": seconds / SPLIT}
            for engine in ways.ENGINES:
                progress.update(bar, description=f"ways to call, {engine}", refresh=True)
                try:
                    record.ways[engine] = processes[OURS].ask("ways", engine=engine, **blocks)
                except RaceError as failure:
                    record.failures[f"ways to call, {engine}"] = str(failure)
    record.load = os.getloadavg()[0]
    return record


def files_of_models(race: Race, events: Plan, record: Record) -> None:
    """Have the files of all models that are raced; without them there is no heat of models."""
    wanted = [event.task for event in events.get(MODELS, ())]
    if not wanted or not race.processes:
        return
    try:
        race.files = files.made(wanted)
    except RaceError as failure:
        record.failures["models"] = str(failure)
        events[MODELS] = ()


def progress_bar() -> Progress:
    """On stderr, silent where nobody watches; redrawn between blocks only, not within by a thread."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, quiet=not sys.stderr.isatty()),
        auto_refresh=False,
        transient=True,
    )


def save(record: Record, folder: Path) -> Iterator[Path]:
    """Write everything about a race; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    results, tables = folder / "results.json", folder / "tables.md"
    results.write_text(json.dumps(record.json(), indent=1))
    tables.write_text(report.markdown(record))
    yield from (results, tables)
    yield from pictures.draw(record, folder)


def write_docs(record: Record, folder: Path) -> Iterator[Path]:
    """Put the tables, and the pictures that were saved to a folder, into the documentation; the files."""
    page = DOCS / "benchmarks.md"
    text = page.read_text()
    if {*record.heats} - {MODELS}:
        text = report.replaced(text, report.layers_markdown(record))
    if record.heats.get(MODELS):
        marks = report.BEGIN_MODELS, report.END_MODELS
        text = report.replaced(text, report.models_markdown(record), marks)
    page.write_text(text)
    yield page
    for picture, name in PICTURES.items():
        if (folder / picture).exists():
            yield Path(shutil.copy(folder / picture, DOCS / name))


def main(arguments: Sequence[str] | None = None, everyone: Iterable[type[Contender]] = contenders.ALL) -> int:
    from rich.console import Console

    known = {contender.name: contender for contender in everyone}
    options = parse(arguments, known)
    record = run(options, known)
    console = Console()
    report.show(record, console, options.details)
    written = [*save(record, options.out)]
    if options.write_docs:
        written += write_docs(record, options.out)
    for file in written:
        console.print(str(file), highlight=False, soft_wrap=True)
    return WRONG if record.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
