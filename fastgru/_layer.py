"""What any Keras layer has, whatever it computes: a name, a dtype, weights, losses, a config."""

import contextlib
import copy
import itertools
import re
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import _validate
from fastgru._export import Exports

if TYPE_CHECKING:
    from fastgru.streaming import Stream

Array = NDArray[Any]


class Weight(NamedTuple):
    """How one weight is made, and what it is held to."""

    name: str
    shape: tuple[int, ...]
    initializer: Any
    regularizer: Any
    constraint: Any


_name_lock = threading.Lock()
_name_counters: dict[str, Iterator[int]] = {}


def _unique_name(cls: type) -> str:
    """gru, gru_1, ...: the class in snake case, numbered from the second layer on."""
    base = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<!^)(?=[A-Z][a-z])", "_", cls.__name__).lower()
    if base.startswith("_"):
        base = "private" + base
    with _name_lock:
        number = next(_name_counters.setdefault(base, itertools.count()))
    return f"{base}_{number}" if number else base


class Layer(Exports):
    """A layer, wherever its weights are kept."""

    def __init__(
        self,
        name: Any = None,
        dtype: Any = None,
        trainable: Any = True,
        weights: Any = None,
        **kwargs: Any,
    ) -> None:
        self._batch_input_shape = _validate.batch_input_shape(kwargs)
        if kwargs:
            raise TypeError("Keyword argument not understood:", next(iter(kwargs)))
        self._dtype = _validate.dtype(dtype)
        self._compute_dtype = np.dtype(np.float32) if self._dtype == np.float16 else self._dtype
        self._trainable = _validate.trainable(trainable)
        self._given_weights = None if weights is None else _validate.weight_list(weights)
        self._lock = threading.RLock()
        self.name = _unique_name(type(self)) if name is None else _validate.layer_name(name)

    # ---- weights ---------------------------------------------------------------------------

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace all weights, or none.

        Parameters
        ----------
        weights : sequence of array_like
            In the order and the shapes of `get_weights()`; copied, and cast to the layer's dtype.

        Raises
        ------
        ValueError
            If their number or a shape is not the layer's.
        TypeError
            If one of them is no array of numbers.
        """
        raise NotImplementedError

    def _counted(self, weights: Sequence[Any], wanted: int) -> Sequence[Any]:
        """As many weights as are wanted."""
        if len(weights) != wanted:
            raise ValueError(
                f"You called `set_weights(weights)` on layer {self.name!r} with a weight list of length "
                f"{len(weights)}, but the layer was expecting {wanted} weights."
            )
        return weights

    def get_weights(self) -> list[Array]:
        """Copies of the weights; an empty list before the layer is built."""
        return [array.copy() for array in self.weights]

    @property
    def weights(self) -> list[Array]:
        """The weights themselves, read-only: `set_weights` replaces them."""
        raise NotImplementedError

    @property
    def trainable_weights(self) -> list[Array]:
        """All weights, or none if the layer is not trainable."""
        return self.weights if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Array]:
        """The weights that are not in `trainable_weights`."""
        return [] if self.trainable else self.weights

    def count_params(self) -> int:
        """Number of weights, counted one by one.

        Raises
        ------
        ValueError
            If the layer is not built.
        """
        if not self.built:
            raise ValueError(f"You called `count_params` on layer {self.name}, but the layer isn't built.")
        return sum(array.size for array in self.weights)

    def apply_constraints(self) -> None:
        """Project every weight that has a constraint, as an optimizer does after each update.

        Arrays that `weights` has returned before keep their values.
        """
        raise NotImplementedError

    @property
    def losses(self) -> list[Any]:
        """Losses of the last call's activity, then those of the weights, in their order."""
        raise NotImplementedError

    # ---- plain facts -----------------------------------------------------------------------

    @property
    def built(self) -> bool:
        """Does the layer have its weights?"""
        raise NotImplementedError

    @property
    def dtype(self) -> str:
        """Name of the type of weights, input and output."""
        return self._dtype.name

    @property
    def trainable(self) -> bool:
        """Would an optimizer change the weights?"""
        return self._trainable

    @trainable.setter
    def trainable(self, value: Any) -> None:
        self._trainable = _validate.trainable(value)

    @property
    def supports_masking(self) -> bool:
        """Does the layer take masks? Yes."""
        return True

    def _inner(self) -> "list[Layer]":
        """The layers that this one is made of, and what they are made of."""
        return []

    # ---- streams ---------------------------------------------------------------------------

    def stream(self, batch: int = 1) -> "Stream":
        """A `fastgru.Stream`: the layer's state, advanced as inputs arrive, a step or more at a time.

        Parameters
        ----------
        batch : int
            Rows that are advanced together.

        Raises
        ------
        ValueError
            If the layer is not built, reads sequences from their end (Bidirectional, `go_backwards`) or has a
            `default_state` of another batch, or `batch` is less than 1.
        TypeError
            If `batch` is no integer.
        """
        from fastgru.streaming import Stream  # it is made of layers

        return Stream(self, batch)

    # ---- config and copies -----------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": self.dtype}
        if self._batch_input_shape is not None:
            config["batch_input_shape"] = self._batch_input_shape
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A layer from the result of `get_config`, ours or Keras' own, which is left as it is.

        Raises
        ------
        ValueError, TypeError
            As the constructor.
        """
        return cls(**config)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()


class WeightedLayer(Layer):
    """A layer with weights of its own, which are replaced as a whole, never written into.

    So a call that has taken hold of them sees one set to its end, whatever other threads do.
    """

    activity_regularizer: Any = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._specs: tuple[Weight, ...] = ()
        self._weights: tuple[Array, ...] = ()
        self._plan: Any = None
        self._activity_losses: list[Any] = []

    @property
    def built(self) -> bool:
        return bool(self._specs)

    @property
    def weights(self) -> list[Array]:
        return [array.view() for array in self._weights]

    def _prepare(self, arrays: tuple[Array, ...]) -> Any:
        """What the layer computes with, from its weights; made before they are taken over."""
        raise NotImplementedError

    def _ready(self, values: Sequence[Any], specs: Sequence[Weight]) -> tuple[tuple[Array, ...], Any]:
        """Checked weights and what is computed with: all that may fail is done before `_take`."""
        arrays = tuple(
            _validate.weight(self.name, value, spec.shape, self._dtype)
            for value, spec in zip(self._counted(values, len(specs)), specs, strict=True)
        )
        return arrays, self._prepare(arrays) if arrays else None

    @property
    def _parts(self) -> "tuple[WeightedLayer, ...]":
        return (self,)

    def _in_order_of_weights(self) -> "list[WeightedLayer]":
        return [self]

    def _plans(self) -> list[Any]:
        return [self._plan]

    def _take(self, arrays: tuple[Array, ...], plan: Any) -> None:
        self._weights, self._plan = arrays, plan

    def _add_weights(self, specs: Sequence[Weight]) -> None:
        """Make the weights: the constructor's if it was given any, else by their initializers."""
        values = self._given_weights
        if values is None:
            with np.errstate(all="ignore"):  # what a dtype can't hold is infinite
                values = [spec.initializer(spec.shape, self._dtype) for spec in specs]
        self._take(*self._ready(values, specs))
        self._specs = tuple(specs)
        self._given_weights = None

    def set_weights(self, weights: Sequence[Any]) -> None:
        with self._lock:
            self._take(*self._ready(_validate.weight_list(weights), self._specs))

    def apply_constraints(self) -> None:
        with self._lock:
            self._take(*self._ready(self._projected(), self._specs))

    def _projected(self) -> list[Any]:
        """The weights as their constraints want them."""
        with np.errstate(all="ignore"):
            return [
                array if spec.constraint is None else spec.constraint(array)
                for array, spec in zip(self._weights, self._specs, strict=True)
            ]

    @property
    def losses(self) -> list[Any]:
        with self._lock:
            activity = self._activity_losses if self.activity_regularizer is not None else []
            weights = list(zip(self._weights, self._specs, strict=True))
        with np.errstate(all="ignore"):  # a loss may be infinite
            return activity + [s.regularizer(w) for w, s in weights if s.regularizer is not None]

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_plan"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._weights = tuple(map(_validate.frozen, self._weights))  # copies forget that
        self._plan = self._prepare(self._weights) if self.built else None


