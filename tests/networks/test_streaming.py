"""One step at a time: the bits of one call over the whole sequence, whatever happens between the steps."""

import array
import copy
import gc
import itertools
import pickle
import sys
import threading
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from conftest import CHOICES
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import fastgru
from fastgru import _config, _kernels

FEATURES = 3
PACKED = [choice for choice in CHOICES if choice.engine == "packed"]
TOLERANCE = {"float64": 1e-13, "float32": 1e-6, "float16": 2e-3}


def made(units=7, features=FEATURES, **arguments):
    """A layer with weights that are not zero anywhere; it returns all outputs and the state."""
    layer = fastgru.GRU(units, return_sequences=True, return_state=True, **arguments)
    layer.build((None, None, features))
    rng = np.random.default_rng(units)
    layer.set_weights([rng.normal(size=w.shape) / w.shape[0] ** 0.5 for w in layer.get_weights()])
    return layer


def inputs(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def assert_same(found, wanted, choice):
    """To the last bit on packed weights; BLAS adds up differently with the number of rows."""
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    if choice.engine == "packed":
        np.testing.assert_array_equal(found, wanted)
    else:
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE[found.dtype.name])


LAYERS = {
    "reset before": {},
    "reset after": {"reset_after": True},
    "sigmoid": {"recurrent_activation": "sigmoid", "units": 40},
    "no bias": {"use_bias": False},
    "float64": {"dtype": "float64"},
    "float16": {"dtype": "float16"},
    "float16 weights": {"weights_dtype": "float16", "reset_after": True},
    "Python": {"activation": lambda x: x / (1 + abs(x))},
    "Python, float16": {"recurrent_activation": lambda x: 1 / (1 + np.exp(-x)), "dtype": "float16"},
    "PReLU": {"activation": fastgru.activations.PReLU("uniform")},
    "time-major": {"time_major": True},
    "default state": {"default_state": np.linspace(-1, 1, 7)},
    "stateful": {"stateful": True, "batch_input_shape": (3, None, FEATURES)},
    "other flags": {"zero_output_for_mask": True, "dropout": 0.5, "activity_regularizer": "l2"},
    "no features": {"features": 0},
}


def one_of_layers(choice, arguments):
    """The layer without a recorded state, its features, and whether it is to have one later."""
    if "weights_dtype" in arguments and choice.isa not in _kernels.float16_isas():
        pytest.skip("the CPU converts no float16")
    plain = {name: value for name, value in arguments.items() if name != "stateful"}
    return made(**plain), arguments.get("features", FEATURES), "stateful" in arguments


@pytest.mark.parametrize("arguments", LAYERS.values(), ids=LAYERS)
def test_a_stream_gives_what_one_call_gives(choice, arguments):
    layer, features, stateful = one_of_layers(choice, arguments)
    x = inputs(3, 12, features, dtype=layer.dtype)

    def turned(array):
        return array.swapaxes(0, 1) if layer.time_major and array.ndim == 3 else array

    wanted, last = layer(turned(x))
    wanted = turned(wanted)
    layer.stateful = stateful
    stream, out = layer.stream(3), np.empty((3, layer.units), layer.dtype)
    for steps in (0, 1, slice(2, 6), slice(6, 6), 6, slice(7, 11), 11):
        found = stream(turned(x[:, steps]), out if steps == 1 else None)
        assert_same(turned(found), wanted[:, steps], choice)
    assert stream.state.dtype == ("float64" if layer.dtype == "float64" else "float32")
    assert_same(stream.state.astype(layer.dtype), last, choice)


@pytest.mark.parametrize("units", [1, 33])
def test_batches_of_any_size_are_streamed(choice, units):
    layer = made(units, reset_after=units == 33)
    x = inputs(200, 3, FEATURES)
    wanted, last = layer(x)
    for batch in range(1, 201):
        stream = layer.stream(batch)
        assert stream.batch == batch
        assert_same(stream(x[:batch, 0]), wanted[:batch, 0], choice)
        assert_same(stream(x[:batch, 1:]), wanted[:batch, 1:], choice)
        assert_same(stream.state, last[:batch], choice)


@pytest.mark.parametrize("size", [2**31, 2**70])
def test_sizes_that_no_array_has_are_named(size):
    layer = made()
    with pytest.raises(ValueError, match=rf"batch must be at most 2147483647, got {size}"):
        layer.stream(size)
    with pytest.raises(ValueError, match=rf"capacity must be at most 2147483647, got {size}"):
        fastgru.StreamPool(layer, size)


def test_a_chunk_longer_than_its_blocks_is_run_whole(choice):
    layer = made(64, 1)
    x = inputs(2, 5000, 1)
    wanted, last = layer(x)
    stream, out = layer.stream(2), np.empty_like(wanted)
    assert stream(x, out) is out
    assert_same(out, wanted, choice)
    assert_same(stream.state, last, choice)


# ---- arrays of every kind ------------------------------------------------------------------


class Subclass(np.ndarray):
    """An array that says nothing true of itself."""

    @property
    def shape(self):
        return (0,)


def unaligned(x):
    memory = np.empty(x.nbytes + 1, np.uint8)
    view = memory[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "contiguous": lambda x: x.copy(),
    "rows apart": lambda x: np.repeat(x, 2, axis=0)[::2],
    "rows backwards": lambda x: x[::-1].copy()[::-1],
    "between others": lambda x: np.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 2)])[..., 1:-2],
    "features apart": lambda x: np.repeat(x, 3, axis=-1)[..., ::3],
    "features backwards": lambda x: x[..., ::-1].copy()[..., ::-1],
    "Fortran": np.asfortranarray,
    "unaligned": unaligned,
    "subclass": lambda x: x.copy().view(Subclass),
}
READABLE = LAYOUTS | {
    "read-only": read_only,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "float64": lambda x: x.astype("float64"),
    "longdouble": lambda x: x.astype(np.longdouble),
    "a buffer": memoryview,
}


@pytest.mark.parametrize("layout", READABLE)
def test_inputs_are_read_however_they_lie(choice, layout):
    layer, lay = made(features=4), READABLE[layout]
    x = inputs(6, 5, 4)
    wanted, _ = layer(x)
    stream, pool = layer.stream(6), fastgru.StreamPool(layer, 6)
    slots = [pool.open() for _ in range(6)]
    assert_same(stream(lay(x[:, 0])), wanted[:, 0], choice)
    assert_same(stream(lay(x[:, 1:4])), wanted[:, 1:4], choice)
    assert_same(stream(lay(x[:, 4])), wanted[:, 4], choice)
    assert_same(pool.step(slots, lay(x[:, 0])), wanted[:, 0], choice)
    assert_same(pool.step(np.array(slots), lay(x[:, 1])), wanted[:, 1], choice)


def test_one_row_may_be_every_row(choice):
    layer = made()
    x, stream = inputs(1, FEATURES), layer.stream(5)
    wanted, _ = layer(np.repeat(x, 5, axis=0)[:, np.newaxis])
    assert_same(stream(np.broadcast_to(x, (5, FEATURES))), wanted[:, 0], choice)


@pytest.mark.parametrize("arguments", [{}, {"activation": np.tanh}, {"dtype": "float16"}])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_are_written_however_they_lie(choice, layout, arguments):
    layer = made(**arguments)
    x = inputs(6, 4, FEATURES, dtype=layer.dtype)
    stream, pool = layer.stream(6), fastgru.StreamPool(layer, 6)
    slots = np.array([pool.open() for _ in range(6)])
    for step in (x[:, 0], x[:, 1], x[:, 1:3]):
        wanted = stream.copy()(step)
        out = LAYOUTS[layout](np.full_like(wanted, 7))
        base = out if out.base is None else out.base
        others = np.count_nonzero(np.asarray(base) == 7) - out.size if base.dtype == out.dtype else None
        assert stream(step, out=out) is out
        assert_same(np.asarray(out), wanted, choice)
        if others is not None:
            assert np.count_nonzero(np.asarray(base) == 7) == others
        if step.ndim == 2:
            out = LAYOUTS[layout](np.full_like(wanted, 7))
            assert pool.step(slots, step, out=out) is out
            assert_same(np.asarray(out), wanted, choice)


