"""Computes the parts of a job: in this process, in others on this machine, or on a cluster of Dask."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastgru._errors import need
from fastgru.cli._jobs._work import put

SECONDS = 30  # that a scheduler has to answer


def compute(job: Any, function: Callable[..., Any], number: int, done: Path) -> int:
    """Compute a part, and say on disk that it is done; the number of the part."""
    try:
        job.compute(function, number)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{job.name(number)}: {error}") from error
    put(done, b"", durable=False)
    return number


def _compute(shared: tuple[Any, Callable[..., Any]], number: int, done: Path) -> int:
    return compute(*shared, number, done)


def here(
    job: Any, function: Callable[..., Any], todo: Sequence[int], done: Callable[[int], Path]
) -> Iterator[int]:
    """The parts, as they are done, one after the other in this process."""
    for number in todo:
        yield compute(job, function, number, done(number))


@contextlib.contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """A client of a cluster: the one at an address, or a new one of processes on this machine."""
    need("distributed", "batch", "--workers and --scheduler")
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=SECONDS)
        except (OSError, ValueError) as error:
            raise ValueError(f"--scheduler must be the address of a scheduler of Dask: {error}") from error
        with client:
            yield client
        return
    cluster = LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    with cluster, Client(cluster) as client:
        yield client


def elsewhere(
    job: Any,
    function: Callable[..., Any],
    todo: Sequence[int],
    done: Callable[[int], Path],
    workers: int | None,
    scheduler: str | None,
) -> Iterator[int]:
    """The parts, as they are done, in any order, by the workers of a cluster.

    Parts whose worker dies are computed by another one.

    Raises
    ------
    ValueError
        If a part cannot be computed, or kills its worker again and again; names it.
    """
    with _client(workers, scheduler) as client:
        yield from by(client, job, function, todo, done)


def by(
    client: Any, job: Any, function: Callable[..., Any], todo: Sequence[int], done: Callable[[int], Path]
) -> Iterator[int]:
    """The parts, as they are done, in any order, by the workers of a client; as `elsewhere`."""
    from distributed import KilledWorker, as_completed

    run = os.urandom(8).hex()  # of tasks that another run may have left on the scheduler
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")  # of the network, which goes once
        # a task of its own, which another worker computes again if all that have its result are lost
        shared = client.submit(tuple, [job, function], key=f"fastgru-{run}-job", pure=False)
        tasks = [
            client.submit(_compute, shared, number, done(number), key=f"fastgru-{run}-{number}", pure=False)
            for number in todo
        ]
    numbers = dict(zip(tasks, todo, strict=True))
    try:
        for task in as_completed(tasks):
            try:
                yield task.result()
            except KilledWorker as error:
                raise ValueError(
                    f"{job.name(numbers[task])}: the process that computed it died again and again, as when "
                    "memory is not enough"
                ) from error
    finally:
        client.cancel(tasks)
