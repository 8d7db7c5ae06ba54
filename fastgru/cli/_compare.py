"""`fastgru compare`: what a file's layers compute here, and in the runtime that the file was made for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import fastgru
from fastgru.cli import _model, _terminal
from fastgru.cli._files import Array

if TYPE_CHECKING:
    from fastgru.cli._runtimes import Runtime

TRIALS = 8
MOST_ROWS, MOST_STEPS = 8, 24
DRAWS = 4  # of weights rounded at random
# Of what rounding may do, over what it did when the weights were rounded at random: of 300 random layers of
# 1 to 20 units the largest error was 9 times that (fastgru and onnxruntime, AMD EPYC, AVX2, 2026-11-23).
MARGIN = 16
EQUAL, DIFFERENT, FAILED = 0, 1, 2  # exit statuses


def compare(model: Path, layer: str | None, against: str | None, seed: int) -> int:
    """Print how far the layers are from each other, and return the exit status."""
    from fastgru.cli import _runtimes

    own, kind = _runtimes.own(model)
    against = against or own
    if against is None:
        raise ValueError("fastgru's own files have no other runtime: name one by --against")
    layers = _model.named(model, layer, **_model.RETURNING_ALL)
    exact = _model.named(model, layer, **_model.RETURNING_ALL, dtype="float64", weights_dtype=None)
    runtimes = _runtimes.of_file(model, against, kind) if against == own else None
    pairs = list(_pairs(layers, exact, whole=against == "torch"))
    rows: list[list[object]] = []
    statuses = []
    with _terminal.progress("comparing", len(pairs) * TRIALS, "trials") as tick:
        for name, ours, truth in pairs:
            try:
                runtime = runtimes(name) if runtimes else _runtimes.of_layer(ours, against)
                found = compared(ours, truth, runtime, np.random.default_rng(seed))
            except ImportError:
                raise
            except Exception as error:  # whatever a runtime raises; the other layers go on
                reason = " ".join(str(error).split()) or type(error).__name__
                rows.append([name, None, None, None, None, None, f"not compared: {reason:.300}"])
                statuses.append(FAILED)
            else:
                verdict = "equal but for rounding" if found.equal else "DIFFERENT"
                rows.append([name, *found, verdict])
                statuses.append(EQUAL if found.equal else DIFFERENT)
            tick(TRIALS)
    columns = ("layer", "difference", "of states", "error", f"{against}'s error", "of rounding", "verdict")
    shapes = f"{TRIALS} trials of up to {MOST_ROWS} rows and {MOST_STEPS} steps"
    _terminal.table(columns, rows, f"{model}: fastgru and {against}, {shapes}")
    if runtimes is None:
        print(f"{against} had the layers from fastgru: this does not test how the file was read.")
    return DIFFERENT if DIFFERENT in statuses else max(statuses)


def _pairs(
    layers: dict[str, _model.Layer], exact: dict[str, _model.Layer], whole: bool
) -> Iterator[tuple[str, _model.Layer, _model.Layer]]:
    """Names, layers and these in float64; of a Stack that is not wanted whole, its layers."""
    for name, layer in layers.items():
        if isinstance(layer, fastgru.Stack) and not whole:
            for part, truth in zip(layer.layers, exact[name].layers, strict=True):
                yield f"{name}: {part.name}", part, truth
        else:
            yield name, layer, exact[name]


# ---- one layer -----------------------------------------------------------------------------------


class Trial(NamedTuple):
    """What a layer is called with, batch-major."""

    x: Array
    mask: Array | None
    states: list[Array] | None


class Comparison(NamedTuple):
    """How far two runtimes are from each other, and each from the equations.

    Attributes
    ----------
    outputs, states : float
        Largest difference between the two.
    ours, theirs : float
        Largest error.
    rounding : float
        The largest error over what rounding may do in its trial.
    """

    outputs: float
    states: float
    ours: float
    theirs: float
    rounding: float

    @property
    def equal(self) -> bool:
        """Is every error one of rounding?"""
        return self.rounding <= 1


def compared(
    layer: _model.Layer, exact: _model.Layer, runtime: Runtime, rng: np.random.Generator
) -> Comparison:
    """A layer and another runtime's, both against the equations.

    Parameters
    ----------
    layer : GRU, Bidirectional or Stack
        Returning sequences and states.
    exact : GRU, Bidirectional or Stack
        The same in float64. Its weights are those of `layer` as they were read.
    runtime : Runtime
    rng : Generator

    Notes
    -----
    What is equal but for rounding is told by the equations: in float64, run with the weights as they are,
    and `DRAWS` times with each off by a random part of u * sqrt(n). u is the largest unit roundoff of the
    layer's dtype, its weights' and the runtime's, n the number of terms in a sum, whose rounding errors grow
    as its square root. That has the very states and steps of the trial, whether they damp errors or amplify
    them. An error may be `MARGIN` times what that does, or `MARGIN` roundings of the largest number if that
    is more. The runtime's own error is held to the same, for it is that which shows weights that were read
    wrongly.
    """
    trials = [_trial(layer, runtime.masks, rng) for _ in range(TRIALS)]
    truth = [results(exact, trial) for trial in trials]
    dtypes = {dtype for part in layer._parts for dtype in (part.dtype, part.weights_dtype)}
    unit = max(runtime.roundoff, *(float(np.finfo(dtype).eps) / 2 for dtype in dtypes))
    shaken = [_shaken(exact, unit, rng, trials) for _ in range(DRAWS)]
    outputs = states = ours = theirs = rounding = 0.0
    for trial, right, *others in zip(trials, truth, *shaken, strict=True):
        found = results(layer, trial)
        foreign = _joined(layer, runtime.run(*trial))
        if not runtime.masks:  # what is behind the end of a row is nobody's business
            for arrays in (found, foreign, right, *others):
                arrays[0] = _ended(arrays[0], trial.mask, _reversed(layer))
        scale = max(float(np.abs(array[np.isfinite(array)]).max(initial=0)) for array in right)
        allowed = (MARGIN * max(unit * scale, *(_distance(other, right) for other in others))) or unit
        errors = _distance(found, right), _distance(foreign, right)
        ours, theirs = max(ours, errors[0]), max(theirs, errors[1])
        rounding = max(rounding, max(errors) / allowed if max(errors) else 0.0)
        outputs = max(outputs, _distance(found[:1], foreign[:1]))
        states = max(states, _distance(found[1:], foreign[1:]))
    return Comparison(outputs, states, ours, theirs, rounding)


def _trial(layer: _model.Layer, any_mask: bool, rng: np.random.Generator) -> Trial:
    """Inputs small and large; a mask and states, or none."""
    default = next((part.default_state for part in layer._parts if part.default_state is not None), None)
    own_states = bool(rng.integers(2))
    batch = int(rng.integers(1, MOST_ROWS + 1))
    if not own_states and default is not None and len(default) > 1:
        batch = len(default)
    timesteps = int(rng.integers(1, MOST_STEPS + 1))
    x = rng.standard_normal((batch, timesteps, _model.features(layer))) * 10 ** rng.uniform(-1, 0.5)
    mask = None
    if rng.integers(2):
        ends = np.arange(timesteps) < rng.integers(1, timesteps + 1, (batch, 1))
        mask = rng.random((batch, timesteps)) < 0.7 if any_mask and rng.integers(2) else ends
    states = [(0.5 * rng.standard_normal((batch, part.units))).astype(part.dtype) for part in layer._parts]
    return Trial(x.astype(layer._parts[0].dtype), mask, states if own_states else None)


def results(layer: _model.Layer, trial: Trial) -> list[Array]:
    """Output and last states of a layer, batch-major as the trial."""
    x, mask, states = trial
    if layer.time_major:
        x, mask = x.swapaxes(0, 1), None if mask is None else mask.swapaxes(0, 1)
    with np.errstate(all="ignore"):
        found = layer(x, states, mask)
    return _joined(
        layer, [array.swapaxes(0, 1) if layer.time_major and array.ndim == 3 else array for array in found]
    )


def _joined(layer: _model.Layer, arrays: Sequence[Array]) -> list[Array]:
    """One output and the last states: those of both directions, if they are apart, side by side."""
    count = len(arrays) - len(layer._parts)
    return [np.concatenate(arrays[:count], axis=-1), *arrays[count:]]


def _shaken(
    exact: _model.Layer, unit: float, rng: np.random.Generator, trials: Sequence[Trial]
) -> list[list[Array]]:
    """What the trials give if every weight is off by a random part of what sums lose."""
    weights = exact.get_weights()
    terms = _model.features(exact) + max(part.units for part in exact._parts)
    exact.set_weights([w * (1 + unit * terms**0.5 * rng.uniform(-1, 1, w.shape)) for w in weights])
    found = [results(exact, trial) for trial in trials]
    exact.set_weights(weights)
    return found


def _reversed(layer: _model.Layer) -> bool:
    """Are outputs in the order of a run from the last timestep on?"""
    return isinstance(layer, fastgru.GRU) and layer.go_backwards


def _ended(outputs: Array, mask: Array | None, reverse: bool) -> Array:
    """Outputs (batch, timesteps, units) with zeros where the mask is false."""
    if mask is None:
        return outputs
    return np.where((mask[:, ::-1] if reverse else mask)[..., None], outputs, 0)


def _distance(arrays: Sequence[Array], others: Sequence[Array]) -> float:
    """The largest difference, NaN and infinities being equal to themselves; infinite if shapes differ."""
    largest = 0.0
    for array, other in zip(arrays, others, strict=True):
        if array.shape != other.shape:
            return np.inf
        with np.errstate(all="ignore"):
            difference = np.abs(array.astype(np.float64) - other)
        same = (array == other) | (np.isnan(array) & np.isnan(other))
        difference[same] = 0
        difference[np.isnan(difference)] = np.inf
        largest = max(largest, float(difference.max(initial=0)))
    return largest
