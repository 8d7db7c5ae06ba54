"""`fastgru run --resume-state`: sequences that come in parts have the bits of one call over all."""

import os
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zarr
from batch_networks import FEATURES, layer, model, run
from hypothesis import given, settings
from hypothesis import strategies as st

import fastgru
from fastgru.cli import _job, _main
from fastgru.cli._jobs import _arrays, _tables

KINDS = [
    "sequences",
    "last",
    "time-major",
    "float64",
    "float16",
    "int8",
    "stack",
    "zeros",
    "whole",
    "indices",
]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    monkeypatch.setattr(_arrays, "PART_BYTES", 1000)
    monkeypatch.setattr(_tables, "PART_BYTES", 300)
    monkeypatch.setattr(_tables, "READ_BYTES", 100)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # which matters to a crash of the machine alone
    monkeypatch.chdir(tmp_path)


def network(kind):
    """A network in net.npz, the options that name it, and a function from arrays to its outputs."""
    whole = kind in ("whole", "indices")
    net = model("frames" if kind == "whole" else kind) if whole else layer(kind)
    net.save("net.npz")
    return net, ["--whole"] if whole else []


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_parts_of_sequences_have_the_bits_of_the_whole(kind, data, seed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(seed)
    net = model("frames" if kind == "whole" else kind) if kind in ("whole", "indices") else layer(kind)
    net.save(folder / "net.npz")
    rows, steps = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 60))
    axis = 0 if getattr(net, "time_major", False) else 1
    shape = (steps, rows) if axis == 0 else (rows, steps)
    x = rng.integers(0, 9, shape) if kind == "indices" else rng.normal(size=(*shape, FEATURES)).astype("f4")
    wanted = net(x)
    cuts = sorted(data.draw(st.sets(st.integers(1, steps), max_size=4)) - {steps})
    parts = np.split(x, cuts, axis)
    found = []
    for number, part in enumerate(parts):  # a command for each
        np.save(folder / f"{number}.npy", part)
        command(net, folder / f"{number}.npy", folder / f"out{number}.npy", folder)
        found.append(np.load(folder / f"out{number}.npy"))
    if wanted.ndim == 2:
        np.testing.assert_array_equal(found[-1], wanted)
    else:
        np.testing.assert_array_equal(np.concatenate(found, axis), wanted)
    state = (folder / "state.npz").read_bytes()
    (folder / "state.npz").unlink()
    zarr.create_array(folder / "x.zarr", data=x, chunks=tuple(max(1, size // 2) for size in x.shape))
    command(net, folder / "x.zarr", folder / "out.zarr", folder)  # one for all
    np.testing.assert_array_equal(zarr.open_array(folder / "out.zarr", mode="r")[:], wanted)
    one, other = (np.load(folder / "state.npz"), np.load(folder / "state.npz"))
    assert int(one["timesteps"]) == steps
    assert state == (folder / "state.npz").read_bytes() or {**one}.keys() == {**other}.keys()


def command(net, source, target, folder):
    whole = ["--whole"] if isinstance(net, fastgru.Model) else []
    given = ["run", *whole, folder / "net.npz", source, "-o", target, "--resume-state", folder / "state.npz"]
    assert _main.run([*map(str, given)]) == 0


def test_a_folder_is_one_sequence_in_the_order_of_its_numbers(rng, capfd):
    net, _ = network("sequences")
    x = rng.normal(size=(2, 60, FEATURES)).astype("f4")
    Path("in").mkdir()
    for number, part in enumerate(np.split(x, 12, 1)):
        np.save(f"in/{number}.npy", part)  # 10 and 11 are after 9
    run(capfd, "net.npz", "in", "-o", "out", "--resume-state", "s.npz")
    found = [np.load(f"out/{number}.npy") for number in range(12)]
    np.testing.assert_array_equal(np.concatenate(found, 1), net(x))


@pytest.mark.parametrize("lists", [True, False])
def test_rows_of_parquet_are_timesteps(lists, rng, capfd):
    net, _ = network("sequences")
    x = rng.normal(size=(60, FEATURES)).astype("f4")
    Path("in").mkdir()
    for number, part in enumerate(np.split(x, [0, 25, 26])):
        if lists:
            columns = {"x": pyarrow.array(part.tolist(), pyarrow.list_(pyarrow.float32()))}
        else:
            columns = {name: part[:, i] for i, name in enumerate("abc")}
        table = pyarrow.table({"time": np.arange(len(part)), **columns})
        pyarrow.parquet.write_table(table, f"in/{number}.parquet", row_group_size=4)
    names = [] if lists else ["--column", "a", "--column", "b", "--column", "c"]
    run(capfd, "net.npz", "in", "-o", "out", "--resume-state", "s.npz", "--keep", "time", *names)
    tables = [
        pyarrow.parquet.ParquetFile(p).read() for p in sorted(Path("out").iterdir(), key=lambda p: p.name)
    ]
    found = pyarrow.concat_tables(tables)
    np.testing.assert_array_equal(np.array(found["output"].to_pylist(), "f4"), net(x[np.newaxis])[0])
    assert found["time"].to_pylist() == [*range(25), 0, *range(34)]


class StopError(Exception):
    """In place of a signal."""


@pytest.mark.parametrize("stopped", [0, 2, "state", "finish"])
def test_a_sequence_goes_on_where_it_was_stopped(stopped, rng, capfd, monkeypatch):
    net, _ = network("sequences")
    x = rng.normal(size=(1, 240, FEATURES)).astype("f4")
    np.save("a.npy", x[:, :40])
    np.save("b.npy", x[:, 40:])
    run(capfd, "net.npz", "a.npy", "-o", "ya.npy", "--resume-state", "s.npz")
    between = Path("s.npz").read_bytes()
    given = ("net.npz", "b.npy", "-o", "yb.npy", "--resume-state", "s.npz")

    def stop(*_):
        raise StopError

    with monkeypatch.context() as patch:
        if stopped == "state":
            put = _job.put
            patch.setattr(_job, "put", lambda path, data: stop() if path.name == "s.npz" else put(path, data))
        elif stopped == "finish":
            patch.setattr(_job.Work, "finish", stop)
        else:
            compute = _arrays.ArrayJob.compute
            patch.setattr(_arrays.ArrayJob, "compute", lambda *g: stop() if g[2] == stopped else compute(*g))
        run(capfd, *given, status=2)
    assert not Path("yb.npy").exists()
    assert (Path("s.npz").read_bytes() == between) == (stopped != "finish")
    run(capfd, *given)
    np.testing.assert_array_equal(np.concatenate([np.load("ya.npy"), np.load("yb.npy")], 1), net(x))
    assert int(np.load("s.npz")["timesteps"]) == 240
    assert "OUT must not exist already" in run(capfd, *given, status=2)  # the next part is another one


def test_a_state_that_was_changed_meanwhile_is_refused(rng, capfd, monkeypatch):
    network("sequences")
    np.save("a.npy", rng.normal(size=(1, 90, FEATURES)))
    run(capfd, "net.npz", "a.npy", "-o", "y.npy", "--resume-state", "s.npz")
    given = ("net.npz", "a.npy", "-o", "z.npy", "--resume-state", "s.npz")
    with monkeypatch.context() as patch:
        patch.setattr(_job.Work, "finish", lambda *_: (_ for _ in ()).throw(StopError))
        run(capfd, *given, status=2)
    Path("s.npz").write_bytes(b"other")
    message = run(capfd, *given, status=2)
    assert "s.npz must be as it was when" in message


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        ("both", "", "forward"),
        (
            "sequences",
            "--workers 2",
            "--workers must be left out with --resume-state, whose parts follow each other",
        ),
        ("sequences", "--lengths n.npy", "--lengths must be left out with --resume-state"),
        ("sequences", "--states n.npz", "--states must be left out for a job of parts"),
    ],
)
def test_what_has_no_state_to_hand_on_is_refused(net, options, message, rng, capfd):
    layer(net).save("net.npz")
    np.save("x.npy", rng.normal(size=(1, 4, FEATURES)))
    np.save("n.npy", np.array([4]))
    told = run(
        capfd, "net.npz", "x.npy", "-o", "y.npy", "--resume-state", "s.npz", *options.split(), status=2
    )
    assert message in told
    assert not Path("s.npz").exists()
    assert not Path("y.npy").exists()


def test_a_state_of_another_network_batch_or_file_is_refused(rng, capfd):
    layer("sequences").save("net.npz")
    layer("sequences", seed=1).save("other.npz")
    np.save("x.npy", rng.normal(size=(1, 4, FEATURES)))
    np.save("two.npy", rng.normal(size=(2, 4, FEATURES)))
    np.save("wide.npy", rng.normal(size=(1, 4, 5)))
    np.save("whole.npy", np.ones((1, 4, FEATURES), int))
    np.save("none.npy", np.ones((1, 0, FEATURES)))
    run(capfd, "net.npz", "x.npy", "-o", "y.npy", "--resume-state", "s.npz")
    Path("bad.npz").write_bytes(b"nothing")
    for net, source, state, message in (
        ("other", "x", "s", "s.npz must be the state of this network, and is that of another one"),
        ("net", "two", "s", "s.npz must be the state of 2 sequences, as INPUT has, got 1"),
        ("net", "x", "bad", "bad.npz must be a file that --resume-state has written"),
        (
            "net",
            "wide",
            "s",
            "wide.npy must have the shape (batch, timesteps, 3), with the batch of the first, got",
        ),
        ("net", "whole", "s", "whole.npy must hold floats, got int64"),
    ):
        out = f"{net}-{source}-{state}.npy"
        given = (f"{net}.npz", f"{source}.npy", "-o", out, "--resume-state", f"{state}.npz")
        assert message in run(capfd, *given, status=2)
        assert not Path(out).exists()
    before = Path("s.npz").read_bytes()
    run(capfd, "net.npz", "none.npy", "-o", "none-y.npy", "--resume-state", "s.npz")  # a part of no timestep
    assert int(np.load("s.npz")["timesteps"]) == 4
    assert np.load("none-y.npy").shape == (1, 0, 5)
    assert before == Path("s.npz").read_bytes()
