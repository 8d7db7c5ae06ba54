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

sys.path.append(str(Path(__file__).parents[1]))  # where `python -m pytest` starts, but not `pytest`

from benchmarks.race import __main__ as command
from benchmarks.race import contenders, peers, report, roofline
from benchmarks.race.contenders import Contender, FastGRU, OnnxRuntime
from benchmarks.race.heats import Entrant, Race, best_peer, ratios, rotated
from benchmarks.race.process import Process, RaceError
from benchmarks.race.record import Record
from benchmarks.race.roofline import Roofline
from benchmarks.race.shapes import OVERHEAD, PEAK_WANTED, VARIANTS, WANTED, Shape, Task

ROOT = Path(__file__).parents[1]
SMALL = Shape(2, 3, 4, 5)
JUDGED = Shape(1, 1, 256, 256)  # fastgru should be twice as fast as the best peer
PEAK = Shape(32, 50, 256, 256)


class Peer(Contender):
    """fastgru in disguise; its workers find the classes of this file."""

    name = "peer"
    environment = {"PYTHONPATH": str(Path(__file__).parent)}  # noqa: RUF012

    def start(self):
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


class OursWrong(Wrong):
    name = "fastgru"
    peer = False


class Unimportable(Peer):
    name = "unimportable"

    def start(self):
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


@pytest.fixture(scope="module")
def heat():
    """Runs a heat of two rounds, one call a block; all heats share their contenders' processes."""
    with ExitStack() as stack:

        @functools.cache
        def started(contender):
            process = stack.enter_context(Process(contender))
            process.ask("start")
            return process

        def run(*classes, task=None):
            race = Race({each.name: started(each) for each in classes}, rounds=2, seconds=0)
            return race.heat([(each, task or Task(SMALL)) for each in classes])

        yield run


@pytest.fixture
def short(monkeypatch):
    """Of a race only what differs from one to the next."""
    monkeypatch.setattr(command, "SECONDS", 0)
    monkeypatch.setattr(roofline, "measure", lambda sizes: Roofline(100.0, dict.fromkeys(sizes, 50.0)))


def made_up(contender, shape, *medians, **result):
    """An entrant with blocks of one call each, of so many microseconds."""
    blocks = [np.array([1000.0 * median]) for median in medians]
    return Entrant(contender, Task(shape), "0", 1e-7, blocks=blocks, **result)


def record(*entrants, **fields):
    """A race over with one heat."""
    return Record(2, 0, heats={entrants[0].task.shape: list(entrants)}, **fields)


def printed(what):
    console = Console(width=140, no_color=True)
    with console.capture() as capture:
        report.show(what, console)
    return capture.get()


# ---- shapes and contenders -------------------------------------------------------------------------


def test_a_shape_is_read_and_written():
    assert Shape.parse("1x100x40x128") == (1, 100, 40, 128)
    assert str(Shape(1, 100, 40, 128)) == "1x100x40x128"


@pytest.mark.parametrize("text", ["", "1x2x3", "1x2x3x4x5", "1x2x3x0", "1x2x3x-4", "1x2x3x4.0", "axbxcxd"])
def test_what_is_no_shape_is_named(text):
    with pytest.raises(ValueError, match=f"such as 1x100x40x128, got '{text}'"):
        Shape.parse(text)


