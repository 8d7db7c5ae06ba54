"""The nodes of a model while an ONNX graph is read: one operator after the other becomes some of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru._nodes import Node
from fastgru.formats import _onnx_graph
from fastgru.formats._onnx_fold import NODE, Folder, Kind, Sizes, Unknown
from fastgru.formats._onnx_graph import Inside
from fastgru.formats._onnx_layouts import Axis, OperatorError, Steps, Tracked

Array = NDArray[Any]


class Open(NamedTuple):
    """A value that depends on the sizes of inputs, and not on their numbers."""

    source: Any


class Builder:
    """Adds nodes, and keeps what is known of their values.

    Parameters
    ----------
    folder : Folder
        Of constants.
    roles : mapping
        The roles of axes that an operator adds, as `_onnx_roles` finds them.
    batch : int or None
        The one that the model has; None: any.
    dtype : str
        That everything is computed in.
    weights_dtype : str or None
        That weights are packed as.

    Attributes
    ----------
    first : str
        The name of the first input that has timesteps.
    worlds : tuple of (Sizes, Sizes)
        Two choices of all sizes that the file leaves open: what is true of both is taken to be true of any.
    """

    def __init__(
        self, folder: Folder, roles: Any, batch: int | None, dtype: str, weights_dtype: str | None
    ) -> None:
        self.folder, self.roles, self.batch, self.dtype = folder, roles, batch, dtype
        self.weights_dtype, self.first = weights_dtype, ""
        self.nodes: list[Node] = []
        self.worlds = Sizes(1021, apart=True), Sizes(4093, apart=True)
        self._names: set[str] = set()

    def name(self, wanted: str) -> str:
        """A name that no value has yet, as near to the wanted one as can be."""
        found, number = wanted, 1
        while found in self._names:
            number += 1
            found = f"{wanted}#{number}"
        self._names.add(found)
        return found

    def note(self, source: Any, x: Tracked) -> None:
        """Let constants be computed from a value's shape."""
        batch = self.batch
        self.folder.note(source, lambda sizes: x.shape(sizes, batch))


