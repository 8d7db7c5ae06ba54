"""`fastgru run` of Parquet and Zarr, by several processes, and of sequences that come in parts."""

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

import fastgru
from fastgru._errors import need
from fastgru.cli import _model, _terminal
from fastgru.cli._jobs import _arrays, _running, _tables
from fastgru.cli._jobs._arrays import ArrayJob
from fastgru.cli._jobs._steps import Steps
from fastgru.cli._jobs._tables import TableJob
from fastgru.cli._jobs._work import Work, put

ENDINGS = {"npy": (".npy", ".zarr"), "zarr": (".zarr", ".npy"), "parquet": (".parquet", ""), "folder": ("",)}
MAGIC = b"PAR1"  # with which a Parquet file begins


def kind_of(path: Path) -> str:
    """What INPUT is: npy, zarr, parquet, or a folder of .npy files.

    Raises
    ------
    ValueError
        If it is a folder of none of these.
    """
    if not path.is_dir():
        if path.is_file():
            with path.open("rb") as file:
                return "parquet" if file.read(4) == MAGIC or path.suffix == ".parquet" else "npy"
        return "npy"
    if _arrays.is_zarr(path):
        return "zarr"
    kinds = [
        kind
        for kind, ending in (("parquet", ".parquet"), ("folder", ".npy"))
        if _tables.files_in(path, ending)
    ]
    if len(kinds) != 1:
        got = "files of both" if kinds else "none of them"
        raise ValueError(
            f"INPUT must be a folder of Zarr, of .parquet files or of .npy files, got {got}: {path}"
        )
    return kinds[0]


def run(
    whole: bool,
    model: Path,
    sequences: Path,
    output: Path,
    layer: str | None,
    lengths: Path | None,
    states: Path | None,
    batch: int | None,
    dtype: str | None,
    weights_dtype: str | None,
    workers: int | None,
    scheduler: str | None,
    columns: tuple[str, ...],
    keep: tuple[str, ...],
    part_size: int | None,
    resume_state: Path | None,
) -> None:
    """Compute the job, or what is left of it, and write its outputs."""
    kind = _checked_kind(sequences, output, columns, keep)
    part_bytes = None if part_size is None else part_size << 20
    if states is not None:
        raise ValueError(f"--states must be left out for a job of parts, got {states}: rows start from zeros")
    if whole and (layer is not None or dtype is not None):
        name, value = ("layer", layer) if layer is not None else ("dtype", dtype)
        raise ValueError(f"--{name} must be left out with --whole, got {value}")
    net: Any
    if whole:
        net = fastgru.load_model(model, weights_dtype)
    else:
        given = {name: value for name, value in (("dtype", dtype), ("weights_dtype", weights_dtype)) if value}
        net = _model.read(model, layer, stateful=False, return_state=False, **given)
    files = _inputs(sequences, kind)
    told = {"layer": layer, "whole": whole, "dtype": dtype, "weights_dtype": weights_dtype}
    identity = {
        "version": fastgru.__version__,
        "model": {"file": _fingerprint(model), **told},
        "input": [_fingerprint(path) for path in files],
        "columns": [columns, keep],
        "lengths": lengths and (str(lengths) if kind == "parquet" else _fingerprint(lengths)),
        "output": output.suffix,
        "resumed": resume_state is not None,
    }
    work = Work(output, replaces=kind in ("npy", "zarr") and resume_state is None)
    if resume_state is None:
        arguments: dict[str, Any] = {"keep": keep, "columns": columns or None}
        if batch is not None:
            arguments["batch_size"] = batch
        if kind == "parquet":
            arguments["lengths"] = None if lengths is None else str(lengths)
        else:
            arguments = {name: value for name, value in arguments.items() if name == "batch_size"}
        scorer = fastgru.Scorer(net, **arguments)
        job: Any = _table_job(scorer, work, sequences, part_bytes) if kind == "parquet" else None
        job = job or _rows_job(scorer, work, files, sequences, kind, lengths, part_bytes)
        with work.opened(identity | {"parts": _parts_of(job)}):
            _prepare(job, work, scorer.dtype, scorer.output_shape)
            _run(job, scorer, work, sequences.name, workers, scheduler)
            work.finish()
        return
    _refuse_with_state(lengths, workers, scheduler)
    digest = hashlib.sha256(repr(identity["model"]).encode()).hexdigest()
    job, steps = _sequence_job(net, digest, work, files, sequences, kind, columns, keep, part_bytes)
    job = dataclasses.replace(job, durable=True)  # the state is written before the output is in its place
    with work.opened(identity | {"parts": _parts_of(job)}, durable=True):
        _run_sequence(job, steps, work, sequences.name, resume_state)


