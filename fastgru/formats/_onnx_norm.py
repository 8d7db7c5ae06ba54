"""Normalizations that exporters write as single operators: what they normalize, and by which constants.

A value is followed as a polynomial with constant coefficients. Its letters are those of one other value x and
what is computed of it along an axis:

    x
    m    the mean of x
    s    the mean of x * x; the variance is s - m * m
    d    sqrt(s - m * m + epsilon), or sqrt(s + epsilon)
    r    1 / d

So it does not matter how a file writes (x - m) * r * gamma + beta.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru.formats import _onnx_graph, _onnx_keras_norm
from fastgru.formats._onnx_fold import NODE, Folder
from fastgru.formats._onnx_graph import Output
from fastgru.formats._onnx_roles import key_of

Array = NDArray[Any]
ARITHMETIC = ("Add", "Sub", "Mul", "Div")
FOLLOWED = (*ARITHMETIC, "GlobalAveragePool", "Identity", "Neg", "Pow", "Reciprocal", "ReduceMean", "Sqrt")
MEANS = {"": "", "xx": "s", "mx": "mm", "mm": "mm"}  # of squares, and of constants
LETTERS = 2  # of a term
VISIT = 200  # bytes that it takes to know of a value that it is nothing


class Normalized(NamedTuple):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta along an axis.

    Attributes
    ----------
    source : Output, Given or onnx.TensorProto
        x.
    axis : int
    rank : int or None
        How many axes x must have; None: any.
    features : int or None
        The size that the axis must have; None: any.
    epsilon : float
    is_centered : bool
        False: the mean is taken to be 0.
    gamma, beta : ndarray
        Broadcast to x.
    """

    source: Any
    axis: int
    rank: int | None
    features: int | None
    epsilon: float
    is_centered: bool
    gamma: Array
    beta: Array


class Form(NamedTuple):
    """A value as a polynomial.

    Attributes
    ----------
    source : Output, Given or onnx.TensorProto
        x.
    terms : mapping of str to ndarray
        Coefficients by their letters, which are in order.
    axis : (int, int or None) or None
        That of the mean, and how many axes there must be; None: there is no mean yet.
    root : (float, bool) or None
        Epsilon, and True if the mean is subtracted; None: there is no d or r yet.
    """

    source: Any
    terms: Mapping[str, Array]
    axis: tuple[int, int | None] | None = None
    root: tuple[float, bool] | None = None


