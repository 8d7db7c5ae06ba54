"""Random numbers: one process-wide generator, or a new one for a seed."""

import operator
import os
import threading
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator  # NumPy imports it on first use only, and so do we

_lock = threading.Lock()
_global: "Generator | None" = None


def set_random_seed(seed: int) -> None:
    """Restart the random numbers of initializers and dropout, so that a program draws the same ones each run.

    Initializers that have a `seed` of their own are not affected.

    Parameters
    ----------
    seed : int
        Not negative.

    Raises
    ------
    TypeError
        If `seed` is not an integer, or is a bool.
    ValueError
        If `seed` is negative.

    Examples
    --------
    >>> import fastgru
    >>> layers = []
    >>> for _ in range(2):
    ...     fastgru.set_random_seed(7)
    ...     layers.append(fastgru.GRU(4))
    ...     layers[-1].build((None, None, 3))
    >>> bool((layers[0].get_weights()[0] == layers[1].get_weights()[0]).all())
    True
    """
    global _global
    number = _integer(seed)
    if number < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    fresh = _pcg64(number)
    with _lock:
        _global = fresh


def generator(seed: int | None = None) -> "Generator":
    """The process-wide PCG64 generator, made on first use; for a seed, a new one that starts from it.

    A generator may be drawn from by several threads at once: NumPy locks it for every draw.

    Raises
    ------
    TypeError
        If `seed` is neither None nor an integer.
    """
    global _global
    if seed is not None:
        return _pcg64(_integer(seed) % 2**64)  # Keras also takes negative seeds
    with _lock:
        if _global is None:
            _global = _pcg64(None)
        return _global


def _renew() -> None:
    """In the child of a fork: replace locks that threads of the parent may have held, NumPy's too."""
    global _lock, _global
    _lock = threading.Lock()
    if _global is not None:
        fresh = _pcg64(0)
        fresh.bit_generator.state = _global.bit_generator.state
        _global = fresh


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def _pcg64(seed: int | None) -> "Generator":
    return np.random.Generator(np.random.PCG64(seed))


def _integer(seed: object) -> int:
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be an integer, got {seed!r}")
    return operator.index(seed)
