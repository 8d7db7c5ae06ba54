"""GRU nodes of ONNX, and loops that are GRUs, as nodes of a network."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastgru._nodes import Concatenate, Identity, Recurrent, Slice
from fastgru.formats import onnx
from fastgru.formats._onnx_build import Operator
from fastgru.formats._onnx_layouts import Axis, OperatorError, Steps, Tracked, said
from fastgru.formats._onnx_loop import Found
from fastgru.formats._onnx_node import DIRECTIONS, Node

Outputs = Sequence[Tracked | None]


def gru(of: Operator, is_used: Any, lengths: Tracked | None) -> Outputs:
    """In any direction. sequence_lens may be an input of the model, and initial_h any value.

    Parameters
    ----------
    of : Operator
    is_used : callable
        True of the name of an output that is read.
    lengths : Tracked or None
        The input of the model that has the timesteps of each row, if it has one.
    """
    x = of.value(0, turned=True)
    node = Node(of.inside.prefix + (of.node.name or "gru"), of.node, of.inside, is_used)
    attributes = node.attributes()
    batch_first = bool(attributes["layout"])
    x = _checked(x, ("b", "t", "f") if batch_first else ("t", "b", "f"))
    initial = of.inputs[5] if of.has(5) else None
    if isinstance(initial, Tracked):
        initial = of.value(5)
    has_lengths = _has_lengths(of, node, x, batch_first, lengths)
    if not has_lengths and lengths is not None:
        x = of.like(Identity, x, passes_mask=False)
    has_y, has_y_h = node.outputs()
    both = has_y and has_y_h
    given: dict[str, Any] = {
        "return_sequences": has_y,
        "return_state": both,
        "zero_output_for_mask": True,
        "time_major": False,
        "dtype": of.builder.dtype,
    }
    if of.builder.weights_dtype is not None:
        given["weights_dtype"] = of.builder.weights_dtype
    if x.turned:
        if attributes["direction"] != b"forward" or has_lengths:
            raise OperatorError("its X is reversed in time, and it goes backwards itself")
        given["go_backwards"] = True
        x = x._replace(turned=False)
    layer = onnx.layer_of(node, of.builder.folder, given)
    directions = len(layer._parts)
    units = layer._parts[0].units
    starts = [] if not isinstance(initial, Tracked) else _starts(of, initial, directions, units, batch_first)
    in_order = DIRECTIONS[attributes["direction"].decode()] == [True]
    width = directions * units
    outputs: list[tuple[Sequence[Axis], int, Steps | None]] = []
    if has_y:
        outputs.append((("b", "t", "f"), width, x.steps))
    if both or not has_y:
        outputs += [(("b", "f"), units, None)] * directions if both else [(("b", "f"), width, None)]
    made = of.add_all(Recurrent, [x, *starts], outputs, layer=layer, in_order=in_order)
    y, states = (made[0] if has_y else None), made[1 if has_y else 0 :]
    state = None
    if states:
        whole = states[0]
        if len(states) > 1:
            whole = of.add(Concatenate, states, ("b", "f"), width, None)
        axes: tuple[Axis, ...] = ("b", directions, "f") if batch_first else (directions, "b", "f")
        state = whole._replace(axes=axes, width=units)
    if y is not None:
        y = y._replace(
            axes=("b", "t", directions, "f") if batch_first else ("t", directions, "b", "f"), width=units
        )
    return y, state


def _checked(x: Tracked, wanted: tuple[Axis, ...]) -> Tracked:
    """x, which must have the wanted axes. An axis of size 1 may stand for the batch."""
    x = x.featured(2) if len(x.axes) == 3 else x
    axes = tuple("b" if axis == 1 and "b" not in x.axes else axis for axis in x.axes)
    if axes != wanted or x.groups > 1 or x.steps is None:
        names = ", ".join(said(axis) for axis in x.axes)
        raise OperatorError(f"its X must have the axes {', '.join(map(said, wanted))}, got {names}")
    return x


def _has_lengths(of: Operator, node: Node, x: Tracked, batch_first: bool, lengths: Tracked | None) -> bool:
    """True if sequence_lens is the input of the model that has the lengths."""
    if not of.has(4):
        return False
    given = of.inputs[4]
    if isinstance(given, Tracked):
        if lengths is None or given.name != lengths.name:
            raise OperatorError("its sequence_lens must be an input of the model")
        if x.steps is None or x.steps.name != of.builder.first or x.steps.windows:
            raise OperatorError("its sequence_lens must count timesteps of the model's first input")
        return True
    folder = of.builder.folder
    for sizes in of.builder.worlds:
        found = folder.value(of.sources[4], sizes)
        assert x.steps is not None
        if not isinstance(found, np.ndarray) or (found != x.steps.count(sizes)).any():
            raise OperatorError("its sequence_lens must be an input of the model, or the number of timesteps")
    return False


def _starts(of: Operator, initial: Tracked, directions: int, units: int, batch_first: bool) -> list[Tracked]:
    """The initial state of each direction, of a value with the axes of initial_h."""
    wanted = ("b", directions, "f") if batch_first else (directions, "b", "f")
    axes = tuple("b" if axis == 1 and "b" not in initial.axes else axis for axis in initial.axes)
    if axes != wanted or initial.width != units:
        names = ", ".join(said(axis) for axis in initial.axes)
        raise OperatorError(f"its initial_h must be {directions} states of {units} units, got {names}")
    if directions == 1:
        return [initial]
    return [
        of.add(Slice, [initial], ("b", "f"), units, None, start=d * units, stop=(d + 1) * units)
        for d in range(directions)
    ]


def loop(of: Operator, found: Found, x: Tracked, initial: Tracked | None) -> dict[str, Tracked]:
    """A GRU of Keras as tf2onnx writes it, without a mask.

    Returns what it writes, by name.
    """
    axes: tuple[Axis, ...] = ("t", "b", "f") if found.is_time_major else ("b", "t", "f")
    x = _checked(x, axes)
    if found.zero_output is not None:
        raise OperatorError("it has a mask, which is computed in the graph")
    given: dict[str, Any] = {"time_major": False, "dtype": of.builder.dtype}
    if of.builder.weights_dtype is not None:
        given["weights_dtype"] = of.builder.weights_dtype
    layer: Any = found.layer(of.builder.folder, given)
    units = layer.units
    outputs: list[tuple[Sequence[Axis], int, Steps | None]] = []
    if found.y:
        outputs.append((axes, units, x.steps))
    if found.y_h:
        outputs.append((("b", "f"), units, None))
    starts = [] if initial is None else [initial]
    made = of.add_all(Recurrent, [x, *starts], outputs, layer=layer)
    names = [name for name, wanted in zip(found.names, (found.y, found.y_h), strict=True) if wanted]
    return dict(zip(names, made, strict=True))
