"""The race against the peers judges rightly and survives its contenders; no peer need be installed."""

import functools
import json
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

sys.path.append(str(Path(__file__).parents[2]))  # where `python -m pytest` starts, but not `pytest`

from benchmarks.networks import NETWORKS, NetworkTask
from benchmarks.race import __main__ as command
from benchmarks.race import contenders, files, peers, pictures, report, roofline, worker
from benchmarks.race.contenders import (
    Contender,
    FastGRU,
    FastGRUBlas,
    FastGRUHalf,
    FastGRUInt8,
    Keras,
    LiteRt,
    NumPy,
    OnnxRuntime,
    OnnxRuntimeBound,
    TfKeras,
    Torch,
    TorchInt8,
)
from benchmarks.race.heats import Entrant, Heat, Race, ratios, rotated
from benchmarks.race.process import Process, RaceError
from benchmarks.race.record import Record
from benchmarks.race.regimes import GOALS, MODELS, REGIMES, Event, Goal, Regime
from benchmarks.race.roofline import Meter, Roofline, step_bytes
from benchmarks.tasks import FRAMES, Shape, Task
from benchmarks.ways import ENGINES, WAYS

pytestmark = pytest.mark.xdist_group("race")  # whose contenders, and files of models, are made once
ROOT = Path(__file__).parents[2]
SMALL = Shape(2, 3, 4, 5)
STREAM = Task(Shape(2, 1, 4, 5), stream=True)
JUDGED = Task(Shape(1, 1, 256, 256), stream=True)  # fastgru should be twice as fast as the best peer
TASKS = [
    Task(SMALL),
    Task(Shape(1, 1, 4, 3)),
    STREAM,
    Task(SMALL, dtype="float64"),
    Task(SMALL, reset_after=False),
    STREAM._replace(reset_after=False),
    Task(SMALL, recurrent_activation="hard_sigmoid"),
    Task(SMALL, masked=True),
    Task(SMALL, bidirectional=True),
]


class Peer(Contender):
    """fastgru in disguise; its workers find the classes of this file."""

    name = "peer"
    variables = {"PYTHONPATH": str(Path(__file__).parents[1])}  # noqa: RUF012

    def start(self, threads):
        pass

    def prepare(self, task, arrays):
        return FastGRU().prepare(task, arrays)


class Wrong(Peer):
    name = "wrong"

    def prepare(self, task, arrays):
        call = super().prepare(task, arrays)
        return lambda: call() + np.float32(1e-3)


class Forgetful(Peer):
    """Right at first."""

    name = "forgetful"

    def prepare(self, task, arrays):
        call, calls = super().prepare(task, arrays), []
        return lambda: calls.append(call().copy()) or calls[-1] * (len(calls) == 1)


class Misshapen(Peer):
    name = "misshapen"

    def prepare(self, task, arrays):
        call = super().prepare(task, arrays)
        return lambda: call()[:1]


class Rough(Wrong):
    """Computes with other weights than it is given, like a quantised one."""

    name = "rough"
    weights_dtype = "int8"
    limit = 1e-2


class OursWrong(Wrong):
    name = "fastgru"
    peer = False


class Unimportable(Peer):
    name = "unimportable"

    def start(self, threads):
        import no_such_library  # noqa: F401


class Talkative(Peer):
    name = "talkative"

    def prepare(self, task, arrays):
        print("welcome", flush=True)
        os.write(1, b"to the library")
        return super().prepare(task, arrays)


class Crashing(Peer):
    name = "crashing"

    def prepare(self, task, arrays):
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(3)


class CrashingLater(Peer):
    name = "crashing later"

    def prepare(self, task, arrays):
        call = super().prepare(task, arrays)
        calls = iter([call, call])  # to warm up, and to be checked
        return lambda: next(calls, lambda: os._exit(4))()


class Hanging(Peer):
    name = "hanging"

    def prepare(self, task, arrays):
        time.sleep(60)


class OneRow(Peer):
    name = "one row"
    lacks = frozenset({"batch"})


class Threaded(Peer):
    """Fails unless it is told of three threads, both ways."""

    name = "threaded"

    def start(self, threads):
        assert (threads, os.environ["OMP_NUM_THREADS"]) == (3, "3")


class Greedy(Peer):
    """Takes a hundred cores, by the clock of its process."""

    name = "greedy"

    def prepare(self, task, arrays):
        time.process_time = lambda: 100 * time.perf_counter()
        call = super().prepare(task, arrays)
        return lambda: time.sleep(0.01) or call()


def roofs(peak=100.0, bandwidth=50.0):
    """A machine that does the same at all times."""
    return lambda sizes: Roofline(peak, 2 * peak, 8, 3.0, dict.fromkeys(sizes, bandwidth))


@pytest.fixture(scope="module")
def heat():
    """Runs a heat of two rounds, one call a block; all heats share their contenders' processes."""
    with ExitStack() as stack:

        @functools.cache
        def started(contender):
            process = stack.enter_context(Process(contender))
            process.ask("start", threads=1, cold=False)
            return process

        def run(*classes, task=None, **options):
            processes = {each.name: started(each) for each in classes}
            race = Race(processes, rounds=2, seconds=0, **options)
            return race.heat(classes, task or Task(SMALL))

        yield run


class Still:
    """A meter that measures nothing."""

    def __init__(self, *_):
        self.measure = roofs()


@pytest.fixture
def short(monkeypatch, tmp_path):
    """Of a race only what differs from one to the next."""
    monkeypatch.setattr(command, "SECONDS", 0)
    monkeypatch.setattr(command, "PACED", 0.02)
    monkeypatch.setattr(command, "Meter", Still)
    return functools.partial(run_short, tmp_path)


