"""Judges files in confined processes: a layer or a FormatError, in little memory and time, and nothing else.

As a program it judges files that are there, and writes a line of JSON for each:

    python tests/formats/hostile/judging.py '{}' FILE...

The first argument has those of `fastgru.load_all` as JSON.
"""

import codecs
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import fastgru
from fastgru.formats import _hdf5, _hdf5_start

ADDRESS_SPACE = 256 << 20  # bytes besides what a process has
SECONDS = 20  # of processor time for one file, besides those of HDF5's own process
PATIENCE = 120  # seconds on the clock, for a machine that is busy
HDF5_SECONDS = 2
NEEDED = (
    "h5py",
    "onnx",
    "onnx.reference.ops._op_list",
    "fastgru.formats.models",
)  # what readers and generators import, before there is no memory for it
FORBIDDEN = ("torch", "safetensors", "keras", "tf_keras", "tensorflow")  # what no reader needs
# What Python has in a file of its own: for names in archives
CODECS = ("cp437",)

# Memory that it may take to load a file and to call each of its layers: so many times the file and, by the
# ending of its name, so many bytes besides. Measured were up to 5.8 MB of these, which readers allow to files
# of any size, some of it twice for a moment; and 89 MB for ONNX, whose weights may lie in other files.
TIMES = 8
BESIDES = {"": 8 << 20, ".onnx": 96 << 20}
LAYER = 8 << 10  # bytes of a layer, besides its weights as Keras keeps them, a copy of these, and packed

# ---- confinement -----------------------------------------------------------------------------


def prepare():
    """Import what reading takes, make the libraries that no reader needs unimportable, warm up."""
    _hdf5.SECONDS = HDF5_SECONDS
    for module in NEEDED:
        importlib.import_module(module)
    for module in FORBIDDEN:
        assert sys.modules.get(module) is None, f"{module} has been imported already"
        sys.modules[module] = None
    for codec in CODECS:
        codecs.lookup(codec)
    layer = fastgru.GRU(3)
    layer(np.zeros((1, 2, 2), np.float32))  # loads the engine's tables


def confine():
    """Let this process take little more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESS_SPACE,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", UserWarning)  # which are ours
    gc.freeze()  # so that to collect what files leave behind is quick


def limit_time():
    """Let the next file take little time: the process ends after that."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + SECONDS, hard))
    signal.alarm(PATIENCE)


class KeptOpen:
    """Opens HDF5 files as `_hdf5.open_tree` does, but keeps the processes that have read the last ones.

    For archives that have one of a few in them: to start a process takes a hundred times as long as all else.
    """

    def __init__(self):
        self._open = _hdf5.open_tree
        self._kept = {}  # by content: what closes it, the open file, and since when

    @contextlib.contextmanager
    def __call__(self, data, limit):
        stack, tree, begun = self._kept.get(data, (None, None, 0.0))
        if stack is None or time.monotonic() > begun + KEPT:
            if stack is not None:
                stack.close()
            stack, begun = contextlib.ExitStack(), time.monotonic()
            tree = stack.enter_context(self._open(data, limit))
        tree._left = limit  # bytes that datasets may have
        self._kept[data] = stack, tree, begun
        yield tree


KEPT = 5  # seconds, which is less than such a process is given

# ---- memory ----------------------------------------------------------------------------------


class Memory:
    """Bytes that this process takes at most from here on, besides those that it has."""

    def __init__(self):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # forget the highest number so far
        self._before = self._read("VmRSS")

    @staticmethod
    def _read(key):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) << 10

    def peak(self):
        return self._read("VmHWM") - self._before


# ---- what else a process does ----------------------------------------------------------------


class Watch:
    """Notes Python's audit events: what this process opens, runs, imports and the like.

    A process should have one, which it keeps: audit hooks cannot be taken away.
    """

    def __init__(self):
        self._events = []
        self._on = False
        sys.addaudithook(self._note)

    def _note(self, event, arguments):
        if self._on and event != "builtins.id":  # a million of them fill memory
            self._events.append((event, arguments))

    @contextlib.contextmanager
    def over(self, files):
        """Complain if something is done in this context that reading such files does not take."""
        self._events.clear()
        self._on = True
        try:
            yield
        finally:
            self._on = False
        hdf5 = any(is_hdf5_process(*event) for event in self._events)
        for event, arguments in self._events:
            if not is_expected(event, arguments, files, hdf5):
                raise AssertionError(f"it has done {event} {arguments!r:.300}")


