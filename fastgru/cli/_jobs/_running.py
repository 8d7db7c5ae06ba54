"""Computes the parts of a job: in this process, in others on this machine, or on a cluster of Dask."""

import contextlib
import functools
import hashlib
import os
import pickle
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


@functools.lru_cache(1)
def _read(path: Path, digest: str) -> Any:
    """The job and the function that the command has written, once in a worker."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{path} must be what the command has written, and is another")
    return pickle.loads(content)


def _compute(path: Path, digest: str, number: int, done: Path) -> int:
    job, function = _read(path, digest)
    return compute(job, function, number, done)


def here(
    job: Any, function: Callable[..., Any], todo: Sequence[int], done: Callable[[Any], Path]
) -> Iterator[int]:
    """The parts, as they are done, one after the other in this process."""
    for number in todo:
        yield compute(job, function, number, done(number))


@contextlib.contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """A client of a cluster: the one at an address, or a new one of processes on this machine."""
    need("distributed", "batch", "--workers and --scheduler")
    from distributed import Client

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=SECONDS)
        except (OSError, ValueError) as error:
            raise ValueError(f"--scheduler must be the address of a scheduler of Dask: {error}") from error
        with client:
            yield client
        return
    with local_cluster(workers) as cluster, Client(cluster) as client:
        yield client


@contextlib.contextmanager
def local_cluster(workers: int | None) -> Iterator[Any]:
    """Worker processes on this machine, of one thread each, of which Dask keeps no statistics."""
    import dask
    from distributed import LocalCluster

    quiet = {
        "distributed.worker.profile.enabled": False,
        "distributed.worker.memory.monitor-interval": "1s",
        "distributed.admin.system-monitor.interval": "10s",
    }
    options = {
        "processes": True,
        "threads_per_worker": 1,
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": 50,
    }
    with dask.config.set(quiet), LocalCluster(n_workers=workers, **options) as cluster:
        yield cluster


def elsewhere(
    job: Any,
    function: Callable[..., Any],
    todo: Sequence[int],
    done: Callable[[Any], Path],
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
    client: Any, job: Any, function: Callable[..., Any], todo: Sequence[int], done: Callable[[Any], Path]
) -> Iterator[int]:
    """The parts, as they are done, in any order, by the workers of a client; as `elsewhere`."""
    from distributed import KilledWorker, as_completed

    # In a file: tasks that depend on a result of Dask would all go to the worker that has it.
    path, content = done("job"), pickle.dumps((job, function))
    put(path, content, durable=False)
    digest, run = hashlib.sha256(content).hexdigest(), os.urandom(8).hex()
    tasks = [
        client.submit(_compute, path, digest, number, done(number), key=f"fastgru-{run}-{number}", pure=False)
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
