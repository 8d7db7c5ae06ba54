"""What a call of a Keras layer takes as it is, on fastgru, and what fastgru's own layer takes.

Run as `KERAS_BACKEND=torch python -m benchmarks.optimized_keras`, or with jax, tensorflow or numpy; with the
argument `tf_keras` it is that package's layer. One thread.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastgru
import fastgru.keras

SHAPES = [(1, 1, 64), (1, 100, 128), (8, 50, 256)]  # batch, timesteps, features and units
SECONDS = 1.0


def median(call: Callable[[], Any]) -> float:
    """Microseconds: the median of the calls of a second, at least of three."""
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e6


def in_graph(backend: str, layer: Any) -> Callable[[Any], Any] | None:
    """The layer in the backend's compiled function, if it has one, made anew."""
    if backend in ("tensorflow", "tf_keras"):
        tf = importlib.import_module("tensorflow")
        graph: Callable[[Any], Any] = tf.function(lambda x: layer(x, training=False))
        return graph
    if backend != "jax":
        return None
    jax = importlib.import_module("jax")
    kinds = [[v.value for v in kind] for kind in (layer.trainable_variables, layer.non_trainable_variables)]
    compiled = jax.jit(lambda kinds, x: layer.stateless_call(*kinds, x, training=False)[0])
    return lambda x: compiled(kinds, x).block_until_ready()


def row(backend: str, keras: Any, to_tensor: Callable[[Any], Any], shape: tuple[int, int, int]) -> str:
    """What the layer of that shape takes."""
    layer = keras.layers.GRU(shape[2], return_sequences=True)
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    x = to_tensor(array)
    layer(x)
    eager, compiled = [], []
    for change in (fastgru.keras.restore, fastgru.keras.optimize):
        change(layer)
        eager.append(median(lambda: layer(x, training=False)))
        graph = in_graph(backend, layer)
        if graph is not None:
            compiled.append(median(functools.partial(graph, x)))
    plain = fastgru.from_keras(layer)
    alone = median(lambda: plain(array))
    columns = [" ".join(f"{value:.0f}" for value in values) or "-" for values in (eager, compiled)]
    return " | ".join([f"{backend} {shape}", *columns, f"{alone:.1f}"])


def main() -> None:
    """Print a row for each shape."""
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[variable] = "1"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    package = "tf_keras" if "tf_keras" in sys.argv else "keras"
    keras = importlib.import_module(package)
    backend = "tf_keras" if package == "tf_keras" else keras.backend.backend()
    to_tensor = (
        importlib.import_module("tensorflow").constant
        if package == "tf_keras"
        else keras.ops.convert_to_tensor
    )
    context: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if backend == "torch":
        torch = importlib.import_module("torch")
        torch.set_num_threads(1)
        context = torch.no_grad()
    print("shape | eager: Keras, on fastgru | compiled: Keras, on fastgru | fastgru.from_keras")
    with context:
        for shape in SHAPES:
            print(row(backend, keras, to_tensor, shape), flush=True)


if __name__ == "__main__":
    main()
