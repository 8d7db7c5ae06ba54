"""fastgru against the layer it copies: Keras' GRU of version 1, under `tf.function`, one thread each.

    python -m benchmarks.keras_race

Prints a table and judges it; but only a wrong result makes the exit status 1, times are the machine's.
"""

from __future__ import annotations

import os

if __name__ == "__main__":
    # The libraries read these once, when they are loaded: hence before the imports.
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    os.environ.update(TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3")

import datetime
import functools
import platform
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import fastgru
from benchmarks.workloads import Array, Workload
from fastgru import _core

# TensorFlow and rich are imported where they are used: asv imports this module too, in environments
# that have neither.
if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

Call = Callable[[], Array]

BLOCKS = 11  # of each layer
SECONDS = 0.05  # of a block
LIMIT = 3e-5  # of the difference between the layers
BUSY = 1.2  # load average above which others ran too

# How many times faster than Keras each workload should be.
WANTED = {
    Workload(1, timesteps, units, reset_after): ratio
    for reset_after in (False, True)
    for units, ratio in ((64, 20.0), (128, 20.0), (256, 10.0))
    for timesteps in (1, 100)
} | {Workload(64, 50, 512, reset_after): 1.3 for reset_after in (False, True)}

OVERHEAD = Workload(1, 1, 1)  # next to nothing to compute
OVERHEAD_WANTED = 5.0  # us


class Race(NamedTuple):
    """Median microseconds per call of each block; the layers' blocks took turns."""

    theirs: Array
    ours: Array
    difference: float

    @property
    def ratios(self) -> Array:
        """How many times faster fastgru was, for each pair of neighbouring blocks."""
        return self.theirs / self.ours

    @property
    def right(self) -> bool:
        """Did both layers return the same?"""
        return self.difference < LIMIT


def use_one_thread() -> None:
    """Comes before TensorFlow's first operation in this process."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def contestants(workload: Workload) -> tuple[Call, Call]:
    """Keras' layer and ours: the same weights, the same inputs, each in its own kind of array."""
    import tensorflow as tf

    layer, x = workload.layer(), workload.inputs()
    original = tf.compat.v1.keras.layers.GRU(**workload.config())
    original.build(x.shape)
    original.set_weights(layer.get_weights())
    function, constant = tf.function(original), tf.constant(x)
    return lambda: function(constant).numpy(), functools.partial(layer, x)


def block(call: Call, seconds: float) -> float:
    """Median microseconds of the calls within that time, at least one."""
    clock = time.perf_counter_ns
    nanoseconds: list[int] = []
    start = end = clock()
    while not nanoseconds or end - start < 1e9 * seconds:
        before = clock()
        call()
        end = clock()
        nanoseconds.append(end - before)
    return 1e-3 * float(np.median(nanoseconds))


def race(
    workload: Workload,
    blocks: int = BLOCKS,
    seconds: float = SECONDS,
    tick: Callable[[], None] = lambda: None,
) -> Race:
    """Compare both layers' results, then time them in turns; `tick` is called after each turn."""
    theirs, ours = contestants(workload)
    difference = float(np.abs(theirs() - ours()).max())
    for call in (theirs, ours):
        block(call, seconds)  # TensorFlow's first calls are slower
    times = np.empty((2, blocks))
    for turn in range(blocks):
        times[:, turn] = block(theirs, seconds), block(ours, seconds)
        tick()
    return Race(times[0], times[1], difference)


# ---- the report ------------------------------------------------------------------------------------


def machine() -> str:
    """What ran this, what was run, and how busy the machine was with it and with all else."""
    import scipy
    import tensorflow
    import tf_keras

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    packages = (fastgru, np, scipy, tensorflow, tf_keras)
    versions = ", ".join(f"{package.__name__} {package.__version__}" for package in packages)
    load = os.getloadavg()[0]
    busy = " [bold red]- the machine was busy, run this again[/]" if load > BUSY else ""
    return (
        f"{datetime.date.today()}, {model}, {os.cpu_count()} cores, {_core.isas()[0]}\n"
        f"Python {platform.python_version()}, {versions}\n"
        f"load average {load:.1f}, of which 1 is this program{busy}"
    )


def _judged(wanted: str, met: bool) -> str:
    return f"[green]{wanted} met[/]" if met else f"[bold red]{wanted} missed[/]"


def _range(values: Array) -> str:
    return f"({values.min():.3g} - {values.max():.3g})"


def table(races: Iterable[tuple[Workload, Race]], overheads: Array) -> Table:
    """A row for each race and one for the overhead, of which there is a figure for each block."""
    from rich import box
    from rich.table import Table

    result = Table(
        title="One call, batch x timesteps x units, reset gate before or after the product",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    result.add_column("workload", no_wrap=True)
    columns = ("tf_keras\nus", "fastgru\nus", "ratio\n(min - max)", "wanted\nratio", "largest\ndifference")
    for column in columns:
        result.add_column(column, justify="right", no_wrap=True)
    for workload, outcome in races:
        ratio, wanted = float(np.median(outcome.ratios)), WANTED.get(workload)
        result.add_row(
            f"{workload.batch} x {workload.timesteps} x {workload.units}, "
            f"{'after' if workload.reset_after else 'before'}",
            f"{np.median(outcome.theirs):.1f}",
            f"{np.median(outcome.ours):.1f}",
            f"{ratio:.4g} {_range(outcome.ratios)}",
            _judged(f"{wanted:g}", ratio >= wanted) if wanted else "",
            f"{outcome.difference:.1e}" if outcome.right else f"[bold red]{outcome.difference:.1e} WRONG[/]",
        )
    result.add_section()
    overhead = float(np.median(overheads))
    judgement = _judged(f"< {OVERHEAD_WANTED:g} us", overhead < OVERHEAD_WANTED)
    result.add_row("1 x 1 x 1, overhead", "", f"{overhead:.1f}", _range(overheads), judgement, "")
    return result


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


def main() -> int:
    from rich.console import Console

    use_one_thread()
    races, overheads = [], []
    overhead = functools.partial(OVERHEAD.layer(), OVERHEAD.inputs())
    with progress_bar() as progress:
        bar = progress.add_task("against Keras", total=len(WANTED) * BLOCKS)
        tick = functools.partial(progress.update, bar, advance=1, refresh=True)
        for workload in WANTED:
            races.append((workload, race(workload, tick=tick)))
            overheads.append(block(overhead, SECONDS))
    console = Console()
    console.width = max(console.width, 100)  # a wrapped row says more than one that is cut off
    console.print(machine(), highlight=False, soft_wrap=True)
    console.print(table(races, np.array(overheads)))
    return 0 if all(outcome.right for _, outcome in races) else 1


if __name__ == "__main__":
    sys.exit(main())
