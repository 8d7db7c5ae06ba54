"""Streams, pools and the batcher of models with several inputs and outputs."""

import asyncio
import itertools
import re
import sys
import threading

import numpy as np
import pytest

import fastgru
from fastgru import _compile, _kernels
from fastgru._nodes import (
    Activation,
    Concatenate,
    Convolution,
    Dense,
    Embedding,
    Last,
    Masking,
    Merge,
    Pool,
    Recurrent,
    Repeat,
    Reshape,
    Slice,
)
from fastgru.model import Input, Model, Output

STEPS, ROWS, TOKENS = 9, 4, 11


class Maker:
    """Nodes with numbers of a seed."""

    def __init__(self, seed=0, dtype="float32"):
        self.rng, self.dtype, self.nodes = np.random.default_rng(seed), dtype, []

    def array(self, *shape):
        return self.rng.normal(size=shape).astype(self.dtype)

    def add(self, kind, name, *inputs, outputs=None, **fields):
        self.nodes.append(kind(name=name, inputs=inputs, outputs=outputs or (name,), **fields))
        return name

    def dense(self, name, x, width, units, function="tanh"):
        kernel = self.array(width, units) / 2
        return self.add(Dense, name, x, kernel=kernel, bias=self.array(units), activation=function)

    def gru(self, name, x, features, units, outputs=None, **flags):
        flags = {"return_sequences": True, "dtype": self.dtype} | flags
        layer = fastgru.GRU(units, name=name, **flags)
        layer.build((None, None, features))
        layer.set_weights([self.array(*w.shape) / 2 for w in layer.get_weights()])
        return self.add(Recurrent, name, x, outputs=outputs, layer=layer)

    def model(self, inputs, outputs, **options):
        return Model(inputs, self.nodes, [Output(name) for name in outputs], dtype=self.dtype, **options)


X, C, SPEAKER, T = (
    Input("x", (None, 6)),
    Input("c", (None, 3)),
    Input("speaker", (5,)),
    Input("t", (None,), True),
)


def denoiser(make, **options):
    """A mask and voice activity, of one input."""
    make.gru("h", make.dense("d", "x", 6, 8), 8, 8)
    make.dense("mask", "h", 8, 6, "sigmoid")
    make.gru("g", "h", 8, 4)
    return make.model([X], ["mask", make.dense("vad", "g", 4, 1, "sigmoid")], **options)


def conditioned(make, **options):
    """One output, of two inputs."""
    make.add(Concatenate, "xc", "c", "x")
    kernel = make.array(3, 9, 7)
    make.add(Convolution, "v", "xc", kernel=kernel, padding="causal", dilation=2, activation="relu")
    return make.model([X, C], [make.gru("h", "v", 7, 5)], **options)


def speaking(make, **options):
    """Three outputs, one of which is the last of its sequence, of two inputs and a vector."""
    make.dense("s", "speaker", 5, 8)
    make.add(Merge, "m", make.dense("d", "x", 6, 8), "s", mode="sum")
    make.gru("h", "m", 8, 8)
    make.add(Concatenate, "hc", "h", "c")
    other = {"float32": "float64", "float64": "float32"}[make.dtype]
    make.gru("wide", "hc", 11, 3, dtype=other)
    make.gru("last", "hc", 11, 4, return_sequences=False)
    make.add(Concatenate, "ended", "s", "last")
    return make.model([X, C, SPEAKER], ["wide", "h", make.dense("e", "ended", 12, 2, "softmax")], **options)


def tokens(make, **options):
    """Two outputs, one of which is an input, of indices and numbers."""
    make.add(Embedding, "e", "t", table=make.array(TOKENS, 4))
    make.add(Concatenate, "ec", "e", "x")
    return make.model([T, X], ["x", make.gru("h", "ec", 10, 3)], **options)


def vector_first(make, **options):
    """Two outputs, one of which has no timesteps, of a vector and indices of two tables."""
    make.add(Embedding, "e", "t", table=make.array(TOKENS, 4))
    make.add(Embedding, "f", "u", table=make.array(2 * TOKENS, 4))
    make.add(Repeat, "r", make.dense("s", "speaker", 5, 3), times=STEPS)
    make.add(Concatenate, "a", "f", "e", "r")
    u = T._replace(name="u", shape=(STEPS,))
    inputs = [SPEAKER, T._replace(shape=(STEPS,)), u]
    make.gru("h", "a", 11, 6)
    return make.model(inputs, ["s", "h"], **options)


