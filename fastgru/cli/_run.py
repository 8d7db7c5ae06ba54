"""`fastgru run`: a layer over a file that need not fit into memory."""

from pathlib import Path

import numpy as np

from fastgru import _validate
from fastgru._pieces import pieces
from fastgru.cli import _files, _model, _terminal
from fastgru.cli._files import Array


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
        steps, starts = checked(
            ready,
            x,
            None if lengths is None else _files.array(lengths, str(lengths)),
            None if states is None else _files.arrays(states),
        )
        with _files.appearing(output) as file:
            rows = (
                x.shape[:2] if ready.return_sequences else x.shape[1:2] if ready.time_major else x.shape[:1]
            )
            shape = (*rows, len(ready._dtypes) * ready._width)  # two outputs are concatenated
            out = _files.Pieces(file, shape, np.dtype(ready.dtype))
            with _terminal.progress(sequences.name, x.shape[0] * x.shape[1], "steps") as advance:
                for place, piece, done in pieces(ready, x, starts, steps, batch, _files.resident):
                    out.put(*place, piece)
                    advance(done)


def checked(
    layer: _model.Layer, x: Array, lengths: Array | None, states: list[Array] | None
) -> tuple[Array | None, list[Array] | None]:
    """Lengths, (batch,), and the state of each GRU, (batch, units), of a call of the layer on such arrays.

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
    batch, timesteps = x.shape[:2][:: -1 if layer.time_major else 1]
    if not timesteps:
        raise ValueError(f"INPUT must have at least one timestep, got shape {x.shape}")
    if lengths is not None:
        lengths = _validate.lengths(lengths, batch, timesteps)
    members = layer._parts
    if states is None and any(gru.default_state is not None for gru in members):
        states = [
            np.zeros(1, layer.dtype) if gru.default_state is None else gru.default_state for gru in members
        ]
        states = [broadcast(state, (batch, gru.units)) for state, gru in zip(states, members, strict=True)]
    if states is not None:
        wanted, found = [(batch, gru.units) for gru in members], [state.shape for state in states]
        if found != wanted:
            raise ValueError(f"--states must hold arrays of the shapes {wanted}, got {found}")
    return lengths, states


def broadcast(state: Array, shape: tuple[int, int]) -> Array:
    """A model's own initial state for all rows."""
    try:
        return np.broadcast_to(state, shape)
    except ValueError:
        raise ValueError(
            f"INPUT must have {state.shape[0]} rows, as the model's initial state, got {shape[0]}"
        ) from None