def run_short(folder, everyone, *arguments):
    return command.main([*arguments, "--out", str(folder)], everyone)


def made_up(contender, task, *medians, **result):
    """An entrant with blocks of one call each, of so many microseconds."""
    blocks = [np.array([1000.0 * median]) for median in medians]
    return Entrant(contender, task, 1e-7, blocks=blocks, **result)


def record(*entrants, plain=None, limits=(), regime="stream", **fields):
    """A race over with one heat."""
    over = Heat(entrants[0].task, "", list(entrants), plain, list(limits))
    return Record(2, 0, heats={regime: [over]}, **fields)


def printed(what, details=False):
    console = Console(width=140, no_color=True)
    with console.capture() as capture:
        report.show(what, console, details)
    return capture.get()


# ---- what is raced ---------------------------------------------------------------------------------


def test_a_shape_is_read_and_written():
    assert Shape.parse("1x100x40x128") == (1, 100, 40, 128)
    assert str(Shape(1, 100, 40, 128)) == "1x100x40x128"


@pytest.mark.parametrize("text", ["", "1x2x3", "1x2x3x4x5", "1x2x3x0", "1x2x3x-4", "1x2x3x4.0", "axbxcxd"])
def test_what_is_no_shape_is_named(text):
    with pytest.raises(ValueError, match=f"such as 1x100x40x128, got '{text}'"):
        Shape.parse(text)


def test_a_task_is_named_by_what_it_needs():
    assert str(Task(SMALL)) == "2x3x4x5"
    assert str(Task(SMALL, dtype="float64", reset_after=False)) == "2x3x4x5 float64 reset_before"
    assert Task(SMALL, masked=True).needs == {"batch", "mask"}


def test_masks_leave_no_row_empty():
    arrays = Task(Shape(100, 4, 2, 3), masked=True).arrays()
    assert {*arrays.lengths} == {1, 2, 3, 4}
    np.testing.assert_array_equal(arrays.mask, np.arange(4) < arrays.lengths[:, np.newaxis])


def test_frames_of_a_stream_come_in_turn():
    exact = STREAM.exact(2 * FRAMES)
    assert exact.shape == (2, 2 * FRAMES, 5)
    arrays = STREAM.arrays()
    np.testing.assert_array_equal(exact[:, :FRAMES], STREAM.exact(FRAMES))
    calls = Task(Shape(2, 2 * FRAMES, 4, 5)).exact()  # other inputs
    assert np.abs(exact - calls).max() > 1e-3
    assert arrays.x.shape == (2, FRAMES, 4)
    assert FRAMES % 2 == 0  # two buffers of states come in turn with them


