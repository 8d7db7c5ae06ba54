"""What is raced: shapes and layers, and what fastgru should reach at each.

Workers import this too, under their own Python: nothing but NumPy here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Shape(NamedTuple):
    """Sizes of one call."""

    batch: int
    timesteps: int
    features: int
    units: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """The shape that was written as `1x100x40x128`; ValueError if it is none."""
        sizes = text.split("x")
        if len(sizes) != len(cls._fields) or not all(size.isdecimal() and int(size) for size in sizes):
            raise ValueError(
                f"a shape must be batch x timesteps x features x units, such as 1x100x40x128, got {text!r}"
            )
        return cls(*map(int, sizes))

    def __str__(self) -> str:
        return "x".join(map(str, self))

    @property
    def flop(self) -> int:
        """Floating-point operations of the matrix products."""
        return 6 * self.batch * self.timesteps * self.units * (self.units + self.features)

    @property
    def weights(self) -> int:
        """Numbers in both kernels: what a stream of calls reads over and over."""
        return 3 * self.units * (self.features + self.units)

    @property
    def reads(self) -> int:
        """Weights a call reads at least: the kernel once, the recurrent kernel at every step."""
        return 3 * self.units * (self.features + self.timesteps * self.units)


class Arrays(NamedTuple):
    """What every contender is given; weights as Keras keeps them, gates z | r | h."""

    x: Array  # (batch, timesteps, features)
    state: Array  # (batch, units)
    kernel: Array  # (features, 3 * units)
    recurrent_kernel: Array  # (units, 3 * units)
    bias: Array  # (2, 3 * units) with reset_after, else (3 * units,)


class Task(NamedTuple):
    """A layer to run: tanh, an initial state, all outputs if there are several steps."""

    shape: Shape
    dtype: str = "float32"
    reset_after: bool = True
    recurrent_activation: str = "sigmoid"

    @property
    def sequences(self) -> bool:
        return self.shape.timesteps > 1

    def arrays(self) -> Arrays:
        """The same ones every time; drawn such that no gate is stuck."""
        batch, timesteps, features, units = self.shape
        rng = np.random.default_rng(0)

        def draw(*shape: int, scale: float = 1.0) -> Array:
            return (scale * rng.standard_normal(shape)).astype(self.dtype)

        return Arrays(
            x=draw(batch, timesteps, features),
            state=draw(batch, units, scale=0.5),
            kernel=draw(features, 3 * units, scale=features**-0.5),
            recurrent_kernel=draw(units, 3 * units, scale=units**-0.5),
            # exact in float16: rounding weights to it concerns the kernels alone
            bias=draw(*(2,) * self.reset_after, 3 * units, scale=0.1).astype("float16").astype(self.dtype),
        )


# How many times faster than the best of its peers each of fastgru's contenders should be.
WANTED = {
    Shape(1, 1, 40, 24): {"fastgru": 8.0},
    Shape(1, 1, 64, 64): {"fastgru": 8.0},
    Shape(1, 1, 128, 128): {"fastgru": 4.0},
    Shape(1, 1, 256, 256): {"fastgru": 2.0, "fastgru-f16": 5.0},
    Shape(1, 1, 400, 400): {"fastgru": 1.3, "fastgru-f16": 2.5},
    Shape(1, 1, 512, 512): {"fastgru": 1.1, "fastgru-f16": 2.2},
    Shape(1, 100, 40, 128): {"fastgru": 1.6},
    Shape(1, 100, 128, 128): {"fastgru": 1.6},
    Shape(1, 100, 256, 256): {"fastgru": 1.4},
    Shape(1, 100, 400, 400): {"fastgru": 1.5, "fastgru-f16": 2.2},
    Shape(4, 1, 256, 256): {"fastgru": 2.0},
    Shape(8, 50, 128, 128): {"fastgru": 1.3},
    Shape(8, 50, 256, 256): {"fastgru": 1.3},
    Shape(32, 50, 256, 256): {"fastgru": 1.2},
    Shape(128, 50, 256, 256): {"fastgru": 1.2},
    Shape(64, 50, 512, 512): {"fastgru": 1.2},
}

# Share of the machine's peak that fastgru should reach.
PEAK_WANTED = {
    Shape(32, 50, 256, 256): 0.75,
    Shape(128, 50, 256, 256): 0.75,
    Shape(64, 50, 512, 512): 0.75,
}

OVERHEAD = Shape(1, 1, 1, 1)  # next to nothing to compute
OVERHEAD_WANTED = 2.5  # us at most


class Variant(NamedTuple):
    """fastgru with a layer of another kind, against another contender or against itself."""

    label: str
    baseline: str  # a contender's name
    baseline_task: Task
    task: Task  # fastgru's
    wanted: float  # how many times as fast as the baseline


def _float64(wanted: dict[Shape, float]) -> list[Variant]:
    tasks = {Task(shape, "float64"): ratio for shape, ratio in wanted.items()}
    return [
        Variant("float64, against tf_keras", "tf_keras", task, task, ratio) for task, ratio in tasks.items()
    ]


def _against_itself(label: str, wanted: float, **options: Any) -> list[Variant]:
    shapes = (Shape(1, 1, 64, 64), Shape(1, 1, 256, 256), Shape(1, 100, 128, 128), Shape(32, 50, 256, 256))
    return [Variant(label, "fastgru", Task(shape), Task(shape, **options), wanted) for shape in shapes]


VARIANTS = [
    *_float64(
        {
            Shape(1, 1, 128, 128): 5.0,
            Shape(1, 1, 256, 256): 5.0,
            Shape(1, 100, 256, 256): 5.0,
            Shape(64, 50, 256, 256): 1.3,
        }
    ),
    # at most 1.25 times as long
    *_against_itself("reset gate before the product, against after", 0.8, reset_after=False),
    # not slower, but for the noise
    *_against_itself("hard_sigmoid, against sigmoid", 0.97, recurrent_activation="hard_sigmoid"),
]
