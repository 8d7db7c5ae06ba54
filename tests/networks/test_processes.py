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

pytestmark = pytest.mark.outside

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "how-to"


def run(*arguments, cwd):
    """What a fresh interpreter prints; nobody forks pytest itself, which has threads."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "FASTGRU_ENGINE": _config.CHOICE.engine}
    command = [sys.executable, *arguments]
    found = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


# The threads of the parent do what `load` returns, again and again. Each child calls `child`, which returns
# whether all that it got is right; an error that the documentation names is right, too.
FORKED = """
import asyncio, os, pickle, signal, sys, threading
import numpy as np
import fastgru
from fastgru import GRU, Bidirectional, MicroBatcher, Stack, StreamPool

kind, batches = sys.argv[1], int(sys.argv[2])
x = np.random.default_rng(0).normal(size=(2, 6, 5)).astype("f4")
step = x[:, 0].copy()

def built(layer):
    layer.build((2, None, 5))
    return layer

def upper(**more):
    return GRU(4, **more)

def same(*results):
    return all(np.array_equal(results[0], result) for result in results[1:])

def calls(layer):
    # a layer without a state
    layer, expected = built(layer), layer(x)
    twin = lambda: pickle.loads(pickle.dumps(layer))
    return lambda number: lambda: layer(x), lambda: same(expected, layer(x), twin()(x))

def stateful(layer):
    built(layer).reset_states()
    expected = layer(x)

    def child():
        layer.reset_states()
        return same(expected, layer(x))

    return lambda number: lambda: (layer(x), layer.states, layer.reset_states()), child

def weights(layer):
    # which are set while the layer is called
    layer = built(layer)
    sets = [[np.full_like(w, value) for w in layer.weights] for value in (0.25, -0.5)]
    results = []
    for each in sets:
        layer.set_weights(each)
        results.append(layer(x))

    def child():
        found = layer(x)
        layer.set_weights(sets[0])
        return any(same(found, result) for result in results) and same(layer(x), results[0])

    return lambda number: lambda: layer.set_weights(sets[number % 2]), child

def making():
    # names, random numbers, the binding of BLAS
    def make():
        return built(Stack([GRU(4, return_sequences=True), Bidirectional(GRU(3))]))(x)

    return lambda number: make, lambda: make().shape == (2, 6)

def streams():
    layer = built(Stack([GRU(4, return_sequences=True), GRU(4)]))
    shared, fresh = layer.stream(2), lambda: layer.stream(2)(step)
    expected = fresh().copy()

    def child():
        try:
            shared.reset()
            right = same(shared(step), expected) and same(shared.copy().state[1], expected)
        except RuntimeError as error:
            right = "a stream does one thing at a time" in str(error)
        return right and same(fresh(), expected)

    def load(number):
        stream = shared if number == 0 else layer.stream(2)
        return lambda: (stream(step), stream.state, stream.reset())

    return load, child

def pools():
    layer = built(Stack([GRU(4, return_sequences=True), GRU(4)]))
    pool, expected = StreamPool(layer, 20), layer.stream(2)(step).copy()
    slots = [[pool.open(), pool.open()] for _ in range(4)]

    def child():
        mine = [pool.open(), pool.open()]
        right = same(pool.step(mine, step), expected)
        for slot in slots[0]:
            try:
                pool.reset(slot)
                pool.step([slot], step[:1])
            except ValueError as error:
                right = right and "which another thread is stepping" in str(error)
            pool.close(slot)
        return right and len(pool) == 8

    return lambda number: lambda: (pool.step(slots[number], step), pool.reset(slots[number])), child

def batchers():
    # a pool may be in another batcher after a fork, and a batcher may not
    layer = built(GRU(4))
    pool, expected = StreamPool(layer, 20), layer.stream(2)(step).copy()

    async def both(batcher, slots):
        return np.array(await asyncio.gather(*(batcher.step(*each) for each in zip(slots, step))))

    async def once(slots):
        async with MicroBatcher(pool) as batcher:
            return await both(batcher, slots)

    def load(number):
        slots = [pool.open(), pool.open()]

        async def serve():
            async with MicroBatcher(pool) as batcher:
                for _ in range(100):
                    await both(batcher, slots)

        return lambda: asyncio.run(serve())

    return load, lambda: same(asyncio.run(once([pool.open(), pool.open()])), expected)

both = lambda **more: Bidirectional(upper(**more))
stack = lambda **more: Stack([GRU(3, return_sequences=True, **more), upper(**more)])
deep = lambda: Stack([both(return_sequences=True), GRU(4, dtype="float64", return_sequences=True), GRU(4)])
slow = lambda: Stack([GRU(3, return_sequences=True), GRU(4, activation=np.tanh)])
KINDS = {
    "GRU": lambda: calls(upper()), "Bidirectional": lambda: calls(both()), "Stack": lambda: calls(stack()),
    "Stack of all kinds": lambda: calls(deep()), "Stack with a Python activation": lambda: calls(slow()),
    "stateful GRU": lambda: stateful(upper(stateful=True)),
    "stateful Bidirectional": lambda: stateful(both(stateful=True)),
    "stateful Stack": lambda: stateful(stack(stateful=True)),
    "weights of a GRU": lambda: weights(upper()), "weights of a Stack": lambda: weights(stack()),
    "new layers": making, "Stream": streams, "StreamPool": pools, "MicroBatcher": batchers,
}
load, child = KINDS[kind]()
going = True

def work(act):
    while going:
        act()

threads = [threading.Thread(target=work, args=(load(number),)) for number in range(3)]
sys.setswitchinterval(1e-4)
for thread in threads:
    thread.start()
codes = set()
for _ in range(batches):
    children = []
    for _ in range(10):
        children.append(os.fork())
        if not children[-1]:
            signal.alarm(10)  # ends a child that hangs
            code = 2
            try:
                code = 0 if child() else 1
            finally:
                os._exit(code)
    codes |= {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
    if codes != {0}:
        break
going = False
for thread in threads:
    thread.join()
print(*codes)
"""
KINDS = [
    "GRU",
    "Bidirectional",
    "Stack",
    "Stack of all kinds",
    "Stack with a Python activation",
    "stateful GRU",
    "stateful Bidirectional",
    "stateful Stack",
    "weights of a GRU",
    "weights of a Stack",
    "new layers",
    "Stream",
    "StreamPool",
    "MicroBatcher",
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("kind", KINDS)
def test_a_child_forked_while_threads_compute_computes_as_its_parent(tmp_path, kind):
    assert run("-W", "ignore", "-c", FORKED, kind, "10", cwd=tmp_path) == "0\n"


DRAWING = """
import os, signal
import fastgru
from fastgru import _random

def draw():
    return fastgru.initializers.GlorotUniform()((2, 3)).tolist()

fastgru.set_random_seed(3)
draw()
drawing = _random.generator().bit_generator.lock
with _random._lock, drawing:  # as threads hold them that draw at that moment
    child = os.fork()
    if not child:
        signal.alarm(20)
        print(draw(), flush=True)
        os._exit(0)
os.waitpid(child, 0)
print(draw())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_forked_while_threads_draw_random_numbers_draws_those_that_follow(tmp_path):
    in_the_child, in_the_parent = run("-W", "ignore", "-c", DRAWING, cwd=tmp_path).splitlines()
    assert in_the_child == in_the_parent


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
