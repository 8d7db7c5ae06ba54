"""What a target of the fuzzer has."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """Something that takes bytes.

    Attributes
    ----------
    prepare : callable
        Imports what is fuzzed, whose modules are instrumented, and returns the function of bytes. What that
        raises is a crash.
    seeds : callable
        Inputs to begin with, by name.
    change : callable or None
        Of bytes and a random.Random: other bytes that are as sound; it may raise for bytes that are not.
    modules : tuple of str
        What is instrumented.
    kinds : tuple of str
        Kinds of files in tests/formats/hostile/campaign.py that the seeds are of.
    """

    prepare: Callable[[], Callable[[bytes], None]]
    seeds: Callable[[], dict[str, bytes]]
    change: Callable[..., bytes] | None
    modules: tuple[str, ...]
    kinds: tuple[str, ...] = ()
