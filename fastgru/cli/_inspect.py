"""`fastgru inspect`: the layers of a file, a line each."""

from pathlib import Path
from typing import Any

import click

import fastgru
from fastgru import activations
from fastgru._core import Plan
from fastgru.cli import _model, _terminal

COLUMNS = (
    "name", "units", "features", "reset", "activations", "direction", "axes", "dtype", "parameters",
    "bytes packed",
)  # fmt: skip
MEASURED = ("engine", "us per step")


@click.command(short_help="List the GRU layers in a file.")
@_model.argument
@click.option(
    "--measure", is_flag=True, help="Also the engine, and the microseconds that a step of one row takes."
)
def inspect(model: Path, measure: bool) -> None:
    """A table of the GRU layers in MODEL.

    "reset" says whether the reset gate is applied after or before the recurrent product; "activations" are
    those of the state and of the gates; "axes" is the order that 'fastgru run' wants the input to have;
    "bytes packed" is the size of the weights as the engine reads them.

    \b
    Examples:
      fastgru inspect model.keras
      fastgru inspect --measure model.onnx
    """
    rows = []
    for name, layer in _model.named(model, None, stateful=False).items():
        parts = layer.layers if isinstance(layer, fastgru.Stack) else [layer]
        for part in parts:
            shown = name if part is layer else f"{name}: {part.name}"
            rows.append([*facts(shown, part), *(measured(part) if measure else ())])
    _terminal.table(COLUMNS + MEASURED if measure else COLUMNS, rows, str(model))


def facts(name: str, layer: Any) -> list[object]:
    """What `COLUMNS` names, of a GRU or a Bidirectional."""
    grus = layer._parts
    first = grus[0]
    if isinstance(layer, fastgru.Bidirectional):
        direction = f"both, {layer.merge_mode or 'apart'}"
    else:
        direction = "backward" if first.go_backwards else "forward"
    plans = [gru._plan for gru in grus]
    packed = sum(plan.nbytes for plan in plans if isinstance(plan, Plan))
    return [
        name,
        first.units,
        _model.features(layer),
        "after" if first.reset_after else "before",
        f"{_name(first.activation)}, {_name(first.recurrent_activation)}",
        direction,
        "time, batch" if layer.time_major else "batch, time",
        first.dtype
        if first.weights_dtype == first.dtype
        else f"{first.dtype}, weights {first.weights_dtype}",
        layer.count_params(),
        packed or None,
    ]


def _name(activation: object) -> str:
    """An activation as a config names it, with its parameters if it has some."""
    named = activations.serialize(activation)
    if isinstance(named, dict):
        parameters = ", ".join(f"{key}={value:.6g}" for key, value in named["config"].items())
        return f"{named['class_name']}({parameters})"
    return str(named)


def measured(layer: Any) -> list[object]:
    """What `MEASURED` names."""
    from fastgru.cli._measure import microseconds_per_step

    plan = layer._parts[0]._plan
    engine = f"{plan.engine}, {plan.isa}" if isinstance(plan, Plan) else "Python"
    return [engine, microseconds_per_step(layer)]