class Operator:
    """A node of the graph that becomes nodes of the network.

    Parameters
    ----------
    builder : Builder
    node : onnx.NodeProto
    inside : Inside
    inputs : sequence of (Tracked, ndarray, Open or None)
        What it reads.

    Attributes
    ----------
    kind : str
    given : mapping
        Its attributes by name.
    """

    def __init__(self, builder: Builder, node: Any, inside: Inside, inputs: Sequence[Any]) -> None:
        self.builder, self.node, self.inside, self.inputs = builder, node, inside, inputs
        self.kind = node.op_type
        self.given: Mapping[str, Any] = builder.folder.attributes(node, inside)
        self.sources = [_onnx_graph.find(inside.scope, name) if name else None for name in node.input]

    # ---- what it is given ------------------------------------------------------------------

    @property
    def values(self) -> list[Tracked]:
        """The values of the network that it reads."""
        return [each for each in self.inputs if isinstance(each, Tracked)]

    def value(self, number: int = 0, padded: bool = False, turned: bool = False) -> Tracked:
        """A value of numbers; zeros may be added to it if `padded`, and time reversed if `turned`."""
        x = self.inputs[number] if number < len(self.inputs) else None
        if not isinstance(x, Tracked):
            raise OperatorError(
                f"its input {number} must be computed from an input of the model, got a constant"
            )
        if x.indices:
            raise OperatorError(
                "it reads an input of integers, which only a Gather may read, as an embedding"
            )
        if any(x.pads) and not padded:
            raise OperatorError("it reads what a Pad returns, which only a Conv may read")
        if x.turned and not turned:
            raise OperatorError("it reads a value that is reversed in time, which only a GRU may read")
        return x

    def has(self, number: int) -> bool:
        """True if there is an input of this number."""
        return number < len(self.inputs) and self.inputs[number] is not None

    def constant(self, number: int, what: str) -> Array:
        """A constant."""
        found = self.inputs[number] if number < len(self.inputs) else None
        if not isinstance(found, np.ndarray):
            raise OperatorError(f"{what} must be a constant of the file")
        return found

    def floats(self, number: int, what: str) -> Array:
        """A constant of numbers, which are finite."""
        found = self.constant(number, what)
        if found.dtype.name == "bfloat16":
            found = found.astype(np.float32)
        if found.dtype.kind not in "fiu" or not np.isfinite(found).all():
            raise OperatorError(f"{what} must be finite numbers, got {found.dtype}")
        return found

    def integers(self, number: int, what: str, limit: int | None = 64) -> list[int]:
        """A constant of integers, at most `limit`."""
        found = self.constant(number, what)
        if found.dtype.kind not in "iu" or found.ndim > 1 or (limit and found.size > limit):
            raise OperatorError(f"{what} must be a few integers, got {found.dtype} {found.shape}")
        return [int(each) for each in found.ravel()]

    def number(self, name: str, default: float) -> float:
        """An attribute that is a float."""
        found = float(self.given[name].f) if name in self.given else default
        if not np.isfinite(found):
            raise OperatorError(f"{name} must be finite, got {found}")
        return found

    def integer(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        return int(self.given[name].i) if name in self.given else default

    def numbers(self, name: str) -> list[int] | None:
        """An attribute that is a list of integers; None: it is missing."""
        return [int(each) for each in self.given[name].ints] if name in self.given else None

    def text(self, name: str, default: str) -> str:
        """An attribute that is a text."""
        return self.given[name].s.decode("utf-8", "replace") if name in self.given else default

    def axes(self, number: int) -> list[int] | None:
        """Axes, which are an attribute or, in newer opsets, an input."""
        if "axes" in self.given:
            return self.numbers("axes")
        return self.integers(number, "its axes") if self.has(number) else None

    def told(self, number: int, what: str, limit: int | None = 64) -> list[list[int]]:
        """Integers, at most `limit`, which may depend on open sizes: those in each of both worlds."""
        found = self.inputs[number] if number < len(self.inputs) else None
        if isinstance(found, np.ndarray):
            return [self.integers(number, what, limit)] * 2
        if not isinstance(found, Open):
            raise OperatorError(f"{what} must be a constant, or computed from the sizes of inputs")
        made = [self.builder.folder.value(found.source, sizes) for sizes in self.builder.worlds]
        for each in made:
            if isinstance(each, Unknown | Kind) or each.dtype.kind not in "iu" or each.ndim > 1:
                raise OperatorError(f"{what} must be integers that the sizes of inputs determine")
        return [[int(size) for size in each.ravel()] for each in made]

    # ---- what it makes ---------------------------------------------------------------------

    def add(
        self,
        kind: type[Node],
        inputs: Sequence[Tracked],
        axes: Sequence[Axis],
        width: int,
        steps: Steps | None,
        **fields: Any,
    ) -> Tracked:
        """Add a node that writes one value of these axes."""
        return self.add_all(kind, inputs, [(axes, width, steps)], **fields)[0]

    def add_all(
        self,
        kind: type[Node],
        inputs: Sequence[Tracked],
        outputs: Sequence[tuple[Sequence[Axis], int, Steps | None]],
        **fields: Any,
    ) -> list[Tracked]:
        """Add a node that writes several values."""
        builder = self.builder
        builder.folder.spend(NODE)
        own = next(iter(filter(None, self.node.output)), self.kind)
        made = [
            Tracked(builder.name(self.inside.prefix + own), tuple(axes), width, steps)
            for axes, width, steps in outputs
        ]
        label = self.inside.prefix + (self.node.name or own)
        names = tuple(x.name for x in inputs)
        node = kind(name=label, inputs=names, outputs=tuple(x.name for x in made), **fields)
        builder.nodes.append(node)
        return made

    def like(self, kind: type[Node], x: Tracked, **fields: Any) -> Tracked:
        """Add a node that writes what has the axes of x."""
        return self.add(kind, [x], x.axes, x.width, x.steps, **fields)

    def along(self, x: Tracked, number: int) -> Tracked:
        """x, of which an axis must be that of all features."""
        x = x.featured(number)
        if x.axes[number] != "f" or x.groups > 1:
            raise OperatorError(
                f"it works along axis {number}, which is not that of the features, or only of a group of them"
            )
        return x

    def floats_of(self, array: Array) -> Array:
        """A constant as the model computes."""
        self.builder.folder.spend(array.size * 8)
        return np.array(array, self.builder.dtype)
