"""Keras: version 3, the layer of version 1 in `tf_keras`, and that layer converted for LiteRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.networks import NetworkTask
from benchmarks.race.contenders import jax as on_jax
from benchmarks.race.contenders import torch as on_torch
from benchmarks.race.contenders.base import NUMPY, Contender, Function, NetworkFunction
from benchmarks.tasks import Array, Arrays, Task


def keras_layer(task: Task, x: Array, weights: Sequence[Array]) -> Any:
    """Keras 3's layer for a task, with its weights."""
    import keras

    layer = keras.layers.GRU(
        task.shape.units,
        reset_after=task.reset_after,
        return_sequences=task.sequences,
        return_state=True,
        dtype=task.dtype,
    )
    layer.build(x.shape)
    layer.set_weights(weights)
    return layer


class Keras(Contender):
    """On JAX, which is its fastest backend: TensorFlow under XLA took 1.3 to 4 times as long.

    1x1x64x64 130 us against 534, 1x100x64x64 460 against 711, 8x20x128x128 1158 against 1557; without
    XLA more (AMD EPYC Zen 3, 2026-11-23, Keras 3.15.1).
    """

    name = "keras"
    requirements = (NUMPY, "keras==3.15.1", *on_jax.JAX)
    networks = True
    lacks = frozenset({"hard_sigmoid", "bidirectional"})  # its own is another function; fed in other ways
    variables: ClassVar[Mapping[str, str]] = {**on_jax.VARIABLES, "KERAS_BACKEND": "jax"}

    def start(self, threads: int) -> None:
        on_jax.start(threads)
        import keras  # noqa: F401

    def tensor(self, array: Array) -> Any:
        from jax import numpy as jnp

        return jnp.asarray(array)

    def function(self, task: Task, arrays: Arrays) -> Function:
        import jax

        x, _, mask, *weights = arrays
        layer = keras_layer(task, x, weights)
        variables = [
            [v.value for v in kind] for kind in (layer.trainable_variables, layer.non_trainable_variables)
        ]
        options = {"mask": jax.numpy.asarray(mask)} if task.masked else {}

        @jax.jit
        def run(x: Any, state: Any) -> Any:
            return tuple(layer.stateless_call(*variables, x, initial_state=[state], **options)[0])

        return run

    def network_tensor(self, array: Array) -> Any:
        return self.tensor(array)

    def network_function(self, task: NetworkTask, files: Path) -> NetworkFunction:
        import jax
        import keras

        file = files / "step.keras" if task.stream else files.parent / "model.keras"
        model = keras.saving.load_model(file, compile=False)
        kinds = model.trainable_variables, model.non_trainable_variables
        variables = [[v.value for v in kind] for kind in kinds]

        @jax.jit
        def run(inputs: Any, states: Any) -> Any:
            given = [*inputs, *states]
            results, _ = model.stateless_call(*variables, given if len(given) > 1 else given[0])
            return (results[0], results[1:]) if task.stream else (results, ())

        return run


class KerasOnFastGRU(Contender):
    """Keras' layer after `fastgru.keras.optimize`, on torch: fastgru, and what Keras does around it."""

    name = "keras+fastgru"
    peer = False
    requirements = (*on_torch.Torch.requirements, "keras==3.15.1", "scipy==1.17.1")
    lacks = frozenset({"hard_sigmoid", "bidirectional"})
    variables: ClassVar[Mapping[str, str]] = {"KERAS_BACKEND": "torch"}

    def start(self, threads: int) -> None:
        on_torch.Torch.start(self, threads)
        import keras  # noqa: F401

        import fastgru

        fastgru.set_num_threads(threads)

    def tensor(self, array: Array) -> Any:
        import torch

        return torch.tensor(array)

    def function(self, task: Task, arrays: Arrays) -> Function:
        import torch

        import fastgru.keras

        x, _, mask, *weights = arrays
        layer = keras_layer(task, x, weights)
        fastgru.keras.optimize(layer)
        options = {"mask": torch.tensor(mask)} if task.masked else {}

        @torch.inference_mode()
        def run(x: Any, state: Any) -> Any:
            return layer(x, initial_state=[state], **options)

        return run


class TfKeras(Contender):
    name = "tf_keras"
    requirements = (NUMPY, "tensorflow-cpu==2.21.0", "tf-keras==2.21.0")
    networks = True
    variables: ClassVar[Mapping[str, str]] = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

    def start(self, threads: int) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)

    def tensor(self, array: Array) -> Any:
        import tensorflow as tf

        return tf.constant(array)

    def outputs(self, y: Any) -> Array:
        return y.numpy()

    def function(self, task: Task, arrays: Arrays) -> Any:
        import tensorflow as tf

        x, _, mask, *weights = arrays
        layer = tf.compat.v1.keras.layers.GRU(
            task.shape.units,
            recurrent_activation=task.recurrent_activation,
            return_sequences=task.sequences,
            return_state=True,
            reset_after=task.reset_after,
            dtype=task.dtype,
        )
        if task.bidirectional:
            layer, weights = tf.keras.layers.Bidirectional(layer), 2 * weights
        layer.build(x.shape)
        layer.set_weights(weights)
        options = {"mask": tf.constant(mask)} if task.masked else {}

        def run(x: Any, state: Any) -> tuple[Any, Any]:
            y, last, *_ = layer(x, initial_state=[state] * (1 + task.bidirectional), **options)
            return y, last

        batch, timesteps, features, units = task.shape
        sizes = ((batch, timesteps, features), (batch, units))
        return tf.function(run, input_signature=[tf.TensorSpec(size, task.dtype) for size in sizes])

    def network_tensor(self, array: Array) -> Any:
        import tensorflow as tf

        return tf.constant(array)

    def network_output(self, y: Any) -> Array:
        return y.numpy()

    def network_function(self, task: NetworkTask, files: Path) -> NetworkFunction:
        import tensorflow as tf
        import tf_keras

        model = tf_keras.models.load_model(
            files / "step.h5" if task.stream else files.parent / "model.h5", compile=False
        )

        @tf.function
        def run(inputs: Any, states: Any) -> Any:
            given = [*inputs, *states]
            results = model(given if len(given) > 1 else given[0])
            return (results[0], results[1:]) if task.stream else (results, ())

        return run


class LiteRt(TfKeras):
    """Converted by TensorFlow's converter, run by the interpreter that TensorFlow brings with it."""

    name = "litert"
    home = "tf_keras"
    networks = False
    lacks = frozenset({"float64", "mask", "bidirectional"})  # the converter's loop has none

    def start(self, threads: int) -> None:
        super().start(threads)
        self.threads = threads

    def tensor(self, array: Array) -> Any:
        return array

    def outputs(self, y: Any) -> Array:
        array: Array = y
        return array

    def function(self, task: Task, arrays: Arrays) -> Function:
        import warnings

        import tensorflow as tf

        graph = super().function(task, arrays)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()], graph)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is said to move into a package of its own
            interpreter = tf.lite.Interpreter(model_content=converter.convert(), num_threads=self.threads)
        interpreter.allocate_tensors()
        x_index, state_index = (detail["index"] for detail in interpreter.get_input_details())
        results = {len(detail["shape"]): detail["index"] for detail in interpreter.get_output_details()}

        def run(x: Array, state: Array) -> tuple[Array, Array]:
            interpreter.set_tensor(x_index, x)
            interpreter.set_tensor(state_index, state)
            interpreter.invoke()
            y = interpreter.get_tensor(results[3 if task.sequences else 2])
            return y, y  # a stream's outputs are its states

        return run
