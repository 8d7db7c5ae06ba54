"""Engines next to each other, in one process and in turns: the tree's, commits', and with other constants.

    python -m benchmarks.engines main~1 . --layers 1x100x256x256 32x50x512x512
    python -m benchmarks.engines . .:FASTGRU_CHUNK_ROWS=32,FASTGRU_FEW_ROWS=8 --layers 4x64x1024x1024

An engine is a commit, or . for the tree as it is, and constants of src/layout.h that are to have another
value. Shapes are batch x timesteps x features x units. Printed are microseconds of a call, and the times by
the first engine's: the median, lowest and highest of the rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import timeit
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.tasks import Array, Shape, Task
from benchmarks.turns import raced

ROOT = Path(__file__).resolve().parents[1]
COMPILE = (
    "gcc",
    "-std=gnu11",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-shared",
    "-fPIC",
)  # as setup.py
ALIGNMENT = 64
BLOCK = 0.03  # seconds, or one call
ROUNDS = 21

Call = Callable[[], object]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("engines", nargs="+", metavar="ENGINE", help="COMMIT[:CONSTANT=VALUE,...]")
    parser.add_argument("--layers", nargs="+", metavar="SHAPE", type=Shape.parse, required=True)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--isa", help="instruction set (default: the best of the machine)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            libraries = [build(engine, Path(folder) / str(i)) for i, engine in enumerate(options.engines)]
        except ValueError as error:
            parser.error(str(error))
        for shape in options.layers:
            print(shape)
            try:
                prepare = [prepared(library, shape, options.isa) for library in libraries]
            except ValueError as error:
                parser.error(str(error))
            calls, outputs = zip(*prepare, strict=True)
            times = raced([timeit.Timer(call) for call in calls], options.rounds, BLOCK)
            ratios = times / times[0]
            for engine, own, ratio, output in zip(options.engines, times, ratios, outputs, strict=True):
                bits = "" if np.array_equal(output, outputs[0]) else "  OTHER BITS"
                print(
                    f"  {1e6 * np.median(own):12.2f} us  {np.median(ratio):.3f} "
                    f"({ratio.min():.3f} to {ratio.max():.3f})  {engine}{bits}",
                    flush=True,
                )
    return 0


def build(engine: str, folder: Path) -> ctypes.CDLL:
    """The library of an engine, compiled into a folder.

    Raises
    ------
    ValueError
        If there is no such commit or constant.
    """
    commit, _, changes = engine.partition(":")
    folder.mkdir()
    if commit == ".":
        for name in ("include", "src"):
            shutil.copytree(ROOT / name, folder / name)
    else:
        archive = folder / "engine.tar"
        command = ["git", "archive", f"--output={archive}", commit]
        if subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.DEVNULL).returncode:
            raise ValueError(f"an engine must be . or a commit, got {commit!r}")
        with tarfile.open(archive) as files:
            files.extractall(folder, filter="data")
    header = folder / "src/layout.h"
    if not header.exists():  # until 2026-11-30 the engine was headers alone
        header = folder / "include/fastgru/layer.h"
        (folder / "include/fastgru/fastgru.h").write_text('#define walk turn\n#include "engine.h"\n')
    text = header.read_text()
    for change in filter(None, changes.split(",")):
        name, _, value = change.partition("=")
        text, count = re.subn(rf"\b{re.escape(name)} = [^,/\n]+", f"{name} = {value}", text)
        if not value or count != 1:
            raise ValueError(f"a constant of layout.h must be given as NAME=VALUE, got {change!r}")
    header.write_text(text)
    library = folder / "engine.so"
    sources = [ROOT / "benchmarks/engines.c", *sorted((folder / "src").glob("*.c"))]
    subprocess.run([*COMPILE, f"-I{folder / 'include'}", *sources, "-o", library], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.layer_bytes.restype = loaded.begin.restype = loaded.scratch_bytes.restype = ctypes.c_size_t
    loaded.run.restype = ctypes.c_uint
    return loaded


def prepared(library: ctypes.CDLL, shape: Shape, isa: str | None = None) -> tuple[Call, Array]:
    """A call that has been made once, and the array that it writes to.

    Raises
    ------
    ValueError
        If the machine does not have the instruction set.
    """
    arrays = Task(shape).arrays()
    batch, timesteps, features, units = map(ctypes.c_ssize_t, shape)
    layer = aligned(library.layer_bytes())
    packed_bytes = library.begin(pointer(layer), features, units, isa and isa.encode())
    if not packed_bytes:
        raise ValueError(f"isa must be an instruction set that this machine has, got {isa!r}")
    packed = aligned(packed_bytes)
    library.pack(*map(pointer, (layer, arrays.kernel, arrays.recurrent_kernel, arrays.bias, packed)))
    scratch = aligned(library.scratch_bytes(pointer(layer), batch, timesteps))
    out = np.empty((shape.batch, shape.timesteps, shape.units), np.float32)
    kept = layer, arrays.x, arrays.state, out, scratch, packed
    at, x, state, to, scratch_at, _ = map(pointer, kept)
    turn = 0

    def call() -> object:
        nonlocal turn
        turn = library.run(at, batch, timesteps, x, state, to, ctypes.c_uint(turn), scratch_at)
        return kept  # alive as long as the call is

    call()
    return call, out


def aligned(size: int) -> Array:
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


def pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


if __name__ == "__main__":
    sys.exit(main())
