"""Layers with int8 weights that fit the inputs they will get: second-order rounding and bias correction."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import _validate
from fastgru._member import WeightedMember
from fastgru.gru import GRU
from fastgru.stack import Stack
from fastgru.wrappers import Bidirectional

Array = NDArray[Any]
Layer = GRU | Bidirectional | Stack

MOST = 127  # steps of a column's largest weight
CALIBRATED = 0.8  # of the timesteps; the error is measured on the others
DAMPING = 1e-2  # of the mean diagonal of the inputs' products, so that these can be inverted
DOMINATES = 12.0  # a weight this many times as large as the root mean square of the others in its column
SATURATED = 0.99  # an output larger than this


class Entry(NamedTuple):
    """The error of one layer's outputs, on timesteps that were not used for calibration.

    Attributes
    ----------
    name : str
    rms : float
        Root mean square of the difference from float32; NaN without calibration.
    max : float
        The largest difference from float32; NaN without calibration.
    channel : int or None
        The unit whose `rms` is the largest; None without calibration.
    channel_rms : float
        The `rms` of this unit; NaN without calibration.
    notes : tuple of str
        What may cause errors: columns that one weight dominates, outputs that saturate.
    """

    name: str
    rms: float
    max: float
    channel: int | None
    channel_rms: float
    notes: tuple[str, ...]


class Report(tuple[Entry, ...]):
    """The entries of all layers, the lowest first. Printed, it is a table."""

    __slots__ = ()

    def __str__(self) -> str:
        rows = [("layer", "rms", "max", "worst unit", "its rms")]
        for each in self:
            unit = "" if each.channel is None else str(each.channel)
            numbers = ("" if np.isnan(n) else f"{n:.1e}" for n in (each.rms, each.max, each.channel_rms))
            rms, most, worst = numbers
            rows.append((each.name, rms, most, unit, worst))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, *(f"{each.name}: {note}" for each in self for note in each.notes)])


class Quantized(NamedTuple):
    """What `quantize` returns: the layer with int8 weights, and the `Report` of its errors."""

    layer: Any
    report: Report


def quantize(
    layer: Layer,
    calibration: Any = None,
    weights_dtype: Any = "int8",
    *,
    lengths: Any = None,
    initial_state: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Quantized:
    """Make a layer with int8 weights from a layer with float32 weights.

    Parameters
    ----------
    layer : GRU, Bidirectional or Stack
        Built, and of dtype float32 or float16. It is not changed.
    calibration : ndarray, shape (batch, timesteps, features), optional
        Inputs like those that the layer will get, time-major if the layer is. A few hundred timesteps are
        enough. Without calibration every weight is rounded to the nearest step. With calibration the rows of
        a kernel are rounded one after the other, and the rows that follow make up for the error of each, as
        far as inputs are correlated (GPTQ, Frantar et al. 2022, arXiv:2210.17323). Then the biases make up
        for the mean of the error that is left. Calls of the result take the same time either way.
    weights_dtype : {'int8'}
        The type of the weights.
    lengths : array_like of int, shape (batch,), optional
        How many timesteps each row of the calibration has, from the first one on.
    initial_state : ndarray or list of ndarray, optional
        The states that the rows of the calibration start from, as in a call of the layer: one array (batch,
        units) for a GRU, and a list of them for other layers. In the list of a Stack, None stands for the
        default. By default each GRU starts from its `default_state`, or from zeros if it has none.
    progress : callable, optional
        Called after each kernel, with the number of kernels that are done and the number of all.

    Returns
    -------
    Quantized
        `layer` has `weights_dtype='int8'`, its `get_weights` returns the rounded weights, and it can be saved
        and loaded without the calibration. `report` has the errors on the last fifth of the timesteps, which
        are not used otherwise.

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
    if not isinstance(layer, GRU | Bidirectional | Stack):
        raise TypeError(f"layer must be a GRU, Bidirectional or Stack, got {type(layer).__name__}")
    if not layer.built:
        raise ValueError(f"layer must be built to be quantized, got {layer.name!r}, which is not")
    if _validate.weights_dtype(weights_dtype, np.dtype(np.float32), True) != np.int8:
        raise ValueError(
            f"weights_dtype must be 'int8', got {weights_dtype!r}: other types need no calibration"
        )
    for name, given in (("lengths", lengths), ("initial_state", initial_state)):
        if given is not None and calibration is None:
            raise ValueError(f"{name} must come with a calibration, got it without one")
    members = list(layer.layers) if isinstance(layer, Stack) else [layer]
    made = type(layer).from_config(_with(layer.get_config(), weights_dtype="int8"))
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
        notes = _notes(member)
        entries.append(
            Entry(member.name, np.nan, np.nan, None, np.nan, notes)
            if calibrated is None
            else calibrated.entry(member, weights, notes)
        )
    return Quantized(made, Report(entries))


