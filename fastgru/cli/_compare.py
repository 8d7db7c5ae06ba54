"""`fastgru compare`: what a file's layers compute here, and in the runtime that the file was made for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

import fastgru
from fastgru.cli import _model, _terminal
from fastgru.cli._runtime import Array, Runtime

T = TypeVar("T")
TRIALS = 8
MOST_ROWS, MOST_STEPS = 8, 24
DRAWS = 4  # of weights rounded at random
# Allowed error, divided by the effect of rounding the weights at random: for 300 random layers of
# 1 to 20 units the largest error was 9 times it (fastgru and onnxruntime, AMD EPYC, AVX2, 2026-11-23).
MARGIN = 16
EQUAL, DIFFERENT, FAILED = 0, 1, 2  # exit statuses
EXACT: dict[str, Any] = {"dtype": "float64", "weights_dtype": None}
CALLED_IN_A_ROW: dict[str, Any] = {"return_sequences": True, "return_state": False}
# Which calls in a row are given states. The own states of a stateful layer are those that it starts from by
# default, or those that the last call left, which started from its own or from given ones.
GIVEN = (False, True, True, False, True), (True, False, True, True, False)


Row = tuple[list[object], int]  # of the table, and the exit status


def compare(model: Path, layer: str | None, against: str | None, seed: int) -> int:
    """Print how far the layers are from each other, and return the exit status."""
    from fastgru.cli import _runtimes

    own, kind = _runtimes.own(model)
    against = against or own
    if against is None:
        raise ValueError(f"files of the format {kind!r} have no runtime of their own: name one by --against")
    file = _runtimes.of_file(model, against, kind) if against == own else None
    pairs = _pairs(model, layer, whole=file is not None or against == "torch")
    stateful = _stateful(model, layer) if file else {}
    rows: list[Row] = []
    with _terminal.progress("comparing", len(pairs) * TRIALS, "trials") as tick:
        for name, ours, truth in pairs:
            try:
                runtime = file.layer(name) if file else _runtimes.of_layer(ours, against)
                rng = np.random.default_rng(seed)
                if reason := _mismatch(ours, name in stateful, runtime):
                    rows.append(_row(name, f"DIFFERENT: {reason}", DIFFERENT))
                else:
                    rows.append(_judged(name, compared(ours, truth, runtime, rng)))
                    if name in stateful:
                        found = compared_in_a_row(*stateful[name], runtime, rng)
                        rows.append(_judged(f"{name}, {len(GIVEN[0])} calls in a row", found))
            except ImportError:
                raise
            except Exception as error:  # whatever a runtime raises; the other layers go on
                reason = " ".join(str(error).split()) or type(error).__name__
                rows.append(_row(name, f"not compared: {reason:.300}", FAILED))
            tick(TRIALS)
    if layer is None and file is not None:
        rows += _left_out(model, {name for name, *_ in pairs}, file.names)
    columns = ("layer", "difference", "of states", "error", f"{against}'s error", "of rounding", "verdict")
    shapes = f"{TRIALS} trials of up to {MOST_ROWS} rows and {MOST_STEPS} steps"
    _terminal.table(columns, [row for row, _ in rows], f"{model}: fastgru and {against}, {shapes}")
    if file is None:
        print(f"{against} had the layers from fastgru: this does not test how the file was read.")
    statuses = [status for _, status in rows]
    return DIFFERENT if DIFFERENT in statuses else max(statuses)


def _pairs(model: Path, layer: str | None, whole: bool) -> list[tuple[str, _model.Layer, _model.Layer]]:
    """Names, layers, and the same in float64; unless `whole`, the layers of a Stack one by one."""
    layers = _model.named(model, layer, **_model.RETURNING_ALL)
    exact = _model.named(model, layer, **_model.RETURNING_ALL, **EXACT)
    pairs: list[tuple[str, _model.Layer, _model.Layer]] = []
    for name, found in layers.items():
        if isinstance(found, fastgru.Stack) and not whole:
            parts = zip(found.layers, exact[name].layers, strict=True)
            pairs += [(f"{name}: {part.name}", part, truth) for part, truth in parts]
        else:
            pairs.append((name, found, exact[name]))
    return pairs


def _stateful(model: Path, layer: str | None) -> dict[str, tuple[_model.Layer, _model.Layer]]:
    """The stateful layers by name, and in float64, with all outputs."""
    layers = _model.named(model, layer, **CALLED_IN_A_ROW)
    names = [name for name, found in layers.items() if any(part.stateful for part in found._parts)]
    exact = _model.named(model, layer, **CALLED_IN_A_ROW, **EXACT) if names else {}
    return {name: (layers[name], exact[name]) for name in names}


def _mismatch(layer: _model.Layer, stateful: bool, runtime: Runtime) -> str | None:
    """What the runtime read otherwise than fastgru, apart from numbers; None if nothing."""
    shapes = (
        _shape(_model.features(layer), [part.units for part in layer._parts]),
        _shape(runtime.features, runtime.units),
    )
    pairs: list[tuple[str, object, object]] = [
        ("", *shapes),
        ("stateful=", stateful, runtime.calls is not None),
        ("time_major=", layer.time_major, runtime.time_major),
    ]
    for what, ours, theirs in pairs:
        if theirs is not None and ours != theirs:
            return f"fastgru has read {what}{ours}, its runtime {what}{theirs}"
    return None


def _shape(features: int, units: Sequence[int]) -> str:
    """The shape of a layer in words."""
    return f"{features} features and states of {', '.join(map(str, units))}"


def _left_out(model: Path, compared: set[str], names: Sequence[str]) -> Iterator[Row]:
    """Layers that fastgru has not read, and layers that the file has no config for."""
    from fastgru import formats

    known, bare = formats.with_and_without_config(model)
    for name in bare:
        if name not in compared:
            yield _row(name, "not compared: the file has its weights only", FAILED)
    for name in names:
        if name not in {*compared, *known, *bare}:
            yield _row(name, "DIFFERENT: fastgru has not read it", DIFFERENT)


def _row(name: str, verdict: str, status: int, numbers: Sequence[float | None] = (None,) * 5) -> Row:
    return [name, *numbers, verdict], status


def _judged(name: str, found: Comparison) -> Row:
    verdict, status = ("equal but for rounding", EQUAL) if found.equal else ("DIFFERENT", DIFFERENT)
    return _row(name, verdict, status, found)


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
        """True if every error is one of rounding."""
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
    The effect of rounding is measured by the equations in float64: with the weights as they are, and `DRAWS`
    times with each weight off by a random part of u * sqrt(n). u is the largest unit roundoff of the layer's
    dtype, its weights' and the runtime's; n is the number of terms in a sum, whose rounding errors grow as
    its square root. These runs have the trial's states and steps, so they damp or amplify errors as it does.
    An error may be `MARGIN` times this effect, or `MARGIN` roundings of the largest number if that is more.
    The runtime's own error has the same bound, because it shows weights that were read wrongly.
    """
    trials = [_trial(layer, runtime.masks, rng) for _ in range(TRIALS)]
    blank = not runtime.masks and not runtime.zeros

    def run(found: _model.Layer | Runtime, trial: Trial) -> list[Array]:
        arrays = results(found, trial) if not isinstance(found, Runtime) else _joined(found.run(*trial))
        if blank:
            arrays[0] = _ended(arrays[0], trial.mask, _reversed(layer))
        return arrays

    return _comparison(layer, exact, runtime, trials, run, rng)


