"""Whole models with int8 weights: each node is rounded for what those before it make of a calibration."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._compile import NO_MASK, ModelGraph
from fastgru._nodes import Convolution, Dense, Node, Recurrent, Value
from fastgru._rounding import (
    CALIBRATED,
    Entry,
    Reached,
    Report,
    changed,
    dominated,
    entry,
    notes_of,
    rounded,
    saturated,
)
from fastgru.model import Model, Output

Array = NDArray[Any]
Progress = Callable[[int, int], None]

SAMPLES = 20_000  # of the inputs of a kernel, at most: more take time and make it no better
SEEN = "fastgru/seen"  # the value that a Seen writes


@dataclasses.dataclass(eq=False, kw_only=True)
class Seen(Node):
    """1 where a timestep of a value is not masked, else 0."""

    def add_to(self, graph: ModelGraph, inputs: Sequence[Value]) -> list[Value]:
        x = self.one(inputs)
        ones = Value(graph.new_value(x.width, x.clock), x.shape, x.clock)
        graph.add("clip", x.number, ones.number, alpha=1.0, beta=1.0)
        if x.mask == NO_MASK:
            return [ones]
        out = graph.new_value(x.width, x.clock)
        graph.add("hide", ones.number, out, mask=x.mask)
        return [ones._replace(number=out)]


def quantized(
    model: Model, calibration: Any, lengths: Any, initial_state: Any, progress: Progress | None
) -> tuple[Model, Report]:
    """The model with int8 weights, and the errors of its nodes.

    Parameters
    ----------
    model : Model
    calibration, lengths, initial_state
        As of a call of the model; a calibration of None: weights are rounded to the nearest step.
    progress : callable or None
        As of `quantize`.

    Raises
    ------
    ValueError, TypeError
        As a call; or if the model does not compute in float32, or what reaches a node is not finite.
    """
    if model.dtype != "float32":
        raise ValueError(f"a model must be of float32 to be quantized, got {model.name!r} of {model.dtype}")
    if calibration is None:
        nodes = [_nearest(node) for node in model.nodes]
        entries = [
            Entry(node.name, np.nan, np.nan, None, np.nan, _notes(node))
            for node in model.nodes
            if isinstance(node, Recurrent | Dense | Convolution)
        ]
        return _with_nodes(model, nodes, model.output_values, model.state_names), Report(entries)
    model(calibration, lengths=lengths, initial_state=initial_state)  # which checks the arguments
    found = _Calibration(model, calibration, lengths, initial_state, progress)
    report = Report(each for each in map(found.take, range(len(model.nodes))) if each is not None)
    return _with_nodes(model, found.nodes, model.output_values, model.state_names), report


def kernels_of(model: Model) -> int:
    """How many kernels are rounded."""
    nodes = {_shared(node): node for node in model.nodes}.values()
    grus = [node.layer for node in nodes if isinstance(node, Recurrent)]
    return 2 * sum(len(layer._parts) for layer in grus) + sum(
        isinstance(node, Dense | Convolution) for node in nodes
    )


def _with_nodes(
    model: Model,
    nodes: Sequence[Node],
    outputs: Sequence[Output],
    states: Sequence[tuple[str, str]] = (),
    weights_dtype: str | None = "int8",
) -> Model:
    """The model with other nodes and outputs."""
    settings: dict[str, Any] = {
        "name": model.name,
        "batch": model.batch,
        "states": states,
        "weights_dtype": weights_dtype,
    }
    return Model(model.inputs, nodes, outputs, **settings)


def _nearest(node: Node) -> Node:
    """A node whose weights are packed as int8."""
    if not isinstance(node, Recurrent):
        return node
    parts = node.layer._parts
    return _with_weights(node, [part.weights for part in parts], [part._scales for part in parts])


def _with_weights(node: Recurrent, weights: Sequence[Any], scales: Sequence[Any]) -> Recurrent:
    layer = type(node.layer).from_config(changed(node.layer.get_config(), weights_dtype="int8"))
    for part, arrays, own in zip(layer._parts, weights, scales, strict=True):
        part._build_of(arrays, own)
    return dataclasses.replace(node, layer=layer)


def _notes(node: Node) -> tuple[str, ...]:
    if isinstance(node, Recurrent):
        return notes_of(node.layer)
    if isinstance(node, Dense | Convolution):
        return dominated(f"kernel of {node.name}", node.kernel.reshape(-1, node.kernel.shape[-1]))
    return ()


def _first_steps(steps: int) -> Array:
    """True for those that are used for the calibration; the errors are measured on the others."""
    return np.arange(steps) < max(1, int(CALIBRATED * steps))


def windows_of(node: Convolution, x: Array) -> Array:
    """What a convolution multiplies at each timestep: (batch, steps, size * channels)."""
    size = len(node.kernel)
    reach = (size - 1) * node.dilation
    before = after = 0
    if node.padding == "causal":
        before = reach
    elif node.padding == "same":
        steps = -(-x.shape[1] // node.strides)
        missing = max(0, (steps - 1) * node.strides + reach + 1 - x.shape[1])
        before, after = missing // 2, missing - missing // 2
    x = np.pad(x, [(0, 0), (before, after), (0, 0)])
    found = np.lib.stride_tricks.sliding_window_view(x, reach + 1, 1)
    found = found[:, :: node.strides, :, :: node.dilation].swapaxes(2, 3)
    return found.reshape(*found.shape[:2], -1)


class _Calibration:
    """The nodes of a model, of which the first ones are rounded.

    Attributes
    ----------
    nodes : list of Node
    """

    def __init__(
        self, model: Model, calibration: Any, lengths: Any, initial_state: Any, progress: Progress | None
    ) -> None:
        self.nodes = list(model.nodes)
        self._model, self._inputs, self._lengths, self._states = model, calibration, lengths, initial_state
        self._done: dict[Any, Any] = {}  # by what nodes share
        self._progress, self._count, self._all = progress, 0, kernels_of(model)

    def take(self, number: int) -> Entry | None:
        """Round a node; its error, or None if it has no weights of int8."""
        node = self.nodes[number]
        if not isinstance(node, Recurrent | Dense | Convolution):
            return None
        done = self._done.get(_shared(node))
        if done is None:
            done = (
                self._recurrent(number, node) if isinstance(node, Recurrent) else self._product(number, node)
            )
            self._done[_shared(node)] = done
        taken = (
            {"layer": done.layer}
            if isinstance(done, Recurrent)
            else {"kernel": done.kernel, "bias": done.bias}
        )
        self.nodes[number] = dataclasses.replace(node, **taken)
        return self._entry(number, node)

    # ---- what reaches a node ---------------------------------------------------------------

    def _values(self, nodes: Sequence[Node], names: Sequence[str], is_rounded: bool = True) -> list[Array]:
        """Values that nodes write, or inputs, in a call of the calibration."""
        outputs = [Output(name) for name in names]
        model = _with_nodes(self._model, nodes, outputs, weights_dtype="int8" if is_rounded else None)
        states = self._states
        if states is not None:  # those of the nodes that there are, which come first
            states = states[: len(model.states)]
        found = model(self._inputs, lengths=self._lengths, initial_state=states)
        arrays = found if isinstance(found, list) else [found]
        return [self._finite(nodes, array) for array in arrays]

    @staticmethod
    def _finite(nodes: Sequence[Node], array: Array) -> Array:
        if not np.isfinite(array).all():
            raise ValueError(
                f"calibration must lead to finite values, got NaN or an infinity after {len(nodes)} nodes"
            )
        return array

    def _reaching(self, number: int, node: Node) -> tuple[list[Array], Array | None]:
        """What a node reads, and where the first of it is not masked, (batch, timesteps), if it has any."""
        seen = Seen(name=SEEN, inputs=node.inputs[:1], outputs=(SEEN,))
        *found, ones = self._values([*self.nodes[:number], seen], [*node.inputs, SEEN])
        return found, ones[..., 0] > 0 if ones.ndim == 3 else None

    # ---- kernels ---------------------------------------------------------------------------

    def _product(self, number: int, node: Dense | Convolution) -> Dense | Convolution:
        (x,), seen = self._reaching(number, node)
        kernel = node.kernel.reshape(-1, node.kernel.shape[-1]).astype(np.float32)
        if isinstance(node, Convolution):
            x, seen = windows_of(node, x), None
        used = np.ones(x.shape[:-1], bool)
        if x.ndim == 3:
            used &= _first_steps(x.shape[1])
            used &= True if seen is None else seen
        samples = x[used]
        samples = samples[:: -(-len(samples) // SAMPLES) or 1]
        new = rounded(kernel, samples)
        bias = np.zeros(new.shape[-1], np.float32) if node.bias is None else node.bias
        if len(samples):
            bias = (bias + samples.mean(axis=0) @ (kernel - new)).astype(np.float32)
        self._tell()
        return dataclasses.replace(node, kernel=new.reshape(node.kernel.shape), bias=bias)

    def _recurrent(self, number: int, node: Recurrent) -> Recurrent:
        (x, *given), seen = self._reaching(number, node)
        parts = node.layer._parts
        starts = dict(zip(parts, given or self._own_starts(number, len(parts)), strict=True))
        assert seen is not None
        mask = None if seen.all() or not node.reads_mask else seen
        reached = Reached(x, mask, starts)
        used = _first_steps(x.shape[1]) & (seen if node.reads_mask else np.ones_like(seen))
        weights = [reached.rounded(part, used, self._tell) for part in parts]
        return _with_weights(node, weights, [None] * len(parts))

    def _own_starts(self, number: int, count: int) -> list[Any]:
        """The states that the caller gives the GRUs of a node, or None for each."""
        if self._states is None:
            return [None] * count
        below = _with_nodes(self._model, self.nodes[:number], [Output(self._model.inputs[0].name)])
        first = len(below.states)
        return list(self._states[first : first + count])

    def _tell(self) -> None:
        self._count += 1
        if self._progress is not None:
            self._progress(self._count, self._all)

    # ---- errors ----------------------------------------------------------------------------

    def _entry(self, number: int, node: Node) -> Entry:
        name = node.outputs[:1]
        (exact,) = self._values(self._model.nodes[: number + 1], name, is_rounded=False)
        (found,) = self._values(self.nodes[: number + 1], name)
        held = np.ones(exact.shape[:-1], bool)
        if exact.ndim == 3:
            held &= ~_first_steps(exact.shape[1])
        notes = _notes(node)
        notes += saturated(exact[held]) if isinstance(node, Recurrent) else ()
        return entry(node.name, found[held], exact[held], notes)


def _shared(node: Node) -> Any:
    """What nodes of the same weights have in common."""
    if isinstance(node, Recurrent):
        return id(node.layer)
    if isinstance(node, Dense | Convolution):
        return id(node.kernel), id(node.bias)
    return id(node)
