"""`fastgru run` of Parquet, Zarr and folders: results of one call, restarts, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zarr
from batch_networks import FEATURES, layer, model, run

from fastgru.cli._jobs import _arrays, _tables, _work

LISTS = pyarrow.list_(pyarrow.list_(pyarrow.float32()))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    """Parts of a few rows, in an empty folder."""
    monkeypatch.setattr(_arrays, "PART_BYTES", 2000)
    monkeypatch.setattr(_tables, "PART_BYTES", 300)
    monkeypatch.setattr(_tables, "READ_BYTES", 200)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # which matters to a crash of the machine alone
    monkeypatch.chdir(tmp_path)


def saved(net, name="net.npz"):
    net.save(name)
    return net


def sequences(rng, count=50):
    return [rng.normal(size=(n, FEATURES)).astype("f4") for n in rng.integers(0, 9, count)]


def written(path, rows, **options):
    """A Parquet file of sequences and their numbers."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    column = pyarrow.array([row.tolist() for row in rows], LISTS)
    pyarrow.parquet.write_table(pyarrow.table({"id": range(len(rows)), "x": column}), path, **options)


def alone(net, row):
    return net(row[np.newaxis])[0] if len(row) else np.zeros((0, 5), "f4")


def same_cells(found, rows, net):
    for cell, row in zip(found.to_pylist(), rows, strict=True):
        np.testing.assert_array_equal(np.array(cell, "f4").reshape(-1, 5), alone(net, row))


# ---- formats -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sequences", "last", "time-major", "float64"])
@pytest.mark.parametrize("before", [".npy", ".zarr"])
@pytest.mark.parametrize("after", [".npy", ".zarr"])
def test_arrays_have_the_bits_of_one_call(kind, before, after, rng, capfd):
    net = saved(layer(kind))
    x = rng.normal(size=(6, 40, FEATURES) if net.time_major else (40, 6, FEATURES)).astype("f4")
    lengths = rng.integers(0, 7, 40)
    np.save("lengths.npy", lengths)
    if before == ".npy":
        np.save("x.npy", x)
    else:
        zarr.create_array("x.zarr", data=x, chunks=(4, 4, FEATURES))
    for given, wanted in (((), net(x)), (("--lengths", "lengths.npy"), net(x, lengths=lengths))):
        out = f"y{len(given)}{after}"
        run(capfd, "net.npz", f"x{before}", "-o", out, *given)
        found = np.load(out) if after == ".npy" else zarr.open_array(out, mode="r")[:]
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype


def test_parquet_has_the_bits_that_each_row_has_alone(rng, capfd):
    net = saved(layer("sequences"))
    folder = {"a=1/one.parquet": sequences(rng), "a=2/two.parquet": sequences(rng, 7), "a=2/none.parquet": []}
    for name, rows in folder.items():
        written(f"in/{name}", rows, row_group_size=6)
    written("in/_metadata.parquet", [])  # not data
    run(capfd, "net.npz", "in", "-o", "out", "--keep", "id")
    read = {path.relative_to("out") for path in Path("out").rglob("*.parquet")}
    assert len(read) > len(folder)  # of the first file there are several parts
    for name, rows in folder.items():
        stem = Path(name).stem
        parts = sorted(
            path for path in read if path.name.startswith(stem) and path.parent == Path(name).parent
        )
        tables = [pyarrow.parquet.ParquetFile("out" / path).read() for path in parts]
        found = pyarrow.concat_tables(tables)
        assert found["id"].to_pylist() == list(range(len(rows)))
        same_cells(found["output"], rows, net)
    assert pyarrow.parquet.read_table("out").column_names == ["output", "id", "a"]
    run(capfd, "net.npz", "in/a=2/two.parquet", "-o", "two.parquet", "--column", "x", "--batch", 3)
    same_cells(pyarrow.parquet.read_table("two.parquet")["output"], folder["a=2/two.parquet"], net)


def test_parquet_may_have_lengths_in_a_column(rng, capfd):
    net = saved(layer("last"))
    x, steps = rng.normal(size=(20, 4, FEATURES)).astype("f4"), rng.integers(0, 5, 20)
    dense = pyarrow.list_(pyarrow.list_(pyarrow.float32(), FEATURES), 4)
    pyarrow.parquet.write_table(
        pyarrow.table({"x": pyarrow.array(x.tolist(), dense), "n": steps}), "x.parquet"
    )
    run(capfd, "net.npz", "x.parquet", "-o", "y.parquet", "--lengths", "n")
    found = np.array(pyarrow.parquet.read_table("y.parquet")["output"].to_pylist(), "f4")
    np.testing.assert_array_equal(found, net(x, lengths=steps))