def test_regimes_and_goals_fit_together():
    tasks = {event.task for regime in REGIMES for event in regime.events}
    names = {contender.name for contender in contenders.ALL}
    for regime in REGIMES:
        assert {*regime.quick} <= {*regime.events}
        assert len({*regime.events}) == len(regime.events)
    for goal in GOALS:
        assert goal.task in tasks
        assert {goal.contender, goal.baseline} <= names | {"the best peer", "plain"}
    stream, sequence, batch, *_ = REGIMES
    assert {event.task.shape.timesteps for event in stream.events} == {1}
    assert all(event.task.stream for event in stream.events)
    assert {event.task.shape.batch for event in sequence.events} == {1}
    assert {event.task.shape.batch for event in batch.events} == {8, 32, 64, 128, 256}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1x2x3"], "batch x timesteps x features x units, .* a regime must be among stream, sequence"),
        (["--only", "fastgru,tourch"], "among fastgru, fastgru-f16, .* got tourch"),
        (["--rounds", "many"], "invalid count value: 'many'"),
        (["--rounds", "0"], "must be at least 1, got 0"),
        (["--threads", "-1"], "must be at least 1, got -1"),
    ],
)
def test_errors_of_the_command_line_are_clear(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_regimes_and_shapes_are_chosen():
    everything = command.plan([], quick=False)
    assert everything.keys() == {regime.name for regime in REGIMES}
    assert command.plan(["batch"], quick=False) == {"batch": everything["batch"]}
    assert len(command.plan(["batch"], quick=True)["batch"]) < len(everything["batch"])
    asked = command.plan([SMALL, Shape(4, 1, 2, 3)], quick=False)
    assert [event.task for event in asked["asked"]] == [Task(SMALL), Task(Shape(4, 1, 2, 3), stream=True)]


def test_other_instruction_sets_run_on_request_only():
    everyone = {contender.name: contender for contender in contenders.ALL}
    options = command.parse(["--add", "fastgru-sse2"], everyone)
    assert "fastgru-sse2" not in options.only
    assert [*options.add] == ["fastgru-sse2"]
    assert {"fastgru", "fastgru-f16", "fastgru-blas", "torch", "torch-int8", "numpy"} <= {*options.only}
    assert everyone["fastgru-sse2"].variables == {"FASTGRU_ISA": "sse2"}


# ---- contenders ------------------------------------------------------------------------------------


def test_contenders_fit_together():
    names = [contender.name for contender in contenders.ALL]
    assert len({*names}) == len(names)
    for contender in contenders.ALL:
        assert all("==" in requirement for requirement in contender.requirements)
        assert contender.home in ("", *names)
    homes = {contender.name: contender.requirements for contender in contenders.ALL}
    assert all(c.requirements == homes[c.home] for c in contenders.ALL if c.home)


def test_a_worker_needs_numpy_alone():
    statement = "import sys, benchmarks.race.worker; print(*{name.split('.')[0] for name in sys.modules})"
    python = [sys.executable, "-c", statement]
    loaded = subprocess.run(python, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {*loaded} & {"fastgru", "scipy", "rich", "onnx", "onnxruntime", "torch", "jax", "tensorflow"}


def test_asv_takes_nothing_here_for_a_benchmark():
    for file in (ROOT / "benchmarks" / "race").rglob("*.py"):
        assert not re.findall(r"(?m)^ *def (?:time|timeraw|peakmem|mem|track)_\w+", file.read_text())


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task}{' stream' * task.stream}")
@pytest.mark.parametrize(
    "contender",
    [FastGRU, FastGRUBlas, FastGRUHalf, NumPy, OnnxRuntime, OnnxRuntimeBound, Torch, TfKeras, LiteRt],
)
def test_contenders_are_right(heat, contender, task):
    """Those whose libraries the tests have anyway; the race checks all of them before it times them."""
    if contender.requirements:
        home = contender.home or contender.name
        pytest.importorskip({"tf_keras": "tensorflow"}.get(home, home))
    entrants = heat(contender, task=task).entrants
    assert len(entrants) == contender.runs(task)
    for entrant in entrants:
        assert not entrant.failure
        assert entrant.difference < (1e-12 if task.dtype == "float64" else 1e-6)
        assert [len(block) for block in entrant.blocks] == [1, 1]
        assert 0 < entrant.fastest <= entrant.median <= entrant.p99


# ---- heats -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [Task(SMALL), STREAM])
@pytest.mark.parametrize(
    ("contender", "reason"),
    [
        (Wrong, "wrong by 1.0e-03"),
        (Forgetful, "wrong by "),
        (Misshapen, "wrong, its result has the shape (1, "),
    ],
)
def test_a_wrong_contender_is_disqualified(heat, contender, reason, task):
    wrong, right = heat(contender, Peer, task=task).entrants
    assert wrong.wrong
    assert wrong.failure.startswith(reason)
    assert not wrong.blocks
    assert not right.failure
    assert len(right.blocks) == 2


def test_other_weights_have_another_limit_and_are_no_peer_to_be_measured_by(heat):
    over = heat(Rough, Peer)
    rough, right = over.entrants
    assert not rough.failure
    assert rough.difference == pytest.approx(1e-3, rel=0.01)
    assert over.best_peer() is right
    rough.blocks, right.blocks = right.blocks, rough.blocks
    assert over.best_peer() is right


@pytest.mark.parametrize(
    ("contender", "reason"),
    [
        (Crashing, "ended with status 3: out of luck"),
        (CrashingLater, "ended with status 4"),
    ],
)
def test_a_crash_is_reported_and_the_race_goes_on(heat, contender, reason):
    right, crashed = heat(Peer, contender).entrants
    assert crashed.failure == reason
    assert not crashed.wrong
    assert len(right.blocks) == 2


def test_a_contender_that_crashed_stays_out(heat):
    for _ in range(2):
        [crashed] = heat(Crashing).entrants
        assert crashed.failure == "ended with status 3: out of luck"


def test_a_silent_contender_is_given_up_and_the_race_goes_on():
    with Process(Peer) as lively, Process(Hanging, timeout=0.5) as silent:
        race = Race({"peer": lively, "hanging": silent}, rounds=2, seconds=0)
        hanging, peer = race.heat([Hanging, Peer], Task(SMALL)).entrants
    assert hanging.failure == "no answer within 0.5 s"
    assert len(peer.blocks) == 2


def test_what_a_library_prints_is_no_reply(heat):
    [entrant] = heat(Talkative).entrants
    assert not entrant.failure


def test_who_takes_more_cores_than_allowed_is_out(heat):
    [entrant] = heat(Greedy).entrants
    assert re.fullmatch(r"takes \d\d\.\d cores, not 1|takes 100\.0 cores, not 1", entrant.failure)
    assert not entrant.wrong
    [entrant] = heat(Greedy, threads=100).entrants
    assert not entrant.failure


def test_who_has_no_such_layer_does_not_enter(heat):
    assert [entrant.name for entrant in heat(Peer, OneRow).entrants] == ["peer"]
    assert [entrant.name for entrant in heat(OneRow, task=Task(Shape(1, 3, 4, 5))).entrants] == ["one row"]


def test_fastgru_runs_against_itself(heat):
    with Process(FastGRU) as process:
        process.ask("start", threads=1, cold=False)
        race = Race({"fastgru": process}, rounds=2, seconds=0)
        over = race.heat([FastGRU], Task(SMALL, reset_after=False), plain=Task(SMALL))
    assert len(over.plain.blocks) == len(over.entrants[0].blocks) == 2
    assert not over.plain.failure


def test_each_round_another_one_goes_first():
    assert [rotated("abc", turn) for turn in range(4)] == [[*"abc"], [*"bca"], [*"cab"], [*"abc"]]


def test_the_machine_is_measured_in_each_round(heat):
    asked = []

    def measure(sizes):
        asked.append(sorted(sizes))
        return roofs()(sizes)

    over = heat(FastGRU, FastGRUHalf, task=STREAM, measure=measure)
    assert asked == [[2 * STREAM.shape.weights, 4 * STREAM.shape.weights]] * 2
    assert len(over.limits) == 2
    ours, half = over.entrants
    roof = [limits.microseconds(STREAM, 4) for limits in over.limits]
    assert over.of_roof(ours) == pytest.approx(np.median(roof / ours.medians))
    assert over.of_roof(half) < np.median(roof / half.medians)


def test_a_heat_goes_on_without_a_roofline(heat):
    calls = []

    def measure(sizes):
        calls.append(sizes)
        if len(calls) == 2:
            raise MemoryError
        return roofs()(sizes)

    over = heat(FastGRU, measure=measure)
    [entrant] = over.entrants
    assert entrant.finished
    assert over.of_roof(entrant) is None


def test_a_long_heat_ends_after_three_rounds():
    ticks = []
    with Process(Peer) as process:
        process.ask("start", threads=1, cold=False)
        race = Race({"peer": process}, rounds=5, seconds=0, most=0, tick=ticks.append)
        [entrant] = race.heat([Peer], Task(SMALL)).entrants
    assert len(entrant.blocks) == 3
    assert sum(ticks) == 6


def test_threads_are_told(tmp_path):
    with Process(Threaded, threads=3) as process:
        process.ask("start", threads=3, cold=False)


def test_caches_are_emptied_between_calls_untimed(monkeypatch):
    monkeypatch.setattr(worker, "cache_bytes", lambda: 8000)
    evicted, called = worker.evictor(), []
    np.testing.assert_array_equal(evicted(), np.ones(2000))
    order = []
    worker.block(lambda: order.append("call"), 0, lambda: order.append("evict"))
    assert order == ["evict", "call"]
    cold = worker.Worker(NumPy())
    cold.start(threads=1, cold=True)
    cold.calls["0"] = lambda: called.append(1)
    assert cold.evict
    assert len(cold.block("0", 0)) == len(called) == 1


def test_the_size_of_the_caches_is_known():
    assert worker.cache_bytes() >= 1 << 15


def test_a_clock_does_not_wait_for_who_is_late():
    """A slow call makes those after it late, as it would their users."""
    calls = iter([0.05])
    nanoseconds = worker.paced(lambda: time.sleep(next(calls, 0)), seconds=0.05, period=0.01)
    assert len(nanoseconds) == 5
    assert nanoseconds[0] >= 50e6
    assert nanoseconds[1] >= 40e6  # due 10 ms later


# ---- figures ---------------------------------------------------------------------------------------


def test_times_are_of_blocks_and_of_calls():
    blocks = [np.array([1e3, 3e3, 2e3]), np.array([6e3, 4e3, 5e3])]
    entrant = Entrant(Peer, Task(SMALL), blocks=blocks)
    np.testing.assert_array_equal(entrant.medians, [2, 5])
    assert entrant.median == 3.5
    assert entrant.fastest == 1
    assert entrant.p99 == pytest.approx(5.95)


def test_ratios_are_taken_round_by_round():
    baseline, entrant = made_up(Peer, JUDGED, 10, 40), made_up(FastGRU, JUDGED, 1, 2)
    np.testing.assert_array_equal(ratios(baseline, entrant), [10, 20])


def test_the_best_peer_is_one_that_finished():
    fast, slow = made_up(Peer, JUDGED, 2, 2), made_up(Talkative, JUDGED, 3, 3)
    ours, failed = made_up(FastGRU, JUDGED, 1, 1), made_up(Crashing, JUDGED, 1, failure="crashed")
    assert Heat(JUDGED, "", [ours, failed, slow, fast]).best_peer() is fast
    assert Heat(JUDGED, "", [ours, failed]).best_peer() is None


def test_int8_weights_have_their_own_peers():
    ours, exact = made_up(FastGRU, JUDGED, 4, 4), made_up(Peer, JUDGED, 2, 2)
    small, rough = made_up(FastGRUInt8, JUDGED, 1, 1), made_up(Rough, JUDGED, 3, 6)
    over = Heat(JUDGED, "", [ours, small, rough, exact])
    assert over.best_peer() is exact
    assert over.best_peer("int8") is rough
    np.testing.assert_array_equal(over.against_peers(small), [3, 6])
    np.testing.assert_array_equal(over.against_peers(ours), [0.5, 0.5])
    judged = {judgement.what: judgement for judgement in record(*over.entrants).judgements()}
    found = judged[f"{JUDGED}: fastgru-int8, times as fast as rough"]
    assert (found.reached, found.met) == (4.5, True)
    slower = record(small, made_up(Rough, JUDGED, 0.5, 0.5))
    assert "fastgru-int8, times as fast as rough" in printed(slower)
    assert printed(record(*over.entrants), details=True).count("the best peer") >= 2


def test_the_roofline_of_int8_has_bytes_and_integers():
    task = Task(Shape(64, 1, 256, 256), stream=True)
    sizes = [step_bytes(task, itemsize) for itemsize in (1, 4)]
    assert sizes[1] == 4 * sizes[0]
    limits = Roofline(100.0, 1000.0, 8, 3.0, dict.fromkeys(sizes, 1e9))  # products alone count
    small, ours, of_bytes = (made_up(each, task, 1e6) for each in (FastGRUInt8, FastGRU, TorchInt8))
    over = Heat(task, "", [small, ours, of_bytes], limits=[limits])
    least = [1e6 * over.of_roof(entrant) for entrant in (small, ours)]
    products = 6e-3 * 64 * 256 * 512 / 100  # microseconds at the peak of floats
    assert least[1] - least[0] == pytest.approx(0.9 * products)
    assert over.of_roof(of_bytes) is None


def test_an_error_is_from_weights_that_are_not_rounded(heat):
    [half] = heat(FastGRUHalf).entrants
    assert half.difference < 3e-5 < half.error < 1e-2


@pytest.mark.parametrize(("theirs", "met"), [((4, 8), True), ((2, 2), False)])
def test_a_ratio_is_judged(theirs, met):
    over = record(made_up(FastGRU, JUDGED, 1, 2), made_up(Peer, JUDGED, *theirs))
    goal, first = over.judgements()
    assert goal.wanted == 2
    assert goal.reached == first.reached == np.median(np.divide(theirs, (1, 2)))
    assert goal.met == met
    assert first.met
    assert ("2 missed" in printed(over)) != met


@pytest.mark.parametrize(("theirs", "met"), [(1.1, True), (0.9, False)])
def test_where_a_peer_is_faster_the_tables_say_so(theirs, met):
    over = record(made_up(FastGRU, Task(SMALL), 1), made_up(Peer, Task(SMALL), theirs), regime="batch")
    [first] = over.judgements()
    assert first.met == met
    assert ("times as fast as the best peer, peer" in printed(over)) != met
    assert ("slower" in report.markdown(over)) != met
    assert f"| {theirs:.2f} |" in report.markdown(over) or "**0.900, slower**" in report.markdown(over)


@pytest.mark.parametrize(("share", "met"), [(0.61, True), (0.59, False)])
def test_the_share_of_the_roofline_is_judged(share, met):
    task = Task(Shape(32, 50, 256, 256))
    limits = roofs()([step_bytes(task, 4)])
    over = record(made_up(FastGRU, task, limits.microseconds(task, 4) / share), limits=[limits])
    [judgement] = over.judgements()
    assert judgement.reached == pytest.approx(share)
    assert judgement.met == met
    assert f"{100 * share:.0f} %" in printed(over)
    assert f"{100 * share:.0f} %" in printed(over, details=True)


def test_few_units_need_not_reach_the_roofline():
    limits = roofs()([step_bytes(STREAM, 4)])
    assert record(made_up(FastGRU, STREAM, 1e6), limits=[limits]).judgements() == []


@pytest.mark.parametrize(("baseline", "contender"), [("plain", FastGRU), ("peer", Peer)])
def test_a_goal_names_what_it_is_measured_by(monkeypatch, baseline, contender):
    task = Task(SMALL, reset_after=False)
    monkeypatch.setattr("benchmarks.race.record.GOALS", [Goal(task, "fastgru", 0.8, baseline)])
    ours, other = made_up(FastGRU, task, 10, 20), made_up(contender, Task(SMALL), 6, 12)
    entrants, plain = ([ours], other) if baseline == "plain" else ([ours, other], None)
    over = record(*entrants, plain=plain, regime="variants")
    goal = over.judgements()[0]
    assert goal.reached == pytest.approx(0.6)
    assert f"times as fast as {baseline}" in printed(over)
    other.failure = "out"
    assert over.judgements() == []
    assert "failed " + contender.name in printed(over)


@pytest.mark.parametrize(("times", "met"), [(1.25, True), (1.35, False)])
def test_the_cost_of_a_way_to_call_is_judged(times, met):
    costs = {way.code: [[4.0, 8.0], [4.0 * times, 8.0 * times]] for way in WAYS}
    over = Record(2, 0, ways={"packed": costs})
    judgements = {judgement.what: judgement for judgement in over.judgements()}
    given = judgements["gru(x, h) on the engine packed, times the time of gru(x)"]
    assert (given.reached, given.wanted, given.met) == (pytest.approx(times), 1.3, met)
    on_top = judgements["gru(x_float64) on the engine packed, microseconds more than gru(x)"]
    assert on_top.reached == pytest.approx(6 * (times - 1))
    assert (
        "gru(x, h) on the engine packed, times the time of gru(x): 1.35, at most 1.3" in printed(over)
    ) != met
    assert ("**1.35 (1.35 - 1.35)**" in report.markdown(over)) != met


def test_what_was_missed_is_said_last():
    over = record(made_up(FastGRU, JUDGED, 1), made_up(Peer, JUDGED, 1.5))
    assert printed(over).splitlines()[-2:] == [
        "reached 1 of 2 figures that are wanted",
        "  1x1x256x256: fastgru, times as fast as the best peer: 1.5, 2 missed",
    ]


def test_details_have_a_row_for_each_contender():
    text = printed(record(made_up(FastGRU, JUDGED, 1, 2), made_up(Peer, JUDGED, 4, 8)), details=True)
    assert re.search(r"peer +6.0 +4.0 +8.0 +2 +1.0e-07 +the best peer", text)


# ---- the documentation's page ----------------------------------------------------------------------

PAGE = (ROOT / "docs" / "benchmarks.md").read_text()


def sections(tables):
    """The first cells of each table's rows, by its title."""
    _, *parts = tables.split("### ")
    cells = {part.partition("\n")[0]: re.findall(r"^\| (.*?) \|", part, re.M) for part in parts}
    return {title: rows[2:] for title, (*rows,) in cells.items()}


def test_the_page_has_every_layer_of_the_race():
    tables = PAGE.partition(report.BEGIN)[2].partition(report.END)[0]
    layers = {
        regime.title: [f"{event.task}" + f", {event.label}" * bool(event.label) for event in regime.events]
        for regime in REGIMES
        if regime.name != MODELS
    }
    assert sections(tables) == layers
    ratios = re.findall(r"^\| \d[^|]*(?:\|[^|]*){3}\| ([\d.]+|\*\*[\d.]+, slower\*\*) \|", tables, re.M)
    slower = sum("slower" in ratio for ratio in ratios)
    assert len(ratios) == sum(map(len, layers.values()))
    assert f"the fastest exact contender at {len(ratios) - slower} of {len(ratios)} layers" in tables


def test_the_page_has_every_model_of_the_race():
    table = PAGE.partition(report.BEGIN_MODELS)[2].partition(report.END_MODELS)[0]
    [models] = [regime.events for regime in REGIMES if regime.name == MODELS]
    called = [f"{e.label}, {e.task.shape}" + ", a step" * e.task.stream for e in models]
    assert sections(table) == {"Whole models": called}
    ratios = re.findall(r"^\|[^|]*\| [\d.]+ \| ([\d.]+|\*\*[\d.]+, slower\*\*) \|", table, re.M)
    slower = sum("slower" in ratio for ratio in ratios)
    assert len(ratios) == len(models)
    assert f"the fastest exact contender at {len(ratios) - slower} of {len(ratios)} heats of models" in table


def test_a_race_of_models_alone_leaves_the_tables_of_layers_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "DOCS", tmp_path)
    (tmp_path / "benchmarks.md").write_text(PAGE)
    [*command.write_docs(models_over(), tmp_path)]
    written = (tmp_path / "benchmarks.md").read_text()
    assert written.partition(report.BEGIN_MODELS)[0] == PAGE.partition(report.BEGIN_MODELS)[0]
    assert "| NSNet2, 1x1, a step | 2.0 | 3.00 | 6.0 |" in written


