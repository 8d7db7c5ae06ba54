"""Loops of ONNX that are a GRU: those that tf2onnx writes where its GRU node does not do what Keras does."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from fastgru._errors import FormatError
from fastgru.formats import _model, _onnx_cell, _onnx_graph, _onnx_state, _onnx_steps
from fastgru.formats._model import Arguments, Layer
from fastgru.formats._onnx_body import Body
from fastgru.formats._onnx_cell import Cell, Choice, Counter, Fixed, Gates, Going, State
from fastgru.formats._onnx_fold import Folder
from fastgru.formats._onnx_graph import Alias
from fastgru.formats._onnx_node import Node

SCAN = 9  # the opset since which Scan is what it is
LISTS = ("scan_input_axes", "scan_input_directions", "scan_output_axes", "scan_output_directions")
MOST = 8  # values that it changes, and sequences that it reads and returns, at most


class Found(NamedTuple):
    """A loop that is a GRU.

    Attributes
    ----------
    node : Node
    gates : Gates
        Of its cell.
    initial : Output, Given, Alias, onnx.TensorProto or None
        The first state.
    is_backward, is_time_major : bool
    zero_output : bool or None
        True if outputs are zeros where the mask is false; None if there is no mask, or no output.
    y, y_h : bool
        Which of the sequence and the last state it returns, as far as they are used.
    names : tuple of (str, str)
        Of both, empty where there is none.
    sequence : Output, Given or onnx.TensorProto
        What it reads.
    """

    node: Node
    gates: Gates
    initial: Any
    is_backward: bool
    is_time_major: bool
    zero_output: bool | None
    y: bool
    y_h: bool
    names: tuple[str, str]
    sequence: Any

    def layer(self, folder: Folder, given: Arguments) -> Layer:
        """The layer that it is; `given` are the caller's arguments."""
        arrays = _onnx_cell.arrays(self.gates, folder)
        (state,) = _onnx_state.of_value(self.initial, folder, 1, self.gates.units, None)
        arguments = {
            "name": self.node.name,
            "use_bias": len(arrays) > 2,
            "reset_after": self.gates.reset_after,
            "activation": self.gates.activation,
            "recurrent_activation": self.gates.recurrent_activation,
            "return_sequences": self.y,
            "return_state": self.y and self.y_h,
            "time_major": self.is_time_major,
            "go_backwards": self.is_backward,
            "default_state": state,
        }
        if self.zero_output is not None:
            arguments["zero_output_for_mask"] = self.zero_output
        return _model.gru(arrays, arguments | dict(given))


def find(node: Node, folder: Folder) -> Found:
    """The GRU that a loop is.

    Raises
    ------
    FormatError
        If it is none, or is not known to be one; the message goes on after the loop's name.
    """
    loop = _Loop(node, folder)
    state, cell, mask, previous = loop.state()
    y, zero_output = loop.sequence(cell, mask, previous)
    gates = _onnx_cell.gates(cell)
    sequence, is_turned = _onnx_steps.forward(gates.step.sequence, gates.features, folder)
    loop.check_trips(sequence, gates.features)
    if mask is not None:
        of_mask, is_mask_turned = _onnx_steps.forward(mask.sequence, 1, folder)
        _onnx_steps.check_mask(of_mask, folder)
        if is_mask_turned != is_turned:
            raise FormatError("its mask and its sequence are read in opposite directions")
    if is_turned and loop.is_backward:
        raise FormatError("its sequence is reversed twice")
    used = [bool(name) and node.is_used(name) for name in (y, loop.returned[state])]
    if not any(used):
        used = [bool(y), not y]
    is_backward = is_turned or loop.is_backward
    return Found(
        node,
        gates,
        loop.initial[state],
        is_backward,
        loop.is_time_major,
        zero_output,
        used[0],
        used[1],
        (y, loop.returned[state]),
        sequence,
    )


