"""Rows of different lengths: the results of the mask that they stand for, to the last bit."""

import os
import subprocess
import sys
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from conftest import CHOICES
from hypothesis import given, settings
from hypothesis import strategies as st

import fastgru
from fastgru import _config

FLAGS = st.booleans()


def mask_of(lengths, timesteps, time_major=False):
    mask = np.arange(timesteps) < np.reshape(lengths, (-1, 1))
    return mask.T if time_major else mask


def assert_same(found, wanted):
    assert isinstance(found, list) == isinstance(wanted, list)
    for ours, theirs in zip(found, wanted, strict=True) if isinstance(found, list) else [(found, wanted)]:
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@st.composite
def calls(draw):
    """A layer's arguments, inputs, initial state or None, and lengths."""
    batch = draw(st.sampled_from([1, 2, 3, 5, 8, 31, 33, 70]))
    timesteps, features, units = draw(st.integers(1, 20)), draw(st.integers(0, 9)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    flags = ["reset_after", "go_backwards", "zero_output_for_mask", "time_major"]
    arguments = {name: draw(FLAGS) for name in [*flags, "return_sequences", "return_state"]}
    arguments |= {"units": units, "dtype": draw(st.sampled_from(["float32", "float64", "float16"]))}
    lengths = draw(st.sampled_from([rng.integers(0, timesteps, batch, endpoint=True)] * 3 + [
        np.zeros(batch, int), np.full(batch, timesteps)]))  # fmt: skip
    shape = (timesteps, batch) if arguments["time_major"] else (batch, timesteps)
    x = rng.normal(size=(*shape, features)).astype(arguments["dtype"])
    x[~mask_of(lengths, timesteps, arguments["time_major"])] = draw(st.sampled_from([0, np.nan]))
    state = rng.normal(size=(batch, units)).astype(arguments["dtype"]) if draw(FLAGS) else None
    return arguments, x, state, lengths


@settings(deadline=None)
@given(call=calls(), both=FLAGS)
def test_lengths_give_what_their_mask_gives(call, both):
    arguments, x, state, lengths = call
    mask = mask_of(lengths, x.shape[0 if arguments["time_major"] else 1], arguments["time_major"])
    for choice in CHOICES:
        with mock.patch.object(_config, "CHOICE", choice):
            layer = fastgru.GRU(**arguments)
            if both:
                layer = fastgru.Bidirectional(layer)
                state = state if state is None or isinstance(state, list) else [state, -state]
            wanted = layer(x, initial_state=state, mask=mask)
        assert_same(layer(x, initial_state=state, lengths=lengths), wanted)


@pytest.mark.large
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("reset_after", [False, True])
def test_lengths_of_rows_that_wait_for_many_weights(choice, reset_after, go_backwards):
    layer = fastgru.GRU(1100, reset_after=reset_after, go_backwards=go_backwards, return_sequences=True)
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(13, 20, 3)).astype("f4"), rng.integers(0, 21, 13)
    wanted = layer(x, mask=mask_of(lengths, 20, False))
    assert_same(layer(x, lengths=lengths), wanted)


def test_python_activations_and_dropout_take_lengths(choice):
    x, lengths = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("f4"), [5, 0, 2, 4]
    layer = fastgru.GRU(3, activation=np.tanh, return_sequences=True)
    np.testing.assert_array_equal(layer(x, lengths=lengths), layer(x, mask=mask_of(lengths, 5)))
    layer = fastgru.GRU(3, dropout=0.5, return_sequences=True)
    assert not layer(x, training=True, lengths=[0] * 4).any()


def test_a_stateful_layer_goes_on_from_where_each_row_ended(choice):
    rng = np.random.default_rng(1)
    x, lengths = rng.normal(size=(3, 4, 2)).astype("f4"), np.array([4, 0, 2])
    layer = fastgru.GRU(5, stateful=True, batch_input_shape=(3, None, 2))
    layer.build()
    other = fastgru.GRU.from_config(layer.get_config())
    other.build()
    other.set_weights(layer.get_weights())
    for _ in range(3):
        np.testing.assert_array_equal(layer(x, lengths=lengths), other(x, mask=mask_of(lengths, 4)))
        np.testing.assert_array_equal(layer.states[0], other.states[0])
    assert not layer.states[0][1].any()


def test_lengths_write_into_out(choice):
    x, lengths = np.random.default_rng(2).normal(size=(3, 4, 2)).astype("f4"), [1, 4, 3]
    layer = fastgru.GRU(5, return_sequences=True, time_major=False)
    wanted, out = layer(x, lengths=lengths), np.full((3, 4, 5), 7, "f4")
    assert layer(x, lengths=lengths, out=out) is out
    np.testing.assert_array_equal(out, wanted)
    assert layer.call(x, lengths=lengths).tolist() == wanted.tolist()


def test_an_empty_batch_has_no_lengths(choice):
    assert fastgru.GRU(3)(np.zeros((0, 4, 2), "f4"), lengths=[]).shape == (0, 3)