@pytest.mark.parametrize("arguments", [{}, {"activation": np.tanh}])
def test_outputs_may_overlap_what_the_step_reads(choice, arguments):
    layer = made(4, 4, **arguments)
    x = inputs(3, 4, 4)
    stream, pool = layer.stream(3), fastgru.StreamPool(layer, 3)
    slots = np.array([pool.open() for _ in range(3)])
    buffer = stream(x[:, 0])
    pool.step(slots, x[:, 0])
    wanted = stream.copy()(x[:, 1])
    shifted = np.zeros((5, 4), "f4")
    shifted[1:4] = x[:, 1]
    for given, out in ((x[:, 1].copy(), None), (shifted[1:4], shifted[:3])):
        other = stream.copy()
        assert_same(other(given.copy(), out), wanted, choice)
    for given in (x[:, 1].copy(), x[:, 1].copy()):
        assert_same(stream.copy()(given, given), wanted, choice)
    given = x[:, 1].copy()
    assert_same(pool.step(slots, given, given), wanted, choice)
    twin = stream.copy()
    assert stream(x[:, 1], buffer) is buffer  # its own
    assert_same(buffer, wanted, choice)
    assert stream(buffer) is buffer  # an output that is the next input
    assert_same(buffer, twin(twin(x[:, 1])), choice)


# ---- the buffer ----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"activation": np.tanh}, {"dtype": "float16"}])
def test_the_output_of_steps_is_one_array(choice, arguments):
    layer = made(**arguments)
    x, stream = inputs(2, 3, FEATURES, dtype=layer.dtype), layer.stream(2)
    first = stream(x[:, 0])
    before = first.copy()
    assert first.base is not None  # no one can resize a view
    assert first.dtype == layer.dtype
    assert stream(x[:, 1], np.empty_like(first)) is not first
    np.testing.assert_array_equal(first, before)
    assert stream(x[:, 1:]) is not first
    np.testing.assert_array_equal(first, before)
    assert stream(x[:, 1].astype("float64")) is first
    assert (first != before).any()
    with pytest.raises(ValueError, match="does not own its data"):
        first.resize((5, 5), refcheck=False)
    last = first.copy()
    del stream
    gc.collect()
    np.testing.assert_array_equal(first, last)


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # of NumPy 2.5
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_a_step_survives_that_its_output_was_given_another_shape(choice, shape):
    layer = made(1)
    x = inputs(1, 3, FEATURES)
    wanted, _ = layer(x)
    stream = layer.stream()
    stream(x[:, 0]).shape = shape
    assert_same(stream(x[:, 1]).reshape(1, 1), wanted[:, 1], choice)
    stream(x[:, 1].astype("float64"))  # the long way
    del stream


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # of NumPy 2.5
def test_a_step_that_cannot_write_does_not_move_the_state():
    stream = made(2, activation=np.tanh).stream(2)
    stream(np.ones((2, FEATURES), "f4")).shape = (4,)
    state = stream.state
    with pytest.raises(ValueError, match="broadcast"):
        stream(np.ones((2, FEATURES), "f4"))
    np.testing.assert_array_equal(stream.state, state)


# ---- state ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"activation": np.tanh}, {"dtype": "float64"}])
def test_states_are_copies(choice, arguments):
    layer = made(**arguments)
    x = inputs(2, 6, FEATURES, dtype=layer.dtype)
    stream = layer.stream(2)
    stream(x[:, 0])
    state, kept = stream.state, stream.state
    state[...] = 9
    np.testing.assert_array_equal(stream.state, kept)
    stream.state = state
    state[...] = 8
    assert (stream.state == 9).all()
    stream.state = kept
    other = stream.copy()
    assert type(other) is fastgru.Stream
    wanted = [stream(x[:, t]).copy() for t in range(1, 6)]
    np.testing.assert_array_equal(other.state, kept)
    for t in range(1, 6):
        assert_same(other(x[:, t]), wanted[t - 1], choice)
    assert other(x[:, 0]) is not stream(x[:, 0])


@pytest.mark.parametrize("layout", READABLE)
def test_states_are_taken_however_they_lie(layout):
    layer, lay = made(), READABLE[layout]
    stream, pool = layer.stream(4), fastgru.StreamPool(layer, 1)
    state = inputs(4, 7)
    stream.state = lay(state)
    np.testing.assert_array_equal(stream.state, state)
    slot = pool.open(lay(state[1]))
    np.testing.assert_array_equal(pool.state(slot), state[1])


@pytest.mark.parametrize("default_state", [None, np.arange(7) / 7, np.arange(35).reshape(5, 7) / 35])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_rows_are_reset_alone(choice, default_state, steps):
    layer = made(default_state=default_state)
    stream, x = layer.stream(5), inputs(5, 4, FEATURES)
    first = np.zeros((5, 7), "f4") if default_state is None else np.empty((5, 7), "f4")
    if default_state is not None:
        first[...] = default_state
    np.testing.assert_array_equal(stream.state, first)
    every = range(5)
    for rows in (0, 4, np.int8(2), [1, 3], (2,), [], np.array([4, 0, 4], np.uint64), range(2), None):
        for t in range(steps):
            stream(x[:, t])
        wanted = stream.state
        assert stream.reset(rows) is None
        chosen = list(every if rows is None else np.atleast_1d(np.asarray(rows, int)))
        wanted[chosen] = first[chosen]
        np.testing.assert_array_equal(stream.state, wanted)


def test_a_stream_keeps_the_weights_that_it_was_made_with(choice):
    for arguments in ({}, {"activation": np.tanh}, {"activation": fastgru.activations.PReLU("ones")}):
        layer = made(**arguments)
        x = inputs(2, 5, FEATURES)
        wanted, _ = layer(x)
        stream, pool = layer.stream(2), fastgru.StreamPool(layer, 2)
        slots = [pool.open(), pool.open()]
        layer.set_weights([w * 2 for w in layer.get_weights()])
        layer.time_major = True
        assert_same(stream(x[:, 0]), wanted[:, 0], choice)
        assert_same(stream.copy()(x[:, 1:]), wanted[:, 1:], choice)
        assert_same(pool.step(slots, x[:, 0]), wanted[:, 0], choice)
        del layer
        gc.collect()
        assert_same(stream(x[:, 1]), wanted[:, 1], choice)
        assert_same(pool.step(slots, x[:, 1]), wanted[:, 1], choice)


# ---- what is refused -----------------------------------------------------------------------

F = np.zeros((2, FEATURES), "f4")
WRONG_CALLS = {
    "nothing": ((None,), TypeError, "x must be an array, got NoneType"),
    "a list": ((F.tolist(),), TypeError, "x must be an array, got list"),
    "integers": ((F.astype(int),), TypeError, "x must be an array of float32, got int64: cast it"),
    "bools": ((F > 0,), TypeError, "x must be an array of float32, got bool"),
    "complex": ((F.astype(complex),), TypeError, "x must be an array of float32, got complex128"),
    "objects": ((F.astype(object),), TypeError, "x must be an array of float32, got object"),
    "rank 0": ((F[0, 0, ...],), ValueError, r"x must have shape \(2, 3\) or \(2, timesteps, 3\), got \(\)"),
    "rank 1": ((F[0],), ValueError, r"x must have shape .*, got \(3,\)"),
    "rank 4": ((F[np.newaxis, np.newaxis],), ValueError, r"x must have shape .*, got \(1, 1, 2, 3\)"),
    "few rows": ((F[:1],), ValueError, r"x must have shape .*, got \(1, 3\)"),
    "no rows": ((F[:0],), ValueError, r"x must have shape .*, got \(0, 3\)"),
    "rows of a chunk": ((np.zeros((3, 4, 3), "f4"),), ValueError, r"x must have shape .*, got \(3, 4, 3\)"),
    "features": ((F[:, :2],), ValueError, r"x must have shape .*, got \(2, 2\)"),
    "features of a chunk": (
        (np.zeros((2, 4, 2), "f4"),),
        ValueError,
        r"x must have shape .*, got \(2, 4, 2\)",
    ),
    "out as a list": ((F, [[0.0] * 7] * 2), TypeError, "out must be a NumPy array, got list"),
    "out of doubles": ((F, np.zeros((2, 7))), ValueError, "out must have dtype float32, got float64"),
    "out byte-swapped": ((F, np.zeros((2, 7), ">f4")), ValueError, "out must have dtype float32, got >f4"),
    "out wide": ((F, np.zeros((2, 8), "f4")), ValueError, r"out must have shape \(2, 7\), got \(2, 8\)"),
    "out flat": ((F, np.zeros(14, "f4")), ValueError, r"out must have shape \(2, 7\), got \(14,\)"),
    "out read-only": ((F, read_only(np.zeros((2, 7), "f4"))), ValueError, "out must be writeable"),
    "out of a chunk": (
        (np.zeros((2, 4, 3), "f4"), np.zeros((2, 7), "f4")),
        ValueError,
        r"out must have shape \(2, 4, 7\), got \(2, 7\)",
    ),
}


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG_CALLS.values(), ids=WRONG_CALLS)
@pytest.mark.parametrize("layer", [{}, {"activation": np.tanh}])
def test_wrong_steps_are_refused(layer, arguments, error, message):
    layer = made(**layer)
    stream = layer.stream(2)
    stream(F + 1)
    state = stream.state
    with pytest.raises(error, match=message):
        stream(*arguments)
    np.testing.assert_array_equal(stream.state, state)
    if "timesteps" in message or np.ndim(arguments[0]) == 3:
        return
    pool = fastgru.StreamPool(layer, 2)
    slots = np.array([pool.open(state[0]), pool.open(state[1])])
    with pytest.raises(error, match=message):
        pool.step(slots, *arguments)
    for slot, row in zip(slots, state, strict=True):
        np.testing.assert_array_equal(pool.state(slot), row)
    pool.step(slots, F)