def masked(make, **options):
    """Two outputs of a sequence of which timesteps are masked."""
    make.add(Embedding, "e", "t", table=make.array(TOKENS, 4), mask_zero=True)
    make.gru("h", "e", 4, 5)
    return make.model([T], ["h", make.gru("g", "h", 5, 3, zero_output_for_mask=True)], **options)


MODELS = [denoiser, conditioned, speaking, tokens, vector_first, masked]


def arrays_of(model, rng, rows=ROWS, steps=STEPS):
    """What a call takes."""
    found = []
    for one in model.inputs:
        if one.indices:
            found.append(rng.integers(0, TOKENS, (rows, steps)) * rng.integers(0, 2, (rows, steps)))
        else:
            shape = (rows, steps, one.shape[1]) if len(one.shape) == 2 else (rows, *one.shape)
            found.append(rng.normal(size=shape).astype(model.dtype))
    return found


def cut(model, arrays, part, rows=slice(None)):
    """Inputs of some rows and timesteps, in the shape that a stream takes."""
    found = [
        array[rows] if len(one.shape) == 1 and not one.indices else array[rows, part]
        for one, array in zip(model.inputs, arrays, strict=True)
    ]
    return found if len(found) > 1 else found[0]


def step_of(model, results, t):
    """The outputs of a timestep; of those without timesteps, of all of them."""
    results = results if isinstance(results, list) else [results]
    return [result if result.ndim == 2 else result[:, t] for result in results]


def wanted_of(model, arrays):
    """The outputs after each timestep, by calls of all timesteps up to it."""
    fixed = any(one.shape[0] == STEPS for one in model.inputs)
    if fixed:
        return [step_of(model, model(arrays), t) for t in range(STEPS)]
    return [step_of(model, model(cut(model, arrays, slice(0, t + 1))), t) for t in range(STEPS)]


def listed(results):
    return results if isinstance(results, list) else [results]


def assert_same(found, wanted):
    assert [a.shape for a in listed(found)] == [b.shape for b in wanted]
    assert all(np.array_equal(a, b) for a, b in zip(listed(found), wanted, strict=True))


WEIGHTS = [None, "int8"] + ["float16"] * bool(_kernels.float16_isas())
OPTIONS = [("float64", None), *(("float32", weights) for weights in WEIGHTS)]
of_models = pytest.mark.parametrize("made", MODELS, ids=lambda made: made.__name__)


@pytest.fixture(params=range(2))
def seed(request):
    return request.param


# ---- the bits of one call ----------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "weights"), OPTIONS)
@of_models
def test_steps_and_chunks_have_the_bits_of_the_whole_sequence(made, dtype, weights, seed, monkeypatch):
    make = Maker(seed, dtype)
    model = made(make, weights_dtype=weights)
    arrays = arrays_of(model, make.rng)
    wanted = wanted_of(model, arrays)
    stream, alone, named = model.stream(ROWS), model.stream(), model.stream(ROWS)
    for t in range(STEPS):
        x = cut(model, arrays, t)
        assert_same(stream(x), wanted[t])
        assert_same(alone(cut(model, arrays, t, slice(1, 2))), [one[1:2] for one in wanted[t]])
        assert_same(
            named(dict(zip(named.input_names, x if isinstance(x, list) else [x], strict=True))), wanted[t]
        )
    states = stream.state
    for chunk in (None, 2):
        if chunk:
            monkeypatch.setattr(_compile, "CHUNK_BYTES", 1)
            monkeypatch.setattr(_compile, "CHUNK_STEPS", chunk)
        pieces = model.stream(ROWS)
        for first, last in itertools.pairwise([0, 1, 4, 6, STEPS]):
            found = listed(pieces(cut(model, arrays, slice(first, last))))
            for t in range(first, last):
                assert_same(step_of(model, found, t - first), wanted[t])
        for one, other in zip(pieces.state, states, strict=True):
            assert np.array_equal(one, other)