def is_hdf5_process(event, arguments):
    """True of the audit event that the process which reads HDF5 files is started."""
    match event, arguments:
        case "subprocess.Popen", (sys.executable, [sys.executable, "-P", program, *_], _, _):
            return program == str(_hdf5_start.PROGRAM)
    return False


def is_expected(event, arguments, files, hdf5):
    """True of an audit event that reading these files takes.

    Parameters
    ----------
    event : str
    arguments : tuple
    files : set of Path
    hdf5 : bool
        Whether the process that reads HDF5 files has been started, which is ended by a signal.
    """
    folders = {file.parent for file in files}
    match event, arguments:
        case "open", (int(), _, _):  # what is open already
            return True
        case "open", (str(path), _, flags):
            reading = not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            folder = Path(path).parent
            missing = folder in folders and Path(path) not in folder.iterdir()
            return (reading and (Path(path) in files or missing)) or (hdf5 and path == os.devnull)
        case "os.scandir", (str() | os.PathLike() as folder,):  # of shards of TensorFlow.js
            return Path(folder) in folders
        case "os.kill", (_, signal.SIGKILL):
            return hdf5
        case "_thread.start_new_thread" | "_thread.start_joinable_thread", _:  # of Python 3.12 and later
            return hdf5
    return is_hdf5_process(event, arguments)


# ---- judgement -------------------------------------------------------------------------------


def held(layers):
    """Bytes that layers take, which docs/reference/formats.md counts besides those of reading them."""
    parts = [part for layer in layers for part in layer._parts]
    weights = sum(array.nbytes for part in parts for array in part.weights)
    packed = sum(getattr(part._plan, "nbytes", 0) for part in parts)
    return LAYER * len(parts) + 2 * weights + packed


def judge(path, arguments):
    """What becomes of a file, "loaded" or the message of a FormatError, and bytes that its layers take."""
    if path.suffix == ".onnx":
        judge_model(path)
    try:
        layers = list(fastgru.load_all(path, **arguments).values())
        if len(layers) > 1:
            layers += whole(path, arguments)
    except fastgru.FormatError as error:
        if not str(error).startswith(f"{path}: "):
            raise AssertionError(f"the message does not begin with the path: {error}") from error
        return str(error).removeprefix(f"{path}: "), 0
    assert layers
    for layer in layers:
        check(layer)
    return "loaded", held(layers)


def judge_model(path):
    """Load a file as a whole model: it is one, or the error names the file."""
    try:
        model = fastgru.load_model(path)
    except fastgru.FormatError as error:
        if not str(error).startswith(f"{path}: "):
            raise AssertionError(f"the message does not begin with the path: {error}") from error
        return
    assert model.outputs


def whole(path, arguments):
    """The layer that a file of several layers is as a whole, if it is one."""
    try:
        return [fastgru.load(path, **arguments)]
    except fastgru.FormatError:
        raise
    except ValueError as error:
        if not str(error).startswith("layer must be one of "):
            raise AssertionError(f"the message does not name the layers: {error}") from error
    return []


def check(layer):
    """Call a layer on zeros, whose weights must be finite."""
    assert all(np.isfinite(weight).all() for weight in layer.weights)
    one, *_ = parts = layer._parts
    features = one.weights[0].shape[0]
    batch = max(1 if part.default_state is None else len(part.default_state) for part in parts)
    shape = (2, batch, features) if one.time_major else (batch, 2, features)
    layer(np.zeros(shape, layer.dtype))


def judge_confined(watch, paths, arguments):
    """As `judge`, of a file and others beside it; an AssertionError if it does what it must not.

    Returns
    -------
    str
        What becomes of it.
    int
        Bytes that it takes besides those in proportion to the file.
    """
    memory = Memory()
    limit_time()
    with watch.over(set(paths)):
        outcome, layers = judge(paths[0], arguments)
    size = sum(path.stat().st_size for path in paths)
    taken = memory.peak() - layers - TIMES * size
    if taken > BESIDES.get(paths[0].suffix, BESIDES[""]):
        raise AssertionError(f"it takes {taken} bytes besides {TIMES} times {size}: {outcome}")
    return outcome, max(0, taken)


def judged(*paths, arguments=None):
    """What becomes of files, judged by this file as a program."""
    run = [sys.executable, __file__, json.dumps(arguments or {}), *map(str, paths)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def main(arguments, *paths):
    prepare()
    watch = Watch()
    confine()
    for path in map(Path, paths):
        data = path.with_name("data")
        beside = [data] if data.exists() else []
        outcome, _ = judge_confined(watch, [path, *beside], json.loads(arguments))
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
