"""Find the recurrent layers of a model, change them, change them back, and report on them."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from fastgru import _validate
from fastgru.keras._call import Call, why_not
from fastgru.keras._kinds import backend_of, is_recurrent, package_of

Model = TypeVar("Model")


class Entry(NamedTuple):
    """One recurrent layer of a model.

    Attributes
    ----------
    name : str
        The layer's name.
    kind : str
        Its class: GRU, Bidirectional, RNN, or another recurrent one, which fastgru does not run.
    changed : bool
        True if its inference runs on fastgru.
    reason : str
        Why it does not run on fastgru; or what running there costs, and which calls Keras still computes.
    """

    name: str
    kind: str
    changed: bool
    reason: str


class Report(list[Entry]):
    """A list of an `Entry` for each recurrent layer. Printed, it has a line for each, and then the costs."""

    def __str__(self) -> str:
        lines = [
            f"{each.name}: {each.kind}, " + ("fastgru" if each.changed else f"Keras: {each.reason}")
            for each in self
        ]
        costs = dict.fromkeys(each.reason for each in self if each.changed)
        return "\n".join([*lines, *(f"fastgru: {cost}" for cost in costs)]) or "no recurrent layers"


def optimize(model: Model, *, weights_dtype: Any = None) -> Model:
    """Make the GRUs of a model run on fastgru in inference.

    Every layer keeps its name, variables, config, masks, states and training. Only its `call` is replaced, by
    one that leaves to Keras what fastgru does not compute. It is not saved, pickled or copied.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        Of Keras 3 or tf_keras: Functional, Sequential, subclassed, nested, or one layer. It is changed in
        place. Layers that it gets later are not, until this is called again.
    weights_dtype : {None, 'float32', 'float64', 'float16', 'int8'}, keyword
        As for `fastgru.GRU`: with 'float16' or 'int8' kernels are rounded for inference, so that each step
        reads fewer bytes. Layers that compute in float64 take 'float64' alone.

    Returns
    -------
    keras.Model or keras.layers.Layer
        The model.

    Raises
    ------
    TypeError
        If it is no model or layer of Keras 3 or tf_keras, or `weights_dtype` is no type.
    ValueError
        If the layers' type cannot be kept in `weights_dtype`. Nothing is changed then.
    """
    changed = []
    for layer in _layers_of(model):
        if is_recurrent(layer) and why_not(layer) is None:
            try:
                _validate.weights_dtype(weights_dtype, _validate.dtype(layer.compute_dtype), True)
            except ValueError as error:
                raise ValueError(f"{error}, the type of layer {layer.name!r}") from None
            changed.append(layer)
    for layer in changed:
        Call(layer, weights_dtype).attach()
    _trace_anew(model)
    return model


def restore(model: Model) -> Model:
    """Undo `optimize`.

    Functions that have been traced or compiled with the model in them go on as they were traced, with the
    same results. Its own `predict` and `evaluate` are traced anew.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        Changed in place. It need not be optimized.

    Returns
    -------
    keras.Model or keras.layers.Layer
        The model.

    Raises
    ------
    TypeError
        If it is no model or layer of Keras 3 or tf_keras.
    """
    for layer in _layers_of(model):
        if Call.of(layer) is not None:
            del layer.__dict__["call"]
    _trace_anew(model)
    return model


@contextlib.contextmanager
def optimized(model: Model, *, weights_dtype: Any = None) -> Iterator[Model]:
    """Make the GRUs of a model run on fastgru in a `with` block.

    Layers that were optimized before stay so afterwards, as they were.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        As for `optimize`.
    weights_dtype : {None, 'float32', 'float64', 'float16', 'int8'}, keyword
        As for `optimize`.

    Yields
    ------
    keras.Model or keras.layers.Layer
        The model.

    Raises
    ------
    TypeError, ValueError
        As `optimize`.
    """
    before = list(filter(None, map(Call.of, _layers_of(model))))
    optimize(model, weights_dtype=weights_dtype)
    try:
        yield model
    finally:
        restore(model)
        for call in before:
            call.attach()


def report(model: Any) -> Report:
    """Say which layers of a model run on fastgru, and why others do not.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer

    Returns
    -------
    Report
        A list of an `Entry` for each recurrent layer, those in a Bidirectional included.

    Raises
    ------
    TypeError
        If it is no model or layer of Keras 3 or tf_keras.
    """
    found = Report()
    for layer in _layers_of(model):
        if is_recurrent(layer):
            changed = Call.of(layer) is not None
            reason = why_not(layer)
            if reason is not None:
                changed = False
            elif changed:
                reason = backend_of(layer).COSTS
            else:
                reason = "optimize has not been called since the model got it"
            found.append(Entry(layer.name, type(layer).__name__, changed, reason))
    return found


def _layers_of(model: Any) -> list[Any]:
    """The model and all layers in it, each once."""
    if package_of(model) is None:
        raise TypeError(
            f"model must be a model or a layer of Keras 3 or tf_keras, got {type(model).__name__} of module "
            f"{type(model).__module__}"
        )
    return list({id(layer): layer for layer in model._flatten_layers()}.values())


def _trace_anew(model: Any) -> None:
    """Have `predict` and `evaluate` be traced again, which have the layers' computation in them."""
    for layer in _layers_of(model):
        for name in ("predict_function", "test_function"):
            if layer.__dict__.get(name) is not None:
                setattr(layer, name, None)
