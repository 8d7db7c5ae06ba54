"""`fastgru bench` and what it measures with: what is counted, not how long it took."""

import functools
import subprocess
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import fastgru
from fastgru import _kernels, _roofline
from fastgru.cli import _bench, _measure
from fastgru.cli._commands import fastgru as command

UNITS, FEATURES = 6, 5
ALL = {"return_sequences": True, "return_state": True}


def layer(both=False, **arguments):
    made = fastgru.GRU(UNITS, **{"reset_after": True, "recurrent_activation": "sigmoid", **ALL, **arguments})
    made = fastgru.Bidirectional(made) if both else made
    made.build((None, None, FEATURES))
    return made


def stack():
    made = fastgru.Stack([layer(), fastgru.GRU(3, reset_after=True, recurrent_activation="sigmoid", **ALL)])
    made.build((None, None, FEATURES))
    return made


def invoke(*arguments):
    result = CliRunner().invoke(command, ["bench", *map(str, arguments)], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


# ---- the machine -----------------------------------------------------------------------------------


def test_loops_count_what_they_do(isa):
    lanes = _kernels.lanes(isa)
    assert _kernels.multiply_adds(10, isa) == 10 * _kernels.multiply_adds(1, isa)
    assert _kernels.multiply_adds(1, isa) % (2 * lanes) == 0
    for dot in {False, isa in _kernels.dot_isas()}:
        one = _kernels.integer_multiply_adds(1, dot, isa)
        assert _kernels.integer_multiply_adds(10, dot, isa) == 10 * one
        assert one == 4 * _kernels.multiply_adds(1, isa)
    block = _kernels.reads(np.ones(1000, np.float32), 1, isa)
    assert 0 < block <= 4000
    assert block % (4 * lanes) == 0
    assert _kernels.reads(np.ones(1000, np.float32), 7, isa) == 7 * block


def test_a_machine_has_limits():
    limits = _roofline.measure([1000, 10**6])
    assert min(limits.peak, limits.integer_peak) > 0
    assert limits.lanes == _kernels.lanes()
    assert limits.bandwidth.keys() == {1000, 10**6}
    assert min(limits.bandwidth.values()) > 0


def test_a_stream_reads_the_weights_of_all_layers_in_turn(monkeypatch):
    asked = []

    def measure(sizes):
        asked.append(sorted(set(sizes)))
        return _roofline.Limits(100.0, 200.0, 8, 3.0, dict.fromkeys(sizes, 50.0))

    monkeypatch.setattr(_roofline, "measure", measure)
    lower, upper = 4 * 3 * UNITS * (FEATURES + UNITS), 4 * 3 * 3 * (UNITS + 3)
    step = _bench.least_microseconds(stack(), 1, 0)
    call = _bench.least_microseconds(stack(), 2, 10)
    assert asked == [[lower + upper], sorted([4 * 3 * UNITS**2, 4 * 3 * 3**2])]
    assert 0 < step < call


def test_half_the_bytes_are_read_of_float16(monkeypatch):
    asked = []

    def measure(sizes):
        asked.extend(sizes)
        return _roofline.Limits(100.0, 200.0, 8, 3.0, dict.fromkeys(sizes, 50.0))

    monkeypatch.setattr(_roofline, "measure", measure)
    _bench.least_microseconds(layer(), 1, 0)
    _bench.least_microseconds(layer(dtype="float64"), 1, 0)
    assert asked[1] == 2 * asked[0]
    if _kernels.float16_isas():
        _bench.least_microseconds(layer(weights_dtype="float16"), 1, 0)
        assert 2 * asked[2] == asked[0]


def test_int8_has_bytes_and_a_peak_of_its_own(monkeypatch):
    asked = []

    def measure(sizes, peak):
        asked.extend(sizes)
        return _roofline.Limits(100.0, peak, 8, 3.0, dict.fromkeys(sizes, 1e9))

    least = {}
    for peak in (200.0, 400.0):
        monkeypatch.setattr(_roofline, "measure", functools.partial(measure, peak=peak))
        for dtype in ("float32", "int8"):
            least[dtype, peak] = _bench.least_microseconds(layer(weights_dtype=dtype), 500, 10)
    assert asked[0] == 4 * asked[1]
    assert least["float32", 200] == least["float32", 400]
    others = 2 * least["int8", 400] - least["int8", 200]  # without products
    products = least["float32", 200] - others
    assert least["int8", 200] - others == pytest.approx(products / 2)


# ---- calls -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        layer(),
        layer(both=True),
        layer(go_backwards=True),
        layer(time_major=True, dtype="float64"),
        layer(activation=np.tanh),
        stack(),
    ],
)
def test_every_layer_has_a_time_per_step(made):
    assert 0 < _measure.microseconds_per_step(made) < np.inf


