"""The process that reads HDF5: what it has given up, what it finds, and what files that mean harm cost."""

import functools
import io
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fastgru
from fastgru.formats import _hdf5, _hdf5_start, _model

h5py = pytest.importorskip("h5py")
linux = pytest.mark.skipif(sys.platform != "linux", reason="what Linux tells of a process in /proc")

UNITS, FEATURES = 3, 4
KERNELS = {"kernel:0": (FEATURES, 9), "recurrent_kernel:0": (UNITS, 9), "bias:0": (9,)}
MEGABYTE = 1 << 20


def written(fill, *arguments, **options):
    """The bytes of a file that a function fills."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        fill(file, *arguments)
    return buffer.getvalue()


def model(file, layers=1, dtype=None):
    """A model as Keras 2 writes it; Keras 3 has strings of variable length."""
    names = [f"gru_{i}" for i in range(layers)]
    common = {"units": UNITS, "reset_after": False}
    configs = [{"class_name": "GRU", "config": {"name": name, **common}} for name in names]
    file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": {"layers": configs}})
    file.attrs["keras_version"] = "2.11.0"
    file.create_group("model_weights").attrs["layer_names"] = np.array([n.encode() for n in names], dtype)
    rng = np.random.default_rng(0)
    for name in names:
        group = file.create_group(f"model_weights/{name}")
        places = [f"{name}/{kernel}" for kernel in KERNELS]
        group.attrs["weight_names"] = np.array([place.encode() for place in places], dtype)
        for place, shape in zip(places, KERNELS.values(), strict=True):
            group[place] = rng.normal(size=shape).astype(np.float32)


def opened(data):
    """Attributes and shapes."""
    with _hdf5.open_tree(data, _model.size_limit(len(data))) as tree:
        return tree.attributes, tree.shapes


# ---- what the process has given up ---------------------------------------------------------------

OPENING = (
    "open,openat,openat2,creat,socket,socketpair,pipe,pipe2,dup,dup2,dup3,memfd_create,epoll_create,"
    "epoll_create1,eventfd,eventfd2,inotify_init,inotify_init1,io_uring_setup"
)
STARTING = "execve,execveat,fork,vfork,clone,clone3"


def calls(path, log):
    """What strace sees of the process that reads a file: calls until it has confined itself, and after."""
    load = "import sys, fastgru\ntry: fastgru.load(sys.argv[1])\nexcept fastgru.FormatError: pass"
    trace = ["-f", "-qq", "-e", f"trace=prlimit64,{OPENING},{STARTING}", "-e", "signal=none", "-o", log]
    run = ["strace", *trace, sys.executable, "-c", load, path]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    if "PTRACE" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    confine = "prlimit64(0, RLIMIT_NOFILE, {rlim_cur=0, rlim_max=0}"
    ((reader, confined),) = [(pid, call) for pid, call in lines if call.startswith(confine)]
    own = [call for pid, call in lines if pid == reader]
    return own[: own.index(confined)], own[own.index(confined) + 1 :]


@linux
@pytest.mark.parametrize(
    "damage",
    [lambda data: data, lambda data: data[:-100], lambda data: data.replace(b"TREE", b"EERT")],
    ids=["sound", "short", "damaged"],
)
def test_no_file_no_socket_and_no_process_is_opened_while_a_file_is_read(damage, tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    path = tmp_path / "model.h5"
    path.write_bytes(damage(written(model)))
    before, after = calls(path, tmp_path / "log")
    assert [call for call in after if not call.startswith("prlimit64")] == []
    started = [call for call in before if call.startswith(tuple(STARTING.split(",")))]
    assert len(started) == 1  # itself: h5py would start uname
    assert started[0].startswith("execve")
    assert any("h5py" in call for call in before)  # strace does see what is opened


def children():
    """Process ids of this process' children."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


