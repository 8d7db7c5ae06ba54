"""A layer with weights of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import _validate
from fastgru._calls import commit
from fastgru._layer import Layer
from fastgru._member import Built, Weight, WeightedMember

Array = NDArray[Any]


class WeightedLayer(WeightedMember, Layer):
    """A layer with weights of its own, which are replaced as a whole, never written into.

    So a running call uses one set of weights to its end, whatever other threads do.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._specs: tuple[Weight, ...] = ()
        self._weights: tuple[Array, ...] = ()
        self._plan: Any = None
        self._scales: Array | None = None
        self._activity_losses: list[Any] = []

    @property
    def built(self) -> bool:
        return bool(self._specs)

    @property
    def weights(self) -> list[Array]:
        return [array.view() for array in self._weights]

    def _prepare(self, arrays: tuple[Array, ...], scales: Array | None) -> Any:
        """The plan or loop for these weights, made before they replace others."""
        raise NotImplementedError

    def _ready(
        self, values: Sequence[Any], specs: Sequence[Weight], scales: Array | None = None
    ) -> tuple[tuple[Array, ...], Any]:
        arrays = tuple(
            _validate.weight(self.name, value, spec.shape, self._dtype)
            for value, spec in zip(self._counted(values, len(specs)), specs, strict=True)
        )
        return arrays, self._prepare(arrays, scales) if arrays else None

    @property
    def _parts(self) -> tuple[WeightedMember, ...]:
        return (self,)

    @property
    def _others(self) -> tuple[WeightedMember, ...]:
        return ()

    def _in_order_of_weights(self) -> list[WeightedMember]:
        return [self]

    @property
    def _drops(self) -> bool:
        return bool(self.dropout or self.recurrent_dropout)

    def _changes(self, built: Built) -> list[tuple[Any, str, Any]]:
        changes: list[tuple[Any, str, Any]] = [
            (self, "_specs", tuple(built.specs)),
            (self, "_weights", built.arrays),
            (self, "_plan", built.plan),
            (self, "_scales", built.scales),
            (self, "_given_weights", None),
        ]
        return changes if built.state is None else [*changes, (self, "_state", built.state)]

    def _made(self, specs: Sequence[Weight], state: Array | None, scales: Array | None = None) -> Built:
        """The first weights: the constructor's if it was given any, else by their initializers."""
        values = self._given_weights
        if values is None:
            with np.errstate(all="ignore"):  # what a dtype can't hold is infinite
                values = [spec.initializer(spec.shape, self._dtype) for spec in specs]
        return Built(specs, *self._ready(values, specs, scales), state, scales)

    def _as_built(self) -> Built:
        return Built(self._specs, self._weights, self._plan, self._state, self._scales)

    def _replaced(self, values: Sequence[Any]) -> Built:
        return Built(self._specs, *self._ready(values, self._specs), None)

    def set_weights(self, weights: Sequence[Any]) -> None:
        with self._lock:
            commit(self._changes(self._replaced(_validate.weight_list(weights))), [self])

    def apply_constraints(self) -> None:
        with self._lock:
            commit(self._changes(self._replaced(self._projected())), [self])

    def _projected(self) -> list[Any]:
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
        with self._lock:  # a recorded state is replaced, never written into
            state = super().__getstate__() | {"_state": self._state}
        del state["_plan"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        self._state = state.pop("_state")
        super().__setstate__(state)
        self._weights = tuple(map(_validate.frozen, self._weights))  # copies forget that
        self._plan = self._prepare(self._weights, self._scales) if self.built else None