def compared_in_a_row(
    layer: _model.Layer, exact: _model.Layer, runtime: Runtime, rng: np.random.Generator
) -> Comparison:
    """As `compared`, of stateful layers: of several calls, each from the states that the last one left.

    Parameters
    ----------
    layer, exact : GRU, Bidirectional or Stack
        Returning sequences, but no states.
    runtime : Runtime
        With calls.
    rng : Generator
    """
    shapes = (getattr(part, "_batch_input_shape", None) for part in (layer, *layer._parts))
    batch = next((shape[0] for shape in shapes if shape and shape[0]), 2)
    rows = [
        [_trial(layer, runtime.masks, rng, batch, timesteps=3, own_states=given) for given in each]
        for each in GIVEN
    ]

    def run(found: _model.Layer | Runtime, trials: list[Trial]) -> list[Array]:
        if isinstance(found, Runtime):
            call = found.calls(batch) if found.calls else found.run
            arrays = [_joined(call(*trial)) for trial in trials]
        else:
            if any(state is not None for state in found.states):
                found.reset_states()
            arrays = [[*results(found, trial), *map(np.array, found.states)] for trial in trials]
        return [
            np.concatenate([each[0] for each in arrays], axis=1),
            *(s for each in arrays for s in each[1:]),
        ]

    return _comparison(layer, exact, runtime, rows, run, rng)