def test_a_folder_of_arrays_becomes_one(rng, capfd):
    net = saved(model("frames"))
    arrays = {
        f"{day}/{n}.npy": rng.normal(size=(n, 6, FEATURES)).astype("f4") for day in "ab" for n in (0, 1, 30)
    }
    for name, x in arrays.items():
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        np.save(Path("in", name), x)
    run(capfd, "--whole", "net.npz", "in", "-o", "out")
    assert {str(path.relative_to("out")) for path in Path("out").rglob("*.npy")} == set(arrays)
    for name, x in arrays.items():
        np.testing.assert_array_equal(np.load(Path("out", name)), net(x))


def test_whole_models_of_indices_read_parquet(rng, capfd):
    net = saved(model("indices"))
    rows = [rng.integers(0, 9, n) for n in (3, 1, 5)]
    pyarrow.parquet.write_table(pyarrow.table({"words": [row.tolist() for row in rows]}), "x.parquet")
    run(capfd, "--whole", "net.npz", "x.parquet", "-o", "y.parquet")
    found = pyarrow.parquet.read_table("y.parquet")["y"].to_pylist()
    for cell, row in zip(found, rows, strict=True):
        np.testing.assert_array_equal(np.array(cell, "f4"), net(row[np.newaxis])[0])


@pytest.mark.parametrize("kind", ["parquet", "zarr"])
def test_parts_have_the_size_that_is_asked_for(kind, rng, capfd, monkeypatch):
    saved(layer("last"))
    if kind == "parquet":
        written("in.parquet", sequences(rng), row_group_size=6)
    else:
        zarr.create_array("in.zarr", data=np.zeros((50, 6, FEATURES), "f4"), chunks=(4, 6, FEATURES))
    job = _tables.TableJob if kind == "parquet" else _arrays.ArrayJob
    compute, computed = job.compute, []
    monkeypatch.setattr(job, "compute", lambda *given: computed.append(given[2]) or compute(*given))
    run(capfd, "net.npz", f"in.{kind}", "-o", f"out.{kind}", "--part-size", 1)
    assert computed == [0]
    run(capfd, "net.npz", f"in.{kind}", "-o", f"more.{kind}")
    assert len(computed) > 3


# ---- restarts ----------------------------------------------------------------------------------------


class StopError(Exception):
    """In place of a signal."""


@pytest.mark.parametrize("kind", ["parquet", "zarr"])
def test_a_job_goes_on_where_it_was_stopped(kind, rng, capfd, monkeypatch):
    net = saved(layer("sequences"))
    rows = sequences(rng)
    x = rng.normal(size=(50, 6, FEATURES)).astype("f4")
    if kind == "parquet":
        written("in.parquet", rows, row_group_size=6)
        job, name = _tables.TableJob, "in.parquet"
    else:
        zarr.create_array("in.zarr", data=x, chunks=(4, 6, FEATURES))
        job, name = _arrays.ArrayJob, "in.zarr"
    compute, computed = job.compute, []

    def stopping(self, function, number):
        if len(computed) == 3 and number not in computed:
            raise StopError
        compute(self, function, number)
        computed.append(number)

    monkeypatch.setattr(job, "compute", stopping)
    out = f"out.{kind}"
    run(capfd, "net.npz", name, "-o", out, status=2)
    assert computed == [0, 1, 2]
    assert not Path(out).exists()
    monkeypatch.setattr(job, "compute", lambda *given: computed.append(given[2]) or compute(*given))
    other = saved(layer("sequences", seed=5), "other.npz")
    message = run(capfd, "other.npz", name, "-o", out, status=2)
    assert "must be of the same job, and was begun with another model: remove it to begin anew" in message
    assert other is not net
    run(capfd, "net.npz", name, "-o", out)
    assert computed == [*range(len(computed))]  # none twice
    assert len(computed) > 4
    assert not Path(f"{out}.unfinished").exists()
    if kind == "parquet":
        names = sorted(path.name for path in Path(out).iterdir())
        same_cells(
            pyarrow.concat_tables(pyarrow.parquet.read_table(f"{out}/{n}") for n in names)["output"],
            rows,
            net,
        )
    else:
        np.testing.assert_array_equal(zarr.open_array(out, mode="r")[:], net(x))


def command(*arguments, **options):
    given = [sys.executable, "-m", "fastgru", "run", *map(str, arguments)]
    return subprocess.Popen(given, stderr=subprocess.PIPE, text=True, **options)


def until(condition, process=None):
    """Wait for a condition; the test's own limit is that of a hanging machine."""
    for _ in range(3000):
        if condition():
            return
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    raise AssertionError("the condition never came true")


