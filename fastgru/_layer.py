"""What any Keras layer has, whatever it computes: a name, a dtype, weights, losses, a config."""

import itertools
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import _validate

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


class Layer:
    """A layer whose weights are replaced as a whole, never written into.

    So a call that has taken hold of them sees one set to its end, whatever other threads do.
    """

    activity_regularizer: Any = None

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
        self._specs: tuple[Weight, ...] = ()
        self._weights: tuple[Array, ...] = ()
        self._plan: Any = None
        self._activity_losses: list[Any] = []
        self._lock = threading.RLock()
        self.name = _unique_name(type(self)) if name is None else _validate.layer_name(name)

    # ---- weights ---------------------------------------------------------------------------

    def _prepare(self, arrays: tuple[Array, ...]) -> Any:
        """What the layer computes with, from its weights; made before they are taken over."""
        raise NotImplementedError

    def _take(self, arrays: Sequence[Array]) -> None:
        """Take over checked weights: all, or none if `_prepare` fails."""
        plan = self._prepare(tuple(arrays)) if arrays else None
        self._weights, self._plan = tuple(arrays), plan

    def _add_weights(self, specs: Sequence[Weight]) -> None:
        """Make the weights: the constructor's if it was given any, else by their initializers."""
        if self._given_weights is not None:
            arrays = self._checked(self._given_weights, specs)
        else:
            with np.errstate(all="ignore"):  # what a dtype can't hold is infinite
                values = [spec.initializer(spec.shape, self._dtype) for spec in specs]
            arrays = self._checked(values, specs)
        self._take(arrays)
        self._specs = tuple(specs)
        self._given_weights = None

    def _checked(self, values: Sequence[Any], specs: Sequence[Weight]) -> list[Array]:
        if len(values) != len(specs):
            raise ValueError(
                f"You called `set_weights(weights)` on layer {self.name!r} with a weight list of length "
                f"{len(values)}, but the layer was expecting {len(specs)} weights."
            )
        return [
            _validate.weight(self.name, value, spec.shape, self._dtype)
            for value, spec in zip(values, specs, strict=True)
        ]

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
        with self._lock:
            self._take(self._checked(_validate.weight_list(weights), self._specs))

    def get_weights(self) -> list[Array]:
        """Copies of the weights; an empty list before the layer is built."""
        return [array.copy() for array in self._weights]

    @property
    def weights(self) -> list[Array]:
        """The weights themselves, read-only: `set_weights` replaces them."""
        return [array.view() for array in self._weights]

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
        return sum(array.size for array in self._weights)

    def apply_constraints(self) -> None:
        """Project every weight that has a constraint, as an optimizer does after each update.

        Arrays that `weights` has returned before keep their values.
        """
        with self._lock:
            with np.errstate(all="ignore"):
                projected = [
                    array if spec.constraint is None else spec.constraint(array)
                    for array, spec in zip(self._weights, self._specs, strict=True)
                ]
            self._take(self._checked(projected, self._specs))

    # ---- plain facts -----------------------------------------------------------------------

    @property
    def built(self) -> bool:
        """Does the layer have its weights?"""
        return bool(self._specs)

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

    @property
    def losses(self) -> list[Any]:
        """Losses of the last call's activity, then those of the weights, in their order."""
        with self._lock:
            activity = self._activity_losses if self.activity_regularizer is not None else []
            weights = list(zip(self._weights, self._specs, strict=True))
        with np.errstate(all="ignore"):  # a loss may be infinite
            return activity + [s.regularizer(w) for w, s in weights if s.regularizer is not None]

    # ---- config and copies -----------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": self.dtype}
        if self._batch_input_shape is not None:
            config["batch_input_shape"] = self._batch_input_shape
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A layer from the result of `get_config`, ours or Keras' own, which is left as it is."""
        return cls(**config)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_plan")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()
        self._weights = tuple(map(_validate.frozen, self._weights))  # copies forget that
        self._plan = self._prepare(self._weights) if self.built else None
