"""What several test files share."""

import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastgru
from fastgru import _config, _core, _kernels

OUTSIDE = {"keras", "tensorflow", "engine"}  # fixtures


def pytest_collection_modifyitems(items):
    """Mark the tests that `make check` leaves out by what they ask for."""
    for item in items:
        if OUTSIDE & {*getattr(item, "fixturenames", ())}:
            item.add_marker("outside")


@pytest.fixture(scope="session")
def keras():
    """The original: tf_keras, imported only when a test asks for it."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tf_keras

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