@pytest.mark.outside
@pytest.mark.xdist_group("clusters")
@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGKILL, 2), (signal.SIGTERM, None), (signal.SIGINT, None)]
)
def test_a_job_survives_what_kills_it(number, workers, rng, tmp_path, monkeypatch, capfd):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    net = saved(layer("sequences"))
    x = rng.normal(size=(600, 2000, FEATURES)).astype("f4")
    np.save("x.npy", x)
    out = "y.npy" if workers else "y.zarr"
    if workers:
        np.save(out, np.zeros(1))  # which stays until the end
    done = Path(f"{out}.unfinished/done")
    arguments = ["net.npz", "x.npy", "-o", out, "--part-size", "1"]  # many parts, of which one will be done
    job = command(*arguments, *(("--workers", workers) if workers else ()))
    until(lambda: len([*done.glob("[0-9]*")]) > 0, job)
    job.send_signal(number)
    status = job.wait()
    job.stderr.close()
    assert status == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    begun = {path.name for path in done.glob("[0-9]*")}
    assert not workers or np.load(out).shape == (1,)
    computed = []
    compute = _arrays.ArrayJob.compute
    monkeypatch.setattr(
        _arrays.ArrayJob, "compute", lambda *given: computed.append(given[2]) or compute(*given)
    )
    run(capfd, *arguments)
    assert computed
    assert begun.isdisjoint(map(str, computed))
    found = np.load(out) if workers else zarr.open_array(out, mode="r")[:]
    np.testing.assert_array_equal(found, net(x))
    assert not done.parent.exists()


@pytest.mark.outside
@pytest.mark.xdist_group("clusters")
def test_a_worker_of_a_scheduler_is_killed_and_the_result_is_whole(client, rng, capfd):
    net = saved(layer("sequences"))
    x = rng.normal(size=(200, 3000, FEATURES)).astype("f4")
    np.save("x.npy", x)
    address = client.scheduler_info()["address"]
    victim, number = next(iter(client.run(os.getpid).items()))
    os.kill(number, signal.SIGSTOP)  # it is given parts, and never finishes one
    job = command("net.npz", "x.npy", "-o", "y.npy", "--scheduler", address)
    until(lambda: client.processing().get(victim), job)
    os.kill(number, signal.SIGKILL)
    assert job.wait() == 0, job.stderr.read()
    job.stderr.close()
    np.testing.assert_array_equal(np.load("y.npy"), net(x))
    client.wait_for_workers(2)
    column = pyarrow.array([[[0.0] * FEATURES], None], LISTS)
    pyarrow.parquet.write_table(pyarrow.table({"x": column}), "bad.parquet")
    message = run(capfd, "net.npz", "bad.parquet", "-o", "bad", "--scheduler", address, status=2)
    assert (
        "bad.parquet, row groups 0 to 0: column 'x' must have a list in each row, got None in row 1"
        in message
    )
    assert not Path("bad").exists()


@pytest.mark.outside
def test_a_scheduler_that_is_not_there_is_said(rng, capfd, monkeypatch):
    from fastgru.cli._jobs import _running

    monkeypatch.setattr(_running, "SECONDS", 1)
    saved(layer("sequences"))
    np.save("x.npy", rng.normal(size=(2, 3, FEATURES)))
    for address in ("tcp://127.0.0.1:1", "nowhere://x"):
        message = run(capfd, "net.npz", "x.npy", "-o", "y.npy", "--scheduler", address, status=2)
        assert message.startswith("fastgru: --scheduler must be the address of a scheduler of Dask: ")


# ---- what is refused -----------------------------------------------------------------------------------


