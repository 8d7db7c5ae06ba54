"""What a GRU cell consists of, as the nodes of a loop's body have it, and its weights as Keras has them.

Values are compared by identity: a gate that is computed twice counts as two gates.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._errors import FormatError
from fastgru.formats import _onnx_activation
from fastgru.formats._onnx_fold import Folder, taken
from fastgru.formats._onnx_tensor import floats

Array = NDArray[Any]


@dataclass(frozen=True, eq=False, slots=True)
class Fixed:
    """A value that is the same in every step: a constant, or a value from outside of the loop."""

    value: Any


@dataclass(frozen=True, eq=False, slots=True)
class Counter:
    """The number of the step, from 0 on, plus `more`."""

    more: int


@dataclass(frozen=True, eq=False, slots=True)
class Going:
    """The condition that the step before left."""


@dataclass(frozen=True, eq=False, slots=True)
class Below:
    """The condition that the counter is less than all of these values."""

    counter: int
    bounds: tuple[Any, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """One step of a sequence."""

    sequence: Any


@dataclass(frozen=True, eq=False, slots=True)
class Flag:
    """A step of a mask, or the opposite of it."""

    step: Step
    inverted: bool


@dataclass(frozen=True, eq=False, slots=True)
class State:
    """The carried value of this number, as the step before left it."""

    number: int


@dataclass(frozen=True, eq=False, slots=True)
class Ones:
    """Ones of the shape of a state, or at first that shape: dropout that drops nothing."""

    of: State
    is_shape: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Term:
    """A product with a matrix, and a bias: gate * (of @ matrix + bias)."""

    of: Any
    matrix: Array
    bias: Array | None = None
    gate: Any = None


@dataclass(frozen=True, eq=False, slots=True)
class Sum:
    """A sum of terms of the same columns."""

    terms: tuple[Term, ...]

    @property
    def columns(self) -> int:
        """Columns of every term."""
        return int(self.terms[0].matrix.shape[1])


@dataclass(frozen=True, eq=False, slots=True)
class Line:
    """alpha * sum + beta between bounds: an activation that is written out."""

    of: Sum
    alpha: float = 1.0
    beta: float = 0.0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Applied:
    """An activation of a sum, or of another activation."""

    function: Any
    of: Any


@dataclass(frozen=True, eq=False, slots=True)
class Kept:
    """gate * state: what an update gate keeps, or a reset gate lets through."""

    gate: Any
    state: State


@dataclass(frozen=True, eq=False, slots=True)
class Rest:
    """1 - gate."""

    gate: Any


@dataclass(frozen=True, eq=False, slots=True)
class New:
    """(1 - gate) * candidate."""

    gate: Any
    candidate: Any


@dataclass(frozen=True, eq=False, slots=True)
class Cell:
    """The next state: gate * state + (1 - gate) * candidate."""

    gate: Any
    candidate: Any
    state: State


@dataclass(frozen=True, eq=False, slots=True)
class Masked:
    """A value where a mask is true, or where it is false; else zero."""

    flag: Flag
    value: Any


@dataclass(frozen=True, eq=False, slots=True)
class Choice:
    """One value where a mask is true, another one elsewhere."""

    step: Step
    new: Any
    old: Any


# ---- weights ---------------------------------------------------------------------------------


class Gates(NamedTuple):
    """A cell, taken apart.

    Attributes
    ----------
    step : Step
        Of the sequence that it reads.
    pairs : list of (Term, Term)
        The terms of z, r and the candidate: that of the input and that of the state.
    activation, recurrent_activation : Activation
    reset_after : bool
    """

    step: Step
    pairs: list[tuple[Term, Term]]
    activation: Any
    recurrent_activation: Any
    reset_after: bool

    @property
    def features(self) -> int:
        """How many numbers a step of the sequence has."""
        return int(self.pairs[0][0].matrix.shape[0])

    @property
    def units(self) -> int:
        """How many numbers the state has."""
        return int(self.pairs[0][1].matrix.shape[0])


def gates(cell: Cell) -> Gates:
    """Take a cell apart.

    Raises
    ------
    FormatError
        If it is not one of Keras.
    """
    candidate = _pair("its candidate", cell.candidate)
    from_state = candidate[1]
    if from_state.gate is not None:
        reset, state = from_state.gate, from_state.of
    elif isinstance(from_state.of, Kept):
        reset, state = from_state.of.gate, from_state.of.state
    else:
        raise FormatError("the candidate of its cell has no reset gate")
    pairs = [_pair("its update gate", cell.gate), _pair("its reset gate", reset), candidate]
    if {type(pair[1].of) for pair in pairs[:2]} != {State} or any(pair[1].gate for pair in pairs[:2]):
        raise FormatError("the gates of its cell are not computed from its state")
    states = [cell.state, state, *(pair[1].of for pair in pairs[:2])]
    if any(each is not cell.state for each in states) or len({id(pair[0].of) for pair in pairs}) > 1:
        raise FormatError("the gates of its cell do not all read the same sequence and the same state")
    recurrent = [_function(gate) for gate in (cell.gate, reset)]
    if not _onnx_activation.are_same(*recurrent):
        raise FormatError(f"the gates of its cell have two activations: {recurrent}")
    found = Gates(
        candidate[0].of, pairs, _function(cell.candidate), recurrent[0], from_state.gate is not None
    )
    shapes = [tuple(term.matrix.shape for term in pair) for pair in pairs]
    wanted = (found.features, found.units), (found.units, found.units)
    if any(shape != wanted for shape in shapes):
        raise FormatError(f"the matrices of its cell do not fit each other: {shapes}")
    kinds = {
        array.dtype.name for pair in pairs for t in pair for array in (t.matrix, t.bias) if array is not None
    }
    if len(kinds) > 1:
        raise FormatError(f"the weights of its cell must be of one type, got {sorted(kinds)}")
    return found


def _pair(what: str, value: Any) -> tuple[Term, Term]:
    """The terms that a gate or a candidate makes of the input and of the state."""
    while isinstance(value, Line | Applied):
        value = value.of
    terms = value.terms if isinstance(value, Sum) else ()
    of_input = [term for term in terms if isinstance(term.of, Step) and term.gate is None]
    others = [term for term in terms if not isinstance(term.of, Step)]
    if len(of_input) != 1 or len(others) != 1 or len(terms) != 2:
        raise FormatError(f"{what} must be the sum of one product with the input and one with the state")
    return of_input[0], others[0]


def _function(value: Any) -> Any:
    """The activation of a gate or a candidate."""
    match value:
        case Sum():
            return _onnx_activation.of_line(1.0, 0.0, None, None)
        case Applied(function, Sum()):
            return function
        case Line(_, alpha, beta, low, high):
            function = _onnx_activation.of_line(alpha, beta, low, high)
            if function is not None:
                return function
    raise FormatError("an activation of its cell is not known")


def arrays(of: Gates, folder: Folder) -> list[Array]:
    """kernel, recurrent_kernel and, if there is one, the bias, as Keras has them: z, r and candidate."""
    terms = [term for pair in of.pairs for term in pair]
    size = sum(term.matrix.nbytes for term in terms)
    folder.spend(taken(of.units, size + 2 * size // max(1, of.features + of.units)))
    made = [np.concatenate([pair[side].matrix for pair in of.pairs], axis=1) for side in range(2)]
    if any(term.bias is not None for term in terms):
        zeros = np.zeros(of.units, made[0].dtype)
        rows = np.array(
            [
                np.concatenate([zeros if (bias := pair[side].bias) is None else bias for pair in of.pairs])
                for side in range(2)
            ]
        )
        with np.errstate(over="ignore"):  # of float16, and then the layer is refused
            made.append(rows if of.reset_after else rows.sum(0))
    return [floats("a weight of its cell", array) for array in made]