def _parts_of(job: Any) -> list[Any]:
    """What the numbers of parts stand for."""
    return [len(job.parts), hashlib.sha256(repr(job.parts).encode()).hexdigest()]


def _checked_kind(sequences: Path, output: Path, columns: tuple[str, ...], keep: tuple[str, ...]) -> str:
    """What INPUT is, if OUT and the options are for it."""
    if "-" in (str(sequences), str(output)):
        raise ValueError("INPUT and OUT must be files or folders for a job of parts, got -")
    if not sequences.exists():
        raise FileNotFoundError(2, "No such file or directory", str(sequences))
    kind = kind_of(sequences)
    wanted = ENDINGS[kind]
    if output.suffix not in wanted and not (
        wanted == ("",) and output.suffix not in (".npy", ".zarr", ".parquet")
    ):
        named = " or ".join(ending or "nothing" for ending in wanted)
        raise ValueError(f"OUT must end in {named} for an INPUT of {kind}, got {str(output)!r}")
    if kind == "parquet":
        need("pyarrow", "batch", "Parquet")
    elif columns or keep:
        raise ValueError(
            f"--{'column' if columns else 'keep'} must be given with Parquet, got an INPUT of {kind}"
        )
    return kind


def _refuse_with_state(lengths: Path | None, workers: int | None, scheduler: str | None) -> None:
    """Refuse what makes no sense for parts of sequences, which follow each other."""
    for name, value in (("lengths", lengths), ("workers", workers), ("scheduler", scheduler)):
        if value is not None:
            raise ValueError(
                f"--{name} must be left out with --resume-state, whose parts follow each other, got {value}"
            )


def _inputs(sequences: Path, kind: str) -> list[Path]:
    """The files of INPUT, in the order of their names, numbers in them by value."""

    def order(name: str) -> list[Any]:
        return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split("([0-9]+)", name)]

    if kind in ("npy", "zarr") or sequences.is_file():
        return [sequences]
    ending = ".parquet" if kind == "parquet" else ".npy"
    return [sequences / name for name in sorted(_tables.files_in(sequences, ending), key=order)]


def _fingerprint(path: Path) -> list[Any]:
    """What a file is known by to be the same as before; of a folder its metadata."""
    if path.is_dir():
        inside = sorted(found for found in path.iterdir() if found.is_file())
        return [str(path.resolve()), [_fingerprint(found)[1:] for found in inside]]
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]


# ---- jobs of rows ------------------------------------------------------------------------------


def _table_job(scorer: Any, work: Work, sequences: Path, part_bytes: int | None) -> TableJob:
    def choose(empty: Any) -> Any:
        names = scorer.columns_of(empty.column_names)
        scorer(empty.select(names))  # which says what does not fit
        return names

    return _tables_of(sequences, work, choose, part_bytes)


def _tables_of(sequences: Path, work: Work, choose: Any, part_bytes: int | None) -> TableJob:
    folder = sequences.parent if sequences.is_file() else sequences
    names = [str(path.relative_to(folder)) for path in _inputs(sequences, "parquet")]
    parts, columns = _tables.planned(folder, names, choose, part_bytes)
    return TableJob(str(folder.resolve()), str(work.data), columns, parts)


