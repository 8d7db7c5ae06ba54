"""Which axes of a graph's values are the batch, timesteps and features: as its operators use them.

An axis is a variable. Operators say which axes of their inputs and outputs are the same, and some say what
they are: the first axis of a GRU's X is time, and so is then that of an input that becomes X by elementwise
operators and transpositions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fastgru.formats import _onnx_graph
from fastgru.formats._onnx_fold import Folder
from fastgru.formats._onnx_graph import Given, Output

Key = Any
MOST = 8  # axes of a value
SAME = frozenset(
    (
        *(
            "Relu",
            "LeakyRelu",
            "Elu",
            "Selu",
            "Sigmoid",
            "HardSigmoid",
            "Tanh",
            "Softplus",
            "Softsign",
            "PRelu",
        ),
        *("Clip", "Softmax", "LogSoftmax", "BatchNormalization", "LayerNormalization", "Identity", "Dropout"),
        *("Cast", "Neg", "Exp", "Pad", "Slice", "Split", "ReverseSequence", "Mish", "HardSwish"),
        *("ThresholdedRelu", "Gelu", "Celu", "Swish", "Sqrt", "Abs", "Pow"),
    )
)
MERGING = frozenset(("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"))
WINDOWS = frozenset(("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"))
REDUCING = frozenset(("ReduceMean", "ReduceMax", "ReduceSum"))


def key_of(value: Any) -> Key:
    """A key that identifies a value."""
    return (id(value.node), id(value.inside), value.number) if isinstance(value, Output) else id(value)


class Roles:
    """Finds the roles of axes.

    Parameters
    ----------
    folder : Folder
        Of constants.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._parent: list[int] = []
        self._role: dict[int, str] = {}
        self._new: set[int] = set()  # of the size 1, added by an operator
        self._axes: dict[Key, list[int]] = {}
        self._added: list[tuple[Output, int]] = []  # new axes of outputs

    # ---- what is found ---------------------------------------------------------------------

    def of(self, value: Any) -> list[str | None]:
        """The role of each axis: b, t, f, or g for groups; None: unknown."""
        return [self._role.get(self._root(axis)) for axis in self._axes.get(key_of(value), [])]

    def frames(self) -> set[Key]:
        """Inputs that an operator makes sequences of one timestep of."""
        found: set[Key] = set()
        for value, axis in self._added:
            if self._role.get(self._root(axis)) == "t":
                found |= self._inputs_of(value)
        return found

    def _inputs_of(self, value: Output) -> set[Key]:
        pending: list[Any] = [value]
        seen, found = set(), set()
        while pending:
            top = pending.pop()
            if key_of(top) in seen:
                continue
            seen.add(key_of(top))
            if isinstance(top, Given):
                found.add(key_of(top))
            elif isinstance(top, Output):
                names = [name for name in top.node.input if name]
                if _onnx_graph.is_gru(top.node):
                    names = names[:1]
                pending += [_onnx_graph.find(top.inside.scope, name) for name in names]
        return {key for key in found if "t" not in [self._role.get(self._root(a)) for a in self._axes[key]]}

    # ---- variables -------------------------------------------------------------------------

    def _fresh(self, role: str | None = None) -> int:
        self._parent.append(len(self._parent))
        if role:
            self._role[len(self._parent) - 1] = role
        return len(self._parent) - 1

    def _root(self, axis: int) -> int:
        while self._parent[axis] != axis:
            self._parent[axis] = self._parent[self._parent[axis]]
            axis = self._parent[axis]
        return axis

    def _unite(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        if one == other:
            return
        role = self._role.get(one) or self._role.get(other)
        self._parent[other] = one
        if role:
            self._role[one] = role

    def _is(self, axis: int, role: str) -> None:
        self._role.setdefault(self._root(axis), role)

    # ---- values ----------------------------------------------------------------------------

    def given(self, value: Given) -> list[int] | None:
        """Note an input of the model; its axes, or None if the file does not say how many there are."""
        kind = value.value.type.tensor_type
        if not kind.HasField("shape") or len(kind.shape.dim) > MOST:
            return None
        return self._axes.setdefault(key_of(value), [self._fresh() for _ in kind.shape.dim])

    def finish(self, inputs: Iterable[tuple[Given, bool]]) -> None:
        """Give the usual roles to axes of inputs that no operator says anything about; True: of integers."""
        for value, is_integer in inputs:
            axes = self._axes.get(key_of(value), [])
            taken = [self._role.get(self._root(axis)) for axis in axes]
            usual = {1: "b", 2: "bt" if is_integer else "bf", 3: "btf"}.get(len(axes), "")
            if len(axes) == 2 and not is_integer and "t" in taken:
                usual = "bt"
            missing = [role for role in usual if role not in taken]
            for axis, role in zip(axes, taken, strict=True):
                if role is None and missing:
                    self._is(axis, missing.pop(0))

    def node(self, node: Any, inside: Any) -> None:
        """Note what a node says of axes; its inputs have been noted."""
        sources = [_onnx_graph.find(inside.scope, name) if name else None for name in node.input]
        found = [None if source is None else self._axes.get(key_of(source)) for source in sources]
        given = {a.name: a for a in _onnx_graph.attributes(node, inside.attributes)}
        kind = node.op_type
        if node.domain not in _onnx_graph.STANDARD:
            return
        outputs: list[Any] = []
        if _onnx_graph.is_gru(node) and found and (found[0] is None or len(found[0]) != 3):
            found[0] = [self._fresh() for _ in range(3)]
        if kind in MERGING:
            outputs = [self._merged([axes for axes in found if axes is not None])]
        elif kind == "Concat":
            outputs = [self._joined([axes for axes in found if axes is not None])]
        elif (found and found[0] is not None) or kind == "Gather":
            rule: Rule | None = RULES.get(kind)
            if kind in SAME:
                outputs = [found[0]] * len(node.output)
            elif rule:
                outputs = rule(self, found, sources, given)
            elif kind == "MatMul" and found[0]:
                self._is(found[0][-1], "f")
                outputs = [[*found[0][:-1], self._fresh("f")]]
        for number, axes in enumerate(outputs[: len(node.output)]):
            if axes is not None and len(axes) <= MOST:
                value = Output(node, number, inside)
                self._axes[key_of(value)] = axes
                self._added += [(value, axis) for axis in axes if axis in self._new]

    def same(self, source: Any, value: Any) -> None:
        """Note that a value has the axes of another one."""
        axes = self._axes.get(key_of(source))
        if axes is not None:
            self._axes[key_of(value)] = axes

    def loop(self, sequence: Any, initial: Any, values: Sequence[Any], is_time_major: bool) -> None:
        """Note what a loop that is a GRU reads, and its values: the sequence and the last state."""
        x = self._axes.get(key_of(sequence)) or [self._fresh() for _ in range(3)]
        if len(x) != 3:
            return
        time, batch = (x[0], x[1]) if is_time_major else (x[1], x[0])
        for axis, role in ((time, "t"), (batch, "b"), (x[2], "f")):
            self._is(axis, role)
        state = self._axes.get(key_of(initial))
        if state is not None and len(state) == 2:
            self._unite(state[0], batch)
            self._is(state[1], "f")
        units = self._fresh("f")
        for value, axes in zip(values, ([*x[:2], units], [batch, units]), strict=True):
            if value is not None:
                self._axes[key_of(value)] = axes

    def _merged(self, inputs: Sequence[list[int]]) -> list[int] | None:
        """Axes of what is broadcast to each other."""
        if not inputs:
            return None
        longest = [*max(inputs, key=len)]
        for axes in inputs:
            for place in range(1, len(axes) + 1):
                if longest[-place] in self._new:
                    longest[-place] = axes[-place]
                elif axes[-place] not in self._new:
                    self._unite(longest[-place], axes[-place])
        return longest

    def _joined(self, inputs: Sequence[list[int]]) -> list[int] | None:
        if not inputs or len({len(axes) for axes in inputs}) > 1:
            return None
        for axes in inputs[1:]:
            for one, other in zip(inputs[0], axes, strict=True):
                if one not in self._new and other not in self._new:
                    self._unite(one, other)
        return inputs[0]

    def _list(self, given: Mapping[str, Any], sources: Sequence[Any]) -> list[int] | None:
        """Axes that are an attribute or the second input."""
        if "axes" in given:
            return [*given["axes"].ints][:MOST]
        return self._constant(sources)

    def _constant(self, sources: Sequence[Any], number: int = 1) -> list[int] | None:
        if len(sources) <= number or sources[number] is None:
            return None
        found = self._folder.value(sources[number])
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu" or found.size > 64:
            return None
        return [int(each) for each in found.ravel()]

    # ---- rules: the axes of outputs --------------------------------------------------------

    def gru(self, found: Any, sources: Any, given: Mapping[str, Any]) -> list[Any]:
        axes, batch_first = found[0], bool(given["layout"].i) if "layout" in given else False
        if len(axes) != 3:
            return []
        time, batch = (axes[1], axes[0]) if batch_first else (axes[0], axes[1])
        for axis, role in ((time, "t"), (batch, "b"), (axes[2], "f")):
            self._is(axis, role)
        state = found[5] if len(found) > 5 else None
        if state is not None and len(state) == 3:
            self._is(state[1 if batch_first else 0], "g")
            self._unite(state[0 if batch_first else 1], batch)
            self._is(state[2], "f")
        if len(found) > 4 and found[4] and len(found[4]) == 1:
            self._unite(found[4][0], batch)
        groups, units = self._fresh("g"), self._fresh("f")
        if batch_first:
            return [[batch, time, groups, units], [batch, groups, units]]
        return [[time, groups, batch, units], [groups, batch, units]]

    def transpose(self, found: Any, sources: Any, given: Mapping[str, Any]) -> list[Any]:
        axes = found[0]
        perm = [*given["perm"].ints] if "perm" in given else [*reversed(range(len(axes)))]
        return [[axes[i] for i in perm]] if sorted(perm) == [*range(len(axes))] else []

    def squeeze(self, found: Any, sources: Any, given: Mapping[str, Any]) -> list[Any]:
        gone, rank = self._list(given, sources), len(found[0])
        if gone is None:
            return []
        places = {axis % rank for axis in gone if rank and -rank <= axis < rank}
        return [[axis for place, axis in enumerate(found[0]) if place not in places]]

    def unsqueeze(self, found: Any, sources: Any, given: Mapping[str, Any]) -> list[Any]:
        added = self._list(given, sources)
        rank = len(found[0]) + len(added or [])
        if not added or any(not -rank <= axis < rank for axis in added):
            return []
        places, old = {axis % rank for axis in added}, iter(found[0])
        if len(places) < len(added):
            return []
        return [[self._one() if place in places else next(old) for place in range(rank)]]

    def _one(self) -> int:
        axis = self._fresh()
        self._new.add(axis)
        return axis

    def reduced(self, found: Any, sources: Any, given: Mapping[str, Any]) -> list[Any]:
        gone = self._list(given, sources)
        rank = len(found[0])
        keeps = given["keepdims"].i if "keepdims" in given else 1
        places = {axis % rank for axis in gone or range(rank) if -rank <= axis < rank}
        if keeps:
            return [[self._one() if place in places else axis for place, axis in enumerate(found[0])]]
        return [[axis for place, axis in enumerate(found[0]) if place not in places]]

    def windows(self, found: Any, sources: Any, given: Mapping[str, Any]) -> list[Any]:
        batch, channels, *spatial = found[0]
        self._is(batch, "b")
        self._is(channels, "f")
        if len(spatial) == 1:
            self._is(spatial[0], "t")
        return [[batch, self._fresh("f"), *spatial]]

    def repeated(self, found: Any, sources: Any, given: Mapping[str, Any]) -> list[Any]:
        """Axes of one become others."""
        return [[self._fresh() if axis in self._new else axis for axis in found[0]]]

    def gemm(self, found: Any, sources: Any, given: Mapping[str, Any]) -> list[Any]:
        if len(found[0]) != 2:
            return []
        self._is(found[0][1], "f")
        return [[found[0][0], self._fresh("f")]]

    def gather(self, found: Any, sources: Any, given: Mapping[str, Any]) -> list[Any]:
        data, indices = [*found, None, None][:2]
        axis = given["axis"].i if "axis" in given else 0
        if data is not None and indices is None:
            index = self._folder.value(sources[1]) if len(sources) > 1 else None
            if not isinstance(index, np.ndarray) or index.ndim > 1 or not -len(data) <= axis < len(data):
                return []
            axis %= len(data)
            return [data if index.ndim else data[:axis] + data[axis + 1 :]]
        if data is None and indices is not None:
            return [[*indices, self._fresh("f")]]
        return []

    def reshape(self, found: Any, sources: Any, given: Mapping[str, Any]) -> list[Any]:
        """Axes whose sizes are open are the same before and after; sizes are made up to see that."""
        wanted = self._constant(sources)
        axes = found[0]
        if wanted is not None:
            return [
                [
                    axes[place] if size == 0 and place < len(axes) else self._fresh()
                    for place, size in enumerate(wanted[:MOST])
                ]
            ]
        if len(sources) < 2:
            return []
        worlds = []
        for sizes in self._folder.apart:
            shape, target = self._folder.shape(sources[0], sizes), self._folder.value(sources[1], sizes)
            if not isinstance(target, np.ndarray) or target.ndim != 1 or len(target) > MOST:
                return []
            if shape is None or len(shape) != len(axes):
                return []
            worlds.append((shape, [int(size) for size in target]))
        (first, one), (second, other) = worlds
        made = []
        for pair in zip(one, other, strict=False):
            same = [
                axis
                for axis, size in zip(axes, zip(first, second, strict=True), strict=False)
                if size == pair and pair[0] != pair[1]
            ]
            made.append(same[0] if len(same) == 1 else self._fresh())
        return [made]


Rule = Callable[[Roles, Any, Any, Mapping[str, Any]], list[Any]]
RULES: dict[str, Rule] = {
    "GRU": Roles.gru,
    "Gather": Roles.gather,
    "Gemm": Roles.gemm,
    "Reshape": Roles.reshape,
    "Squeeze": Roles.squeeze,
    "Transpose": Roles.transpose,
    "Unsqueeze": Roles.unsqueeze,
    **dict.fromkeys(("Expand", "Tile"), Roles.repeated),
    **dict.fromkeys(REDUCING, Roles.reduced),
    **dict.fromkeys(WINDOWS, Roles.windows),
}
