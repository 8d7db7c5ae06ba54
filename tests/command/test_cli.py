"""The command `fastgru`: its tables and files, and the one line of every error."""

import errno
import io
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import fastgru
from fastgru import _pieces
from fastgru.cli import _commands, _convert, _files, _main, _terminal

COMMANDS = ["inspect", "run", "convert", "quantize", "bench", "compare", "config", "completion"]


def command(*arguments, **options):
    """The command in a process of its own."""
    options = {"capture_output": True, "check": False, "timeout": 100} | options
    return subprocess.run([sys.executable, "-m", "fastgru", *map(str, arguments)], **options)


def quick(capfd, *arguments):
    """The command in this process: exit status, standard output and standard error."""
    status = _main.run([*map(str, arguments)])
    captured = capfd.readouterr()
    return status, captured.out, captured.err


def built(layer, features=5, seed=0):
    layer.build((1, None, features))
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape).astype(w.dtype) for w in layer.get_weights()])
    return layer


def gru(units=7, **arguments):
    return fastgru.GRU(units, **{"return_sequences": True, "reset_after": True, **arguments})


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.npz"
    built(gru(name="encoder")).save(path)
    return path


def saved(path, array):
    np.save(path, array)
    return path


# ---- inspect ----------------------------------------------------------------------------------------


def table(text):
    """The lines of a table as lists of cells, the heads first."""
    lines = [line for line in text.splitlines()[1:] if line.strip() and "─" not in line]
    return [[cell for cell in line.strip().split("  ") if cell.strip()] for line in lines]


def cells(text):
    return [[cell.strip() for cell in line] for line in table(text)]


def test_inspect_lists_every_layer_of_a_file(tmp_path, capfd):
    path = tmp_path / "a model.npz"
    layers = [
        fastgru.Bidirectional(gru(3, recurrent_activation="sigmoid"), merge_mode="sum", name="both"),
        gru(4, reset_after=False, weights_dtype="float16", name="upper"),
    ]
    stack = built(fastgru.Stack(layers, name="whole"))
    stack.save(path)
    status, out, err = quick(capfd, "inspect", path)
    assert (status, err) == (0, "")
    assert str(path) in out
    heads, lower, upper = cells(out)
    assert heads == ["name", "units", "features", "reset", "activations", "direction", "axes", "dtype",
                     "parameters", "bytes packed"]  # fmt: skip
    assert lower[:8] == [
        "whole: both",
        "3",
        "5",
        "after",
        "tanh, sigmoid",
        "both, sum",
        "batch, time",
        "float32",
    ]
    assert upper[:8] == ["whole: upper", "4", "3", "before", "tanh, hard_sigmoid", "forward", "batch, time",
                         "float32, weights float16"]  # fmt: skip
    parameters = [int(line[8].replace(",", "")) for line in (lower, upper)]
    assert parameters == [layers[0].count_params(), layers[1].count_params()]
    for line, layer in zip((lower, upper), layers, strict=True):
        assert int(line[9].replace(",", "")) == sum(part._plan.nbytes for part in layer._parts)


def test_inspect_lists_what_cannot_be_loaded_and_why(tmp_path, capfd):
    arrays = gru(name="good", recurrent_activation="sigmoid")
    arrays = built(arrays).to_torch_state_dict()
    path = tmp_path / "model.npz"
    odd = {key: array for key, array in arrays.items() if key != "bias_hh_l0"}
    np.savez(
        path, **{f"good.{key}": a for key, a in arrays.items()}, **{f"odd.{key}": a for key, a in odd.items()}
    )
    status, out, err = quick(capfd, "inspect", path)
    assert (status, err) == (0, "")
    *_, line = out.splitlines()
    assert line.startswith("odd cannot be loaded: a GRU has weight_ih (3 * units, features), weight_hh")
    assert [row[0] for row in cells(out.replace(line, ""))[1:]] == ["good"]
    np.savez(path, **{f"odd.{key}": a for key, a in odd.items()})
    status, out, err = quick(capfd, "inspect", path)
    assert (status, out) == (2, "")
    assert err.startswith(f"fastgru: {path}: a GRU has weight_ih")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is full")
@pytest.mark.parametrize(
    "arguments",
    [[], ["inspect", "nothing.npz"], ["inspect", "--wrong"], ["inspect", "nothing.npz", "--debug"]],
)
def test_a_full_disk_behind_standard_error_leaves_the_status(arguments):
    with Path("/dev/full").open("w") as full:
        assert command(*arguments, stderr=full, stdout=full, capture_output=False).returncode == 2


