"""What several test files share."""

import gc
import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastgru
from fastgru import _config, _core, _kernels

TENSORFLOW = {"keras", "tensorflow"}  # fixtures
OUTSIDE = {*TENSORFLOW, "engine"}


class Examples:
    """Leave modules of the package alone that have no examples: those of backends import every framework."""

    @staticmethod
    def pytest_ignore_collect(collection_path):
        if collection_path.suffix == ".py" and Path(fastgru.__file__).parent in collection_path.parents:
            return ">>>" not in collection_path.read_text() or None
        return None


def pytest_configure(config):
    """Collect tests in half the time: nearly all that is made then stays."""
    config.pluginmanager.register(Examples())
    gc.disable()


def pytest_collection_finish():
    settle()
    gc.enable()


def settle():
    """Take what is there for what stays: whoever collects garbage then does not look through frameworks."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def settled():
    """What the files before have left or imported stays."""
    settle()


def pytest_collection_modifyitems(items):
    """Mark tests by the fixtures that they ask for, and put those first that a worker should start with.

    Tests on TensorFlow are one group, for one worker alone imports it; each long test is a group of its own.
    """
    for number, item in enumerate(items):
        fixtures = {*getattr(item, "fixturenames", ())}
        if OUTSIDE & fixtures:
            item.add_marker("outside")
        if TENSORFLOW & fixtures:
            item.add_marker(pytest.mark.xdist_group("tensorflow"))
        elif item.get_closest_marker("long"):
            item.add_marker(pytest.mark.xdist_group(f"long-{number}"))
    items.sort(key=start)


def start(item):
    """The place of a test among others: TensorFlow's, then long ones and other groups, then the rest."""
    group = item.get_closest_marker("xdist_group")
    return 2 if group is None else int(group.args[0] != "tensorflow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand each worker a group, or the rest of a file, so that what is made for a file is made once."""
    from xdist.scheduler import LoadGroupScheduling

    class Files(LoadGroupScheduling):
        def _split_scope(self, nodeid):
            return super()._split_scope(nodeid).partition("::")[0]

    return Files(config, log) if config.getoption("dist") == "loadgroup" else None


@pytest.fixture(scope="session")
def keras():
    """The original: tf_keras, imported only when a test asks for it."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tf_keras

    settle()
    return tf_keras


@pytest.fixture(scope="session")
def tensorflow(keras):
    """What the original runs on."""
    import tensorflow

    return tensorflow


@pytest.fixture(params=_kernels.isas())
def isa(request):
    """Every instruction set of this machine in turn."""
    return request.param


CHOICES = [_config.Choice("packed", isa) for isa in _kernels.packed_isas()]
CHOICES += [_config.Choice("blas", isa) for isa in _kernels.isas()]


@pytest.fixture(params=CHOICES, ids="-".join)
def choice(request, monkeypatch):
    """Every engine on every instruction set in turn, for all layers that the test makes."""
    monkeypatch.setattr(_config, "CHOICE", request.param)
    return request.param


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """A function from a compiler and its flags to the engine's object files, made once for all workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def compiled(*command, sources=None):
        sources = sources or fastgru.get_sources()
        command = [*map(str, command), "-ffp-contract=off", f"-I{fastgru.get_include()}", "-c"]
        place = folder / f"engine-{hashlib.sha256(repr([command, sources]).encode()).hexdigest()[:16]}"
        place.mkdir(exist_ok=True)
        objects = [place / f"{Path(source).stem}.o" for source in sources]

        def compile_one(source, target):
            subprocess.run([*command, source, "-o", target], check=True)

        import fcntl  # not on Windows, where no test compiles

        with (place / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not all(path.exists() for path in objects):
                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    list(pool.map(compile_one, sources, objects))
        return objects

    return compiled


def run_plan(plan, x, initial_state, state, out, mask, time_major, go_backwards, zero_output_for_mask):
    """Run a network of one GRU on arrays that are overwritten: `state`, and `out` unless it is None.

    A mask of one axis is lengths.
    """
    last = out is None or out.ndim == 2
    if out is None:
        out = np.empty_like(state)
    lengths, mask = (mask, None) if mask is not None and mask.ndim == 1 else (None, mask)
    settings = {
        "plan": plan, "state": 0, "go_backwards": go_backwards, "zero_output_for_mask": zero_output_for_mask
    }  # fmt: skip
    values = [(x.shape[2], x.dtype, False, 0), (plan.units, x.dtype, last, 0)]
    nodes, states = [("gru", 0, 1, settings)], [(plan.units, x.dtype)]
    network = _core.Network(values, nodes, [1], time_major, False, states=states)
    if not _kernels.rows_are_whole(x):
        x = np.array(x, order="C")
    network.run(x, (initial_state,), (state,), (out,), mask, lengths)
