"""`fastgru bench`: a file's layers on this machine, next to other runtimes and to what the machine allows."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastgru import _roofline
from fastgru.cli import _measure, _model, _terminal
from fastgru.cli._files import Array, appearing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Makers = Mapping[str, Callable[[_model.Layer, int, int], _measure.Call]]

ROUNDS = 10  # blocks of each contender, in turns
OURS = "fastgru"


def bench(
    model: Path, layer: str | None, batches: tuple[int, ...], seconds: float, plot: Path | None
) -> None:
    """Print the tables, and draw them."""
    layers = _model.named(model, layer, **_model.RETURNING_ALL)
    if plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise ImportError("matplotlib is needed to draw: pip install matplotlib")
    figures = sum(_measure.streams(each) + len(batches) for each in layers.values())
    found = {}
    with _terminal.progress("measuring", figures * ROUNDS, "rounds") as tick:
        for name, each in layers.items():
            found[name] = measured(each, batches, seconds, tick)
    for name, report in found.items():
        columns, rows = table(report)
        _terminal.table(columns, rows, f"{model}: {name}")
        for contender, reason in report.left_out.items():
            print(f"without {contender}: {reason}")
    if plot is not None:
        draw(found, plot, model.name)


# ---- the contenders --------------------------------------------------------------------------------
#
# Each makes a call of a layer over batch x timesteps, or for timesteps=0 a step of a stream.


def _ours(layer: _model.Layer, batch: int, timesteps: int) -> _measure.Call:
    return _measure.sequence(layer, batch, timesteps) if timesteps else _measure.step(layer)


def _onnxruntime(layer: _model.Layer, batch: int, timesteps: int) -> _measure.Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, too
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = layer.to_onnx(initial_state=True).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    x, _ = _inputs(layer, batch, timesteps or 1)
    shapes = {each.name: each.shape for each in session.get_inputs() if each.name != "X"}
    before = {name: np.zeros((shape[0], batch, shape[2]), x.dtype) for name, shape in shapes.items()}
    after = {name: np.empty_like(array) for name, array in before.items()}
    y = np.empty((timesteps or 1, *list(before.values())[-1].shape), x.dtype)

    def bound(starts: Mapping[str, Array], ends: Mapping[str, Array]) -> Any:
        binding = session.io_binding()
        outputs = {"Y": y} | {name.replace("initial_h", "Y_h"): array for name, array in ends.items()}
        for bind, arrays in ((binding.bind_input, {"X": x, **starts}), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return binding

    there = bound(before, after)
    turns = itertools.cycle([there] if timesteps else [there, bound(after, before)])
    kept = x, before, after, y  # bound by their addresses

    def call() -> object:
        session.run_with_iobinding(next(turns))
        return kept

    return call


def _torch(layer: _model.Layer, batch: int, timesteps: int) -> _measure.Call:
    import torch

    from fastgru.cli import _pytorch

    torch.set_num_threads(1)
    module = _pytorch.module(layer.to_torch_state_dict(), batch_first=False)
    dtype = module.weight_ih_l0.dtype  # a float16 layer's is float32
    x, h = (torch.from_numpy(array).to(dtype) for array in _inputs(layer, batch, timesteps or 1))

    def call() -> object:
        nonlocal h
        with torch.inference_mode():
            y, after = module(x, h)
        if not timesteps:
            h = after
        return y

    return call


def _inputs(layer: _model.Layer, batch: int, timesteps: int) -> tuple[Array, Array]:
    """Inputs (timesteps, batch, features) and states (GRUs, batch, units), time-major as others have them."""
    x = np.random.default_rng(0).standard_normal((timesteps, batch, _model.features(layer)))
    parts = layer._parts
    return x.astype(parts[0].dtype), np.zeros((len(parts), batch, parts[0].units), parts[0].dtype)


CONTENDERS: Makers = {OURS: _ours, "onnxruntime": _onnxruntime, "torch": _torch}


# ---- measuring -------------------------------------------------------------------------------------


class Figure(NamedTuple):
    """A layer called in one way.

    Attributes
    ----------
    batch, timesteps : int
        timesteps 0: a step of a stream.
    microseconds : dict of ndarray
        Of each call, by contender.
    least : ndarray
        Microseconds that the machine allows, for each round.
    """

    batch: int
    timesteps: int
    microseconds: dict[str, Array]
    least: Array

    def percentile(self, contender: str, share: float) -> float:
        """This percentile of the microseconds of the calls."""
        return float(np.percentile(self.microseconds[contender], share))

    def steps_per_second(self, contender: str) -> float:
        """Rows times steps."""
        return 1e6 * self.batch * max(1, self.timesteps) / self.percentile(contender, 50)

    def of_roofline(self, contender: str) -> float:
        """Share of what the machine allows."""
        return float(np.median(self.least)) / self.percentile(contender, 50)


class Report(NamedTuple):
    """A layer in all ways."""

    figures: list[Figure]
    left_out: dict[str, str]  # contenders and reasons


def measured(
    layer: _model.Layer,
    batches: Sequence[int],
    seconds: float,
    tick: Callable[[int], None] = lambda done: None,
    contenders: Makers = CONTENDERS,
) -> Report:
    """Measure a step of a stream, if the layer has one, and calls over `_measure.STEPS` of this many rows.

    Parameters
    ----------
    layer : GRU, Bidirectional or Stack
        Returning sequences and states, not stateful.
    batches : sequence of int
    seconds : float
        For all blocks of a contender in one figure.
    tick : callable
        Called with 1 after each round.
    contenders : mapping of str to callable
    """
    ways = [(1, 0)] * _measure.streams(layer) + [(batch, _measure.STEPS) for batch in batches]
    figures, left_out = [], {}
    for batch, timesteps in ways:
        calls = {}
        for name, make in contenders.items():
            if name != OURS and importlib.util.find_spec(name) is None:
                left_out[name] = f"it is not installed: pip install {name}"
                continue
            try:
                calls[name] = make(layer, batch, timesteps)
                calls[name]()
            except Exception as error:  # whatever a library raises
                if name == OURS:
                    raise
                left_out[name] = " ".join(str(error).split())[:300]
                calls.pop(name, None)
        figures.append(_raced(layer, batch, timesteps, calls, seconds, tick))
    return Report(figures, left_out)


def _raced(
    layer: _model.Layer,
    batch: int,
    timesteps: int,
    calls: Mapping[str, _measure.Call],
    seconds: float,
    tick: Callable[[int], None],
) -> Figure:
    """Alternating blocks, with another contender first in each round."""
    nanoseconds: dict[str, list[int]] = {name: [] for name in calls}
    least = []
    for turn in range(ROUNDS):
        least.append(least_microseconds(layer, batch, timesteps))
        order = list(calls)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            nanoseconds[name] += _measure.block(calls[name], seconds / ROUNDS)
        tick(1)
    times = {name: 1e-3 * np.array(each) for name, each in nanoseconds.items()}
    return Figure(batch, timesteps, times, np.array(least))


def least_microseconds(layer: _model.Layer, batch: int, timesteps: int) -> float:
    """What the machine allows now: the sum over the layer's GRUs.

    In a stream's step all read their weights one after the other; in a call each reads its own at every step.
    """
    works = [
        _roofline.Work(
            batch,
            max(1, timesteps),
            part.weights[0].shape[0],
            part.units,
            part._compute_dtype.itemsize,
            np.dtype(part.weights_dtype).itemsize,
        )
        for part in layer._parts
    ]
    together = sum(work.bytes for work in works)
    sizes = [work.bytes if timesteps else together for work in works]
    limits = _roofline.measure(sizes)
    return sum(limits.least(work, size) for work, size in zip(works, sizes, strict=True))


# ---- showing ---------------------------------------------------------------------------------------


def table(report: Report) -> tuple[tuple[str, ...], list[list[object]]]:
    """Columns and rows: a row for each contender in each way."""
    columns = ("rows x steps", "runtime", "p50 us", "p99 us", "steps/s", "roofline", "x fastgru")
    rows = [list[object](row) for figure in report.figures for row in _rows(figure)]
    return columns, rows


def _rows(figure: Figure) -> Iterator[tuple[object, ...]]:
    shape = f"{figure.batch} x {figure.timesteps}" if figure.timesteps else "1, a stream's step"
    for name in figure.microseconds:
        yield (
            shape,
            name,
            figure.percentile(name, 50),
            figure.percentile(name, 99),
            figure.steps_per_second(name),
            f"{100 * figure.of_roofline(name):.0f} %",
            figure.percentile(name, 50) / figure.percentile(OURS, 50),
        )


def draw(reports: Mapping[str, Report], path: Path, title: str) -> None:
    """A row of pictures for each layer: the time of a step or call, and the steps in a second by batch."""
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(11, 0.6 + 3.2 * len(reports)), layout="constrained")
    picture.suptitle(f"{title}, one thread", parse_math=False)
    axes = picture.subplots(len(reports), 2, squeeze=False)
    for (left, right), (name, report) in zip(axes, reports.items(), strict=True):
        _draw_latency(left, report.figures[0], name)
        _draw_throughput(right, [figure for figure in report.figures if figure.timesteps], name)
    with appearing(path) as file:
        picture.savefig(file, format=path.suffix[1:], dpi=150)


def _draw_latency(ax: Axes, figure: Figure, name: str) -> None:
    for i, contender in enumerate(figure.microseconds):
        p50, p99 = figure.percentile(contender, 50), figure.percentile(contender, 99)
        ax.plot([p50, p99], [i, i], color=f"C{i}")
        ax.plot(p50, i, "o", color=f"C{i}", markersize=9)
        ax.plot(p99, i, "|", color=f"C{i}", markersize=14)
        for time, side, color in ((p50, "right", "0"), (p99, "left", "0.4")):  # which may be close
            text = _terminal.text(time)
            ax.annotate(text, (time, i), (0, 9), textcoords="offset points", ha=side, color=color)
    ax.axvline(float(np.median(figure.least)), color="0.4", linestyle="--", label="roofline")
    ax.set_xscale("log")
    ax.margins(x=0.1)
    ax.set_yticks(range(len(figure.microseconds)), list(figure.microseconds))
    ax.set_ylim(len(figure.microseconds) - 0.4, -0.6)
    what = f"a call of {figure.batch} x {figure.timesteps}" if figure.timesteps else "a stream's step"
    ax.set_title(f"{name}: {what}, p50 and p99", parse_math=False)
    ax.set_xlabel("microseconds")
    ax.legend(loc="lower right")


def _draw_throughput(ax: Axes, figures: Sequence[Figure], name: str) -> None:
    batches = [figure.batch for figure in figures]
    for i, contender in enumerate(figures[0].microseconds):
        ax.plot(
            batches, [f.steps_per_second(contender) for f in figures], "o-", color=f"C{i}", label=contender
        )
    roof = [1e6 * f.batch * f.timesteps / float(np.median(f.least)) for f in figures]
    ax.plot(batches, roof, "--", marker="_", markersize=14, color="0.4", label="roofline")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(batches, [str(batch) for batch in batches])
    ax.set_title(f"{name}: calls of {figures[0].timesteps} steps", parse_math=False)
    ax.set_xlabel("rows")
    ax.set_ylabel("steps per second")
    ax.grid(visible=True, which="both", alpha=0.2)
    ax.legend()