def test_a_full_disk_behind_standard_output_is_said(model):
    with Path("/dev/full").open("w") as full:
        done = command("inspect", model, stdout=full, stderr=subprocess.PIPE, capture_output=False, text=True)
    assert (done.returncode, done.stderr) == (2, "fastgru: No space left on device\n")


def test_a_shape_that_overflows_is_one_line(model, tmp_path, capfd):
    for shape in ("(4611686018427387904, 4611686018427387904, 5)", "(99999999999999999999, 1, 5)"):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        header = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header
        (tmp_path / "x.npy").write_bytes(header + bytes(60))
        status, _, err = quick(capfd, "run", model, tmp_path / "x.npy", "-o", tmp_path / "y.npy")
        assert status == 2
        assert len(err.splitlines()) == 1
        assert "x.npy must be an .npy file with an array of numbers" in err


def test_inspect_measures(model, capfd):
    status, out, _ = quick(capfd, "inspect", "--measure", model)
    heads, line = cells(out)
    facts = fastgru.show_config("dicts")
    assert (status, heads[-2:], line[-2]) == (
        0,
        ["engine", "us per step"],
        f"{facts['engine']}, {facts['isa']}",
    )
    assert float(line[-1]) > 0


def test_inspect_fits_into_a_narrow_terminal(model):
    main, terminal = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "40"}
        command("inspect", model, capture_output=False, stdout=terminal, env=environment)
        os.close(terminal)
        lines = read(main).decode().splitlines()
    finally:
        os.close(main)
    assert [line.split() for line in lines if line.startswith(("units", "activations", "bytes packed"))] == [
        ["units", "7"],
        ["activations", "tanh,", "hard_sigmoid"],
        ["bytes", "packed", f"{fastgru.load(model)._plan.nbytes:,}"],
    ]


def test_inspect_names_activations_with_their_parameters(tmp_path, capfd):
    layer = built(gru(activation={"class_name": "LeakyReLU", "config": {"alpha": 0.25}}))
    layer.save(tmp_path / "model.npz")
    assert "LeakyReLU(alpha=0.25), hard_sigmoid" in quick(capfd, "inspect", tmp_path / "model.npz")[1]


# ---- run --------------------------------------------------------------------------------------------

LAYERS = {
    "sequences": lambda: gru(),
    "last": lambda: gru(return_sequences=False, return_state=True, stateful=True),
    "backwards": lambda: gru(go_backwards=True),
    "last, backwards": lambda: gru(go_backwards=True, return_sequences=False),
    "time-major": lambda: gru(time_major=True),
    "zeros": lambda: gru(zero_output_for_mask=True),
    "float16": lambda: gru(dtype="float16"),
    "both": lambda: fastgru.Bidirectional(gru()),
    "both, last": lambda: fastgru.Bidirectional(gru(return_sequences=False), merge_mode="ave"),
    "both, apart": lambda: fastgru.Bidirectional(gru(time_major=True), merge_mode=None),
    "stack": lambda: fastgru.Stack([gru(4), gru(6)]),
    "stack, last": lambda: fastgru.Stack([gru(4), gru(6, return_sequences=False)]),
    "stack, backwards": lambda: fastgru.Stack([gru(4, go_backwards=True), gru(6)]),
    "stack, both": lambda: fastgru.Stack([fastgru.Bidirectional(gru(4)), gru(6)]),
}


