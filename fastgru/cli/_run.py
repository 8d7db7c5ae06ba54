"""`fastgru run`: a layer over a file that need not fit into memory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastgru
from fastgru import _validate
from fastgru.cli import _files, _model, _terminal
from fastgru.cli._files import Array

PIECE_BYTES = 8 << 20  # of input and output at a time: a fraction of a second of computing
ROWS = 32  # at a time by default: they share the reading of the weights
STEPS = 32  # at a time of a time-major file, at least: more rows instead, which are next to each other there


def run(
    model: Path,
    sequences: Path,
    output: Path,
    layer: str | None,
    lengths: Path | None,
    states: Path | None,
    batch: int | None,
    dtype: str | None,
    weights_dtype: str | None,
) -> None:
    """Run the layer and write its outputs."""
    given = {name: value for name, value in (("dtype", dtype), ("weights_dtype", weights_dtype)) if value}
    ready = _model.read(model, layer, stateful=False, return_state=True, **given)
    if output.exists() and output.samefile(model):
        raise ValueError(f"OUT must be another file than MODEL, got {output}")
    with _files.mapped(sequences) as x:
        call = checked(
            ready,
            x,
            None if lengths is None else _files.array(lengths, str(lengths)),
            None if states is None else _files.arrays(states),
        )
        with _files.appearing(output) as file:
            out = _files.Pieces(file, call.output_shape, np.dtype(ready.dtype))
            with _terminal.progress(sequences.name, call.batch * call.timesteps, "steps") as advance:
                compute(call, out.put, advance, batch)


class Call(NamedTuple):
    """What to compute: a layer that returns its states, and arrays that fit to it."""

    layer: _model.Layer
    x: Array  # with the layer's order of axes
    lengths: Array | None  # (batch)
    states: list[Array] | None  # of each of its GRUs (batch, units)

    @property
    def batch(self) -> int:
        return int(self.x.shape[1 if self.layer.time_major else 0])

    @property
    def timesteps(self) -> int:
        return int(self.x.shape[0 if self.layer.time_major else 1])

    @property
    def outputs(self) -> int:
        """Number of arrays of the output: two for directions that are not merged, which are concatenated."""
        apart = isinstance(self.layer, fastgru.Bidirectional) and self.layer.merge_mode is None
        return 2 if apart else 1

    @property
    def output_shape(self) -> tuple[int, ...]:
        shapes = self.layer.compute_output_shape(self.x.shape)[: self.outputs]
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    @property
    def divisible(self) -> bool:
        """True if timesteps may be computed one part after the other, states handed on."""
        layer, parts = self.layer, self.layer._parts
        if any(gru._compute_dtype != gru._dtype for gru in parts):
            return False  # states would be rounded in between
        if isinstance(layer, fastgru.Stack):
            grus = all(isinstance(part, fastgru.GRU) for part in layer.layers)
            return grus and not any(gru.go_backwards for gru in parts)
        return isinstance(layer, fastgru.GRU)


def checked(layer: _model.Layer, x: Array, lengths: Array | None, states: list[Array] | None) -> Call:
    """The call of such a layer on such arrays.

    Raises
    ------
    ValueError
        If they do not fit to the layer or to each other.
    """
    axes = "(timesteps, batch, features)" if layer.time_major else "(batch, timesteps, features)"
    features = _model.features(layer)
    if x.ndim != 3 or x.shape[2] != features:
        raise ValueError(f"INPUT must have shape {axes} with {features} features, got {x.shape}")
    if x.dtype.kind != "f":
        raise ValueError(f"INPUT must hold floats, got {x.dtype}: numpy's astype('float32') converts them")
    call = Call(layer, x, None, None)
    if not call.timesteps:
        raise ValueError(f"INPUT must have at least one timestep, got shape {x.shape}")
    if lengths is not None:
        lengths = _validate.lengths(lengths, call.batch, call.timesteps)
    members = layer._parts
    if states is None and any(gru.default_state is not None for gru in members):
        states = [
            np.zeros(1, layer.dtype) if gru.default_state is None else gru.default_state for gru in members
        ]
        states = [
            broadcast(state, (call.batch, gru.units)) for state, gru in zip(states, members, strict=True)
        ]
    if states is not None:
        wanted, found = [(call.batch, gru.units) for gru in members], [state.shape for state in states]
        if found != wanted:
            raise ValueError(f"--states must hold arrays of the shapes {wanted}, got {found}")
    return call._replace(lengths=lengths, states=states)


def broadcast(state: Array, shape: tuple[int, int]) -> Array:
    """A model's own initial state for all rows."""
    try:
        return np.broadcast_to(state, shape)
    except ValueError:
        raise ValueError(
            f"INPUT must have {state.shape[0]} rows, as the model's initial state, got {shape[0]}"
        ) from None


