"""How late the last calls are beside busy neighbours: python -m benchmarks.neighbours [--docs], ten minutes.

Races all contenders with two threads each, alone and beside one and two busy loops. Prints a table, and draws
the 99th percentile of their calls to race-output/threads.png, or with --docs to docs/threads.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.race import contenders
from benchmarks.race.__main__ import DOCS, parse, run
from benchmarks.race.pictures import DPI, OTHER, STYLES

SHAPES = ["1x100x256x256", "64x50x256x256"]
NEIGHBOURS = [0, 1, 2]
Late = dict[str, dict[int, tuple[float, float]]]  # milliseconds by contender and neighbours: median and p99


def measured() -> dict[str, Late]:
    """What the races gave, by shape."""
    everyone = {contender.name: contender for contender in contenders.ALL}
    found: dict[str, Late] = {shape: {} for shape in SHAPES}
    for busy in NEIGHBOURS:
        options = parse([*SHAPES, "--threads", "2", "--busy", str(busy)], everyone)
        for heat in run(options, everyone).all_heats():
            late = found[str(heat.task.shape)]
            for entrant in heat.entrants:
                if entrant.blocks:
                    calls = np.concatenate(entrant.blocks) / 1e6
                    of_contender = late.setdefault(entrant.contender.name, {})
                    of_contender[busy] = float(np.median(calls)), float(np.percentile(calls, 99))
    return found


def draw(found: dict[str, Late], path: Path) -> None:
    """A panel for each shape, a line for each contender."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator
    from PIL import Image

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(found)))
    for ax, (shape, late) in zip(axes, found.items(), strict=True):
        for name, times in late.items():
            colour, dashes = STYLES.get(name, OTHER)
            width = 2.5 if name == "fastgru" else 1.2
            p99 = [times[busy][1] for busy in times]
            ax.plot(
                [*times], p99, dashes, color=colour, label=name, linewidth=width, marker="o", markersize=3
            )
        ax.set_title(f"{shape}, two threads")
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
        ax.set_xticks(NEIGHBOURS)
        ax.set_xlabel("busy loops beside it, on two cores")
        ax.set_ylabel("99th percentile of a call, ms")
        ax.grid(alpha=0.3)
    lines = {line.get_label(): line for ax in axes for line in ax.lines}  # not all run everywhere
    figure.legend([*lines.values()], [*lines], loc="outside right center", frameon=False)
    figure.savefig(path, dpi=DPI)
    with Image.open(path) as picture:  # an eighth of the size, and the same to the eye
        palette = picture.convert("RGB").quantize(64)
    palette.save(path, optimize=True)


def main(arguments: list[str]) -> None:
    """Race, print and draw."""
    path = DOCS / "threads.png" if arguments == ["--docs"] else Path("race-output/threads.png")
    path.parent.mkdir(exist_ok=True)
    found = measured()
    for shape, late in found.items():
        print(f"{shape}, milliseconds, median and p99, beside {', '.join(map(str, NEIGHBOURS))} busy loops")
        for name, times in late.items():
            print(f"  {name:14}" + "".join(f"{median:9.2f} {p99:8.2f}" for median, p99 in times.values()))
    draw(found, path)
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