@of_models
def test_a_pool_has_the_bits_of_the_whole_sequence(made, seed):
    make = Maker(seed)
    model = made(make, weights_dtype=WEIGHTS[seed % len(WEIGHTS)])
    arrays = arrays_of(model, make.rng)
    wanted = wanted_of(model, arrays)
    pool = fastgru.StreamPool(model, ROWS + 2)
    slots = np.array([pool.open() for _ in range(ROWS)])
    for t in range(STEPS):
        order = make.rng.permutation(ROWS)
        x, want = cut(model, arrays, t, order), [one[order] for one in wanted[t]]
        if t % 2:
            out = [np.full((ROWS, 2 * one.shape[1]), 7, one.dtype)[:, ::2] for one in want]
            out = [np.full((ROWS + 1, one.shape[1] + 2), 7, one.dtype)[1:, 1:-1] for one in want]
            given = out if len(out) > 1 else out[0]
            assert pool.step(slots[order], x, given) is given
            assert_same(out, want)
        else:
            assert_same(pool.step(slots[order].tolist(), x), want)
    assert pool.input_names == tuple(one.name for one in model.inputs)
    assert pool.output_names == tuple(model.outputs)


@of_models
def test_a_batcher_gives_each_client_its_rows(made, seed):
    make = Maker(seed)
    model = made(make)
    arrays = arrays_of(model, make.rng)
    wanted = wanted_of(model, arrays)
    pool = fastgru.StreamPool(model, ROWS)
    slots = [pool.open() for _ in range(ROWS)]

    async def client(batcher, row):
        for t in range(STEPS):
            x = cut(model, arrays, t, row)
            if row % 2:
                x = dict(zip(pool.input_names, x if isinstance(x, list) else [x], strict=True))
            found = await batcher.step(slots[row], x)
            assert isinstance(found, list) == (len(model.outputs) > 1)
            assert_same(found, [one[row] for one in wanted[t]])
            assert all(one.base is None for one in listed(found))

    async def run():
        async with fastgru.MicroBatcher(pool) as batcher:
            await asyncio.gather(*(client(batcher, row) for row in range(ROWS)))

    asyncio.run(run())


def test_inputs_may_lie_anywhere_and_be_of_any_type(seed):
    make = Maker(seed)
    model = speaking(make)
    arrays = [array.astype("f2").astype("f4") for array in arrays_of(model, make.rng)]
    wanted = wanted_of(model, arrays)
    ways = [
        lambda x: tuple(x),
        lambda x: [np.repeat(one, 2, -1)[..., ::2] for one in x],
        lambda x: [np.asfortranarray(one) for one in x],
        lambda x: [one.astype("f2") for one in x],
        lambda x: [x[0].astype("f8"), *x[1:]],
        lambda x: [
            np.frombuffer(b"." + one.tobytes(), np.uint8)[1:].view("f4").reshape(one.shape) for one in x
        ],
    ]
    for way in ways:
        stream, pool = model.stream(ROWS), fastgru.StreamPool(model, ROWS)
        slots = [pool.open() for _ in range(ROWS)]
        for t in range(STEPS):
            x = way(cut(model, arrays, t))
            assert_same(stream(x), wanted[t])
            assert_same(pool.step(slots, x), wanted[t])
        assert_same(step_of(model, model.stream(ROWS)(way(cut(model, arrays, slice(0, 5)))), 4), wanted[4])


def test_one_step_of_indices_beside_a_chunk_of_one_is_a_chunk():
    make = Maker()
    model = tokens(make)
    t, x = arrays_of(model, make.rng, steps=1)
    assert [one.shape for one in model.stream(ROWS)([t, x])] == [(ROWS, 1, 6), (ROWS, 1, 3)]
    assert [one.shape for one in model.stream(ROWS)([t, x[:, 0]])] == [(ROWS, 6), (ROWS, 3)]
    assert [one.shape for one in model.stream(ROWS)([t[:, 0], x[:, 0]])] == [(ROWS, 6), (ROWS, 3)]


# ---- what is returned and written --------------------------------------------------------------------


def test_steps_return_a_new_list_of_the_same_arrays():
    make = Maker()
    model = denoiser(make)
    x = make.array(2, 3, 6)
    stream = model.stream(2)
    first = stream(x[:, 0])
    kept = [one.copy() for one in first]
    again = stream(x[:, 1].astype("f8"))
    third = stream(x[:, 2])
    assert first is not third
    assert all(a is b is c for a, b, c in zip(first, again, third, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, kept, strict=True))
    chunk = stream(x)
    assert not any(np.shares_memory(a, b) for a, b in zip(first, chunk, strict=True))


