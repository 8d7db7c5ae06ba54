"""Whole networks: the layers around GRUs, and GRUs, as one."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import _config, _layouts, _validate
from fastgru._calls import ModelCaller
from fastgru._cascade import Cascade, Part
from fastgru._compile import CALL_MASK, NO_MASK, ModelGraph
from fastgru._core import Network
from fastgru._kernels import float16_isas, rows_are_whole
from fastgru._nodes import Node, Recurrent, Shape, Value
from fastgru._plans import DensePlan, Plan
from fastgru._writers import model as _writer
from fastgru.streaming import Streamable

Array = NDArray[Any]


class Input(NamedTuple):
    """An input of a model.

    Attributes
    ----------
    name : str
    shape : tuple of (int or None)
        Without the batch: (timesteps, features), (features,), or (timesteps,) of indices. None: any number.
    indices : bool
        True of integers, which an Embedding reads.
    layout : str
        The axes of its arrays: the letters of batch, timesteps, features, and numbers for so many groups of
        features, which lie outside of them: "2bf" is (2, batch, half of the features). Without a batch or
        timesteps there is one of them. Of two numbers a comma is in between.
    """

    name: str
    shape: Shape
    indices: bool = False
    layout: str = "btf"


class Output(NamedTuple):
    """An output of a model.

    Attributes
    ----------
    name : str
        Of the value.
    layout : str
        As of `Input`.
    """

    name: str
    layout: str = "btf"


class Compiled(NamedTuple):
    """A model's network, with its graph and the values in it by name."""

    network: Network
    graph: ModelGraph
    inputs: Sequence[Input]
    values: Mapping[str, Value]