@linux
def test_the_process_that_reads_is_confined():
    data = written(model)
    limit = _model.size_limit(len(data))
    others = children()
    with _hdf5.open_tree(data, limit) as tree:
        (pid,) = children() - others
        text = Path(f"/proc/{pid}/limits").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
        assert tree.floats("model_weights/gru_0/gru_0/bias:0").shape == (9,)
    limits = {name: hard for name, _, hard in re.findall(r"^(.*?)  +(\S+) +(\S+)", text, re.M)}
    for name in ("Max open files", "Max processes", "Max file size", "Max core file size"):
        assert limits[name] == "0"
    assert limits["Max cpu time"] == str(_hdf5.SECONDS)
    held = 1024 * int(re.search(r"VmSize:\s+(\d+)", status)[1])
    assert int(limits["Max address space"]) < held + len(data) + limit + 33 * MEGABYTE


CONFINED = f"""
import os, resource, runpy, socket, sys, threading
confine = runpy.run_path({str(_hdf5_start.PROGRAM)!r})["confine"]
reading, writing = os.pipe()
if {{drop}}:
    os.setuid(65534)
confine(5, {MEGABYTE})
os.write(writing, b"x")  # what was open is still open
assert os.read(reading, 1) == b"x"
{{tried}}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
@pytest.mark.parametrize(
    ("tried", "error"),
    [
        ("open(sys.executable)", "Too many open files"),
        ("os.listdir('.')", "Too many open files"),
        ("os.pipe()", "Too many open files"),
        ("os.dup(0)", "Invalid argument|Too many open files"),
        ("socket.socket()", "Too many open files"),
        ("socket.socketpair()", "Too many open files"),
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))", "not allowed to raise"),
        pytest.param("bytearray(100_000_000)", "MemoryError", marks=linux),
        pytest.param("os.fork()", "Resource temporarily unavailable", marks=linux),
        pytest.param("threading.Thread(target=print).start()", "can't start new thread", marks=linux),
    ],
)
def test_a_confined_process_opens_and_starts_nothing(tried, error):
    root = os.getuid() == 0  # who is exempt from some, and becomes nobody
    done = subprocess.run(
        [sys.executable, "-c", CONFINED.format(tried=tried, drop=root)],
        capture_output=True,
        text=True,
        check=False,
    )
    if root and "os.setuid" in done.stderr:
        pytest.skip("root is exempt from the limits, and may become no other user here")
    assert done.returncode == 1
    assert re.search(error, done.stderr.splitlines()[-1]), done.stderr


def test_a_file_may_be_given_as_part_of_a_buffer():
    data = written(model)
    assert opened(memoryview(b"ab" + data + b"cde")[2:-3]) == opened(data)


# ---- what it finds -------------------------------------------------------------------------------

TEXTS = ["", "gru", "é", "層/1", "\x01\x7f", '"\\', "x" * 300, "\U0001f600"]


def grown(group, rng, depth, attributes, shapes):
    """Fill a group by chance; note what a tree should say of it."""
    path = group.name.strip("/")
    attributes[path] = {}
    for i in range(rng.randrange(4)):
        name = rng.choice(["name", "ñ", "a b"]) + str(i)
        made = [rng.choice(TEXTS) for _ in range(rng.randrange(4))]
        value, text = rng.choice(
            [
                (rng.choice(TEXTS),) * 2,
                (np.array(made, h5py.string_dtype()), made),
                (np.array([one.encode() for one in made] or [b""], "S400"), made or [""]),
                (np.bytes_(b"fixed"), "fixed"),
                (np.array([]), []),
                (np.array([1.0, 2.0]), None),
                (7, None),
                (h5py.Empty("S3"), None),
                (np.array([[b"a", b"b"]]), None),
                (np.zeros(2, [("a", "i4"), ("b", "f8")]), None),
            ]
        )
        group.attrs[name] = value
        if text is not None:
            attributes[path][name] = text
    for i in range(rng.randrange(5)):
        name = rng.choice(["kernel:", "層", "vars "]) + str(i)
        place = f"{path}/{name}" if path else name
        kind = rng.randrange(4)
        if kind == 0 and depth < 6:
            grown(group.create_group(name), rng, depth + 1, attributes, shapes)
        elif kind == 1 and shapes:
            other = rng.choice(sorted(shapes))
            group[name] = group.file[other]
            shapes[place] = shapes[other]
        elif kind == 2:
            group[name] = h5py.Empty("f4")
        else:
            shapes[place] = tuple(rng.randrange(4) for _ in range(rng.randrange(4)))
            group[name] = np.zeros(shapes[place], rng.choice(["f2", ">f4", "f8", "i4", "S5", "V2"]))


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_a_tree_says_what_there_is(version):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(10):
        attributes, shapes = {}, {}
        data = written(lambda file: grown(file["/"], rng, 0, attributes, shapes), libver=version)  # noqa: B023
        assert opened(data) == (attributes, shapes)


@pytest.mark.parametrize("dtype", [None, h5py.string_dtype()])
def test_a_model_of_many_layers_is_read(dtype, tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(written(model, 200, dtype))
    assert len(fastgru.load_all(path)) == 200


def test_numbers_of_every_kind_are_read():
    numbers = np.arange(60.0).reshape(3, 4, 5)
    made = {
        **{dtype: numbers.astype(dtype) for dtype in ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8")},
        "none": np.zeros((0, 3), np.float32),
        "one": np.float32(7),
    }

    def fill(file):
        for name, array in made.items():
            file[name] = array
        file.create_dataset("chunks", data=numbers, chunks=(2, 2, 2), compression="gzip", shuffle=True)
        upper = numbers.astype("<f4").view("<u2")[..., 1::2]
        file["bfloat16"] = np.ascontiguousarray(upper).view("V2")

    data = written(fill)
    with _hdf5.open_tree(data, _model.size_limit(len(data))) as tree:
        for name, array in made.items():
            np.testing.assert_array_equal(tree.floats(name), array)
        for name in ("chunks", "bfloat16"):
            np.testing.assert_array_equal(tree.floats(name), numbers)


# ---- files that mean harm ------------------------------------------------------------------------

# The process by itself: its answers are what it writes, and its peaks of memory come after an error.
MEASURED = """
import os, runpy, sys
status = os.open("/proc/self/status", os.O_RDONLY)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
os.write(2, os.pread(status, 10_000, 0))
"""


def memory_of_process(data, requests=b""):
    """The most bytes that the process has for a file."""
    arguments = map(str, (_hdf5_start.PROGRAM, _hdf5.SECONDS, _model.size_limit(len(data)), len(data)))
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", MEASURED, *arguments],
        input=data + requests,
        capture_output=True,
        env=environment,
        check=True,
    )
    return 1024 * int(re.search(rb"VmHWM:\s+(\d+)", done.stderr)[1])


def memory_of_parent(data):
    """The most bytes that a tree takes to be made, and what came of it."""
    tracemalloc.start()
    try:
        opened(data)
        outcome = "read"
    except fastgru.FormatError as error:
        outcome = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, outcome


LARGER = "its names and attributes are larger than the file can hold"
MEMORY = "memory"


def below_a_long_name(file, count, length):
    group = file.create_group("G" * length)
    for i in range(count):
        group.create_dataset(f"{i}", (1,))


def below_many_names(file, count):
    group = file
    for _ in range(30):
        group = group.create_group("G" * 120)
    for i in range(count):
        group.create_dataset(f"{i}", (1,))


def links_to_one_dataset(file, count):
    file.create_dataset("data", (1,) * 32)
    for i in range(count):
        file[f"{i}"] = file["data"]


def groups_in_two_places(file, count):
    """2 ** 30 paths."""
    group = file
    for _ in range(30):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner
    for i in range(count):
        group.create_group(f"{i}")


def group_in_itself(file, count):
    for i in range(count):
        file.create_group(f"{i}")["root"] = file["/"]


def short_strings(file, count):
    """A letter each takes many times as much as an object."""
    for i in range(count):
        file.create_group(f"{i}").attrs["texts"] = np.array([b"x"] * 60_000)


def control_characters(file, count):
    """Each takes six characters in JSON."""
    for i in range(count):
        file.create_group(f"{i}").attrs["text"] = np.bytes_(b"\x01" * 60_000)


def attributes_of_one_group(file, count):
    for i in range(count):
        file.attrs[f"{i}"] = 0


def objects(file, count):
    for i in range(count):
        file.create_group(f"{i}")


def datasets_of_one_large_type(file, count):
    file["type"] = np.dtype([(f"{i}", "u1") for i in range(400)])
    for i in range(count):
        file.create_dataset(f"{i}", (1,), file["type"])


def attributes_of_one_large_type(file, count):
    file["type"] = np.dtype([(f"{i}", "u1") for i in range(400)])
    space = h5py.h5s.create(h5py.h5s.NULL)
    for i in range(count):
        h5py.h5a.create(file.create_group(f"{i}").id, b"a", file["type"].id, space)


ATTACKS = [
    (below_a_long_name, 1000, 60_000, "a path has more than 4096 characters"),
    (below_a_long_name, 1000, 4000, LARGER),
    (below_many_names, 3000, LARGER),
    (links_to_one_dataset, 10_000, LARGER),
    (groups_in_two_places, 50, "b has another name, too"),
    (group_in_itself, 50, "0 has another name, too"),
    (short_strings, 20, LARGER),
    (control_characters, 10, "read"),
    (attributes_of_one_group, 5000, "a group has more than 256 attributes"),
    (attributes_of_one_group, 128, "read"),
    (objects, 10_000, "read"),
    # HDF5 has many ways to say that it has no memory left
    (datasets_of_one_large_type, 200, "no sound HDF5 file"),
    (attributes_of_one_large_type, 200, "no sound HDF5 file"),
]


@functools.cache
def floor():
    """What the process takes for a file with nothing in it."""
    return memory_of_process(written(lambda file: None))


def assert_in_proportion(make, outcome):
    """A file, and one of twice the size, end as they should and take memory in proportion."""
    child, parent = [], []
    for data in (make(1), make(2)):
        peak, came = memory_of_parent(data)
        assert re.search(outcome, came)
        parent.append(peak)
        child.append(memory_of_process(data) - floor())
        # the file, what it may hold, and the process' margin
        assert child[-1] < len(data) + _model.size_limit(len(data)) + 33 * MEGABYTE
        assert parent[-1] < 4 * _model.size_limit(len(data))
    assert child[1] < 2.2 * child[0] + 4 * MEGABYTE
    assert parent[1] < 2.2 * parent[0] + MEGABYTE


@linux
@pytest.mark.parametrize("version", ["earliest", "latest"])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack[0].__name__}-{attack[1]}")
def test_twice_the_file_takes_twice_the_memory(attack, version):
    fill, count, *more, outcome = attack
    if version == "earliest" and fill is attributes_of_one_group and count > 256:
        count = 1000  # they take more there
    assert_in_proportion(lambda scale: written(fill, scale * count, *more, libver=version), outcome)


def references(data, length):
    """Places of references to strings of a length, which are in the file's heaps."""
    for match in re.finditer(re.escape(struct.pack("<I", length)), data):
        (heap,) = struct.unpack_from("<Q", data, match.end())
        if data[heap : heap + 4] == b"GCOL":
            yield match.start()


