"""What a repeated call takes from the heap: nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import ctypes, itertools
import numpy as np
import fastgru
from fastgru import _config, _core

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

CASES = itertools.product(
    ["packed", "blas"], [False, True], [False, True], [False, True], [False, True],
    [(1, 1, 1, 1), (1, 1, 40, 300), (3, 60, 40, 300), (200, 2, 8, 64)],
)
for engine, reset_after, sequences, stateful, masked, (batch, timesteps, features, units) in CASES:
    _config.CHOICE = _config.Choice(engine, _core.isas()[0])
    layer = fastgru.GRU(units, reset_after=reset_after, return_sequences=sequences, stateful=stateful)
    x = np.zeros((batch, timesteps, features), np.float32)
    out = np.empty((batch, timesteps, units) if sequences else (batch, units), np.float32)
    mask = np.ones((batch, timesteps), bool) if masked else None
    state = None if stateful else np.zeros((batch, units), np.float32)
    count = taken(lambda: layer(x, state, mask, out=out))
    print(count, engine, reset_after, sequences, stateful, masked, x.shape, units)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts by preloading, as Linux has it")
def test_a_repeated_call_with_out_allocates_nothing(tmp_path):
    library = tmp_path / "heap_calls.so"
    source = Path(__file__).with_name("heap_calls.c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 2 * 2 * 2 * 2 * 2 * 4
    assert [line for line in lines if not line.startswith("0 ")] == []
