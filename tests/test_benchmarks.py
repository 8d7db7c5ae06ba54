"""The benchmarks run and measure what they say; never how long anything takes."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

sys.path.append(str(Path(__file__).parents[1]))  # where `python -m pytest` starts, but not `pytest`

from benchmarks import __main__ as bench
from benchmarks import bench_gru, bench_import, keras_race
from benchmarks.keras_race import Race
from benchmarks.workloads import Workload

LARGEST_ERROR = {"float32": 1e-5, "float64": 1e-12}
WANTED_20 = Workload(1, 100, 64)


def suites(module):
    """The classes that asv finds."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return [value for value in public.values() if hasattr(value, "setup")]


def benchmarks(suite):
    """Names and functions that asv finds in an instance of such a class."""
    return {
        name: getattr(suite, name) for name in dir(suite) if re.match("(time|timeraw|peakmem|track)_", name)
    }


def cases():
    """Each suite with its smallest layer, of 64 units at most, in both reset modes and both dtypes."""
    for suite in suites(bench_gru):
        units, *modes = suite.params
        for parameters in itertools.product([min(*units, 64)], *modes):
            yield pytest.param(suite, parameters, id="-".join(map(str, (suite.__name__, *parameters))))


def printed(table):
    console = Console(width=140, no_color=True)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


# ---- the suite -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("suite", "parameters"), [*cases()])
def test_benchmarks_of_a_call_run_and_find_it_exact(suite, parameters):
    call = suite()
    call.setup(*parameters)
    results = {name: benchmark(*parameters) for name, benchmark in benchmarks(call).items()}
    assert {"time_call", "peakmem_call", "track_scratch", "track_max_error"} <= results.keys()
    assert results["track_max_error"] < LARGEST_ERROR[parameters[-1]]
    assert 0 < results["track_scratch"] < 4 << 20
    assert call.layer.dtype == parameters[-1]
    assert call.layer.reset_after == (parameters[1] == "after")


def test_setup_between_timed_calls_does_nothing():
    call = bench_gru.Stream()
    call.setup(1, "before", "float32")
    layer = call.layer
    call.setup(1, "before", "float32")
    assert call.layer is layer


@pytest.mark.parametrize("suite", suites(bench_import))
def test_timed_statements_run(suite):
    imports = suite()
    imports.setup()
    statements = [benchmark() for benchmark in benchmarks(imports).values()]
    assert statements
    for statement in statements:
        subprocess.run([sys.executable, "-c", statement], check=True)


def test_errors_are_found():
    workload = Workload(2, 3, 4)
    layer = workload.layer()
    exact = workload.exact(layer)
    layer.set_weights([1.001 * w for w in layer.weights])
    assert np.abs(layer(workload.inputs()) - exact).max() > LARGEST_ERROR["float32"]


# ---- the race ------------------------------------------------------------------------------------


@pytest.mark.parametrize("timesteps", [1, 3])
@pytest.mark.parametrize("reset_after", [False, True])
def test_both_layers_of_a_race_return_the_same(tensorflow, timesteps, reset_after):
    turns = []
    outcome = keras_race.race(Workload(2, timesteps, 4, reset_after), 2, 0, lambda: turns.append(1))
    assert outcome.right
    assert outcome.difference < 3e-5
    assert outcome.theirs.shape == outcome.ours.shape == (2,)
    assert len(turns) == 2


def test_the_race_is_against_the_layer_of_version_1(tensorflow, monkeypatch):
    made = []
    original = tensorflow.compat.v1.keras.layers.GRU

    def record(**config):
        made.append(original(**config))
        return made[0]

    monkeypatch.setattr(tensorflow.compat.v1.keras.layers, "GRU", record)
    theirs, ours = keras_race.contestants(Workload(2, 3, 4))
    assert made[0].__module__.endswith("gru_v1")
    for result in theirs(), ours():
        assert type(result) is np.ndarray
        assert result.shape == (2, 3, 4)


def test_ratios_are_taken_between_neighbouring_blocks():
    outcome = Race(np.array([10.0, 40.0]), np.array([1.0, 2.0]), 0.0)
    np.testing.assert_array_equal(outcome.ratios, [10, 20])


@pytest.mark.parametrize(("theirs", "judgement"), [(30.0, "20 met"), (20.0, "20 met"), (19.9, "20 missed")])
def test_table_says_if_a_ratio_is_reached(theirs, judgement):
    outcome = Race(np.array([theirs]), np.array([1.0]), 0.0)
    assert judgement in printed(keras_race.table([(WANTED_20, outcome)], np.ones(3)))


@pytest.mark.parametrize(("overhead", "judgement"), [(4.9, "< 5 us met"), (5.0, "< 5 us missed")])
def test_table_says_if_the_overhead_is_small_enough(overhead, judgement):
    assert judgement in printed(keras_race.table([], np.array([1.0, overhead, 9.0])))


@pytest.mark.parametrize(("difference", "wrong"), [(2.9e-5, False), (3e-5, True), (np.nan, True)])
def test_table_names_a_wrong_result(difference, wrong):
    outcome = Race(np.array([30.0]), np.array([1.0]), difference)
    assert ("WRONG" in printed(keras_race.table([(WANTED_20, outcome)], np.ones(3)))) == wrong


def test_a_workload_without_a_wanted_ratio_is_not_judged():
    outcome = Race(np.array([1.0]), np.array([1.0]), 0.0)
    text = printed(keras_race.table([(Workload(2, 3, 4), outcome)], np.ones(3)))
    assert "2 x 3 x 4" in text
    assert "missed" not in text


@pytest.mark.parametrize(("limit", "status"), [(3e-5, 0), (0.0, 1)])
def test_a_race_fails_only_if_a_result_is_wrong(tensorflow, monkeypatch, capsys, limit, status):
    monkeypatch.setattr(keras_race, "WANTED", {Workload(2, 3, 4): 1e9})
    monkeypatch.setattr(keras_race, "LIMIT", limit)
    monkeypatch.setattr(keras_race, "use_one_thread", lambda: None)  # too late in this process
    assert keras_race.main() == status
    text = capsys.readouterr().out
    assert "1e+09 missed" in text
    assert f"tensorflow {tensorflow.__version__}" in text


# ---- all of it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("suite", "race", "status"), [(0, 0, 0), (2, 0, 2), (0, 1, 1)])
def test_status_is_that_of_what_failed(monkeypatch, suite, race, status):
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, {"asv": suite, "benchmarks.keras_race": race}[command[2]])

    monkeypatch.setattr(subprocess, "run", run)
    assert bench.main() == status
    assert len(commands) == 3