@pytest.mark.parametrize("steps", [None, 5])
def test_out_is_written_and_returned(steps, seed):
    make = Maker(seed)
    model = denoiser(make)
    shape = (2,) if steps is None else (2, steps)
    x = make.array(*shape, 6)
    wanted = [one.copy() for one in model.stream(2)(x)]
    wide = np.full((*shape, 20), 7, "f4")
    outs = [
        [np.full((*shape, 6), 7, "f4"), np.full((*shape, 1), 7, "f4")],
        (np.full((*shape, 6), 7, "f4"), np.full((*shape, 2), 7, "f4")[..., ::2]),
        [wide[..., 2:8], wide[..., 9:10]],  # side by side in one array
    ]
    for out in outs:
        assert model.stream(2)(x, out) is out
        assert_same([*out], wanted)


def test_outputs_may_overlap_what_the_step_reads(seed):
    make = Maker(seed)
    model = denoiser(make)
    stream = model.stream(2)
    mask, vad = stream(make.array(2, 6))
    twin = stream.copy()
    for feed in (lambda: mask, lambda: mask[::-1], lambda: np.hstack([mask, vad])[:, 1:]):
        x = feed()
        wanted = [one.copy() for one in twin(x.copy())]
        assert_same(stream(x), wanted)
    x = make.array(3, 6)
    wanted = [one.copy() for one in twin(x[:2].copy())]
    assert_same(stream(x[:2], [x[1:], np.empty((2, 1), "f4")]), wanted)
    make = Maker(seed)  # an output that is narrower than the memory that it is read from
    make.add(Concatenate, "y", make.dense("d", "x", 3, 3), "x")
    narrow = make.model([X._replace(shape=(None, 3))], ["y"])
    stream = narrow.stream(2)
    y = stream(make.array(2, 3))
    wanted = narrow.stream(2)(y[:, :3].copy()).copy()
    assert np.array_equal(stream(y[:, :3]), wanted)
    pool = fastgru.StreamPool(narrow, 2)
    slots, memory = [pool.open(), pool.open()], make.array(2, 6)
    wanted = pool.step(slots, memory[:, :3].copy())
    assert np.array_equal(pool.step(slots, memory[:, :3], memory), wanted)


def test_states_are_kept_moved_and_reset(seed):
    make = Maker(seed)
    model = speaking(make)
    arrays = arrays_of(model, make.rng)
    wanted = wanted_of(model, arrays)
    stream = model.stream(ROWS)
    for t in range(4):
        stream(cut(model, arrays, t))
    kept, twin, pool = stream.state, stream.copy(), fastgru.StreamPool(model, ROWS)
    assert [one.shape for one in kept] == [(ROWS, 8), (ROWS, 3), (ROWS, 4)]
    assert_same(twin(cut(model, arrays, 4)), wanted[4])
    stream.reset()
    assert_same(stream(cut(model, arrays, 0)), wanted[0])
    stream.state = kept
    assert_same(stream(cut(model, arrays, 4)), wanted[4])
    slots = [pool.open([one[row] for one in kept]) for row in range(ROWS)]
    assert_same(pool.step(slots, cut(model, arrays, 4)), wanted[4])


# ---- threads -----------------------------------------------------------------------------------------


def test_threads_in_one_stream_advance_it_one_step_each_or_are_refused():
    make = Maker()
    model = speaking(make)
    arrays = arrays_of(model, make.rng)
    x, stream, twin, done = cut(model, arrays, 0), model.stream(ROWS), model.stream(ROWS), []
    refused = []

    def run():
        for _ in range(2000):
            try:
                stream(x)
                done.append(True)
            except RuntimeError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(often)
    assert all("does one thing at a time" in message for message in refused)
    assert len(done) + len(refused) == 6000
    for _ in done:
        twin(x)
    for one, other in zip(stream.state, twin.state, strict=True):
        assert np.array_equal(one, other)


def test_threads_step_slots_of_their_own(seed):
    make = Maker(seed)
    model = speaking(make)
    pool, failures = fastgru.StreamPool(model, 12), []
    whole = [arrays_of(model, np.random.default_rng(100 + i)) for i in range(3)]
    wanted = [wanted_of(model, arrays) for arrays in whole]

    def run(i):
        try:
            for _ in range(20):
                slots = [pool.open() for _ in range(ROWS)]
                for t in range(STEPS):
                    assert_same(pool.step(slots, cut(model, whole[i], t)), wanted[i][t])
                for slot in slots:
                    pool.close(slot)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("several", [False, True])
