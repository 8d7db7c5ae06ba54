"""What a campaign has found: a line of JSON for each subject of each part."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"


class Record(NamedTuple):
    """What became of one subject.

    Attributes
    ----------
    part : str
    subject : str
    result : str
        "passed", "failed" or "not run".
    count : int
        How often it was tried.
    unit : str
        What was counted, such as "files".
    seconds : float
    figures : mapping of str to number
        What was measured besides.
    note : str
        Why it was not run, or how it failed.
    date : str
    machine : str
    """

    part: str
    subject: str
    result: str
    count: int = 0
    unit: str = ""
    seconds: float = 0.0
    figures: Mapping[str, float] = {}
    note: str = ""
    date: str = ""
    machine: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.part, self.subject

    def stamped(self) -> Record:
        """The same with today's date and this machine."""
        return self._replace(date=datetime.date.today().isoformat(), machine=machine())


def machine() -> str:
    """The processor's name and the number of cores."""
    name = platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), name)
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        name += " with AVX-512" if "avx512f" in flags else ""
    return f"{name}, {os.cpu_count()} cores"


def read(path: Path) -> list[Record]:
    """The records of a file, none if it is not there."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Record(**json.loads(line)) for line in lines]


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records, in place of those of the same subjects that the file has."""
    known = {record.key: record for record in read(path)}
    known |= {record.key: record for record in records}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record._asdict()) + "\n" for record in known.values()))
