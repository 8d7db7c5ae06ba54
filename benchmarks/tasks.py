"""What is measured: a layer, its sizes, its weights and inputs, and what it should return.

The race's workers import this under their peer's Python: nothing but NumPy here.
"""

from __future__ import annotations

import functools
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FRAMES = 8  # different inputs of a stream, which come in turn


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
    def weights(self) -> int:
        """Numbers in both kernels: what calls in a row read over and over."""
        return 3 * self.units * (self.features + self.units)


class Arrays(NamedTuple):
    """What a layer is given; weights as Keras keeps them, gates z | r | h."""

    x: Array  # (batch, timesteps, features); of a stream (batch, FRAMES, features)
    state: Array  # (batch, units)
    mask: Array  # (batch, timesteps), bool: rows are padded on the right, none is empty
    kernel: Array  # (features, 3 * units)
    recurrent_kernel: Array  # (units, 3 * units)
    bias: Array  # (2, 3 * units) with reset_after, else (3 * units,)

    @property
    def lengths(self) -> Array:
        """Steps of each row that are not masked, (batch,)."""
        return self.mask.sum(axis=1)


class Task(NamedTuple):
    """A layer and how it is called: tanh, an initial state.

    `stream`: step by step, from state to state, an output (batch, units) for each. Otherwise one
    call: it returns all outputs, (batch, timesteps, units), but of a single step or with a mask the
    last ones, (batch, units). `bidirectional`: all outputs of both directions, which have the same weights
    and initial state, (batch, timesteps, 2, units); no stream, no mask.
    """

    shape: Shape
    stream: bool = False
    dtype: str = "float32"
    reset_after: bool = True
    recurrent_activation: str = "sigmoid"
    masked: bool = False
    bidirectional: bool = False

    @property
    def sequences(self) -> bool:
        """True if all outputs are returned."""
        return self.shape.timesteps > 1 and not self.masked

    @property
    def needs(self) -> frozenset[str]:
        """What not every library has."""
        needs = {
            "batch": self.shape.batch > 1,
            "float64": self.dtype == "float64",
            "reset_before": not self.reset_after,
            "hard_sigmoid": self.recurrent_activation == "hard_sigmoid",
            "mask": self.masked,
            "bidirectional": self.bidirectional,
        }
        return frozenset(need for need, there in needs.items() if there)

    def __str__(self) -> str:
        """The shape, and in what it is not the usual layer."""
        return " ".join([str(self.shape), *sorted(self.needs - {"batch"})])

    def arrays(self) -> Arrays:
        """The same ones every time; drawn such that no gate is stuck."""
        batch, timesteps, features, units = self.shape
        rng = np.random.default_rng(0)

        def draw(*shape: int, scale: float = 1.0) -> Array:
            return (scale * rng.standard_normal(shape)).astype(self.dtype)

        x = draw(batch, FRAMES if self.stream else timesteps, features)
        return Arrays(
            x=x,
            state=draw(batch, units, scale=0.5),
            kernel=draw(features, 3 * units, scale=features**-0.5),
            recurrent_kernel=draw(units, 3 * units, scale=units**-0.5),
            # exact in float16: rounding weights to it concerns the kernels alone
            bias=draw(*(2,) * self.reset_after, 3 * units, scale=0.1).astype("float16").astype(self.dtype),
            mask=np.arange(timesteps) < rng.integers(1, timesteps, (batch, 1), endpoint=True),
        )

    def exact(self, steps: int = 0, weights_dtype: str | None = None) -> Array:
        """What the layer should return: the equations in float64, its weights rounded to a dtype first.

        Of a stream the outputs of so many steps, (batch, steps, units).
        """
        arrays = self.arrays()
        x = arrays.x[:, np.arange(steps) % FRAMES] if self.stream else arrays.x
        weights = (arrays.kernel, arrays.recurrent_kernel, arrays.bias)

        def run(**direction: bool) -> tuple[Array, Array]:
            return _reference()(
                x,
                *(array.astype(weights_dtype or array.dtype) for array in weights),
                recurrent_activation=self.recurrent_activation,
                reset_after=self.reset_after,
                initial_state=arrays.state,
                mask=arrays.mask if self.masked else None,
                **direction,
            )

        outputs, last = run()
        if self.bidirectional:
            backward, _ = run(go_backwards=True)
            return np.stack([outputs, backward[:, ::-1]], axis=2)
        return outputs if self.stream or self.sequences else last


@functools.cache
def _reference() -> Callable[..., tuple[Array, Array]]:
    """`gru` of the tests, from the file itself: no peer's environment has it on its path."""
    return runpy.run_path(str(Path(__file__).parents[1] / "tests" / "reference.py"))["gru"]