def _rows_job(
    scorer: Any,
    work: Work,
    files: list[Path],
    sequences: Path,
    kind: str,
    lengths: Path | None,
    part_bytes: int | None,
) -> ArrayJob:
    """Rows of arrays, cut into parts."""
    arrays = [_arrays.opened(path) for path in files]
    one = scorer.inputs[0]
    axis = one.layout.index("b")
    shapes = []
    for path, array in zip(files, arrays, strict=True):
        if array.ndim != len(one.layout):
            raise ValueError(f"{path} must have {len(one.layout)} axes, got shape {array.shape}")
        if not one.indices and array.dtype.kind != "f":
            raise ValueError(f"{path} must hold floats, got {array.dtype}: astype('float32') converts them")
        shapes.append(scorer.output_shape(array.shape))
    if len(scorer.output_names) > 1:
        raise ValueError(f"the model must have one output for an array, got {list(scorer.output_names)}")
    rows_out = 1 if len(shapes[0]) == 3 and axis == 1 else 0
    if lengths is not None:
        if kind == "folder":
            raise ValueError(f"--lengths must be left out for a folder of .npy files, got {lengths}")
        told = _arrays.opened(lengths)
        if told.shape != (arrays[0].shape[axis],):
            raise ValueError(
                f"--lengths must have shape ({arrays[0].shape[axis]},), one for each row, got {told.shape}"
            )

    def bytes_of(array: Any) -> int:
        shape = shapes[next(i for i, other in enumerate(arrays) if other is array)]
        rows = max(1, array.shape[axis])
        return int((np.prod(array.shape) * array.dtype.itemsize + np.prod(shape) * 4) // rows)

    parts = _arrays.cut(arrays, axis, bytes_of, part_bytes)
    return ArrayJob(
        [str(path.resolve()) for path in files], _targets(work, files, sequences),
        None if lengths is None else str(lengths.resolve()), axis, rows_out, parts,
    )  # fmt: skip


def _targets(work: Work, files: list[Path], sequences: Path) -> list[str]:
    """Where each array is written in the folder of the work."""
    if files == [sequences]:
        return [str(work.data)]
    return [str(work.data / path.relative_to(sequences)) for path in files]


def _prepare(job: Any, work: Work, dtype: Any, shape_of: Any) -> None:
    """Make what the parts are written into, once."""
    if isinstance(job, TableJob):
        work.data.mkdir(exist_ok=True)
    elif not work.done("prepared").exists():
        for source, target in zip(job.sources, job.targets, strict=True):
            array = _arrays.opened(Path(source))
            shape = shape_of(array.shape)
            cut: list[int | None] = [None] * len(shape)
            sizes = [part.end - part.first for part in job.parts]
            if job.out_axis is not None and sizes:
                cut[job.out_axis] = max(sizes)
            _arrays.created(Path(target), shape, dtype, cut)
        put(work.done("prepared"), b"")


def _run(job: Any, function: Any, work: Work, name: str, workers: int | None, scheduler: str | None) -> None:
    """Compute the parts that are not done, and show how far all workers are."""
    numbers = range(len(job.parts))
    todo = [number for number in numbers if not work.done(number).exists()]
    with _terminal.progress(name, sum(map(job.size, numbers)), job.unit) as advance:
        advance(sum(map(job.size, set(numbers) - set(todo))))
        if workers is None and scheduler is None:
            found = _running.here(job, function, todo, work.done)
        else:
            found = _running.elsewhere(job, function, todo, work.done, workers, scheduler)
        for number in found if todo else ():
            advance(job.size(number))


# ---- sequences in parts --------------------------------------------------------------------------


def _sequence_job(
    net: Any,
    digest: str,
    work: Work,
    files: list[Path],
    sequences: Path,
    kind: str,
    columns: tuple[str, ...],
    keep: tuple[str, ...],
    part_bytes: int | None,
) -> tuple[Any, Steps]:
    """Timesteps of arrays or rows of tables, cut into parts, and what computes them."""
    if kind != "parquet":
        return _steps_job(net, digest, work, files, sequences, part_bytes)
    steps = Steps(net, 1, digest, columns, keep)

    def choose(empty: Any) -> Any:
        steps(empty)
        read = {*steps.columns_of(empty.column_names), *keep}
        return [name for name in empty.column_names if name in read]

    return _tables_of(sequences, work, choose, part_bytes), steps


def _run_sequence(job: Any, steps: Steps, work: Work, name: str, path: Path) -> None:
    """Run the parts one after the other, and keep the state in the file at `path`."""

    def shape_of(shape: tuple[int, ...]) -> tuple[int, ...]:
        rows = shape[1 if steps.time_major else 0]
        return (*shape[:2], steps.output.width) if steps.output.has_steps else (rows, steps.output.width)

    _prepare(job, work, steps.dtype, shape_of)
    numbers = range(len(job.parts))
    done = next((number for number in numbers if not work.done(number).exists()), len(numbers))
    kept = _begun(work, path, done)
    if kept is not None:
        steps.restore(path, kept)
    with _terminal.progress(name, sum(map(job.size, numbers)), "steps") as advance:
        advance(sum(map(job.size, range(done))))
        for number in range(done, len(numbers)):
            try:
                job.compute(steps, number)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{job.name(number)}: {error}") from error
            put(work.done(number), steps.saved())
            advance(job.size(number))
    put(path, steps.saved())
    work.finish()


def _begun(work: Work, path: Path, done: int) -> bytes | None:
    """The state after the parts that are done; None: there is none yet.

    Raises
    ------
    ValueError
        If the file is neither what the job began with nor what it ends with.
    """
    first = work.done("start")
    now = path.read_bytes() if path.exists() else b""
    if not first.exists():
        put(first, now)
    last = work.done(done - 1).read_bytes() if done else b""
    if now not in (first.read_bytes(), last):
        raise ValueError(f"{path} must be as it was when {work.folder} was begun: remove that to begin anew")
    return (last if done else first.read_bytes()) or None


def _steps_job(
    net: Any, digest: str, work: Work, files: list[Path], sequences: Path, part_bytes: int | None
) -> tuple[ArrayJob, Steps]:
    """Timesteps of arrays, cut into parts, and what computes them."""
    arrays = [_arrays.opened(path) for path in files]
    steps = Steps(net, _rows_of(arrays[0], net), digest, (), ())
    time, rows = (0, 1) if steps.time_major else (1, 0)
    one, out = steps.input, steps.output
    wanted = ("batch", "timesteps") if one.indices else ("batch", "timesteps", one.shape[-1])
    for path, array in zip(files, arrays, strict=True):
        fits = array.ndim == len(wanted) and array.shape[rows] == arrays[0].shape[rows]
        if not fits or (not one.indices and array.shape[2] != one.shape[-1]):
            said = str(wanted).replace("'", "")
            raise ValueError(
                f"{path} must have the shape {said}, with the batch of the first, got {array.shape}"
            )
        if array.dtype.kind not in ("iu" if one.indices else "f"):
            raise ValueError(f"{path} must hold {'integers' if one.indices else 'floats'}, got {array.dtype}")

    def bytes_of(array: Any) -> int:
        read = np.prod(array.shape) * array.dtype.itemsize // max(1, array.shape[time])
        return int(read + 4 * out.width * array.shape[rows])

    parts = _arrays.cut(arrays, time, bytes_of, part_bytes)
    targets = _targets(work, files, sequences)
    sources = [str(path.resolve()) for path in files]
    return ArrayJob(sources, targets, None, time, time if out.has_steps else None, parts), steps


def _rows_of(array: Any, net: Any) -> int:
    """The sequences side by side of an array."""
    axis = 1 if not isinstance(net, fastgru.Model) and net.time_major else 0
    return int(array.shape[axis]) if array.ndim > axis else 1
