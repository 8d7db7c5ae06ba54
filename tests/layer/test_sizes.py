"""Sizes of more bytes than memory holds, or a size can say: an error at once, and all stays as it was."""

import asyncio

import numpy as np
import pytest

import fastgru

# NumPy's largest arrays; inputs are views of one element, so that they take no memory
MOST = 2**61 - 1
LONG = np.broadcast_to(np.float32(0), (1, MOST, 1))
TALL = np.broadcast_to(np.float32(0), (MOST, 1, 1))


def gru(**arguments):
    return fastgru.GRU(4, **arguments)


def bidirectional(**arguments):
    return fastgru.Bidirectional(gru(**arguments))


def stack(**arguments):
    lower = fastgru.GRU(3, return_sequences=True, time_major=arguments.get("time_major", False))
    return fastgru.Stack([lower, gru(**arguments)])


def refused(call):
    """Assert that a call ends in one of the errors of sizes."""
    with pytest.raises((MemoryError, ValueError)):
        call()


CALLS = {
    "sequences": (LONG, {"return_sequences": True}, {}),
    "time-major sequences": (TALL, {"return_sequences": True, "time_major": True}, {}),
    "a batch": (TALL, {}, {}),
    "a batch and its states": (TALL, {"return_state": True}, {}),
    "a batch in float16": (np.broadcast_to(np.float16(0), (2**62 - 1, 1, 1)), {"dtype": "float16"}, {}),
    "masks of a batch": (TALL, {}, {"mask": np.broadcast_to(True, (MOST, 1))}),
    "lengths of a batch": (TALL[: 2**59], {}, {"lengths": np.broadcast_to(np.int64(1), 2**59)}),
    "a Python activation": (TALL, {"activation": np.tanh}, {}),
    "dropout": (TALL, {"dropout": 0.5}, {"training": True}),
    "a default state": (TALL, {"default_state": [0.5] * 4}, {}),
    "a stateful layer": (TALL, {"stateful": True}, {}),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("made", [gru, bidirectional, stack])
def test_a_call_that_needs_more_than_memory_holds_is_refused(choice, made, name):
    x, arguments, given = CALLS[name]
    layer = made(**arguments)
    if not arguments.get("stateful"):
        layer.build((None, None, 1))
    refused(lambda: layer(x, **given))
    assert layer.built != arguments.get("stateful", False)


def test_a_state_of_a_huge_batch_is_refused(choice):
    layer = gru()
    layer.build((None, None, 1))
    for dtype in (np.float32, np.float16):  # read in place, and cast
        state = np.broadcast_to(dtype(0), (2**58, 4))
        refused(lambda state=state: layer(TALL[: 2**58], state))
    refused(lambda: layer.get_initial_state(TALL))


@pytest.mark.parametrize("batch", [2**57, MOST, 2**63, 2**80])
@pytest.mark.parametrize("made", [gru, bidirectional, stack])
def test_a_recorded_state_of_a_huge_batch_is_refused(made, batch):
    for arguments in ({}, {"default_state": [0.5] * 4}):
        layer = made(stateful=True, **arguments)
        refused(lambda layer=layer: layer.build((batch, None, 3)))
        assert not layer.built
        layer.build((1, None, 3))


@pytest.mark.parametrize("features", [2**31 - 1, 2**31, 2**63, 2**80])
@pytest.mark.parametrize("initializer", ["zeros", "glorot_uniform", "orthogonal"])
def test_weights_that_memory_does_not_hold_are_refused(initializer, features):
    most = (2**31 - 1) // 3
    layer = fastgru.GRU(most, kernel_initializer=initializer, recurrent_initializer=initializer)
    refused(lambda: layer.build((None, None, features)))
    assert not layer.built
    with pytest.raises(ValueError, match="units must be at most"):
        fastgru.GRU(most + 1)


def test_weights_of_which_there_are_only_views_are_refused():
    units = 2**29
    kernel = np.broadcast_to(np.float32(0), (units, 3 * units))
    layer = fastgru.GRU(units, weights=[kernel, kernel, kernel[0]])
    refused(lambda: layer.build((None, None, units)))
    assert not layer.built


@pytest.mark.parametrize("size", [2**31, 2**63, 2**80])
def test_a_stream_and_a_pool_have_a_largest_size(size):
    layer = gru()
    layer.build((None, None, 1))
    with pytest.raises(ValueError, match=f"batch must be at most {2**31 - 1}, got {size}"):
        layer.stream(size)
    with pytest.raises(ValueError, match=f"capacity must be at most {2**31 - 1}, got {size}"):
        fastgru.StreamPool(layer, size)
    with pytest.raises(ValueError, match=f"max_batch must be at most {2**31 - 1}, got {size}"):
        fastgru.MicroBatcher(fastgru.StreamPool(layer, 1), max_batch=size)


def test_a_stream_refuses_chunks_and_rows_that_memory_does_not_hold(choice):
    for layer in (gru(), stack()):
        layer.build((None, None, 1))
        stream = layer.stream()
        stream(np.ones((1, 1), np.float32))
        before = np.copy(np.hstack(stream.state))
        refused(lambda stream=stream: stream(LONG))
        refused(lambda stream=stream: stream.reset(np.broadcast_to(np.int8(0), MOST)))
        np.testing.assert_array_equal(np.hstack(stream.state), before)


def test_a_pool_refuses_slots_that_memory_does_not_hold(choice):
    for layer in (gru(), stack()):
        layer.build((None, None, 1))
        pool = fastgru.StreamPool(layer, 2)
        slot = pool.open()
        for slots in (np.broadcast_to(np.int64(slot), 2**60 - 1), np.broadcast_to(np.int8(slot), MOST)):
            refused(lambda pool=pool, slots=slots: pool.step(slots, TALL[: len(slots), 0]))
            refused(lambda pool=pool, slots=slots: pool.reset(slots))
        pool.step([slot], np.ones((1, 1), np.float32))


class Pool:
    """A pool of the caller's own."""

    features, dtype, capacity = 2**57, "float32", 2**62

    def step(self, slots, x):
        return x


def test_a_batcher_of_a_huge_pool_refuses_its_steps():
    async def step():
        async with fastgru.MicroBatcher(Pool()) as batcher:
            for _ in range(2):
                with pytest.raises((MemoryError, ValueError)):
                    await batcher.step(0, np.broadcast_to(np.float32(0), 2**57))
            assert batcher.pending == 0

    asyncio.run(step())


SHAPES = [(2**31, 2**31), (2**60, 2**60), (2**63, 2), (2**80, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "name", ["zeros", "ones", "constant", "glorot_uniform", "random_normal", "orthogonal", "identity"]
)
def test_initializers_refuse_shapes_that_memory_does_not_hold(name, shape):
    refused(lambda: fastgru.initializers.get(name)(shape))
