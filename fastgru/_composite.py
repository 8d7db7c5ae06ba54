"""A layer made of other layers."""

import copy
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from fastgru import _validate
from fastgru._calls import commit
from fastgru._layer import Layer
from fastgru._member import WeightedMember
from fastgru._validate import InputSpec

Array = NDArray[Any]


class CompositeLayer(Layer):
    """A layer made of others, its members. They hold the weights, and change together or not at all."""

    _members: tuple[Any, ...]

    def _compose(self, members: Sequence[Any]) -> None:
        self._members = tuple(members)
        self._all_parts = tuple(part for member in members for part in member._parts)

    @property
    def _parts(self) -> tuple[WeightedMember, ...]:
        return self._all_parts

    def _inner(self) -> list[Any]:
        return [layer for member in self._members for layer in (member, *member._inner())]

    def _in_order_of_weights(self) -> list[WeightedMember]:
        return [part for member in self._members for part in member._in_order_of_weights()]

    @property
    def built(self) -> bool:
        return all(part.built for part in self._parts)

    @property
    def weights(self) -> list[Array]:
        with self._alone():
            return [array for part in self._in_order_of_weights() for array in part.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        values = _validate.weight_list(weights)
        with self._alone():
            parts = self._in_order_of_weights()
            values = list(self._counted(values, sum(len(part._specs) for part in parts)))
            self._replace([[values.pop(0) for _ in part._specs] for part in parts])

    def apply_constraints(self) -> None:
        with self._alone():
            self._replace([part._projected() for part in self._in_order_of_weights()])

    def _replace(self, weights: Sequence[Sequence[Any]]) -> None:
        """Replace the weights of all parts; everything that may fail is done before the first one."""
        parts = self._in_order_of_weights()
        ready = [part._replaced(values) for part, values in zip(parts, weights, strict=True)]
        commit(
            [change for part, made in zip(parts, ready, strict=True) for change in part._changes(made)],
            list(parts),
        )

    @property
    def input_spec(self) -> list[InputSpec]:
        """What a call expects of its inputs: their rank, and once built the shape."""
        spec: list[InputSpec] = self._members[0].input_spec
        return spec

    @property
    def losses(self) -> list[Any]:
        with self._alone():
            return [loss for member in self._members for loss in member.losses]

    @property
    def states(self) -> list[Array | None]:
        """States of the layers in it, as `GRU.states`, in their order; of a Bidirectional, forward first."""
        with self._alone():
            return [state for member in self._members for state in member.states]

    def __getstate__(self) -> dict[str, Any]:
        with self._alone():  # all from between the same calls
            state = super().__getstate__() | {"_members": tuple(map(copy.copy, self._members))}
        del state["_all_parts"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._compose(self._members)
