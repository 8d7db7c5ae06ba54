"""What a race has found: all of it, what of it is judged, and as JSON."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.race.heats import Entrant, best_peer, finishers, ratios
from benchmarks.race.roofline import Roofline
from benchmarks.race.shapes import OVERHEAD, OVERHEAD_WANTED, PEAK_WANTED, WANTED, Array, Shape, Variant
from fastgru import _core

OURS = "fastgru"  # the contender that is judged in all things


class Judgement(NamedTuple):
    """A figure that was reached, and the one that is wanted."""

    what: str
    reached: float
    wanted: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.reached <= self.wanted if self.at_most else self.reached >= self.wanted


class Machine(NamedTuple):
    """What ran the race."""

    date: str
    cpu: str
    cores: int | None
    instruction_set: str
    python: str
    system: str


def machine() -> Machine:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    return Machine(
        date=str(datetime.date.today()),
        cpu=model,
        cores=os.cpu_count(),
        instruction_set=_core.isas()[0],
        python=platform.python_version(),
        system=platform.platform(),
    )


@dataclass
class Record:
    """Everything about one race."""

    rounds: int
    seconds: float
    machine: Machine = field(default_factory=machine)
    load: float = 0.0  # average of the last minute, after the race
    roofline: Roofline | None = None
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # of what did not start, by name
    heats: dict[Shape, list[Entrant]] = field(default_factory=dict)
    variants: list[tuple[Variant, list[Entrant]]] = field(default_factory=list)  # baseline, fastgru

    def entrants(self) -> Iterator[Entrant]:
        """All of all heats."""
        for entrants in self.heats.values():
            yield from entrants
        for _, pair in self.variants:
            yield from pair

    @property
    def wrong(self) -> bool:
        """Was a result of fastgru wrong?"""
        return any(entrant.wrong and not entrant.contender.peer for entrant in self.entrants())

    # ---- figures -----------------------------------------------------------------------------

    def against_peers(self, entrant: Entrant) -> Array | None:
        """How many times faster than the best peer of its heat one of fastgru's was, round by round."""
        peer = best_peer(self.heats[entrant.task.shape])
        return None if peer is None or entrant.contender.peer else ratios(peer, entrant)

    def of_peak(self, entrant: Entrant) -> float | None:
        """Share of the peak, for more rows than one."""
        shape = entrant.task.shape
        if self.roofline is None or shape.batch == 1:
            return None
        return 1e-3 * shape.flop / entrant.median / self.roofline.peak

    def of_roof(self, entrant: Entrant) -> float | None:
        """Share of what memory and arithmetic allow, for one row."""
        shape = entrant.task.shape
        if self.roofline is None or shape.batch > 1:
            return None
        itemsize = np.dtype(entrant.contender.weights_dtype or entrant.task.dtype).itemsize
        return self.roofline.microseconds(shape, itemsize) / entrant.median

    # ---- judgements --------------------------------------------------------------------------

    def judge_ratio(self, entrant: Entrant) -> Judgement | None:
        """Is it as much faster than the best peer as it should be?"""
        shape, name = entrant.task.shape, entrant.contender.name
        wanted, reached = WANTED.get(shape, {}).get(name), self.against_peers(entrant)
        if wanted is None or reached is None:
            return None
        return Judgement(f"{shape} {name}, times faster", float(np.median(reached)), wanted)

    def judge_peak(self, entrant: Entrant) -> Judgement | None:
        """Is it as close to the peak as it should be?"""
        shape, reached = entrant.task.shape, self.of_peak(entrant)
        if entrant.contender.name != OURS or shape not in PEAK_WANTED or reached is None:
            return None
        return Judgement(f"{shape} {OURS}, share of the peak", reached, PEAK_WANTED[shape])

    def judge_overhead(self) -> Judgement | None:
        """Does a call cost as little as it should?"""
        entrant = finishers(self.heats.get(OVERHEAD, [])).get(OURS)
        if entrant is None:
            return None
        return Judgement(f"{OVERHEAD} {OURS}, us", entrant.median, OVERHEAD_WANTED, at_most=True)

    def judgements(self) -> list[Judgement]:
        """All of them."""
        timed = [entrant for entrants in self.heats.values() for entrant in finishers(entrants).values()]
        found = [judge(entrant) for entrant in timed for judge in (self.judge_ratio, self.judge_peak)]
        found += [judge_variant(variant, pair) for variant, pair in self.variants]
        return [judgement for judgement in [*found, self.judge_overhead()] if judgement]

    # ---- JSON --------------------------------------------------------------------------------

    def json(self) -> dict[str, Any]:
        """All of it as what `json.dump` takes; times are microseconds."""
        return {
            "machine": self.machine._asdict(),
            "load": self.load,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "roofline": self.roofline._asdict() if self.roofline else None,
            "versions": self.versions,
            "failures": self.failures,
            "heats": [
                {"shape": str(shape), "entrants": [_entrant(entrant) for entrant in entrants]}
                for shape, entrants in self.heats.items()
            ],
            "variants": [
                {"label": variant.label, "baseline": _entrant(baseline), "fastgru": _entrant(ours)}
                for variant, (baseline, ours) in self.variants
            ],
            "judgements": [judgement._asdict() | {"met": judgement.met} for judgement in self.judgements()],
        }


def judge_variant(variant: Variant, pair: list[Entrant]) -> Judgement | None:
    """Is fastgru as fast as it should be, measured by the baseline?"""
    baseline, ours = pair
    if baseline.failure or ours.failure:
        return None
    reached = float(np.median(ratios(baseline, ours)))
    return Judgement(f"{variant.task.shape} {variant.label}, times as fast", reached, variant.wanted)


def _entrant(entrant: Entrant) -> dict[str, Any]:
    return {
        "contender": entrant.contender.name,
        "task": entrant.task._asdict() | {"shape": str(entrant.task.shape)},
        "difference": None if np.isnan(entrant.difference) else entrant.difference,
        "wrong": entrant.wrong,
        "failure": entrant.failure,
        "blocks": [_block(1e-3 * block) for block in entrant.blocks],
    }


def _block(microseconds: Array) -> dict[str, float]:
    return {
        "calls": len(microseconds),
        "median": float(np.median(microseconds)),
        "min": float(microseconds.min()),
        "p99": float(np.percentile(microseconds, 99)),
    }