def of_one_string(lists, count, length, first):
    """A file with lists of strings that are all one long one."""

    def fill(file):
        file.attrs["text"] = "x" + "y" * (length - 1)
        for i in range(lists):
            file.create_group(f"{i}").attrs["texts"] = np.array(["1234567"] * count, h5py.string_dtype())

    data = bytearray(written(fill).replace(b"xyyy", first + b"yyy"))
    (place,) = references(data, length)
    reference = data[place : place + 16]
    places = list(references(bytes(data), 7))
    assert len(places) == lists * count
    for place in places:
        data[place : place + 16] = reference
    return bytes(data)


@linux
@pytest.mark.parametrize(
    ("lists", "count", "length", "first", "outcome"),
    [
        (1, 4000, 100_000, b"x", MEMORY),  # 400 MB
        (1, 4000, 100_000, b"\0", f"{LARGER}|{MEMORY}"),  # an empty string, after the work
        (100, 1, 100_000, b"x", LARGER),
        (60, 100, 300_000, b"\0", LARGER),
    ],
)
def test_lists_of_one_string_take_memory_in_proportion(lists, count, length, first, outcome):
    def make(scale):
        return of_one_string(lists * scale, count, length, first)

    assert_in_proportion(make, outcome)


def test_a_shape_that_is_larger_than_the_file_is_refused():
    def fill(file):
        file.attrs["texts"] = np.array([b"abc"] * 5)

    data = written(fill)
    five = struct.pack("<Q", 5)
    assert five in data
    for count in (2**20, 2**40, 2**62, 2**64 - 1):
        with pytest.raises(fastgru.FormatError, match="no sound HDF5 file"):
            opened(data.replace(five, struct.pack("<Q", count)))


