"""The slow path: the loop over time with its gates in Python, for what has no kernel.

That is: activations that are Python callables or need a whole row, and dropout.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Loop:
    """Weights of one layer, and its steps in NumPy; immutable.

    Parameters
    ----------
    kernel : ndarray, shape (features, 3 * units)
    recurrent_kernel : ndarray, shape (units, 3 * units)
    bias : ndarray or None
        (3 * units,), or (2, 3 * units) with `reset_after`.
    reset_after : bool
    activation, recurrent_activation : callable
        From (batch, units) to (batch, units).
    input_masks : sequence of three ndarrays, shape (batch, features), optional
        Dropout of the input as z, r and the candidate see it.
    recurrent_masks : sequence of three ndarrays, shape (batch, units), optional
        Dropout of the state as the products of z, r and the candidate see it.
    """

    def __init__(
        self,
        kernel: Array,
        recurrent_kernel: Array,
        bias: Array | None,
        reset_after: bool,
        activation: Callable[[Array], Any],
        recurrent_activation: Callable[[Array], Any],
        input_masks: Sequence[Array] | None = None,
        recurrent_masks: Sequence[Array] | None = None,
    ) -> None:
        self.features, units = kernel.shape[0], recurrent_kernel.shape[0]
        if bias is None:
            bias = np.zeros((2, 3 * units), kernel.dtype)
        elif not reset_after:
            bias = np.stack([bias, np.zeros_like(bias)])
        self._kernels = np.split(kernel, 3, axis=1)
        self._recurrent_kernels = np.split(recurrent_kernel, 3, axis=1)
        self._biases, self._recurrent_biases = np.split(bias[0], 3), np.split(bias[1], 3)
        self._reset_after = reset_after
        self._activation = activation
        self._recurrent_activation = recurrent_activation
        self._input_masks = input_masks
        self._recurrent_masks = recurrent_masks

    def run(
        self,
        x: Array,
        initial_state: Array | None,
        seen: Array,
        mask: Array | None,
        time_major: bool,
        go_backwards: bool,
        zero_output_for_mask: bool,
        sequences: bool,
    ) -> tuple[Array, Array]:
        """The output of every timestep of x, or of the last one, and the last state.

        Parameters
        ----------
        x : ndarray, shape (batch, timesteps, features), or the first two swapped if `time_major`
        initial_state : ndarray or None
            (batch, units); None means zeros.
        seen : bool ndarray, shape (batch,)
            True of rows that have had a step before: their output begins as their state, not as zeros.
        mask : bool ndarray or None
            (batch, timesteps), time-major if x is; where it is False, the row skips the step.
        sequences : bool
            Return every output, (batch, timesteps, units), time-major if x is; or the last, (batch, units).
        """
        if not time_major:
            x = x.swapaxes(0, 1)
            mask = None if mask is None else mask.swapaxes(0, 1)
        timesteps, batch = x.shape[:2]
        units = self._recurrent_kernels[0].shape[0]
        state = np.zeros((batch, units), x.dtype) if initial_state is None else initial_state
        output = np.where(seen[:, np.newaxis], state, np.zeros_like(state))
        outputs = np.empty((timesteps, batch, units), x.dtype) if sequences else None
        for step in range(timesteps):
            time = timesteps - 1 - step if go_backwards else step
            with np.errstate(over="ignore", invalid="ignore"):  # masked rows may hold anything
                following = self._step(x[time], state)
            valid = True if mask is None else mask[time, :, np.newaxis]
            output = np.where(valid, following, 0 if zero_output_for_mask else output)
            state = np.where(valid, following, state)
            if outputs is not None:
                outputs[step] = output
        if outputs is None:
            return output, state
        return outputs if time_major else np.ascontiguousarray(outputs.swapaxes(0, 1)), state

    def _step(self, x: Array, h: Array) -> Array:
        """The state after one step; x (batch, features), h (batch, units)."""
        xs = [x] * 3 if self._input_masks is None else [x * m for m in self._input_masks]
        hs = [h] * 3 if self._recurrent_masks is None else [h * m for m in self._recurrent_masks]
        xz, xr, xh = (a @ w + b for a, w, b in zip(xs, self._kernels, self._biases, strict=True))
        uz, ur, uh = self._recurrent_kernels
        bz, br, bh = self._recurrent_biases
        z = self._gate(self._recurrent_activation, xz + (hs[0] @ uz + bz))
        r = self._gate(self._recurrent_activation, xr + (hs[1] @ ur + br))
        recurrent = r * (hs[2] @ uh + bh) if self._reset_after else (r * hs[2]) @ uh
        hh = self._gate(self._activation, xh + recurrent)
        following: Array = z * h + (1 - z) * hh
        return following

    def _gate(self, activation: Callable[[Array], Any], x: Array) -> Array:
        y = np.asarray(activation(x))
        if y.shape != x.shape:
            raise ValueError(f"activation must return shape {x.shape} for shape {x.shape}, got {y.shape}")
        if y.dtype.kind not in "biuf":
            raise TypeError(f"activation must return an array of {x.dtype}, got {y.dtype}")
        return y.astype(x.dtype)  # a copy: a callable may return the same array each time
