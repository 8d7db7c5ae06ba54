"""How long a layer takes, here and now."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

Call = Callable[[], object]

STEPS = 32  # of a call whose time is divided among them
WARM, SECONDS = 0.02, 0.1  # to fill the caches, and to measure


def block(call: Call, seconds: float) -> list[int]:
    """Nanoseconds of each call within that time, at least one."""
    clock = time.perf_counter_ns
    nanoseconds: list[int] = []
    start = end = clock()
    while not nanoseconds or end - start < 1e9 * seconds:
        before = clock()
        call()
        end = clock()
        nanoseconds.append(end - before)
    return nanoseconds


def streams(layer: Any) -> bool:
    """True if a layer can compute outputs while its inputs arrive: nothing in it goes backwards."""
    return not any(part.go_backwards for part in layer._parts)


def step(layer: Any) -> Call:
    """A step of one row of a stream, which goes on from call to call."""
    first = layer._parts[0]
    x = np.random.default_rng(0).standard_normal((1, first.weights[0].shape[0])).astype(first.dtype)
    stream = layer.stream()
    out = stream(x)
    return lambda: stream(x, out)


def sequence(layer: Any, batch: int, timesteps: int) -> Call:
    """A call over a sequence."""
    first = layer._parts[0]
    shape = (batch, timesteps)[:: -1 if layer.time_major else 1]
    x = np.random.default_rng(0).standard_normal((*shape, first.weights[0].shape[0])).astype(first.dtype)
    return lambda: layer(x)


def microseconds_per_step(layer: Any) -> float:
    """The median time of a step of one row, in microseconds.

    Parameters
    ----------
    layer : GRU, Bidirectional or Stack
        Built, and not stateful. One that goes backwards has no stream: its step is an equal part of a call
        over `STEPS` of them.
    """
    call, steps = (step(layer), 1) if streams(layer) else (sequence(layer, 1, STEPS), STEPS)
    block(call, WARM)
    return float(np.median(block(call, SECONDS))) * 1e-3 / steps
