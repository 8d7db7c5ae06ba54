"""What nodes mean in a GRU cell: one rule for each operator. A node that fits no rule is refused."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError
from fastgru.formats import _onnx_activation, _onnx_graph
from fastgru.formats._onnx_cell import (
    Applied,
    Below,
    Cell,
    Choice,
    Counter,
    Fixed,
    Flag,
    Kept,
    Line,
    Masked,
    New,
    Ones,
    Rest,
    State,
    Step,
    Sum,
    Term,
)
from fastgru.formats._onnx_fold import Folder
from fastgru.formats._onnx_graph import Output, said

Array = NDArray[Any]

COUNTING = (1, 6, 7, 11)  # types of tensors: float32, int32, int64, float64
TERMS = 3  # of a sum, at most
MAX = float(np.finfo(np.float32).max)
PARTS = 3  # of what is split, and of other lists, at most


class Rules:
    """Tells what nodes do.

    Parameters
    ----------
    folder : Folder
        Of constants.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._steps: dict[Any, Step] = {}

    def step(self, sequence: Any) -> Step:
        """The step of a sequence, which is one and the same however often it is read."""
        of_node = isinstance(sequence, Output)
        key = (id(sequence.node), id(sequence.inside), sequence.number) if of_node else id(sequence)
        return self._steps.setdefault(key, Step(sequence))

    def of_node(self, inputs: Sequence[Any], value: Output) -> Any:
        """What an output of a node is of inputs that are not all fixed.

        Raises
        ------
        FormatError
            If it is nothing that a GRU cell has.
        """
        node, found = value.node, None
        if node.domain in _onnx_graph.STANDARD and (value.number == 0 or node.op_type == "Split"):
            given = self._folder.attributes(node, value.inside)
            rule = RULES.get(node.op_type)
            if rule is not None:
                found = rule(self, inputs, given, value)
            elif len(inputs) == 1 and isinstance(inputs[0], Sum | Applied):
                function = _onnx_activation.of_operator(node.op_type, given)
                found = None if function is None else Applied(function, inputs[0])
        if found is None:
            raise FormatError(f"{said(node)} does nothing that a GRU cell does")
        return found

    def array(self, found: Any) -> Array | None:
        """The array of floats or integers that a value is in every step, or None."""
        if not isinstance(found, Fixed):
            return None
        array = self._folder.value(found.value)
        return array if isinstance(array, np.ndarray) and array.dtype.kind in "fi" else None

    def number(self, found: Any) -> float | None:
        """The number, in the range of float32, that a value is in every step, or None."""
        array = self.array(found)
        if array is None or array.size != 1 or array.ndim > 1:
            return None
        number = float(array.item())
        return number if abs(number) <= MAX else None

    def integers(self, found: Any) -> list[int] | None:
        """The few integers that something is in every step, or None."""
        array = self.array(found)
        if array is None or array.dtype.kind != "i" or array.ndim > 1 or array.size > PARTS:
            return None
        return [int(number) for number in array.ravel()]

    # ---- rules, one of each operator: None if it is nothing that a cell does

    def same(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        return inputs[0]

    def cast(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        if isinstance(inputs[0], Step):
            return Flag(inputs[0], inverted=False)
        if isinstance(inputs[0], Counter) and ("to" not in given or given["to"].i not in COUNTING):
            return None
        return inputs[0] if isinstance(inputs[0], Counter | Flag) else None

    def opposite(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        match inputs:
            case [Step() as step]:
                return Flag(step, inverted=True)
            case [Flag(step, inverted)]:
                return Flag(step, not inverted)
        return None

    def gather(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        match inputs:
            case [Fixed(sequence), Counter(0)] if "axis" not in given or given["axis"].i == 0:
                return self.step(sequence)
        return None

    def less(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        match inputs:
            case [Counter(more), Fixed(bound)]:
                return Below(more, (bound,))
        return None

    def greater(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        return self.less(inputs[::-1], given, value)

    def both(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        match inputs:
            case [Below(a, first), Below(b, second)] if a == b and len(first + second) <= PARTS:
                return Below(a, first + second)
        return None

    def product(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        """Of MatMul."""
        match inputs:
            case [(Step() | State() | Kept()) as of, Fixed() as right]:
                matrix = self.array(right)
                if matrix is not None and matrix.ndim == 2 and matrix.dtype.kind == "f" and matrix.size:
                    return Sum((Term(of, matrix),))
        return None

    def gemm(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        scales = [given[key].f for key in ("alpha", "beta") if key in given]
        if any(scale != 1 for scale in scales) or ("transA" in given and given["transA"].i):
            return None
        found = self.product(inputs[:2], given, value)
        if "transB" in given and given["transB"].i and found is not None:
            found = Sum((Term(found.terms[0].of, found.terms[0].matrix.T),))
        return found if found is None or len(inputs) == 2 else self.added(found, inputs[2])

    def add(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        if len(inputs) != 2:
            return None
        found = self.added(*inputs)
        return self.added(*inputs[::-1]) if found is None else found

    def added(self, a: Any, b: Any) -> Any:
        """A sum of two things, the first one on the left."""
        match a, b:
            case Counter(more), Fixed():
                steps = self.integers(b)
                return Counter(more + steps[0]) if steps is not None and len(steps) == 1 else None
            case Sum(), Sum() if a.columns == b.columns and len(a.terms + b.terms) <= TERMS:
                return Sum(a.terms + b.terms)
            case Sum(), Fixed():
                return self._biased(a, self.array(b))
            case Line(of, alpha, 0.0, None, None), Fixed():
                beta = self.number(b)
                return None if beta is None else Line(of, alpha, beta)
            case Kept(gate, state), New(other, candidate) if gate is other:
                return Cell(gate, candidate, state)
            case Masked(one, new), Masked(other, old) if one.step is other.step:
                if not one.inverted and other.inverted:
                    return Choice(one.step, new, old)
        return None

    def _biased(self, of: Sum, bias: Array | None) -> Any:
        """A sum with a bias, added to the first term that can take it, the input's if possible."""
        if bias is None or bias.dtype.kind != "f" or bias.shape not in ((of.columns,), (1, of.columns)):
            return None
        free = [term for term in of.terms if term.bias is None and term.gate is None]
        free.sort(key=lambda term: not isinstance(term.of, Step))
        if not free:
            return None
        biased = Term(free[0].of, free[0].matrix, bias.ravel())
        return Sum(tuple(biased if term is free[0] else term for term in of.terms))

    def subtract(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        if len(inputs) == 2 and isinstance(inputs[1], Sum | Line | Applied) and self.number(inputs[0]) == 1:
            return Rest(inputs[1])
        return None

    def multiply(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        if len(inputs) != 2:
            return None
        found = self.multiplied(*inputs)
        return self.multiplied(*inputs[::-1]) if found is None else found

    def multiplied(self, a: Any, b: Any) -> Any:
        """A product of two things, number by number, the first one on the left."""
        match a, b:
            case Flag(), _:
                return Masked(a, b)
            case State(), Ones(of, False) if of is a:
                return a
            case Sum(), Fixed():
                alpha = self.number(b)
                return None if alpha is None else Line(a, alpha)
            case ((Sum() | Line() | Applied()), State()):
                return Kept(a, b)
            case Rest(gate), (Sum() | Line() | Applied()):
                return New(gate, b)
            case Sum(), Applied() if (function := _times_itself(a, b)) is not None:
                return Applied(function, a)
            case ((Sum() | Line() | Applied()), Sum((Term(State() as state, matrix, bias, None),))):
                return Sum((Term(state, matrix, bias, a),))
        return None

    def smaller(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        return self._bounded(inputs, "high")

    def larger(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        return self._bounded(inputs, "low")

    def clip(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        numbers = [self.number(bound) for bound in inputs[1:]]
        if len(inputs) == 1:  # before opset 11
            numbers = [given[key].f for key in ("min", "max") if key in given]
        line = Line(inputs[0]) if isinstance(inputs[0], Sum) else inputs[0]
        match line, numbers:
            case Line(of, alpha, beta, None, None), [float(low), float(high)] if -MAX <= low <= high <= MAX:
                return Line(of, alpha, beta, low, high)
        return None

    def _bounded(self, inputs: Sequence[Any], side: str) -> Any:
        """The smaller or the larger of a sum or line and a number."""
        lines = [source for source in inputs if isinstance(source, Sum | Line)]
        numbers = [self.number(source) for source in inputs if isinstance(source, Fixed)]
        if len(lines) != 1 or len(numbers) != 1 or numbers[0] is None or len(inputs) != 2:
            return None
        line = lines[0] if isinstance(lines[0], Line) else Line(lines[0])
        low, high = (numbers[0], line.high) if side == "low" else (line.low, numbers[0])
        if getattr(line, side) is not None or (low is not None and high is not None and low > high):
            return None
        return Line(line.of, line.alpha, line.beta, low, high)

    def shape(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        return Ones(inputs[0], is_shape=True) if isinstance(inputs[0], State) and not given else None

    def filled(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        """Of ConstantOfShape."""
        made = given["value"].t if "value" in given else None
        match inputs:
            case [Ones(of, True)] if made is not None:
                ones = self._folder.constant(said(value.node), made)
                return Ones(of) if ones.dtype.kind == "f" and ones.size == 1 and ones.item() == 1 else None
        return None

    def where(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        match inputs:
            case [Step() as step, new, old] | [Flag(step, False), new, old] | [Flag(step, True), old, new]:
                return Choice(step, new, old)
        return None

    def split(self, inputs: Sequence[Any], given: Any, value: Output) -> Any:
        """The part of a sum's columns that an output of Split is."""
        of, parts = inputs[0], len(value.node.output)
        if not isinstance(of, Sum) or not 1 < parts <= PARTS or any(term.gate for term in of.terms):
            return None
        if "axis" not in given or given["axis"].i not in (1, -1):
            return None
        if len(inputs) > 1:
            sizes = self.integers(inputs[1])
        elif "split" in given:
            sizes = list(given["split"].ints) if len(given["split"].ints) <= PARTS else None
        else:
            sizes = [of.columns // parts] * parts
        if sizes is None or len(sizes) != parts or min(sizes) < 0 or sum(sizes) != of.columns:
            return None
        first = sum(sizes[: value.number])
        own = slice(first, first + sizes[value.number])
        return Sum(
            tuple(
                Term(term.of, term.matrix[:, own], None if term.bias is None else term.bias[own])
                for term in of.terms
            )
        )


def _times_itself(of: Sum, applied: Applied) -> Any:
    """The activation that x * function(x) is, or None."""
    names: list[Any] = []
    found: Any = applied
    while isinstance(found, Applied) and len(names) < PARTS:
        names.append(found.function)
        found = found.of
    return _onnx_activation.times_itself(names) if found is of else None


Rule = Callable[[Rules, Sequence[Any], Any, Output], Any]
RULES: dict[str, Rule] = {
    "Add": Rules.add,
    "And": Rules.both,
    "Cast": Rules.cast,
    "Clip": Rules.clip,
    "ConstantOfShape": Rules.filled,
    "Gather": Rules.gather,
    "Gemm": Rules.gemm,
    "Greater": Rules.greater,
    "Identity": Rules.same,
    "Less": Rules.less,
    "MatMul": Rules.product,
    "Max": Rules.larger,
    "Min": Rules.smaller,
    "Mul": Rules.multiply,
    "Not": Rules.opposite,
    "Shape": Rules.shape,
    "Split": Rules.split,
    "Sub": Rules.subtract,
    "Where": Rules.where,
}