@pytest.mark.parametrize(
    "layout",
    [
        {"shape": (500, 500), "chunks": (1, 1)},  # each of which takes 4 KB to be looked up
        {"shape": (1, 1), "chunks": (20_000, 20_000), "maxshape": (None, None), "compression": "gzip"},
    ],
)
def test_chunks_that_are_many_or_large_are_refused(layout):
    data = written(lambda file: file.create_dataset("data", dtype="f4", **layout))
    with (
        _hdf5.open_tree(data, _model.size_limit(len(data))) as tree,
        pytest.raises(fastgru.FormatError, match="larger than the file can hold"),
    ):
        tree.floats("data")


def test_a_type_that_says_it_is_a_pointer_is_not_followed():
    def fill(file):
        for size, tag in ((8, b"PYTHON:OBJECT"), (2, b"NUMPY:(3,)f8")):
            kind = h5py.h5t.create(h5py.h5t.OPAQUE, size)
            kind.set_tag(tag)
            space = h5py.h5s.create_simple((3,))
            h5py.h5d.create(file.id, b"%d" % size, kind, space).write(
                space, space, np.full(3 * size, 63, np.uint8).view(f"V{size}"), kind
            )
            h5py.h5a.create(file.id, b"%d" % size, kind, space)

    data = written(fill)
    with _hdf5.open_tree(data, _model.size_limit(len(data))) as tree:
        assert tree.attributes == {"": {}}
        assert tree.shapes == {"8": (3,), "2": (3,)}
        assert (tree.floats("2") == 0.74609375).all()
        with pytest.raises(fastgru.FormatError, match=r"8 must be of float16, .* got \|V8"):
            tree.floats("8")


