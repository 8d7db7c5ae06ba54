"""A layer of Keras with its settings as they were at some time, as layers of fastgru."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru.formats._keras_layers import layer_of
from fastgru.formats.keras import parts_of

Array = NDArray[Any]

ALIGNMENT = 64  # bytes: where TensorFlow takes over memory without a copy


class _Packed(NamedTuple):
    layer: Any
    key: Any  # what says which weights these are
    held: list[Any]  # what lives as long as the key is compared


class Variant:
    """A layer of Keras with settings that do not change; weights come with each call.

    Parameters
    ----------
    layer : keras.layers.GRU, RNN or Bidirectional
    given : dict
        Arguments of `fastgru.GRU` that come before the layer's own.

    Raises
    ------
    TypeError, ValueError
        If it is none of fastgru's layers.
    """

    def __init__(self, layer: Any, given: dict[str, Any]) -> None:
        self._class_name, self._config, self._version, parts = parts_of(layer)
        self._given = given | {
            "return_state": True,
            "stateful": False,
            "activity_regularizer": None,
            "dtype": layer.compute_dtype,
        }
        self.time_major = bool(getattr(parts[0], "time_major", False))
        self._sequences = layer.return_sequences
        self._backwards = parts[0].go_backwards
        self._zeros = all(part.zero_output_for_mask for part in parts)
        self._states = layer.return_state or layer.stateful
        self.units = [part.cell.units for part in parts]
        self.features = parts[0].cell.kernel.shape[0] if layer.built else None
        self._merge_mode = getattr(layer, "merge_mode", "concat")
        self._packed: _Packed | None = None
        self._packed_by_value: _Packed | None = None
        self._made([])  # it fails now, or never

    def _made(self, arrays: list[Array]) -> Any:
        count = len(self.units)
        each = len(arrays) // count
        weights = [arrays[i * each : (i + 1) * each] for i in range(count)]
        return layer_of(self._class_name, self._config, self._version, weights, self._given)

    def packed(self, held: list[Any], key: Any, numbers: Callable[[], list[Array]]) -> Any:
        """The layer of fastgru with these weights, which is kept while they have the same key.

        Parameters
        ----------
        held : list
            What has to live as long as the key is compared.
        key : object
            Equal to another one only if the weights are the same.
        numbers : callable
            Returns the weights: kernel, recurrent_kernel, and bias if there is one, of each direction.
        """
        found = self._packed
        if found is None or found.key != key:
            found = self._packed = _Packed(self._made(numbers()), key, held)
        return found.layer

    def packed_by_value(self, arrays: list[Array]) -> Any:
        """The layer of fastgru with these weights, which is kept while they have the same values."""
        found = self._packed_by_value
        if found is None or not all(map(np.array_equal, found.held, arrays)):
            arrays = [np.array(array) for array in arrays]
            found = self._packed_by_value = _Packed(self._made(arrays), None, arrays)
        return found.layer

    def shapes(self, shape: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Shapes of the outputs, and of the states if they are wanted, for inputs of that shape."""
        batch, units = shape[1 if self.time_major else 0], self.units
        widths = units[:1]
        if self._merge_mode is None:
            widths = units
        elif self._merge_mode == "concat":
            widths = [sum(units)]
        rows = tuple(shape[:2]) if self._sequences else (batch,)
        found = [(*rows, width) for width in widths]
        return found + ([(batch, width) for width in units] if self._states else [])

    def run(self, layer: Any, x: Array, states: Sequence[Array], mask: Array | None) -> list[Array]:
        """What a layer of `packed` computes: the outputs, and the states if they are wanted.

        Parameters
        ----------
        layer : fastgru.GRU or fastgru.Bidirectional
        x : ndarray, shape (batch, timesteps, features)
        states : sequence of ndarray, shape (batch, units)
            One for each direction, or none: zeros.
        mask : ndarray of bool, shape (batch, timesteps), or None
        """
        shapes = self.shapes(x.shape)
        state = states[0] if len(states) == 1 else list(states) or None
        out = None if self._merge_mode is None else _aligned(shapes[0], x.dtype)
        results: list[Array] = layer(x, state, mask, out=out)
        return results[: len(shapes)]

    def scans(self, states: Sequence[Any], mask: Any) -> bool:
        """True if `scan` computes what Keras does for such arguments."""
        return not states or mask is None or self._zeros or len(self.units) == 1

    def scan(self, layer: Any, x: Array, states: Sequence[Array], mask: Array | None) -> list[Array]:
        """As `run`, for backends whose output of a row's masked first steps is its initial state."""
        results = self.run(layer, x, states, mask)
        if states and mask is not None and not self._zeros:
            first = ~np.logical_or.accumulate(mask[:, ::-1] if self._backwards else mask, axis=1)
            if self._sequences:
                np.copyto(results[0], states[0][:, None], where=first[..., None])
            else:
                np.copyto(results[0], states[0], where=first[:, -1:])
        return results


def _aligned(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """An array of any values that starts at a multiple of ALIGNMENT."""
    size = 1
    for length in shape:
        size *= length
    memory = np.empty(size + ALIGNMENT // dtype.itemsize, dtype)
    first = -memory.__array_interface__["data"][0] % ALIGNMENT // dtype.itemsize
    return memory[first : first + size].reshape(tuple(shape))
