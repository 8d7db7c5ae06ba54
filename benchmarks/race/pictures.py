"""A race drawn: time per step, together and apart, ratios to the best peer, latencies, time against error.

Colours are those of Okabe and Ito, which the colour-blind tell apart; lines are named at their ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.networks import NetworkTask
from benchmarks.race.heats import PERIOD, Entrant, Heat, ratios
from benchmarks.race.record import Record
from benchmarks.race.regimes import OURS
from benchmarks.tasks import Array, Shape, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

STYLES: Mapping[str, tuple[str, str]] = {  # colour and dashes of a line
    "fastgru": ("#0072B2", "-"),
    "fastgru-f16": ("#0072B2", "--"),
    "fastgru-int8": ("#0072B2", "-."),
    "fastgru-blas": ("#0072B2", ":"),
    "onnxruntime": ("#D55E00", "-"),
    "onnxruntime-bound": ("#D55E00", "--"),
    "openvino": ("#E69F00", "-"),
    "tract": ("#F0E442", "-"),
    "torch": ("#009E73", "-"),
    "torch-int8": ("#009E73", "--"),
    "jax": ("#CC79A7", "-"),
    "keras": ("#CC79A7", "--"),
    "keras+fastgru": ("#CC79A7", ":"),
    "tf_keras": ("#56B4E9", "-"),
    "litert": ("#56B4E9", "--"),
    "ncnn": ("#A08000", "-"),
    "numpy": ("#606060", "--"),
}
OTHER = ("#000000", "-.")
PLAIN = {"onnxruntime": "onnxrt", "onnxruntime-bound": "onnxrt-bound"}  # where there is little room
DPI = 150


def draw(record: Record, folder: Path) -> Iterator[Path]:
    """Save those pictures for which there are figures; the files."""
    heats = list(record.all_heats())
    panels = times_panels(heats)
    pictures = {
        "times": times(panels),
        **{f"times-{kind}": times({kind: panel}) for kind, panel in panels.items()},
        "ratios": best_ratios(heats),
        "latency": latencies(heats),
        "errors": errors(heats),
        "models": models([heat for heat in heats if isinstance(heat.task, NetworkTask)]),
    }
    for name, figure in pictures.items():
        if figure is not None:
            file = folder / f"{name}.png"
            figure.savefig(file, dpi=DPI)
            yield file


def _figure(panels: int, width: float, height: float, below: bool = False) -> tuple[Figure, Sequence[Axes]]:
    """A figure and its panels, side by side or one below the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    shape = (panels, 1) if below else (1, panels)
    return figure, figure.subplots(*shape, squeeze=False).flat


def _style(name: str) -> tuple[str, str]:
    return STYLES.get(name, OTHER)


def _ordinary(heat: Heat) -> bool:
    """True for the usual layer with as many features as units, which is not that of a product."""
    task = heat.task
    if isinstance(task, NetworkTask):
        return False
    usual = task == Task(task.shape, task.stream) and task.shape.features == task.shape.units
    return usual and not heat.label