def test_a_race_writes_the_pages_tables_in_their_form(short, monkeypatch, tmp_path, capsys):
    task = Task(Shape(1, 1, 2, 3), stream=True)
    monkeypatch.setattr(command, "REGIMES", (Regime("stream", "Steps", (Event(task, "somebody's"),), ()),))
    monkeypatch.setitem(report.TITLES, "stream", "Steps")
    monkeypatch.setattr(command, "DOCS", tmp_path)
    page = tmp_path / "benchmarks.md"
    page.write_text(PAGE)
    assert short([FastGRU, Peer], "--rounds=3", "--write-docs") == 0
    assert str(page) in capsys.readouterr().out
    before, _, after = PAGE.partition(PAGE.partition(report.BEGIN)[2].partition(report.END)[0])
    written = page.read_text()
    assert written.startswith(before)
    assert written.endswith(after)
    tables = written[len(before) : len(written) - len(after)]
    assert sections(tables)["Steps"] == ["1x1x2x3, somebody's"]
    assert re.search(r"the fastest exact contender at [01] of 1 layers", tables)
    head = next(line for line in PAGE.splitlines() if line.startswith("| layer | fastgru |"))
    assert head in tables.splitlines()


def test_only_a_whole_race_goes_into_the_documentation(capsys):
    for part in ("stream", "--quick"):
        with pytest.raises(SystemExit, match="2"):
            command.main([part, "--write-docs"])
        assert "must be of a whole race" in capsys.readouterr().err


