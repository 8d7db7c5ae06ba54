"""What a second thread brings, and costs beside busy neighbours.

    python -m benchmarks.threads                                       two threads
    python -m benchmarks.threads -n 4                                  four
    python -m benchmarks.threads --busy 1 1x100x256 --calls 10000      beside a busy loop, this shape only

Each layer is called by turns with one thread and with N, in blocks. A line has the median, the 99th
percentile and the largest time of both in microseconds, the median of the ratios of blocks, and how many
calls had helpers. Run it while nothing else runs.
"""

import argparse
import statistics
import time
from collections.abc import Iterator

import numpy as np

import fastgru
from benchmarks import busy
from fastgru import _plans

BLOCKS, SECONDS = 12, 0.05
SHAPES = [
    (1, 100, 128),
    (1, 100, 256),
    (1, 100, 512),
    (1, 1, 512),
    (1, 1, 1024),
    (8, 50, 256),
    (16, 50, 256),
    (64, 50, 256),
    (64, 50, 512),
    (64, 1, 256),
]
OTHERS = [
    ("reset before", {"reset_after": False}),
    ("float16 weights", {"weights_dtype": "float16"}),
    ("int8 weights", {"weights_dtype": "int8"}),
    ("float64", {"dtype": "float64"}),
]


def layers(threads: int) -> Iterator[tuple[str, tuple[int, int, int], fastgru.GRU | fastgru.Bidirectional]]:
    """What is measured: a name, a shape, and a layer."""

    def gru(units: int, **options: object) -> fastgru.GRU:
        usual = {"reset_after": True, "recurrent_activation": "sigmoid", "return_sequences": True}
        return fastgru.GRU(units, num_threads=threads, **(usual | options))  # type: ignore[arg-type]

    for shape in SHAPES:
        yield "", shape, gru(shape[2])
    for name, options in OTHERS:
        yield name, (1, 100, 256), gru(256, **options)
    for units in (64, 256):
        yield "Bidirectional", (1, 100, units), fastgru.Bidirectional(gru(units), num_threads=threads)


def main() -> None:
    """Read the command line, and start the busy loops."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("shapes", nargs="*", metavar="BxTxU", help="batch x timesteps x units; default: all")
    add("-n", "--threads", type=int, default=2, metavar="N", help="default: 2")
    add("--busy", type=int, default=0, metavar="N", help="busy loops that run beside it (default: 0)")
    add("--calls", type=int, default=0, metavar="N", help="calls of each kind, at least (default: 0)")
    options = parser.parse_args()
    with busy.loops(options.busy):
        measure(options.threads, options.shapes, options.calls)


def measure(threads: int, shapes: list[str], calls: int) -> None:
    """Measure these shapes, all if there are none, and print a line for each."""
    for name, (batch, timesteps, units), layer in layers(threads):
        if shapes and f"{batch}x{timesteps}x{units}" not in shapes:
            continue
        x = np.random.default_rng(0).normal(size=(batch, timesteps, units)).astype(layer.dtype)
        out = layer(x)
        times: dict[int, list[float]] = {1: [], threads: []}
        ratios, seconds = [], min(block(layer, x, out, 0.0) for _ in range(5))[0]
        before = _plans.count_threads()[0]
        blocks = 0
        while blocks < BLOCKS or min(map(len, times.values())) < calls:
            blocks += 1
            medians = []
            for number in times:
                layer.num_threads = number
                layer(x, out=out)
                found = block(layer, x, out, max(SECONDS, 3 * seconds))
                times[number] += found
                medians.append(statistics.median(found))
            ratios.append(medians[0] / medians[1])
        shown = ", ".join(
            f"{number}: {' / '.join(f'{1e6 * found:.0f}' for found in np.percentile(each, (50, 99, 100)))} us"
            for number, each in times.items()
        )
        helped = f"{_plans.count_threads()[0] - before} of {len(times[threads]) + blocks}"
        print(
            f"{batch}x{timesteps}x{units}x{units} {name}: {shown}, "
            f"{statistics.median(ratios):.2f} times as fast, {helped} calls with helpers",
            flush=True,
        )


def block(layer: object, x: object, out: object, seconds: float) -> list[float]:
    """Seconds of each call within that time, at least one."""
    assert callable(layer)
    found = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        start = time.perf_counter()
        layer(x, out=out)
        found.append(time.perf_counter() - start)
    return found


if __name__ == "__main__":
    main()
