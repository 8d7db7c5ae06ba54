"""A layer in another runtime, and what the modules of all runtimes need.

What a runtime is given and returns is batch-major: inputs (batch, timesteps, features), a mask
(batch, timesteps) or None, states (batch, units) of every direction or None; outputs of all steps in the
order of fastgru's, then the last states.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Run = Callable[[Array, Array | None, Sequence[Array] | None], list[Array]]


class Runtime(NamedTuple):
    """A layer in another runtime.

    Attributes
    ----------
    features : int
        The size of an input's last axis.
    units : tuple of int
        Sizes of the states: of each direction, from the lowest layer on.
    run : callable
    masks : bool
        It takes any mask; otherwise only one that begins with a row's true steps, at least one.
    zeros : bool
        The layer must return zeros beyond the end of a row, as this runtime does; otherwise what is there
        is not compared.
    time_major : bool or None
        True if time is the first axis in the file; None if the file does not say.
    roundoff : float
        The unit roundoff of what it computes in, if that may be less precise than the layer's dtype.
    calls : callable or None
        Takes a batch size; returns a new copy of the layer, whose calls go on from each other's states, and
        return outputs and the kept states. None if the layer is not stateful in the file.
    """

    features: int
    units: tuple[int, ...]
    run: Run
    masks: bool = False
    zeros: bool = True
    time_major: bool | None = None
    roundoff: float = 0.0
    calls: Callable[[int], Run] | None = None


class File(NamedTuple):
    """A model file as a runtime reads it.

    Attributes
    ----------
    names : list of str
        Of its GRU layers.
    layer : callable
        Takes a name, returns the Runtime.
    """

    names: list[str]
    layer: Callable[[str], Runtime]


def need(module: str, what: str) -> Any:
    """The module.

    Raises
    ------
    ImportError
        Says what to install.
    """
    if importlib.util.find_spec(module) is None:
        package = {"tf_keras": "tf_keras tensorflow", "keras": "keras tensorflow"}.get(module, module)
        raise ImportError(f"{module} is needed {what}: pip install {package}", name=module)
    return importlib.import_module(module)


def lengths(mask: Array | None, x: Array) -> Array:
    """How many steps of each row take part, (batch,)."""
    return np.full(x.shape[0], x.shape[1]) if mask is None else mask.sum(1)
