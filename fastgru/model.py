"""Whole networks: the layers around GRUs, and GRUs, as one."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import _config, _layouts, _progress, _threads, _validate, _validate_models
from fastgru._calls import ModelCaller, indices_of
from fastgru._cascade import Cascade, Part
from fastgru._compile import CALL_MASK, NO_MASK, ModelGraph
from fastgru._core import Network
from fastgru._kernels import float16_isas
from fastgru._nodes import Node, Recurrent, Shape, Value
from fastgru._plans import DensePlan, Plan
from fastgru._validate_models import Input, Output, has_steps
from fastgru._validate_streams import StreamInput, StreamOutput
from fastgru._writers import model as _writer
from fastgru.streaming import Streamable

__all__ = ["Input", "Model", "Output"]

Array = NDArray[Any]


class Compiled(NamedTuple):
    """A model's network, with its graph and the values in it by name."""

    network: Network
    graph: ModelGraph
    inputs: Sequence[Input]
    outputs: Sequence[Output]
    values: Mapping[str, Value]


class Model(ModelCaller, Streamable):
    """A network of layers, which `fastgru.load_model` makes of a file.

    ``model(inputs, mask=None, lengths=None, initial_state=None, out=None)`` runs it, and returns an array, or
    a list of arrays for several outputs.

    - `inputs` is an array, or for several inputs a list of arrays or a dict of them by name. The attribute
      `inputs` has the shape of each, which usually is (batch, timesteps, features).
    - `mask`, (batch, timesteps), and `lengths`, (batch,), are those of the first input.
    - `initial_state` is a list with a (batch, width) array, or None, for each state.
    - `out` is an array, or for several outputs a list, to which the results are written.

    For arguments that do not fit, it raises a ValueError or a TypeError that names them.

    It is immutable, `num_threads` apart: any number of threads may share it.

    Parameters
    ----------
    inputs : sequence of Input
    nodes : sequence of Node
        In running order.
    outputs : sequence of Output
    name : str
    dtype : {'float32', 'float64'}
        The type that everything is computed in.
    weights_dtype : {None, 'float16', 'int8'}
        The type of packed weights; None: `dtype`.
    states : sequence of (str, str)
        Names of an input and of the output that is its next value. A stream keeps these as states.
    batch : int, optional
        The only batch that calls may have.
    num_threads : int or 'auto', optional
        Threads that a call may have, by default as many as `fastgru.set_num_threads` says; it may be set.

    Raises
    ------
    ValueError
        If nodes do not fit together. The message names the node.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgru
    >>> layer = fastgru.GRU(4, recurrent_activation="sigmoid", return_sequences=True, input_shape=(None, 3))
    >>> layer.build()
    >>> model = fastgru.from_onnx_model(layer.to_onnx())
    >>> stream = model.stream()
    >>> for frame in np.zeros((10, 1, 3), np.float32):
    ...     y = stream(frame)
    >>> y.shape, [state.shape for state in stream.state]
    ((1, 4), [(1, 4)])
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
        num_threads: int | str | None = None,
    ) -> None:
        self._threads = _threads.asked(num_threads)
        self._inputs = tuple(map(_validate_models.model_input, inputs))
        self._nodes, self._outputs = tuple(nodes), tuple(outputs)
        self._states = tuple((first, last) for first, last in states)
        self._batch = None if batch is None else _validate.positive("batch", batch)
        self.name, self._dtype = _validate.layer_name(name), _validate.dtype(dtype)
        if self._dtype == np.float16:
            raise ValueError("dtype must be float32 or float64, got float16")
        packed = _validate.weights_dtype(weights_dtype, self._dtype, _config.CHOICE.isa in float16_isas())
        self._weights_dtype = None if packed == self._dtype else packed.name
        if not self._inputs or not self._outputs:
            raise ValueError("a model must have an input and an output, got none")
        self._dense_plans: dict[Any, DensePlan] = {}
        self._compiled = self._compile()
        self._outputs = tuple(
            _validate_models.model_output(one, self._compiled.values[one.name].shape) for one in outputs
        )
        self._least = self._compiled.graph.least_timesteps()
        plain = all(_layouts.is_plain(one.layout, one.shape, one.indices) for one in self._inputs) and all(
            _layouts.is_plain(one.layout, self._compiled.values[one.name].shape) for one in self._outputs
        )
        limits = self._compiled.graph.limits
        self._limits = (  # of inputs that all are indices, each checked in one pass
            [limits.get(number, _validate_models.INDICES) for number in range(len(self._inputs))]
            if plain and self._batch is None and all(one.indices for one in self._inputs)
            else []
        )
        of_inputs = self._compiled.graph.clocks_of_inputs
        agree = all({one, other} <= {*of_inputs} for _, one, other in self._compiled.graph.equal)
        short = plain and self._batch is None and agree  # `Network.call` runs inputs of as many timesteps
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
        """The inputs of a call, in their order."""
        return self._inputs

    @property
    def outputs(self) -> dict[str, Shape]:
        """The outputs of a call by name: their shapes without the batch."""
        return {one.name: self._compiled.values[one.name].shape for one in self._outputs}

    def shape_of(self, name: str) -> Shape:
        """The shape of an input or of what a node writes, without the batch."""
        return self._compiled.values[name].shape

    def limits_of(self, name: str) -> tuple[int, int]:
        """The smallest index that an input takes, and the first one that is too large."""
        number = [one.name for one in self._inputs].index(name)
        return self._compiled.graph.limits.get(number, (-(2**31), 2**31))

    @property
    def built(self) -> bool:
        """True, as for layers that have their weights."""
        return True

    @property
    def output_values(self) -> tuple[Output, ...]:
        """The outputs with their layouts."""
        return self._outputs

    @property
    def num_threads(self) -> int | str | None:
        """Threads that a call may have; None: as many as `fastgru.set_num_threads` says."""
        return _threads.given(self._threads)

    @num_threads.setter
    def num_threads(self, value: int | str | None) -> None:
        self._threads = _threads.asked(value)
        self._compiled.network.threads = self._threads

    @property
    def state_names(self) -> tuple[tuple[str, str], ...]:
        """Names of inputs, and of the outputs that are their next values: the states of a stream."""
        return self._states

    @property
    def states(self) -> tuple[tuple[str, int], ...]:
        """Names and widths of the states of a call, in the order that `initial_state` has."""
        return tuple((state.name, state.width) for state in self._compiled.graph.states)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The layers and operators, in running order."""
        return self._nodes

    @property
    def batch(self) -> int | None:
        """The only batch that calls may have; None: any."""
        return self._batch

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
        graph.threads = self._threads
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
            given = [values[name] for name in reads]
            beside = any(one.clock is not None and not one.ended for one in given)
            if beside and any(one.ended for one in given) and not isinstance(node, Recurrent):
                node.blocks(graph, "reads the last timestep of a sequence beside all timesteps")
            found = node.add_to(graph, given)
            if len(found) < len(node.outputs):
                raise node.wrong(f"must have at most {len(found)} outputs, got {len(node.outputs)}")
            for name, value in zip(node.outputs, found, strict=False):
                if name in values:
                    raise node.wrong(
                        f"must write a value of a new name, got {name!r}, which is written already"
                    )
                ended = streaming and value.clock is not None and self._compiled.values[name].clock is None
                values[name] = value._replace(ended=True, mask=NO_MASK) if ended else value
        unknown = [one.name for one in outputs if one.name not in values]
        if unknown:
            raise ValueError(f"the model's output {unknown[0]!r} is written by no node")
        wrong = [one.name for one in outputs if values[one.name].indices]
        if wrong:
            raise ValueError(f"the output {wrong[0]!r} must be numbers, got the indices of an Embedding")
        if graph.blocking:
            raise ValueError(f"the model {self.name!r} cannot run step by step: " + "; ".join(graph.blocking))
        network = graph.model_network([values[one.name].number for one in outputs])
        return Compiled(network, graph, inputs, outputs, values)

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
        """The result of any call, whose arguments are checked and converted first."""
        found = self._compiled
        arrays = self._checked(inputs)
        batch = arrays[0].shape[0]
        steps = [
            array.shape[1] if has_steps(one) else None
            for one, array in zip(self._inputs, arrays, strict=True)
        ]
        if mask is not None or lengths is not None:
            mask, lengths = _validate_models.model_mask(mask, lengths, self._inputs, batch, steps[0])
        states = _validate_models.model_states(initial_state, found.graph.states, batch)
        clocks = found.graph.timesteps(steps)
        found.graph.check_timesteps(clocks)
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
            results = _validate_models.model_out(out, results, [*arrays, inputs, mask, lengths, *states])
        return results[0] if len(results) == 1 else results

    def _checked(self, inputs: Any) -> list[Array]:
        """The arrays of a call, batch-major, in the order of the inputs."""
        given = inputs if isinstance(inputs, list | tuple) else [inputs]
        if self._limits and len(given) == len(self._limits):
            checked = (indices_of(array, *limits) for array, limits in zip(given, self._limits, strict=True))
            found = [array for array in checked if array is not None]
            fits = len(found) == len(given) and all(map(_fits, found, self._inputs, self._least))
            if fits and len({array.shape[0] for array in found}) == 1:
                return found
        limits = self._compiled.graph.limits
        arrays = _validate_models.model_inputs(inputs, self._inputs, self._least, limits, self._dtype)
        if self._batch not in (None, arrays[0].shape[0]):
            raise ValueError(f"inputs must have a batch of {self._batch}, got {arrays[0].shape[0]}")
        return arrays

    def _new_output(self, value: Value, batch: int, clocks: Sequence[int]) -> Array:
        shape = (batch, value.width) if value.clock is None else (batch, clocks[value.clock], value.width)
        return np.empty(shape, self._dtype)

    def predict(self, x: Any, batch_size: int = 32, progress: Any = None) -> Any:
        """The outputs for many rows, which are computed batch by batch, so that memory stays small.

        Parameters
        ----------
        x : as `inputs` of a call, or an iterable of them
            The results for the items of an iterable are put together.
        batch_size : int
            Rows that are computed at a time.
        progress : bool or callable, optional
            A callable is called after each batch, with the number of rows that are done. None: a terminal
            shows a progress bar if there are several batches and `rich` is installed, as it is with the extra
            `cli`. False: it shows none.

        Returns
        -------
        ndarray or list of ndarray
            As a call returns them.

        Raises
        ------
        ValueError, TypeError
            As a call.
        """
        batch_size = _validate.positive("batch_size", batch_size)
        found: list[list[Array]] = [[] for _ in self._outputs]
        axes = [_layouts.batch_axis(one.layout) for one in self._outputs]
        done = 0
        total = len(x) if isinstance(x, np.ndarray) and x.ndim else 0
        with _progress.predicting(progress, total, batch_size) as tell:
            for rows in self._batches(x, batch_size):
                results = self(rows)
                for kept, result in zip(found, [results] if len(found) == 1 else results, strict=True):
                    kept.append(result)
                done += found[0][-1].shape[axes[0]]
                tell(done)
        joined = [np.concatenate(arrays, axis=axis) for axis, arrays in zip(axes, found, strict=True)]
        return joined[0] if len(joined) == 1 else joined

    def _batches(self, x: Any, batch_size: int) -> Iterator[Any]:
        """The inputs of calls that have at most `batch_size` rows."""
        if not isinstance(x, np.ndarray | list | tuple | Mapping) and isinstance(x, Iterable):
            for one in x:
                yield from self._batches(one, batch_size)
            return
        arrays = self._checked(x)
        for first in range(0, max(len(arrays[0]), 1), batch_size):
            cut = [array[first : first + batch_size] for array in arrays]
            yield [
                _layouts.written(array[..., 0] if one.indices else array, one.layout)
                for one, array in zip(self._inputs, cut, strict=True)
            ]

    # ---- streams ---------------------------------------------------------------------------

    def _cascade(self) -> Cascade:
        states = dict(self._states)
        kept = [one for one in self._inputs if one.name not in states]
        names = ", ".join(f"{one.name!r} {one.shape}" for one in kept)
        fixed = {one.shape[0] for one in kept if has_steps(one)}
        if not fixed:
            raise ValueError(f"a stream must have an input of timesteps, got those of {self.name!r}: {names}")
        if len(fixed - {None}) > 1:
            raise ValueError(
                f"a stream must have inputs of the same timesteps, got those of {self.name!r}: {names}"
            )
        if all(one.name in states.values() for one in self._outputs):
            names = ", ".join(repr(one.name) for one in self._outputs)
            raise ValueError(
                f"a stream must have an output beside states, got those of {self.name!r}: {names}"
            )
        network, graph, inputs, outputs, values = self._compile(streaming=True)
        dtype, indices = self._dtype, np.dtype(np.int32)
        read = [
            StreamInput(one.name, 1, indices, graph.limits.get(number, _validate_models.INDICES))
            if one.indices
            else StreamInput(one.name, values[one.name].width, dtype, None, has_steps(one))
            for number, one in enumerate(inputs)
        ]
        written = [(one.name, values[one.name]) for one in outputs]
        found = [StreamOutput(name, one.width, dtype, one.clock is not None) for name, one in written]
        parts = [Part(one.name, one.width, one.dtype, one.dtype, one.default) for one in graph.states]
        return Cascade([self], parts, False, False, network, [], read, found)

    # ---- copies, files and a table ---------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        made = functools.partial(
            Model,
            name=self.name,
            dtype=self.dtype,
            weights_dtype=self._weights_dtype,
            states=self._states,
            batch=self._batch,
            num_threads=self.num_threads,
        )
        return made, (self._inputs, self._nodes, self._outputs)

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


def _fits(array: Array, one: Input, least: int) -> bool:
    """True for indices with a number of timesteps that the input takes."""
    return array.shape[1] >= least and one.shape[0] in (None, array.shape[1])


def _shown(shape: Shape) -> str:
    """A shape with its batch, as Keras prints it."""
    return str((None, *shape))