WRONG = {
    "negative": ([1, -1], "lengths must lie between 0 and the 3 timesteps, got -1 to 1"),
    "beyond": ([4, 1], "lengths must lie between 0 and the 3 timesteps, got 1 to 4"),
    "huge": (np.array([2**64 - 1, 1], np.uint64), "lengths must lie between"),
    "negative array": (np.array([1, -1]), "lengths must lie between 0 and the 3 timesteps, got -1 to 1"),
    "array beyond": (np.array([4, 1]), "lengths must lie between 0 and the 3 timesteps, got 1 to 4"),
    "few": ([1], r"lengths must have shape \(2,\), one for each row, got \(1,\)"),
    "many": ([[1, 2]], r"lengths must have shape \(2,\), one for each row, got \(1, 2\)"),
    "one": (3, r"lengths must have shape \(2,\)"),
    "floats": ([1.0, 2.0], "lengths must be integers, got float64"),
    "bools": ([True, False], "lengths must be integers, got bool"),
    "texts": (["1", "2"], "lengths must be integers, got <U1"),
    "ragged": ([[1], [1, 2]], r"lengths must have shape \(2,\)"),
}


@pytest.mark.parametrize(("lengths", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("both", [False, True])
def test_wrong_lengths_are_refused(both, lengths, message):
    layer = fastgru.GRU(3)
    layer = fastgru.Bidirectional(layer) if both else layer
    with pytest.raises(ValueError, match=message):
        layer(np.zeros((2, 3, 4), "f4"), lengths=lengths)
    with pytest.raises(ValueError, match="lengths must be given without a mask, got both"):
        layer(np.zeros((2, 3, 4), "f4"), lengths=[1, 2], mask=np.ones((2, 3), bool))


# ---- any number of timesteps -----------------------------------------------------------------------

ENGINES = {choice.engine: choice for choice in reversed(CHOICES)}  # with the best instruction set of each

# The inputs are views of one element and take no memory. The size of a table with 8 bytes for each of
# 2**61 - 1 timesteps overflows.
LONG = """
import resource, sys
import numpy as np
from fastgru import GRU, Bidirectional, Stack, _config

used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
resource.setrlimit(resource.RLIMIT_CPU, (used + 20, used + 20))  # ends what would go through all timesteps
_config.CHOICE = _config.Choice(*sys.argv[1:3])
layer = eval(sys.argv[3])
layer.build((1, None, 1))
for timesteps in (2**40, 2**61 - 1):
    for x in np.ones((1, 8, 1), np.float32), np.broadcast_to(np.float32(1), (1, timesteps, 1)):
        x = x.swapaxes(0, 1) if layer.time_major else x
        try:
            found = np.asarray(layer(x, lengths=np.array([5]))).tolist()
        except (MemoryError, ValueError):
            assert x.size > 8
            continue
        wanted = found if x.size == 8 else wanted
        assert found == wanted
print("done")
"""
LAYERS = {
    "GRU": "GRU(3)",
    "backwards": "GRU(3, go_backwards=True)",
    "time-major": "GRU(3, time_major=True)",
    "sequences": "GRU(3, return_sequences=True)",
    "states": "GRU(3, return_state=True)",
    "Bidirectional": "Bidirectional(GRU(3))",
    "Stack": "Stack([GRU(2, return_sequences=True), GRU(3)])",
}


@pytest.mark.outside
@pytest.mark.skipif(sys.platform == "win32", reason="limits the time of a process as Unix has it")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("engine", ENGINES)
def test_lengths_of_more_timesteps_than_memory_holds_are_right_or_refused(engine, name):
    command = [sys.executable, "-c", LONG, *ENGINES[engine], LAYERS[name]]
    sanitizers = (
        f"{os.environ.get('ASAN_OPTIONS', '')}:allocator_may_return_null=1"  # as the C library's does
    )
    environment = os.environ | {"ASAN_OPTIONS": sanitizers}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert run.stdout == "done\n", (run.returncode, run.stderr)


MANY = {
    "GRU": lambda: fastgru.GRU(1, input_shape=(None, 1)),
    "Bidirectional": lambda: fastgru.Bidirectional(fastgru.GRU(1), input_shape=(None, 1)),
    "Stack": lambda: fastgru.Stack([fastgru.GRU(1, return_sequences=True), fastgru.GRU(1)]),
}


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_memory_of_a_call_with_lengths_does_not_grow_with_timesteps(monkeypatch, engine, name):
    monkeypatch.setattr(_config, "CHOICE", ENGINES[engine])
    layer = MANY[name]()
    layer.build((1, None, 1))
    layer(np.zeros((1, 8, 1), np.float32), lengths=np.array([5]))
    x = np.broadcast_to(np.float32(0), (1, 5_000_000, 1))
    tracemalloc.start()
    layer(x, lengths=np.array([5]))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 4 << 20
    assert peak < 4 << 20


@pytest.mark.parametrize("zeros", [False, True])
def test_the_last_output_of_a_stack_is_that_of_the_last_timestep(choice, zeros):
    # though no row has that many, so that not all of them are run through
    layers = [fastgru.GRU(3, return_sequences=True), fastgru.GRU(4, zero_output_for_mask=zeros)]
    layer = fastgru.Stack(layers)
    x = np.random.default_rng(0).normal(size=(3, 40, 2)).astype(np.float32)
    lengths = np.array([5, 0, 9])
    by_lengths = layer(x, lengths=lengths)
    np.testing.assert_array_equal(by_lengths, layer(x, mask=np.arange(40) < lengths[:, np.newaxis]))
    assert by_lengths.any() != zeros
