"""The ways to call what the package has, and what each costs by the plainest one.

The layers are small, 16 units, one row and one step, so that a call is all that is measured.
"""

from __future__ import annotations

import timeit
from time import thread_time
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import fastgru
from benchmarks.tasks import Array, Shape, Task
from benchmarks.turns import raced
from fastgru import _config, _kernels

TASK = Task(Shape(1, 1, 16, 16))
CLIENTS = 8  # of a pool, in a step
ENGINES = ("packed", "blas") if _config.CHOICE.isa in _kernels.packed_isas() else ("blas",)
GRU = "gru(x)"
POOL = "pool.step(slots, frames)"

Times = dict[str, list[list[float]]]  # by code, as `measured`


class Way(NamedTuple):
    """A call as users write it, of the names that `names` makes."""

    code: str
    most: float | None = 1.3  # times the call that it is measured by, as is wanted; or microseconds more
    by: str = GRU  # itself: what is found is the noise
    on_top: bool = False  # is it measured in microseconds more?

    def cost(self, times: Any) -> Array:
        """Of microseconds of the other call and of this one, (2, rounds), round by round."""
        other, own = np.asarray(times)
        cost: Array = own - other if self.on_top else own / other
        return cost


WAYS = (
    Way(GRU, most=None),
    Way("gru(x, h)"),
    Way("gru(x, initial_state=h)"),
    Way("gru(x, initial_state=[h])"),
    Way("gru(x, initial_state=(h,))"),
    Way("gru([x, h])"),
    Way("gru(x, training=False)"),
    Way("gru(x, initial_state=None, mask=None, training=None, lengths=None, out=None)"),
    Way("gru.call(x)"),
    Way("returning_state(x, initial_state=[h])"),
    Way("gru(x, lengths=[1])"),
    Way("gru(x, lengths=lengths)"),
    Way("gru(x, mask=mask)"),
    Way("gru(x, out=out)"),
    Way("gru(x_float64)", most=1.5, on_top=True),
    Way("gru(x_strided)", most=1.5, on_top=True),
    Way("stateful(x)"),
    Way("stream(frame)"),
    Way("bidirectional(x)", most=2.2),
    Way("bidirectional(x, initial_state=[h, h])", most=2.2),
    Way("stack(x)", most=1.8),
    Way("stack(x, initial_state=[h, h])", most=1.8),
    Way(POOL, most=None, by=POOL),
    Way("pool.step(list_of_slots, frames)", most=2.0, by=POOL),
)


def names(engine: str) -> dict[str, Any]:
    """Layers on an engine and what they are called with; all layers have the same weights."""
    arrays, units = TASK.arrays(), TASK.shape.units
    weights = [arrays.kernel, arrays.recurrent_kernel, arrays.bias]

    def layer(**options: bool) -> fastgru.GRU:
        return fastgru.GRU(
            units,
            recurrent_activation=TASK.recurrent_activation,
            reset_after=TASK.reset_after,
            weights=weights,
            **options,
        )

    gru, returning_state, stateful = layer(), layer(return_state=True), layer(stateful=True)
    bidirectional = fastgru.Bidirectional(layer(), weights=2 * weights)
    stack = fastgru.Stack([layer(return_sequences=True), layer()])
    with mock.patch.object(_config, "CHOICE", _config.CHOICE._replace(engine=engine)):
        for each in (gru, returning_state, stateful, bidirectional, stack):
            each.build(arrays.x.shape)
    pool = fastgru.StreamPool(gru, CLIENTS)
    slots = [pool.open() for _ in range(CLIENTS)]
    frame = arrays.x[:, 0]
    return {
        "gru": gru,
        "returning_state": returning_state,
        "stateful": stateful,
        "bidirectional": bidirectional,
        "stack": stack,
        "stream": gru.stream(),
        "pool": pool,
        "x": arrays.x,
        "x_float64": arrays.x.astype(np.float64),
        "x_strided": np.repeat(arrays.x, 2, axis=2)[:, :, ::2],
        "h": arrays.state,
        "lengths": np.array([1]),
        "mask": np.ones((1, 1), bool),
        "out": np.empty((1, units), np.float32),
        "frame": frame,
        "frames": np.repeat(frame, CLIENTS, axis=0),
        "slots": np.array(slots),
        "list_of_slots": slots,
    }


def measured(made: dict[str, Any], way: Way, rounds: int, seconds: float) -> Array:
    """Microseconds of the other call and of this one, (2, rounds): blocks in turns.

    Of the processor, not of the clock: within a call nothing is waited for, and who else runs does not count.
    """
    codes = way.by, way.code
    return 1e6 * raced(
        [timeit.Timer(code, timer=thread_time, globals=made) for code in codes], rounds, seconds
    )


def everything(engine: str, rounds: int, seconds: float) -> Times:
    """All ways on an engine."""
    made = names(engine)
    return {way.code: measured(made, way, rounds, seconds).tolist() for way in WAYS}