def test_work_of_a_shape():
    shape = Shape(2, 10, 3, 5)
    assert shape.flop == 2 * 10 * 2 * (3 * 15 + 5 * 15)
    assert shape.weights == 3 * 15 + 5 * 15
    assert shape.reads == 3 * 15 + 10 * 5 * 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1x2x3"], "batch x timesteps x features x units"),
        (["--only", "fastgru,tourch"], "among fastgru, fastgru-f16, .* got tourch"),
        (["--rounds", "many"], "invalid count value: 'many'"),
        (["--rounds", "0"], "must be at least 1, got 0"),
    ],
)
def test_errors_of_the_command_line_are_clear(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_contenders_fit_together():
    names = [contender.name for contender in contenders.ALL]
    assert len({*names}) == len(names)
    assert {name for wanted in WANTED.values() for name in wanted} <= {*names}
    assert {variant.baseline for variant in VARIANTS} <= {*names}
    assert WANTED.keys() >= PEAK_WANTED.keys()
    for contender in contenders.ALL:
        assert all("==" in requirement for requirement in contender.requirements)
        assert bool(contender.requirements) == contender.peer


def test_a_worker_needs_numpy_alone():
    statement = "import sys, benchmarks.race.worker; print(*{name.split('.')[0] for name in sys.modules})"
    python = [sys.executable, "-c", statement]
    loaded = subprocess.run(python, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {*loaded} & {"fastgru", "scipy", "rich", "onnx", "onnxruntime", "torch", "jax", "tensorflow"}


def test_asv_takes_nothing_here_for_a_benchmark():
    for file in (ROOT / "benchmarks" / "race").glob("*.py"):
        assert not re.findall(r"(?m)^ *def (?:time|timeraw|peakmem|mem|track)_\w+", file.read_text())


# ---- heats -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [
        Task(SMALL),
        Task(Shape(1, 1, 4, 3)),
        Task(SMALL, "float64"),
        Task(SMALL, reset_after=False),
        Task(SMALL, recurrent_activation="hard_sigmoid"),
    ],
)
def test_fastgru_is_right(heat, task):
    [entrant] = heat(FastGRU, task=task)
    assert not entrant.failure
    assert entrant.difference < (1e-12 if task.dtype == "float64" else 1e-6)
    assert [len(block) for block in entrant.blocks] == [1, 1]
    assert 0 < entrant.fastest <= entrant.median <= entrant.p99


@pytest.mark.parametrize("shape", [SMALL, Shape(2, 1, 4, 5)])
def test_a_graph_of_one_node_is_right(heat, shape):
    pytest.importorskip("onnxruntime")
    [entrant] = heat(OnnxRuntime, task=Task(shape))
    assert not entrant.failure
    assert entrant.difference < 1e-6


@pytest.mark.parametrize(
    ("contender", "reason"),
    [
        (Wrong, "wrong by 1.0e-03"),
        (Forgetful, "wrong by "),
        (Misshapen, "wrong, its result has the shape (1, 3, 5)"),
    ],
)
def test_a_wrong_contender_is_disqualified(heat, contender, reason):
    wrong, right = heat(contender, Peer)
    assert wrong.wrong
    assert wrong.failure.startswith(reason)
    assert not wrong.blocks
    assert not right.failure
    assert len(right.blocks) == 2


@pytest.mark.parametrize(
    ("contender", "reason"),
    [
        (Crashing, "ended with status 3: out of luck"),
        (CrashingLater, "ended with status 4"),
    ],
)
def test_a_crash_is_reported_and_the_race_goes_on(heat, contender, reason):
    right, crashed = heat(Peer, contender)
    assert crashed.failure == reason
    assert not crashed.wrong
    assert len(right.blocks) == 2


def test_a_contender_that_crashed_stays_out(heat):
    for _ in range(2):
        [crashed] = heat(Crashing)
        assert crashed.failure == "ended with status 3: out of luck"


def test_a_silent_contender_is_given_up_and_the_race_goes_on():
    with Process(Peer) as lively, Process(Hanging, timeout=0.5) as silent:
        race = Race({"peer": lively, "hanging": silent}, rounds=2, seconds=0)
        hanging, peer = race.heat([(Hanging, Task(SMALL)), (Peer, Task(SMALL))])
    assert hanging.failure == "no answer within 0.5 s"
    assert len(peer.blocks) == 2


def test_what_a_library_prints_is_no_reply(heat):
    [entrant] = heat(Talkative)
    assert not entrant.failure


def test_each_round_another_one_goes_first():
    assert [rotated("abc", turn) for turn in range(4)] == [[*"abc"], [*"bca"], [*"cab"], [*"abc"]]


# ---- figures ---------------------------------------------------------------------------------------