@contextlib.contextmanager
def _holding(locks: Sequence[threading.RLock]) -> Iterator[None]:
    """Hold all of them, taken in their order; each by a `with` of its own, which no interrupt leaves held."""
    if not locks:
        yield
        return
    with locks[0], _holding(locks[1:]):
        yield


class CompositeLayer(Layer):
    """A layer made of others, its members, which have the weights and change together or not at all."""

    _members: tuple[Any, ...]
    _parts: tuple[Any, ...]  # the layers with weights of their own, in the order of their states

    def _compose(self, members: Sequence[Any]) -> None:
        self._members = tuple(members)
        self._parts = tuple(part for member in members for part in member._parts)

    def _inner(self) -> list[Layer]:
        return [layer for member in self._members for layer in (member, *member._inner())]

    def _in_order_of_weights(self) -> list[WeightedLayer]:
        """Those layers in the order of `weights`."""
        return [part for member in self._members for part in member._in_order_of_weights()]

    def _plans(self) -> list[Any]:
        """What each of `_parts` computes with; all of one set of weights."""
        with self._lock:
            return [plan for member in self._members for plan in member._plans()]

    @contextlib.contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """No other thread changes a layer in this one meanwhile, and after a failure all are what they were.

        Weights and states are replaced here, never written into, so it is enough to know them. A layer may be
        in several others, so that all threads must take the locks in one order.
        """
        inner = self._inner()
        ordered = sorted(inner, key=lambda layer: (isinstance(layer, WeightedLayer), id(layer)))
        with _holding([self._lock, *(layer._lock for layer in ordered)]):
            before = [dict(vars(layer)) for layer in inner]
            try:
                yield
            except BaseException:
                for layer, attributes in zip(inner, before, strict=True):
                    vars(layer).update(attributes)
                raise

    @property
    def built(self) -> bool:
        return all(part.built for part in self._parts)

    @property
    def weights(self) -> list[Array]:
        with self._lock:
            return [array for part in self._in_order_of_weights() for array in part.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        values = _validate.weight_list(weights)
        with self._all_or_none():
            parts = self._in_order_of_weights()
            values = list(self._counted(values, sum(len(part._specs) for part in parts)))
            self._replace([[values.pop(0) for _ in part._specs] for part in parts])

    def apply_constraints(self) -> None:
        with self._all_or_none():
            self._replace([part._projected() for part in self._in_order_of_weights()])

    def _replace(self, weights: Sequence[Sequence[Any]]) -> None:
        """The weights of all, in their order; all that may fail is done before the first is replaced."""
        parts = self._in_order_of_weights()
        ready = [part._ready(values, part._specs) for part, values in zip(parts, weights, strict=True)]
        for part, (arrays, plan) in zip(parts, ready, strict=True):
            part._take(arrays, plan)

    @property
    def losses(self) -> list[Any]:
        with self._lock:
            return [loss for member in self._members for loss in member.losses]

    @property
    def states(self) -> list[Array | None]:
        """States of the layers in it, as `GRU.states`, in their order; of a Bidirectional, forward first."""
        with self._lock:
            return [state for member in self._members for state in member.states]

    def _needs_all(self, training: bool) -> bool:
        """Must a call be alone with the layers in this one, as it may change them or draw numbers?"""
        return (
            training
            or not self.built
            or any(part.stateful or part.activity_regularizer is not None for part in self._parts)
        )

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:  # all from between the same calls
            state = super().__getstate__() | {"_members": tuple(map(copy.copy, self._members))}
        del state["_parts"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._compose(self._members)
