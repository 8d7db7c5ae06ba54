"""The calls that benchmarks are made of: layers and inputs, the same ones in every process."""

import runpy
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastgru

Array = NDArray[Any]
Dtype = Literal["float32", "float64"]

REFERENCE = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "reference.py"))


class Workload(NamedTuple):
    """One call: a layer of `units` units on inputs as wide as itself.

    Of more than one timestep all outputs are returned, so that all can be compared.
    """

    batch: int
    timesteps: int
    units: int
    reset_after: bool = False
    dtype: Dtype = "float32"

    def config(self) -> dict[str, Any]:
        """Arguments of the layer, ours or Keras' own; all others are defaults."""
        return {
            "units": self.units,
            "return_sequences": self.timesteps > 1,
            "reset_after": self.reset_after,
            "dtype": self.dtype,
        }

    def inputs(self) -> Array:
        """Standard normal, (batch, timesteps, features)."""
        shape = (self.batch, self.timesteps, self.units)
        return np.random.default_rng(0).standard_normal(shape, self.dtype)

    def layer(self) -> fastgru.GRU:
        """A built layer; its weights are drawn such that no gate is stuck."""
        shape = (self.units, 3 * self.units)
        shapes = [shape, shape, (2, shape[1]) if self.reset_after else shape[1:]]
        rng = np.random.default_rng(1)
        # Given, not set afterwards: initializers would take more memory than the call that is measured.
        weights = [rng.standard_normal(shape, self.dtype) / self.units**0.5 for shape in shapes]
        layer = fastgru.GRU(**self.config(), weights=weights)
        layer.build((None, None, self.units))
        return layer

    def exact(self, layer: fastgru.GRU) -> Array:
        """What the layer should return: the equations in float64, which the tests hold too."""
        outputs: Array
        state: Array
        outputs, state = REFERENCE["gru"](self.inputs(), *layer.weights, reset_after=self.reset_after)
        return outputs if self.timesteps > 1 else state