def test_a_chunk_of_a_time_major_layer_has_its_time_first():
    stream = made(time_major=True).stream(2)
    with pytest.raises(
        ValueError, match=r"x must have shape \(2, 3\) or \(timesteps, 2, 3\), got \(2, 4, 3\)"
    ):
        stream(np.zeros((2, 4, 3), "f4"))


WRONG_STATES = {
    "nothing": (None, TypeError, "state must be an array, got NoneType"),
    "a list of numbers": ([0.0] * 7, TypeError, "state must be an array, got list"),
    "integers": (np.zeros(7, int), TypeError, "state must be an array of float32, got int64"),
    "wide": (np.zeros(8, "f4"), ValueError, r"state must have shape .*, got \(8,\)"),
    "deep": (np.zeros((1, 1, 7), "f4"), ValueError, r"state must have shape .*, got .*1, 1, 7\)"),
    "scalar": (np.float32(0), ValueError, r"state must have shape"),
}


@pytest.mark.parametrize(("state", "error", "message"), WRONG_STATES.values(), ids=WRONG_STATES)
def test_wrong_states_are_refused(state, error, message):
    layer = made()
    stream, pool = layer.stream(2), fastgru.StreamPool(layer, 2)
    stream.state = kept = inputs(2, 7)
    with pytest.raises(error, match=message):
        stream.state = state
    np.testing.assert_array_equal(stream.state, kept)
    if state is not None:
        with pytest.raises(error, match=message):
            pool.open(state)
    assert len(pool) == 0


WRONG_ROWS = {
    "beyond": (2, ValueError, "rows must lie between 0 and 1, got 2 to 2"),
    "negative": ([0, -1], ValueError, "rows must lie between 0 and 1, got -1 to 0"),
    "huge": (2**63, ValueError, r"rows must be less than 2\*\*63, got 9223372036854775808"),
    "more than huge": (
        [2**70],
        ValueError,
        r"rows must lie between -2\*\*63 and 2\*\*63, got 1180591620717411303424",
    ),
    "a bool": (True, TypeError, "rows must be integers, got bool"),
    "a mask": (np.array([True, False]), TypeError, "rows must be integers, got bool"),
    "a float": (1.0, TypeError, "rows must be integers, got float64"),
    "no integers": (np.zeros(0), TypeError, "rows must be integers, got float64"),
    "a text": ("0", TypeError, "rows must be integers, got <U1"),
    "ragged": ([[0], [0, 1]], TypeError, "rows must be integers, got list"),
    "a set": ({0}, TypeError, "rows must be integers, got object"),
}


