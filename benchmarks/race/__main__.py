"""Race fastgru against its peers, one thread each, every contender in a process of its own.

    python -m benchmarks.race                                  all of it
    python -m benchmarks.race --quick                          the same with fewer and shorter blocks
    python -m benchmarks.race 1x1x64x64 8x50x128x128           these shapes only
    python -m benchmarks.race --only fastgru,onnxruntime       these contenders only

Only a wrong result of fastgru makes the exit status 1; times are the machine's, and peers their own.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.keras_race import progress_bar
from benchmarks.race import contenders, peers, report, roofline
from benchmarks.race.contenders import Contender
from benchmarks.race.heats import Race
from benchmarks.race.process import TIMEOUT, Process, RaceError
from benchmarks.race.record import OURS, Record
from benchmarks.race.shapes import OVERHEAD, VARIANTS, WANTED, Shape, Task, Variant

Contenders = Mapping[str, type[Contender]]  # by name
Entries = list[tuple[type[Contender], Task]]

ROUNDS, SECONDS = 11, 0.04  # blocks of each contender, and how long one takes
QUICK_ROUNDS, QUICK_SECONDS = 3, 0.015


def named(everyone: Contenders, text: str) -> Contenders:
    """Those of everyone whose names the text lists, in everyone's order."""
    names = text.split(",")
    unknown = [name for name in names if name not in everyone]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"contenders must be among {', '.join(everyone)}, got {', '.join(unknown)}"
        )
    return {name: contender for name, contender in everyone.items() if name in names}


def shape_argument(text: str) -> Shape:
    """`Shape.parse` with the error that argparse shows."""
    try:
        return Shape.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from None


def count(text: str) -> int:
    """A number of rounds."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def parse(arguments: Sequence[str] | None, everyone: Contenders) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.race", description="Race fastgru against its peers, one thread each."
    )
    parser.add_argument(
        "shapes",
        nargs="*",
        type=shape_argument,
        metavar="BxTxDxH",
        help="batch x timesteps x features x units; default: all that have a wanted ratio, and other layers",
    )
    parser.add_argument(
        "--only",
        type=functools.partial(named, everyone),
        default=everyone,
        metavar="NAME,NAME",
        help=f"contenders, of {', '.join(everyone)}",
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter blocks")
    parser.add_argument("--rounds", type=count, metavar="N", help=f"blocks of each (default: {ROUNDS})")
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"give up a contender that says nothing for so long (default: {TIMEOUT:g})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every block to this file")
    return parser.parse_args(arguments)


def start(chosen: Contenders, timeout: float, stack: ExitStack, record: Record) -> dict[str, Process]:
    """Processes of those that can be installed and imported; why others cannot goes on record."""
    processes = {}
    for name, contender in chosen.items():
        try:
            process = stack.enter_context(Process(contender, peers.python(contender), timeout))
            record.versions[name] = process.ask("start")
        except RaceError as failure:
            record.failures[name] = str(failure)
        else:
            processes[name] = process
    return processes


def plan(started: Contenders, shapes: Sequence[Shape]) -> tuple[dict[Shape, Entries], dict[Variant, Entries]]:
    """Who runs what, by shapes and by variants: everything, unless there are shapes to keep to."""
    heats = {
        shape: [(contender, Task(shape)) for contender in started.values()]
        for shape in shapes or (*WANTED, OVERHEAD)
    }
    variants = {
        variant: [(started[variant.baseline], variant.baseline_task), (started[OURS], variant.task)]
        for variant in VARIANTS
        if not shapes and {variant.baseline, OURS} <= started.keys()
    }
    return heats, variants


def look_at_machine(record: Record, shapes: Iterable[Shape]) -> None:
    """Measure the roofline, for float32 and float16 weights; the best that was seen goes on record."""
    sizes = [shape.weights * itemsize for shape in shapes for itemsize in (2, 4)]
    try:
        now = roofline.measure(sizes)
    except RaceError as failure:
        record.failures["roofline"] = str(failure)
    else:
        record.roofline = now.better_of(record.roofline or now)


def run(options: argparse.Namespace) -> Record:
    """The race."""
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if options.quick else (ROUNDS, SECONDS)
    record = Record(options.rounds or rounds, seconds)
    with ExitStack() as stack:
        processes = start(options.only, options.timeout, stack, record)
        heats, variants = plan({name: options.only[name] for name in processes}, options.shapes)
        look_at_machine(record, heats)
        entrants = sum(map(len, (*heats.values(), *variants.values())))
        progress = stack.enter_context(progress_bar())
        bar = progress.add_task("the race", total=entrants * (1 + record.rounds))
        tick = functools.partial(progress.update, bar, advance=1, refresh=True)
        race = Race(processes, record.rounds, record.seconds, tick)
        for shape, entries in heats.items():
            record.heats[shape] = race.heat(entries)
        for variant, entries in variants.items():
            record.variants.append((variant, race.heat(entries)))
        look_at_machine(record, heats)  # again, for it changes its mood
    record.load = os.getloadavg()[0]
    return record


def main(arguments: Sequence[str] | None = None, everyone: Iterable[type[Contender]] = contenders.ALL) -> int:
    from rich.console import Console

    options = parse(arguments, {contender.name: contender for contender in everyone})
    record = run(options)
    report.show(record, Console())
    if options.json:
        options.json.write_text(json.dumps(record.json(), indent=1))
    return 1 if record.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
