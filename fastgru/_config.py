"""Selects the engine and the instruction set, by speed or by the environment, and reports them."""

import importlib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

from fastgru import _kernels, _threads

MISSING = "not installed"
VARIABLES = (
    "FASTGRU_ENGINE",
    "FASTGRU_ISA",
    "FASTGRU_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)


class Choice(NamedTuple):
    """An engine and an instruction set."""

    engine: str
    isa: str


def _chosen(environment: Mapping[str, str], variable: str, usable: Sequence[str], where: str) -> str:
    """What the variable names, by default the first of those usable."""
    name = environment.get(variable) or usable[0]
    if name not in usable:
        raise ValueError(f"{variable} must be one of {', '.join(usable)} {where}, got {name!r}")
    return name


def choose(environment: Mapping[str, str]) -> Choice:
    """The choice by FASTGRU_ISA and FASTGRU_ENGINE, or else by speed.

    The defaults are the best instruction set, and the packed engine if that has fused multiply-adds.
    BLAS was faster at none of the 88 layers of `make race`, level at two, and took 1.03
    to 2.7 times as long at the others (AMD EPYC Zen 3, AVX2, 2026-11-28: 1 to 512 rows, 1 to 1536 units,
    float32, float64).
    Whether x.kernel is computed ahead of the steps is up to `fastgru_steps_ahead` in src/layout.h.

    Raises
    ------
    ValueError
        If one of them is no usable name; lists those that are.
    """
    isa = _chosen(environment, "FASTGRU_ISA", _kernels.isas(), "on this machine")
    engines = ["packed", "blas"] if isa in _kernels.packed_isas() else ["blas"]
    return Choice(_chosen(environment, "FASTGRU_ENGINE", engines, f"with {isa}"), isa)


CHOICE = choose(os.environ)
_threads.from_environment(os.environ)


def engine_of(packed_as: str | None) -> str:
    """The engine for weights that are packed as 'float16', 'int8' or, for None, as they are."""
    return "packed" if packed_as == "int8" else CHOICE.engine  # BLAS has no products of such integers


def _processor() -> str:
    """The CPU's model, as well as the system knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _blas() -> str:
    """SciPy's BLAS, as SciPy names it."""
    try:
        built = importlib.import_module("scipy.__config__")  # not with fastgru: it takes its time
    except ModuleNotFoundError:
        return MISSING
    blas: dict[str, Any] = built.show(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _caches(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> str:
    """The data caches of a core with their sizes, from the first level on, as far as the system tells."""
    found = {}
    for cache in folder.glob("index*"):
        try:
            level, kind, size = ((cache / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:  # it does not know one of them
            continue
        if kind != "Instruction":
            found[f"L{level}"] = f"{size}iB".replace("K", " K").replace("M", " M")
    return ", ".join(f"{level} {found[level]}" for level in sorted(found)) or "unknown"


def _version(package: str) -> str:
    """The version of an installed package."""
    from importlib.metadata import PackageNotFoundError, version  # not with fastgru: it takes its time

    try:
        return version(package)
    except PackageNotFoundError:
        return MISSING


def _facts() -> dict[str, str]:
    return {
        "fastgru": sys.modules["fastgru"].__version__,  # the package, which is there before its modules
        "engine": CHOICE.engine,
        "isa": CHOICE.isa,
        "usable isas": ", ".join(_kernels.isas()),
        "float16 weights": "yes" if CHOICE.isa in _kernels.float16_isas() else "no",
        "int8 weights": "yes, multiplied as bytes" if CHOICE.isa in _kernels.dot_isas() else "yes, widened",
        "threads": _threads.shown(),
        "blas": _blas(),
        "numpy": _version("numpy"),
        "scipy": _version("scipy"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "caches": _caches(),
        "environment": ", ".join(f"{v}={os.environ[v]}" for v in VARIABLES if v in os.environ)
        or "nothing set",
    }


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, str]: ...
def show_config(mode: str = "stdout") -> dict[str, str] | None:
    """Print what computes here: engine, instruction set, BLAS, versions, the machine.

    Of SciPy, which only the BLAS engine needs, it may say "not installed".

    Parameters
    ----------
    mode : {'stdout', 'dicts'}
        Print, or return a dict, as `numpy.show_config` has it.

    Raises
    ------
    ValueError
        If `mode` is neither.

    Examples
    --------
    >>> import fastgru
    >>> fastgru.show_config("dicts")["engine"] in ("packed", "blas")
    True
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}")
    facts = _facts()
    if mode == "dicts":
        return facts
    width = max(map(len, facts))
    sys.stdout.writelines(f"{name:<{width}}  {value}\n" for name, value in facts.items())
    return None
