"""fastgru itself: as it is by default, and as it can be had otherwise; called as users of Keras write it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.networks import NetworkTask
from benchmarks.race.contenders.base import Call, Contender, frames, network_frames
from benchmarks.tasks import Array, Arrays, Task


class FastGRU(Contender):
    name = "fastgru"
    peer = False
    networks = True
    options: ClassVar[Mapping[str, Any]] = {}  # further arguments of the layer

    @classmethod
    def packages(cls) -> tuple[str, ...]:
        return ("fastgru", "numpy", "scipy")

    def start(self, threads: int) -> None:
        import fastgru

        fastgru.set_num_threads(threads)

    def prepare(self, task: Task, arrays: Arrays) -> Call:
        import fastgru

        batch, timesteps, features, units = task.shape
        x, state, mask, *weights = arrays
        layer = fastgru.GRU(
            units,
            recurrent_activation=task.recurrent_activation,
            return_sequences=task.sequences,
            reset_after=task.reset_after,
            dtype=task.dtype,
            weights=weights,
            stateful=task.stream,
            batch_input_shape=(batch, None, features),
            **self.options,
        )
        layer.build((batch, timesteps, features))
        if task.bidirectional:
            both = fastgru.Bidirectional(layer, weights=2 * weights)
            return lambda: both(x, initial_state=[state, state])
        if task.stream:
            layer.reset_states(state)
            inputs = itertools.cycle(list(frames(arrays)))
            return lambda: layer(next(inputs))
        if task.masked:
            return lambda: layer(x, initial_state=[state], mask=mask)
        return lambda: layer(x, initial_state=[state])

    def prepare_network(self, task: NetworkTask, files: Path, inputs: Sequence[Array]) -> Call:
        import fastgru

        published = files.parent / "model.onnx"
        file = published if published.exists() else files.parent / "model.keras"
        model = fastgru.load_model(file, **self.options)
        if not task.stream:
            x = inputs[0] if len(inputs) == 1 else [*inputs]
            return lambda: model(x)
        stream = model.stream(task.batch)
        steps = network_frames(inputs)
        turns = itertools.cycle([step if step.ndim == 2 else step[:, 0] for step in steps])
        return lambda: stream(next(turns))


class FastGRUHalf(FastGRU):
    name = "fastgru-f16"
    weights_dtype = "float16"
    network_limit = 1e-2
    lacks = frozenset({"float64"})
    options: ClassVar[Mapping[str, Any]] = {"weights_dtype": "float16"}


class FastGRUInt8(FastGRU):
    name = "fastgru-int8"
    weights_dtype = "int8"
    networks = False
    limit = 0.1  # against the equations with weights that are not rounded
    lacks = frozenset({"float64"})
    options: ClassVar[Mapping[str, Any]] = {"weights_dtype": "int8"}


class FastGRUBlas(FastGRU):
    name = "fastgru-blas"
    networks = False
    variables: ClassVar[Mapping[str, str]] = {"FASTGRU_ENGINE": "blas"}


class _OnRequest(FastGRU):
    """With another instruction set than the best one."""

    on_request = True


class FastGRUAvx512(_OnRequest):
    name = "fastgru-avx512"
    variables: ClassVar[Mapping[str, str]] = {"FASTGRU_ISA": "avx512"}


class FastGRUAvx2(_OnRequest):
    name = "fastgru-avx2"
    variables: ClassVar[Mapping[str, str]] = {"FASTGRU_ISA": "avx2"}


class FastGRUSse2(_OnRequest):
    name = "fastgru-sse2"
    variables: ClassVar[Mapping[str, str]] = {"FASTGRU_ISA": "sse2"}


class FastGRUNeon(_OnRequest):
    name = "fastgru-neon"
    variables: ClassVar[Mapping[str, str]] = {"FASTGRU_ISA": "neon"}


class FastGRUGeneric(_OnRequest):
    name = "fastgru-generic"
    variables: ClassVar[Mapping[str, str]] = {"FASTGRU_ISA": "generic"}