def compute(
    call: Call,
    put: Callable[[int, int, Array], None],
    advance: Callable[[int], None],
    batch: int | None = None,
) -> None:
    """Compute piece by piece what one call would return.

    Parameters
    ----------
    call : Call
    put : callable
        Is given the places on the first two axes of the output where a piece begins, and the piece, of three
        axes: an output without timesteps has one more in front.
    advance : callable
        Is given how many timesteps of one row have been computed since.
    batch : int, optional
        Rows at a time.
    """
    steps_bytes = (call.x.shape[2] + call.output_shape[-1]) * call.x.itemsize
    if batch is not None:
        rows = batch
    elif not call.divisible:
        rows = min(ROWS, PIECE_BYTES // (call.timesteps * steps_bytes))
    elif call.layer.time_major:
        rows = max(ROWS, PIECE_BYTES // (STEPS * steps_bytes))
    else:
        rows = ROWS
    rows = max(1, min(rows, call.batch))
    steps = max(1, PIECE_BYTES // (rows * steps_bytes)) if call.divisible else call.timesteps
    for first in range(0, call.batch, rows):
        of_rows = slice(first, first + rows)
        part = Call(
            call.layer,
            call.x[:, of_rows] if call.layer.time_major else call.x[of_rows],
            None if call.lengths is None else call.lengths[of_rows],
            None if call.states is None else [state[of_rows] for state in call.states],
        )
        for time, output in outputs(part, steps, advance):
            if output.ndim == 2:
                put(0, first, output[None])
            elif call.layer.time_major:
                put(time, first, output)
            else:
                put(first, time, output)


def outputs(
    call: Call, steps: int, advance: Callable[[int], None] = lambda done: None
) -> Iterator[tuple[int, Array]]:
    """The outputs of `steps` timesteps at a time, in the order of the run, and where they begin.

    If the layer returns only the last output, that comes once. `advance` is as in `compute`.
    """
    layer, states, timesteps = call.layer, call.states, call.timesteps
    sequences, time_major = bool(layer.return_sequences), bool(layer.time_major)
    backwards = isinstance(layer, fastgru.GRU) and bool(layer.go_backwards)
    for done in range(0, timesteps, steps):
        start = max(0, timesteps - done - steps) if backwards else done
        end = timesteps - done if backwards else min(timesteps, done + steps)
        lengths = None if call.lengths is None else np.clip(call.lengths - start, 0, end - start)
        x = call.x[start:end] if time_major else call.x[:, start:end]
        with _files.resident(x):
            results = layer(x, states, lengths=lengths)
        advance(call.batch * (end - start))
        parts, states = results[: call.outputs], results[call.outputs :]
        output = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        if call.lengths is not None and not backwards and done:
            repeat_last(call, output, states[-1], (lengths == 0) & (call.lengths > 0))
        if sequences or done + steps >= timesteps:
            yield done if sequences else 0, output


def repeat_last(call: Call, output: Array, state: Array, ended: Array) -> None:
    """Rows that ended in an earlier part go on with their last output, which this part does not know."""
    if call.layer._parts[-1].zero_output_for_mask:
        return
    if output.ndim == 2:
        output[ended] = state[ended]
    elif call.layer.time_major:
        output[:, ended] = state[ended]
    else:
        output[ended] = state[ended, None]