def test_indices_that_another_thread_changes_are_never_read_beyond_the_table(several):
    make = Maker()
    make.add(Embedding, "e", "t", table=make.array(4, 6))
    make.add(Merge, "m", "e", "x" if several else "e", mode="sum")
    model = make.model([T, X] if several else [T], ["m"])
    indices, stop = np.zeros((64, 1), np.int32), threading.Event()
    x = [indices, np.zeros((64, 6), "f4")] if several else indices
    stream, pool = model.stream(64), fastgru.StreamPool(model, 64)
    slots, refused = np.array([pool.open() for _ in range(64)]), []
    table = make.nodes[0].table

    def spoil():
        while not stop.is_set():
            indices.fill(2**30)
            indices.fill(1)

    thread, often = threading.Thread(target=spoil), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for act in (lambda: stream(x), lambda: pool.step(slots, x)):
            seen = {True: 0, False: 0}
            while min(seen.values()) < 10:
                try:
                    row = act()[0] / (1 if several else 2)
                    assert any(np.array_equal(row, one) for one in table)
                    seen[True] += 1
                except ValueError as error:
                    seen[False] += 1
                    refused.append(str(error))
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(often)
    assert all("must have indices from 0 to 3" in message for message in refused)


# ---- messages ----------------------------------------------------------------------------------------

A, B, S = np.ones((2, 6), "f4"), np.ones((2, 3), "f4"), np.ones((2, 5), "f4")
LONG = np.ones((2, 4, 6), "f4"), np.ones((2, 4, 3), "f4")
OUT = [np.zeros((2, 3), "f4"), np.zeros((2, 8), "f4"), np.zeros((2, 2), "f4")]
BOTH = "for 'x', 'c', 'speaker'"
WRONG = {
    "an array": ((A,), ValueError, f"x must be a list of 3 arrays, {BOTH}, got ndarray"),
    "few": (([A, B],), ValueError, f"x must be a list of 3 arrays, {BOTH}, got 2"),
    "a dict of others": (({"x": A, "c": B},), ValueError, f"x must have arrays {BOTH}, got 'x', 'c'"),
    "a shape": (([A, A, S],), ValueError, "input 'c' must have shape (2, 3)"),
    "rows": (([A, B[:1], S],), ValueError, "input 'c' must have shape (2, 3)"),
    "a type": (([A, B.astype(int), S],), TypeError, "input 'c' must be an array of float32, got int64"),
    "none": (([A, None, S],), TypeError, "input 'c' must be an array, got NoneType"),
    "a vector": (([A, B, S[:, :4]],), ValueError, "input 'speaker' must have shape (2, 5)"),
    "an out": (
        ([A, B, S], OUT[0]),
        ValueError,
        "out must be a list of 3 arrays, for 'wide', 'h', 'e', got ndarray",
    ),
    "few outs": (
        ([A, B, S], OUT[:2]),
        ValueError,
        "out must be a list of 3 arrays, for 'wide', 'h', 'e', got 2",
    ),
    "a shape of out": (([A, B, S], [*OUT[:2], OUT[0]]), ValueError, "out must have shape (2, 2), got (2, 3)"),
    "a type of out": (
        ([A, B, S], [OUT[0], OUT[1].astype("f8"), OUT[2]]),
        ValueError,
        "out must have dtype float32, got float64",
    ),
    "outs that overlap": (
        ([A, B, S], [OUT[1][:, :3], OUT[1], OUT[2]]),
        ValueError,
        "out must be arrays that do not overlap each other, got some that do",
    ),
}
WRONG_OF_STREAMS = {
    "a step and a chunk": (
        ([LONG[0], B, S],),
        ValueError,
        "x must be one step or several in all inputs, got (2, 4, 6), (2, 3)",
    ),
    "chunks": (
        ([LONG[0], LONG[1][:, :3], S],),
        ValueError,
        "x must have as many timesteps in all inputs, got (2, 4, 6), (2, 3, 3)",
    ),
    "a vector with steps": (
        ([*LONG, np.ones((2, 4, 5), "f4")],),
        ValueError,
        "input 'speaker' must have shape (2, 5), as it has no timesteps, got (2, 4, 5)",
    ),
    "outs of a step": (([*LONG, S], OUT), ValueError, "out must have shape (2, 4, 3), got (2, 3)"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), [*WRONG.values(), *WRONG_OF_STREAMS.values()],
                         ids=[*WRONG, *WRONG_OF_STREAMS])  # fmt: skip
