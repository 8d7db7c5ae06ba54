"""Modules of PyTorch before and after `fastgru.torch.optimize`: python -m benchmarks.optimized_torch

One thread, one program: blocks of calls of the two alternate. A time is the median of its blocks, a ratio the
median of the ratios within rounds. Needs PyTorch in this environment; nothing else of the benchmarks does.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import fastgru.torch

BLOCK = 0.1  # seconds
ROUNDS = 21


def timed(function: Callable[[], Any], calls: int) -> float:
    """Microseconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return 1e6 * (time.perf_counter() - start) / calls


def compared(module: Any, *arguments: Any) -> tuple[float, float, float]:
    """Microseconds of the module, of the same optimized, and how many times as fast that is."""
    ours = fastgru.torch.optimize(copy.deepcopy(module))
    functions = [lambda: module(*arguments), lambda: ours(*arguments)]
    for function in functions:
        timed(function, 3)
    calls = [max(1, int(1e6 * BLOCK / timed(function, 3))) for function in functions]
    rounds = [[timed(*each) for each in zip(functions, calls, strict=True)] for _ in range(ROUNDS)]
    theirs, own = (statistics.median(each) for each in zip(*rounds, strict=True))
    return theirs, own, statistics.median(a / b for a, b in rounds)


def cases() -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """What is timed: its name, a module, arguments."""
    for batch, timesteps, units in ((1, 1, 64), (1, 1, 256), (1, 100, 128), (8, 50, 256)):
        name = f"batch {batch}, {timesteps} timesteps, {units} units"
        yield name, nn.GRU(units, units), (torch.randn(timesteps, batch, units),)
    lengths = torch.randint(1, 201, (64,))
    packed = pack_padded_sequence(torch.randn(int(lengths.max()), 64, 256), lengths, enforce_sorted=False)
    yield "packed, 64 rows of 1 to 200 timesteps, 256 units", nn.GRU(256, 256), (packed,)
    for units in (64, 256):
        yield (
            f"`GRUCell`, {units} units",
            nn.GRUCell(units, units),
            (torch.randn(1, units), torch.randn(1, units)),
        )


def overhead(units: int = 64) -> tuple[float, float]:
    """Microseconds that a module, and its forward, take more for a step than the layer does for an array."""
    module = nn.GRU(units, units, batch_first=True).eval()
    layer = fastgru.from_torch(module)
    x, h = torch.randn(1, 1, units), torch.zeros(1, 1, units)
    arrays, forward = (x.numpy(), h[0].numpy()), fastgru.torch.optimize(module).forward
    functions = [lambda: layer(*arrays), lambda: forward(x, h), lambda: module(x, h)]
    calls = [max(1, int(1e6 * BLOCK / timed(function, 1000))) for function in functions]
    rounds = [[timed(*each) for each in zip(functions, calls, strict=True)] for _ in range(ROUNDS)]
    plain, forwards, modules = (statistics.median(each) for each in zip(*rounds, strict=True))
    return modules - plain, forwards - plain


def main() -> None:
    """Print a row of a table for each case, in the order of `cases`, and the overhead of a call."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name, module, arguments in cases():
        with torch.inference_mode():
            theirs, own, ratio = compared(module.eval(), *arguments)
        digits = 1 if theirs < 1000 else 0
        print(f"| {name} | {theirs:.{digits}f} | {own:.{digits}f} | {ratio:.1f} |", flush=True)
    with torch.inference_mode():
        print("a step takes {:.1f} us more than on an array, its forward {:.1f}".format(*overhead()))


if __name__ == "__main__":
    main()