@pytest.mark.parametrize("piece", [200, 3000, 1 << 20])
@pytest.mark.parametrize("kind", LAYERS)
def test_run_gives_the_bits_of_one_call(kind, piece, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(_pieces, "PIECE_BYTES", piece)
    rng, batch, timesteps = np.random.default_rng(1), 9, 23
    layer = built(LAYERS[kind]())
    layer.save(tmp_path / "model.npz")
    x = rng.normal(size=(batch, timesteps, 5)).astype("f4")
    lengths = rng.integers(0, timesteps, batch, endpoint=True)
    states = [rng.normal(size=(batch, part.units)).astype(part.dtype) for part in layer._parts]
    if layer.time_major:
        x = x.swapaxes(0, 1).copy()
    paths = [tmp_path / name for name in ("model.npz", "x.npy", "lengths.npy", "states.npz", "out.npy")]
    np.save(paths[1], x)
    np.save(paths[2], lengths)
    np.savez(paths[3], *states)
    for has_lengths, has_states, rows in [(0, 0, ()), (1, 0, (4,)), (0, 1, (2,)), (1, 1, (100,)), (1, 1, ())]:
        options = ["--lengths", paths[2]] * has_lengths + ["--states", paths[3]] * has_states
        options += [f"--batch={n}" for n in rows]
        assert quick(capfd, "run", *paths[:2], "-o", paths[4], *options) == (0, "", "")
        fresh = fastgru.load(paths[0], stateful=False)  # one whose calls start from nothing
        results = fresh(x, states if has_states else None, lengths=lengths if has_lengths else None)
        parts = results if isinstance(results, list) else [results]
        wanted = np.concatenate(parts, -1) if kind == "both, apart" else parts[0]
        found = np.load(paths[4])
        assert found.dtype == layer.dtype
        np.testing.assert_array_equal(found, wanted)


def test_run_takes_a_states_own_default(tmp_path, capfd):
    state = np.random.default_rng(2).normal(size=(4, 7)).astype("f4")
    layer = built(gru(default_state=state))
    layer.save(tmp_path / "model.npz")
    x = np.random.default_rng(3).normal(size=(4, 6, 5)).astype("f4")
    saved(tmp_path / "x.npy", x)
    arguments = ["run", tmp_path / "model.npz", tmp_path / "x.npy", "-o", tmp_path / "y.npy"]
    assert quick(capfd, *arguments, "--batch=3") == (0, "", "")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), layer(x))
    saved(tmp_path / "x.npy", x[:3])
    status, _, err = quick(capfd, *arguments)
    assert (status, err) == (2, "fastgru: INPUT must have 4 rows, as the model's initial state, got 3\n")


def test_run_computes_in_another_dtype(model, tmp_path, capfd):
    x = np.random.default_rng(3).normal(size=(2, 6, 5))
    saved(tmp_path / "x.npy", x)
    arguments = ["run", model, tmp_path / "x.npy", "-o", tmp_path / "y.npy"]
    for options in ({"dtype": "float64"}, {"weights_dtype": "float16"}):
        given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        assert quick(capfd, *arguments, *given) == (0, "", "")
        layer = fastgru.load(model, **options)
        wanted = layer(x.astype(layer.dtype))
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), wanted, strict=True)


def test_run_reads_and_writes_standard_streams(model, tmp_path):
    x = np.random.default_rng(3).normal(size=(2, 600, 5)).astype("f4")
    buffer = io.BytesIO()
    np.save(buffer, np.asfortranarray(x))
    run = command("run", model, "-", "-o", "-", input=buffer.getvalue())
    assert (run.returncode, run.stderr) == (0, b"")
    np.testing.assert_array_equal(np.load(io.BytesIO(run.stdout)), fastgru.load(model)(x))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_run_reads_and_writes_named_pipes(model, tmp_path):
    x = np.random.default_rng(3).normal(size=(2, 600, 5)).astype("f4")
    saved(tmp_path / "x.npy", x)
    for name in ("in", "out"):
        os.mkfifo(tmp_path / name)
    script = 'cat x.npy > in & timeout 60 cat out > y.npy & "$0" -m fastgru run model.npz in -o out && wait'
    subprocess.run(["sh", "-c", script, sys.executable], cwd=tmp_path, check=True, timeout=100)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), fastgru.load(model)(x))
    assert (tmp_path / "out").is_fifo()


def test_an_empty_batch_is_an_empty_file(model, tmp_path, capfd):
    saved(tmp_path / "x.npy", np.zeros((0, 4, 5), "f4"))
    assert quick(capfd, "run", model, tmp_path / "x.npy", "-o", tmp_path / "y.npy") == (0, "", "")
    assert np.load(tmp_path / "y.npy").shape == (0, 4, 7)


def test_a_file_larger_than_what_is_allocated(tmp_path):
    layer = built(gru(2, return_state=True), features=64)
    shape = (2, 200_000, 64)  # 100 MB
    with (tmp_path / "x.npy").open("w+b") as file:
        _files.Pieces(file, shape, np.dtype("f4"))  # a hole, which takes no room on the disk
    with _files.mapped(tmp_path / "x.npy") as x, _files.appearing(tmp_path / "y.npy") as file:
        out, counts = _files.Pieces(file, (*shape[:2], 2), np.dtype("f4")), []
        tracemalloc.start()
        try:
            for place, piece, done in _pieces.pieces(layer, x, None, None, reading=_files.resident):
                out.put(*place, piece)
                counts.append(done)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if Path("/proc/self/smaps").exists():
            assert in_memory(tmp_path / "x.npy") < 2 * _pieces.PIECE_BYTES
    assert sum(counts) == shape[0] * shape[1]
    assert len(counts) > 5
    assert peak < 4 * _pieces.PIECE_BYTES < x.nbytes // 2
    assert np.load(tmp_path / "y.npy", mmap_mode="r").shape == (2, 200_000, 2)