# ---- a process that a file has taken over --------------------------------------------------------


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Has another program in place of the one that reads: it gets what `_hdf5_start.PROGRAM` would."""

    def set_program(text, ready=True):
        path = tmp_path / "program.py"
        path.write_text(f"print({_hdf5.READY.decode().strip()!r}, flush=True)\n{text}" if ready else text)
        monkeypatch.setattr(_hdf5_start, "PROGRAM", path)
        monkeypatch.setattr(_hdf5, "SECONDS", 1)
        monkeypatch.setattr(_hdf5, "PATIENCE", 1)

    return set_program


def index(attributes=None, datasets=None):
    return {"attributes": {"": {}} if attributes is None else attributes, "datasets": datasets or {}}


@pytest.mark.parametrize(
    "answer",
    [
        *("{", "[}", "null", "7", '"x"', "[]", "{}", "NaN", "\udcff"),
        *("9" * 5000, "[" * 10**5, '{"a":' * 10**5),
        *(json.dumps(index(attributes)) for attributes in ([], 7, {}, {"": []}, {"a": {}})),
        *(json.dumps(index({"": {"a": value}})) for value in (7, None, {}, [7], [["a"]])),
        *(json.dumps(index(None, datasets)) for datasets in ([1], 7, {"a": 7}, {"a": []}, {"a": [[3]]})),
        *(json.dumps(index(None, {"a": [shape, "<f4"]})) for shape in ("3", {}, [-1], [True], [1.0], [[3]])),
        *(json.dumps(index(None, {"a": [[3], dtype]})) for dtype in (None, 4, ["<f4"], {})),
        json.dumps(index()) + " " * 3 * 10**6,
    ],
)
def test_answers_of_another_form_are_refused(answer, program):
    program(f"import sys; sys.stdout.buffer.write({answer.encode(errors='surrogateescape')!r} + b'\\n')")
    with pytest.raises(fastgru.FormatError, match=_hdf5.CRASHED):
        opened(b"")


@pytest.mark.parametrize(
    "dtype", ["<f4,<f4", "O", "M8[s]", "V9999999999", "(1000000000,)<f4", "", "x" * 9999]
)
def test_a_dtype_that_no_weight_has_is_refused(dtype, program):
    program(f"print({json.dumps(index(None, {'a': [[3], dtype]}))!r})")
    with _hdf5.open_tree(b"", MEGABYTE) as tree:
        with pytest.raises(fastgru.FormatError, match="a must be of") as caught:
            tree.floats("a")
        assert len(str(caught.value)) < 200


def test_shapes_that_the_file_cannot_hold_are_refused(program):
    program(f"print({json.dumps(index(None, {'a': [[10**6], '<f4'], 'b': [[10**400] * 9, '<f4']}))!r})")
    with _hdf5.open_tree(b"", MEGABYTE) as tree:
        for path in "ab":
            with pytest.raises(fastgru.FormatError, match="which the file cannot hold"):
                tree.floats(path)


def test_answers_without_an_end_are_read_as_far_as_they_may_go(program):
    program("import sys\nwhile True: sys.stdout.write('x' * 10**6)")
    peak, outcome = memory_of_parent(bytes(10**6))
    assert outcome == _hdf5.CRASHED
    assert peak < 2 * _model.size_limit(10**6)


@pytest.mark.parametrize(
    "end",
    ["import os; os.abort()", "import sys; sys.exit()", "import sys; sys.stdin.close()", "while True: pass"],
)
def test_a_file_that_is_not_read_to_its_end_is_not_written_for_ever(end, program):
    program(end)
    with pytest.raises(fastgru.FormatError, match=_hdf5.CRASHED):
        opened(bytes(10**7))


def test_a_process_without_memory_says_so(program):
    start = f"""
