"""Operators of ONNX that change shapes: most only change what is known of axes, and compute nothing."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from fastgru import _nodes
from fastgru._nodes import Dense, Last, Pool, Repeat, Scale
from fastgru.formats import _onnx_operators
from fastgru.formats._onnx_build import Operator
from fastgru.formats._onnx_graph import Output
from fastgru.formats._onnx_layouts import Axis, OperatorError, Steps, Tracked, axis_of, said

ENDLESS = 1 << 31  # a bound of a Slice from here on is the end
Rule = Callable[[Operator], Sequence[Tracked]]


def transpose(of: Operator) -> list[Tracked]:
    """Any order of axes: nothing is moved until it must be."""
    (x,) = of.values
    rank = len(x.axes)
    perm = of.numbers("perm") or list(reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        raise OperatorError(f"its perm must be an order of {rank} axes, got {perm!s:.80}")
    return [x._replace(axes=tuple(x.axes[axis] for axis in perm))]


def squeeze(of: Operator) -> list[Tracked]:
    """Axes of the size 1."""
    (x,) = of.values
    rank = len(x.axes)
    gone = of.axes(1)
    if gone is None:
        places = {place for place, axis in enumerate(x.axes) if axis == 1}
    else:
        places = {axis_of(axis, rank) for axis in gone}
    return [without(of, x, places)]


def without(of: Operator, x: Tracked, places: set[int]) -> Tracked:
    """x without axes of the size 1."""
    for place in places:
        axis = x.axes[place]
        is_one = (
            axis == 1
            or (axis == "t" and x.steps is not None and x.steps.size == 1)
            or (axis == "b" and of.builder.batch == 1)
            or (axis == "f" and x.width == 1)
        )
        if not is_one:
            raise OperatorError(f"it removes {said(axis)}, which may have another size than 1")
    return x._replace(axes=tuple(axis for place, axis in enumerate(x.axes) if place not in places))


def unsqueeze(of: Operator) -> list[Tracked]:
    """With constant axes."""
    (x,) = of.values
    added = of.axes(1)
    if not added:
        raise OperatorError("its axes must be a list of integers")
    rank = len(x.axes) + len(added)
    places = {axis_of(axis, rank) for axis in added}
    old = iter(x.axes)
    roles = of.builder.roles.of(output_of(of))
    axes: list[Axis] = []
    for place in range(rank):
        if place in places:
            axes.append(_new_axis(of, x, roles[place] if place < len(roles) else None))
        else:
            axes.append(next(old))
    return [x._replace(axes=tuple(axes))]


def output_of(of: Operator) -> object:
    """The value of the graph that an operator writes."""
    return Output(of.node, 0, of.inside)


def _new_axis(of: Operator, x: Tracked, role: str | None) -> Axis:
    """What a new axis of the size 1 is."""
    if role == "t" and "t" not in x.axes and x.steps is not None and x.steps.size == 1:
        return "t"
    if role == "b" and "b" not in x.axes and of.builder.batch == 1:
        return "b"
    return "f" if "f" not in x.axes and x.features == 1 and role == "f" else 1


def flatten(of: Operator) -> list[Tracked]:
    """If it leaves the batch as it is, and joins timesteps only if their number is fixed."""
    x = of.value()
    axis = of.integer("axis", 1)
    rank = len(x.axes)
    if not -rank <= axis <= rank:
        raise OperatorError(f"its axis must be from {-rank} to {rank}, got {axis}")
    axis = axis % rank if axis < 0 else axis
    targets = []
    for sizes in of.builder.worlds:
        shape = x.shape(sizes, of.builder.batch)
        targets.append([math.prod(shape[:axis]), math.prod(shape[axis:])])
    return [reshaped(of, x, targets)]


def reshape(of: Operator) -> list[Tracked]:
    """To a constant shape, or one that is computed from the sizes of inputs, if it joins or splits
    neighbouring axes.
    """
    x = of.value()
    targets = []
    for sizes, wanted in zip(of.builder.worlds, of.told(1, "its shape"), strict=True):
        shape = x.shape(sizes, of.builder.batch)
        if not of.integer("allowzero", 0):
            wanted = [shape[i] if size == 0 and i < len(shape) else size for i, size in enumerate(wanted)]
        if wanted.count(-1) == 1:
            known = math.prod(size for size in wanted if size != -1)
            if known < 1 or math.prod(shape) % known:
                raise OperatorError(
                    f"it makes {wanted} of {shape}, which is not possible for every batch and number of "
                    "timesteps"
                )
            wanted = [math.prod(shape) // known if size == -1 else size for size in wanted]
        targets.append(wanted)
    return [reshaped(of, x, targets)]


def reshaped(of: Operator, x: Tracked, targets: Sequence[Sequence[int]]) -> Tracked:
    """x in another shape: `targets` are its sizes in both worlds. Axes are joined, cut, or stay."""
    batch = of.builder.batch
    shapes = [x.shape(sizes, batch) for sizes in of.builder.worlds]
    for shape, target in zip(shapes, targets, strict=True):
        if math.prod(shape) != math.prod(target) or len(target) > 8 or any(size < 1 for size in target):
            raise OperatorError(
                f"it makes {target!s:.80} of {shape!s:.80}, which is not possible for every batch and number "
                "of timesteps"
            )
    before = list(zip(*shapes, strict=True))
    after = list(zip(*targets, strict=True))
    roles = of.builder.roles.of(output_of(of))
    axes: list[Axis] = []
    old, i, j = x.axes, 0, 0
    while i < len(before) or j < len(after):
        first, last = [i, j], [i, j]
        left, right = (1, 1), (1, 1)
        if i < len(before) and j < len(after) and before[i] == after[j]:
            axes.append(old[i])
            i, j = i + 1, j + 1
            continue
        if j < len(after) and after[j] == (1, 1):
            axes.append(
                _new_axis(of, x._replace(axes=(*x.axes, *axes)), roles[j] if j < len(roles) else None)
            )
            j += 1
            continue
        if i < len(before) and before[i] == (1, 1):
            without(of, x._replace(axes=old), {i})
            i += 1
            continue
        while left != right or left == (1, 1):
            if all(a <= b for a, b in zip(left, right, strict=True)) and last[0] < len(before):
                left = (left[0] * before[last[0]][0], left[1] * before[last[0]][1])
                last[0] += 1
            elif last[1] < len(after):
                right = (right[0] * after[last[1]][0], right[1] * after[last[1]][1])
                last[1] += 1
            else:
                raise OperatorError("it changes axes in a way that is not known")
        part = [axis for axis in old[first[0] : last[0]] if axis != 1]
        sizes = [pair[0] for pair in after[first[1] : last[1]]]
        x, made = _regrouped(of, x, part, sizes, roles[first[1] : last[1]])
        axes += made
        i, j = last
    return x._replace(axes=tuple(axes))


def _regrouped(
    of: Operator, x: Tracked, part: list[Axis], sizes: list[int], roles: Sequence[str | None]
) -> tuple[Tracked, list[Axis]]:
    """What some neighbouring axes become if they are joined, or cut into these sizes."""
    rest = [place for place, size in enumerate(sizes) if size != 1]
    made: list[Axis] = [1] * len(sizes)
    groups = [axis for axis in part if isinstance(axis, int)]
    features = [axis for axis in part if axis == "f" or isinstance(axis, int)]
    if part == features and (not groups or part[: len(groups)] == groups):
        whole = x.groups == math.prod(groups)
        if len(rest) == 1 and whole:  # joined
            made[rest[0]] = "f"
            return x._replace(width=x.features, axes=_without_features(x)), made
        if len(rest) == 2 and whole and roles[rest[0] : rest[0] + 1] != ["t"]:  # cut
            made[rest[0]], made[rest[1]] = sizes[rest[0]], "f"
            return x._replace(width=sizes[rest[1]], axes=_without_features(x)), made
        if len(rest) == 2 and whole and x.steps is None:
            steps = Steps(x.name, sizes[rest[0]])
            made[rest[0]], made[rest[1]] = "t", "f"
            shape = sizes[rest[0]], sizes[rest[1]]
            return of.add(_nodes.Reshape, [x], made, shape[1], steps, shape=shape), made
    if part in (["b", "t"], ["t", "b"]) and len(rest) == 1:
        made[rest[0]] = "".join(map(str, part))
        return x, made
    if part in (["bt"], ["tb"]) and len(rest) == 2:
        for place, letter in zip(rest, str(part[0]), strict=True):
            made[place] = letter
        return x, made
    steps_known = x.steps is not None and x.steps.size is not None
    if sorted(map(str, part)) == ["f", "t"] and len(rest) == 1 and steps_known and x.groups == 1:
        made[rest[0]] = "f"
        assert x.steps is not None
        assert x.steps.size is not None
        width = x.width * x.steps.size
        if part == ["f", "t"]:
            turned = Steps(x.name, x.width)
            x = of.add(_nodes.Transpose, [x], ("b", "t", "f"), x.steps.size, turned)
        return of.add(_nodes.Reshape, [x], made, width, None, shape=(width,)), made
    names = " and ".join(said(axis) for axis in part) or "axes of size 1"
    fixed = ": give the model a fixed number of timesteps" if "t" in part else ""
    raise OperatorError(f"it makes {sizes} of {names}, which is not computed{fixed}")


def _without_features(x: Tracked) -> tuple[Axis, ...]:
    return tuple(axis for axis in x.axes if isinstance(axis, str) and axis != "f")


# ---- parts -----------------------------------------------------------------------------------


def take(of: Operator) -> list[Tracked]:
    """Rows of a constant table, by integers of an input; or one feature, or the first or last timestep."""
    if isinstance(of.inputs[0], np.ndarray):
        return _onnx_operators.gather(of)
    x = of.value()
    axis = axis_of(of.integer("axis", 0), len(x.axes))
    index = of.constant(1, "its indices")
    if index.dtype.kind not in "iu" or index.size != 1 or index.ndim > 1:
        raise OperatorError("its indices must be one integer")
    found = one_of(of, x, axis, int(index.ravel()[0]))
    return [found if index.ndim else without(of, found, {axis})]


def one_of(of: Operator, x: Tracked, axis: int, index: int) -> Tracked:
    """One place along an axis, which stays with the size 1."""
    at = x.axes[axis]
    axes: list[Axis] = [*x.axes]
    if at == "t":
        size = x.steps.size if x.steps is not None else None
        if size == 1 and index in (0, -1):
            axes[axis] = 1
            return x._replace(axes=tuple(axes))
        is_last = index == -1 or (size is not None and index == size - 1)
        if not is_last and index not in (0, -(size or 0)):
            raise OperatorError(
                f"it takes the timestep {index}, and only the first and the last are computed"
            )
        axes[axis] = 1
        return of.add(Last, [x], axes, x.width, None, first=not is_last)
    features = x.width if at == "f" else at
    if not isinstance(features, int):
        if at == "b" and of.builder.batch == 1 and index in (0, -1):
            axes[axis] = 1
            return x._replace(axes=tuple(axes))
        raise OperatorError(f"it takes a part of {said(at)}")
    index = axis_of(index, features, "its index")
    return _onnx_operators.part(of, x, axis, index, index + 1)


def slices(of: Operator) -> list[Tracked]:
    """Of neighbouring features, the first or the last timestep, or everything; with steps of 1."""
    x = of.value()
    rank = len(x.axes)
    if "starts" in of.given:
        starts, ends = of.numbers("starts") or [], of.numbers("ends") or []
        axes, steps = of.numbers("axes"), None
    else:
        starts, ends = of.integers(1, "its starts"), of.told(2, "its ends")[0]
        axes = of.integers(3, "its axes") if of.has(3) else None
        steps = of.integers(4, "its steps") if of.has(4) else None
    axes = list(range(len(starts))) if axes is None else axes
    if not len(starts) == len(ends) == len(axes) or any(step != 1 for step in steps or []):
        raise OperatorError("it must have a start and an end for each axis, and steps of 1")
    for start, end, number in zip(starts, ends, axes, strict=True):
        x = _sliced(of, x, axis_of(number, rank), start, end)
    return [x]


def _sliced(of: Operator, x: Tracked, axis: int, start: int, end: int) -> Tracked:
    at = x.axes[axis]
    size = x.width if at == "f" else at
    if at == "t":
        if start == 0 and end >= ENDLESS - 1:
            return x
        steps = x.steps.size if x.steps is not None else None
        if (start == -1 and end >= ENDLESS - 1) or (steps is not None and (start, end) == (steps - 1, steps)):
            return one_of(of, x, axis, -1)
        if (start, end) == (0, 1):
            return one_of(of, x, axis, 0)
        if steps is not None and start <= 0 and end >= steps:
            return x
        raise OperatorError("it takes some timesteps, and only the first and the last are computed")
    if not isinstance(size, int):
        if start == 0 and end >= ENDLESS - 1:
            return x
        raise OperatorError(f"it takes a part of {said(at)}")
    first, last, _ = slice(start, end).indices(size)
    if first >= last:
        raise OperatorError(f"it takes {start} to {end} of {size}, which is nothing")
    return _onnx_operators.part(of, x, axis, first, last)


# ---- what ends an axis -----------------------------------------------------------------------


def reduce(of: Operator) -> list[Tracked]:
    """Along timesteps or features. ReduceMax only along timesteps; ReduceSum along timesteps only if their
    number is fixed.
    """
    x = of.value()
    rank = len(x.axes)
    gone = of.axes(1)
    if not gone:
        raise OperatorError("it works along all axes")
    places = {axis_of(axis, rank) for axis in gone}
    axes: list[Axis] = [1 if place in places else axis for place, axis in enumerate(x.axes)]
    for place in sorted(places):
        x = _reduced(of, x, x.axes[place], axes)
    x = x._replace(axes=tuple(axes))
    return [x if of.integer("keepdims", 1) else without(of, x, places)]


def _reduced(of: Operator, x: Tracked, at: Axis, axes: Sequence[Axis]) -> Tracked:
    rest = tuple(axis for axis in x.axes if axis != at) if at == "t" else x.axes
    if at == 1:
        return x
    if at == "t":
        size = x.steps.size if x.steps is not None else None
        if of.kind == "ReduceSum" and size is None:
            raise OperatorError("it sums timesteps, of which there may be any number")
        x = of.add(Pool, [x], rest, x.width, None, largest=of.kind == "ReduceMax")
        if of.kind == "ReduceSum":
            assert size is not None
            factor = of.floats_of(np.full(x.features, float(size)))
            return of.like(Scale, x, factor=factor, shift=of.floats_of(np.zeros(x.features)))
        return x
    if at == "f" and x.groups == 1 and of.kind != "ReduceMax":
        weight = 1.0 if of.kind == "ReduceSum" else 1 / x.width
        kernel = of.floats_of(np.full((x.width, 1), weight))
        return of.add(Dense, [x], axes, 1, x.steps, kernel=kernel)
    raise OperatorError(f"it works along {said(at)}")


def expand(of: Operator) -> list[Tracked]:
    """To the shape that the value has, or of a vector to a fixed number of timesteps."""
    x = of.value()
    targets = of.told(1, "its shape")
    shapes = [x.shape(sizes, of.builder.batch) for sizes in of.builder.worlds]
    for shape, target in zip(shapes, targets, strict=True):
        rank = max(len(shape), len(target))
        padded = [[1] * (rank - len(each)) + each for each in (shape, target)]
        if len(target) > len(shape) or any(b not in (1, a) for a, b in zip(*padded, strict=True)):
            return [_repeated(of, x, targets)]
    return [x]


def _repeated(of: Operator, x: Tracked, targets: Sequence[Sequence[int]]) -> Tracked:
    roles = of.builder.roles.of(output_of(of))
    ones = [place for place, axis in enumerate(x.axes) if axis == 1]
    for place in ones:
        times = {target[place] for target in targets if len(target) == len(x.axes)}
        others = [target[:place] + target[place + 1 :] for target in map(list, targets)]
        if len(times) == 1 and roles[place : place + 1] == ["t"] and x.steps is None:
            (count,) = times
            shapes = [x.shape(sizes, of.builder.batch) for sizes in of.builder.worlds]
            rests = [shape[:place] + shape[place + 1 :] for shape in shapes]
            same = all(
                b in (1, a)
                for rest, other in zip(rests, others, strict=True)
                for a, b in zip(rest, other, strict=True)
            )
            if same and 1 < count < ENDLESS:
                axes = (*x.axes[:place], "t", *x.axes[place + 1 :])
                return of.add(Repeat, [x], axes, x.width, Steps(x.name, count), times=count)
    raise OperatorError("it repeats a value along axes, which is not computed")


def tile(of: Operator) -> list[Tracked]:
    """Of a vector to a fixed number of timesteps."""
    x = of.value()
    repeats = of.integers(1, "its repeats")
    if len(repeats) != len(x.axes) or any(times < 1 for times in repeats):
        raise OperatorError(f"it must have {len(x.axes)} repeats, got {repeats!s:.80}")
    shapes = [x.shape(sizes, of.builder.batch) for sizes in of.builder.worlds]
    targets = [[a * b for a, b in zip(shape, repeats, strict=True)] for shape in shapes]
    return [x if targets == shapes else _repeated(of, x, targets)]


def reverse(of: Operator) -> list[Tracked]:
    """Of all timesteps of all rows, if a GRU reads the result, which then goes backwards."""
    x = of.value(turned=True)
    batch, time = of.integer("batch_axis", 1), of.integer("time_axis", 0)
    if x.axes[time : time + 1] != ("t",) or x.axes[batch : batch + 1] not in (("b",), (1,)):
        raise OperatorError("it must reverse timesteps")
    for sizes, lengths in zip(of.builder.worlds, of.told(1, "its lengths", limit=None), strict=True):
        if x.steps is None or any(each != x.steps.count(sizes) for each in lengths):
            raise OperatorError("it must reverse all timesteps of all rows")
    return [x._replace(turned=not x.turned)]


OPERATORS: dict[str, Rule] = {
    "ReverseSequence": reverse,
    "Tile": tile,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": take,
    "Reshape": reshape,
    "Slice": slices,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceSum"), reduce),
}
