"""Write docs/reliability.md from the records of a campaign: python -m campaign.report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from campaign import record
from campaign.part import ROOT
from campaign.parts import PARTS
from campaign.record import Record

RECORDS = Path(__file__).with_name("records.jsonl")
PAGE = ROOT / "docs" / "reliability.md"
TOP = """\
# Reliability

What has been made to go wrong, how often, and what became of it. `make campaign` does it, for as many `MINUTES` as it
is given, and fails if anything is found; then this page is written from what it recorded in `campaign/records.jsonl`.
CI runs all of it for five minutes on each change. What has failed before has become a test, and passes.

"Not run" means that a tool was missing, and says which. `SECURITY.md`, in the repository, says what is promised about
files that are not trusted.
"""


def page(records: Sequence[Record]) -> str:
    """The text of the page."""
    order = {name: i for i, name in enumerate(PARTS)}
    known = sorted((found for found in records if found.part in order), key=lambda found: order[found.part])
    text = TOP
    for name, group in groupby(known, key=lambda found: found.part):
        text += f"\n## {name[0].upper() + name[1:]}\n\n{PARTS[name].tried}\n\n"
        text += "| what | how often | result | measured | when, on what |\n|---|---|---|---|---|\n"
        text += "".join(map(row, group))
    return text


def row(found: Record) -> str:
    """A line of a table."""
    often = f"{found.count:,} {found.unit}, {duration(found.seconds)}" if found.unit else ""
    result = f"{found.result}: {found.note}" if found.note else found.result
    measured = ", ".join(f"{name} {value:,g}" for name, value in found.figures.items())
    cells = found.subject, often, result.replace("|", "/"), measured, f"{found.date}, {found.machine}"
    return f"| {' | '.join(cells)} |\n"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    PAGE.write_text(page(record.read(RECORDS)))
    print(PAGE)