def test_times_are_of_blocks_and_of_calls():
    blocks = [np.array([1e3, 3e3, 2e3]), np.array([6e3, 4e3, 5e3])]
    entrant = Entrant(Peer, Task(SMALL), "0", blocks=blocks)
    np.testing.assert_array_equal(entrant.medians, [2, 5])
    assert entrant.median == 3.5
    assert entrant.fastest == 1
    assert entrant.p99 == pytest.approx(5.95)


def test_ratios_are_taken_round_by_round():
    baseline, entrant = made_up(Peer, SMALL, 10, 40), made_up(FastGRU, SMALL, 1, 2)
    np.testing.assert_array_equal(ratios(baseline, entrant), [10, 20])


def test_the_best_peer_is_one_that_finished():
    fast, slow = made_up(Peer, SMALL, 2, 2), made_up(Talkative, SMALL, 3, 3)
    ours, failed = made_up(FastGRU, SMALL, 1, 1), made_up(Crashing, SMALL, 1, failure="crashed")
    assert best_peer([ours, failed, slow, fast]) is fast
    assert best_peer([ours, failed]) is None


@pytest.mark.parametrize(("theirs", "met"), [((4, 8), True), ((2, 2), False)])
def test_a_ratio_is_judged(theirs, met):
    over = record(made_up(FastGRU, JUDGED, 1, 2), made_up(Peer, JUDGED, *theirs))
    [judgement] = over.judgements()
    assert judgement.wanted == 2
    assert judgement.reached == np.median(np.divide(theirs, (1, 2)))
    assert judgement.met == met
    assert ("2 met" in printed(over)) == met
    assert ("2 missed" in printed(over)) != met


@pytest.mark.parametrize(("share", "met"), [(0.76, True), (0.74, False)])
def test_the_share_of_the_peak_is_judged(share, met):
    microseconds = 1e-3 * PEAK.flop / 100 / share
    over = record(made_up(FastGRU, PEAK, microseconds), roofline=Roofline(100.0, {}))
    [judgement] = over.judgements()
    assert judgement.reached == pytest.approx(share)
    assert judgement.met == met
    assert f"{100 * share:.0f}" in printed(over)


@pytest.mark.parametrize(("microseconds", "met"), [(2.5, True), (2.6, False)])
def test_the_overhead_is_judged(microseconds, met):
    over = record(made_up(FastGRU, OVERHEAD, microseconds))
    [judgement] = over.judgements()
    assert judgement.met == met
    assert f"<= 2.5 {'met' if met else 'missed'}" in printed(over)


def test_a_variant_is_judged_by_its_baseline():
    variant = VARIANTS[0]
    pair = [made_up(Peer, variant.task.shape, 50, 70), made_up(FastGRU, variant.task.shape, 10, 10)]
    over = Record(2, 0, variants=[(variant, pair)])
    [judgement] = over.judgements()
    assert judgement.reached == 6
    assert variant.label in printed(over)
    pair[0].failure = "out"
    assert over.judgements() == []
    assert f"failed peer, {variant.task.shape}: out" in printed(over)


def test_what_was_missed_is_said_last():
    over = record(made_up(FastGRU, JUDGED, 1), made_up(Peer, JUDGED, 1.5))
    assert printed(over).splitlines()[-2:] == [
        "reached 0 of 1 figures that are wanted",
        "  1x1x256x256 fastgru, times faster: 1.5, 2 missed",
    ]


def test_a_shape_without_a_wanted_ratio_is_not_judged():
    over = record(made_up(FastGRU, SMALL, 1), made_up(Peer, SMALL, 3))
    assert over.judgements() == []
    assert "3 (3 - 3)" in printed(over)


# ---- the machine -----------------------------------------------------------------------------------


def test_the_roof_is_the_lower_of_memory_and_arithmetic():
    shape = Shape(1, 1, 10, 10)
    assert Roofline(1e9, {2400: 2.0}).microseconds(shape, 4) == pytest.approx(1.2)
    assert Roofline(2.0, {1200: 1e9}).microseconds(shape, 2) == pytest.approx(0.6)


