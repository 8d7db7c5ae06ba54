"""Steps of many asyncio tasks in one batch: whose answer is whose, and what nobody else may notice."""

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from conftest import CHOICES

import fastgru
from fastgru import _batcher, _config

PATIENCE = 60  # seconds, after which a test that waits for a thread has failed


class ReferencePool:
    """What a pool promises, in NumPy, around calls of the layer."""

    def __init__(self, layer, capacity):
        self.layer = layer
        self.capacity = capacity
        self.features = layer.get_weights()[0].shape[0]
        self.dtype = layer.dtype
        self.states = {}
        self.opened = 0

    def open(self, state=None):
        if len(self.states) == self.capacity:
            raise ValueError("no slot is free")
        slot, self.opened = self.opened, self.opened + 1
        zeros = np.zeros(self.layer.units, self.dtype)
        self.states[slot] = zeros if state is None else np.array(state, self.dtype)
        return slot

    def close(self, slot):
        del self.states[slot]

    def state(self, slot):
        return self.states[slot].copy()

    def step(self, slots, x):
        slots = [int(slot) for slot in slots]
        x = np.array(x)
        if x.shape != (len(slots), self.features):
            raise ValueError(f"x must have shape ({len(slots)}, {self.features}), got {x.shape}")
        if len(set(slots)) != len(slots) or not set(slots) <= set(self.states):
            raise ValueError(f"slots must be open, and none twice, got {slots}")
        if not slots:
            return np.empty((0, self.layer.units), self.dtype)
        before = np.stack([self.states[slot] for slot in slots])
        after = self.layer(x[:, np.newaxis], initial_state=before)
        self.states.update(zip(slots, after.copy(), strict=True))
        return after


POOLS = [ReferencePool, fastgru.StreamPool]


