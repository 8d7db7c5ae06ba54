"""Several threads in one call: the same bits, whatever they are delayed by, and what bounds them."""

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import CHOICES
from hypothesis import given, settings
from hypothesis import strategies as st

import fastgru
from fastgru import _plans, _threads

pytestmark = pytest.mark.skipif(not CHOICES or sys.platform != "linux", reason="helpers are there on Linux")

THREADS = [2, 3, 4, 8]


@pytest.fixture(autouse=True)
def usual():
    """Eight threads on any machine; afterwards everything is as it was."""
    _threads.asked(2)  # the bounds of this process, which are read once
    limit = _plans.threads_limit()
    fastgru.set_num_threads(1)
    _plans.limit_threads(8)
    yield
    _plans.stall_threads(0, 0)
    _plans.set_threads(1)
    _plans.limit_threads(limit)


@pytest.fixture
def eager():
    """Helpers in every call that asks for them, delayed in the middle of some of their work."""
    _plans.stall_threads(200, 40)


def asked():
    """Calls that have asked for helpers: they have none while these are late in all memory that there is."""
    with_helpers, alone, _, _ = _plans.count_threads()
    return with_helpers + alone


def layers(draw, units):
    """Any layer, not built."""

    def gru(**own):
        return fastgru.GRU(
            units,
            recurrent_activation=draw(st.sampled_from(["sigmoid", "hard_sigmoid"])),
            reset_after=draw(st.booleans()),
            zero_output_for_mask=draw(st.booleans()),
            **options,
            **own,
        )

    options = draw(
        st.sampled_from([{}, {"dtype": "float64"}, {"weights_dtype": "float16"}, {"weights_dtype": "int8"}])
    )
    sequences, state = draw(st.booleans()), draw(st.booleans())
    kind = draw(st.sampled_from(["gru", "backwards", "bidirectional", "stack"]))
    if kind == "bidirectional":
        merge_mode = draw(st.sampled_from(["concat", "sum", None]))
        return fastgru.Bidirectional(
            gru(return_sequences=sequences, return_state=state), merge_mode=merge_mode
        )
    if kind == "stack":
        return fastgru.Stack(
            [gru(return_sequences=True), gru(return_sequences=sequences)], return_state=state
        )
    return gru(return_sequences=sequences, return_state=state, go_backwards=kind == "backwards")