def in_memory(path):
    """How many bytes of a mapped file this process has in memory."""
    maps = Path("/proc/self/smaps").read_text()
    return 1024 * int(re.search(rf"{re.escape(str(path))}\n(?:.*\n)*?Rss: +(\d+) kB", maps)[1])


# ---- convert ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", _convert.WRITERS)
def test_convert_writes_what_load_reads(ending, tmp_path, capfd):
    layer = built(gru(recurrent_activation="sigmoid"))
    layer.save(tmp_path / "model.npz")
    out = tmp_path / f"out{ending}"
    status, text, err = quick(capfd, "convert", tmp_path / "model.npz", out)
    assert (status, err) == (0, "")
    assert text == f"{out}: {layer.count_params()} parameters; outputs differ by at most 0\n"
    x = np.random.default_rng(0).normal(size=(3, 8, 5)).astype("f4")
    other = fastgru.load(out, return_state=False)
    found = other(x.swapaxes(0, 1)).swapaxes(0, 1) if other.time_major else other(x)
    np.testing.assert_array_equal(found, layer(x))
    assert {path.name for path in tmp_path.iterdir()} == {"model.npz", out.name}


def test_quantize_writes_a_layer_and_its_errors(tmp_path, capfd):
    layer, out = built(gru()), tmp_path / "small.npz"
    layer.save(tmp_path / "model.npz")
    frames = np.random.default_rng(0).normal(size=(2, 50, 5)).astype("f4")
    np.save(tmp_path / "frames.npy", frames)
    np.save(tmp_path / "lengths.npy", np.array([50, 30]))
    arguments = ["--calibration", tmp_path / "frames.npy", "--lengths", tmp_path / "lengths.npy", "-o", out]
    status, text, err = quick(capfd, "quantize", tmp_path / "model.npz", *arguments)
    assert (status, err) == (0, "")
    small, report = fastgru.quantize(layer, frames, lengths=[50, 30])
    assert text == f"{report}\n"
    np.testing.assert_array_equal(fastgru.load(out)(frames), small(frames))
    status, text, err = quick(capfd, "quantize", tmp_path / "model.npz", "-o", out)
    assert (status, text.split()[-1], err) == (0, layer.name, "")
    np.testing.assert_array_equal(fastgru.load(out)(frames), fastgru.quantize(layer).layer(frames))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "small.onnx"], "OUT must end in .npz, got 'small.onnx'"),
        (["-o", "small.npz", "--lengths", "x.npy"], "--lengths must be given with --calibration"),
        (["-o", "small.npz", "--calibration", "x.npy"], "calibration must have shape (batch, timesteps, 5)"),
    ],
)
def test_quantize_says_what_is_wrong(arguments, message, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    built(gru()).save("model.npz")
    np.save("x.npy", np.ones((2, 5, 7), "f4"))
    status, text, err = quick(capfd, "quantize", "model.npz", *arguments)
    assert (status, text) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_convert_takes_stacks_and_states(tmp_path, capfd):
    state = np.full((1, 4), 0.5, "f4")
    built(fastgru.Stack([gru(4, default_state=state), gru(4)])).save(tmp_path / "stack.npz")
    for again in ("again.npz", "again.onnx"):
        assert quick(capfd, "convert", tmp_path / "stack.npz", tmp_path / again)[0] == 0
    built(gru(4, default_state=np.tile(state, (3, 1)))).save(tmp_path / "state.npz")
    assert quick(capfd, "convert", tmp_path / "state.npz", tmp_path / "state.onnx")[0] == 0


def test_convert_leaves_nothing_that_computes_something_else(model, tmp_path, capfd, monkeypatch):
    def wrong(layer, path):
        weights = layer.get_weights()
        weights[1][0, 0] += 1e-3
        layer.set_weights(weights)
        layer.save(path)

    monkeypatch.setitem(_convert.WRITERS, ".npz", wrong)
    out = tmp_path / "out.npz"
    out.write_text("before")
    status, text, err = quick(capfd, "convert", model, out)
    assert (status, text) == (2, "")
    assert err.startswith(f"fastgru: {out} was not written: read back, its outputs differ by ")
    assert out.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"model.npz", "out.npz"}


# ---- files that appear whole or not at all ----------------------------------------------------------