def test_a_page_without_marks_is_left_alone():
    with pytest.raises(ValueError, match="must have the marks"):
        report.replaced(f"# Benchmarks\n{report.BEGIN}\n", "tables")


# ---- pictures --------------------------------------------------------------------------------------


def test_pictures_are_drawn_of_what_there_is(tmp_path):
    assert list(pictures.draw(record(made_up(FastGRU, Task(SMALL), 1)), tmp_path)) == []
    heats = []
    sizes = (1, 1, 8), (1, 1, 16), (4, 1, 8), (1, 100, 8), (1, 100, 16)
    for shape in (Shape(batch, timesteps, units, units) for batch, timesteps, units in sizes):
        task = Task(shape, stream=shape.timesteps == 1)
        limits = [roofs()([step_bytes(task, 4)])] * 2
        entrants = [made_up(FastGRU, task, 1, 2), made_up(Peer, task, 3, 4)]
        heats.append(Heat(task, "", entrants, limits=limits))
    rough = {"error": 1e-2}
    heats[1].entrants.append(made_up(FastGRUInt8, heats[1].task, 0.5, 0.6, **rough))
    heats[1].entrants[0].error = 1e-7
    files = list(pictures.draw(Record(2, 0, heats={"stream": heats}), tmp_path))
    assert [file.name for file in files] == [
        "times.png",
        "times-step.png",
        "times-sequence.png",
        "ratios.png",
        "latency.png",
        "errors.png",
    ]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_names_at_the_ends_of_lines_do_not_overlap():
    np.testing.assert_allclose(pictures.spread(np.array([1.0, 5.0]), 1, 0, 9), [1, 5])
    moved = pictures.spread(np.array([0.0, 0.1, 0.2, 8.9, 9.0]), 1, 0, 9)
    assert np.diff(moved).min() > 0.99
    assert moved[0] >= 0
    assert moved[-1] <= 9