class _Loop:
    """A loop, taken apart.

    Attributes
    ----------
    initial : list
        What it carries first.
    returned : list of str
        Names of what it carries last.
    is_time_major, is_backward : bool
        Of a Scan, which says so.
    """

    def __init__(self, node: Node, folder: Folder) -> None:
        self._node, self._folder = node, folder
        proto, scope = node.proto, node.inside.scope
        if id(proto) not in node.inside.bodies:
            raise FormatError("it has no body")
        _, inside = node.inside.bodies[id(proto)]
        self._is_scan = proto.op_type == "Scan"
        if self._is_scan and node.inside.opset < SCAN:
            raise FormatError(f"a Scan is read from opset {SCAN} on, got {node.inside.opset}")
        first, returned, count = _onnx_graph.carried(proto)
        inputs, outputs = [
            [value.name for value in each] for each in (inside.graph.input, inside.graph.output)
        ]
        wanted = (max(len(proto.input), first), returned + len(proto.output))
        if (len(inputs), len(outputs)) != wanted or len(proto.output) < count:
            raise FormatError(
                f"its body must have {wanted} inputs and outputs, has {len(inputs), len(outputs)}"
            )
        self._values = inside.scope.maps[0]
        self._inputs, self._condition = inputs[first : first + count], outputs[:returned]
        self._after, self._written = outputs[returned : returned + count], outputs[returned + count :]
        self.initial = [scope.get(name) for name in proto.input[first : first + count]]
        self.returned = [*proto.output[:count]]
        self._sequences = [*proto.output[count:]]
        changed = [name for name in self._inputs if not isinstance(self._values.get(name), Alias)]
        numbers = len(changed), len(inputs) - first - count, len(self._written)
        if max(numbers) > MOST:
            raise FormatError(
                f"it changes {numbers[0]} values, reads {numbers[1]} sequences and returns {numbers[2]}, "
                f"which must be at most {MOST} each"
            )
        self._body = Body(inside, folder)
        self._note_axes()
        known = self._body.known
        if not self._is_scan:
            known |= {inputs[0]: Counter(0), inputs[1]: Going()}
        for number, (name, initial) in enumerate(zip(self._inputs, self.initial, strict=True)):
            if isinstance(self._values.get(name), Alias):
                known[name] = Fixed(_onnx_graph.find(inside.scope, name))
            else:
                known[name] = Counter(0) if self._is_integer_zero(initial) else State(number)
        for name, of in zip(inputs[first + count :], proto.input[first + count :], strict=True):
            known[name] = self._body.step(_onnx_graph.find(scope, of))

    def _note_axes(self) -> None:
        """Note the axes of a Scan, and which way it goes."""
        given = self._folder.attributes(self._node.proto, self._node.inside)
        lists = {name: [*given[name].ints[:MOST]] if name in given else [0] for name in LISTS}
        axes = {*lists["scan_input_axes"], *(lists["scan_output_axes"] if self._written else [])}
        directions = {*lists["scan_input_directions"]}
        if len(axes) != 1 or not axes <= {0, 1} or len(directions) != 1 or not directions <= {0, 1}:
            raise FormatError(f"its sequences must have one axis and one direction, got {lists!s:.200}")
        if not {*lists["scan_output_directions"]} <= {0, *directions}:
            raise FormatError("it goes forward, but returns sequences backward")
        self.is_time_major, self.is_backward = axes == {0}, directions == {1}

    def _is_integer_zero(self, initial: Any) -> bool:
        """True of the number 0, from which a counter counts."""
        found = self._folder.value(initial)
        return (
            isinstance(found, np.ndarray) and (found.dtype.kind, found.shape) == ("i", ()) and not found.any()
        )

    # ---- what it carries and returns

    def state(self) -> tuple[int, Cell, Any, int | None]:
        """The number of the state, its cell, the mask, and the number of what it returned before."""
        after: dict[int, Any] = {}
        for number, (name, last) in enumerate(zip(self._inputs, self._after, strict=True)):
            if isinstance(self._values.get(name), Alias):
                continue
            meaning = self._body.meaning(last)
            if isinstance(self._body.known[name], State):
                after[number] = meaning
            elif not isinstance(meaning, Counter) or meaning.more != 1:
                raise FormatError(f"it carries {name!r:.80}, which begins with 0, but does not count steps")
        found = [(number, *cell) for number, value in after.items() if (cell := _cell(number, value))]
        if len(found) != 1:
            raise FormatError(f"it must carry one state of a GRU cell, carries {len(found)}")
        ((state, cell, mask),) = found
        others = [number for number in after if number != state]
        for number in others:
            if not self._is_output(after[number], cell, mask, number) or not self._is_zero(
                self.initial[number]
            ):
                raise FormatError(f"it carries {self._inputs[number]!r:.80} besides the state of a GRU cell")
            if self.returned[number] and self._node.is_used(self.returned[number]):
                raise FormatError("its last output is used as a value that it carries")
        if len(others) > 1:
            raise FormatError("it carries two outputs besides the state of a GRU cell")
        return state, cell, mask, others[0] if others else None

    def sequence(self, cell: Cell, mask: Any, previous: int | None) -> tuple[str, bool | None]:
        """The name of the sequence that it returns, and whether that is zeros where the mask is not true."""
        y, zeros = "", set()
        for name, value in zip(self._sequences, self._written, strict=True):
            meaning = self._body.meaning(value)
            if not self._is_output(meaning, cell, mask, previous):
                raise FormatError(f"it returns {name!r:.80}, which is not the sequence of its cell's outputs")
            if mask is not None:
                zeros.add(not isinstance(meaning.old, State))
            if name and (not y or self._node.is_used(name)):
                y = name
        if len(zeros) > 1:
            raise FormatError("it returns two sequences that differ where the mask is not true")
        return y, zeros.pop() if zeros else None

    def _is_output(self, value: Any, cell: Cell, mask: Any, previous: int | None) -> bool:
        """True of what a cell returns: its state, and where the mask is not true the one before, or zeros."""
        if mask is None:
            return value is cell
        match value:
            case Choice(step, new, State(number)) if step is mask and new is cell:
                return number == previous
            case Choice(step, new, Fixed(old)) if step is mask and new is cell:
                return self._is_zero(old)
        return False

    def check_trips(self, sequence: Any, features: int) -> None:
        """Refuse a Loop that does not run as often as a sequence has steps; a Scan does."""
        if not self._is_scan:
            going = self._body.meaning(self._condition[0])
            node = self._node
            _onnx_steps.check_trips(node.proto, node.inside.scope, going, sequence, features, self._folder)

    def _is_zero(self, value: Any) -> bool:
        """True of zeros, of whatever sizes."""
        made = [self._folder.value(value, sizes) for sizes in self._folder.batches]
        return all(_onnx_steps.is_all(found, 0, self._folder) for found in made)


def _cell(number: int, value: Any) -> Any:
    """The cell and the mask, or None, of a carried value that is a cell's state; None of another one."""
    match value:
        case Cell(_, _, State(own)) if own == number:
            return value, None
        case Choice(mask, Cell(_, _, State(own)) as cell, State(kept)) if own == kept == number:
            return cell, mask
    return None


def refuse(node: Node, reason: str, *, has_others: bool) -> None:
    """Warn, or raise an error, that a file has a loop that is not read, which may be a GRU or a part of one.

    Parameters
    ----------
    node : Node
        The loop.
    reason : str
        Why it is not read.
    has_others : bool
        True if the file has a GRU that is read: then this is a warning.

    Raises
    ------
    FormatError
        Names the loop, says why it is not read, and what to load instead.
    """
    kind = node.proto.op_type
    if has_others:
        warnings.warn(f"{node.name:.80}: a {kind} that is not read as a GRU: {reason}", stacklevel=2)
        return
    raise FormatError(
        f"it has no GRU node, but a {kind}, {node.name!r:.80}, as tf2onnx writes Keras' GRU with "
        f"reset_after=False, hard_sigmoid or a mask; it is not read, because {reason}: load the .keras or "
        ".h5 file that it was made from"
    )
