"""Run the campaign of faults, or some of its parts.

    python -m campaign --minutes 60              every part, an hour in all
    python -m campaign readers c_face            these parts
    python -m campaign --records campaign/records.jsonl   and keep what was found

Then `python -m campaign.report` writes docs/reliability.md. The exit status is 1 if anything failed: what
failed is then in build/campaign/failed. Parts whose tools are missing are recorded as not run.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from campaign import record
from campaign.part import ROOT, Given, Part
from campaign.parts import PARTS
from campaign.record import FAILED, Record

BUILD = ROOT / "build" / "campaign"
COLOURS = {"passed": "green", "failed": "bold red", "not run": "yellow"}


def subjects(part: Part, given: Given) -> Iterator[Record]:
    """The records of a part; a part that breaks off has failed."""
    begun = time.monotonic()
    try:
        for found in part.run(given):
            yield found._replace(part=given.name).stamped()
    except Exception as error:
        traceback.print_exc()
        seconds = round(time.monotonic() - begun, 1)
        note = f"{type(error).__name__}: {error}"[:300]
        yield Record(given.name, "the part itself", FAILED, seconds=seconds, note=note).stamped()


def campaign(names: Sequence[str], seconds: float, records: Path, seed: int) -> int:
    """Run parts, one after the other, each with its share of the time left; returns how many failed."""
    kept = BUILD / "failed"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    console, end, failures = Console(highlight=False), time.monotonic() + seconds, 0
    columns = TextColumn("{task.description:12}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(names))
        for i, name in enumerate(names):
            progress.update(task, description=name, completed=i)
            weights = [PARTS[each].weight for each in names[i:]]
            share = max(0.0, end - time.monotonic()) * weights[0] / sum(weights)
            work = BUILD / name
            work.mkdir(exist_ok=True)
            for found in subjects(PARTS[name], Given(name, share, work, kept, seed)):
                record.write(records, [found])
                failures += found.result == FAILED
                console.print(line(found), soft_wrap=True)
    return failures


def line(found: Record) -> str:
    """A record for the terminal."""
    colour = COLOURS[found.result]
    figures = "".join(f", {name} {value:g}" for name, value in found.figures.items())
    tried = f"{found.count:,} {found.unit} in {found.seconds:.0f} s{figures}" if found.unit else ""
    note = found.note.replace("[", r"\[")
    said = "; ".join(filter(None, [tried, note]))
    return f"[{colour}]{found.result:8}[/] {found.part:10} {found.subject:24} {said}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m campaign", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=60.0, help="in all (default: %(default)g)")
    parser.add_argument("--seed", type=int, help="of random numbers (default: another one each time)")
    parser.add_argument(
        "--records", type=Path, default=BUILD / "records.jsonl", help="where what was found goes"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"PART must be one of {', '.join(PARTS)}, got {', '.join(unknown)}")
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    print(f"seed {seed}")
    failures = campaign(options.parts or [*PARTS], 60 * options.minutes, options.records, seed)
    if failures:
        print(f"{failures} failed; what failed is in {BUILD / 'failed'}", file=sys.stderr)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