# ---- whole models ----------------------------------------------------------------------------------


def models_over(theirs=6.0):
    """A race over, of NSNet2 step by step and of the tagger."""
    heats = [
        Heat(task, label, [made_up(FastGRU, task, 2.0), made_up(Peer, task, theirs)])
        for task, label in (
            (NetworkTask("nsnet2", 1, 1, stream=True), "NSNet2"),
            (NetworkTask("tagger", 32, 20), "tagger"),
        )
    ]
    return Record(2, 0, heats={MODELS: heats})


def test_models_have_a_table_and_a_picture(tmp_path):
    text = printed(models_over())
    assert "Whole models: microseconds" in text
    assert "roofline" not in text
    assert re.search(r"tagger 32x20 +2.0 +6.0 +3 ", text)
    assert "**0.500, slower**" in report.markdown(models_over(theirs=1.0))
    assert [file.name for file in pictures.draw(models_over(), tmp_path)] == ["models.png"]


def test_inputs_of_models_are_padded_where_they_should_be():
    words = NetworkTask("sentiment", 50, 9).inputs()[0]
    assert words.shape == (50, 9)
    assert words.dtype == np.int32
    assert {*np.count_nonzero(words, axis=1)} == {*range(1, 10)}
    assert (np.diff((words == 0).astype(int)) >= 0).all()
    assert NetworkTask("sentiment", 1, 9).inputs()[0].all()
    [frames] = NetworkTask("precise", 3, 1, stream=True).inputs()
    assert frames.shape == (3, FRAMES, 13)
    assert [array.shape for array in NetworkTask("g2p", 2, 4).inputs()] == [(2, 4), (2, 4)]


