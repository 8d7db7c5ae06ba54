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

from benchmarks.networks import NetworkTask
from benchmarks.race.heats import Entrant, Heat, ratios
from benchmarks.race.regimes import GOALS, INT8, OURS, ROOF_UNITS, ROOF_WANTED, Goal
from benchmarks.tasks import Array
from benchmarks.ways import WAYS, Times, Way
from fastgru import _kernels

QUANTILES = (0, 5, 25, 50, 75, 95, 99, 99.9, 100)


class Judgement(NamedTuple):
    """A figure that was reached, and the one that is wanted."""

    what: str
    reached: float
    wanted: float  # at least
    at_most: bool = False  # or at most?

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
        instruction_set=_kernels.isas()[0],
        python=platform.python_version(),
        system=platform.platform(),
    )


@dataclass
class Record:
    """Everything about one race."""

    rounds: int
    seconds: float
    threads: int = 1
    cold: bool = False
    busy: int = 0  # loops that ran beside it
    machine: Machine = field(default_factory=machine)
    load: float = 0.0  # average of the last minute, after the race
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # of what did not start, by name
    left_out: list[str] = field(default_factory=list)  # heats for which there was no time
    heats: dict[str, list[Heat]] = field(default_factory=dict)  # by regime
    ways: dict[str, Times] = field(default_factory=dict)  # to call fastgru, by engine

    def all_heats(self) -> Iterator[Heat]:
        for heats in self.heats.values():
            yield from heats

    @property
    def wrong(self) -> bool:
        """True if a result of fastgru was wrong."""
        everyone = (entrant for heat in self.all_heats() for entrant in heat.everyone())
        return any(entrant.wrong and not entrant.contender.peer for entrant in everyone)

    @property
    def peak(self) -> float | None:
        """GFLOP/s of multiply-adds, the median of what was seen."""
        return self._median("peak")

    @property
    def integer_peak(self) -> float | None:
        """The same of int8 weights and 16-bit integers."""
        return self._median("integer_peak")

    def _median(self, peak: str) -> float | None:
        peaks = [getattr(limits, peak) for heat in self.all_heats() for limits in heat.limits]
        return float(np.median(peaks)) if peaks else None

    def judgements(self) -> list[Judgement]:
        """All: the goals, for each layer who is first and how far the machine was used, the ways to call."""
        heats = {heat.task: heat for heat in self.all_heats()}
        found = [judge_goal(goal, heats[goal.task]) for goal in GOALS if goal.task in heats]
        judges = judge_first, judge_int8, judge_roof
        found += [judge(heat) for judge in judges for heat in heats.values()]
        found += [
            judge_way(way, engine, times[way.code]) for engine, times in self.ways.items() for way in WAYS
        ]
        return [judgement for judgement in found if judgement]

    def json(self) -> dict[str, Any]:
        """All of it as what `json.dump` takes; times are microseconds."""
        return {
            "machine": self.machine._asdict(),
            "load": self.load,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "threads": self.threads,
            "cold": self.cold,
            "busy": self.busy,
            "versions": self.versions,
            "failures": self.failures,
            "left_out": self.left_out,
            "heats": [_heat(regime, heat) for regime, heats in self.heats.items() for heat in heats],
            "ways": self.ways,
            "judgements": [judgement._asdict() | {"met": judgement.met} for judgement in self.judgements()],
        }


def judge_goal(goal: Goal, heat: Heat) -> Judgement | None:
    """Judge how many times as fast as a baseline a contender is."""
    entrant = heat.finisher(goal.contender)
    named = {"the best peer": heat.best_peer(), "plain": heat.plain}
    baseline = named[goal.baseline] if goal.baseline in named else heat.finisher(goal.baseline)
    if not (entrant and baseline and baseline.finished):
        return None
    what = f"{goal.task}: {goal.contender}, times as fast as {goal.baseline}"
    return Judgement(what, float(np.median(ratios(baseline, entrant))), goal.ratio)


def judge_first(heat: Heat) -> Judgement | None:
    """Judge if fastgru is the fastest of those that compute with the weights that they are given."""
    entrant, peer = heat.finisher(OURS), heat.best_peer()
    if not (entrant and peer):
        return None
    what = f"{heat.task}: {OURS}, times as fast as the best peer, {peer.name}"
    return Judgement(what, float(np.median(ratios(peer, entrant))), 1.0)


def judge_int8(heat: Heat) -> Judgement | None:
    """Judge if fastgru with int8 weights is the fastest of those with such weights."""
    entrant, peer = heat.finisher(INT8), heat.best_peer("int8")
    if not (entrant and peer):
        return None
    what = f"{heat.task}: {INT8}, times as fast as {peer.name}"
    return Judgement(what, float(np.median(ratios(peer, entrant))), 1.0)


def judge_roof(heat: Heat) -> Judgement | None:
    """Judge the share of the roofline that fastgru reaches."""
    entrant = heat.finisher(OURS)
    share = heat.of_roof(entrant) if entrant else None
    if share is None or isinstance(heat.task, NetworkTask) or heat.task.shape.units < ROOF_UNITS:
        return None
    return Judgement(f"{heat.task}: {OURS}, share of the roofline", share, ROOF_WANTED)


def judge_way(way: Way, engine: str, times: list[list[float]]) -> Judgement | None:
    """Judge the cost of a way to call."""
    if way.most is None:
        return None
    unit = "microseconds more than" if way.on_top else "times the time of"
    what = f"{way.code} on the engine {engine}, {unit} {way.by}"
    return Judgement(what, float(np.median(way.cost(times))), way.most, at_most=True)


def _heat(regime: str, heat: Heat) -> dict[str, Any]:
    return {
        "regime": regime,
        "label": heat.label,
        "task": heat.task._asdict() | {"shape": str(heat.task.shape)},
        "limits": [limits._asdict() for limits in heat.limits],
        "entrants": [_entrant(heat, entrant) for entrant in heat.entrants],
        "plain": _entrant(heat, heat.plain) if heat.plain else None,
    }


def _entrant(heat: Heat, entrant: Entrant) -> dict[str, Any]:
    return {
        "contender": entrant.name,
        "difference": None if np.isnan(entrant.difference) else entrant.difference,
        "error": None if np.isnan(entrant.error) else entrant.error,
        "wrong": entrant.wrong,
        "failure": entrant.failure,
        "of_roof": None if entrant is heat.plain else heat.of_roof(entrant),
        "blocks": [_block(block) for block in entrant.blocks],
        "paced": [_block(block) for block in entrant.paced],
    }


def _block(nanoseconds: Array) -> dict[str, Any]:
    quantiles = 1e-3 * np.percentile(nanoseconds, QUANTILES)
    return {"calls": len(nanoseconds), "quantiles": dict(zip(map(str, QUANTILES), quantiles, strict=True))}
