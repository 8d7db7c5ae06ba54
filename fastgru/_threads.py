"""How many threads a call may have: what the program asks for, and what the process is allowed."""

import functools
import importlib.util
import math
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastgru import _plans, _validate

VARIABLE = "FASTGRU_NUM_THREADS"
_preparing = threading.Lock()  # a limit that the program sets meanwhile stays


def _renew() -> None:
    """In the child of a fork: replace a lock that a thread of the parent may have held."""
    global _preparing
    _preparing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def bounds(environment: Mapping[str, str], cgroup: Path = Path("/sys/fs/cgroup")) -> dict[str, int]:
    """What bounds the threads of a call, by name.

    These are the CPUs that the process may run on; its container's quota of CPU time, rounded down to whole
    CPUs but 1 at least (cpu.max, or cpu.cfs_quota_us of older systems); and OMP_NUM_THREADS.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    found = {"CPUs": len(allowed)}
    found |= {name: max(int(cpus), 1) for name, cpus in _quotas(cgroup).items()}
    asked = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        found["OMP_NUM_THREADS"] = int(asked)
    return found


def _quotas(cgroup: Path) -> dict[str, float]:
    """The CPUs that the process may use on average: the least quota from its control group upwards, by name.

    Control groups of version 2 have the file cpu.max, those of version 1 two files, in a tree of their own.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return {}
    found: dict[str, float] = {}
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if not controllers:
            top, files = cgroup, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            top, files = cgroup / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        folder = top / own.lstrip("/")
        for place in (folder, *folder.parents):
            try:
                quota, period = map(int, " ".join((place / file).read_text() for file in files).split()[:2])
                if quota >= 0:
                    found[files[0]] = min(found.get(files[0], math.inf), quota / period)
            except (OSError, ValueError, ZeroDivisionError):
                pass  # the root has none, and "max" or -1 is no quota
            if place == top:
                break
    return found


def asked(num_threads: Any) -> int:
    """The checked number of threads of a layer's calls; 0 for None, which means those of the process."""
    if num_threads is None:
        return 0
    number = _validate.num_threads(num_threads)
    if number != 1:
        _prepare()
    return number


def given(number: int) -> int | str | None:
    """What `asked` was asked for."""
    return "auto" if number < 0 else number or None


def set_num_threads(num_threads: int | str) -> None:
    """Let calls have this many threads that do not say how many: 1 at first.

    Layers, models, streams and pools may say it themselves, by `num_threads`.
    The environment variable FASTGRU_NUM_THREADS does the same when fastgru is imported. No call has more than
    there are CPUs that the process may run on, than its container's quota of CPU time allows, or than the
    variable OMP_NUM_THREADS says. Results have the same bits for any number.

    Parameters
    ----------
    num_threads : int or 'auto'
        1 to 64, the thread that calls being one of them. With 'auto' calls have as many as they may, if that
        is faster: the first calls of each size measure it, and `show_config` says what they found.

    Raises
    ------
    ValueError
        If it is out of range.
    TypeError
        If it is no integer.

    Examples
    --------
    >>> import fastgru
    >>> fastgru.set_num_threads(2)
    >>> fastgru.get_num_threads() <= 2
    True
    >>> fastgru.set_num_threads(1)
    """
    _plans.set_threads(asked(num_threads) or _validate.num_threads(num_threads))


def get_num_threads() -> int | str:
    """The threads of calls that do not say how many they may have, as far as the process may have them."""
    return given(_plans.get_threads()) or 1


def from_environment(environment: Mapping[str, str]) -> None:
    """Do what FASTGRU_NUM_THREADS says, if it is set.

    Raises
    ------
    ValueError
        If it is neither a number from 1 to 64 nor auto.
    """
    text = environment.get(VARIABLE)
    if not text:
        return
    if text != "auto" and not (text.isdecimal() and 1 <= int(text) <= _validate.MOST_THREADS):
        raise ValueError(
            f"{VARIABLE} must be a number from 1 to {_validate.MOST_THREADS} or auto, got {text!r}"
        )
    set_num_threads(text if text == "auto" else int(text))


def shown() -> str:
    """What holds, and why, for `show_config`."""
    _prepare()
    found = ", ".join(f"{name} {most}" for name, most in bounds(os.environ).items())
    text = f"{get_num_threads()} of at most {_plans.threads_limit()}: {found}"
    for features, units, batch, timesteps, alone, helped, pays in _plans.choices():
        if alone and helped:
            text += (
                f"; {batch}x{timesteps}x{features}x{units} and up to twice as many rows and steps: "
                f"{'helpers' if pays else 'alone'}, {helped:.0f} against {alone:.0f} ns"
            )
    return text


def _prepare() -> None:
    """Bound the threads of all calls, and let threadpoolctl see and limit them if it is installed; once."""
    with _preparing:
        _bound()


@functools.cache
def _bound() -> None:
    _plans.limit_threads(min(bounds(os.environ).values()))
    if importlib.util.find_spec("threadpoolctl") is None:
        return
    import threadpoolctl  # not with fastgru: most programs ask for no threads

    class Controller(threadpoolctl.LibController):  # type: ignore[misc]
        """fastgru's threads, as threadpoolctl has those of BLAS and OpenMP: the most of a call."""

        user_api = "fastgru"
        internal_api = "fastgru"
        filename_prefixes = (Path(_plans.__file__).name.partition(".")[0],)
        check_symbols = ("fastgru_limit_threads", "fastgru_threads_limit")

        def get_version(self) -> Any:
            return sys.modules["fastgru"].__version__

        def get_num_threads(self) -> Any:
            return self.dynlib.fastgru_threads_limit()

        def set_num_threads(self, num_threads: int) -> Any:
            return self.dynlib.fastgru_limit_threads(num_threads)

    threadpoolctl.register(Controller)
