"""How late answers were: the whole distribution, and its ends by number of clients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from load import Round
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

LABELS = "p50", "p99", "p99.9", "max"


def draw(path: Path, rounds: Sequence[Round], budget: float) -> None:
    """Write a PNG of what some numbers of clients have seen; budget in ms."""
    rounds = sorted(rounds, key=lambda one: one.clients)
    figure = Figure(figsize=(13, 5.5), dpi=110, layout="constrained")
    tails, ends = figure.subplots(1, 2)

    colors = colormaps["viridis"](np.linspace(0, 0.9, len(rounds)))
    for one, color in zip(rounds, colors, strict=True):
        late = np.sort(one.late, axis=None)
        above = 1 - np.arange(late.size) / late.size
        tails.plot(late, above, color=color, drawstyle="steps-pre", label=f"{one.clients}")
    tails.axvline(budget, color="tab:red", linestyle="--")
    tails.set(xscale="log", yscale="log")
    tails.set_title("Answers that take longer", loc="left", fontsize=14)
    tails.set_xlabel("ms from when a frame was due", fontsize=12)
    tails.set_ylabel("part of all answers", fontsize=12)
    tails.set_yticks([1, 0.5, 0.1, 0.01, 0.001], ["1", "1/2", "1/10", "1/100", "1/1000"], minor=False)
    tails.legend(title="clients", fontsize=10)

    clients = [one.clients for one in rounds]
    for label, values in zip(LABELS, np.transpose([one.quantiles() for one in rounds]), strict=True):
        ends.plot(clients, values, marker="o", label=label)
    ends.axhline(budget, color="tab:red", linestyle="--", label=f"next frame, {budget:g} ms")
    ends.set(yscale="log")
    ends.set_xticks(sorted(set(clients)), [str(number) for number in sorted(set(clients))])
    ends.set_title("By number of clients", loc="left", fontsize=14)
    ends.set_xlabel("clients at once", fontsize=12)
    ends.set_ylabel("ms from when a frame was due", fontsize=12)
    ends.legend(fontsize=10)

    for times in tails.xaxis, ends.yaxis:  # 1, 2, 5, 10, ... ms
        times.set_major_locator(LogLocator(subs=(1, 2, 5)))
        times.set_major_formatter("{x:g}")
        times.set_minor_formatter(NullFormatter())
    for axis in tails, ends:
        axis.tick_params(labelsize=11)
        axis.grid(alpha=0.3)
    figure.savefig(path)