class Recorded:
    """A pool that writes down what it computes, and can be held in the middle of it."""

    def __init__(self, pool, held=False):
        self.pool = pool
        self.features, self.dtype, self.capacity = pool.features, pool.dtype, pool.capacity
        self.batches = []  # slots
        self.inputs = []  # (slot, x), of steps that were made
        self.threads = set()
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)
        self.held = held

    def step(self, slots, x):
        self.batches.append([int(slot) for slot in slots])
        self.threads.add(threading.current_thread())
        self.entered.release()
        if self.held:
            assert self.leave.acquire(timeout=PATIENCE)
        y = self.pool.step(slots, x)
        self.inputs += zip(self.batches[-1], np.array(x), strict=True)
        return y

    async def is_computing(self):
        """Wait until the next batch is being computed."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=PATIENCE)

    def release(self):
        """Hold no batch any more."""
        self.held = False
        self.leave.release()


@pytest.fixture
def layer(monkeypatch):
    """On the packed engine, whose bits do not depend on company."""
    if CHOICES[0].engine != "packed":
        pytest.skip("no packed engine for this CPU")
    monkeypatch.setattr(_config, "CHOICE", CHOICES[0])
    layer = fastgru.GRU(16, reset_after=True)
    layer.build((None, None, 8))
    return layer


@pytest.fixture(params=POOLS)
def pool(request, layer):
    """A pool of 16 open slots, 0 to 15."""
    pool = request.param(layer, 16)
    assert [pool.open() for _ in range(16)] == list(range(16))
    return pool


def rows(count, seed=0, features=8):
    return np.random.default_rng(seed).normal(size=(count, features)).astype(np.float32)


async def turns(count=10):
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


def start(batcher, slots, x=None):
    """A task for every step."""
    x = rows(len(slots)) if x is None else x
    return [asyncio.create_task(batcher.step(slot, row)) for slot, row in zip(slots, x, strict=True)]


def stepped(layer, steps):
    """The states after each of the steps of one slot, made alone."""
    state = np.zeros((1, layer.units), np.float32)
    states = []
    for x in steps:
        state = layer(x[np.newaxis, np.newaxis], initial_state=state)
        states.append(state[0])
    return states


def of_slot(slot, recorded):
    return [x for which, x in recorded if which == slot]


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "fastgru.MicroBatcher"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    for thread in workers():
        thread.join(PATIENCE)
        assert not thread.is_alive()


# ---- company ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", POOLS)
@pytest.mark.parametrize("packed", [c for c in CHOICES if c.engine == "packed"], ids="-".join)
def test_an_answer_does_not_depend_on_who_rode_along(monkeypatch, make, packed, seed):
    monkeypatch.setattr(_config, "CHOICE", packed)
    layer = fastgru.GRU(33)
    layer.build((None, None, 8))
    pool = make(layer, 40)
    random = np.random.default_rng(seed)
    recorded = Recorded(pool)

    async def client(batcher, slot, x):
        states = []
        for row in x:
            await turns(random.integers(0, 6))
            states.append(await batcher.step(slot, row))
        return states

    async def main():
        slots = [pool.open() for _ in range(40)]
        inputs = [rows(random.integers(1, 30), 100 * seed + slot) for slot in slots]
        async with fastgru.MicroBatcher(recorded, max_batch=int(random.integers(5, 40))) as batcher:
            answers = await asyncio.gather(*map(client, [batcher] * 40, slots, inputs))
        return inputs, answers

    for x, states in zip(*asyncio.run(main()), strict=True):
        np.testing.assert_array_equal(states, stepped(layer, x))
    assert len({len(batch) for batch in recorded.batches}) > 1  # kinds of company


def test_steps_of_one_turn_of_the_loop_ride_together(pool):
    recorded = Recorded(pool)

    async def main():
        async with fastgru.MicroBatcher(recorded) as batcher:
            await asyncio.gather(*start(batcher, [3, 1, 2]))
            await asyncio.gather(*start(batcher, range(16)))
        assert {type(thread) for thread in recorded.threads} == {threading.Thread}
        assert threading.current_thread() not in recorded.threads

    asyncio.run(main())
    assert recorded.batches == [[3, 1, 2], list(range(16))]


def test_steps_that_arrive_while_a_batch_is_computed_ride_in_the_next(pool):
    recorded = Recorded(pool, held=True)

    async def main():
        async with fastgru.MicroBatcher(recorded) as batcher:
            tasks = start(batcher, [0])
            await recorded.is_computing()
            assert batcher.pending == 0
            for slot in (4, 2, 0, 7):
                tasks += start(batcher, [slot])
                await turns()  # the loop runs, whatever is being computed
            assert batcher.pending == 4
            assert not any(task.done() for task in tasks)
            recorded.release()
            await asyncio.gather(*tasks)
            assert batcher.pending == 0

    asyncio.run(main())
    assert recorded.batches == [[0], [4, 2, 0, 7]]


def test_a_full_batch_does_not_wait_for_company(pool):
    recorded = Recorded(pool)

    async def main():
        async with fastgru.MicroBatcher(recorded, max_batch=3, max_wait_us=1e300) as batcher:
            tasks = start(batcher, [0, 1])
            await turns()
            tasks += start(batcher, [1])  # which cannot ride along
            await turns()
            assert recorded.batches == []
            assert batcher.pending == 3
            tasks += start(batcher, [2])
            await asyncio.gather(tasks[0], tasks[1], tasks[3])
            assert batcher.pending == 1  # and waits for company of its own
            assert not tasks[2].done()
            tasks += start(batcher, [5])
            await turns()
            assert recorded.batches == [[0, 1, 2]]  # closing lets nobody wait
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert recorded.batches == [[0, 1, 2], [1, 5]]


def test_a_step_waits_for_company_no_longer_than_it_may(pool):
    recorded = Recorded(pool)

    async def main():
        async with fastgru.MicroBatcher(recorded, max_wait_us=1000) as batcher:
            for _ in range(5):
                await batcher.step(0, rows(1)[0])
            await asyncio.gather(*start(batcher, [3, 4, 4]))
            (task,) = start(batcher, [5])
            await turns(2)
            task.cancel()
            await asyncio.wait([task])  # made or not, as the time was
            await batcher.step(6, rows(1)[0])

    asyncio.run(main())
    assert recorded.batches[:5] == [[0]] * 5
    assert sorted(slot for batch in recorded.batches[5:] for slot in batch) in ([3, 4, 4, 6], [3, 4, 4, 5, 6])


def expected_batches(slots, max_batch):
    """First come, first served; a slot once a batch."""
    waiting = list(slots)
    while waiting:
        batch = []
        for slot in waiting:
            if slot not in batch and len(batch) < max_batch:
                batch.append(slot)
        for slot in batch:
            waiting.remove(slot)  # its first
        yield batch


@pytest.mark.parametrize("seed", range(20))
def test_who_came_first_is_served_first_and_cancelled_steps_are_none(pool, layer, seed):
    random = np.random.default_rng(seed)
    max_batch = int(random.integers(1, 17))
    slots = random.integers(0, random.integers(2, 17), size=random.integers(1, 80)).tolist()
    cancelled = random.random(len(slots)) < random.choice([0, 0.1, 0.5, 0.9])
    recorded = Recorded(pool, held=True)

    async def main():
        async with fastgru.MicroBatcher(recorded, max_batch=max_batch) as batcher:
            first = start(batcher, [15])
            await recorded.is_computing()
            tasks = start(batcher, slots, rows(len(slots), seed))
            await turns()
            for i in np.flatnonzero(cancelled):
                tasks[i].cancel()
            if random.random() < 0.5:
                await turns()
                assert batcher.pending == np.count_nonzero(~cancelled)
            recorded.release()
            answers = await asyncio.gather(*first, *tasks, return_exceptions=True)
            assert batcher.pending == 0
        return answers[1:]

    answers = asyncio.run(main())
    assert recorded.batches[0] == [15]
    lasting = np.flatnonzero(~cancelled)
    assert recorded.batches[1:] == list(expected_batches([slots[i] for i in lasting], max_batch))
    assert all(isinstance(answers[i], asyncio.CancelledError) for i in np.flatnonzero(cancelled))
    for slot in set(slots) - {15}:
        mine = [i for i in lasting if slots[i] == slot]
        wanted = stepped(layer, rows(len(slots), seed)[mine]) if mine else []
        np.testing.assert_array_equal([answers[i] for i in mine], wanted)


# ---- cancellation ----------------------------------------------------------------------------


def test_a_step_cancelled_while_it_waits_is_none_and_one_being_computed_counts(pool, layer):
    recorded = Recorded(pool, held=True)
    x = rows(4)

    async def main():
        async with fastgru.MicroBatcher(recorded) as batcher:
            computed, bystander = start(batcher, [0, 1], x[:2])
            await recorded.is_computing()
            (waiting,) = start(batcher, [2], x[2:3])
            await turns()
            computed.cancel()
            waiting.cancel()
            await asyncio.wait([computed, waiting])  # neither waits for the batch
            assert computed.cancelled()
            assert waiting.cancelled()
            assert batcher.pending == 0
            recorded.release()
            np.testing.assert_array_equal(await bystander, stepped(layer, x[1:2])[0])
            np.testing.assert_array_equal(await batcher.step(0, x[3]), stepped(layer, x[[0, 3]])[1])

    asyncio.run(main())
    assert recorded.batches == [[0, 1], [0]]
    np.testing.assert_array_equal(pool.state(2), np.zeros(16))


@pytest.mark.parametrize("max_wait_us", [0, 300])
@pytest.mark.parametrize("seed", range(3))
def test_storms_of_cancellation_hurt_nobody(pool, layer, seed, max_wait_us):
    # slots 0 to 7 are left in peace; of 400 tasks on the others many are cancelled, whenever
    random = np.random.default_rng(seed)
    recorded = Recorded(pool)
    peaceful = [rows(40, 1000 * seed + slot) for slot in range(8)]
    stormy = [(int(random.integers(8, 16)), x) for x in rows(400, 1000 * seed + 999)]

    async def calm(batcher, slot):
        states = []
        for x in peaceful[slot]:
            await turns(random.integers(0, 4))
            states.append(await batcher.step(slot, x))
        return states

    async def storm(tasks):
        while not all(task.done() for task in tasks):
            for i in random.integers(0, len(tasks), size=random.integers(1, 20)):
                tasks[i].cancel()
            await turns(random.integers(1, 10))

    async def late(batcher, i):
        await turns(i // 4)
        return await batcher.step(*stormy[i])

    async def main():
        async with fastgru.MicroBatcher(
            recorded, max_batch=int(random.integers(1, 17)), max_wait_us=max_wait_us
        ) as batcher:
            tasks = [asyncio.create_task(late(batcher, i)) for i in range(400)]
            calms = asyncio.gather(*(calm(batcher, slot) for slot in range(8)))
            spared, victims = tasks[::3], [task for i, task in enumerate(tasks) if i % 3]
            await asyncio.gather(storm(victims), *spared)
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            await calms
            assert batcher.pending == 0
            return calms.result(), answers

    calms, answers = asyncio.run(main())
    for slot in range(8):
        np.testing.assert_array_equal(calms[slot], stepped(layer, peaceful[slot]))
    for slot in range(8, 16):
        computed = of_slot(slot, recorded.inputs)
        states = stepped(layer, computed)
        np.testing.assert_array_equal(pool.state(slot), states[-1] if states else np.zeros(16))
        # the steps that were made are some of those asked for, in their order, and all that were answered
        wanted = iter([i for i in range(400) if stormy[i][0] == slot])
        answered = 0
        for x, state in zip(computed, states, strict=True):
            i = next(i for i in wanted if (stormy[i][1] == x).all())
            if not isinstance(answers[i], BaseException):
                np.testing.assert_array_equal(answers[i], state)
                answered += 1
        mine = [answer for answer, (which, _) in zip(answers, stormy, strict=True) if which == slot]
        assert answered == sum(isinstance(answer, np.ndarray) for answer in mine)
    assert all(isinstance(answer, np.ndarray) for answer in answers[::3])
    assert all(isinstance(answer, np.ndarray | asyncio.CancelledError) for answer in answers)


def test_a_loop_that_ends_while_a_batch_is_computed_leaves_a_quiet_thread(pool):
    recorded = Recorded(pool, held=True)
    batcher = fastgru.MicroBatcher(recorded)

    async def main(batcher):
        tasks = start(batcher, [0, 1])
        await recorded.is_computing()
        tasks += start(batcher, [2])
        await turns()
        return tasks

    tasks = asyncio.run(main(batcher))
    assert all(task.cancelled() for task in tasks)
    recorded.release()
    (worker,) = workers()
    alive = weakref.ref(batcher)
    del batcher, tasks
    worker.join(PATIENCE)  # ends of itself, for nobody has the batcher any more
    assert not worker.is_alive()
    assert alive() is None
    assert recorded.batches == [[0, 1]]


# ---- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "slots", [[99], [99, 0], [0, 99, 1, 2, 98, 3, 4], [97, 98, 99], [99, 99, 0], [-1, 0, 2**70]]
)
def test_an_unknown_slot_hurts_only_its_own_request(pool, layer, slots):
    recorded = Recorded(pool)
    x = rows(len(slots))

    async def main():
        async with fastgru.MicroBatcher(recorded) as batcher:
            return await asyncio.gather(*start(batcher, slots, x), return_exceptions=True)

    for slot, row, answer in zip(slots, x, asyncio.run(main()), strict=True):
        if 0 <= slot < 16:
            np.testing.assert_array_equal(answer, stepped(layer, [row])[0])
        else:
            assert isinstance(answer, ValueError)
    assert sorted(slot for slot, _ in recorded.inputs) == sorted(slot for slot in slots if 0 <= slot < 16)


def test_a_slot_closed_while_its_step_waits_is_an_error_of_that_step(pool):
    recorded = Recorded(pool, held=True)

    async def main():
        async with fastgru.MicroBatcher(recorded) as batcher:
            tasks = start(batcher, [0])
            await recorded.is_computing()
            tasks += start(batcher, [1, 2])
            await turns()
            pool.close(1)
            recorded.release()
            return await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(main())] == [np.ndarray, ValueError, np.ndarray]


class Faulty:
    """A pool whose slot 3 raises, or whose every step returns, what it is told to."""

    features, dtype, capacity = 8, "float32", 16

    def __init__(self, error=None, answer=None):
        self.error, self.answer = error, answer

    def step(self, slots, x):
        if self.error is not None and 3 in slots:
            raise self.error
        return x.copy() if self.answer is None else self.answer


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no more"),
        ZeroDivisionError(),
        KeyboardInterrupt(),
        SystemExit(3),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
def test_whatever_a_pool_raises_reaches_who_asked(error):
    async def main():
        async with fastgru.MicroBatcher(Faulty(error)) as batcher:
            others = start(batcher, [1, 2, 4])
            with pytest.raises(type(error)) as raised:
                await batcher.step(3, rows(1)[0])
            if not isinstance(error, asyncio.CancelledError):
                assert raised.value is error
            np.testing.assert_array_equal(await asyncio.gather(*others), rows(3))
            np.testing.assert_array_equal(await batcher.step(5, rows(1)[0]), rows(1)[0])

    asyncio.run(main())


def test_a_stop_iteration_arrives_as_another_error():
    async def main():
        async with fastgru.MicroBatcher(Faulty(StopIteration(3))) as batcher:
            with pytest.raises(RuntimeError, match=r"the pool raised StopIteration\(3\)"):
                await batcher.step(3, rows(1)[0])

    asyncio.run(main())


class Uncopyable(np.ndarray):
    def copy(self):
        raise MemoryError("no more")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((1, 2), TypeError("must return an array of 2 rows, got tuple")),
        (np.float32(1), TypeError("must return an array of 2 rows, got float32")),
        (np.zeros((3, 8)), TypeError(r"must return an array of 2 rows, got \(3, 8\)")),
        (np.zeros((2, 8)).view(Uncopyable), MemoryError("no more")),
    ],
    ids=["tuple", "scalar", "rows", "memory"],
)
def test_a_step_that_was_made_is_not_made_again_for_its_answer(answer, error):
    recorded = Recorded(Faulty(answer=answer))

    async def main():
        async with fastgru.MicroBatcher(recorded) as batcher:
            return await asyncio.gather(*start(batcher, [1, 2]), return_exceptions=True)

    first, second = asyncio.run(main())
    assert first is not second
    for raised in (first, second):
        with pytest.raises(type(error), match=str(error)):
            raise raised
    assert recorded.batches == [[1, 2]]


@pytest.mark.parametrize(
    ("slot", "x", "error", "message"),
    [
        (0, np.zeros(9, np.float32), ValueError, r"x must have shape \(8,\), got \(9,\)"),
        (0, np.zeros((1, 8), np.float32), ValueError, r"x must have shape \(8,\), got \(1, 8\)"),
        (0, np.zeros(8, np.int64), TypeError, "x must be an array of float32, got int64"),
        (0, [0.0] * 8, TypeError, "x must be an array, got list"),
        ("0", np.zeros(8, np.float32), TypeError, "slot must be an integer, got '0'"),
        (0.0, np.zeros(8, np.float32), TypeError, r"slot must be an integer, got 0\.0"),
        (True, np.zeros(8, np.float32), TypeError, "slot must be an integer, got True"),
    ],
)
def test_what_cannot_be_computed_is_not_queued(pool, slot, x, error, message):
    recorded = Recorded(pool)

    async def main():
        async with fastgru.MicroBatcher(recorded) as batcher:
            with pytest.raises(error, match=message):
                await batcher.step(slot, x)

    asyncio.run(main())
    assert recorded.batches == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_batch": 0}, ValueError, "max_batch must be a positive integer, got 0"),
        ({"max_batch": 2.0}, TypeError, r"max_batch must be an integer, got 2\.0"),
        ({"max_batch": True}, TypeError, "max_batch must be an integer, got True"),
        ({"max_wait_us": -1}, ValueError, "max_wait_us must be finite and not negative, got -1"),
        ({"max_wait_us": float("nan")}, ValueError, "max_wait_us must be finite and not negative, got nan"),
        ({"max_wait_us": float("inf")}, ValueError, "max_wait_us must be finite and not negative, got inf"),
        ({"max_wait_us": 10**400}, ValueError, "max_wait_us must be finite and not negative, got 1000"),
        ({"max_wait_us": "5"}, TypeError, "max_wait_us must be a number, got '5'"),
        ({"max_wait_us": None}, TypeError, "max_wait_us must be a number, got None"),
    ],
)
def test_arguments_out_of_range_are_refused(pool, arguments, error, message):
    with pytest.raises(error, match=message):
        fastgru.MicroBatcher(pool, **arguments)


def test_a_pool_that_lacks_something_is_refused(layer):
    with pytest.raises(TypeError, match="got GRU without step, features, capacity"):
        fastgru.MicroBatcher(layer)


# ---- arrays ----------------------------------------------------------------------------------


def test_the_callers_buffer_may_be_used_again_and_the_answer_is_the_callers(pool, layer):
    recorded = Recorded(pool, held=True)
    x = rows(3)
    buffer = np.empty((8, 2))[:, 0]  # strided, and of another type

    async def main():
        async with fastgru.MicroBatcher(recorded) as batcher:
            tasks = start(batcher, [9])
            await recorded.is_computing()
            for row in x:
                buffer[:] = row
                tasks += start(batcher, [0], [buffer])
                await turns()
            buffer[:] = np.nan
            recorded.release()
            return (await asyncio.gather(*tasks))[1:]

    answers = asyncio.run(main())
    np.testing.assert_array_equal(answers, stepped(layer, x))
    for answer in answers:
        assert answer.shape == (16,)
        assert answer.dtype == np.float32
        assert answer.base is None
        assert answer.flags.writeable


def test_properties_say_what_the_batcher_does(pool):
    batcher = fastgru.MicroBatcher(pool)
    assert (batcher.max_batch, batcher.max_wait_us, batcher.pending) == (16, 0, 0)
    batcher = fastgru.MicroBatcher(pool, max_batch=5, max_wait_us=250)
    assert (batcher.max_batch, batcher.max_wait_us) == (5, 250)
    assert fastgru.MicroBatcher(pool, max_batch=10**9).max_batch == 16
    assert repr(batcher).endswith("0 pending>")
    with pytest.raises(AttributeError):
        batcher.pending = 3


# ---- the end ---------------------------------------------------------------------------------


def test_closing_finishes_what_waits_and_takes_no_more(pool, layer):
    recorded = Recorded(pool, held=True)
    x = rows(5)

    async def main():
        batcher = fastgru.MicroBatcher(recorded)
        tasks = start(batcher, [0], x[:1])
        await recorded.is_computing()
        tasks += start(batcher, [0, 0, 1, 2], x[1:])
        await turns()
        closing = [asyncio.create_task(batcher.close()) for _ in range(3)]
        await turns()
        closing[1].cancel()
        await turns()
        assert closing[1].cancelled()
        with pytest.raises(RuntimeError, match="has been closed"):
            await batcher.step(5, x[0])
        assert not closing[0].done()
        recorded.release()
        await asyncio.gather(closing[0], closing[2])
        assert all(task.done() for task in tasks)
        assert workers() == []
        await batcher.close()
        with pytest.raises(RuntimeError, match="has been closed"):
            await batcher.step(5, x[0])
        return [task.result() for task in tasks]

    np.testing.assert_array_equal(asyncio.run(main())[:3], stepped(layer, x[:3]))
    assert recorded.batches == [[0], [0, 1, 2], [0]]


def test_a_batcher_whose_closing_is_cancelled_closes_all_the_same(pool):
    recorded = Recorded(pool, held=True)

    async def main():
        batcher = fastgru.MicroBatcher(recorded)
        tasks = start(batcher, [0])
        await recorded.is_computing()
        tasks += start(batcher, [1])
        closing = asyncio.create_task(batcher.close())
        await turns()
        closing.cancel()
        recorded.release()
        await asyncio.gather(*tasks)
        (worker,) = workers() or [threading.current_thread()]
        if worker is not threading.current_thread():
            await asyncio.to_thread(worker.join, PATIENCE)
        assert workers() == []

    asyncio.run(main())
    assert recorded.batches == [[0], [1]]


def test_closing_when_all_that_waited_has_been_cancelled(pool):
    async def main():
        async with fastgru.MicroBatcher(pool, max_wait_us=1e12) as batcher:
            tasks = start(batcher, [0, 1, 1])
            await turns()
            for task in tasks:
                task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)

    asyncio.run(main())
    np.testing.assert_array_equal(pool.state(0), np.zeros(16))


def test_closing_what_was_never_used(pool):
    async def main():
        async with fastgru.MicroBatcher(pool):
            assert workers() == []

    async def fail():
        async with fastgru.MicroBatcher(pool) as batcher:
            await batcher.step(0, rows(1)[0])
            raise ZeroDivisionError

    asyncio.run(main())
    with pytest.raises(ZeroDivisionError):
        asyncio.run(fail())
    assert workers() == []


def test_a_batcher_belongs_to_one_loop(pool):
    batcher = fastgru.MicroBatcher(pool)

    async def use():
        return await batcher.step(0, rows(1)[0])

    async def main():
        await use()
        for call in (use, batcher.close):
            with pytest.raises(RuntimeError, match="belongs to another event loop"):
                await asyncio.to_thread(asyncio.run, call())
        await use()
        await batcher.close()

    asyncio.run(main())
    with pytest.raises(RuntimeError, match="belongs to another event loop"):
        asyncio.run(use())


def test_loops_may_follow_one_another(pool, layer):
    x = rows(30)

    async def main(row, closed):
        batcher = fastgru.MicroBatcher(pool)
        answer = await batcher.step(0, row)
        if closed:
            await batcher.close()
        return answer

    answers = [asyncio.run(main(row, i % 2)) for i, row in enumerate(x)]
    np.testing.assert_array_equal(answers, stepped(layer, x))


@pytest.mark.outside
@pytest.mark.parametrize("end", ["pass", "gc.freeze(); keep = batcher", "await batcher.close()"])
def test_an_interpreter_ends_whatever_a_batcher_does(end):
    code = f"""