class Model(ModelCaller, Streamable):
    """A network of layers: `fastgru.load_model` makes one.

    It is immutable: any number of threads may share it.

    Parameters
    ----------
    inputs : sequence of Input
    nodes : sequence of Node
        In running order.
    outputs : sequence of Output
    name : str
    dtype : {'float32', 'float64'}
        That everything is computed in.
    weights_dtype : {None, 'float16', 'int8'}
        That packed weights of float32 are kept in.
    states : sequence of (str, str)
        Names of an input and of the output that is its next value: in a stream they are states.
    batch : int, optional
        The only one that calls may have.

    Raises
    ------
    ValueError
        If nodes do not fit together; names the node.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        nodes: Sequence[Node],
        outputs: Sequence[Output],
        *,
        name: str = "model",
        dtype: str = "float32",
        weights_dtype: str | None = None,
        states: Sequence[tuple[str, str]] = (),
        batch: int | None = None,
    ) -> None:
        self._inputs, self._nodes, self._outputs = tuple(inputs), tuple(nodes), tuple(outputs)
        self._states, self._batch = tuple((first, last) for first, last in states), batch
        self.name, self._dtype = _validate.layer_name(name), _validate.dtype(dtype)
        if self._dtype == np.float16:
            raise ValueError("dtype must be float32 or float64, got float16")
        packed = _validate.weights_dtype(weights_dtype, self._dtype, _config.CHOICE.isa in float16_isas())
        self._weights_dtype = None if packed == self._dtype else packed.name
        if not self._inputs or not self._outputs:
            raise ValueError("a model must have an input and an output, got none")
        self._dense_plans: dict[Any, DensePlan] = {}
        self._compiled = self._compile()
        self._least = self._compiled.graph.least_timesteps()
        short = batch is None and self._is_plain()
        self._keep_network(self._compiled.network, (), self._versions(()), "plain" if short else None)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{one.name} {one.shape}" for one in self._inputs)
        return f"<Model {self.name!r}: {len(self._nodes)} nodes, {shapes}, {self.dtype}>"

    # ---- what it is made of ----------------------------------------------------------------

    @property
    def dtype(self) -> str:
        """Name of the type that everything is computed in."""
        return self._dtype.name

    @property
    def weights_dtype(self) -> str:
        """Name of the type that packed weights are kept in."""
        return self._weights_dtype or self.dtype

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What a call takes, in this order."""
        return self._inputs

    @property
    def outputs(self) -> dict[str, Shape]:
        """What a call returns: names, and shapes without the batch."""
        return {one.name: self._compiled.values[one.name].shape for one in self._outputs}

    @property
    def built(self) -> bool:
        """True, as of layers that have their weights."""
        return True

    @property
    def output_values(self) -> tuple[Output, ...]:
        """The outputs with their layouts."""
        return self._outputs

    @property
    def state_names(self) -> tuple[tuple[str, str], ...]:
        """Names of inputs, and of the outputs that are their next values: the states of a stream."""
        return self._states

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The layers and operators, in running order."""
        return self._nodes

    @property
    def batch(self) -> int | None:
        """The only batch that calls may have; None: any."""
        return self._batch

    def _is_plain(self) -> bool:
        """True if the axes of all arrays of calls are in the order of the network."""
        return all(
            one.layout == ("bt" if one.indices else "btf" if len(one.shape) == 2 else "bf")
            for one in self._inputs
        ) and all(
            one.layout == ("bf" if self._compiled.values[one.name].clock is None else "btf")
            for one in self._outputs
        )

    def get_weights(self) -> list[Array]:
        """Copies of all weights, in the order of the nodes."""
        found: list[Array] = []
        for node in self._nodes:
            found += (array.copy() for array in node.weights.values())
        return found

    def _compile(self, streaming: bool = False) -> Compiled:
        """The network, of all nodes."""
        parts = [part for node in self._nodes if isinstance(node, Recurrent) for part in node.layer._parts]
        plans = {part: part._plan for part in parts}
        for part in parts:
            if not isinstance(part._plan, Plan):
                raise ValueError(f"GRU {part.name!r} must have activations that are compiled")
        dropped = dict(self._states) if streaming else {}
        inputs = [one for one in self._inputs if one.name not in dropped]
        outputs = [one for one in self._outputs if one.name not in dropped.values()]
        graph = ModelGraph(
            [(one.shape, one.indices) for one in inputs],
            self._dtype,
            plans,
            self._dense_plans,
            self._weights_dtype,
            streaming,
        )
        values: dict[str, Value] = {}
        for number, one in enumerate(inputs):
            clock = graph.clocks_of_inputs[number]
            mask = CALL_MASK if number == 0 and clock is not None else NO_MASK
            values[one.name] = Value(number, one.shape, clock, mask, one.indices)
        for node in self._needed(outputs) if dropped else self._nodes:
            reads = [name for name in node.inputs if name not in dropped]
            if not reads and node.inputs:  # a part of a state
                dropped |= dict.fromkeys(node.outputs, "")
                continue
            missing = [name for name in reads if name not in values]
            if missing:
                raise node.wrong(f"reads {missing[0]!r}, which no node before it writes")
            found = node.add_to(graph, [values[name] for name in reads])
            if len(found) < len(node.outputs):
                raise node.wrong(f"writes {len(found)} values, got names for {len(node.outputs)}")
            for name, value in zip(node.outputs, found, strict=False):
                if name in values:
                    raise node.wrong(f"writes {name!r}, which is there already")
                values[name] = value
        unknown = [one.name for one in outputs if one.name not in values]
        if unknown:
            raise ValueError(f"the model's output {unknown[0]!r} is written by no node")
        if graph.blocking:
            raise ValueError(f"the model {self.name!r} cannot run step by step: " + "; ".join(graph.blocking))
        network = graph.model_network(
            [values[one.name].number for one in outputs],
            inputs[0].shape[0] if _has_steps(inputs[0]) else None,
        )
        return Compiled(network, graph, inputs, values)

    def _needed(self, outputs: Sequence[Output]) -> list[Node]:
        """The nodes that these outputs depend on."""
        wanted = {one.name for one in outputs}
        found = []
        for node in reversed(self._nodes):
            if wanted & {*node.outputs}:
                wanted |= {*node.inputs}
                found.append(node)
        return found[::-1]

    # ---- calls -----------------------------------------------------------------------------

    def _long_call(
        self, inputs: Any, initial_state: Any, mask: Any, training: Any, lengths: Any, out: Any
    ) -> Any:
        """Any call: check and convert the arguments."""
        found = self._compiled
        arrays = self._checked_inputs(inputs)
        batch = arrays[0].shape[0]
        steps = [
            array.shape[1] if _has_steps(one) else None
            for one, array in zip(self._inputs, arrays, strict=True)
        ]
        if mask is not None or lengths is not None:
            mask, lengths = self._checked_mask(mask, lengths, batch, steps[0])
        states = self._checked_states(initial_state, batch)
        clocks = found.graph.timesteps(steps)
        outputs = [self._new_output(found.values[one.name], batch, clocks) for one in self._outputs]
        if batch:
            nothing = (None,) * len(states)
            found.network.run(
                arrays[0], states, nothing, tuple(outputs), mask, lengths, others=tuple(arrays[1:])
            )
        results = [
            _layouts.written(array, one.layout) for one, array in zip(self._outputs, outputs, strict=True)
        ]
        if out is not None:
            results = _written(out, results, arrays)
        return results[0] if len(results) == 1 else results

    def _checked_inputs(self, inputs: Any) -> list[Array]:
        """The arrays of a call, batch-major, in the order of the inputs."""
        if isinstance(inputs, Mapping):
            missing = [one.name for one in self._inputs if one.name not in inputs]
            if missing or len(inputs) != len(self._inputs):
                names = ", ".join(repr(one.name) for one in self._inputs)
                raise ValueError(f"inputs must be arrays for {names}, got {', '.join(map(repr, inputs))}")
            given = [inputs[one.name] for one in self._inputs]
        else:
            given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
            if len(given) != len(self._inputs):
                raise ValueError(f"inputs must be {len(self._inputs)} arrays, got {len(given)}")
        arrays = [self._checked_input(number, value) for number, value in enumerate(given)]
        if self._batch is not None and arrays[0].shape[0] != self._batch:
            raise ValueError(f"inputs must have a batch of {self._batch}, got {arrays[0].shape[0]}")
        if len({array.shape[0] for array in arrays}) > 1:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise ValueError(f"inputs must have the same batch, got {shapes}")
        return arrays

    def _checked_input(self, number: int, value: Any) -> Array:
        one, least = self._inputs[number], self._least[number]
        name = f"input {one.name!r}"
        array = _validate.indices(name, value) if one.indices else _validate.floats(name, value, self._dtype)
        if array.ndim != len(_layouts.axes(one.layout)):
            raise ValueError(f"{name} must have the axes {_axes(one)}, got {array.shape}")
        array = _layouts.batch_major(array, one.layout, one.shape, one.indices)
        if array is None:
            raise ValueError(f"{name} must have the shape {_axes(one)}, got {np.shape(value)}")
        for axis, (wanted, size) in enumerate(zip(one.shape, array.shape[1:], strict=False)):
            if wanted is not None and size != wanted:
                raise ValueError(f"{name} must have the shape {_axes(one)}, got {np.shape(value)}")
            if axis == 0 and _has_steps(one) and size < least:
                raise ValueError(f"{name} must have {least} timesteps or more, got {size}")
        if one.indices:
            return self._checked_indices(number, name, array)
        array = _validate.cast(array, self._dtype)
        return array if rows_are_whole(array) and array.flags.aligned else np.array(array, order="C")

    def _checked_indices(self, number: int, name: str, array: Array) -> Array:
        """Indices that are in all tables, as (batch, timesteps, 1) of int32 in memory of their own."""
        low, limit = self._compiled.graph.limits.get(number, (-(2**31), 2**31))
        copied = array.astype(np.int64)
        wrong = (copied < low) | (copied >= limit)
        if wrong.any():
            place = tuple(int(axis[0]) for axis in np.nonzero(wrong))
            raise ValueError(
                f"{name} must have indices from {low} to {limit - 1}, got {copied[place]} at {place}"
            )
        return copied.astype(np.int32)[:, :, np.newaxis]

    def _checked_mask(
        self, mask: Any, lengths: Any, batch: int, steps: int | None
    ) -> tuple[Array | None, Array | None]:
        """The mask or the lengths of the first input."""
        name = "mask" if lengths is None else "lengths"
        if steps is None:
            raise ValueError(f"{name} must be None: the input {self._inputs[0].name!r} has no timesteps")
        if lengths is not None and mask is not None:
            raise ValueError("lengths must be None where a mask is given")
        if lengths is not None:
            return None, _validate.lengths(lengths, batch, steps)
        if isinstance(mask, list | tuple) and len(mask) == len(self._inputs) and len(mask) > 1:
            if any(one is not None for one in mask[1:]):
                raise ValueError("mask must be that of the first input, got masks of others, too")
            mask = mask[0]
        return None if mask is None else _validate.mask(mask, (batch, steps)), None

    def _checked_states(self, initial_state: Any, batch: int) -> tuple[Array | None, ...]:
        """What every state of the network starts from."""
        states = self._compiled.graph.states
        given = [None] * len(states) if initial_state is None else initial_state
        if not isinstance(given, list | tuple) or len(given) != len(states):
            got = len(given) if isinstance(given, list | tuple) else type(given).__name__
            names = ", ".join(repr(state.name) for state in states)
            raise ValueError(f"initial_state must be a list of {len(states)} arrays, of {names}, got {got}")
        found = []
        for state, value in zip(states, given, strict=True):
            if value is None:
                value = None if state.default is None else _validate.broadcast_state(state.default, batch)
            if value is not None:
                value = _validate.state("initial_state", value, (batch, state.width), state.dtype)
                value = np.require(value, requirements=["C", "A"])
            found.append(value)
        return tuple(found)

    def _new_output(self, value: Value, batch: int, clocks: Sequence[int]) -> Array:
        shape = (batch, value.width) if value.clock is None else (batch, clocks[value.clock], value.width)
        return np.empty(shape, self._dtype)

    def predict(self, x: Any, batch_size: int = 32, progress: Any = None) -> Any:
        """The outputs for many rows, of which this many are computed at a time.

        Parameters
        ----------
        x : as `inputs` of a call, or an iterable of them
            Of an iterable, the results are put together.
        batch_size : int
        progress : callable, optional
            Called with the number of rows that are done, after each batch.

        Returns
        -------
        ndarray or list of ndarray
            As of a call.

        Raises
        ------
        ValueError, TypeError
            As a call.
        """
        batch_size = _validate.positive("batch_size", batch_size)
        found: list[list[Array]] = [[] for _ in self._outputs]
        done = 0
        for rows in self._batches(x, batch_size):
            results = self(rows)
            for kept, result in zip(found, [results] if len(found) == 1 else results, strict=True):
                kept.append(result)
            done += found[0][-1].shape[_layouts.axes(self._outputs[0].layout).index("b")]
            if progress is not None:
                progress(done)
        joined = [
            np.concatenate(arrays, axis=_layouts.axes(one.layout).index("b"))
            for one, arrays in zip(self._outputs, found, strict=True)
        ]
        return joined[0] if len(joined) == 1 else joined

    def _batches(self, x: Any, batch_size: int) -> Iterator[Any]:
        """The inputs of calls, of at most this many rows."""
        if not isinstance(x, np.ndarray | list | tuple | Mapping) and isinstance(x, Iterable):
            for one in x:
                yield from self._batches(one, batch_size)
            return
        arrays = self._checked_inputs(x)
        for first in range(0, max(len(arrays[0]), 1), batch_size):
            cut = [array[first : first + batch_size] for array in arrays]
            yield [
                _layouts.written(array[..., 0] if one.indices else array, one.layout)
                for one, array in zip(self._inputs, cut, strict=True)
            ]

    # ---- streams ---------------------------------------------------------------------------

    def _cascade(self) -> Cascade:
        found = self._compile(streaming=True)
        if len(found.inputs) > 1 or not _has_steps(found.inputs[0]) or len(found.network.flags) != 3:
            names = ", ".join(f"{one.name!r} {one.shape}" for one in found.inputs)
            raise ValueError(
                f"a stream must have one input of timesteps, got those of {self.name!r}: {names}"
            )
        if len(self._outputs) - len(self._states) > 1:
            raise ValueError(
                f"a stream must have one output, got those of {self.name!r}: {list(self.outputs)}"
            )
        parts = [Part(one.name, one.width, one.dtype, one.dtype, one.default) for one in found.graph.states]
        return Cascade([self], parts, False, False, found.network, [], found.graph.limits.get(0))

    # ---- copies, files and a table ---------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        given = (
            self._inputs,
            self._nodes,
            self._outputs,
            self.name,
            self.dtype,
            self._weights_dtype,
            self._states,
            self._batch,
        )
        return _restored, given

    def __copy__(self) -> "Model":
        return self

    def __deepcopy__(self, memo: Any) -> "Model":
        return self

    def save(self, path: Any) -> None:
        """Write the model to an .npz file, which `fastgru.load_model` reads.

        Parameters
        ----------
        path : str, path-like or binary file object
            A file is replaced as a whole.

        Raises
        ------
        ValueError
            If a weight is not finite.
        OSError
            If the file cannot be written.
        """
        _writer.save_model(self, path)

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Print the nodes as a table: name and kind, shape of the output, weights.

        Parameters
        ----------
        print_fn : callable
            Called with each line.
        """
        rows = [("Node", "Output shape", "Weights", "Reads")]
        for one in self._inputs:
            rows.append((f"{one.name} (Input)", _shown(one.shape), "0", ""))
        total = 0
        for node in self._nodes:
            count = sum(array.size for array in node.weights.values())
            total += count
            shape = self._compiled.values[node.outputs[0]].shape
            row = f"{node.name} ({node.label})", _shown(shape), f"{count:,}", ", ".join(node.inputs)
            rows.append(row)
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        line = "-" * (sum(widths) + 6)
        print_fn(f"Model {self.name!r}, {self.dtype}, weights {self.weights_dtype}")
        for number, row in enumerate(rows):
            if number == 1:
                print_fn(line)
            cells = zip(row, widths, strict=True)
            print_fn("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
        print_fn(line)
        print_fn(f"Weights: {total:,}")


def _restored(
    inputs: Any,
    nodes: Any,
    outputs: Any,
    name: str,
    dtype: str,
    weights_dtype: str | None,
    states: Any,
    batch: int | None = None,
) -> Model:
    """A model from what `__reduce__` gives."""
    return Model(
        inputs,
        nodes,
        outputs,
        name=name,
        dtype=dtype,
        weights_dtype=weights_dtype,
        states=states,
        batch=batch,
    )


def _has_steps(one: Input) -> bool:
    """True of a sequence."""
    return one.indices or len(one.shape) == 2


def _axes(one: Input) -> str:
    """The axes of an input, for messages."""
    open_sizes = {"b": "batch", "t": "timesteps", "f": "features"}
    groups = math.prod(axis for axis in _layouts.axes(one.layout) if isinstance(axis, int))
    sizes: dict[Any, Any] = {"b": None, "t": one.shape[0] if _has_steps(one) else None, "f": None}
    if not one.indices and one.shape[-1] is not None:
        sizes["f"] = one.shape[-1] // groups
    named = [
        str(axis) if isinstance(axis, int) else str(sizes[axis] or open_sizes[axis])
        for axis in _layouts.axes(one.layout)
    ]
    return "(" + ", ".join(named) + ")"


def _written(out: Any, results: list[Array], read: Sequence[Array]) -> list[Array]:
    """Copy results into the caller's arrays."""
    given = list(out) if isinstance(out, list | tuple) else [out]
    if len(given) != len(results):
        raise ValueError(f"out must be {len(results)} arrays, got {len(given)}")
    targets = [
        _validate.out(one, result.shape, result.dtype, read)
        for one, result in zip(given, results, strict=True)
    ]
    for target, result in zip(targets, results, strict=True):
        target[...] = result
    return targets


def _shown(shape: Shape) -> str:
    """A shape with its batch, as Keras prints it."""
    return str((None, *shape))