def test_a_failed_block_leaves_the_file_that_was_there(tmp_path):
    path = saved(tmp_path / "y.npy", np.arange(3))
    with pytest.raises(ZeroDivisionError), _files.appearing(path) as file:
        file.write(1 // 0)
    assert np.load(path).tolist() == [0, 1, 2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["y.npy"]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("link_fails", [False, True])
def test_a_block_that_ends_replaces_the_file_behind_a_link(named, link_fails, tmp_path, monkeypatch):
    if named:  # as where the system has no files without names
        monkeypatch.setattr(_files, "_nameless", lambda folder: None)
    if link_fails:  # as in some sandboxes
        monkeypatch.setattr(os, "link", forbidden)
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "y", tmp_path / "link"
    target.write_text("before")
    target.chmod(0o600)
    link.symlink_to(target)
    with _files.appearing(link) as file:
        file.write(b"after")
        assert target.read_text() == "before"
    assert target.read_text() == "after"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert link.is_symlink()
    assert [entry.name for entry in target.parent.iterdir()] == ["y"]


def forbidden(*_, **__):
    raise PermissionError(errno.EPERM, "forbidden")


def test_a_loop_of_links_is_replaced(tmp_path):
    (tmp_path / "a").symlink_to("a")
    with _files.appearing(tmp_path / "a") as file:
        file.write(b"after")
    assert (tmp_path / "a").read_text() == "after"


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs files without names")
def test_a_killed_process_leaves_nothing(tmp_path):
    code = """
import sys
from pathlib import Path
from fastgru.cli import _files
with _files.appearing(Path("out.npy")) as file:
    file.write(bytes(1 << 20))
    file.flush()
    print("ready", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs files without names")
def test_a_new_file_gets_its_name_at_once(tmp_path, monkeypatch):
    # a process that is killed between two names would leave the first one
    monkeypatch.setattr(Path, "replace", lambda *_: pytest.fail("it had another name before"))
    with _files.appearing(tmp_path / "a") as file:
        file.write(b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"whole")]


@pytest.mark.skipif(not _files.DESCRIPTORS.exists(), reason="needs files without names")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_leaves_no_copy_of_standard_input(number, model, tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "fastgru", "run", str(model), "-", "-o", str(tmp_path / "y.npy")],
        stdin=subprocess.PIPE, env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    with process:
        process.stdin.write(bytes(1 << 20))  # more than a pipe holds: the command is reading
        process.stdin.flush()
        process.send_signal(number)
        process.wait()
    assert process.returncode == (143 if number == signal.SIGTERM else -number)
    assert list(folder.iterdir()) == []


# ---- the terminal -----------------------------------------------------------------------------------


def test_progress_is_for_terminals(model, tmp_path):
    saved(tmp_path / "x.npy", np.zeros((3, 400, 5), "f4"))
    arguments = ["run", model, tmp_path / "x.npy", "-o", tmp_path / "y.npy"]
    assert command(*arguments).stderr == b""
    main, terminal = pty.openpty()
    try:
        run = command(*arguments, capture_output=False, stderr=terminal, env={**os.environ, "TERM": "xterm"})
        os.close(terminal)
        shown = b""
        while chunk := read(main):
            shown += chunk
    finally:
        os.close(main)
    assert run.returncode == 0
    assert b"x.npy" in shown
    assert b"100 %" in shown
    assert b"steps/s" in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")  # the cursor is back


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("name", ["a{b}.npy", "c[bold]d.npy", "e\nf\x1b[2J.npy", "long" * 30 + ".npy"])
def test_progress_shows_a_name_as_it_is_in_80_columns(name, monkeypatch):
    for variable, value in (("TERM", "xterm"), ("COLUMNS", "80"), ("NO_COLOR", "1")):
        monkeypatch.setenv(variable, value)
    stream = Terminal()
    with _terminal.progress(name, 10**9, "steps", stream) as advance:
        advance(10**9)
    shown = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", stream.getvalue())
    last = shown.replace("\r", "\n").rstrip().splitlines()[-1]
    escaped = name.replace("\n", r"\n").replace("\x1b", r"\x1b")
    assert last.startswith(escaped if len(escaped) <= 24 else f"{escaped[:23]}…")
    assert "100 %" in last
    assert "steps/s" in last
    assert re.search(r"\d:\d\d:\d\d$", last)
    assert len(last) <= 80


ENDING = r"""
import os, signal, sys
from fastgru import cli
from fastgru.cli import _main, _terminal

def run(arguments):
    with _terminal.progress("x", 1, "steps"):
        os.write(1, b"%d\n" % (signal.getsignal(signal.SIGHUP) == signal.SIG_IGN))  # rich has sys.stdout
        sys.stdin.read()

_main.run = run
cli.main()
"""
NO_NOHUP = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # which the tests may run under


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_with_a_cursor(number):
    main, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", NO_NOHUP + ENDING], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=terminal, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        os.close(terminal)
        with process:
            assert process.stdout.readline() == b"0\n"
            process.send_signal(number)
            shown = b""
            while chunk := read(main):
                shown += chunk
    finally:
        os.close(main)
    assert process.returncode == 128 + number
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")


def test_nohup_goes_on_without_its_terminal():
    command = ["nohup", sys.executable, "-c", ENDING]
    found = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=100)
    assert found.stdout == b"1\n"


def test_binary_output_is_not_for_terminals(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    with pytest.raises(ValueError, match="OUT must be a file"), _files.appearing(_files.STANDARD):
        pass


@pytest.mark.parametrize("value", [999.4, 999.5, 999.7, 1000.0, -999.7])
def test_numbers_have_no_exponent_around_a_thousand(value):
    assert _terminal.text(value) == f"{value:,.0f}"


def test_a_name_in_a_file_cannot_write_to_the_terminal(tmp_path, capfd):
    path = tmp_path / "a\nb.npz"
    _terminal.table(["name"], [["a\x1b]0;b\x07\nc ü"]], str(path))
    out = capfd.readouterr().out
    assert r"a\x1b]0;b\x07\nc ü" in out
    assert "\x1b" not in out
    assert r"a\nb.npz" in out.replace("\n", "")  # a path may be longer than a line
    quick(capfd, "inspect", tmp_path / "\x1b[2J")
    assert "\x1b" not in quick(capfd, "inspect", tmp_path / "\x1b[2J")[2]


def read(descriptor):
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # Linux: the other side of the terminal is closed
        return b""


def test_an_interrupt_ends_with_130_and_one_line(model, tmp_path):
    code = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells ignore in the background
from fastgru.cli import main
main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", str(model), "-", "-o", str(tmp_path / "y.npy")],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        process.stdin.write(bytes(1 << 20))  # more than a pipe holds: the command is reading
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"\nfastgru: interrupted\n"
    assert process.returncode == 130
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize("arguments", [["config"], ["--version"], ["inspect", "model.npz"]])
def test_a_reader_that_goes_away_is_no_error(arguments, model, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "fastgru", *arguments], cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_standard_streams_are_the_null_device(redirection, model, tmp_path):
    saved(tmp_path / "x.npy", np.zeros((3, 4, 5), "f4"))
    for arguments, wanted in (
        ("run model.npz x.npy -o y.npy", 0), ("config", 0), ("run model.npz - -o y.npy", 2), ("fly", 2)
    ):  # fmt: skip
        script = f'exec "$0" -m fastgru {arguments} {redirection}'
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 100}
        found = subprocess.run(["sh", "-c", script, sys.executable], cwd=tmp_path, check=False, **options)
        assert found.returncode == wanted, (arguments, found)
        assert b"Traceback" not in found.stderr
        assert b"unexpected" not in found.stderr
    assert np.load(tmp_path / "y.npy").shape == (3, 4, 7)


def test_names_that_a_terminal_has_no_characters_for_are_escaped(tmp_path):
    built(gru(name="encoder")).save(tmp_path / "ü.npz")
    run = command("inspect", tmp_path / "ü.npz", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (run.returncode, run.stderr) == (0, b"")
    assert rb"\xfc.npz" in run.stdout


# ---- errors -----------------------------------------------------------------------------------------


def errors(folder):
    """What is wrong with arguments, by them."""
    x = saved(folder / "x.npy", np.zeros((2, 3, 5), "f4"))
    built(fastgru.Stack([gru(4), gru(3)])).save(folder / "stack.npz")
    saved(folder / "ints.npy", np.zeros((2, 3, 5), int))
    saved(folder / "flat.npy", np.zeros((2, 5), "f4"))
    saved(folder / "no-steps.npy", np.zeros((2, 0, 5), "f4"))
    saved(folder / "objects.npy", np.array([object()]))
    saved(folder / "long.npy", np.array([4, 1]))
    (folder / "empty.npy").touch()
    (folder / "cut.npy").write_bytes(x.read_bytes()[:-1])
    (folder / "text").write_text("no model")
    header = x.read_bytes()
    for name, shape in (("huge", b"(10**30,)"), ("unclosed", b"((((("), ("null", b"\0")):
        (folder / f"{name}.npy").write_bytes(header.replace(b"(2, 3, 5)", shape.ljust(9)))
    (folder / "cut.npz").write_bytes(b"PK\x03\x04")
    np.savez(folder / "states.npz", np.zeros((2, 6), "f4"))
    run, out = ["run", "model.npz"], ["-o", "y.npy"]
    return [
        (["fly"], "No such command 'fly'. See 'fastgru --help'."),
        (["inspect"], "Missing argument 'MODEL'. See 'fastgru inspect --help'."),
        (["inspect", "none.npz"], "none.npz: No such file or directory"),
        (["inspect", "."], ".: Is a directory"),
        (["inspect", "text"], "text: no model file of Keras, PyTorch, ONNX or fastgru"),
        ([*run, "x.npy"], "Missing option '-o' / '--output'. See 'fastgru run --help'."),
        ([*run, "none.npy", *out], "none.npy: No such file or directory"),
        ([*run, "x.npy", *out, "--layer", "a"],
         "--layer must be one of 'encoder', the GRUs in model.npz, got 'a'"),
        ([*run, "x.npy", *out, "--batch=0"],
         "Invalid value for '--batch': 0 is not in the range x>=1. See 'fastgru run --help'."),
        ([*run, "ints.npy", *out],
         "INPUT must hold floats, got int64: numpy's astype('float32') converts them"),
        ([*run, "flat.npy", *out],
         "INPUT must have shape (batch, timesteps, features) with 5 features, got (2, 5)"),
        ([*run, "no-steps.npy", *out], "INPUT must have at least one timestep, got shape (2, 0, 5)"),
        ([*run, "empty.npy", *out], "empty.npy must be an .npy file with an array of numbers: "),
        ([*run, "cut.npy", *out], "cut.npy must be an .npy file with an array of numbers: "),
        ([*run, "objects.npy", *out],
         "objects.npy must be an .npy file with an array of numbers: it holds Python objects"),
        *(
            ([*run, f"{name}.npy", *out], f"{name}.npy must be an .npy file with an array of numbers: ")
            for name in ("huge", "unclosed", "null")
        ),
        ([*run, "text", *out], "text must be an .npy file with an array of numbers: it is in neither format"),
        ([*run, "x.npy", "-o", "model.npz"], "OUT must be another file than MODEL, got model.npz"),
        ([*run, "states.npz", *out], "states.npz must be an .npy file with one array, got an .npz"),
        ([*run, "x.npy", "-o", "none/y.npy"], "fastgru: none/y.npy: No such file or directory"),
        ([*run, "x.npy", "-o", "."], ".: Is a directory"),
        ([*run, "x.npy", *out, "--lengths", "long.npy"],
         "lengths must lie between 0 and the 3 timesteps, got 1 to 4"),
        ([*run, "x.npy", *out, "--states", "states.npz"],
         "--states must hold arrays of the shapes [(2, 7)], got [(2, 6)]"),
        ([*run, "x.npy", *out, "--states", "text"], "text must be an .npz file with arrays of numbers: "),
        ([*run, "x.npy", *out, "--states", "cut.npz"],
         "cut.npz must be an .npz file with arrays of numbers: "),
        ([*run, "x.npy", *out, "--states", "objects.npy"],
         "objects.npy must be an .npz file with arrays of numbers: it holds Python objects"),
        ([*run, "x.npy", *out, "--dtype", "int8"], "dtype must be"),
        ([*run, "x.npy", *out, "--zzzzzz"], ". See 'fastgru run --help'."),
        (["convert", "model.npz", "out.txt"],
         "OUT must end in .onnx, .npz, .safetensors, got 'out.txt'\n"),
        (["convert", "model.npz", "out.safetensors"], "PyTorch's GRU has the activation tanh"),
        (["completion", "dos"], "Invalid value for 'SHELL': 'dos' is not one of"),
    ]  # fmt: skip


def test_every_error_is_one_line_that_says_what_to_do(model, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, message in errors(tmp_path):
        before = sorted(entry.name for entry in tmp_path.iterdir())
        status, out, err = quick(capfd, *arguments)
        assert (status, out) == (2, ""), arguments
        assert err.count("\n") == 1, (arguments, err)
        assert message in err
        assert err.startswith("fastgru: ")
        assert sorted(entry.name for entry in tmp_path.iterdir()) == before, arguments


def test_debug_shows_where_an_error_comes_from(capfd):
    for arguments in (["--debug", "inspect", "none"], ["inspect", "none", "--debug"]):
        status, _, err = quick(capfd, *arguments)
        assert status == 2
        assert err.startswith("Traceback")
        assert "FileNotFoundError" in err
    assert "Traceback" not in quick(capfd, "inspect", "--", "--debug")[2]


def test_an_unexpected_error_asks_for_a_report(model, capfd, monkeypatch):
    monkeypatch.setattr(fastgru, "show_config", lambda: {}["missing"])
    status, _, err = quick(capfd, "config")
    assert (status, err) == (
        2, "fastgru: unexpected KeyError: 'missing'; please report it with what --debug shows\n"
    )  # fmt: skip


def test_warnings_are_a_line_too(model, capfd, monkeypatch):
    def warn():
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("of this", stacklevel=1)

    monkeypatch.setattr(fastgru, "show_config", warn)
    assert quick(capfd, "config") == (0, "", "fastgru: warning: of this\n")


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_a_line_says_how_to_get_it(missing, model):
    code = f"""
import sys
sys.modules[{missing!r}] = None
sys.argv[1:] = ["inspect", {str(model)!r}]
from fastgru.cli import main
main()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"fastgru: the command needs {missing}: pip install 'fastgru[cli]'\n"


@pytest.mark.parametrize("variable", ["FASTGRU_ENGINE", "FASTGRU_ISA"])
def test_a_wrong_environment_is_a_line_and_help_needs_none(variable):
    environment = os.environ | {variable: "abacus"}
    run = command("config", env=environment, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(rf"fastgru: {variable} must be one of .*, got 'abacus'\n", run.stderr)
    assert command("--help", env=environment).returncode == 0


@pytest.mark.parametrize("module", ["click", "numpy"])
def test_an_interrupt_of_an_import_is_one_of_the_command(module, model):
    code = f"""
import builtins, sys
true = builtins.__import__
def interrupted(name, *rest):
    if name == {module!r}:
        raise KeyboardInterrupt
    return true(name, *rest)
builtins.__import__ = interrupted
sys.argv[1:] = ["inspect", {str(model)!r}]
from fastgru.cli import main
main()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr.lstrip()) == (130, "", "fastgru: interrupted\n")


# ---- help and completion ----------------------------------------------------------------------------


def test_the_command_lists_what_is_tested_here():
    listed = set(_commands.fastgru.commands)
    assert listed == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(_commands.fastgru.commands))
def test_help_has_an_example(name):
    result = CliRunner().invoke(_commands.fastgru, [name, "--help"])
    assert result.exit_code == 0
    examples = [line for line in result.output.splitlines() if line.startswith(("    fastgru ", "    eval "))]
    assert any(f"fastgru {name}" in line for line in examples), result.output


def test_help_and_completion_import_nothing_heavy():
    code = f"""
import os, sys
from fastgru.cli import _main
for command in [[], *([name] for name in {COMMANDS})]:
    assert _main.run([*command, "--help"]) == 0
assert _main.run(["completion", "bash"]) == 0
os.environ |= {{"_FASTGRU_COMPLETE": "bash_complete", "COMP_WORDS": "fastgru run --", "COMP_CWORD": "2"}}
try:
    _main.run([])
finally:
    print("numpy" in sys.modules, "rich" in sys.modules, file=sys.stderr)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "plain,--weights-dtype" in run.stdout.splitlines()
    assert run.stderr == "False False\n"


def test_no_arguments_are_help(capfd):
    status, out, err = quick(capfd)
    assert (status, out) == (2, "")
    assert "inspect" in err


def test_the_version(capfd):
    assert quick(capfd, "--version") == (0, f"fastgru, version {fastgru.__version__}\n", "")


def test_config_is_what_the_library_reports(capfd):
    status, out, _ = quick(capfd, "config")
    assert status == 0
    fastgru.show_config()
    assert out == capfd.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_completes(shell, capfd):
    status, script, _ = quick(capfd, "completion", shell)
    assert status == 0
    assert f"_FASTGRU_COMPLETE={shell}_complete" in script
    words = {"COMP_WORDS": "fastgru ins", "COMP_CWORD": "ins" if shell == "fish" else "1"}
    run = command(env={**os.environ, "_FASTGRU_COMPLETE": f"{shell}_complete", **words}, text=True)
    assert "inspect" in run.stdout
    assert "convert" not in run.stdout


def test_the_script_is_installed():
    scripts = Path(sys.executable).parent
    run = subprocess.run([scripts / "fastgru", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"fastgru, version {fastgru.__version__}\n"