def same(got, wanted):
    """Check that results are equal, bit for bit."""
    for one, other in zip(
        *([found] if isinstance(found, np.ndarray) else found for found in (got, wanted)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_call_has_the_bits_of_one_thread(data):
    draw = data.draw
    batch = draw(st.one_of(st.integers(1, 15), st.integers(16, 70)))
    units = draw(st.sampled_from([range(128, 150), range(1, 40)]).flatmap(st.sampled_from))
    timesteps, features = draw(st.integers(1, 12)), draw(st.integers(1, 20))
    layer = layers(draw, units)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=(batch, timesteps, features)).astype(np.float32)
    arguments = {}
    masked = draw(st.sampled_from(["mask", "lengths", "neither"]))
    if masked == "mask":
        arguments["mask"] = rng.random((batch, timesteps)) < draw(st.sampled_from([0.1, 0.8]))
    elif masked == "lengths":
        least = draw(st.sampled_from([0, timesteps]))
        arguments["lengths"] = rng.integers(min(least, timesteps), timesteps + 1, size=batch)
    if draw(st.booleans()):
        count = 1 if isinstance(layer, fastgru.GRU) else 2
        dtype = np.float64 if layer.dtype == "float64" else np.float32
        arguments["initial_state"] = [rng.normal(size=(batch, units)).astype(dtype) for _ in range(count)]
    layer.num_threads = 1
    wanted = layer(x, **arguments)
    layer.num_threads = draw(st.sampled_from(THREADS))
    _plans.stall_threads(100, draw(st.integers(1, 60)))
    before = asked()
    same(layer(x, **arguments), wanted)
    if masked != "lengths" and (batch >= 16 or units >= 128):
        assert asked() > before


@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_both_directions_of_a_small_layer_are_shared_and_a_small_gru_is_not(eager, merge_mode):
    x = np.random.default_rng(0).normal(size=(3, 40, 6)).astype(np.float32)
    gru = fastgru.GRU(20, return_sequences=True, num_threads=2)
    before = asked()
    gru(x)
    assert asked() == before
    both = fastgru.Bidirectional(fastgru.GRU(20, return_sequences=True), merge_mode=merge_mode)
    wanted = both(x)
    both.num_threads = 2
    same(both(x), wanted)
    assert asked() == before + 1


@pytest.mark.parametrize("threads", THREADS)
def test_streams_and_pools_take_a_number_of_their_own(eager, threads):
    layer = fastgru.GRU(40, reset_after=True)
    layer.build((None, None, 9))
    x = np.random.default_rng(0).normal(size=(20, 32, 9)).astype(np.float32)
    stream, helped_stream = layer.stream(32), layer.stream(32, num_threads=threads)
    pool, helped_pool = fastgru.StreamPool(layer, 32), fastgru.StreamPool(layer, 32, num_threads=threads)
    slots, helped_slots = ([each.open() for _ in range(32)] for each in (pool, helped_pool))
    before = asked()
    for step in x:
        same(helped_stream(step), stream(step))
        same(helped_pool.step(helped_slots, step), pool.step(slots, step))
    assert asked() == before + 2 * len(x)


def test_models_take_a_number_and_keep_it_in_copies(eager):
    layer = fastgru.GRU(130, recurrent_activation="sigmoid", return_sequences=True, input_shape=(None, 5))
    layer.build()
    model = fastgru.from_onnx_model(layer.to_onnx())
    x = np.random.default_rng(0).normal(size=(2, 30, 5)).astype(np.float32)
    wanted = model(x)
    model.num_threads = 3
    before = asked()
    for made in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert made.num_threads == 3
        same(made(x), wanted)
    assert asked() == before + 3


def test_layers_keep_their_number_in_copies_and_not_in_configs():
    layer = fastgru.GRU(3, num_threads=4)
    for made in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert made.num_threads == 4
    assert "num_threads" not in layer.get_config()
    assert fastgru.GRU.from_config(layer.get_config()).num_threads is None


def test_calls_that_do_not_say_have_those_of_the_process(eager):
    layer = fastgru.GRU(130)
    x = np.zeros((1, 20, 4), np.float32)
    layer(x)
    before = asked()
    layer(x)
    assert asked() == before
    fastgru.set_num_threads(2)
    layer(x)
    assert asked() == before + 1
    layer.num_threads = 1
    layer(x)
    assert asked() == before + 1


@pytest.mark.parametrize("both", [False, True])
def test_auto_measures_the_first_calls_and_has_the_bits_of_one_thread(eager, both):
    units = 133 if both else 131  # a size that no test before has measured
    layer = fastgru.GRU(units)
    layer = fastgru.Bidirectional(layer) if both else layer
    layer.num_threads = "auto"
    x = np.random.default_rng(0).normal(size=(3, 25, 17)).astype(np.float32)
    before = asked()
    results = [layer(x) for _ in range(30)]
    assert asked() > before
    layer.num_threads = 1
    for result in results:
        same(result, layer(x))
    shown = fastgru.show_config("dicts")["threads"]
    assert f"2x16x17x{units} and up to twice as many rows and steps: " in shown


def test_auto_is_alone_where_helpers_are_not_worth_while():
    layer = fastgru.GRU(129, num_threads="auto")
    x = np.zeros((1, 1, 3), np.float32)
    for _ in range(40):
        layer(x)
    (choice,) = [each for each in _plans.choices() if each[:2] == (3, 129)]
    assert choice[4] > 0
    assert choice[5:] == (0, False)


def test_auto_is_said_as_it_was_given():
    fastgru.set_num_threads("auto")
    assert fastgru.get_num_threads() == "auto"
    layer = fastgru.GRU(3, num_threads="auto")
    assert layer.num_threads == pickle.loads(pickle.dumps(layer)).num_threads == "auto"
    _plans.limit_threads(1)
    assert fastgru.get_num_threads() == 1


# ---- arguments and bounds ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "num_threads must be a positive integer, got 0"),
        (65, ValueError, "num_threads must be at most 64, got 65"),
        (1.5, TypeError, "num_threads must be an integer, got 1.5"),
        ("all", ValueError, "num_threads must be 1 to 64 or 'auto', got 'all'"),
    ],
)
def test_a_wrong_number_is_named(value, error, message):
    layer = fastgru.GRU(3, input_shape=(None, 2), num_threads=2)
    layer.build()
    attempts = [
        lambda: fastgru.GRU(3, num_threads=value),
        lambda: fastgru.set_num_threads(value),
        lambda: setattr(layer, "num_threads", value),
        lambda: layer.stream(num_threads=value),
        lambda: fastgru.StreamPool(layer, 2, num_threads=value),
    ]
    for attempt in attempts:
        with pytest.raises(error, match=message):
            attempt()
    assert layer.num_threads == 2
    assert fastgru.get_num_threads() == 1


