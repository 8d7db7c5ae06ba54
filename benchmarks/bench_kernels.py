"""The engine's kernels, without the layer around them: every engine, instruction set and kind of weights."""

import numpy as np

from benchmarks.tasks import Array, Shape, Task
from fastgru import _core, _kernels, _plans

PLANS = {
    "blas": ("blas", None, "float32", None),
    **{
        f"packed {isa} {name}": ("packed", isa, dtype, packed_as)
        for isa in _kernels.packed_isas()
        for name, dtype, packed_as in (
            ("float32", "float32", None),
            ("float64", "float64", None),
            ("float16", "float32", "float16"),
            ("int8", "float32", "int8"),
        )
        if packed_as != "float16" or isa in _kernels.float16_isas()
    },
}


class Plans:
    """A step of one row, a sequence of one row, a step of many rows; weights in the caches."""

    params = ([*PLANS], ["1x1x256x256", "1x50x128x128", "64x1x256x256"])
    param_names = ("plan", "shape")
    repeat = (3, 1000, 0.1)  # at least, at most, seconds
    warmup_time = 0.05
    key: tuple[str, str] | None = None

    def setup(self, name: str, shape: str) -> None:
        if (name, shape) == self.key:  # asv sets up again between the calls that it times
            return
        self.key = name, shape
        engine, isa, dtype, packed_as = PLANS[name]
        self.task = Task(Shape.parse(shape), dtype=dtype)
        self.x, self.initial, _, kernel, recurrent_kernel, bias = self.task.arrays()
        self.plan = _plans.Plan(
            kernel, recurrent_kernel, bias, True, ("tanh", 0.0), ("sigmoid", 0.0), engine, isa, packed_as
        )
        self.weights_dtype = packed_as if packed_as == "float16" else None
        self.state = np.empty_like(self.initial)
        batch, timesteps, features, units = self.task.shape
        last = not self.task.sequences
        self.out = np.empty((batch, units) if last else (batch, timesteps, units), dtype)
        values = [(features, dtype, False, 0), (units, dtype, last, 0)]
        nodes = [("gru", 0, 1, {"plan": self.plan, "state": 0})]
        self.network = _core.Network(values, nodes, [1], False, False, states=[(units, dtype)])
        self.run()

    def run(self) -> Array:
        self.network.run(self.x, (self.initial,), (self.state,), (self.out,))
        return self.out

    def time_run(self, *_: object) -> None:
        self.run()

    def track_max_error(self, *_: object) -> float:
        """Against the equations in float64, on the weights that the plan holds; of int8, those before."""
        error = np.abs(self.run() - self.task.exact(weights_dtype=self.weights_dtype)).max()
        return float(f"{error:.1e}")

    track_max_error.unit = "absolute"  # type: ignore[attr-defined]


class Activations:
    """An activation of numbers that lie in the first-level cache."""

    params = (list(_kernels.activations()), list(_kernels.isas()), ["float32", "float64"])
    param_names = ("activation", "isa", "dtype")
    repeat = (3, 1000, 0.02)  # at least, at most, seconds
    warmup_time = 0.01

    def setup(self, name: str, isa: str, dtype: str) -> None:
        self.x = np.random.default_rng(0).standard_normal(2048).astype(dtype)

    def time_activate(self, name: str, isa: str, dtype: str) -> None:
        _kernels.activate(name, self.x, 0.3, isa)
