"""Steps that asyncio tasks request one by one, computed in batches."""

import asyncio
import contextlib
import heapq
import threading
import time
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import _validate, _validate_streams

Array = NDArray[Any]


class Pool(Protocol):
    """What a batcher needs of a pool."""

    @property
    def features(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def capacity(self) -> int: ...
    def step(self, slots: Any, x: Any) -> Array: ...


class _Request:
    """One step that a task waits for."""

    __slots__ = ("arrived", "future", "next", "number", "queued", "row", "slot")

    def __init__(self, number: int, slot: int, row: Array, future: asyncio.Future[Array]) -> None:
        self.number = number
        self.slot = slot
        self.row = row
        self.future = future
        self.arrived = 0.0  # by time.monotonic(), unless max_wait_us is 0
        self.queued = True
        self.next: _Request | None = None  # of the same slot


# For the worker: a batch to compute, or a time of time.monotonic() until which it waits for another job; the
# loop; and the callback for the loop's thread. None ends the worker.
_Job = tuple[list[_Request] | float, asyncio.AbstractEventLoop, Callable[..., None]]


class MicroBatcher:
    """Computes the steps that asyncio tasks ask for in batches, outside the event loop's thread.

    Steps that are requested while a batch is computed form the next one, and so do those that are
    requested in one iteration of the event loop.

    Parameters
    ----------
    pool : StreamPool
        Or any object with its `step(slots, x)`, `features`, `dtype` and `capacity`, such as a whole network
        around a pool. A step that raises must leave all states unchanged. Its arrays are overwritten later.
    max_batch : int, optional
        Most rows of a batch; by default, and at most, the capacity of the pool.
    max_wait_us : float
        Microseconds that a step may wait for others when nothing is being computed and the batch is not
        full.

    Raises
    ------
    ValueError
        If `max_batch` is less than 1, or `max_wait_us` negative or not finite.
    TypeError
        If the pool lacks something, or another argument is of the wrong type.

    Notes
    -----
    On the packed engine an answer has the same bits whatever other steps are in the batch.

    Steps are computed in the order of their requests, those of one slot in different batches. A step that
    waits for an earlier one of its slot does not delay other slots: later requests fill the batch that it
    cannot join.

    A task that is cancelled while its step waits takes the step back: the state of its slot stays as it
    was. Once the step is being computed it counts, and only its answer is dropped.

    If the pool refuses a batch, it is tried in halves, recursively, so that an error reaches only the task
    that requested the step: all others get their answers.

    A batcher belongs to the event loop that it is first used in. It has a thread of its own from the first
    step to `close()`, or until the batcher is dropped. The number of waiting steps has no
    limit: a service decides by `pending` when to refuse clients.

    Examples
    --------
    >>> import asyncio
    >>> import numpy as np
    >>> import fastgru
    >>> layer = fastgru.GRU(4)
    >>> layer.build((None, None, 3))
    >>> pool = fastgru.StreamPool(layer, 100)
    >>> async def client(batcher):
    ...     slot = pool.open()
    ...     for x in np.ones((5, 3), np.float32):
    ...         y = await batcher.step(slot, x)
    ...     pool.close(slot)
    ...     return y
    >>> async def main():
    ...     async with fastgru.MicroBatcher(pool) as batcher:
    ...         return await asyncio.gather(client(batcher), client(batcher))
    >>> [y.shape for y in asyncio.run(main())]
    [(4,), (4,)]
    """

    def __init__(self, pool: Pool, *, max_batch: int | None = None, max_wait_us: float = 0) -> None:
        lacking = [name for name in ("step", "features", "dtype", "capacity") if not hasattr(pool, name)]
        if lacking:
            raise TypeError(
                f"pool must be a StreamPool or have its step, features, dtype and capacity, got "
                f"{type(pool).__name__} without {', '.join(lacking)}"
            )
        self._pool = pool
        self._features = pool.features
        self._takes_indices = bool(getattr(pool, "takes_indices", False))
        self._dtype = np.dtype(np.int32 if self._takes_indices else pool.dtype)
        self._max_batch = pool.capacity
        if max_batch is not None:
            self._max_batch = min(_validate.positive("max_batch", max_batch), pool.capacity)
        self._max_wait_us = _validate.duration("max_wait_us", max_wait_us)
        self._max_wait = self._max_wait_us * 1e-6
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._worker: threading.Thread | None = None
        # the first waiting step of each slot, by its number; `next` leads to the later ones
        self._heads: list[tuple[int, _Request]] = []  # a heap
        self._tails: dict[int, _Request] = {}  # the last step of every slot
        self._number = 0  # of the last request
        self._pending = 0
        self._computing = False
        self._starting = False  # True while a call of _start is scheduled
        self._timed = False  # True while the worker waits to call _start_at_last
        self._closing = False
        self._closed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<MicroBatcher of {self._pool!r}: {self._pending} pending>"

    @property
    def max_batch(self) -> int:
        """Most rows of a batch."""
        return self._max_batch

    @property
    def max_wait_us(self) -> float:
        """Microseconds that a step may wait for others."""
        return self._max_wait_us

    @property
    def pending(self) -> int:
        """Number of waiting steps, without those that are being computed."""
        return self._pending

    async def step(self, slot: int, x: Any) -> Array:
        """Advance one slot by one step.

        Parameters
        ----------
        slot : int
            An open slot of the pool.
        x : ndarray, shape (features,)
            Of the pool's dtype; other float types are cast. It is copied before the first wait. A pool that
            takes indices takes an integer.

        Returns
        -------
        ndarray, shape (units,)
            The output of the step, in a new array.

        Raises
        ------
        ValueError
            If the slot is not open or `x` has another shape.
        TypeError
            If the slot is no integer or `x` no array of floats.
        RuntimeError
            If the batcher has been closed or belongs to another event loop.
        Exception
            Whatever else the pool raises.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._bind(loop)
        if self._closing:
            raise RuntimeError("the MicroBatcher has been closed")
        slot = _validate_streams.slot(slot)
        if self._takes_indices:
            row = _validate_streams.index_row("x", x)
        else:
            row = _validate_streams.row("x", x, self._features, self._dtype)
        if self._worker is None:
            self._employ()
        self._number += 1
        request = _Request(self._number, slot, row, loop.create_future())
        if self._max_wait:
            request.arrived = time.monotonic()
        last = self._tails.get(slot)
        self._tails[slot] = request
        if last is None:
            heapq.heappush(self._heads, (request.number, request))
        else:
            last.next = request
        self._pending += 1
        if not (self._computing or self._starting):
            self._starting = True
            loop.call_soon(self._start)  # after all tasks that are ready to run have requested
        try:
            return await request.future
        finally:
            self._dequeue(request)
            del request  # its future may hold an exception, which holds this frame

    async def close(self) -> None:
        """Take no more steps, finish those that wait, and end the thread.

        Any number of tasks may close a batcher, any number of times. If one of them is
        cancelled, the batcher closes all the same.

        Raises
        ------
        RuntimeError
            If the batcher belongs to another event loop.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._bind(loop)
        self._closing = True
        self._start()  # without waiting for others
        await self._closed.wait()
        if self._worker is not None:
            self._worker.join()  # which has nothing left to do

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to the first event loop, and to no other."""
        if self._loop is not None:
            raise RuntimeError("the MicroBatcher belongs to another event loop, which it was first used in")
        self._loop = loop

    def _employ(self) -> None:
        """Start the worker, which holds no reference to the batcher while there is nothing to do."""
        rows = np.empty((self._max_batch, self._features), self._dtype)
        worker = threading.Thread(
            target=_work, args=(self._jobs, self._pool, rows), name="fastgru.MicroBatcher", daemon=True
        )
        worker.start()
        weakref.finalize(self, self._jobs.put, None)
        self._worker = worker

    def _dequeue(self, request: _Request) -> None:
        if request.queued:
            request.queued = False
            self._pending -= 1

    # ---- batches, all in the loop's thread -------------------------------------------------

    def _start(self) -> None:
        """Hand a batch to the worker, unless it has one or the waiting steps may wait for others."""
        self._starting = False
        if self._computing:
            return
        assert self._loop is not None
        if self._max_wait and self._heads and len(self._heads) < self._max_batch and not self._closing:
            due = self._heads[0][1].arrived + self._max_wait
            if due > time.monotonic():
                if not self._timed:
                    self._timed = True
                    self._jobs.put((due, self._loop, self._start_at_last))
                return
        batch = self._take()
        if batch:
            self._computing = True
            self._timed = False  # the worker forgets it
            self._jobs.put((batch, self._loop, self._deliver))
        elif self._closing and not self._closed.is_set():
            self._closed.set()
            self._jobs.put(None)

    def _start_at_last(self) -> None:
        self._timed = False
        self._start()

    def _take(self) -> list[_Request]:
        """The next batch: the first waiting step of each slot, in the order of requests."""
        batch: list[_Request] = []
        later = []
        while self._heads and len(batch) < self._max_batch:
            _, request = heapq.heappop(self._heads)
            following = request.next
            if following is None:
                del self._tails[request.slot]
            if request.queued and not request.future.done():
                batch.append(request)
                if following is not None:
                    later.append(following)
            elif following is not None:  # the slot has no step in the batch yet
                heapq.heappush(self._heads, (following.number, following))
            self._dequeue(request)
        for request in later:
            heapq.heappush(self._heads, (request.number, request))
        return batch

    def _deliver(self, batch: list[_Request], answers: list[Any]) -> None:
        """Give the tasks what the worker has computed."""
        self._computing = False
        try:
            self._start()  # first, because tasks take time to read their answers
        finally:  # whatever it raises, these get their answers
            for request, answer in zip(batch, answers, strict=True):
                if request.future.done():  # cancelled
                    continue
                if isinstance(answer, BaseException):
                    request.future.set_exception(answer)
                else:
                    request.future.set_result(answer)


# ---- the worker ------------------------------------------------------------------------------


def _work(jobs: SimpleQueue[_Job | None], pool: Pool, rows: Array) -> None:
    """Do jobs until one is None; rows (max_batch, features) is overwritten."""
    job = jobs.get()
    while job is not None:
        work, loop, call = job
        arguments: tuple[Any, ...] = ()
        if isinstance(work, float):
            try:
                job = jobs.get(timeout=min(max(work - time.monotonic(), 0), threading.TIMEOUT_MAX))
                continue
            except Empty:
                pass
        else:
            arguments = work, _answers(pool, rows, work)
        with contextlib.suppress(RuntimeError):  # a closed loop's, where nobody waits
            loop.call_soon_threadsafe(call, *arguments)
        del job, work, loop, call, arguments  # they hold the batcher, its tasks and their answers
        job = jobs.get()


def _answers(pool: Pool, rows: Array, batch: list[_Request]) -> list[Any]:
    """An array or an exception for each request, also if memory runs out outside the pool's step."""
    try:
        return _answers_of_halves(pool, rows, batch)
    except MemoryError as error:  # if it ended the worker, all tasks would wait for ever
        return [MemoryError(*error.args) for _ in batch]
    finally:
        del batch  # an exception holds this frame, and the request's future the exception


def _answers_of_halves(pool: Pool, rows: Array, batch: list[_Request]) -> list[Any]:
    """An array or an exception for each request; if the pool refuses the batch, its halves are tried."""
    answers = _computed(pool, [request.slot for request in batch], [request.row for request in batch], rows)
    try:
        if not isinstance(answers, BaseException):
            return answers
        if len(batch) == 1:
            return [answers]
        half = len(batch) // 2
        return _answers_of_halves(pool, rows, batch[:half]) + _answers_of_halves(pool, rows, batch[half:])
    finally:
        del answers, batch  # as above


def _computed(pool: Pool, slots: list[int], inputs: list[Array], rows: Array) -> list[Any] | BaseException:
    """A new array or an exception for each slot; if the pool refused the step, what it raised."""
    x = rows[: len(slots)]
    try:
        np.concatenate(inputs, out=x.reshape(-1))
        outputs = pool.step(np.array(slots, np.intp), x)
    except StopIteration as error:  # a future cannot hold one
        stopped = RuntimeError(f"the pool raised {error!r}")
        stopped.__cause__ = error
        return stopped
    except BaseException as error:
        return error
    if not isinstance(outputs, np.ndarray) or outputs.shape[:1] != (len(slots),):
        got = getattr(outputs, "shape", None) or type(outputs).__name__
        message = f"the pool's step must return an array of {len(slots)} rows, got {got}"
        return [TypeError(message) for _ in slots]
    try:
        return [row.copy() for row in outputs]  # of a view, one kept row would keep the whole batch
    except MemoryError as error:
        return [MemoryError(*error.args) for _ in slots]
