"""Layers and models with int8 weights that fit the inputs they will get."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import _quantize_model, _validate
from fastgru._rounding import CALIBRATED, Entry, Reached, Report, changed, entry, notes_of, saturated
from fastgru.gru import GRU
from fastgru.model import Model
from fastgru.stack import Stack
from fastgru.wrappers import Bidirectional

Array = NDArray[Any]
Layer = GRU | Bidirectional | Stack


class Quantized(NamedTuple):
    """What `quantize` returns: the layer or model with int8 weights, and the `Report` of its errors."""

    layer: Any
    report: Report


def quantize(
    layer: Layer | Model,
    calibration: Any = None,
    weights_dtype: Any = "int8",
    *,
    lengths: Any = None,
    initial_state: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Quantized:
    """A layer or model with int8 weights in place of one with weights of float32.

    Parameters
    ----------
    layer : GRU, Bidirectional, Stack or Model
        Built, and of dtype float32, or a layer of float16. It is not changed. Of a model the kernels of GRUs,
        dense layers and convolutions are rounded.
    calibration : ndarray, shape (batch, timesteps, features), or as `inputs` of a Model, optional
        Inputs like those that the layer will get, time-major if the layer is; some hundred timesteps. Without
        them every weight is rounded to the nearest step. With them, weights are rounded one input after the
        other, and each rounding error is made up for by the weights that follow, as far as inputs vary
        together (GPTQ, Frantar et al. 2022, arXiv:2210.17323); then biases make up for what is left on
        average. In a model this is done for each node, by what reaches it. Calls of the result take the same
        time either way.
    weights_dtype : {'int8'}
        The type of the weights.
    lengths : array_like of int, shape (batch,), optional
        How many timesteps each row of the calibration has, from the first one on.
    initial_state : ndarray or list of ndarray, optional
        The states that the rows of the calibration start from, (batch, units) each, as in a call of the
        layer: of a GRU one, of others a list with one for each GRU; in that of a Stack None means zeros or
        the `default_state`, which is what all start from by default. Of a model as in its calls.
    progress : callable, optional
        Called after each kernel, with the number of kernels that are done and the number of all.

    Returns
    -------
    Quantized
        The layer or model, with `weights_dtype='int8'`, whose `get_weights` are the rounded ones; it can be
        saved and loaded without the calibration. And the report of its errors on the last fifth of the
        timesteps, which is not used otherwise; of what has no timesteps, on all rows.

    Raises
    ------
    TypeError
        If the layer is none of fastgru's, or the calibration is no array of floats.
    ValueError
        If the layer is not built or computes in float64, a weight is not finite, or `weights_dtype` is
        another type; if the calibration does not have the layer's features and two timesteps, or is not
        finite; or if lengths or states do not fit it, or come without it.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru
    >>> layer = fastgru.GRU(64, reset_after=True)
    >>> layer.build((None, None, 32))
    >>> frames = np.random.default_rng(0).normal(size=(1, 500, 32)).astype(np.float32)
    >>> small, report = fastgru.quantize(layer, frames)
    >>> small.weights_dtype, report[0].rms < 5e-3
    ('int8', True)
    """
    if not isinstance(layer, GRU | Bidirectional | Stack | Model):
        raise TypeError(f"layer must be a GRU, Bidirectional, Stack or Model, got {type(layer).__name__}")
    if not layer.built:
        raise ValueError(f"layer must be built to be quantized, got {layer.name!r}, which is not")
    if _validate.weights_dtype(weights_dtype, np.dtype(np.float32), True) != np.int8:
        raise ValueError(
            f"weights_dtype must be 'int8', got {weights_dtype!r}: other types need no calibration"
        )
    for name, given in (("lengths", lengths), ("initial_state", initial_state)):
        if given is not None and calibration is None:
            raise ValueError(f"{name} must come with a calibration, got it without one")
    if isinstance(layer, Model):
        return Quantized(*_quantize_model.quantized(layer, calibration, lengths, initial_state, progress))
    members = list(layer.layers) if isinstance(layer, Stack) else [layer]
    made = type(layer).from_config(changed(layer.get_config(), weights_dtype="int8"))
    parts = iter(made._parts)
    calibrated = None
    if calibration is not None:
        calibrated = _Calibration(layer, calibration, lengths, initial_state, progress)
    entries = []
    for member in members:
        weights = [part.weights for part in member._parts]
        if calibrated is not None:
            weights = calibrated.rounded(member)
        for part, arrays in zip(member._parts, weights, strict=True):
            next(parts)._build_of(arrays, part._scales if calibrated is None else None)
        notes = notes_of(member)
        entries.append(
            Entry(member.name, np.nan, np.nan, None, np.nan, notes)
            if calibrated is None
            else calibrated.entry(member, weights, notes)
        )
    return Quantized(made, Report(entries))


class _Calibration:
    """The inputs of one layer after the other, computed by the float32 layers and by the quantized ones."""

    def __init__(
        self,
        layer: Any,
        calibration: Any,
        lengths: Any,
        initial_state: Any,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        float32 = np.dtype(np.float32)
        x = _validate.cast(_validate.floats("calibration", calibration, float32), float32)
        x = x.swapaxes(0, 1) if layer.time_major and x.ndim == 3 else x
        features = layer._parts[0].weights[0].shape[0]
        if x.ndim != 3 or x.shape[2] != features or x.shape[1] < 2 or not x.shape[0]:
            raise ValueError(
                f"calibration must have shape (batch, timesteps, {features}) with at least two timesteps, "
                f"got {x.shape}"
            )
        steps = np.full(len(x), x.shape[1]) if lengths is None else _validate.lengths(lengths, *x.shape[:2])
        valid = _validate.mask_of_lengths(steps, x.shape[1], False)
        if not np.isfinite(x[valid]).all():
            raise ValueError("calibration must be finite, got NaN or an infinity")
        first = np.arange(x.shape[1]) < max(1, int(CALIBRATED * x.shape[1]))
        self._used, self._held = valid & first, valid & ~first
        states = layer._given_states(initial_state, len(x))
        starts = dict(zip(layer._parts, states, strict=True))
        self._exact = self._found = Reached(
            x, None if valid.all() else valid, starts
        )  # what the next layer reads
        if not all(state is None or np.isfinite(state).all() for state in states):
            raise ValueError("initial_state must be finite, got NaN or an infinity")
        self._progress, self._done, self._all = progress, 0, 2 * len(layer._parts)

    def rounded(self, member: Any) -> list[list[Array]]:
        """New weights of each GRU of the next layer."""
        return [self._found.rounded(part, self._used, self._tell) for part in member._parts]

    def entry(self, member: Any, weights: Sequence[Sequence[Array]], notes: tuple[str, ...]) -> Entry:
        """The error of that layer, which is left behind."""
        exact = self._exact.sequences(member, [part.weights for part in member._parts])
        found = self._found.sequences(member, weights, "int8")
        self._exact, self._found = self._exact._replace(x=exact), self._found._replace(x=found)
        exact, found = exact[self._held], found[self._held]
        return entry(member.name, found, exact, notes + saturated(exact))

    def _tell(self) -> None:
        """Say that a kernel is rounded."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._all)
