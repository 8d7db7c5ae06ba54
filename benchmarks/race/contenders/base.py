"""What all contenders have in common.

Workers import these modules under the contender's own Python: at the top nothing but NumPy, libraries
where they are used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.networks import NETWORKS, NetworkTask
from benchmarks.tasks import FRAMES, Array, Arrays, Task

Call = Callable[[], Array]
Function = Callable[[Any, Any], tuple[Any, Any]]  # inputs, state -> outputs, state
NetworkFunction = Callable[[Sequence[Any], Sequence[Any]], tuple[Any, Sequence[Any]]]  # the same of models

NUMPY = "numpy==2.4.6"


class Contender:
    """Base of all contenders; the methods run in the contender's own process.

    A contender whose library has a layer that is a function of tensors writes `function`; one that
    binds inputs and outputs once writes `prepare` itself. For whole models the same two are
    `network_function` and `prepare_network`.
    """

    name: ClassVar[str]
    peer: ClassVar[bool] = True  # or is it fastgru itself?
    requirements: ClassVar[tuple[str, ...]] = ()  # for pip; without any it runs in this environment
    home: ClassVar[str] = ""  # whose environment it shares, if not its own
    variables: ClassVar[Mapping[str, str]] = {}  # of its process' environment
    weights_dtype: ClassVar[str | None] = None  # what its weights are rounded to, if not the layer's
    byte_factors: ClassVar[bool] = False  # does it round what weights are multiplied by to bytes?
    limit: ClassVar[float | None] = None  # of its difference from the equations, if it rounds otherwise
    lacks: ClassVar[frozenset[str]] = frozenset()  # of what a task may need
    networks: ClassVar[bool] = False  # does it run whole models?
    network_limit: ClassVar[float | None] = None  # of what a model returns, if it rounds weights
    on_request: ClassVar[bool] = False  # does it run only if it is named?

    @classmethod
    def packages(cls) -> tuple[str, ...]:
        """Distributions whose versions are reported."""
        return tuple(dict.fromkeys(requirement.partition("==")[0] for requirement in cls.requirements))

    @classmethod
    def exact(cls) -> bool:
        """True if it computes with the weights that it is given."""
        return cls.weights_dtype is None

    @classmethod
    def runs(cls, task: Task | NetworkTask) -> bool:
        """True if its library has such a layer, or reads such a model."""
        return cls.networks if isinstance(task, NetworkTask) else not cls.lacks & task.needs

    def start(self, threads: int) -> None:
        """Import the library, restrict it to so many threads."""
        raise NotImplementedError

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        """The layer as a function without arguments, inputs and initial state converted already.

        It returns a NumPy array of what `Task` says, in that order, its axes split or joined; the next call
        may overwrite it. Of a stream each call is a step: it takes the next frame, the first one after the
        last, and the state that the step before left.
        """
        function, state = self.function(task, arrays), self.tensor(arrays.state)
        if not task.stream:
            x = self.inputs(arrays.x)
            return lambda: self.outputs(function(x, state)[0])
        inputs = itertools.cycle([self.inputs(frame) for frame in frames(arrays)])

        def step() -> Array:
            nonlocal state
            y, state = function(next(inputs), state)
            return self.outputs(y)

        return step

    def function(self, task: Task, arrays: Arrays) -> Function:
        """The layer as a function of inputs and state, the library's own tensors."""
        raise NotImplementedError

    def prepare_network(self, task: NetworkTask, files: Path, inputs: Sequence[Array]) -> Call:
        """A model as a function without arguments, as of `prepare`; a stream starts from zeros.

        `files` is the folder of the task's files, and its parent that of the model's.
        """
        function = self.network_function(task, files)
        tensor = self.network_tensor
        if not task.stream:
            given = [tensor(array) for array in inputs]
            return lambda: self.network_output(function(given, ())[0])
        turns = itertools.cycle([[tensor(frame)] for frame in network_frames(inputs)])
        states: Sequence[Any] = [tensor(state) for state in self.network_states(task)]

        def step() -> Array:
            nonlocal states
            y, states = function(next(turns), states)
            return self.network_output(y)

        return step

    def network_function(self, task: NetworkTask, files: Path) -> NetworkFunction:
        """A model as a function of inputs and states, the library's own tensors; without states, ()."""
        raise NotImplementedError

    def network_states(self, task: NetworkTask) -> list[Array]:
        """The states that a stream starts from, after `network_function`."""
        return [np.zeros((task.batch, units), task.dtype) for units in NETWORKS[task.name].units]

    def network_tensor(self, array: Array) -> Any:
        """An array as the library's own tensor, in its order of axes: inputs and states."""
        return array

    def network_output(self, y: Any) -> Array:
        """A model's output as a NumPy array."""
        return np.asarray(y)

    def tensor(self, array: Array) -> Any:
        """An array as the library's own tensor."""
        return array

    def inputs(self, x: Array) -> Any:
        """Inputs (batch, timesteps, features) as the library's own tensor, in its order of axes."""
        return self.tensor(x)

    def outputs(self, y: Any) -> Array:
        """The library's outputs as a NumPy array (batch, timesteps, units) or (batch, units).

        Of both directions (batch, timesteps, 2 * units).
        """
        return np.asarray(y)


def frames(arrays: Arrays) -> Iterator[Array]:
    """The inputs of a stream, (batch, 1, features) each."""
    for t in range(arrays.x.shape[1]):
        yield np.ascontiguousarray(arrays.x[:, t : t + 1])


def network_frames(inputs: Sequence[Array]) -> list[Array]:
    """The inputs of a stream of a model, (batch, 1) of indices or (batch, 1, size) each."""
    return [np.ascontiguousarray(inputs[0][:, t : t + 1]) for t in range(FRAMES)]


def steps_first(x: Array) -> Array:
    """(batch, timesteps, features) as a contiguous (timesteps, batch, features)."""
    return np.ascontiguousarray(x.swapaxes(0, 1))