@pytest.mark.parametrize(("rows", "error", "message"), WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_wrong_rows_are_refused(rows, error, message):
    stream = made().stream(2)
    stream.state = kept = inputs(2, 7)
    with pytest.raises(error, match=message):
        stream.reset(rows)
    np.testing.assert_array_equal(stream.state, kept)


def two_way():
    layer = fastgru.Bidirectional(fastgru.GRU(3))
    layer.build((None, None, 3))
    return layer


@pytest.mark.parametrize("make", [fastgru.Stream, fastgru.StreamPool])
@pytest.mark.parametrize(
    ("layer", "size", "error", "message"),
    [
        (two_way, 1, ValueError, "layer must not be Bidirectional to be streamed"),
        (lambda: made(go_backwards=True), 1, ValueError, "layer must go forward to be streamed, got go_back"),
        (
            lambda: fastgru.GRU(3),
            1,
            ValueError,
            "layer must be built to be streamed, got 'gru.*call its build",
        ),
        (lambda: None, 1, TypeError, "layer must be a GRU, a Stack or a Model, got None of type NoneType"),
        (lambda: np.zeros(3), 1, TypeError, "layer must be a GRU, a Stack or a Model"),
        (lambda: SimpleNamespace(layers=[made()]), 1, TypeError, "layer must be a GRU, a Stack or a Model"),
        (lambda: fastgru.GRU, 1, TypeError, "layer must be a GRU, a Stack or a Model"),
        (made, 0, ValueError, "(batch|capacity) must be a positive integer, got 0"),
        (made, -1, ValueError, "(batch|capacity) must be a positive integer, got -1"),
        (made, 1.0, TypeError, "(batch|capacity) must be an integer, got 1.0"),
        (made, True, TypeError, "(batch|capacity) must be an integer, got True"),
        (made, None, TypeError, "(batch|capacity) must be an integer, got None"),
        (made, 2**70, ValueError, "."),
        (
            lambda: made(default_state=np.zeros((3, 7))),
            1,
            ValueError,
            "layer must have a default_state of as many rows as are streamed, 1, or of one, got 3 of 'gru",
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused(make, layer, size, error, message):
    layer = layer()
    with pytest.raises(error, match=message):
        make(layer, size)
    if make is fastgru.Stream and hasattr(layer, "stream") and isinstance(layer, fastgru.GRU):
        with pytest.raises(error, match=message):
            layer.stream(size)


@pytest.mark.parametrize("make", [fastgru.Stream, fastgru.StreamPool])
def test_neither_is_pickled_or_copied_by_others(make):
    it = make(made(), 3)
    for function in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=f"cannot pickle '{make.__name__}': pickle .*state"):
            function(it)


@pytest.mark.parametrize("arguments", [{}, {"activation": np.tanh}])
@pytest.mark.parametrize("units", [1, 200])
def test_a_second_init_is_refused_and_changes_nothing(choice, units, arguments):
    layer, other = made(**arguments), made(units, 5)
    x = inputs(2, 3, FEATURES)
    wanted, _ = layer(x)
    stream, pool = layer.stream(2), fastgru.StreamPool(layer, 2)
    for it in (stream, pool):
        with pytest.raises(RuntimeError, match="__init__ must be called once"):
            it.__init__(other, 90)
    slots = [pool.open(), pool.open()]
    assert (pool.capacity, pool.units, pool.features, stream.batch) == (2, 7, FEATURES, 2)
    for t in range(3):
        assert_same(stream(x[:, t]), wanted[:, t], choice)
        stream = stream.copy()
        assert_same(pool.step(slots, x[:, t]), wanted[:, t], choice)
    pool.reset()
    assert not pool.state(slots[0]).any()


def test_what_was_never_initialised_raises_python_errors():
    x, slots = np.zeros((1, FEATURES), "f4"), np.array([0])
    uses = [
        lambda stream: stream(x),
        lambda stream: stream(x, x),
        lambda stream: stream.state,
        lambda stream: setattr(stream, "state", x),
        lambda stream: stream.reset(),
        lambda stream: stream.copy(),
        lambda stream: stream.batch,
    ]
    for use in uses:
        with pytest.raises((AttributeError, TypeError)):
            use(fastgru.Stream.__new__(fastgru.Stream))
    uses = [
        lambda pool: pool.step(slots, x),
        lambda pool: pool.step([], x),
        lambda pool: pool.open(),
        lambda pool: pool.close(0),
        lambda pool: pool.state(0),
        lambda pool: pool.reset(),
        lambda pool: pool.reset(0),
    ]
    for use in uses:
        pool = fastgru.StreamPool.__new__(fastgru.StreamPool)
        assert len(pool) == 0
        with pytest.raises((AttributeError, TypeError, ValueError)):
            use(pool)


def test_subclasses_keep_their_attributes_and_are_asked_once(choice):
    class Named(fastgru.Stream):
        def __init__(self, layer, name):
            super().__init__(layer)
            self.name = name

    class Counted(fastgru.StreamPool):
        steps = 0

        def step(self, slots, x, out=None):
            self.steps += 1
            return super().step(list(slots), x, out)

    layer = made()
    x = inputs(1, 1, FEATURES)
    wanted, _ = layer(x)
    stream = Named(layer, "alice").copy()
    assert (type(stream), stream.name) == (Named, "alice")
    assert_same(stream(x[:, 0]), wanted[:, 0], choice)
    pool = Counted(layer, 1)
    slot = pool.open()
    assert_same(pool.step([slot], x[:, 0].astype("float64")), wanted[:, 0], choice)
    assert pool.steps == 1
    assert repr(stream).startswith("<Stream of [<GRU ")
    assert repr(pool).endswith(": 1 of 1 slots open>")


def test_a_stream_in_a_circle_is_collected():
    class Own(fastgru.Stream):
        pass

    dead = []
    for make in (lambda: Own(made()), lambda: made().stream()):
        it = make()
        it.me = it
        reference = weakref.ref(it, dead.append)
        y = it(np.zeros((1, FEATURES), "f4"))
        del it
        gc.collect()
        assert reference() is None
        assert y.shape == (1, 7)
    assert len(dead) == 2


# ---- threads -------------------------------------------------------------------------------


class Hold:
    """tanh, at which threads wait while `during` runs: all but the one that made it."""

    def __init__(self):
        self.owner = threading.get_ident()
        self.entered, self.ended = threading.Event(), threading.Event()

    def __call__(self, x):
        if threading.get_ident() != self.owner:
            self.entered.set()
            assert self.ended.wait(60)
        return np.tanh(x)

    def during(self, function, action):
        """Call `action` in the middle of the function, which another thread calls; the function's result."""
        self.entered.clear()
        self.ended.clear()
        with ThreadPoolExecutor(1) as executor:
            future = executor.submit(function)
            try:
                assert self.entered.wait(60)
                action()
            finally:
                self.ended.set()
            return future.result()


def test_a_stream_does_one_thing_at_a_time():
    hold = Hold()
    layer = made(activation=hold)
    x = inputs(2, 4, FEATURES)
    wanted, last = layer(x)
    stream = layer.stream(2)

    def others():
        for use in (
            lambda: stream(x[:, 0]),
            lambda: stream(x),
            lambda: stream.state,
            lambda: setattr(stream, "state", last),
            lambda: stream.reset(),
            lambda: stream.reset(0),
            lambda: stream.copy(),
        ):
            with pytest.raises(RuntimeError, match="a stream does one thing at a time"):
                use()

    for t in range(4):
        found = hold.during(lambda t=t: stream(x[:, t]), others)
        np.testing.assert_array_equal(found, wanted[:, t])
    np.testing.assert_array_equal(stream.state, last)


def test_a_step_within_a_step_of_the_same_stream_is_refused():
    inner = []

    def activation(x):
        if inner:
            inner[0](np.zeros((1, FEATURES), "f4"))
        return np.tanh(x)

    layer = made(activation=activation)
    stream = layer.stream()
    inner.append(stream)
    with pytest.raises(RuntimeError, match="a stream does one thing at a time"):
        stream(np.ones((1, FEATURES), "f4"))
    inner.clear()
    assert not stream.state.any()
    assert stream(np.ones((1, FEATURES), "f4")).any()


def test_threads_in_one_stream_advance_it_one_step_each_or_are_refused(choice):
    layer = made(128, 128, reset_after=True)
    x = inputs(4, 128)
    stream, together = layer.stream(4), threading.Barrier(4)

    def steps():
        done = 0
        out = np.empty((4, 128), "f4")
        together.wait()
        for i in range(60):
            try:
                stream(x, out if i % 2 else None)
                done += 1
            except RuntimeError:
                pass
        return done

    with ThreadPoolExecutor(4) as executor:
        count = sum(future.result() for future in [executor.submit(steps) for _ in range(4)])
    assert 0 < count <= 240
    twin = layer.stream(4)
    for _ in range(count):
        twin(x)
    np.testing.assert_array_equal(stream.state, twin.state)


@pytest.mark.parametrize("arguments", [{"units": 64, "features": 16}, {"activation": lambda x: np.tanh(x)}])
def test_threads_step_slots_of_their_own(choice, arguments):
    layer = made(**arguments)
    features, rows, threads, timesteps = arguments.get("features", FEATURES), 9, 6, 25
    pool = fastgru.StreamPool(layer, rows * threads + 1)
    pool.open()
    x = inputs(threads, rows, timesteps, features)
    together = threading.Barrier(threads)

    def steps(thread):
        rng = np.random.default_rng(thread)
        slots, idle = np.array([pool.open() for _ in range(rows)]), []
        outputs = np.empty((rows, timesteps, layer.units), "f4")
        together.wait()
        for t in range(timesteps):
            order = rng.permutation(rows)
            first, second = np.split(order, [rng.integers(0, rows)])
            for part in (first, second):
                outputs[part, t] = pool.step(slots[part], x[thread, part, t])
            if t == 10:  # clients leave and come back at other places
                states = [pool.state(slot) for slot in slots]
                idle.append(slots)
                for slot in slots:
                    pool.close(slot)
                slots = np.array([pool.open(state) for state in states])
        return outputs, np.stack([pool.state(slot) for slot in slots])

    with ThreadPoolExecutor(threads) as executor:
        results = list(executor.map(steps, range(threads)))
    assert len(pool) == rows * threads + 1
    for thread, (outputs, states) in enumerate(results):
        wanted, last = layer(x[thread])
        if arguments.get("activation"):
            np.testing.assert_allclose(outputs, wanted, atol=1e-6)
        else:
            assert_same(outputs, wanted, choice)
            assert_same(states, last, choice)


def test_slots_that_another_thread_steps_are_left_alone():
    hold = Hold()
    pool = fastgru.StreamPool(made(activation=hold), 3)
    x = inputs(3, 4, FEATURES)
    a, b, c = (pool.open() for _ in range(3))
    pool.step([a, b, c], x[:, 0])
    before = [pool.state(slot) for slot in (a, b, c)]
    free = pool.open(pool.state(c)) if len(pool) < 3 else c

    def meanwhile():
        for slot, state in zip((a, b, c), before, strict=True):  # as its last step left it
            np.testing.assert_array_equal(pool.state(slot), state)
        for use in (
            lambda: pool.step([free, b], x[:2, 1]),
            lambda: pool.step(np.array([b, free]), x[:2, 1]),
            lambda: pool.reset(b),
            lambda: pool.reset([free, b]),
        ):
            message = f"slots must be in one step at a time, got {b}, which another thread is stepping"
            with pytest.raises(ValueError, match=message):
                use()
        with pytest.raises(ValueError, match=r"got [01], which another thread is stepping"):
            pool.reset()
        np.testing.assert_array_equal(pool.state(free), before[2])
        pool.step([free], x[2:, 1])

    hold.during(lambda: pool.step(np.array([a, b]), x[:2, 1]), meanwhile)
    for slot, state in zip((a, b, c), before, strict=True):
        assert (pool.state(slot) != state).any()
    pool.step([a, b, c], x[:, 2])
    pool.reset()


def test_a_slot_that_is_closed_during_its_step_is_free_after_it():
    hold = Hold()
    pool = fastgru.StreamPool(made(activation=hold), 2)
    x = inputs(2, 3, FEATURES)
    a, b = pool.open(), pool.open()

    def meanwhile():
        pool.close(a)
        assert len(pool) == 1
        with pytest.raises(ValueError, match=f"slot must be open, got {a}, which has been closed"):
            pool.state(a)
        with pytest.raises(ValueError, match=f"slot must be open, got {a}, which has been closed"):
            pool.close(a)
        with pytest.raises(ValueError, match="all 2 are open, or closed in a step that is running"):
            pool.open()
        pool.close(b)
        assert len(pool) == 0

    found = hold.during(lambda: pool.step([b, a], x[:, 0]), meanwhile)
    assert found.all()
    others = [pool.open(), pool.open()]
    assert not {a, b} & {*others}
    with pytest.raises(ValueError, match="all 2 are open"):
        pool.open()
    for slot in others:
        assert not pool.state(slot).any()


def test_slots_open_close_and_change_while_others_step(choice):
    # every client's outputs are those of its own inputs, whoever comes and goes meanwhile
    layer = made(40, 8)
    pool, x = fastgru.StreamPool(layer, 24), inputs(8, 60, 8)
    wanted, _ = layer(x)
    slots, stop = np.array([pool.open() for _ in range(8)]), threading.Event()
    errors = []

    def come_and_go(seed):
        rng, mine = np.random.default_rng(seed), []
        try:
            while not stop.is_set():
                if len(mine) < 6:
                    mine.append(pool.open(rng.normal(size=40).astype("f4")))
                slot = mine[rng.integers(len(mine))]
                pool.state(slots[rng.integers(8)])
                pool.step([slot], np.zeros((1, 8), "f4"))
                pool.reset(slot)
                assert not pool.state(slot).any()  # all of it
                if len(mine) > 3:
                    pool.close(mine.pop(0))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=come_and_go, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    try:
        for t in range(60):
            assert_same(pool.step(slots, x[:, t]), wanted[:, t], choice)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_reset_of_all_slots_is_never_refused_for_one_that_closes():
    pool, stop = fastgru.StreamPool(made(1), 20_000), threading.Event()
    for _ in range(19_990):
        pool.open()

    def open_and_close():
        while not stop.is_set():
            pool.close(pool.open())

    thread = threading.Thread(target=open_and_close)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(300):
            pool.reset()
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


def test_a_state_is_never_seen_half_written():
    pool, one, stop = fastgru.StreamPool(made(500, 1), 60), np.ones(500, "f4"), threading.Event()
    slots, halves = [pool.open(one) for _ in range(60)], []

    def look():
        while not stop.is_set():
            try:
                state = pool.state(slots[-1])
            except ValueError:  # closed
                continue
            halves.append(state.min() != state.max())

    thread = threading.Thread(target=look)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            pool.reset()
            for slot in slots:
                pool.close(slot)
            slots = [pool.open(one) for _ in range(60)]
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    assert not any(halves)


def test_slots_that_change_during_a_step_harm_nothing(choice):
    layer = made(32, 32)
    pool, x, stop = fastgru.StreamPool(layer, 64), inputs(32, 32), threading.Event()
    slots = np.array([pool.open() for _ in range(32)])
    right = slots.copy()

    def change():
        rng = np.random.default_rng(0)
        while not stop.is_set():
            slots[rng.integers(32)] = rng.choice([-1, 0, 5, 31, 32, 2**62])
            slots[...] = rng.permutation(right)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            try:
                pool.step(slots, x)
            except ValueError as error:
                assert "slots must" in str(error)  # noqa: PT017
    finally:
        stop.set()
        thread.join()
    pool.step(right, x)  # none is held
    pool.reset(right)
    for slot in right:
        pool.close(slot)
    assert len(pool) == 0


# ---- slots ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", LAYERS.values(), ids=LAYERS)
def test_a_pool_gives_what_one_call_gives(choice, arguments):
    layer, features, stateful = one_of_layers(choice, arguments)
    x = inputs(5, 8, features, dtype=layer.dtype)
    wanted, last = layer(x.swapaxes(0, 1) if layer.time_major else x)
    wanted = wanted.swapaxes(0, 1) if layer.time_major else wanted
    layer.stateful = stateful
    pool = fastgru.StreamPool(layer, 6)
    assert (pool.features, pool.units, pool.dtype, pool.capacity) == (features, layer.units, layer.dtype, 6)
    slots = np.array([pool.open() for _ in range(6)])[1:]
    rng = np.random.default_rng(1)
    for t in range(8):
        order = rng.permutation(5)
        for part in (order[:2], order[2:]):
            found = pool.step(slots[part], x[part, t])
            assert found.dtype == layer.dtype
            if "Python" in str(arguments) or callable(arguments.get("activation")) or not features:
                np.testing.assert_allclose(found, wanted[part, t], atol=10 * TOLERANCE[layer.dtype])
            else:
                assert_same(found, wanted[part, t], choice)
    first = np.zeros(7) if "default_state" not in arguments else arguments["default_state"].astype("f4")
    np.testing.assert_array_equal(pool.state(0)[:7], first)  # idle
    states = np.stack([pool.state(slot) for slot in slots]).astype(layer.dtype)
    np.testing.assert_allclose(states, last, atol=10 * TOLERANCE[layer.dtype])
    pool.reset(slots)
    np.testing.assert_array_equal(pool.state(slots[0])[:7], first)


@pytest.mark.parametrize("n", [0, 1, 2, 63, 64])
def test_a_step_has_any_number_of_slots(choice, n):
    layer = made()
    x = inputs(64, 2, FEATURES)
    wanted, _ = layer(x)
    pool = fastgru.StreamPool(layer, 64)
    slots = [pool.open() for _ in range(64)]
    for given in (slots[:n], np.array(slots[:n], int)):
        pool.reset()
        found = pool.step(given, x[:n, 0])
        assert_same(found, wanted[:n, 0], choice)
        out = np.empty((n, 7), "f4")
        assert pool.step(given, x[:n, 1], out) is out
        assert_same(out, wanted[:n, 1], choice)
    for slot in slots[n:]:
        assert not pool.state(slot).any()


INTEGERS = {
    "list": list,
    "tuple": tuple,
    "range": lambda slots: range(slots[0], slots[-1] + 1),
    "array.array": lambda slots: array.array("h", slots),
    "numbers": lambda slots: [np.uint8(slot) for slot in slots],
    "apart": lambda slots: np.repeat(slots, 2)[::2],
    "backwards": lambda slots: np.array(slots[::-1])[::-1],
    "unaligned": lambda slots: unaligned(np.array(slots)),
    "byte-swapped": lambda slots: np.array(slots).astype(">i8"),
    "read-only": lambda slots: read_only(np.array(slots)),
    "subclass": lambda slots: np.array(slots).view(Subclass),
} | {code: lambda slots, code=code: np.array(slots, code) for code in "bBhHiIlLqQ"}


@pytest.mark.parametrize("kind", INTEGERS)
def test_slots_are_integers_of_any_kind(kind):
    layer = made()
    pool, x = fastgru.StreamPool(layer, 4), inputs(3, FEATURES)
    slots = [pool.open() for _ in range(4)][1:]
    given = INTEGERS[kind](slots)
    np.testing.assert_array_equal(pool.step(given, x), layer.stream(3)(x))
    pool.reset(given)
    assert not any(pool.state(slot).any() for slot in slots)
    for slot in given if kind != "subclass" else slots:
        pool.state(slot)
        pool.close(slot)
    assert len(pool) == 1


WRONG_SLOTS = {
    "closed": (lambda a, b, gone: [a, gone], ValueError, "got 1, which has been closed"),
    "unknown": (lambda a, b, gone: [a, 1000], ValueError, "got 1000, which the pool never gave"),
    "later": (lambda a, b, gone: [a, b + 3], ValueError, "got 5, which the pool never gave"),
    "negative": (lambda a, b, gone: [a, -1], ValueError, "got -1, which the pool never gave"),
    "very negative": (
        lambda a, b, gone: [a, -(2**63)],
        ValueError,
        f"got -{2**63}, which the pool never gave",
    ),
    "closed, as numbers are kept": (
        lambda a, b, gone: [a, -1 - 4],
        ValueError,
        "got -5, which the pool never",
    ),
    "largest": (lambda a, b, gone: [a, 2**63 - 1], ValueError, f"got {2**63 - 1}, which the pool never gave"),
    "huge": (
        lambda a, b, gone: np.array([a, 2**63], "u8"),
        ValueError,
        r"slots must be less than 2\*\*63, got 9223372036854775808",
    ),
    "more than huge": (
        lambda a, b, gone: [a, 2**70],
        ValueError,
        r"slots must lie between -2\*\*63 and 2\*\*63",
    ),
    "twice": (lambda a, b, gone: [b, a, b], ValueError, "slots must hold each one once, got 2 twice"),
    "floats": (lambda a, b, gone: [0.0, 2.0], TypeError, "slots must be integers, got float64"),
    "bools": (lambda a, b, gone: [False, True], TypeError, "slots must be integers, got bool"),
    "None": (lambda a, b, gone: [a, None], TypeError, "slots must be integers, got object"),
    "texts": (lambda a, b, gone: ["0", "2"], TypeError, "slots must be integers, got <U1"),
    "ragged": (lambda a, b, gone: [[a], [a, b]], TypeError, "slots must be integers, got list"),
    "empty, of floats": (lambda a, b, gone: np.zeros(0), TypeError, "slots must be integers, got float64"),
    "columns": (lambda a, b, gone: [[a, b]], ValueError, r"slots must have one axis, got shape \(1, 2\)"),
}


@pytest.mark.parametrize("arguments", [{}, {"activation": np.tanh}])
@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize(("wrong", "error", "message"), WRONG_SLOTS.values(), ids=WRONG_SLOTS)
def test_wrong_slots_are_refused(wrong, error, message, as_array, arguments):
    pool = fastgru.StreamPool(made(**arguments), 3)
    a, gone, b = (pool.open() for _ in range(3))
    pool.close(gone)
    x = inputs(3, FEATURES)
    pool.step([a, b], x[:2])
    before = [pool.state(slot) for slot in (a, b)]
    slots = wrong(a, b, gone)
    if as_array and message != "slots must be integers, got list":
        slots = np.array(slots)
    for use in (lambda: pool.step(slots, x[: len(slots)]), lambda: pool.reset(slots)):
        with pytest.raises(error, match=message):
            use()
        assert len(pool) == 2
        for slot, state in zip((a, b), before, strict=True):
            np.testing.assert_array_equal(pool.state(slot), state)
    pool.step([a, b], x[:2])  # none is held


WRONG_SLOT = {
    "closed": (1, ValueError, "slot must be open, got 1, which has been closed"),
    "unknown": (1000, ValueError, "slot must be open, got 1000, which the pool never gave"),
    "negative": (-1, ValueError, "got -1"),
    "huge": (2**63, ValueError, "got 9223372036854775808"),
    "very huge": (-(2**70), ValueError, "got -1180591620717411303424"),
    "huge, NumPy's": (np.uint64(2**64 - 1), ValueError, "got 18446744073709551615"),
    "a float": (0.0, TypeError, "slot must be an integer, got 0.0 of type float"),
    "a bool": (False, TypeError, "slot must be an integer, got False"),
    "NumPy's bool": (np.False_, TypeError, "slot must be an integer, got"),
    "None": (None, TypeError, "slot must be an integer, got None"),
    "a list": ([0], TypeError, r"slot must be an integer, got \[0\]"),
    "an array": (np.zeros(2, int), TypeError, "slot must be an integer, got"),
}


@pytest.mark.parametrize(("slot", "error", "message"), WRONG_SLOT.values(), ids=WRONG_SLOT)
def test_a_wrong_slot_is_refused(slot, error, message):
    pool = fastgru.StreamPool(made(), 2)
    pool.open(np.ones(7, "f4"))
    pool.close(pool.open())
    for use in (pool.close, pool.state):
        with pytest.raises(error, match=message):
            use(slot)
    assert len(pool) == 1
    assert pool.state(np.uint8(0)).all()


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_numbers_of_slots_never_come_again(capacity):
    pool = fastgru.StreamPool(made(1), capacity)
    rng, seen, mine = np.random.default_rng(capacity), set(), []
    for _ in range(1000):
        if len(mine) < capacity and (not mine or rng.random() < 0.5):
            slot = pool.open()
            assert type(slot) is int
            assert slot not in seen
            seen.add(slot)
            mine.append(slot)
        else:
            gone = mine.pop(rng.integers(len(mine)))
            pool.close(gone)
            with pytest.raises(ValueError, match=f"slot must be open, got {gone}, which has been closed"):
                pool.close(gone)
        assert len(pool) == len(mine)
        if len(mine) == capacity:
            with pytest.raises(ValueError, match=f"slots must be closed .* all {capacity} are open"):
                pool.open()
    for slot in seen - {*mine}:
        with pytest.raises(ValueError, match="has been closed"):
            pool.state(slot)


def test_states_move_between_pools_and_processes(choice):
    layer = made()
    x = inputs(1, 30, FEATURES)
    wanted, last = layer(x)
    pools = [fastgru.StreamPool(layer, size) for size in (1, 7)]
    pools[1].open()
    stream, slot = layer.stream(), pools[0].open()
    for t in range(30):
        pool, other = pools[t % 2], pools[1 - t % 2]
        assert_same(pool.step([slot], x[:, t]), wanted[:, t], choice)
        state = pickle.loads(pickle.dumps(pool.state(slot)))
        pool.close(slot)
        if t % 3 == 0:  # by way of a stream
            stream.state = state[np.newaxis]
            state = stream.state[0]
        slot = other.open(state)
        np.testing.assert_array_equal(other.state(slot), state)
        state[...] = 9
        assert (other.state(slot) != 9).all()
    assert_same(other.state(slot), last[0], choice)


def test_special_values_survive_a_move():
    pool = fastgru.StreamPool(made(), 2)
    bits = np.array([0x7FC12345, 0xFF800000, 0x80000000, 1, 0x7F7FFFFF, 0xFFC00001, 0], np.uint32)
    slot = pool.open(bits.view("f4"))
    np.testing.assert_array_equal(pool.state(slot).view(np.uint32), bits)
    slot = pool.open(pool.state(slot))
    np.testing.assert_array_equal(pool.state(slot).view(np.uint32), bits)


@pytest.mark.parametrize("failure", [RuntimeError("no"), "shape", KeyboardInterrupt()])
def test_a_failing_activation_leaves_everything_as_it_was(failure):
    fails = []

    def activation(x):
        if len(fails) == 1 and fails.pop():
            if failure == "shape":
                return np.zeros(3)
            raise failure
        return np.tanh(x)

    layer = made(activation=activation)
    pool, stream, x = fastgru.StreamPool(layer, 3), layer.stream(3), inputs(3, 4, FEATURES)
    slots = [pool.open() for _ in range(3)]
    out = np.full((3, 7), 7, "f4")
    pool.step(slots, x[:, 0])
    stream(x[:, 0])
    state = stream.state
    uses = [
        lambda: stream(x[:, 1]),
        lambda: stream(x[:, 1], out),
        lambda: stream(x),
        lambda: pool.step(slots, x[:, 1]),
        lambda: pool.step(slots, x[:, 1], out),
    ]
    for use in uses:
        fails.append(True)
        with pytest.raises(ValueError if failure == "shape" else type(failure)):
            use()
        np.testing.assert_array_equal(stream.state, state)
        np.testing.assert_array_equal([pool.state(slot) for slot in slots], state)
        assert (out == 7).all()
    np.testing.assert_array_equal(pool.step(slots, x[:, 1]), stream(x[:, 1]))


# ---- layers on top of each other -----------------------------------------------------------


def stack_of(*options, features=FEATURES):
    """Layers with weights that are not zero anywhere; it returns all outputs and all states."""
    layers, units = [], 5
    for k, arguments in enumerate(options):
        layers.append(made(units + 6 * k, features, **arguments))
        features = units + 6 * k
    return fastgru.Stack(layers, return_state=True)


STACKS = {
    "one": [{}],
    "two": [{}, {"reset_after": True}],
    "four": [{"reset_after": True}, {}, {"recurrent_activation": "sigmoid"}, {"activation": "relu"}],
    "float64": [{"dtype": "float64"}] * 3,
    "float16": [{"dtype": "float16"}] * 2,
    "mixed": [{"dtype": "float64"}, {"dtype": "float16"}, {}],
    "Python": [{}, {"activation": lambda x: x / (1 + abs(x))}, {}],
    "time-major": [{"time_major": True}] * 2,
    "default state": [{}, {"default_state": np.full(11, 0.5)}],
}


@pytest.mark.parametrize("options", STACKS.values(), ids=STACKS)
def test_stacks_are_streamed_and_pooled(choice, options):
    stack = stack_of(*options)
    x = inputs(4, 12, FEATURES, dtype=options[0].get("dtype", "float32"))

    def turned(array):
        return array.swapaxes(0, 1) if stack.time_major and array.ndim == 3 else array

    wanted, *last = stack(turned(x))
    wanted, rows = turned(wanted), [2, 0, 3, 1]
    stream, pool = stack.stream(4), fastgru.StreamPool(stack, 5)
    slots = np.array([pool.open() for _ in range(4)])
    for steps in (0, 1, slice(2, 6), 6, slice(7, 7), slice(7, 12)):
        found = stream(turned(x[:, steps]))
        assert_same(turned(found), wanted[:, steps], choice)
    for t in range(12):
        found = pool.step(slots[rows], x[rows, t])
        if "activation" in str(options[1:]):  # the products of NumPy, which depend on the rows
            np.testing.assert_allclose(found, wanted[rows, t], atol=1e-5)
        else:
            assert_same(found, wanted[rows, t], choice)
    states = stream.state
    assert [state.shape for state in states] == [(4, layer.units) for layer in stack.layers]
    for state, final in zip(states, last, strict=True):
        assert_same(state.astype(final.dtype), final, choice)
    moved = pool.open(pickle.loads(pickle.dumps(pool.state(slots[2]))))
    for found, kept in zip(pool.state(moved), pool.state(slots[2]), strict=True):
        np.testing.assert_array_equal(found, kept)
    stream.state = [np.repeat(state[np.newaxis], 4, axis=0) for state in pool.state(moved)]
    wanted = pool.step([moved], x[:1, 0])
    np.testing.assert_allclose(stream(x[[0] * 4, 0])[3:], wanted, atol=1e-2 if "16" in str(options) else 1e-5)
    stream.reset([1])
    pool.reset(moved)
    for of_stream, of_slot, layer in zip(stream.state, pool.state(moved), stack.layers, strict=True):
        first = 0 if layer.default_state is None else layer.default_state[0]
        assert (of_stream[1] == first).all()
        assert (of_slot == first).all()
        assert (of_stream[0] != first).any()


def test_a_stream_of_a_stack_keeps_its_weights(choice):
    stack = stack_of({}, {})
    x = inputs(1, 2, FEATURES)
    wanted, *_ = stack(x)
    stream = stack.stream()
    stack.set_weights([w * 2 for w in stack.get_weights()])
    assert_same(stream(x[:, 0]), wanted[:, 0], choice)


WRONG_STACKS_STATES = {
    "an array": (lambda states: states[0], "state must be a list of 2 arrays, one per layer, got ndarray"),
    "few": (lambda states: states[:1], "state must be a list of 2 arrays, one per layer, got 1 of them"),
    "many": (lambda states: states * 2, "state must be a list of 2 arrays, one per layer, got 4 of them"),
    "order": (lambda states: states[::-1], r"state must have shape .*, got \(.*11,?\)"),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG_STACKS_STATES.values(), ids=WRONG_STACKS_STATES)
def test_wrong_states_of_stacks_are_refused_as_a_whole(wrong, message):
    stack = stack_of({}, {})
    stream, pool = stack.stream(2), fastgru.StreamPool(stack, 2)
    stream(F)
    slot, before = pool.open(), stream.state
    with pytest.raises(ValueError, match=message):
        stream.state = wrong([state + 1 for state in before])
    with pytest.raises(ValueError, match=message):
        pool.open(wrong(pool.state(slot)))
    for state, kept in zip(stream.state, before, strict=True):
        np.testing.assert_array_equal(state, kept)
    assert len(pool) == 1
    stream.state = tuple(before)


@pytest.mark.parametrize("make", [fastgru.Stream, fastgru.StreamPool])
def test_stacks_that_read_from_the_end_are_not_streamed(make):
    low = fastgru.GRU(3, return_sequences=True)
    for top, message in (
        (fastgru.Bidirectional(fastgru.GRU(3)), "layer must not be Bidirectional"),
        (fastgru.GRU(3, go_backwards=True), "layer must go forward"),
    ):
        stack = fastgru.Stack([low, top])
        stack.build((None, None, 3))
        with pytest.raises(ValueError, match=message):
            make(stack, 1)
    with pytest.raises(ValueError, match="layer must be built"):
        make(fastgru.Stack([fastgru.GRU(3)]), 1)


def test_a_layer_that_fails_leaves_the_ones_below_it_as_they_were():
    fails = []

    def activation(x):
        if fails:
            raise RuntimeError(fails.pop())
        return np.tanh(x)

    stack = stack_of({}, {"activation": activation})
    stream, pool = stack.stream(2), fastgru.StreamPool(stack, 2)
    slots = [pool.open(), pool.open()]
    for use in (lambda: stream(F + 1), lambda: pool.step(slots, F + 1)):
        fails.append("no")
        with pytest.raises(RuntimeError, match="no"):
            use()
    assert not any(state.any() for state in [*stream.state, *pool.state(slots[0]), *pool.state(slots[1])])
    np.testing.assert_array_equal(stream(F + 1), pool.step(slots, F + 1))


# ---- memory --------------------------------------------------------------------------------


def test_a_slot_takes_64_bytes_beside_its_state_at_most():
    layer, count = made(1), 100_000
    tracemalloc.start()
    pool = fastgru.StreamPool(layer, count)
    slots = np.array([pool.open() for _ in range(count)])
    pool.step(slots[::-1000].copy(), np.zeros((100, FEATURES), "f4"))
    for slot in slots[::2]:
        pool.close(slot)
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - slots.nbytes - count * 4 - slots.nbytes * 6 < 64 * count
    assert size - slots.nbytes - count * 4 < 20 * count
    assert len(pool) == count // 2


def test_memory_is_flat_over_a_million_steps():
    resource = pytest.importorskip("resource", reason="Windows does not say how much memory is resident")
    layer = made(1, 1)
    stream, pool = layer.stream(), fastgru.StreamPool(layer, 2)
    x, out, slots = np.zeros((1, 1), "f4"), np.zeros((1, 1), "f4"), np.array([pool.open()])

    def run(count):
        for _ in itertools.repeat(None, count):
            stream(x)
        for _ in itertools.repeat(None, count // 2):
            stream(x, out)
            pool.step(slots, x, out)
        for _ in itertools.repeat(None, count // 10):
            pool.step(slots, x)
            pool.close(pool.open())

    tracemalloc.start()
    run(100)
    before, resident = tracemalloc.get_traced_memory()[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(500_000)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 10_000
    assert peak - before < 100_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 2_000 * (
        1 if sys.platform.startswith("linux") else 1024
    )


# ---- anything, in any order ----------------------------------------------------------------

SETTINGS = settings(deadline=None, print_blob=True, max_examples=40, stateful_step_count=25)


@st.composite
def small_layers(draw):
    arguments = {
        "units": draw(st.sampled_from([1, 5, 16, 17, 40])),
        "features": draw(st.integers(0, 5)),
        "reset_after": draw(st.booleans()),
        "dtype": draw(st.sampled_from(["float32", "float64", "float16"])),
        "recurrent_activation": draw(st.sampled_from(["sigmoid", "hard_sigmoid"])),
        "default_state": draw(st.sampled_from([None, 0.5])),
    }
    if arguments["default_state"] is not None:
        arguments["default_state"] = np.full(arguments["units"], 0.5)
    # where no packed engine may be chosen, its bits are alike in any company, too
    choices = PACKED or [_config.Choice("packed", _kernels.isas()[0])]
    with mock.patch.object(_config, "CHOICE", draw(st.sampled_from(choices))):
        return made(**arguments)


class Client:
    """What a row has been through: the state it started from, and its inputs since."""

    def __init__(self, layer, start=None):
        self.layer = layer
        self.begin(start)

    def begin(self, start=None):
        dtype = "float64" if self.layer.dtype == "float64" else "float32"
        if start is None:
            start = self.layer.default_state
        self.start = np.zeros((1, self.layer.units), dtype) if start is None else np.array(start, dtype)
        self.start = self.start.reshape(1, -1)
        self.x = np.zeros((1, 0, self.layer.input_spec[0].shape[2]), self.layer.dtype)

    def forked(self):
        other = copy.copy(self)
        other.start, other.x = self.start.copy(), self.x.copy()
        return other

    def outputs(self, x):
        """Of one call over all there has been: those of the last steps, x (timesteps, features)."""
        self.x = np.concatenate([self.x, x[np.newaxis]], axis=1)
        return self.layer(self.x, self.start)[0][0, self.x.shape[1] - len(x) :]

    @property
    def state(self):
        """float16 layers' states are float32, which no call returns: those go by their outputs."""
        if not self.x.shape[1]:
            return self.start[0]
        return self.layer(self.x, self.start)[1][0]


class Streams(RuleBasedStateMachine):
    """Streams of one layer, and copies of them, against calls over whole histories."""

    @initialize(layer=small_layers(), batch=st.sampled_from([1, 2, 3, 9]), seed=st.integers(0, 2**32 - 1))
    def start(self, layer, batch, seed):
        self.layer, self.batch, self.rng = layer, batch, np.random.default_rng(seed)
        self.streams = [(layer.stream(batch), [Client(layer) for _ in range(batch)])]

    def chosen(self, pick):
        return self.streams[pick % len(self.streams)]

    def drawn(self, *shape):
        return self.rng.normal(size=shape).astype(self.layer.dtype)

    @rule(pick=st.integers(0, 3), given_out=st.booleans(), apart=st.booleans())
    def step(self, pick, given_out, apart):
        stream, clients = self.chosen(pick)
        x = self.drawn(self.batch, stream._cascade.features)
        out = np.empty((self.batch, self.layer.units), self.layer.dtype) if given_out else None
        found = stream(np.repeat(x, 2, axis=1)[:, ::2] if apart else x, out)
        wanted = np.concatenate(
            [client.outputs(row[np.newaxis]) for client, row in zip(clients, x, strict=True)]
        )
        np.testing.assert_array_equal(found, wanted)

    @rule(pick=st.integers(0, 3), timesteps=st.integers(0, 4))
    def chunk(self, pick, timesteps):
        stream, clients = self.chosen(pick)
        x = self.drawn(self.batch, timesteps, stream._cascade.features)
        found = stream(x)
        assert found.shape == (self.batch, timesteps, self.layer.units)
        if timesteps:
            wanted = np.stack([client.outputs(row) for client, row in zip(clients, x, strict=True)])
            np.testing.assert_array_equal(found, wanted)

    @rule(pick=st.integers(0, 3))
    def set_state(self, pick):
        stream, clients = self.chosen(pick)
        state = self.drawn(self.batch, self.layer.units)
        stream.state = state
        for client, row in zip(clients, state, strict=True):
            client.begin(row)

    @rule(pick=st.integers(0, 3), rows=st.none() | st.lists(st.integers(0, 8), max_size=4))
    def reset(self, pick, rows):
        stream, clients = self.chosen(pick)
        rows = rows if rows is None else [row % self.batch for row in rows]
        stream.reset(rows)
        for row in range(self.batch) if rows is None else rows:
            clients[row].begin()

    @precondition(lambda self: len(self.streams) < 4)
    @rule(pick=st.integers(0, 3))
    def copy(self, pick):
        stream, clients = self.chosen(pick)
        self.streams.append((stream.copy(), [client.forked() for client in clients]))

    @rule(pick=st.integers(0, 3))
    def refuse(self, pick):
        stream, _ = self.chosen(pick)
        with pytest.raises(ValueError, match="x must have shape"):
            stream(self.drawn(self.batch + 1, stream._cascade.features))

    @invariant()
    def states_are_those_of_the_calls(self):
        for stream, clients in getattr(self, "streams", ()):
            wanted = np.stack([client.state for client in clients])
            np.testing.assert_array_equal(
                stream.state.astype(self.layer.dtype), wanted.astype(self.layer.dtype)
            )


class Pools(RuleBasedStateMachine):
    """Two pools of one layer, between which clients move, against calls over whole histories."""

    @initialize(
        layer=small_layers(),
        capacities=st.tuples(st.sampled_from([1, 3, 20]), st.sampled_from([1, 8])),
        seed=st.integers(0, 2**32 - 1),
    )
    def start(self, layer, capacities, seed):
        self.layer, self.rng = layer, np.random.default_rng(seed)
        self.pools = [fastgru.StreamPool(layer, capacity) for capacity in capacities]
        self.clients = [{}, {}]
        self.closed = [[], []]

    def admit(self, which, client, state=None):
        pool, clients = self.pools[which], self.clients[which]
        if len(clients) == pool.capacity:
            with pytest.raises(ValueError, match="slots must be closed before more are opened"):
                pool.open(state)
            return
        slot = pool.open(state)
        assert slot not in clients
        assert slot not in self.closed[which]
        clients[slot] = client

    @rule(which=st.integers(0, 1), count=st.integers(1, 5))
    def open(self, which, count):
        for _ in range(count):
            self.admit(which, Client(self.layer))

    @rule(which=st.integers(0, 1), to=st.integers(0, 1), pickled=st.booleans())
    def move(self, which, to, pickled):
        if self.clients[which]:
            slot = int(self.rng.choice([*self.clients[which]]))
            state = self.pools[which].state(slot)
            state = pickle.loads(pickle.dumps(state)) if pickled else state
            self.admit(to, self.clients[which][slot].forked(), state)

    @rule(which=st.integers(0, 1), share=st.floats(0, 1), kind=st.sampled_from([list, np.array, "apart"]))
    def step(self, which, share, kind):
        pool, clients = self.pools[which], self.clients[which]
        slots = self.rng.permutation([*clients])[: round(share * len(clients))].astype(int)
        x = self.rng.normal(size=(len(slots), pool.features)).astype(self.layer.dtype)
        given = np.repeat(slots, 2)[::2] if kind == "apart" else kind(slots)
        found = pool.step(given, x)
        assert found.shape == (len(slots), pool.units)
        for slot, row, output in zip(slots, x, found, strict=True):
            np.testing.assert_array_equal(output, clients[slot].outputs(row[np.newaxis])[0])

    @rule(which=st.integers(0, 1))
    def close(self, which):
        if self.clients[which]:
            slot = int(self.rng.choice([*self.clients[which]]))
            self.pools[which].close(slot)
            del self.clients[which][slot]
            self.closed[which].append(slot)

    @rule(which=st.integers(0, 1), every=st.booleans(), share=st.floats(0, 1))
    def reset(self, which, every, share):
        clients = self.clients[which]
        slots = [*clients] if every else [slot for slot in clients if self.rng.random() < share]
        self.pools[which].reset(None if every else slots)
        for slot in slots:
            clients[slot].begin()

    @rule(which=st.integers(0, 1), wrong=st.sampled_from(["closed", "twice", "never", "negative"]))
    def refuse(self, which, wrong):
        pool, slots, closed = self.pools[which], [*self.clients[which]], self.closed[which]
        bad = {"closed": closed[:1], "twice": slots[:1], "never": [10**6], "negative": [-7]}[wrong]
        if bad:
            slots = slots + bad
            with pytest.raises(ValueError, match="slots must"):
                pool.step(np.array(slots), np.zeros((len(slots), pool.features), self.layer.dtype))

    @invariant()
    def states_are_those_of_the_calls(self):
        for pool, clients in zip(getattr(self, "pools", ()), getattr(self, "clients", ()), strict=True):
            assert len(pool) == len(clients)
            for slot, client in clients.items():
                found = pool.state(slot)
                np.testing.assert_array_equal(
                    found.astype(self.layer.dtype), client.state.astype(self.layer.dtype)
                )


class TestStreams(Streams.TestCase):
    settings = SETTINGS


class TestPools(Pools.TestCase):
    settings = SETTINGS