def test_wrong_steps_are_refused_and_change_nothing(arguments, error, message):
    model = speaking(Maker())
    stream, pool = model.stream(2), fastgru.StreamPool(model, 2)
    stream([A, B, S])
    state = stream.state
    with pytest.raises(error, match=re.escape(message)):
        stream(*arguments)
    assert all(np.array_equal(a, b) for a, b in zip(stream.state, state, strict=True))
    if message in {message for _, _, message in WRONG_OF_STREAMS.values()}:
        return
    slots = [pool.open([one[row] for one in state]) for row in range(2)]
    with pytest.raises(error, match=re.escape(message)):
        pool.step(slots, *arguments)
    assert all(
        np.array_equal(one[row], other)
        for row, slot in enumerate(slots)
        for one, other in zip(state, pool.state(slot), strict=True)
    )


def test_wrong_steps_of_a_batcher_are_refused():
    pool = fastgru.StreamPool(tokens(Maker()), 2)
    cases = [
        (A[0], ValueError, "x must be a list of 2 arrays, for 't', 'x', got ndarray"),
        ([1, A], ValueError, "input 'x' must have shape (6,), got (2, 6)"),
        ([0.5, A[0]], TypeError, "input 't' must be an integer"),
        ([TOKENS, A[0]], ValueError, f"input 't' must have indices from 0 to {TOKENS - 1}, got {TOKENS}"),
    ]

    async def run():
        slot = pool.open()
        async with fastgru.MicroBatcher(pool) as batcher:
            for x, error, message in cases:
                with pytest.raises(error, match=re.escape(message)):
                    await batcher.step(slot, x)

    asyncio.run(run())


class Sums:
    """A pool of its own kind: rows of two widths, and indices."""

    features, takes_indices, dtype, capacity = (3, 1, 2), (False, True, False), "float64", 8

    def __init__(self, answer=None):
        self.answer = answer

    def step(self, slots, x):
        assert [one.dtype for one in x] == ["f8", "i4", "f8"]
        assert [one.shape for one in x] == [(len(slots), width) for width in self.features]
        return [x[0] * x[1], x[2]] if self.answer is None else self.answer