def _comparison(
    layer: _model.Layer,
    exact: _model.Layer,
    runtime: Runtime,
    trials: Sequence[T],
    run: Callable[[_model.Layer | Runtime, T], list[Array]],
    rng: np.random.Generator,
) -> Comparison:
    """Compare by trials; `run(layer or runtime, trial)` returns an output and states."""
    truth = [run(exact, trial) for trial in trials]
    dtypes = {dtype for part in layer._parts for dtype in (part.dtype, part.weights_dtype)}
    units = (2.0**-8 if dtype == "int8" else float(np.finfo(dtype).eps) / 2 for dtype in dtypes)
    unit = max(runtime.roundoff, *units)
    shaken = [
        _shaken(exact, unit, rng, lambda: [run(exact, trial) for trial in trials]) for _ in range(DRAWS)
    ]
    outputs = states = ours = theirs = rounding = 0.0
    for trial, right, *others in zip(trials, truth, *shaken, strict=True):
        found, foreign = run(layer, trial), run(runtime, trial)
        scale = max(float(np.abs(array[np.isfinite(array)]).max(initial=0)) for array in right)
        allowed = (MARGIN * max(unit * scale, *(_distance(other, right) for other in others))) or unit
        errors = _distance(found, right), _distance(foreign, right)
        ours, theirs = max(ours, errors[0]), max(theirs, errors[1])
        rounding = max(rounding, max(errors) / allowed if max(errors) else 0.0)
        outputs = max(outputs, _distance(found[:1], foreign[:1]))
        states = max(states, _distance(found[1:], foreign[1:]))
    return Comparison(outputs, states, ours, theirs, rounding)


def _trial(
    layer: _model.Layer,
    any_mask: bool,
    rng: np.random.Generator,
    batch: int | None = None,
    timesteps: int | None = None,
    own_states: bool | None = None,
) -> Trial:
    """Inputs small and large; a mask and states, or none. What is None is drawn."""
    default = next((part.default_state for part in layer._parts if part.default_state is not None), None)
    own_states = bool(rng.integers(2)) if own_states is None else own_states
    batch = int(rng.integers(1, MOST_ROWS + 1)) if batch is None else batch
    if not own_states and default is not None and len(default) > 1:
        batch = len(default)
    timesteps = int(rng.integers(1, MOST_STEPS + 1)) if timesteps is None else timesteps
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
    arrays = found if isinstance(found, list) else [found]
    return _joined(
        [array.swapaxes(0, 1) if layer.time_major and array.ndim == 3 else array for array in arrays]
    )


def _joined(arrays: Sequence[Array]) -> list[Array]:
    """One output and the last states: outputs of both directions, if they are apart, side by side."""
    outputs = [array for array in arrays if array.ndim == 3]
    return [np.concatenate(outputs, axis=-1), *arrays[len(outputs) :]]


def _shaken(
    exact: _model.Layer, unit: float, rng: np.random.Generator, run: Callable[[], list[list[Array]]]
) -> list[list[Array]]:
    """The results of trials with every weight off by a random part of the rounding error of sums."""
    weights = exact.get_weights()
    terms = _model.features(exact) + max(part.units for part in exact._parts)
    exact.set_weights([w * (1 + unit * terms**0.5 * rng.uniform(-1, 1, w.shape)) for w in weights])
    found = run()
    exact.set_weights(weights)
    return found


def _reversed(layer: _model.Layer) -> bool:
    """True if outputs are in the order of a run from the last timestep on."""
    return isinstance(layer, fastgru.GRU) and layer.go_backwards


def _ended(outputs: Array, mask: Array | None, reverse: bool) -> Array:
    """Outputs (batch, timesteps, units) with zeros where the mask is false."""
    if mask is None:
        return outputs
    return np.where((mask[:, ::-1] if reverse else mask)[..., None], outputs, 0)


def _distance(arrays: Sequence[Array], others: Sequence[Array]) -> float:
    """The largest difference, NaN and infinities being equal to themselves; infinite if shapes differ."""
    if len(arrays) != len(others):
        return np.inf
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