def test_a_block_has_one_call_at_least():
    calls = []
    assert len(_measure.block(lambda: calls.append(1), 0)) == len(calls) == 1


@pytest.mark.parametrize("made", [layer(), layer(time_major=True), layer(both=True)])
@pytest.mark.parametrize("contender", ["onnxruntime", "torch"])
def test_contenders_compute_what_is_measured(made, contender):
    x, _ = _bench._inputs(made, 3, 4)
    expected, *_ = made(x if made.time_major else x.swapaxes(0, 1))
    found = _bench.CONTENDERS[contender](made, 3, 4)()
    y = found[-1] if contender == "onnxruntime" else found.numpy()  # (timesteps, directions, batch, units)
    y = y.transpose(0, 2, 1, 3).reshape(4, 3, -1) if y.ndim == 4 else y
    np.testing.assert_allclose(y if made.time_major else y.swapaxes(0, 1), expected, rtol=0, atol=3e-6)


def test_pytorch_computes_a_float16_layer_in_float32():
    made = layer(dtype="float16")
    x, _ = _bench._inputs(made, 3, 4)
    found = _bench.CONTENDERS["torch"](made, 3, 4)().numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.swapaxes(0, 1), made(x.swapaxes(0, 1))[0], rtol=0, atol=2e-3)


def test_onnxruntime_computes_a_stack_with_the_states_of_all_its_layers():
    made = stack()
    x, _ = _bench._inputs(made, 1, 1)
    found = _bench.CONTENDERS["onnxruntime"](made, 3, 4)()[-1]
    expected, *_ = made(_bench._inputs(made, 3, 4)[0].swapaxes(0, 1))
    np.testing.assert_allclose(found[:, 0].swapaxes(0, 1), expected, rtol=0, atol=3e-6)
    stream, call = made.stream(), _bench.CONTENDERS["onnxruntime"](made, 1, 0)
    for _ in range(5):
        np.testing.assert_allclose(call()[-1].ravel(), stream(x[0]).ravel(), rtol=0, atol=3e-6)


@pytest.mark.parametrize("contender", ["onnxruntime", "torch"])
def test_contenders_go_on_from_state_to_state(contender):
    made = layer()
    x, _ = _bench._inputs(made, 1, 1)
    stream, call = made.stream(), _bench.CONTENDERS[contender](made, 1, 0)
    for _ in range(5):
        found = call()
        y = found[-1] if contender == "onnxruntime" else found.numpy()
        np.testing.assert_allclose(y.ravel(), stream(x[0]).ravel(), rtol=0, atol=3e-6)


# ---- reports ---------------------------------------------------------------------------------------


def test_a_report_has_a_step_and_calls_of_all_contenders():
    ticks = []
    report = _bench.measured(layer(), [1, 3], 0, ticks.append)
    assert [(figure.batch, figure.timesteps) for figure in report.figures] == [(1, 0), (1, 32), (3, 32)]
    assert all([*figure.microseconds] == ["fastgru", "onnxruntime", "torch"] for figure in report.figures)
    assert report.left_out == {}
    assert sum(ticks) == 3 * _bench.ROUNDS


def test_percentiles_rates_and_shares():
    figure = _bench.Figure(4, 10, {"fastgru": np.arange(1.0, 102.0)}, np.array([25.5, 25.5, 99.0]))
    assert figure.percentile("fastgru", 50) == 51
    assert figure.percentile("fastgru", 99) == 100
    assert figure.steps_per_second("fastgru") == pytest.approx(1e6 * 40 / 51)
    assert figure.of_roofline("fastgru") == pytest.approx(0.5)


def test_layers_that_a_runtime_has_not_are_left_out_with_the_reason():
    report = _bench.measured(layer(reset_after=False, activation="gelu"), [1], 0)
    assert [*report.figures[0].microseconds] == ["fastgru"]
    assert "no activation" in report.left_out["onnxruntime"]
    assert "reset gate after" in report.left_out["torch"]