def test_a_batcher_of_another_pool_takes_and_gives_several_arrays():
    async def run(pool, x):
        async with fastgru.MicroBatcher(pool) as batcher:
            return await asyncio.gather(*(batcher.step(slot, x(slot)) for slot in range(2)))

    found = asyncio.run(run(Sums(), lambda slot: [np.ones(3), slot, np.full(2, 7.0)]))
    for slot, answer in enumerate(found):
        assert_same(answer, [np.full(3, slot, "f8"), np.full(2, 7.0)])
    for x, message in [
        (lambda slot: [np.ones(3), slot], "x must be a list of 3 arrays, for '0', '1', '2', got 2"),
        (lambda slot: [np.ones(3), slot, np.ones(3)], "input '2' must have shape (2,), got (3,)"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            asyncio.run(run(Sums(), x))
    for answer, got in [([np.ones((2, 3)), 5], "int"), ([np.ones((2, 3)), np.ones((3, 1))], "(3, 1)")]:
        with pytest.raises(TypeError, match=re.escape(f"must return an array of 2 rows, got {got}")):
            asyncio.run(run(Sums(answer), lambda slot: [np.ones(3), slot, np.ones(2)]))


def test_what_cannot_be_streamed_is_named():
    def refused(inputs, outputs, message, **options):
        model = make.model(inputs, outputs, **options)
        for act in (model.stream, lambda: fastgru.StreamPool(model, 3)):
            with pytest.raises(ValueError, match=re.escape(message)):
                act()

    make = Maker()
    make.dense("s", "speaker", 5, 3)
    refused(
        [SPEAKER], ["s"], "a stream must have an input of timesteps, got those of 'model': 'speaker' (5,)"
    )
    make = Maker()
    make.add(Merge, "m", "x", "y", mode="sum")
    inputs = [X._replace(shape=(4, 6)), Input("y", (4, 6))]
    assert make.model(inputs, ["m"]).stream()([A[:1], A[:1]]).shape == (1, 6)
    make.nodes.clear()
    make.add(Merge, "m", make.gru("g", "x", 6, 6), "y", mode="sum")
    make.gru("u", "z", 6, 6)
    inputs = [X, Input("y", (4, 6)), Input("z", (5, 6))]
    message = (
        "a stream must have inputs of the same timesteps, got those of 'model': 'x' (None, 6), 'y' (4, 6)"
    )
    refused(inputs, ["m", "u"], message)
    make = Maker()
    make.add(Repeat, "r", "speaker", times=4)
    refused(
        [X, SPEAKER], ["r", make.gru("g", "x", 6, 6)], "step by step: layer 'r' makes timesteps of its own"
    )
    make = Maker()
    make.gru("h", "x", 6, 6, outputs=("y", "last"), return_state=True)
    make.add(Pool, "mean", "y", largest=False)
    refused(
        [X], ["y", "mean"], "the model 'model' cannot run step by step: layer 'mean' needs the whole sequence"
    )
    make = Maker()
    make.gru("h", "x", 6, 6, return_sequences=False)
    make.add(Merge, "m", "x", "h", mode="sum")
    why = "layer 'm' reads the last timestep of a sequence beside all timesteps"
    refused([X], ["m", "h"], f"cannot run step by step: {why}")
    make = Maker()
    make.gru("h", "x", 6, 6, return_sequences=False)
    make.add(Reshape, "r", "h", shape=(2, -1))
    refused([X], ["r"], "cannot run step by step: layer 'r' makes other timesteps")
    make = Maker()
    make.gru("h", "x", 6, 6, outputs=("y", "last"), return_state=True)
    make.nodes[0].inputs = ("x", "first")
    first = Input("first", (6,))
    message = "a stream must have an output beside states, got those of 'model': 'last'"
    refused([X, first], ["last"], message, states=[("first", "last")])


def test_states_of_a_file_are_no_inputs_and_outputs_of_a_stream():
    make = Maker()
    make.gru("h", "x", 6, 6, outputs=("y", "last"), return_state=True)
    make.nodes[0].inputs = ("x", "first")
    make.add(Merge, "m", "y", "c", mode="sum")
    inputs = [Input("first", (6,)), X, C._replace(shape=(None, 6))]
    model = make.model(inputs, ["last", "y", "m"], states=[("first", "last")])
    stream, x = model.stream(2), [make.array(2, 5, 6), make.array(2, 5, 6)]
    assert (stream.input_names, stream.output_names) == (("x", "c"), ("y", "m"))
    _, y, m = model([np.zeros((2, 6), "f4"), *x])
    assert_same(stream(x), [y, m])


def test_last_timesteps_stand_beside_each_other(seed):
    """Vectors of a call that in a stream are there at each step, and have no mask."""
    make = Maker(seed)
    make.add(Masking, "k", "x", value=0.0)
    make.gru("g", "k", 6, 3, return_sequences=False)
    make.add(Last, "l", "k")
    make.add(Slice, "z", "l", start=0, stop=3)
    make.add(Reshape, "r", "g", shape=(3,))
    make.add(Merge, "m", "r", "z", mode="mul", any_mask=True)
    make.add(Concatenate, "a", "speaker", "m")
    model = make.model([X, SPEAKER], [make.add(Activation, "t", "a", activation="tanh"), "m"])
    arrays = arrays_of(model, make.rng)
    arrays[0][make.rng.random((ROWS, STEPS)) < 0.5] = 0
    stream = model.stream(ROWS)
    for t, wanted in enumerate(wanted_of(model, arrays)):
        assert_same(stream(cut(model, arrays, t)), wanted)


def test_a_chunk_of_no_timesteps():
    make = Maker()
    model, other = speaking(make), vector_first(Maker())
    x = [np.zeros((2, 0, 6), "f4"), np.zeros((2, 0, 3), "f4"), S]
    stream = model.stream(2)
    assert [one.shape for one in stream(x)] == [(2, 0, 3), (2, 0, 8), (2, 0, 2)]
    assert not any(one.any() for one in stream.state)
    with pytest.raises(ValueError, match="x must have a timestep or more, as an output has none, got 0"):
        other.stream(2)([S, np.zeros((2, 0), int), np.zeros((2, 0), int)])
