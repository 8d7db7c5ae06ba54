"""Layers and processes: what forks, what is sent, and the programs that the documentation shows of both."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastgru
from fastgru import _config

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "how-to"


def run(*arguments, cwd):
    """What a fresh interpreter prints; nobody forks pytest itself, which has threads."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "FASTGRU_ENGINE": _config.CHOICE.engine}
    command = [sys.executable, *arguments]
    found = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


FORKED = """
import os, pickle, threading
import numpy as np
import fastgru

layer = fastgru.GRU(40, reset_after=True, return_sequences=True)
x = np.random.default_rng(0).normal(size=(6, 30, 20)).astype("f4")
expected, going = layer(x), True

def compute():
    while going:
        layer(x)

def is_right():
    twin = pickle.loads(pickle.dumps(layer))
    return all(np.array_equal(result, expected) for result in (layer(x), layer.stream(6)(x), twin(x)))

threads = [threading.Thread(target=compute) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(20):
    child = os.fork()
    if not child:
        os._exit(0 if is_right() else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
going = False
for thread in threads:
    thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_layer_works_in_a_process_forked_while_threads_compute_with_it(tmp_path):
    assert run("-W", "ignore", "-c", FORKED, cwd=tmp_path).split() == ["0"] * 20


THREADS = """
import os
import numpy
before = len(os.listdir("/proc/self/task"))
import fastgru
layer = fastgru.GRU(256)
layer(numpy.zeros((64, 10, 64), "f4"))
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux shows them")
@pytest.mark.skipif(_config.CHOICE.engine != "packed", reason="BLAS starts threads of its own")
def test_the_packed_engine_starts_no_threads(tmp_path):
    assert run("-c", THREADS, cwd=tmp_path) == "0\n"


def test_workers_that_are_sent_the_layer_have_its_bits(tmp_path):
    page = (FOLDER / "pickle-to-workers.md").read_text()
    printed = run(FOLDER / "workers.py", cwd=tmp_path)
    assert printed.endswith("True\n")
    assert f"```text\n{printed}```" in page


SERVED = """
import io, os, sys
from app import app

def answer(body):
    sent = []
    environ = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    return b"".join(app(environ, lambda *arguments: sent.append(arguments))), sent[0][0]

with open("x.bin", "rb") as file:
    body = file.read()
for number in range(2):
    if not os.fork():
        with open(f"answer{number}", "wb") as file:
            file.write(answer(body)[0])
        os._exit(0)
    os.wait()
for wrong in (b"", body[1:]):
    print(answer(wrong)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_workers_forked_from_the_service_have_its_bits(tmp_path):
    shutil.copy(FOLDER / "app.py", tmp_path)
    layer = fastgru.GRU(16, reset_after=True)
    layer.build((None, None, 5))
    layer.save(tmp_path / "layer.npz")
    x = np.random.default_rng(0).normal(size=(1, 20, 5)).astype(np.float32)
    x.tofile(tmp_path / "x.bin")
    assert run("-W", "ignore", "-c", SERVED, cwd=tmp_path) == "400 Bad Request\n" * 2
    for number in range(2):
        assert (tmp_path / f"answer{number}").read_bytes() == layer(x).tobytes()
