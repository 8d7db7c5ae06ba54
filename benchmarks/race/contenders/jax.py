"""JAX: the equations, compiled by XLA."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.race.contenders.base import NUMPY, Contender, Function
from benchmarks.tasks import Array, Arrays, Task

JAX = ("jax==0.10.2", "jaxlib==0.10.2")
LINUX = sys.platform == "linux"  # elsewhere it takes all cores, and is out
VARIABLES = {"JAX_PLATFORMS": "cpu"}


def start(threads: int) -> None:
    """XLA starts a thread for each core that it may run on, whatever its flags say."""
    cores = os.sched_getaffinity(0) if LINUX else set()
    if LINUX:
        os.sched_setaffinity(0, sorted(cores)[:threads])
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_enable_x64", True)
    jax.devices()
    if LINUX:  # from now on any core will do
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


class Jax(Contender):
    name = "jax"
    requirements = (NUMPY, *JAX)
    lacks = frozenset({"bidirectional"})  # two of these, no layer of a library
    variables: ClassVar[Mapping[str, str]] = VARIABLES

    def start(self, threads: int) -> None:
        start(threads)

    def tensor(self, array: Array) -> Any:
        from jax import numpy as jnp

        return jnp.asarray(array)

    def function(self, task: Task, arrays: Arrays) -> Function:
        import jax
        from jax import lax
        from jax import numpy as jnp

        _, _, mask, kernel, recurrent_kernel, bias = map(jnp.asarray, arrays)
        biases = bias if task.reset_after else (bias, 0)
        units = task.shape.units

        def f(x: Any) -> Any:
            return jnp.clip(0.2 * x + 0.5, 0, 1) if "hard_sigmoid" in task.needs else jax.nn.sigmoid(x)

        def after(h: Any, xw: Any) -> Any:
            xz, xr, xh = jnp.split(xw, 3, axis=-1)
            hz, hr, hh = jnp.split(h @ recurrent_kernel + biases[1], 3, axis=-1)
            z, r = f(xz + hz), f(xr + hr)
            return z * h + (1 - z) * jnp.tanh(xh + r * hh)

        def before(h: Any, xw: Any) -> Any:
            xz, xr, xh = jnp.split(xw, 3, axis=-1)
            hz, hr = jnp.split(h @ recurrent_kernel[:, : 2 * units], 2, axis=-1)
            z, r = f(xz + hz), f(xr + hr)
            return z * h + (1 - z) * jnp.tanh(xh + (r * h) @ recurrent_kernel[:, 2 * units :])

        advance = after if task.reset_after else before

        def step(h: Any, step_inputs: tuple[Any, Any]) -> tuple[Any, Any]:
            xw, valid = step_inputs
            following = advance(h, xw)
            h = jnp.where(valid[:, jnp.newaxis], following, h) if task.masked else following
            return h, (h if task.sequences else None)

        @jax.jit
        def run(x: Any, state: Any) -> tuple[Any, Any]:
            if task.shape.timesteps == 1:
                h = advance(state, x[:, 0] @ kernel + biases[0])
                return h, h
            h, outputs = lax.scan(step, state, (x.swapaxes(0, 1) @ kernel + biases[0], mask.T))
            return (outputs.swapaxes(0, 1) if task.sequences else h), h

        return run
