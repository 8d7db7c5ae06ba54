"""Subinterpreters, and the end of an interpreter that has daemon threads in calls."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.outside

ROOT = Path(__file__).resolve().parents[2]


def run(code, *arguments):
    """What a fresh interpreter prints that ends by itself."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    found = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


# Computes in several interpreters, those of `order`: "main", or a new one. Prints what each one got.
INTERPRETERS = """
import sys

try:
    from concurrent import interpreters
    def run(code):
        interpreters.create().exec(code)
except ImportError:  # Python 3.13 and before
    try:
        import _interpreters
        def run(code):
            _interpreters.exec(_interpreters.create(), code)
    except ImportError:
        import _xxsubinterpreters
        def run(code):
            _xxsubinterpreters.run_string(_xxsubinterpreters.create(), code)

CODE = f'''
import sys
sys.path[:] = {sys.path!r}
try:
    import fastgru
    fastgru.set_num_threads(2)
    import numpy as np
    layer = fastgru.GRU(96, return_sequences=True, kernel_initializer="ones")
    print(layer(np.zeros((8, 50, 96), np.float32)).shape, flush=True)
except ImportError as error:
    print(error, flush=True)
'''
for each in sys.argv[1:]:
    exec(CODE) if each == "main" else run(CODE)
"""
REFUSED = (
    "fastgru runs in one interpreter of a process, the one that imports NumPy and compiled modules first; "
    "this is another one. Use threads or processes in place of subinterpreters"
)
COMPUTED = "(8, 50, 96)"


def test_subinterpreters_beside_the_main_one_are_refused_and_it_goes_on():
    printed = run(INTERPRETERS, "main", "sub", "sub", "main").splitlines()
    assert printed == [COMPUTED, REFUSED, REFUSED, COMPUTED]


def test_of_several_subinterpreters_one_computes_at_most():
    # the first one does where NumPy lets it: in Python 3.11, as servers such as mod_wsgi have it
    printed = run(INTERPRETERS, "sub", "sub", "sub").splitlines()
    assert printed[0] in (COMPUTED, REFUSED)
    assert printed[1:] == [REFUSED] * 2


# Daemon threads call, some with a helper, while the main thread ends.
ENDING = """
import sys, threading
import numpy as np
import fastgru

way = sys.argv[1]
x = np.zeros((8, 50, 64), np.float32)
layer = fastgru.GRU(64, return_sequences=True, stateful=way == "stateful", num_threads=2)
layer.build(x.shape)
pool = fastgru.StreamPool(layer, 100)

def calls():
    stream, slots = layer.stream(8), [pool.open() for _ in range(8)]
    act = {
        "calls": lambda: layer(x),
        "stateful": lambda: layer(x),
        "chunks": lambda: stream(x),
        "steps": lambda: pool.step(slots, x[:, 0]),
        "weights": lambda: (layer.set_weights(layer.get_weights()), layer(x)),
        "Python": lambda: fastgru.GRU(3, activation=np.tanh)(x[:, :2]),
    }[way]
    while True:
        act()
        going.release()

going = threading.Semaphore(0)
for _ in range(4):
    threading.Thread(target=calls, daemon=True).start()
for _ in range(20):
    going.acquire()
print("end")
"""


@pytest.mark.parametrize("way", ["calls", "stateful", "chunks", "steps", "weights", "Python"])
def test_a_program_ends_while_daemon_threads_call(way):
    assert run(ENDING, way) == "end\n"