def test_contenders_without_whole_models_are_not_asked_for_them():
    task = NetworkTask("precise", 1, 29)
    able = {contender.name for contender in contenders.ALL if contender.runs(task)}
    assert {"fastgru", "onnxruntime", "openvino", "tract", "torch", "keras", "tf_keras"} <= able
    assert not able & {"jax", "ncnn", "litert", "numpy", "torch-int8"}


def test_files_that_cannot_be_made_are_on_record(short, monkeypatch, capsys):
    def fail(tasks):
        raise RaceError("no files of models: out of luck")

    monkeypatch.setattr(files, "made", fail)
    assert short([FastGRU], "models") == 0
    assert "failed models: no files of models: out of luck" in capsys.readouterr().out


MODEL_TASKS = [
    NetworkTask("precise", 1, 1, stream=True),
    NetworkTask("precise", 2, 5),
    NetworkTask("keyword", 2, 1, stream=True),
    NetworkTask("sentiment", 3, 4),
    NetworkTask("forecaster", 2, 6),
    NetworkTask("tagger", 1, 1, stream=True),
    NetworkTask("g2p", 2, 3),
]


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    """Those of small tasks, made in this environment."""
    pytest.importorskip("tf2onnx")
    folder = tmp_path_factory.mktemp("files")
    subprocess.run(
        [sys.executable, "-m", "benchmarks.race.files", folder, "", json.dumps(MODEL_TASKS)],
        cwd=ROOT,
        env=os.environ | files.Maker.variables,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.mark.outside
def test_contenders_compute_models_right(heat, model_files):
    """Those whose libraries the tests have anyway; small, so that any error of a gate is large."""
    everyone = [FastGRU, OnnxRuntime, OnnxRuntimeBound, Torch, Keras, TfKeras]
    for task in MODEL_TASKS:
        over = heat(*everyone, task=task, files=model_files)
        assert [entrant.failure for entrant in over.entrants] == [""] * len(everyone), str(task)
        for entrant in over.entrants:
            assert entrant.difference < 1e-5, (entrant.name, str(task))
            assert [len(block) for block in entrant.blocks] == [1, 1]
        assert over.limits == []


@pytest.mark.outside
def test_another_result_than_that_of_keras_is_wrong(heat, model_files):
    task = MODEL_TASKS[1]
    file = files.folder_of(task, model_files) / "exact.npy"
    kept = file.read_bytes()
    np.save(file, np.load(file) + 1e-3)
    [entrant] = heat(FastGRU, task=task, files=model_files).entrants
    file.write_bytes(kept)
    assert entrant.wrong
    assert entrant.failure.startswith("wrong by 1.0e-03")


def test_every_model_is_raced():
    [models] = [regime.events for regime in REGIMES if regime.name == MODELS]
    tasks = [event.task for event in models]
    assert {task.name for task in tasks} == {*NETWORKS}
    for name, network in NETWORKS.items():
        assert any(task.stream for task in tasks if task.name == name) == bool(network.units)
        assert {task.batch for task in tasks if task.name == name and not task.stream} == {1, 32}


# ---- the machine -----------------------------------------------------------------------------------


def test_the_roof_of_a_step_is_memory_or_arithmetic_and_the_gates():
    task = Task(Shape(1, 1, 10, 10))
    gates = 1e-3 * (4 * 10 + 180) / 3  # cycles of eight lanes, at 3 GHz
    slow_memory = roofs(peak=96.0, bandwidth=2.0)([2400, 1200])
    assert slow_memory.microseconds(task, 4) == pytest.approx(1.2 + gates)
    assert slow_memory.microseconds(task, 2) == pytest.approx(0.6 + gates)
    slow_products = Roofline(96.0, 192.0, 8, 3.0, {2400: 1e9})
    assert slow_products.microseconds(task, 4) == pytest.approx(1e-3 * 1200 / 96 + gates)


def test_the_roof_of_many_steps_reads_the_recurrent_kernel_at_each():
    task = Task(Shape(2, 50, 7, 10))
    limits = roofs(peak=96.0, bandwidth=1.0)([1200])
    gates = 1e-3 * (4 * 20 + 180) / 3
    ahead = 1e-3 * 6 * 2 * 50 * 7 * 10 / 96
    assert limits.microseconds(task, 4) == pytest.approx(50 * (1.2 + gates) + ahead)


def test_the_roof_of_float64_is_half_as_high():
    task = Task(Shape(64, 1, 10, 10), dtype="float64")
    limits = Roofline(96.0, 192.0, 8, 3.0, {4800: 1e9})
    gates = 1e-3 * (8 * 640 + 180) / 3
    assert limits.microseconds(task, 8) == pytest.approx(1e-3 * 64 * 1200 / 48 + gates)


@pytest.mark.parametrize(("threads", "cold"), [(1, False), (2, False), (1, True)])
def test_the_machine_is_measured(monkeypatch, threads, cold):
    monkeypatch.setattr(roofline, "cache_bytes", lambda: 1 << 20)
    measured = Meter(threads, cold).measure([30000, 8000000])
    assert measured.peak > 0
    assert measured.lanes in (4, 8, 16)
    assert measured.clock * 4 * measured.lanes * threads == pytest.approx(measured.peak, rel=1e-3)
    assert measured.bandwidth.keys() == {30000, 8000000}
    assert min(measured.bandwidth.values()) > 0


# ---- environments ----------------------------------------------------------------------------------


class Installed(Peer):
    name = "installed"
    requirements = ("library==1.0", "other==2.0")


class Sharing(Installed):
    name = "sharing"
    home = "installed"


def test_an_environment_is_made_once_for_its_requirements(monkeypatch, tmp_path):
    commands = []

    def run(command, **_):
        commands.append(command)
        (tmp_path / "installed").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    interpreter = peers.python(Installed, tmp_path)
    assert interpreter == peers.python(Installed, tmp_path) == tmp_path / "installed" / "bin" / "python"
    assert interpreter == peers.python(Sharing, tmp_path)
    assert len(commands) == 2
    assert commands[1][-2:] == ("library==1.0", "other==2.0")
    monkeypatch.setattr(Installed, "requirements", ("library==1.1",))
    peers.python(Installed, tmp_path)
    assert commands[3][-1] == "library==1.1"


def test_a_failed_installation_is_reported(monkeypatch, tmp_path):
    errors = "WARNING: slow\nERROR: no such library\n"
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, stderr=errors)
    )
    with pytest.raises(RaceError, match="not installed: ERROR: no such library"):
        peers.python(Installed, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_fastgru_runs_in_this_environment():
    assert peers.python(FastGRU) == Path(sys.executable)


# ---- all of it -------------------------------------------------------------------------------------


def test_a_race_goes_on_whoever_is_out(short, capsys, tmp_path):
    everyone = [FastGRU, Wrong, Crashing, Unimportable, Peer]
    assert short(everyone, str(SMALL), "--rounds=3") == 0
    text = capsys.readouterr().out
    assert "failed wrong, 2x3x4x5: wrong by 1.0e-03" in text
    assert "failed crashing, 2x3x4x5: ended with status 3: out of luck" in text
    assert "failed unimportable: ModuleNotFoundError: No module named 'no_such_library'" in text

    found = json.loads((tmp_path / "results.json").read_text())
    assert found["machine"].keys() == {"date", "cpu", "cores", "instruction_set", "python", "system"}
    assert found["versions"]["fastgru"].keys() == {"fastgru", "numpy", "scipy"}
    assert found["failures"].keys() == {"unimportable"}
    assert (found["rounds"], found["seconds"], found["threads"], found["cold"]) == (3, 0, 1, False)
    [heat] = found["heats"]
    assert (heat["regime"], heat["task"]["shape"], heat["plain"]) == ("asked", "2x3x4x5", None)
    assert [limits["peak"] for limits in heat["limits"]] == [100] * 3
    assert [(each["contender"], len(each["blocks"])) for each in heat["entrants"]] == [
        ("fastgru", 3),
        ("wrong", 0),
        ("crashing", 0),
        ("peer", 3),
    ]
    block = heat["entrants"][0]["blocks"][0]
    assert block["calls"] == 1
    assert block["quantiles"]["50"] > 0
    assert "2x3x4x5" in (tmp_path / "tables.md").read_text()


def test_a_race_of_nobody_ends_too(short, capsys):
    assert short([Unimportable], str(SMALL)) == 0
    assert "failed unimportable: ModuleNotFoundError" in capsys.readouterr().out


def test_only_a_wrong_result_of_fastgru_fails_a_race(short, capsys):
    assert short([OursWrong], str(SMALL), "--rounds=1") == command.WRONG
    assert "WRONG" in capsys.readouterr().out
    assert command.WRONG not in (0, 1, 2)  # of a good end, of exceptions, of the command line


def test_all_regimes_are_raced_unless_some_are_named(short, monkeypatch, capsys):
    plain = Task(Shape(1, 2, 3, 4))
    other = Event(plain._replace(reset_after=False), "a kind", plain)
    stream = Event(Task(Shape(1, 1, 2, 3), stream=True))
    regimes = (
        Regime("stream", "Steps", (stream, Event(Task(Shape(1, 1, 4, 5), stream=True))), (stream,)),
        Regime("variants", "Others", (other,), ()),
    )
    monkeypatch.setattr(command, "REGIMES", regimes)
    assert short([FastGRU], "--rounds=1") == 0
    text = capsys.readouterr().out
    assert "1x1x4x5" in text
    assert re.search(r"1x2x3x4 reset_before.*\n.*a kind", text)
    assert short([FastGRU], "--rounds=1", "--quick") == 0
    assert "1x1x4x5" not in capsys.readouterr().out
    monkeypatch.setattr(command, "QUICK_END", 0)
    assert short([FastGRU], "--quick") == 0
    assert "no time was left for 1x1x2x3" in capsys.readouterr().out


def test_ways_to_call_are_raced_by_fastgru_alone(short, capsys, tmp_path):
    assert short([FastGRU, Unimportable], "ways", "--rounds=1") == 0
    text = capsys.readouterr().out
    assert "gru(x, initial_state=[h])" in text
    assert "failed" not in text
    assert "`gru(x, initial_state=[h])`" in (tmp_path / "tables.md").read_text()
    found = json.loads((tmp_path / "results.json").read_text())
    assert [*found["ways"]] == [*ENGINES]
    for costs in found["ways"].values():
        assert [*costs] == [way.code for way in WAYS]
    assert short([FastGRU], "1x1x2x3", "--rounds=1") == 0
    assert "gru(x)" not in capsys.readouterr().out


def test_streams_are_paced_on_request(short, capsys, tmp_path):
    assert short([FastGRU], "1x1x2x3", str(SMALL), "--rounds=2", "--paced") == 0
    assert re.search(r"1x1x2x3 +fastgru +4 ", capsys.readouterr().out)  # two frames a round
    found = json.loads((tmp_path / "results.json").read_text())
    assert [len(heat["entrants"][0]["paced"]) for heat in found["heats"]] == [2, 0]