import runpy, sys
main = runpy.run_path({str(_hdf5_start.PROGRAM)!r})["main"]
seconds, limit, size = map(int, sys.argv[1:])
main.__globals__["MARGIN"] = -limit - size
main(seconds, limit, size, sys.stdin.buffer, sys.stdout.buffer)
"""
    program(start, ready=False)
    with pytest.raises(fastgru.FormatError, match="needs more memory than a file of its size may take"):
        opened(bytes(10**8))


# ---- a process that does not start -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("import sys; sys.exit(3)", OSError, "did not start: it said b''"),
        ("print('Usage: app FILE')", OSError, "did not start: it said b'Usage: app FILE"),
        ("while True: pass", OSError, "did not start"),
        ("import os; os.abort()", OSError, "did not start"),
        (
            """print('{"unable": "ImportError: numpy is another"}')""",
            ImportError,
            "h5py cannot be .* numpy is another",
        ),
        ("""print('{"unable": "MemoryError: "}')""", MemoryError, "there is none for the process"),
    ],
)
def test_what_goes_wrong_before_the_file_is_read_is_not_its_fault(text, error, match, program, tmp_path):
    program(text, ready=False)
    path = tmp_path / "model.h5"
    path.write_bytes(written(model))
    with pytest.raises(error, match=match) as caught:
        fastgru.load(path)
    assert not isinstance(caught.value, fastgru.FormatError)


def test_an_h5py_that_cannot_be_imported_is_said(tmp_path, monkeypatch):
    (tmp_path / "model.h5").write_bytes(written(model))
    (tmp_path / "h5py").mkdir()
    (tmp_path / "h5py" / "__init__.py").write_text("raise ImportError('built for another numpy')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="reads HDF5 files: ImportError: built for another numpy"):
        fastgru.load(tmp_path / "model.h5")


# ---- programs that are not Python --------------------------------------------------------------------

# A program that has Python in it: whoever starts it starts all of this again
OTHER = """
import os, sys
from pathlib import Path
path, starts, executable, frozen = sys.argv[1:]
with open(starts, "a") as file:
    file.write("x")
