"""The replacement of a layer's `call`: fastgru where it gives the same results, else Keras' own."""

import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from fastgru.keras._kinds import CLASSES, backend_of, directions, own_class, package_of
from fastgru.keras._variant import Variant


class Call:
    """The function that replaces a layer's method `call`, with the same signature.

    Parameters
    ----------
    layer : keras.layers.GRU, RNN or Bidirectional
    weights_dtype : {None, 'float32', 'float64', 'float16'}
        As for `fastgru.GRU`.
    """

    __name__ = "call"  # by which a method is pickled: a layer that is loaded has its own one
    autograph_info__ = None  # AutoGraph leaves alone what has this

    def __init__(self, layer: Any, weights_dtype: Any) -> None:
        self.layer = layer
        self.own: Callable[..., Any] = types.MethodType(type(layer).call, layer)
        self.package = package_of(layer)
        self._backend: Any = backend_of(layer)
        self._dtype = self._backend.dtype(layer.compute_dtype)
        self._bool = self._backend.dtype("bool")
        self.__signature__ = inspect.signature(type(layer).call)
        self._names = tuple(self.__signature__.parameters)[1:]
        self._given = {} if weights_dtype is None else {"weights_dtype": weights_dtype}
        self._parts = directions(layer)
        self._cells = [part.cell for part in self._parts]
        # settings, what they make of the layer, and its variables, in the order of `variables`
        self._known: tuple[Any, Variant | None, list[Any]] = None, None, []

    def __call__(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer is not self.layer:  # a copy, made of the attributes of the optimized one
            return type(layer).call(layer, *args, **kwargs)
        found = self._computed(dict(zip(self._names, args, strict=False)) | kwargs)
        return self.own(*args, **kwargs) if found is None else found

    def attach(self) -> None:
        """Have the layer call this one, by an attribute that Keras does not track."""
        self.layer.__dict__["call"] = types.MethodType(self, self.layer)

    @classmethod
    def of(cls, layer: Any) -> Self | None:
        """What a layer calls in place of its own `call`; None if that is nothing."""
        found = getattr(layer.__dict__.get("call"), "__func__", None)
        return found if isinstance(found, cls) and found.layer is layer else None

    def _computed(self, given: dict[str, Any]) -> Any:
        """What the layer returns for these arguments of `call`; None if Keras has to compute it."""
        layer = self.layer
        variant, variables = self._now()
        if variant is None or not _infers(given.get("training")) or given.get("constants") is not None:
            return None
        x, state, mask = given.get(self._names[0]), given.get("initial_state"), given.get("mask")
        if isinstance(x, list) and x:  # in functional models of tf_keras, with the initial state
            x, state = x[0], x[1:] or state
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        if state is None:
            states = list(map(self.value_of, layer.states)) if layer.stateful else []
        elif layer.stateful and self.package == "tf_keras":  # which takes it or not by what is recorded
            return None
        else:
            states = list(state) if isinstance(state, (list, tuple)) else [state]
        weights = [self.value_of(variable) for variable in variables]
        if not self._are_usual(variant, x, states, mask, weights):
            return None
        results = self._backend.run(self, variant, x, states, mask, weights)
        if results is None:
            return None
        if layer.stateful:
            layer.states[0].assign(results[-1])
            if not layer.return_state:
                results = results[:-1]
        if len(results) == 1:
            return results[0]
        return tuple(results) if self.package == "keras" else list(results)

    def value_of(self, variable: Any) -> Any:
        """A variable's value, as the scopes say in which the call is made."""
        return variable.value if self.package == "keras" else variable

    def variables(self) -> list[Any]:
        """kernel, recurrent_kernel, and bias if there is one, of each direction."""
        return [
            variable
            for cell in self._cells
            for variable in (cell.kernel, cell.recurrent_kernel, *([cell.bias] if cell.use_bias else []))
        ]

    def _now(self) -> tuple[Variant | None, list[Any]]:
        """The layer with its present settings, None if fastgru cannot run it; and its variables."""
        known, variant, variables = self._known
        settings = self._settings()
        if settings != known:
            fits = self.layer.built and why_not(self.layer) is None and _agree(self.layer)
            variant = Variant(self.layer, self._given) if fits else None
            variables = self.variables() if fits else []
            self._known = settings, variant, variables
        return variant, variables

    def _settings(self) -> tuple[Any, ...]:
        """The settings that change what is computed, and may be set at any time."""
        layer = self.layer
        found = [
            layer.return_sequences,
            layer.return_state,
            layer.stateful,
            getattr(layer, "merge_mode", None),
        ]
        for part, cell in zip(self._parts, self._cells, strict=True):
            if part is not layer:
                found += [part.return_sequences, part.return_state, part.stateful]
            found += [part.go_backwards, part.zero_output_for_mask, getattr(part, "time_major", False)]
            found += [cell.activation, cell.recurrent_activation, id(getattr(cell, "kernel", None))]
        return tuple(found)

    def _are_usual(
        self, variant: Variant, x: Any, states: Sequence[Any], mask: Any, weights: Sequence[Any]
    ) -> bool:
        """True of tensors of the types and shapes that the layer wants."""
        shape = _shape(x)
        if any(weight.dtype != self._dtype for weight in weights):  # which a model of another type may cast
            return False
        if shape is None or len(shape) != 3 or 0 in shape or x.dtype != self._dtype:
            return False
        batch, timesteps = shape[:2][:: -1 if variant.time_major else 1]
        if shape[2] != variant.features:
            return False
        if (timesteps is None or mask is not None) and any(part.unroll for part in self._parts):
            return False  # an error of Keras', or masks that mean something else on some backends
        if states and len(states) != len(variant.units):
            return False
        for state, units in zip(states, variant.units, strict=False):
            if getattr(state, "dtype", None) != self._dtype or not _agrees(state, (batch, units)):
                return False
        return mask is None or (getattr(mask, "dtype", None) == self._bool and _agrees(mask, shape[:2]))


def why_not(layer: Any) -> str | None:
    """Why a recurrent layer cannot run on fastgru; None if it can."""
    name = own_class(layer)
    if name is None:
        return f"{type(layer).__name__} is a class of its own, which may compute something else"
    if name not in CLASSES:
        return f"{name} is no GRU"
    parts = directions(layer)
    for part in parts if name == "Bidirectional" else ():
        reason = why_not(part)
        if reason is not None:
            return reason
    try:
        backend_of(layer)
    except ModuleNotFoundError:
        return "Keras runs on a backend that fastgru does not know"
    dtype = layer.compute_dtype
    if dtype not in ("float32", "float64"):
        return f"it computes in {dtype}, and fastgru in float32 or float64"
    for part in parts:
        if own_class(part.cell) != "GRUCell":
            return f"{type(part.cell).__name__} is no GRUCell of Keras"
        for activation in (part.cell.activation, part.cell.recurrent_activation):
            module = getattr(activation, "__module__", None) or ""
            if not inspect.isfunction(activation) or module.partition(".")[0] not in ("keras", "tf_keras"):
                return f"the activation {activation!r:.60} is none of Keras' own functions"
        for owner in (part, part.cell):
            if owner.compute_dtype != dtype or owner.variable_dtype != dtype:
                return "its parts do not all have the same type"
        if getattr(part, "_return_runtime", False):
            return "return_runtime asks which of Keras' implementations ran"
    try:
        Variant(layer, {})
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _agree(layer: Any) -> bool:
    """True if a Bidirectional and its directions return the same, and record nothing."""
    parts = directions(layer)
    flags = {(each.return_sequences, each.return_state, each.stateful) for each in (layer, *parts)}
    return len(parts) == 1 or (len(flags) == 1 and not layer.stateful)


def _infers(training: Any) -> bool:
    """True of a `training` that is known to ask for inference."""
    return training is None or (isinstance(training, (bool, int, np.bool_)) and not training)


def _shape(tensor: Any) -> tuple[int | None, ...] | None:
    """The shape, with None for what is unknown; None if not even the rank is known, or it is no tensor."""
    try:
        return tuple(tensor.shape)
    except (AttributeError, TypeError, ValueError):
        return None


def _agrees(tensor: Any, wanted: Sequence[int | None]) -> bool:
    """True if the tensor's shape may be the one wanted."""
    shape = _shape(tensor)
    if shape is None or len(shape) != len(wanted):
        return False
    return all(a == b or a is None or b is None for a, b in zip(shape, wanted, strict=True))
