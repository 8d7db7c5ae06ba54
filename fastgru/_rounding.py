"""What rounding weights to int8 by a calibration is made of: kernels, GRUs, and the errors that are left."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._member import WeightedMember

Array = NDArray[Any]

MOST = 127  # steps of a column's largest weight
CALIBRATED = 0.8  # of the timesteps; the error is measured on the others
DAMPING = 1e-2  # of the mean diagonal of the inputs' products, so that these can be inverted
DOMINATES, SATURATED = 12.0, 0.99  # times the root mean square of the others in a column; of outputs


class Entry(NamedTuple):
    """The error of one layer's outputs, on timesteps that were not used for calibration.

    Attributes
    ----------
    name : str
    rms : float
        Root mean square of the difference from float32; NaN without calibration.
    max : float
        The largest one.
    channel : int or None
        The unit with the largest root mean square, and
    channel_rms : float
        that.
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
    """The entries of all layers, the lowest first; as a string a table."""

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


def entry(name: str, found: Array, exact: Array, notes: tuple[str, ...]) -> Entry:
    """The error of outputs (samples, units)."""
    error = found.astype(np.float64) - exact
    if not len(error):
        return Entry(name, np.nan, np.nan, None, np.nan, notes)
    channels = np.sqrt(np.mean(error**2, axis=0))
    worst = int(channels.argmax())
    rms = float(np.sqrt(np.mean(error**2)))
    return Entry(name, rms, float(np.abs(error).max()), worst, float(channels[worst]), notes)


def saturated(exact: Array) -> tuple[str, ...]:
    """A note if outputs of a GRU, (samples, units), are saturated."""
    share = float(np.mean(np.abs(exact) > SATURATED)) if len(exact) else 0.0
    return (f"{share:.0%} of its outputs are saturated, beyond {SATURATED}",) if share > 0.01 else ()


def changed(config: Any, **settings: Any) -> Any:
    """A config in which every GRU has these settings."""
    if isinstance(config, list):
        return [changed(each, **settings) for each in config]
    if not isinstance(config, dict):
        return config
    found = {
        key: changed(value, **settings) if key in ("layer", "backward_layer", "layers", "config") else value
        for key, value in config.items()
    }
    return found | settings if "units" in found else found


def dominated(name: str, kernel: Array) -> tuple[str, ...]:
    """A note if there are columns that one weight dominates."""
    sizes = np.sort(np.square(kernel, dtype=np.float64), axis=0)
    others = sizes[:-1].mean(axis=0) if len(sizes) > 1 else np.inf
    count = int(np.sum(sizes[-1:] > DOMINATES**2 * others))
    return (f"{name} has columns that one weight dominates: {count}",) if count else ()


def notes_of(member: Any) -> tuple[str, ...]:
    """What of the weights of a layer may cause errors."""
    notes: tuple[str, ...] = ()
    for part in member._parts:
        for name, kernel in zip(("kernel", "recurrent_kernel"), part.weights, strict=False):
            notes += dominated(f"{name} of {part.name}", kernel)
    return notes


def rounded(kernel: Array, inputs: Array) -> Array:
    """A kernel as int8 holds it, so that products with inputs like these change least.

    Row by row, those of the largest inputs first: the weights of the rows that follow make up for what
    rounding changes, by the inverse of the inputs' second moments. The largest weight of a column stays,
    because its step is taken from that.

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


class Reached(NamedTuple):
    """What reaches a recurrent layer in a calibration.

    Attributes
    ----------
    x : float32 ndarray, shape (batch, timesteps, features)
    mask : bool ndarray, shape (batch, timesteps), or None
    starts : mapping
        The state that each GRU starts from, (batch, units); None: its own.
    """

    x: Array
    mask: Array | None
    starts: Mapping[Any, Any]

    def sequences(
        self, member: Any, weights: Sequence[Sequence[Array]], weights_dtype: str | None = None
    ) -> Array:
        """The outputs of all timesteps, (batch, timesteps, units), with these weights."""
        flags = {"return_sequences": True, "return_state": False, "stateful": False, "time_major": False}
        layer = type(member).from_config(
            changed(member.get_config(), **flags, weights_dtype=weights_dtype, dtype="float32")
        )
        for part, arrays in zip(layer._parts, weights, strict=True):
            part._build_of([array.astype(np.float32) for array in arrays])
        states = [self._start(part) for part in member._parts]
        found = layer(self.x, mask=self.mask, initial_state=states)
        return np.concatenate(found, axis=-1) if isinstance(found, list) else np.asarray(found)

    def _start(self, part: Any) -> Array:
        """The state that a GRU starts from, (batch, units)."""
        given = self.starts.get(part)
        given = part.default_state if given is None else given
        start = np.zeros((len(self.x), part.units), np.float32)
        start[...] = 0 if given is None else given
        return start

    def rounded(self, part: WeightedMember, used: Array, done: Callable[[], None]) -> list[Array]:
        """New weights of a GRU: kernels rounded for its inputs, and a bias to make up for that.

        Parameters
        ----------
        part : GRU
        used : bool ndarray, shape (batch, timesteps)
            The timesteps that count.
        done : callable
            Called after each kernel.
        """
        gru: Any = part
        kernel, recurrent, *rest = (array.astype(np.float32) for array in gru.weights)
        order = slice(None, None, -1 if gru.go_backwards else 1)
        used = used[:, order]
        x = self.x[:, order][used]
        outputs = self.sequences(gru, [gru.weights])
        before = np.empty_like(outputs)
        before[:, 0], before[:, 1:] = self._start(gru), outputs[:, :-1]
        h, units = before[used], gru.units
        new_kernel = rounded(kernel, x)
        done()
        if gru.reset_after:
            new_recurrent = rounded(recurrent, h)
            reset = h
        else:  # the candidate's product is of r * h
            gates, candidate = recurrent[:, : 2 * units], recurrent[:, 2 * units :]
            column = slice(units, 2 * units)
            r = x @ kernel[:, column] + h @ recurrent[:, column] + (rest[0][column] if gru.use_bias else 0)
            reset = np.asarray(gru.recurrent_activation(r)) * h
            new_recurrent = np.concatenate((rounded(gates, h), rounded(candidate, reset)), axis=1)
        done()
        if gru.use_bias:
            lost = np.mean(x, axis=0) @ (kernel - new_kernel)
            of_state = np.mean(h, axis=0) @ (recurrent - new_recurrent)
            of_state[2 * units :] = np.mean(reset, axis=0) @ (recurrent - new_recurrent)[:, 2 * units :]
            rest[0] = rest[0] + (np.stack([lost, of_state]) if gru.reset_after else lost + of_state)
        return [new_kernel, new_recurrent, *rest]