class Norms:
    """Finds normalizations, and looks at each value once.

    Parameters
    ----------
    folder : Folder
        Of constants.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._known: dict[Any, Form | None] = {}

    def find(self, value: Any) -> Normalized | None:
        """What a value normalizes; None if it is anything else."""
        if value.node.op_type == "Reshape":
            image = _onnx_keras_norm.find(value, self._folder)
            if image is None:
                return None
            plain = np.ones(()), np.zeros(())
            return Normalized(image.source, -1, None, image.features, image.epsilon, True, *plain)
        if value.node.op_type not in ARITHMETIC or value.node.domain not in _onnx_graph.STANDARD:
            return None
        form = self._form(value)
        if form is None or form.root is None or form.axis is None:
            return None
        gamma, mean = form.terms.get("rx"), form.terms.get("mr")
        epsilon, is_centered = form.root
        if gamma is None or not form.terms.keys() <= {"rx", "mr", ""} or is_centered != (mean is not None):
            return None
        if mean is not None and not (np.broadcast_to(-mean, np.broadcast(gamma, mean).shape) == gamma).all():
            return None
        beta = form.terms.get("", np.zeros(()))
        return Normalized(form.source, *form.axis, None, epsilon, is_centered, gamma, beta)

    def _form(self, value: Any) -> Form | None:
        """The polynomial that a value is, if it is more than a letter."""
        pending = [value]
        begun = set()
        while pending:  # a stack of our own: nodes may lie deeper than Python's
            top = pending[-1]
            key = key_of(top)
            if key in self._known or not self._is_followed(top):
                self._known.setdefault(key, None)
                pending.pop()
                continue
            sources = _sources(top)
            missing = [one for one in sources if one is not None and key_of(one) not in self._known]
            if missing and key not in begun:
                begun.add(key)
                pending += missing
                continue
            pending.pop()
            self._folder.spend(VISIT)
            self._known[key] = self._of_node(top, sources) if None not in sources and not missing else None
        return self._known[key_of(value)]

    def _is_followed(self, value: Any) -> bool:
        return (
            isinstance(value, Output)
            and value.node.op_type in FOLLOWED
            and value.node.domain in _onnx_graph.STANDARD
            and self._constant(value) is None
        )

    # ---- what nodes do ---------------------------------------------------------------------

    def _of_node(self, value: Output, sources: Sequence[Any]) -> Form | None:
        kind = value.node.op_type
        if kind in ARITHMETIC:
            return self._of_two(kind, *sources) if len(sources) == 2 else None
        if kind == "Pow":
            return self._power(*sources) if len(sources) == 2 else None
        if not sources:
            return None
        if kind in ("ReduceMean", "GlobalAveragePool"):
            return self._mean(value, sources)
        form = self._known[key_of(sources[0])]
        if form is None or kind == "Identity":
            return form
        if kind == "Neg":
            return form._replace(terms={name: -one for name, one in form.terms.items()})
        return _root(form) if kind == "Sqrt" else _inverse(form)

    def _of_two(self, kind: str, left: Any, right: Any) -> Form | None:
        for form in (self._known[key_of(left)], self._known[key_of(right)]):
            if form is not None:
                pair = self._lifted(left, form.source), self._lifted(right, form.source)
                found = None if None in pair else self._together(kind, *pair)
                if found is not None:
                    return found
        if kind == "Mul" and key_of(left) == key_of(right):
            return Form(left, {"xx": np.ones(())})
        return None

    def _lifted(self, value: Any, source: Any) -> Form | None:
        """A value as a polynomial of this x."""
        if key_of(value) == key_of(source):
            return Form(source, {"x": np.ones(())})
        constant = self._constant(value)
        if constant is not None:
            return Form(source, {"": constant})
        form = self._known[key_of(value)]
        return form if form is not None and key_of(form.source) == key_of(source) else None

    def _together(self, kind: str, left: Any, right: Any) -> Form | None:
        """The sum, difference, product or quotient of polynomials of one x."""
        if len({one.axis for one in (left, right)} - {None}) > 1:
            return None
        if kind == "Div":
            right = _inverse(right)
        if right is None or len({one.root for one in (left, right)} - {None}) > 1:
            return None
        if kind == "Sub":
            right = right._replace(terms={name: -one for name, one in right.terms.items()})
        if kind in ("Add", "Sub"):
            added = [*left.terms.items(), *right.terms.items()]
        else:
            added = [
                ("".join(sorted(a + b)), one * other)
                for a, one in left.terms.items()
                for b, other in right.terms.items()
                if _is_vector(one, other)
            ]
            if len(added) < len(left.terms) * len(right.terms):
                return None
        terms: dict[str, Array] = {}
        for name, one in added:
            if len(name) > LETTERS or not _is_vector(terms.get(name, one), one):
                return None
            terms[name] = terms[name] + one if name in terms else one
            self._folder.spend(terms[name].nbytes)
        if not all(np.isfinite(one).all() for one in terms.values()):
            return None
        terms = {name: one for name, one in terms.items() if one.any() or name == ""}
        self._folder.spend(NODE)
        return Form(left.source, terms, _first(left.axis, right.axis), _first(left.root, right.root))

    def _power(self, base: Any, exponent: Any) -> Form | None:
        constant = self._constant(exponent)
        number = float(constant.ravel()[0]) if constant is not None and constant.size == 1 else None
        form = self._known[key_of(base)]
        if number == 2:
            return self._of_two("Mul", base, base)
        if form is None or number not in (0.5, -0.5):
            return None
        root = _root(form)
        return _inverse(root) if root is not None and number < 0 else root

    def _mean(self, value: Output, sources: Sequence[Any]) -> Form | None:
        axis: tuple[int, int | None] | None = (2, 3)  # of a GlobalAveragePool of (batch, timesteps, features)
        if value.node.op_type == "ReduceMean":
            axis = _axis_of_mean(value, self._constant(sources[1]) if len(sources) > 1 else None)
        if axis is None:
            return None
        form = self._known[key_of(sources[0])]
        if form is None or not form.terms.keys() <= {*MEANS} or form.axis not in (None, axis):
            return Form(sources[0], {"m": np.ones(())}, axis)
        terms: dict[str, Array] = {}
        for name, one in form.terms.items():
            if one.size > 1:
                return Form(sources[0], {"m": np.ones(())}, axis)
            terms[MEANS[name]] = terms.get(MEANS[name], 0) + one
        terms = {name: one for name, one in terms.items() if one.any()}
        return form._replace(terms=terms, axis=axis)

    def _constant(self, value: Any) -> Array | None:
        """A constant of one number, or of some along one axis."""
        found = self._folder.value(value)
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "fi" or not _is_vector(found):
            return None
        self._folder.spend(8 * found.size)
        return found.astype(np.float64)


def _sources(value: Any) -> list[Any]:
    return [_onnx_graph.find(value.inside.scope, name) if name else None for name in value.node.input]


def _first(one: Any, other: Any) -> Any:
    return other if one is None else one


def _is_vector(*arrays: Array) -> bool:
    """True if these, broadcast to each other, differ along one axis at most."""
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        return False
    return len([size for size in shape if size != 1]) <= 1


def _number(array: Array) -> float | None:
    return float(array.ravel()[0]) if array.size == 1 else None


def _root(form: Form) -> Form | None:
    """d, of s - m * m + epsilon or s + epsilon."""
    rest = dict(form.terms)
    numbers = {name: _number(rest.pop(name, np.zeros(()))) for name in ("s", "mm", "")}
    epsilon = numbers[""]
    if rest or numbers["s"] != 1 or numbers["mm"] not in (0, -1) or epsilon is None or not 0 <= epsilon < 1:
        return None
    return form._replace(terms={"d": np.ones(())}, root=(epsilon, numbers["mm"] == -1))


def _inverse(form: Form) -> Form | None:
    """One over a multiple of d, or over a constant."""
    if len(form.terms) != 1:
        return None
    ((name, one),) = form.terms.items()
    if name not in ("", "d") or not one.all():
        return None
    return form._replace(terms={"r" if name else "": 1 / one})


def _axis_of_mean(value: Output, given_axes: Array | None) -> tuple[int, None] | None:
    """The only axis of a ReduceMean, which stays."""
    given = {a.name: a for a in _onnx_graph.attributes(value.node, value.inside.attributes)}
    axes: Any = [*given["axes"].ints] if "axes" in given else given_axes
    if isinstance(axes, np.ndarray):
        axes = [int(axis) for axis in axes.ravel()[:2]]
    if axes is None or len(axes) != 1 or ("keepdims" in given and not given["keepdims"].i):
        return None
    return int(axes[0]), None
