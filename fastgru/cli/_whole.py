"""The commands with `--whole`: the whole network of a file, in place of its GRU layers."""

import io
from pathlib import Path
from typing import Any

import numpy as np

import fastgru
from fastgru.cli import _files, _measure, _terminal
from fastgru.cli._files import Array

COLUMNS = ("name", "kind", "output", "parameters", "reads")
ROWS = 32  # at a time
TRIALS = 8
LIMITS = {"float32": 3e-5, "float64": 1e-10}  # of a difference from another runtime
STEPS = 20  # of a sequence to measure or to compare, if the model does not fix their number


def inspect(model: Path, measure: bool) -> None:
    """Print a table of the network's nodes and, with `measure`, how long a step or a call takes."""
    whole = fastgru.load_model(model)
    rows: list[list[object]] = [[one.name, "Input", str(one.shape), 0, ""] for one in whole.inputs]
    for node in whole.nodes:
        count = sum(array.size for array in node.weights.values())
        shape = str(whole.shape_of(node.outputs[0]))
        rows.append([node.name, node.label, shape, count, ", ".join(node.inputs)])
    _terminal.table(COLUMNS, rows, f"{model}: {whole.name}, {whole.dtype}, weights {whole.weights_dtype}")
    if measure:
        what, call = _step_or_call(whole)
        _measure.block(call, _measure.WARM)
        microseconds = np.median(_measure.block(call, _measure.SECONDS)) / 1e3
        print(f"{what} takes {microseconds:.3g} us")


def run(
    model: Path,
    sequences: Path,
    output: Path,
    lengths: Path | None,
    batch: int | None,
    weights_dtype: str | None,
    **not_for_models: Any,
) -> None:
    """Run the network over the rows of a file, and write its output."""
    _refuse(not_for_models)
    whole = fastgru.load_model(model, weights_dtype)
    if len(whole.inputs) > 1 or len(whole.outputs) > 1:
        raise ValueError(
            f"the model must have one input and one output, got {[one.name for one in whole.inputs]} and "
            f"{list(whole.outputs)}: call it in Python"
        )
    if output.exists() and output.samefile(model):
        raise ValueError(f"OUT must be another file than MODEL, got {output}")
    batch = batch or ROWS
    with _files.mapped(sequences) as x:
        if "b" not in whole.inputs[0].layout[:1] or "b" not in whole.output_values[0].layout[:1]:
            layouts = whole.inputs[0].layout, whole.output_values[0].layout
            raise ValueError(f"the model must read and write batches first, got {layouts}: call it in Python")
        if not x.ndim or not len(x):
            raise ValueError(f"INPUT must have at least one row, got shape {x.shape}")
        ends = None if lengths is None else _files.array(lengths, str(lengths))
        if ends is not None and ends.shape != x.shape[:1]:
            raise ValueError(f"--lengths must have shape {x.shape[:1]}, one for each row, got {ends.shape}")

        def computed(first: int) -> Array:
            some = None if ends is None else ends[first : first + batch]
            return np.asarray(whole(np.array(x[first : first + batch]), lengths=some))

        piece = computed(0)
        with _files.appearing(output) as file:
            shape = (len(x), *piece.shape[1:])
            out = _files.Pieces(file, shape if len(shape) > 2 else (1, *shape), piece.dtype, shape)
            with _terminal.progress(sequences.name, len(x), "rows") as advance:
                for first in range(0, len(x), batch):
                    piece = piece if first == 0 else computed(first)
                    place = (first, 0, piece) if piece.ndim == 3 else (0, first, piece[np.newaxis])
                    out.put(*place)
                    advance(len(piece))


def convert(model: Path, out: Path, layer: str | None) -> None:
    """Write the network to a file of fastgru, if what is read back computes the same."""
    _refuse({"layer": layer})
    if out.suffix != ".npz":
        raise ValueError(f"OUT must end in .npz for a whole model, got {str(out)!r}")
    whole = fastgru.load_model(model)
    written = io.BytesIO()
    whole.save(written)
    read_back = fastgru.load_model(written.getvalue())
    inputs = _inputs(whole, 1)
    ours, theirs = (one(inputs) for one in (whole, read_back))
    pairs = zip(*(found if isinstance(found, list) else [found] for found in (ours, theirs)), strict=True)
    if not all(np.array_equal(one, two, equal_nan=True) for one, two in pairs):
        raise ValueError(f"{out} was not written, because the model that is read back has other outputs")
    with _files.appearing(out) as file:
        file.write(written.getbuffer())
    print(f"{out}: {sum(array.size for array in whole.get_weights()):,} parameters; outputs are the same")