def test_a_runtime_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(_bench.importlib.util, "find_spec", lambda name: None)
    report = _bench.measured(layer(), [1], 0)
    assert report.left_out["torch"] == "it is not installed: pip install torch"


def test_an_error_of_its_own_is_no_reason_to_leave_out_fastgru():
    def fail(*_):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        _bench.measured(layer(), [1], 0, contenders={"fastgru": fail})


# ---- the command -----------------------------------------------------------------------------------


def test_tables_and_pictures_are_made(tmp_path):
    made, path = stack(), tmp_path / "stack.npz"
    made.save(path)
    output = invoke(path, "--batch", "1,3", "--seconds", 0, "--plot", tmp_path / "speed.png")
    assert "a stream's step" in output
    assert "3 x 32" in output
    assert "without torch: " in output
    assert "without onnxruntime" not in output
    with Image.open(tmp_path / "speed.png") as picture:
        assert picture.size[0] > 1000


def test_a_layer_without_a_stream_is_drawn(tmp_path):
    path = tmp_path / "both.npz"
    layer(both=True).save(path)
    output = invoke(path, "--batch", "2", "--seconds", 0, "--plot", tmp_path / "speed.svg")
    assert "a stream's step" not in output
    assert "<svg" in (tmp_path / "speed.svg").read_text()


def test_a_table_says_in_every_row_what_it_is_of():
    figure = _bench.Figure(4, 10, {"fastgru": np.ones(3), "torch": np.full(3, 2.0)}, np.ones(3))
    columns, rows = _bench.table(_bench.Report([figure], {}))
    assert all(columns)
    assert [row[:2] for row in rows] == [["4 x 10", "fastgru"], ["4 x 10", "torch"]]
    assert [row[-1] for row in rows] == [1, 2]


def test_names_are_drawn_as_they_are(tmp_path):
    figure = _bench.Figure(1, 10, {"fastgru": np.ones(3)}, np.full(3, 0.5))
    _bench.draw({"a$_$b": _bench.Report([figure], {})}, tmp_path / "speed.svg", "$\\x$")
    assert [path.name for path in tmp_path.iterdir()] == ["speed.svg"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("speed.jpg", "must end in .png, .svg, .pdf"),
        ("missing/speed.png", "must be in a folder that is there"),
    ],
)
def test_a_picture_is_refused_before_anything_is_measured(tmp_path, monkeypatch, name, reason):
    monkeypatch.setattr(_bench, "measured", None)
    layer().save(tmp_path / "layer.npz")
    with pytest.raises(click.BadParameter, match=reason):
        invoke(tmp_path / "layer.npz", "--plot", tmp_path / name)


def test_a_picture_that_fails_leaves_the_one_that_was_there(tmp_path, monkeypatch):
    def fail(self, file, **options):
        file.write(b"half")
        raise OSError("full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    figure = _bench.Figure(1, 10, {"fastgru": np.ones(3)}, np.ones(3))
    path = tmp_path / "speed.png"
    path.write_text("before")
    with pytest.raises(OSError, match="full"):
        _bench.draw({"gru": _bench.Report([figure], {})}, path, "model")
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["speed.png"]


def test_batches_are_measured_once_in_ascending_order(tmp_path, monkeypatch):
    asked = []

    def measured(layer, batches, *_):
        asked.append(batches)
        return _bench.Report([], {})

    monkeypatch.setattr(_bench, "measured", measured)
    layer().save(tmp_path / "layer.npz")
    invoke(tmp_path / "layer.npz", "--batch", "8,1,8")
    assert asked == [(1, 8)]


@pytest.mark.parametrize("sizes", ["", "0", "1,", "-1", "1.5", "many"])
def test_batches_must_be_positive_integers(tmp_path, sizes):
    layer().save(tmp_path / "layer.npz")
    with pytest.raises(click.BadParameter, match=r"must be positive integers .*\.$"):
        invoke(tmp_path / "layer.npz", f"--batch={sizes}")


def test_it_runs_as_a_program(tmp_path):
    path = tmp_path / "layer.npz"
    layer().save(path)
    arguments = [sys.executable, "-m", "fastgru", "bench", path, "--batch", "1", "--seconds", "0"]
    run = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # nobody watches a bar
    assert "fastgru" in run.stdout