if os.path.getsize(starts) > 1:
    sys.exit("the program was started again")
sys.executable = executable or None
if frozen:
    sys.frozen = True
if frozen == "alone":  # without a Python beside it
    sys.base_exec_prefix = "/nonexistent"
    sys._base_executable = executable
import fastgru
before = set(os.listdir("/proc/self/fd")) if os.path.exists("/proc") else set()
for _ in range(3):
    print(fastgru.load(path))
try:
    fastgru.load(path + ".damaged")
except fastgru.FormatError as error:
    print(str(error).rpartition(": ")[2])
after = set(os.listdir("/proc/self/fd")) if os.path.exists("/proc") else set()
print(len(after) - len(before))
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child is left")
"""


@pytest.mark.parametrize("switch", ["", "here"])
@pytest.mark.parametrize("frozen", ["", "yes", "alone"])
@pytest.mark.parametrize("executable", ["app", "/nonexistent/app", ""])
def test_a_file_is_read_where_the_executable_is_not_python(executable, frozen, switch, tmp_path):
    data = written(model)
    path, starts = tmp_path / "model.h5", tmp_path / "starts"
    path.write_bytes(data)
    (tmp_path / "model.h5.damaged").write_bytes(data[: len(data) // 2])
    program = tmp_path / "other.py"
    program.write_text(OTHER)
    app = tmp_path / "app"
    arguments = [str(path), str(starts), str(app), frozen]
    app.write_text(f"#!/bin/sh\nexec {sys.executable} {program} {' '.join(arguments)}\n")
    app.chmod(0o755)
    if executable != "app":
        arguments[2] = executable
    run = [sys.executable, str(program), *arguments]
    done = subprocess.run(
        run, capture_output=True, text=True, check=False, env=os.environ | {"FASTGRU_HDF5": switch}
    )
    *loaded, damage, files, children = done.stdout.splitlines()
    assert loaded == ["<GRU 'gru_0': 4 features, 3 units, float32>"] * 3, done.stderr
    assert damage
    assert files == "0"
    assert children == "no child is left"
    assert starts.read_text() == "x"


def test_a_fork_hangs_no_longer_than_it_may(tmp_path, monkeypatch):
    monkeypatch.setattr(_hdf5_start, "python", lambda: None)
    monkeypatch.setattr(_hdf5, "SECONDS", 1)
    monkeypatch.setattr(_hdf5, "PATIENCE", 1)
    monkeypatch.setattr(_hdf5_start, "_run", lambda *_, **__: time.sleep(1000))
    with pytest.raises(OSError, match="did not start"):
        opened(written(model))


def test_a_switch_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("FASTGRU_HDF5", "there")
    with pytest.raises(OSError, match="FASTGRU_HDF5 must be here, or not be set, got 'there'"):
        opened(written(model))