def _number(axis: Axis, low: float, high: float) -> None:
    """Numbers that one reads, on a logarithmic axis: 1, 10, 100, and 2, 5 between them if there is room."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


# ---- time per step ---------------------------------------------------------------------------------


TIMES: Mapping[str, tuple[str, Callable[[Task], bool]]] = {
    "step": ("One step a call, the state carried", lambda task: task.stream),
    "sequence": ("A sequence of 100 steps in one call", lambda task: task.shape.timesteps == 100),
}


def times_panels(heats: Sequence[Heat]) -> dict[str, list[Heat]]:
    """The heats of one row of each kind in `TIMES` that has two or more, by units."""
    panels = {
        kind: sorted(
            (h for h in heats if _ordinary(h) and h.task.shape.batch == 1 and belongs(h.task)),
            key=lambda heat: heat.task.shape.units,
        )
        for kind, (_, belongs) in TIMES.items()
    }
    return {kind: panel for kind, panel in panels.items() if len(panel) > 1}


def times(panels: Mapping[str, list[Heat]]) -> Figure | None:
    """Time per step against units, and what the machine allows: a panel for each kind."""
    if not panels:
        return None
    figure, axes = _figure(len(panels), 6.2 * len(panels), 5.6)
    for ax, (kind, panel) in zip(axes, panels.items(), strict=True):
        _times_panel(ax, panel)
        ax.set_title(TIMES[kind][0])
    axes[0].set_ylabel("microseconds per step")
    return figure


def _times_panel(ax: Axes, heats: Sequence[Heat]) -> None:
    units = [heat.task.shape.units for heat in heats]
    names = dict.fromkeys(entrant.name for heat in heats for entrant in heat.entrants)
    ends: dict[str, float] = {}
    for name in names:
        points = [(heat.task.shape, heat.finisher(name)) for heat in heats]
        line = [(shape.units, entrant.median / shape.timesteps) for shape, entrant in points if entrant]
        if not line:
            continue
        colour, dashes = _style(name)
        width, order = (2.6, 3) if name == OURS else (1.4, 2)
        ax.plot(*zip(*line, strict=True), dashes, color=colour, linewidth=width, zorder=order)
        ends[name] = line[-1][1]
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    _number(ax.yaxis, *ax.get_ylim())
    ax.set_xticks(units, [str(n) if n & (n - 1) == 0 else "" for n in units])  # others would touch
    ax.minorticks_off()
    ax.set_xlabel("units (as many features)")
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlim(units[0] * 0.9, units[-1] * 3)  # room for the names
    roofs = [heat.roof(4) for heat in heats]
    if all(roof is not None for roof in roofs):
        roof = [float(np.median(r)) / h.task.shape.timesteps for r, h in zip(roofs, heats, strict=True)]
        ax.set_ylim(roof[0] * 0.5)
        ax.fill_between(units, roof, ax.get_ylim()[0], color="0.88", linewidth=0, zorder=1)
        ax.text(units[-1], ax.get_ylim()[0] * 1.2, "below float32's roofline ", ha="right", color="0.3")
    _name_ends(ax, units[-1], ends)


def _name_ends(ax: Axes, x: float, ends: Mapping[str, float]) -> None:
    """Each line's name beside its end, moved apart where ends are close."""
    low, high = np.log(ax.get_ylim())
    gap = 0.04 * (high - low)
    names = sorted(ends, key=ends.__getitem__)
    places = spread(np.log([ends[name] for name in names]), gap, low, high)
    for name, place in zip(names, places, strict=True):
        weight = "bold" if name == OURS else "normal"
        ax.annotate(
            name,
            (x, ends[name]),
            (x * 1.12, np.exp(place)),
            va="center",
            color=_style(name)[0],
            fontweight=weight,
            fontsize=9,
            arrowprops={
                "arrowstyle": "-",
                "color": _style(name)[0],
                "linewidth": 0.5,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )


def spread(places: Array, gap: float, low: float, high: float) -> Array:
    """Ascending places, moved as little as need be to have that gap between them, from `low` to `high`."""
    moved = np.array(places, float)
    for _ in range(200):
        moved[0], moved[-1] = max(moved[0], low), min(moved[-1], high)
        close = np.flatnonzero(np.diff(moved) < gap - 1e-9)
        if not close.size:
            break
        for i in close:
            middle = moved[i : i + 2].mean()
            moved[i : i + 2] = middle - gap / 2, middle + gap / 2
    return moved


# ---- ratios ----------------------------------------------------------------------------------------


def best_ratios(heats: Sequence[Heat]) -> Figure | None:
    """A map of how many times as fast as the best peer fastgru is, over rows and units."""
    kinds: dict[str, Callable[[Task], bool]] = {
        "One step a call, the state carried": lambda task: task.stream,
        "A call of 50 steps, 100 of one row": lambda task: (
            task.shape.timesteps == 100 - 50 * (task.shape.batch > 1)
        ),
    }
    panels = {}
    for title, kind in kinds.items():
        panel = {
            (heat.task.shape.batch, heat.task.shape.units): (float(np.median(ratio)), peer.name)
            for heat in heats
            if _ordinary(heat) and kind(heat.task)
            if (ours := heat.finisher(OURS)) and (peer := heat.best_peer())
            if (ratio := heat.against_peers(ours)) is not None
        }
        if len({batch for batch, _ in panel}) > 1:
            panels[title] = panel
    if not panels:
        return None
    figure, axes = _figure(len(panels), 6.8, 0.4 + 3.4 * len(panels), below=True)
    for ax, (title, panel) in zip(axes, panels.items(), strict=True):
        _ratios_panel(ax, panel)
        ax.set_title(title, fontsize=10)
        ax.set_ylabel("rows")
    figure.suptitle("How many times as fast as the best peer fastgru is, and which peer that is", fontsize=11)
    return figure


def _ratios_panel(ax: Axes, panel: Mapping[tuple[int, int], tuple[float, str]]) -> None:
    from matplotlib.colors import TwoSlopeNorm

    batches, units = sorted({batch for batch, _ in panel}), sorted({units for _, units in panel})
    values = np.full((len(batches), len(units)), np.nan)
    for (batch, width), (ratio, _) in panel.items():
        values[batches.index(batch), units.index(width)] = np.log2(ratio)
    norm = TwoSlopeNorm(0, -1.5, 3)  # white where both take as long; blue where fastgru is faster
    ax.imshow(values, cmap="RdBu", norm=norm, aspect="auto", origin="lower")
    for (batch, width), (ratio, peer) in panel.items():
        x, y = units.index(width), batches.index(batch)
        dark = not -0.9 < np.log2(ratio) < 1.8
        colour = "white" if dark else "black"
        ax.text(x, y, f"{ratio:.2f}", ha="center", va="bottom", color=colour, fontsize=10)
        ax.text(x, y - 0.08, PLAIN.get(peer, peer), ha="center", va="top", color=colour, fontsize=6)
    ax.set_xticks(range(len(units)), list(map(str, units)))
    ax.set_yticks(range(len(batches)), list(map(str, batches)))
    ax.set_xlabel("units (as many features)")
    ax.spines[:].set_visible(False)


# ---- latency ---------------------------------------------------------------------------------------


def latencies(heats: Sequence[Heat]) -> Figure | None:
    """How long calls of a stream of one row took: the middle half, the median, p99, p99.9 and the longest."""
    streams = [heat for heat in heats if _ordinary(heat) and heat.task.stream and heat.task.shape.batch == 1]
    wanted = [heat for heat in streams if heat.task.shape.units in (64, 256, 512)] or streams[:3]
    if not wanted:
        return None
    rows: list[tuple[str, Callable[[Entrant], list[Array]]]] = [("", lambda entrant: entrant.blocks)]
    if any(entrant.paced for heat in wanted for entrant in heat.entrants):
        rows.append((f" every {1e3 * PERIOD:g} ms: since due", lambda entrant: entrant.paced))
    count, most = len(rows) * len(wanted), max(len(heat.entrants) for heat in wanted)
    figure, axes = _figure(count, 4.4 * count, 1.4 + 0.25 * most)
    for ax, (heat, (what, blocks)) in zip(axes, ((h, row) for h in wanted for row in rows), strict=True):
        _latency_panel(ax, heat, blocks)
        ax.set_title(f"{heat.task.shape.units} units, one row{what}", fontsize=10)
    return figure


def _latency_panel(ax: Axes, heat: Heat, blocks: Callable[[Entrant], list[Array]]) -> None:
    entrants = [entrant for entrant in heat.entrants if entrant.finished and blocks(entrant)]
    entrants.sort(key=lambda entrant: -float(np.median(np.concatenate(blocks(entrant)))))
    for y, entrant in enumerate(entrants):
        calls = 1e-3 * np.concatenate(blocks(entrant))
        lower, median, upper, p99, p999, longest = np.percentile(calls, [25, 50, 75, 99, 99.9, 100])
        colour: Any = _style(entrant.name)[0]
        ax.plot([calls.min(), longest], [y, y], color=colour, linewidth=0.8)
        ax.plot([lower, upper], [y, y], color=colour, linewidth=7, solid_capstyle="butt", alpha=0.5)
        ax.plot([median], [y], "o", color=colour, markersize=5)
        for x, mark in ((p99, "|"), (p999, "x"), (longest, ".")):
            ax.plot([x], [y], mark, color=colour, markersize=7)
    ax.set_yticks(range(len(entrants)), [entrant.name for entrant in entrants])
    for label in ax.get_yticklabels():
        label.set_color(_style(label.get_text())[0])
        label.set_fontweight("bold" if label.get_text() == OURS else "normal")
    ax.set_xscale("log")
    _number(ax.xaxis, *ax.get_xlim())
    ax.set_xlabel("microseconds: dot median, bar half of all,\n| 99 %, x 99.9 %, end the longest", fontsize=8)
    ax.grid(axis="x", alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right", "left"]].set_visible(False)


# ---- errors ----------------------------------------------------------------------------------------

ROUNDED = 1e-4  # least error of a contender that rounds weights or what they are multiplied by
SHOWN = (Task(Shape(1, 1, 256, 256), True), Task(Shape(1, 100, 256, 256)), Task(Shape(64, 50, 512, 512)))


def errors(heats: Sequence[Heat]) -> Figure | None:
    """Time of a step against the largest error of an output: a panel for each of some heats."""
    drawn = [heat for heat in heats if _ordinary(heat) and len(_points(heat)) > 1]
    wanted = [heat for heat in drawn if heat.task in SHOWN] or drawn[: len(SHOWN)]
    if not any(error > ROUNDED for heat in wanted for error, _ in _points(heat).values()):
        return None
    figure, axes = _figure(len(wanted), 5.6 * len(wanted), 5.0)
    for ax, heat in zip(axes, wanted, strict=True):
        batch, timesteps, _, units = heat.task.shape
        rows = f"{batch} rows" if batch > 1 else "one row"
        steps = "a step a call" if heat.task.stream else f"calls of {timesteps} steps"
        _errors_panel(ax, _points(heat))
        ax.set_title(f"{units} units, {rows}, {steps}", fontsize=10)
    axes[0].set_ylabel("microseconds per step")
    return figure


def _points(heat: Heat) -> dict[str, tuple[float, float]]:
    """Largest error of an output and microseconds of a step, by contender."""
    steps = heat.task.shape.timesteps
    return {
        entrant.name: (max(entrant.error, 1e-8), entrant.median / steps)  # zero has no logarithm
        for entrant in heat.entrants
        if entrant.finished and np.isfinite(entrant.error)
    }


def _errors_panel(ax: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Points with their names at the left, if they are exact, or at the right."""
    for name, (error, time) in points.items():
        ax.plot([error], [time], "o", color=_style(name)[0], markersize=9 if name == OURS else 6)
    ax.set_xscale("log")
    ax.set_yscale("log")
    _number(ax.yaxis, *ax.get_ylim())
    found = [error for error, _ in points.values()]
    low, high = min(found), max(found)
    ax.set_xlim(low / 1e3, high * 1e3)  # room for the names
    ax.set_xlabel("largest error of an output")
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    bottom, top = np.log(ax.get_ylim())
    for x, align, rounds in ((low / 4, "right", False), (high * 4, "left", True)):
        names = [name for name, (error, _) in points.items() if (error > ROUNDED) == rounds]
        names.sort(key=lambda name: points[name][1])
        if not names:
            continue
        places = spread(np.log([points[name][1] for name in names]), 0.045 * (top - bottom), bottom, top)
        for name, place in zip(names, places, strict=True):
            colour = _style(name)[0]
            ax.annotate(
                name,
                points[name],
                (x, np.exp(place)),
                va="center",
                ha=align,
                color=colour,
                fontweight="bold" if name == OURS else "normal",
                fontsize=9,
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
            )


# ---- whole models ----------------------------------------------------------------------------------


def models(heats: Sequence[Heat]) -> Figure | None:
    """How many times as long as fastgru each peer takes: a line for each model and way to call it."""
    drawn = [heat for heat in heats if heat.finisher(OURS) and heat.best_peer()]
    if not drawn:
        return None
    figure, [ax] = _figure(1, 9.0, 1.6 + 0.32 * len(drawn))
    names = dict.fromkeys(
        entrant.name for heat in drawn for entrant in heat.entrants if entrant.contender.peer
    )
    for name in names:
        points = []
        for y, heat in enumerate(drawn):
            peer, ours = heat.finisher(name), heat.finisher(OURS)
            if peer and ours:
                points.append((float(np.median(ratios(peer, ours))), y))
        colour, dashes = _style(name)
        mark = "D" if dashes == "--" else "o"
        ax.plot(*zip(*points, strict=True), mark, color=colour, markersize=6, label=name)
    ax.axvline(1, color=_style(OURS)[0], linewidth=2)
    ax.set_xscale("log")
    _number(ax.xaxis, 1, 10)
    ax.set_yticks(range(len(drawn)), [_called(heat) for heat in drawn], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("time divided by fastgru's, which is the line at 1")
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(names), fontsize=8, frameon=False, columnspacing=1)
    return figure


def _called(heat: Heat) -> str:
    """A model's name, rows and steps."""
    rows, steps = map(int, heat.task.shape.split("x"))
    how = "a step a call" if heat.task.stream else f"{steps} steps"
    return f"{heat.label.partition(',')[0]}: {how}{f', {rows} rows' * (rows > 1)}"
