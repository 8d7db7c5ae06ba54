"""Every way to call by the plainest one, `gru(x)`: what arguments, states and conversions cost."""

from __future__ import annotations

import numpy as np

from benchmarks import ways


class _Ways:
    """Both engines; of each way the median over rounds, a block of both calls in each."""

    param_names = ("engine", "way")
    rounds = 51
    seconds = 0.002  # of a block
    way: ways.Way

    def setup(self, engine: str, code: str) -> None:
        self.way = next(way for way in ways.WAYS if way.code == code)
        self.made = ways.names(engine)

    def cost(self) -> float:
        times = ways.measured(self.made, self.way, self.rounds, self.seconds)
        return round(float(np.median(self.way.cost(times))), 3)


class Ways(_Ways):
    params = (list(ways.ENGINES), [way.code for way in ways.WAYS if not way.on_top and way.code != way.by])

    def track_share(self, *_: object) -> float:
        """Of the time of the call that it is measured by."""
        return self.cost()

    track_share.unit = "times"  # type: ignore[attr-defined]


class Conversions(_Ways):
    params = (list(ways.ENGINES), [way.code for way in ways.WAYS if way.on_top])

    def track_on_top(self, *_: object) -> float:
        """Microseconds more than the call that it is measured by."""
        return self.cost()

    track_on_top.unit = "microseconds"  # type: ignore[attr-defined]