def test_the_best_of_two_measurements_counts():
    assert Roofline(1.0, {8: 4.0, 9: 2.0}).better_of(Roofline(3.0, {8: 3.0, 9: 5.0})) == (3, {8: 4, 9: 5})


def test_the_machine_is_measured():
    measured = roofline.measure([30000, 8000000])
    assert measured.peak > 0
    assert measured.bandwidth.keys() == {30000, 8000000}
    assert min(measured.bandwidth.values()) > 0


@pytest.mark.parametrize(("compiler", "reason"), [("no-such-cc", "no C compiler"), ("false", "false failed")])
def test_without_a_compiler_the_roof_is_unknown(monkeypatch, compiler, reason):
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(RaceError, match=reason):
        roofline.measure([1000])


# ---- environments ----------------------------------------------------------------------------------


class Installed(Peer):
    name = "installed"
    requirements = ("library==1.0", "other==2.0")


def test_an_environment_is_made_once_for_its_requirements(monkeypatch, tmp_path):
    commands = []

    def run(command, **_):
        commands.append(command)
        (tmp_path / "installed").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    interpreter = peers.python(Installed, tmp_path)
    assert interpreter == peers.python(Installed, tmp_path) == tmp_path / "installed" / "bin" / "python"
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
    file = tmp_path / "race.json"
    everyone = [FastGRU, Wrong, Crashing, Unimportable, Peer]
    assert command.main([str(SMALL), "--rounds=3", "--json", str(file)], everyone) == 0
    text = capsys.readouterr().out
    assert "failed wrong, 2x3x4x5: wrong by 1.0e-03" in text
    assert "failed crashing, 2x3x4x5: ended with status 3: out of luck" in text
    assert "failed unimportable: ModuleNotFoundError: No module named 'no_such_library'" in text

    found = json.loads(file.read_text())
    assert found["machine"].keys() == {"date", "cpu", "cores", "instruction_set", "python", "system"}
    assert found["versions"]["fastgru"].keys() == {"fastgru", "numpy", "scipy"}
    assert found["failures"].keys() == {"unimportable"}
    assert found["roofline"]["peak"] == 100
    assert (found["rounds"], found["seconds"], found["variants"], found["judgements"]) == (3, 0, [], [])
    [heat] = found["heats"]
    assert heat["shape"] == "2x3x4x5"
    assert [(each["contender"], len(each["blocks"])) for each in heat["entrants"]] == [
        ("fastgru", 3),
        ("wrong", 0),
        ("crashing", 0),
        ("peer", 3),
    ]
    assert heat["entrants"][0]["blocks"][0].keys() == {"calls", "median", "min", "p99"}


def test_a_race_of_nobody_ends_too(short, capsys):
    assert command.main([str(SMALL)], [Unimportable]) == 0
    assert "failed unimportable: ModuleNotFoundError" in capsys.readouterr().out


def test_only_fastgru_fails_a_race(short, capsys):
    assert command.main([str(SMALL), "--rounds=1"], [OursWrong]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_other_layers_are_raced_unless_there_are_shapes_to_keep_to(short, monkeypatch, capsys):
    monkeypatch.setattr(command, "WANTED", {SMALL: {"fastgru": 1e9}})
    monkeypatch.setattr(command, "VARIANTS", [VARIANTS[-1]._replace(baseline_task=Task(SMALL))])
    assert command.main(["--rounds=1", "--only", "fastgru"], [FastGRU, Crashing]) == 0
    text = capsys.readouterr().out
    assert VARIANTS[-1].label in text
    assert "<= 2.5" in text
    assert "crashing" not in text


def test_without_a_compiler_the_race_says_so(short, monkeypatch, capsys):
    def fail(sizes):
        raise RaceError("there is no C compiler")

    monkeypatch.setattr(roofline, "measure", fail)
    assert command.main([str(SMALL), "--rounds=1"], [FastGRU]) == 0
    assert "failed roofline: there is no C compiler" in capsys.readouterr().out
