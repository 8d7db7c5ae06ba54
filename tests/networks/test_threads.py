"""One layer, many threads."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import reference
from conftest import CHOICES

import fastgru
from fastgru import _config, _kernels


def run_together(functions):
    """Call all functions at the same time, each in a thread of its own; their results."""
    barrier = threading.Barrier(len(functions))

    def start(function):
        barrier.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(start, functions))


@pytest.mark.parametrize("arguments", [{}, {"reset_after": True}, {"activation": lambda x: np.tanh(x)}])
def test_threads_get_the_bits_that_one_thread_gets(choice, arguments):
    layer = fastgru.GRU(33, return_sequences=True, **arguments)
    inputs = [np.random.default_rng(i).normal(size=(3, 40, 17)).astype(np.float32) for i in range(8)]
    mask = np.random.default_rng(9).random((3, 40)) < 0.8
    wanted = [layer(x, mask=mask) for x in inputs]
    for _ in range(5):
        results = run_together([lambda x=x: layer(x, mask=mask) for x in inputs])
        for got, want in zip(results, wanted, strict=True):
            np.testing.assert_array_equal(got, want)


def test_threads_do_not_share_the_memory_of_calls_of_any_size(choice):
    layer = fastgru.GRU(20, return_sequences=True, reset_after=True)
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (9, 30), (2, 3), (40, 2), (1, 400), (64, 9)]
    inputs = [rng.normal(size=(*size, 5)).astype(np.float32) for size in sizes]
    wanted = [layer(x) for x in inputs]

    def calls(seed):
        for i in np.random.default_rng(seed).integers(len(inputs), size=150):
            np.testing.assert_array_equal(layer(inputs[i]), wanted[i])

    run_together([lambda seed=seed: calls(seed) for seed in range(6)])


def test_threads_that_blas_starts_compute_the_same(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    monkeypatch.setattr(_config, "CHOICE", _config.Choice("blas", _kernels.isas()[0]))
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(48, 5, 100)), [rng.normal(0, 0.05, (n, 1200)) for n in (100, 400)]
    layer = fastgru.GRU(400, dtype="float64", return_sequences=True, weights=[*weights, np.zeros(1200)])
    layer.build(x.shape)
    with threadpoolctl.threadpool_limits(3, "blas"):
        threads = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
        found = layer(x)
    assert 3 in threads
    np.testing.assert_allclose(found, reference.gru(x, *layer.get_weights())[0], rtol=0, atol=1e-12)


@pytest.mark.outside
def test_importing_leaves_the_gil_off():
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this interpreter has a GIL")
    code = """
import sys, numpy as np, fastgru
fastgru.GRU(2)(np.zeros((1, 1, 3), np.float32))
print(sys._is_gil_enabled())
"""
    for engine in ("", "blas"):
        environment = os.environ | {"FASTGRU_ENGINE": engine, "PYTHON_GIL": ""}
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout == "False\n"


@pytest.mark.outside
def test_threads_that_need_blas_first_get_it_whole():
    code = """
import threading, numpy as np, fastgru
x, results = np.ones((40, 1, 3), np.float32), []
together = threading.Barrier(8)

def call(i):
    layer = fastgru.GRU(4, dtype=["float32", "float64"][i % 2], kernel_initializer="ones")
    together.wait()
    results.append(layer(x.astype(layer.dtype)).shape)

threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(results == [(40, 4)] * 8)
"""
    environment = os.environ | {"FASTGRU_ENGINE": "blas"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert run.stdout == "True\n", run.stderr


def test_the_first_call_builds_once(choice):
    x = np.ones((1, 2, 3), np.float32)
    for _ in range(20):
        layer = fastgru.GRU(5)
        results = run_together([lambda layer=layer: layer(x)] * 6)
        assert all((r == results[0]).all() for r in results)


def test_stateful_calls_come_one_after_the_other(choice):
    # every call adds its own step to the chain of states: 200 steps in any order of threads
    x = np.random.default_rng(0).normal(size=(2, 1, 3)).astype(np.float32)
    layer = fastgru.GRU(5, stateful=True)
    layer.build((2, None, 3))
    run_together([lambda: [layer(x) for _ in range(25)]] * 8)
    single = fastgru.GRU(5, stateful=True)
    single.build((2, None, 3))
    single.set_weights(layer.get_weights())
    for _ in range(200):
        single(x)
    np.testing.assert_array_equal(layer.states[0], single.states[0])


@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_a_copy_has_a_state_from_between_calls(choice, twin_of):
    x = np.random.default_rng(0).normal(size=(8, 200, 16)).astype(np.float32)
    layer = fastgru.GRU(64, stateful=True)
    layer.build(x.shape)
    states = {layer.states[0].tobytes()}
    for _ in range(40):
        layer(x)
        states.add(layer.states[0].tobytes())
    layer.reset_states()
    caller = threading.Thread(target=lambda: [layer(x) for _ in range(40)])
    caller.start()
    found = set()
    while caller.is_alive():
        found.add(twin_of(layer).states[0].tobytes())
    caller.join()
    assert found <= states


WEIGHTS = [(choice, None) for choice in CHOICES]
WEIGHTS += [(choice, "int8") for choice in CHOICES if choice.engine == "packed"]
WEIGHTS += [(choice, "float16") for choice in CHOICES if choice.isa in _kernels.float16_isas()]


@pytest.mark.parametrize(("batch", "timesteps", "calls"), [(1, 30, 200), (140, 4, 60), (1, 900, 40)])
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize(("choice", "weights_dtype"), WEIGHTS)
def test_a_call_sees_one_set_of_weights(
    monkeypatch, choice, weights_dtype, reset_after, batch, timesteps, calls
):
    monkeypatch.setattr(_config, "CHOICE", choice)
    layer = fastgru.GRU(
        16, return_sequences=True, reset_after=reset_after, weights_dtype=weights_dtype, dtype="float32"
    )
    x = np.random.default_rng(1).normal(size=(batch, timesteps, 4)).astype(np.float32)
    layer.build(x.shape)
    sets = [[np.full_like(w, v) for w in layer.get_weights()] for v in (0.1, -0.2)]
    wanted = []
    for weights in sets:
        layer.set_weights(weights)
        wanted.append(layer(x).tobytes())
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for weights in sets:
                layer.set_weights(weights)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        seen = {layer(x).tobytes() for _ in range(calls)}
    finally:
        stop.set()
        changer.join()
    assert seen <= set(wanted)


INTERRUPTED = """
import signal, threading
import numpy as np
import fastgru

x = np.zeros((1, 2, 3), np.float32)
layer = fastgru.GRU(4, stateful=True, batch_input_shape=(1, None, 3))
layer.build()
both = fastgru.Bidirectional(fastgru.GRU(4, stateful=True, batch_input_shape=(1, None, 3)))
plain = fastgru.GRU(4, input_shape=(None, 3))
plain.build()
stream, pool = plain.stream(), fastgru.StreamPool(plain, 2)
slot = pool.open()
WAYS = [
    lambda: layer(x), lambda: both(x), lambda: stream.reset(), lambda: stream.state, lambda: stream(x),
    lambda: stream(x[:, 0]), lambda: pool.reset(slot), lambda: pool.reset(),
    lambda: pool.step([slot], x[:, 0]),
]

def interrupt(*_):
    raise KeyboardInterrupt

def everything():
    for way in WAYS:
        way()
    done.append(True)

signal.signal(signal.SIGALRM, interrupt)
for way in WAYS:
    for delay in np.linspace(2e-6, 60e-6, 1500):
        try:
            signal.setitimer(signal.ITIMER_REAL, delay)
            for _ in range(10000):  # the timer comes long before the end
                way()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            pass
done = []
other = threading.Thread(target=everything, daemon=True)  # a lock would be the first thread's own
other.start()
other.join(20)
print(done)
"""


@pytest.mark.outside
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer that interrupts")
def test_interrupts_leave_nothing_locked():
    run = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert run.stdout == "[True]\n", run.stderr


def test_the_computation_releases_the_gil(choice):
    # with a switch interval this long a thread runs on until it lets go of the GIL by itself
    layer = fastgru.GRU(256, reset_after=True)
    x = np.zeros((64, 300, 64), np.float32)
    layer(x[:, :1])
    started, finished = threading.Event(), []

    def compute():
        started.set()
        layer(x)
        finished.append(True)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread = threading.Thread(target=compute)
        thread.start()
        started.wait()
        assert not finished
        thread.join()
    finally:
        sys.setswitchinterval(interval)


def test_layers_get_names_of_their_own_in_all_threads():
    results = run_together([lambda: [fastgru.GRU(1).name for _ in range(50)]] * 6)
    names = [name for result in results for name in result]
    assert len(set(names)) == 300


@pytest.mark.parametrize("stateful", [False, True])
def test_first_calls_that_disagree_are_never_both_right(choice, stateful):
    # features 3 against 300, or batch 1 against 200: one builds the layer, the other is refused
    narrow = np.ones((1, 2, 3), np.float32)
    wide = np.ones((200, 2, 3) if stateful else (1, 2, 300), np.float32)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            layer = fastgru.GRU(5, stateful=stateful)

            def attempt(x, layer=layer):
                try:
                    return layer(x).shape
                except ValueError as error:
                    return str(error)

            results = run_together([lambda: attempt(narrow), lambda: attempt(wide)])
            assert sorted(isinstance(r, str) for r in results) == [False, True]
    finally:
        sys.setswitchinterval(interval)