def test_bounds_are_those_of_the_process_its_container_and_the_environment(tmp_path, monkeypatch):
    read_text = Path.read_text
    groups = "5:memory:/\n4:cpu,cpuacct:/one/deeper\n1:name=systemd:/a:b\n0::/two\n"
    monkeypatch.setattr(
        Path, "read_text", lambda path: groups if str(path) == "/proc/self/cgroup" else read_text(path)
    )
    old, new = tmp_path / "cpu/one", tmp_path / "two"
    (old / "deeper").mkdir(parents=True)
    new.mkdir()
    cpus = len(os.sched_getaffinity(0))
    assert _threads.bounds({}, tmp_path) == {"CPUs": cpus}
    for text, most in [("250000 100000", 2), ("50000 100000", 1), ("max 100000", None), ("nonsense", None)]:
        (new / "cpu.max").write_text(text)
        assert _threads.bounds({}, tmp_path).get("cpu.max") == most
    (tmp_path / "cpu.max").write_text("100000 100000")
    (new / "cpu.max").write_text("300000 100000")
    assert _threads.bounds({}, tmp_path) == {"CPUs": cpus, "cpu.max": 1}, "the group above has less"
    (tmp_path / "cpu.max").unlink()
    (new / "cpu.max").unlink()
    for quota, most in [("250000", 2), ("50000", 1), ("-1", None), ("nonsense", None)]:
        (old / "cpu.cfs_quota_us").write_text(quota + "\n")
        (old / "cpu.cfs_period_us").write_text("100000\n")
        assert _threads.bounds({}, tmp_path).get("cpu.cfs_quota_us") == most
    assert _threads.bounds({"OMP_NUM_THREADS": "3,2"}, tmp_path)["OMP_NUM_THREADS"] == 3
    assert "OMP_NUM_THREADS" not in _threads.bounds({"OMP_NUM_THREADS": "many"}, tmp_path)


def outcome(program, **environment):
    """What a program prints that OMP_NUM_THREADS does not bound."""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"OMP_NUM_THREADS": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split()


