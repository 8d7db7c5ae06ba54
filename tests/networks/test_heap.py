"""What a repeated call or step takes from the heap: nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.outside,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts by preloading, as Linux has it"),
]

COUNTER = """
import ctypes, itertools
import numpy as np
import fastgru
from fastgru import _config, _kernels

calls = ctypes.CDLL(None).heap_calls
calls.restype = ctypes.c_long

def taken(function, times=50):
    for _ in range(10):
        function()
    repeat = itertools.repeat(None, times)
    before = calls()
    for _ in repeat:
        function()
    return calls() - before

assert taken(lambda: bytearray(1000)) >= 50  # the counter counts

"""

CALLS = """
CASES = itertools.product(
    ["packed", "int8", "blas"], [False, True], [False, True], [False, True], ["", "mask", "lengths"],
    [(1, 1, 1, 1), (1, 1, 40, 300), (3, 60, 40, 300), (200, 2, 8, 64)],
)
for engine, reset_after, sequences, stateful, ends, (batch, timesteps, features, units) in CASES:
    if engine == "blas" and ends == "lengths":  # of which it makes a mask
        continue
    _config.CHOICE = _config.Choice("blas" if engine == "blas" else "packed", _kernels.isas()[0])
    flags = {"return_sequences": sequences, "stateful": stateful, "reset_after": reset_after}
    layer = fastgru.GRU(units, weights_dtype="int8" if engine == "int8" else None, **flags)
    x = np.zeros((batch, timesteps, features), np.float32)
    out = np.empty((batch, timesteps, units) if sequences else (batch, units), np.float32)
    mask = np.ones((batch, timesteps), bool) if ends == "mask" else None
    lengths = np.full(batch, timesteps, np.intp) if ends == "lengths" else None
    state = None if stateful else np.zeros((batch, units), np.float32)
    count = taken(lambda: layer(x, state, mask, lengths=lengths, out=out))
    print(count, engine, reset_after, sequences, stateful, ends, x.shape, units)
"""

STEPS = """
CASES = itertools.product(
    ["packed", "blas"], [False, True], ["float32", "float64", "int8"],
    [(1, 1, 1), (1, 40, 300), (3, 40, 300), (200, 8, 64)],
)
for engine, reset_after, dtype, (batch, features, units) in CASES:
    _config.CHOICE = _config.Choice(engine, _kernels.isas()[0])
    kept_in, dtype = (dtype, "float32") if dtype == "int8" else (None, dtype)
    layer = fastgru.GRU(units, reset_after=reset_after, dtype=dtype, weights_dtype=kept_in)
    layer.build((None, None, features))
    stream, pool = layer.stream(batch), fastgru.StreamPool(layer, 2 * batch)
    x, out = np.zeros((batch, features), dtype), np.empty((batch, units), dtype)
    slots = np.array([pool.open() for _ in range(2 * batch)])[::2].copy()
    counts = [
        taken(lambda: stream(x)), taken(lambda: stream(x, out)), taken(lambda: stream(x, out=out)),
        taken(lambda: pool.step(slots, x, out)), taken(lambda: pool.step(slots, x, out=out)),
    ]
    # an output is an array, and a large one memory besides
    few = int(taken(lambda: pool.step(slots, x)) <= 2 * 50)
    print(*counts, few, engine, reset_after, dtype, x.shape, units)
"""

MODELS = """
from fastgru._nodes import Convolution, Dense, Embedding, LayerNormalization, Merge, Recurrent
from fastgru.model import Input, Model, Output

CASES = itertools.product(["float32", "float64", "int8"], [False, True], [(1, 1), (3, 20), (200, 4)])
for dtype, indices, (batch, timesteps) in CASES:
    kept_in, dtype = (dtype, "float32") if dtype == "int8" else (None, dtype)
    def ones(*shape):
        return np.ones(shape, dtype)
    layer = fastgru.GRU(8, return_sequences=True, dtype=dtype)
    layer.build((None, None, 8))
    first = (
        Embedding(name="e", inputs=("x",), outputs=("a",), table=ones(9, 8)) if indices
        else Dense(name="e", inputs=("x",), outputs=("a",), kernel=ones(5, 8), activation="relu")
    )
    nodes = [
        first,
        Convolution(name="c", inputs=("a",), outputs=("b",), kernel=ones(3, 8, 8), padding="causal"),
        LayerNormalization(name="n", inputs=("b",), outputs=("c",), gamma=ones(8), beta=ones(8),
                           epsilon=1.0),
        Recurrent(name="g", inputs=("c",), outputs=("d",), layer=layer),
        Merge(name="m", inputs=("d", "a"), outputs=("e",), mode="sum"),
        Dense(name="d", inputs=("e",), outputs=("y",), kernel=ones(8, 4), activation="softmax"),
    ]
    one = Input("x", (None,), True) if indices else Input("x", (None, 5))
    model = Model([one], nodes, [Output("y")], dtype=dtype, weights_dtype=kept_in)
    x = np.zeros((batch, 1), np.int32) if indices else np.zeros((batch, 5), dtype)
    out, stream, pool = np.empty((batch, 4), dtype), model.stream(batch), fastgru.StreamPool(model, batch)
    slots = np.array([pool.open() for _ in range(batch)])
    counts = [taken(lambda: stream(x)), taken(lambda: stream(x, out))]
    counts.append(taken(lambda: pool.step(slots, x, out)))
    sequence, whole = np.zeros((batch, timesteps, 5), dtype), np.empty((batch, timesteps, 4), dtype)
    counts.append(0 if indices else taken(lambda: model(sequence, out=whole)))
    print(*counts, dtype, kept_in, indices, batch, timesteps)
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A function that runs a program with a `taken` to count with, and returns the lines that it prints."""
    library = tmp_path_factory.mktemp("heap") / "heap_calls.so"
    source = Path(__file__).with_name("heap_calls.c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "OPENBLAS_NUM_THREADS": "1",
        "OPENBLAS_CORETYPE": "Haswell",  # kernels for AVX-512 allocate, for products of some sizes
    }

    def lines(program):
        command = [sys.executable, "-c", COUNTER + program]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return run.stdout.splitlines()

    return lines


def test_a_repeated_call_with_out_allocates_nothing(counted):
    lines = counted(CALLS)
    assert len(lines) == (3 + 3 + 2) * 2 * 2 * 2 * 4
    assert [line for line in lines if not line.startswith("0 ")] == []


def test_a_step_of_a_stream_or_of_a_pool_with_out_allocates_nothing(counted):
    lines = counted(STEPS)
    assert len(lines) == 2 * 2 * 3 * 4
    assert [line for line in lines if not line.startswith("0 0 0 0 0 1 ")] == []


def test_a_step_of_a_model_and_its_call_with_out_allocate_nothing(counted):
    lines = counted(MODELS)
    assert len(lines) == 3 * 2 * 3
    assert [line for line in lines if not line.startswith("0 0 0 0 ")] == []