import asyncio, gc, sys, threading, time, numpy as np, fastgru
class Pool:
    features, dtype, capacity = 3, "float32", 4
    def step(self, slots, x):
        if slots[0] == 2:
            started.set()
            time.sleep(1000)
        return x.copy()
async def main():
    global keep
    batcher = fastgru.MicroBatcher(Pool())
    print((await batcher.step(1, np.ones(3, np.float32))).sum())
    {end}
    if {end!r}[0] == "g":
        asyncio.create_task(batcher.step(2, np.ones(3, np.float32)))
        while not started.is_set():
            await asyncio.sleep(0)
started = threading.Event()
asyncio.run(main())
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "3.0\n", "")


# ---- memory ----------------------------------------------------------------------------------


@pytest.mark.large
def test_memory_is_flat_over_20000_steps(pool):
    # answers, cancellations and errors, with no help of the garbage collector
    x = rows(1)[0]

    async def client(batcher, slot, steps):
        for i in range(steps):
            if i % 8 == 7:
                task = asyncio.create_task(batcher.step(slot, x))
                await turns(i % 3)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            elif i % 50 == 20:
                with contextlib.suppress(ValueError):
                    await batcher.step(99 + slot, x)
            else:
                await batcher.step(slot, x)

    async def main():
        sizes = []
        async with fastgru.MicroBatcher(pool, max_batch=12) as batcher:
            for steps in (100, 600, 600):
                await asyncio.gather(*(client(batcher, slot, steps) for slot in range(16)))
                sizes.append(tracemalloc.get_traced_memory()[0])
        return sizes

    tracemalloc.start()
    gc.disable()
    try:
        sizes = asyncio.run(main())
    finally:
        gc.enable()
        tracemalloc.stop()
    assert sizes[2] - sizes[1] < 20_000


def test_no_task_waits_for_ever_if_there_is_no_memory_around_a_step(monkeypatch, pool):
    x = np.ones(pool.features, pool.dtype)
    computed, failing = _batcher._computed, [True]

    def without_memory(*arguments):
        if failing.pop():
            raise MemoryError("no more")
        return computed(*arguments)

    monkeypatch.setattr(_batcher, "_computed", without_memory)

    async def main():
        async with fastgru.MicroBatcher(pool) as batcher:
            results = []
            for _ in range(2):
                steps = asyncio.gather(*(batcher.step(slot, x) for slot in (0, 1)), return_exceptions=True)
                results.append(await asyncio.wait_for(steps, PATIENCE))
                failing.append(False)
            return results

    errors, answers = asyncio.run(main())
    assert [repr(error) for error in errors] == ["MemoryError('no more')"] * 2
    np.testing.assert_array_equal(answers[0], answers[1])