@pytest.fixture
def inputs(rng):
    """Files for the cases below."""
    saved(layer("sequences"))
    saved(layer("state"), "state.npz")
    written("x.parquet", sequences(rng, 5))
    Path("empty.parquet").write_bytes(b"")
    np.save("x.npy", rng.normal(size=(4, 5, FEATURES)).astype("f4"))
    np.save("n.npy", np.array([1, 2, 3]))
    for name, x in (("x", np.zeros((4, 5, FEATURES), "f4")), ("i", np.zeros((4, 5, FEATURES), int))):
        zarr.create_array(f"{name}.zarr", data=x)
    zarr.create_group("group.zarr").create_array("frames", data=np.zeros((1, 2, FEATURES), "f4"))
    zarr.create_array("w.zarr", data=np.zeros((4, 5, 4), "f4"))
    Path("folder").mkdir()
    Path("mixed").mkdir()
    written("mixed/a.parquet", sequences(rng, 5))
    pyarrow.parquet.write_table(pyarrow.table({"other": [1.0]}), "mixed/b.parquet")
    Path("there").mkdir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("x.parquet -o y.npy", "OUT must end in .parquet or nothing for an INPUT of parquet, got 'y.npy'"),
        ("x.zarr -o y.parquet", "OUT must end in .zarr or .npy for an INPUT of zarr, got 'y.parquet'"),
        ("x.parquet -o there", "OUT must not exist already, got there: remove it, or name another"),
        ("x.parquet -o nowhere/out", "nowhere: No such file or directory"),
        ("none.parquet -o out", "none.parquet: No such file or directory"),
        ("empty.parquet -o out", "empty.parquet: Parquet file size is 0 bytes"),
        (
            "folder -o out",
            "INPUT must be a folder of Zarr, of .parquet files or of .npy files, got none of them",
        ),
        (
            "mixed -o out",
            "b.parquet: column 'other' must hold lists of lists of numbers for the input 'x', got",
        ),
        ("mixed -o out --column x", "b.parquet: columns must be among ['other'], got 'x'"),
        ("x.parquet -o out --column y", "x.parquet: columns must be among ['id', 'x'], got 'y'"),
        (
            "x.parquet -o out --column id",
            "column 'id' must hold lists of lists of numbers for the input 'x', got",
        ),
        ("x.parquet -o out --keep y", "keep must have names of the columns ['id', 'x'], got 'y'"),
        ("x.parquet -o out --lengths id", "lengths must be left out for a column of lists"),
        ("x.zarr -o y.zarr --column x", "--column must be given with Parquet, got an INPUT of zarr"),
        ("x.zarr -o y.zarr --keep x", "--keep must be given with Parquet, got an INPUT of zarr"),
        ("x.zarr -o y.zarr --lengths n.npy", "--lengths must have shape (4,), one for each row, got (3,)"),
        ("x.zarr -o y.zarr --states n.npy", "--states must be left out for a job of parts"),
        ("i.zarr -o y.zarr", "i.zarr must hold floats, got int64"),
        ("w.zarr -o y.zarr", "is incompatible with the layer"),
        (
            "group.zarr -o y.zarr",
            "must be an array of Zarr, got a group of the arrays ['frames']: name one of them",
        ),
        ("x.npy -o - --workers 2", "INPUT and OUT must be files or folders for a job of parts, got -"),
        ("x.npy -o y.npy --workers 0", "0 is not in the range x>=1"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(inputs, arguments, message, capfd):
    before = sorted(Path().iterdir())
    assert message in run(capfd, "net.npz", *arguments.split(), status=2)
    left = [path for path in Path().iterdir() if path not in before]
    assert not [path for path in left if not path.name.endswith(".unfinished")]


def test_after_a_start_of_the_machine_nothing_counts_as_done(inputs, capfd, monkeypatch):
    computed, compute = [], _tables.TableJob.compute
    monkeypatch.setattr(
        _tables.TableJob, "compute", lambda *given: computed.append(given[2]) or compute(*given)
    )
    with monkeypatch.context() as patch:
        patch.setattr(_work.Work, "finish", lambda *_: (_ for _ in ()).throw(StopError))
        for boot, count in (("one", 1), ("one", 1), ("another", 2)):
            Path("boot_id").write_text(boot)
            patch.setattr(_work, "BOOT", Path("boot_id"))
            run(capfd, "net.npz", "x.parquet", "-o", "out", status=2)
            assert computed == [0] * count


def test_a_folder_that_is_no_jobs_is_left_alone(inputs, capfd):
    Path("out.unfinished").mkdir()
    Path("out.unfinished/mine.txt").write_text("precious")
    message = run(capfd, "net.npz", "x.parquet", "-o", "out", status=2)
    assert "out.unfinished must be a job's folder, and is another: remove it" in message
    assert Path("out.unfinished/mine.txt").read_text() == "precious"


def test_two_processes_are_not_at_work_on_one_output(inputs, capfd):
    import fcntl

    Path("out.unfinished").mkdir()
    with Path("out.unfinished/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        message = run(capfd, "net.npz", "x.parquet", "-o", "out", status=2)
    assert "OUT must be of one process alone, but another is writing" in message


def test_a_job_says_what_it_is(inputs, capfd, monkeypatch):
    monkeypatch.setattr(_tables.TableJob, "compute", lambda *_: (_ for _ in ()).throw(StopError))
    run(capfd, "net.npz", "x.parquet", "-o", "out", status=2)
    told = json.loads(Path("out.unfinished/job.json").read_text())
    assert told["input"][0][0].endswith("x.parquet")
