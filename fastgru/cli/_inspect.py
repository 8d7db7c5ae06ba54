"""`fastgru inspect`: the layers of a file, a line each."""

from pathlib import Path
from typing import Any

import fastgru
from fastgru import activations, formats
from fastgru._plans import Plan
from fastgru.cli import _model, _terminal

COLUMNS = (
    "name", "units", "features", "reset", "activations", "direction", "axes", "dtype", "parameters",
    "bytes packed",
)  # fmt: skip
MEASURED = ("engine", "us per step")


def inspect(model: Path, measure: bool) -> None:
    """Print the table, and what else the file has that cannot be loaded."""
    found = formats.find(model, stateful=False)
    if not found.layers:
        raise next(iter(found.errors.values()), _model.without_config(model, None))
    rows: list[list[object]] = []
    for name, layer in found.layers.items():
        parts = layer.layers if isinstance(layer, fastgru.Stack) else [layer]
        for part in parts:
            shown = name if part is layer else f"{name}: {part.name}"
            rows.append([*facts(shown, part), *(measured(part) if measure else ())])
    columns = COLUMNS + MEASURED if measure else COLUMNS
    for name in found.bare:
        told = {"name": name, "activations": "not in the file"}
        rows.append([told.get(column) for column in columns])
    _terminal.table(columns, rows, str(model))
    for name, error in found.errors.items():
        reason = str(error).removeprefix(f"{model}: ")
        print(_terminal.printable(f"{name} cannot be loaded: {reason}"))


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