@pytest.mark.outside
def test_the_environment_asks_and_bounds():
    program = """
import fastgru
fastgru.GRU(2)
print(fastgru.get_num_threads(), fastgru.show_config("dicts")["threads"])
"""
    cpus = len(os.sched_getaffinity(0))
    assert outcome(program)[0] == "1"
    assert outcome(program, FASTGRU_NUM_THREADS="64")[0] == str(cpus)
    assert outcome(program, FASTGRU_NUM_THREADS="auto")[0] == ("auto" if cpus > 1 else "1")
    assert outcome(program, FASTGRU_NUM_THREADS="64", OMP_NUM_THREADS="1")[0] == "1"
    shown = outcome(program, FASTGRU_NUM_THREADS="2", OMP_NUM_THREADS="7")
    assert shown[-2:] == ["OMP_NUM_THREADS", "7"]
    finished = subprocess.run(
        [sys.executable, "-c", "import fastgru; fastgru.GRU"],
        env=os.environ | {"FASTGRU_NUM_THREADS": "two"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "FASTGRU_NUM_THREADS must be a number from 1 to 64 or auto, got 'two'" in finished.stderr


def test_threadpoolctl_sees_and_limits_them():
    import threadpoolctl

    found = [one for one in threadpoolctl.threadpool_info() if one["user_api"] == "fastgru"]
    assert [one["num_threads"] for one in found] == [8]
    fastgru.set_num_threads(4)
    with threadpoolctl.threadpool_limits(2):
        assert fastgru.get_num_threads() == 2
    with threadpoolctl.threadpool_limits({"fastgru": 1}):
        assert fastgru.get_num_threads() == 1
    assert fastgru.get_num_threads() == 4


# ---- the helpers --------------------------------------------------------------------------------------


def helper_threads():
    """The numbers of helpers in this process, by their names."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("fastgru-"):
            found[name] = task
    return found


@pytest.mark.outside
def test_there_is_none_before_a_call_wants_one_and_a_signal_never_meets_one():
    program = """
import numpy as np, fastgru
from fastgru import _plans
from pathlib import Path
def names(): return sorted(p.joinpath("comm").read_text().strip() for p in Path("/proc/self/task").iterdir())
fastgru.set_num_threads(2); _plans.limit_threads(8); _plans.stall_threads(0, 1)
layer = fastgru.GRU(30); x = np.zeros((20, 5, 4), np.float32)
layer.num_threads = 1; layer(x); assert not any("fastgru" in name for name in names()), names()
layer.num_threads = 3; layer(x)
print([name for name in names() if "fastgru" in name])
for task in Path("/proc/self/task").iterdir():
    if "fastgru" in task.joinpath("comm").read_text():
        status = dict(line.split(":", 1) for line in task.joinpath("status").read_text().splitlines())
        assert int(status["SigBlk"], 16) & (1 << 1 | 1 << 14), status["SigBlk"]  # SIGINT and SIGTERM
"""
    assert outcome(program) == ["['fastgru-1',", "'fastgru-2']"]


def test_helpers_sleep_when_there_is_nothing_to_do(eager):
    fastgru.GRU(30, num_threads=3)(np.zeros((20, 5, 4), np.float32))
    assert len(helper_threads()) >= 2
    for task in helper_threads().values():
        while (task / "stat").read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.001)


def test_a_helper_that_is_woken_on_another_cpu_than_the_callers_may_run_on_all_of_them_again(eager):
    layer = fastgru.GRU(128, num_threads=4)
    x = np.zeros((1, 10, 8), np.float32)
    for _ in range(10):
        layer(x)
        time.sleep(0.005)  # they sleep meanwhile
    everywhere = os.sched_getaffinity(0)
    assert len(helper_threads()) >= 3
    for task in helper_threads().values():
        while os.sched_getaffinity(int(task.name)) != everywhere:
            time.sleep(0.001)


def test_weights_may_go_while_a_helper_is_late():
    _plans.stall_threads(2000, 7)
    before = _plans.count_threads()[3]
    while _plans.count_threads()[3] < before + 10:
        layer = fastgru.GRU(140, num_threads=4)
        layer(np.zeros((2, 20, 4), np.float32))
        del layer  # and the packed weights with it


def test_weights_may_change_while_a_helper_is_late():
    _plans.stall_threads(1000, 4)
    layer, other = fastgru.GRU(140, num_threads=4), fastgru.GRU(140)
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    layer(x)
    other(x)
    for seed in range(20):
        weights = [
            np.random.default_rng(seed).normal(size=array.shape) * 0.1 for array in other.get_weights()
        ]
        layer.set_weights(weights)
        other.set_weights(weights)
        same(layer(x), other(x))


def test_callers_beyond_the_pool_run_alone_and_right(eager):
    layer = fastgru.GRU(135, reset_after=True, return_sequences=True, num_threads=4)
    inputs = [np.random.default_rng(i).normal(size=(i + 1, 10, 6)).astype(np.float32) for i in range(6)]
    layer(inputs[0])
    layer.num_threads = 1
    wanted = [layer(x) for x in inputs]
    layer.num_threads = 4
    wrong = []

    def calls(i):
        for _ in range(20):
            if not np.array_equal(layer(inputs[i]), wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=calls, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.outside
def test_children_of_a_fork_have_helpers_of_their_own():
    program = """
import os, threading, numpy as np, fastgru
from fastgru import _plans
fastgru.set_num_threads(2); _plans.limit_threads(8); _plans.stall_threads(300, 5)
layer = fastgru.GRU(140, num_threads=3, return_sequences=True); x = np.ones((2, 20, 4), np.float32)
wanted = layer(x)
stop = threading.Event()
def calls():
    while not stop.is_set(): layer(x)
thread = threading.Thread(target=calls); thread.start()
children = []
for _ in range(8):
    before = _plans.count_threads()[0]
    child = os.fork()
    if not child:
        right = all(np.array_equal(layer(x), wanted) for _ in range(5))
        os._exit(0 if right and _plans.count_threads()[0] > before else 1)
    children.append(os.waitpid(child, 0)[1])
stop.set(); thread.join()
print(children)
"""
    assert "".join(outcome(program)) == str([0] * 8).replace(" ", "")


@pytest.mark.outside
@pytest.mark.parametrize("daemon", [True, False])
def test_a_program_ends_while_a_thread_calls(daemon):
    program = f"""
import threading, time, numpy as np, fastgru
from fastgru import _plans
fastgru.set_num_threads(2); _plans.limit_threads(8); _plans.stall_threads(300, 5)
layer = fastgru.GRU(140, num_threads=3); x = np.ones((2, 20, 4), np.float32); layer(x)
end = time.monotonic() + (1e9 if {daemon} else 0.3)
def calls():
    while time.monotonic() < end: layer(x)
threading.Thread(target=calls, daemon={daemon}).start()
time.sleep(0.2)
print("over")
"""
    assert outcome(program) == ["over"]