def bench(
    model: Path, layer: str | None, batches: tuple[int, ...], seconds: float, plot: Path | None
) -> None:
    """Print how long calls take, and a step of a stream if the network can run step by step."""
    _refuse({"layer": layer, "plot": plot})
    whole = fastgru.load_model(model)
    rows: list[list[object]] = []
    what, call = _step_or_call(whole)
    cases: list[tuple[str, int, Any]] = [(what, 1, call)] if what == "a step" else []
    for batch in batches:
        inputs = _inputs(whole, batch)
        cases.append(("a call", batch, lambda inputs=inputs: whole(inputs)))
    for what, batch, call in cases:
        _measure.block(call, _measure.WARM)
        times = np.array(_measure.block(call, seconds)) / 1e3
        rows.append([what, batch, float(np.median(times)), float(np.quantile(times, 0.99))])
    _terminal.table(("of", "batch", "us", "us, 99 of 100"), rows, f"{model}, one thread")


def compare(model: Path, layer: str | None, against: str | None, seed: int) -> int:
    """Print how far the outputs are from those of the file's own runtime, and return the exit status."""
    from fastgru.cli import _runtimes

    _refuse({"layer": layer})
    whole = fastgru.load_model(model)
    name, runtime = _runtimes.of_model(model, against)
    limit = LIMITS[whole.dtype]
    rng = np.random.default_rng(seed)
    worst = dict.fromkeys(whole.outputs, 0.0)
    with _terminal.progress("comparing", TRIALS, "trials") as tick:
        for _ in range(TRIALS):
            inputs = _inputs(whole, int(rng.integers(1, 9)), rng)
            ours = whole(inputs)
            theirs = runtime(dict(zip((one.name for one in whole.inputs), inputs, strict=True)))
            pairs = zip(worst, ours if isinstance(ours, list) else [ours], theirs, strict=True)
            for output, one, two in pairs:
                worst[output] = max(worst[output], _distance(one, two))
            tick(1)
    verdicts = {output: "equal" if far <= limit else "DIFFERENT" for output, far in worst.items()}
    rows = [[output, worst[output], limit, verdict] for output, verdict in verdicts.items()]
    columns = ("output", "difference", "allowed", "verdict")
    _terminal.table(columns, rows, f"{model}: fastgru and {name}, {TRIALS} trials")
    return int("DIFFERENT" in verdicts.values())


def _distance(one: Array, two: Array) -> float:
    """The largest difference, as a share of the largest number where that is above 1."""
    if one.shape != two.shape:
        return float("inf")
    if not one.size:
        return 0.0
    return float(np.abs(one - two).max() / max(1.0, float(np.abs(two).max())))


def _refuse(given: dict[str, Any]) -> None:
    """Refuse options that whole models do not have."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"--{name} must be left out with --whole, got {value}")


def _inputs(whole: Any, batch: int, rng: np.random.Generator | None = None) -> list[Array]:
    """Random inputs, batch-major if the model's are; indices are 0 without a generator."""
    found, is_random = [], rng is not None
    rng = np.random.default_rng(0) if rng is None else rng
    for one in whole.inputs:
        sizes = {"b": batch, "1": 1, "t": (one.shape[0] or STEPS), "f": one.shape[-1]}
        shape = [sizes[letter] for letter in one.layout]
        if one.indices:
            most = whole.limits_of(one.name)[1] if is_random else 1
            found.append(rng.integers(0, most, shape).astype(np.int32))
        else:
            found.append(rng.normal(size=shape).astype(whole.dtype))
    return found


def _step_or_call(whole: Any) -> tuple[str, _measure.Call]:
    """A step of a stream of one row, or a call of one row if the model cannot be streamed."""
    try:
        stream = whole.stream()
    except ValueError:
        inputs = _inputs(whole, 1)
        return "a call of one row", lambda: whole(inputs)
    one = whole.inputs[0]
    x = np.zeros((1, 1), np.int32) if one.indices else np.ones((1, one.shape[-1]), whole.dtype)
    return "a step", lambda: stream(x)
