"""Every benchmark runs once and measures what it says; never how long anything takes."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference

sys.path.append(str(Path(__file__).parents[2]))  # where `python -m pytest` starts, but not `pytest`

from benchmarks import __main__ as bench
from benchmarks import (
    bench_gru,
    bench_import,
    bench_kernels,
    bench_load,
    bench_shares,
    bench_ways,
    engines,
    ways,
)
from benchmarks.tasks import Shape, Task

LARGEST_ERROR = {"float32": 1e-5, "float64": 1e-12, "int8": 0.05}


def suites(*modules):
    """The classes that asv finds."""
    public = [vars(module).items() for module in modules]
    return [
        value
        for name, value in itertools.chain(*public)
        if not name.startswith("_") and isinstance(value, type) and hasattr(value, "setup")
    ]


def benchmarks(suite):
    """Names and functions that asv finds in an instance of such a class."""
    return {
        name: getattr(suite, name) for name in dir(suite) if re.match("(time|timeraw|peakmem|track)_", name)
    }


def cases(*modules):
    """Each suite with each of its parameters; of units the smallest, of 64 at most."""
    for suite in suites(*modules):
        named = zip(suite.param_names, suite.params, strict=True)
        for parameters in itertools.product(
            *([min(*values, 64)] if name == "units" else values for name, values in named)
        ):
            yield pytest.param(suite, parameters, id="-".join(map(str, (suite.__name__, *parameters))))


@pytest.mark.parametrize(("suite", "parameters"), [*cases(bench_gru)])
def test_benchmarks_of_a_call_run_and_find_it_exact(suite, parameters):
    call = suite()
    call.setup(*parameters)
    results = {name: benchmark(*parameters) for name, benchmark in benchmarks(call).items()}
    assert {"time_call", "peakmem_call", "track_scratch", "track_max_error"} <= results.keys()
    assert results["track_max_error"] < LARGEST_ERROR[parameters[-1]]
    assert 0 < results["track_scratch"] < 4 << 20
    assert call.layer.dtype == parameters[-1]
    assert call.layer.reset_after == (parameters[1] == "after")


@pytest.mark.parametrize(("suite", "parameters"), [*cases(bench_kernels)])
def test_benchmarks_of_kernels_run_and_find_them_exact(suite, parameters):
    kernels = suite()
    kernels.setup(*parameters)
    results = {name: benchmark(*parameters) for name, benchmark in benchmarks(kernels).items()}
    assert any(name.startswith("time_") for name in results)
    if suite is bench_kernels.Plans:
        dtype = next((name for name in ("float64", "int8") if name in parameters[0]), "float32")
        assert results["track_max_error"] < LARGEST_ERROR[dtype]
        assert kernels.plan.engine == parameters[0].split()[0]
        assert parameters[0] == "blas" or kernels.plan.isa == parameters[0].split()[1]


@pytest.mark.parametrize(("suite", "parameters"), [*cases(bench_shares)])
def test_benchmarks_of_shares_run(suite, parameters):
    share = suite()
    share.setup(*parameters)
    for name, benchmark in benchmarks(share).items():
        result = benchmark(*parameters)
        assert name.startswith("time_") or 0 < result < np.inf


@pytest.mark.parametrize(("suite", "parameters"), [*cases(bench_load)])
def test_benchmarks_of_files_run_and_find_the_layer(suite, parameters):
    file = suite()
    file.setup(*parameters)
    for name, benchmark in benchmarks(file).items():
        result = benchmark(*parameters)
        assert name.startswith("time_") or 0 < result < np.inf
    weights = file.arrays.kernel, file.arrays.recurrent_kernel, file.arrays.bias
    for got, expected in zip(file.load().weights, weights, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("suite", suites(bench_ways))
@pytest.mark.parametrize("engine", ways.ENGINES)
def test_benchmarks_of_ways_run(suite, engine, monkeypatch):
    monkeypatch.setattr(suite, "rounds", 1)
    monkeypatch.setattr(suite, "seconds", 0)
    for code in suite.params[1]:
        measured = suite()
        measured.setup(engine, code)
        [benchmark] = benchmarks(measured).values()
        assert np.isfinite(benchmark(engine, code))


def test_ways_are_all_measured():
    measured = [code for suite in suites(bench_ways) for code in suite.params[1]]
    others = {way.by for way in ways.WAYS}
    assert sorted([*measured, *others]) == sorted(way.code for way in ways.WAYS)


@pytest.mark.parametrize("engine", ways.ENGINES)
@pytest.mark.parametrize("code", [way.code for way in ways.WAYS])
def test_ways_to_call_are_right(engine, code):
    """By the equations: from the state if it is given, through two layers or rows of a pool."""
    arrays = ways.TASK.arrays()
    x = np.repeat(arrays.x, ways.CLIENTS if "pool" in code else 1, axis=0)
    given = arrays.state if re.search(r"\bh\b", code) else None

    def layer(x):
        weights = arrays.kernel, arrays.recurrent_kernel, arrays.bias
        return reference.gru(
            x, *weights, recurrent_activation="sigmoid", reset_after=True, initial_state=given
        )

    outputs, expected = layer(x)
    if code.startswith("stack"):
        _, expected = layer(outputs)
    elif code.startswith("bidirectional"):
        expected = np.concatenate([expected, expected], axis=1)
    elif code.startswith("returning_state"):
        expected = [expected, expected]
    made = ways.names(engine)
    assert made["gru"]._plan.engine == engine
    result = eval(code, made)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert "out=out" not in code or result is made["out"]


def test_costs_are_taken_round_by_round():
    times = [[1.0, 2.0], [3.0, 4.0]]
    np.testing.assert_array_equal(ways.Way("f(x)").cost(times), [3, 2])
    np.testing.assert_array_equal(ways.Way("f(x)", on_top=True).cost(times), [2, 2])


def test_parameters_are_named():
    for suite in suites(bench_gru, bench_kernels, bench_load, bench_shares, bench_ways):
        assert len(suite.param_names) == len(suite.params)


@pytest.mark.parametrize(
    ("suite", "made"), [(bench_gru.Stream, "x"), (bench_kernels.Plans, "x"), (bench_load.Load, "path")]
)
def test_setup_between_timed_calls_does_nothing(suite, made):
    call, parameters = suite(), [values[0] for values in suite.params]
    call.setup(*parameters)
    first = getattr(call, made)
    call.setup(*parameters)
    assert getattr(call, made) is first


@pytest.mark.parametrize("suite", suites(bench_import))
def test_timed_statements_run(suite):
    imports = suite()
    imports.setup()
    statements = [benchmark() for benchmark in benchmarks(imports).values()]
    assert statements
    for statement in statements:
        subprocess.run([sys.executable, "-c", statement], check=True)


def test_errors_are_found():
    call = bench_gru.Stream()
    call.setup(64, "after", "float32")
    call.layer.set_weights([1.001 * w for w in call.layer.weights])
    assert call.track_max_error() > LARGEST_ERROR["float32"]


@pytest.mark.long
def test_engines_in_turns_have_the_same_bits(capsys, monkeypatch):
    # a loop for each lane compiles in a fifth of the time
    command = [word.replace("-O3", "-O1") for word in engines.COMPILE]
    monkeypatch.setattr(engines, "COMPILE", [*command, "-DFASTGRU_SCALAR=1"])
    commands = ["HEAD", ".:FASTGRU_CHUNK_ROWS=0,FASTGRU_CHUNK_BYTES=0", "--layers", "3x5x4x9", "1x1x2x3"]
    if not (Path(__file__).parents[2] / ".git").exists():  # a source distribution has no commits
        commands[0] = "."
    assert engines.main([*commands, "--rounds", "2"]) == 0
    blocks = [block.splitlines() for block in re.split(r"\n(?=\d)", capsys.readouterr().out)]
    assert [shape for shape, *_ in blocks] == ["3x5x4x9", "1x1x2x3"]
    for _, *lines in blocks:
        assert len(lines) == 2
        for line, engine in zip(lines, commands, strict=False):
            time, ratio, shown = re.fullmatch(r" +(\S+) us  (\S+) \(\S+ to \S+\)  (.+)", line).groups()
            assert shown == engine  # and no OTHER BITS behind it
            assert float(time) > 0
            assert float(ratio) > 0


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("nowhere", "must be . or a commit"),
        (".:ROWS=3", "a constant of layout.h"),
        (".:FASTGRU_PASSES", "NAME="),
    ],
)
def test_an_engine_that_is_none_is_refused(engine, message, capsys):
    with pytest.raises(SystemExit):
        engines.main([engine, "--layers", "1x1x1x1"])
    assert message in capsys.readouterr().err


def test_of_several_steps_all_outputs_are_compared():
    assert Task(Shape(2, 3, 4, 5)).exact().shape == (2, 3, 5)
    assert Task(Shape(2, 1, 4, 5)).exact().shape == (2, 5)
    assert Task(Shape(2, 3, 4, 5), masked=True).exact().shape == (2, 5)


def test_weights_are_rounded_before_the_exact_result():
    task = Task(Shape(2, 3, 4, 5))
    difference = np.abs(task.exact() - task.exact(weights_dtype="float16")).max()
    assert 1e-6 < difference < 1e-2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["run", "--python=same"]),
        (["--quick", "--bench", "Stream"], ["run", "--quick", "--bench", "Stream"]),
        (["--compare", "main~1"], ["continuous", "--factor", "main~1", "HEAD"]),
    ],
)
def test_the_status_is_that_of_the_suite(monkeypatch, arguments, expected):
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 7 * (len(commands) == 2))

    monkeypatch.setattr(subprocess, "run", run)
    assert bench.main(arguments) == 7
    suite = commands[1][3:]
    assert [word for word in suite if word in expected] == expected