def _with(config: Any, **settings: Any) -> Any:
    """A config in which every GRU has these settings."""
    if isinstance(config, list):
        return [_with(each, **settings) for each in config]
    if not isinstance(config, dict):
        return config
    found = {
        key: _with(value, **settings) if key in ("layer", "backward_layer", "layers", "config") else value
        for key, value in config.items()
    }
    return found | settings if "units" in found else found


def _notes(member: Any) -> tuple[str, ...]:
    """Notes on weights that may cause errors."""
    notes = []
    for part in member._parts:
        for name, kernel in zip(("kernel", "recurrent_kernel"), part.weights, strict=False):
            sizes = np.sort(np.square(kernel, dtype=np.float64), axis=0)
            others = sizes[:-1].mean(axis=0) if len(sizes) > 1 else np.inf
            count = int(np.sum(sizes[-1:] > DOMINATES**2 * others))
            if count:
                notes.append(f"{name} of {part.name} has columns that one weight dominates: {count}")
    return tuple(notes)


def _rounded(kernel: Array, inputs: Array) -> Array:
    """A kernel rounded to what int8 can hold, so that products with inputs like these change least.

    Rows are rounded one after the other, those of the largest inputs first. The rows that follow make up for
    the error of each, by the inverse of the inputs' second moments. The largest weight of a column is not
    changed, because it defines the column's step.

    Parameters
    ----------
    kernel : ndarray, shape (k, columns)
    inputs : ndarray, shape (samples, k)
        What it is multiplied with.
    """
    left = kernel.astype(np.float64)
    steps = np.abs(kernel).max(axis=0, initial=0) / np.float32(MOST)
    steps = np.where(steps == 0, 1, steps).astype(np.float64)
    largest = np.abs(kernel).argmax(axis=0) if len(kernel) else np.zeros(kernel.shape[1], int)
    moments = inputs.T.astype(np.float64) @ inputs.astype(np.float64)
    diagonal = np.diag(moments).copy()
    if not diagonal.any():
        nearest: Array = (np.rint(left / steps) * steps).astype(np.float32)
        return nearest
    moments[np.diag_indices_from(moments)] += DAMPING * diagonal.mean()
    order = np.argsort(-diagonal, kind="stable")
    factor = np.linalg.cholesky(np.linalg.inv(moments[np.ix_(order, order)])).T  # upper
    left, found = left[order], np.empty_like(left)
    for place, row in enumerate(order):
        integers = np.clip(np.rint(left[place] / steps), -MOST, MOST)
        kept = largest == row
        integers[kept] = np.sign(kernel[row, kept]) * MOST
        found[row] = integers * steps
        error = (left[place] - found[row]) / factor[place, place]
        left[place + 1 :] -= np.outer(factor[place, place + 1 :], error)
    return found.astype(np.float32)


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
        self._steps = None if lengths is None else _validate.lengths(lengths, *x.shape[:2])
        valid = _validate.mask_of_lengths(np.full(len(x), x.shape[1]), x.shape[1], False)
        if self._steps is not None:
            valid = _validate.mask_of_lengths(self._steps, x.shape[1], False)
        if not np.isfinite(x[valid]).all():
            raise ValueError("calibration must be finite, got NaN or an infinity")
        first = np.arange(x.shape[1]) < max(1, int(CALIBRATED * x.shape[1]))
        self._used, self._held = valid & first, valid & ~first
        self._exact = self._found = x  # what the next layer reads
        states = layer._given_states(initial_state, len(x))
        self._starts = dict(zip(layer._parts, states, strict=True))  # by GRU; None: its own
        if not all(state is None or np.isfinite(state).all() for state in states):
            raise ValueError("initial_state must be finite, got NaN or an infinity")
        self._progress, self._done, self._all = progress, 0, 2 * len(layer._parts)

    def rounded(self, member: Any) -> list[list[Array]]:
        """New weights of each GRU of the next layer."""
        return [self._rounded_part(part) for part in member._parts]

    def entry(self, member: Any, weights: Sequence[Sequence[Array]], notes: tuple[str, ...]) -> Entry:
        """The error of that layer; then go on to the next one."""
        exact = [part.weights for part in member._parts]
        self._exact = self._sequences(member, exact, None, self._exact)
        self._found = self._sequences(member, weights, "int8", self._found)
        if not self._held.any():
            return Entry(member.name, np.nan, np.nan, None, np.nan, notes)
        error = self._found[self._held].astype(np.float64) - self._exact[self._held]
        channels = np.sqrt(np.mean(error**2, axis=0))
        saturated = float(np.mean(np.abs(self._exact[self._held]) > SATURATED))
        if saturated > 0.01:
            notes += (f"{saturated:.0%} of its outputs are saturated, beyond {SATURATED}",)
        worst = int(channels.argmax())
        rms = float(np.sqrt(np.mean(error**2)))
        return Entry(member.name, rms, float(np.abs(error).max()), worst, float(channels[worst]), notes)

    def _sequences(
        self, member: Any, weights: Sequence[Sequence[Array]], weights_dtype: str | None, x: Array
    ) -> Array:
        """The outputs of all timesteps, (batch, timesteps, units), for these inputs."""
        flags = {"return_sequences": True, "return_state": False, "stateful": False, "time_major": False}
        layer = type(member).from_config(
            _with(member.get_config(), **flags, weights_dtype=weights_dtype, dtype="float32")
        )
        for part, arrays in zip(layer._parts, weights, strict=True):
            part._build_of([array.astype(np.float32) for array in arrays])
        states = [self._start(part, len(x)) for part in member._parts]
        found = layer(x, lengths=self._steps, initial_state=states)
        return np.concatenate(found, axis=-1) if isinstance(found, list) else np.asarray(found)

    def _start(self, part: Any, batch: int) -> Array:
        """The state that a GRU starts from, (batch, units)."""
        given = self._starts[part]
        given = part.default_state if given is None else given
        start = np.zeros((batch, part.units), np.float32)
        start[...] = 0 if given is None else given
        return start

    def _rounded_part(self, part: WeightedMember) -> list[Array]:
        """New weights of a GRU: kernels rounded for its inputs, and a bias that makes up for the rounding."""
        gru: Any = part
        kernel, recurrent, *rest = (array.astype(np.float32) for array in gru.weights)
        order = slice(None, None, -1 if gru.go_backwards else 1)
        used = self._used[:, order]
        x = self._found[:, order][used]
        outputs = self._sequences(gru, [gru.weights], None, self._found)
        before = np.empty_like(outputs)
        before[:, 0], before[:, 1:] = self._start(gru, len(outputs)), outputs[:, :-1]
        h, units = before[used], gru.units
        new_kernel = self._finished(_rounded(kernel, x))
        if gru.reset_after:
            new_recurrent = self._finished(_rounded(recurrent, h))
            reset = h
        else:  # the candidate's product is of r * h
            gates, candidate = recurrent[:, : 2 * units], recurrent[:, 2 * units :]
            column = slice(units, 2 * units)
            r = x @ kernel[:, column] + h @ recurrent[:, column] + (rest[0][column] if gru.use_bias else 0)
            reset = np.asarray(gru.recurrent_activation(r)) * h
            both = _rounded(gates, h), _rounded(candidate, reset)
            new_recurrent = self._finished(np.concatenate(both, axis=1))
        if gru.use_bias:
            lost = np.mean(x, axis=0) @ (kernel - new_kernel)
            of_state = np.mean(h, axis=0) @ (recurrent - new_recurrent)
            of_state[2 * units :] = np.mean(reset, axis=0) @ (recurrent - new_recurrent)[:, 2 * units :]
            rest[0] = rest[0] + (np.stack([lost, of_state]) if gru.reset_after else lost + of_state)
        return [new_kernel, new_recurrent, *rest]

    def _finished(self, kernel: Array) -> Array:
        """Count a rounded kernel, report progress, and return the kernel."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._all)
        return kernel
