"""Frames of many clients for a long time: a pool, a stream, a batcher, the service.

As a program it is the process whose memory is watched:

    python -m campaign.soak pool|batcher SECONDS SEED NEIGHBOURS
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np

from campaign import serving
from campaign.part import Given, Trials, finished, not_run, python
from campaign.record import Record

CAPACITY, FEATURES, UNITS = 64, 16, 24
SOUND = 8191  # frames that inputs are taken from, again and again
CHUNK = 2000  # steps between two looks at memory
SHORTEST, LONGEST = 20, 3000  # steps of a client
CHECKED = 0.02  # share of clients whose bits are compared with a call over their whole sequence
DRIFT = 1e-5  # of the stream against float64
PATIENCE = 600  # s beyond its time
NEIGHBOURS = (0, 1, 2)


def run(given: Given) -> Iterator[Record]:
    if sys.platform != "linux":
        yield not_run("soak", "reads memory as Linux has it")
        return
    for neighbours in NEIGHBOURS:
        beside = f" beside {neighbours} busy loops" if neighbours else ""
        yield soaked("pool", f"pool and stream{beside}", given, given.seconds * (0.4, 0.1, 0.1)[neighbours])
    yield soaked("batcher", "batcher", given, given.seconds * 0.2)
    if why := serving.cannot_serve():
        yield not_run("service", why)
    else:
        yield service(given, given.seconds * 0.2)


def soaked(way: str, subject: str, given: Given, seconds: float) -> Record:
    trials = Trials(subject, "frames", seconds, given.kept)
    neighbours = int(subject.split()[-3]) if "beside" in subject else 0
    busy = [subprocess.Popen(python("-c", "while True: pass")) for _ in range(neighbours)]
    try:
        command = python("-m", "campaign.soak", way, seconds, given.seed)
        done = finished(command, seconds + PATIENCE)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    if done is None or done.returncode:
        said = ["it hangs"] if done is None else done.stderr.strip().splitlines()
        trials.fail(said[-1] if said else "it broke off", "\n".join(said))
        return trials.record()
    found = json.loads(done.stdout.splitlines()[-1])
    trials.count, trials.figures = found.pop("frames"), found
    return trials.record()


# ---- what is watched -----------------------------------------------------------------------------


class Memory:
    """Pages that a process has, looked at from time to time."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def look(self) -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        self.seen.append(serving.pages(os.getpid()))

    def quarters(self) -> tuple[list[int], list[int]]:
        """The looks of the second quarter of the time, when all has warmed up, and of the last one."""
        quarter = len(self.seen) // 4
        return self.seen[quarter : 2 * quarter], self.seen[3 * quarter :]

    def growth(self) -> int:
        """Pages by which the least of the last quarter is above the least of the second one."""
        early, late = self.quarters()
        return min(late) - min(early) if early else 0

    def check(self) -> None:
        """Fail if every look of the last quarter has found more than all of the second, as of a leak."""
        early, late = self.quarters()
        if len(early) > 3 and min(late) > max(early):
            raise AssertionError(f"memory grows: {self.seen}")


class Late:
    """Times of the last steps, in memory that is all taken at once."""

    def __init__(self) -> None:
        self._times = np.ones(1 << 18, np.float32)
        self._count = 0

    def add(self, seconds: float) -> None:
        self._times[self._count % len(self._times)] = seconds
        self._count += 1

    def quantiles(self) -> dict[str, float]:
        """p50, p99 and p99.9, microseconds."""
        found = np.percentile(self._times[: self._count], [50, 99, 99.9], method="higher")
        names = ("p50, us", "p99, us", "p99.9, us")
        return {name: round(1e6 * float(value), 1) for name, value in zip(names, found, strict=True)}


def layers() -> tuple[object, object]:
    """A layer in float32, and the same in float64."""
    import fastgru

    made = []
    for dtype in ("float32", "float64"):
        layer = fastgru.Stack(
            [fastgru.GRU(UNITS, return_sequences=True, dtype=dtype), fastgru.GRU(UNITS, dtype=dtype)]
        )
        layer.build((None, None, FEATURES))
        made.append(layer)
    made[1].set_weights([weight.astype("f8") for weight in made[0].get_weights()])
    return made[0], made[1]


def sound() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SOUND, FEATURES)).astype("f4")


def frames_of(first: int, count: int, x: np.ndarray) -> np.ndarray:
    """A client's frames from the first on."""
    return x[(first + np.arange(count)) % SOUND]


# ---- a pool and a stream -------------------------------------------------------------------------


def pool(seconds: float, rng: random.Random) -> dict[str, float]:
    """A pool whose clients come and go, and beside it a stream that never ends, in float32 and float64."""
    import fastgru

    single, double = layers()
    x, pool_, memory = sound(), fastgru.StreamPool(single, CAPACITY), Memory()
    stream, exact = single.stream(1), double.stream(1)
    clients: dict[int, list[int]] = {}  # by slot: where its sound begins, steps so far, steps in all
    late = Late()
    errors: list[float] = []
    steps = frames = checked = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or not errors:
        worst = 0.0
        for _ in range(CHUNK):
            while len(clients) < CAPACITY and rng.random() < 0.5:
                clients[pool_.open()] = [rng.randrange(SOUND), 0, rng.randrange(SHORTEST, LONGEST)]
            if clients:
                slots = [*clients]
                places = [sum(client[:2]) % SOUND for client in clients.values()]
                begun = time.perf_counter()
                out = pool_.step(slots, x[places])
                late.add(time.perf_counter() - begun)
                frames += len(slots)
                for row, slot in enumerate(slots):
                    client = clients[slot]
                    client[1] += 1
                    if client[1] == client[2]:
                        if rng.random() < CHECKED:
                            whole = single(frames_of(client[0], client[2], x)[np.newaxis])
                            assert np.array_equal(whole[0], out[row]), f"other bits: {client}"
                            checked += 1
                        pool_.close(slot)
                        del clients[slot]
            frame = x[steps % SOUND][np.newaxis]
            worst = max(worst, float(np.abs(stream(frame) - exact(frame.astype("f8"))).max()))
            steps += 1
        frames += CHUNK
        errors.append(worst)
        memory.look()
    memory.check()
    assert max(errors) < DRIFT, f"the stream drifts: {errors}"
    return {
        "frames": frames,
        "clients compared": checked,
        "largest error": max(errors),
        "pages grown": memory.growth(),
        **late.quantiles(),
    }


# ---- a batcher -----------------------------------------------------------------------------------


def batcher(seconds: float, rng: random.Random) -> dict[str, float]:
    """Tasks that come, step, stall, are cancelled and go."""
    import fastgru

    single, _ = layers()
    x, pool_, memory = sound(), fastgru.StreamPool(single, CAPACITY), Memory()
    counts = {"frames": 0, "clients compared": 0, "clients cancelled": 0}
    late = Late()
    end = time.monotonic() + seconds

    async def client(batch: object, first: int, count: int) -> None:
        slot = pool_.open()
        try:
            for step in range(count):
                begun = time.perf_counter()
                out = await batch.step(slot, x[(first + step) % SOUND])
                late.add(time.perf_counter() - begun)
                counts["frames"] += 1
                if rng.random() < 0.002:
                    await asyncio.sleep(0.002)
            whole = single(frames_of(first, count, x)[np.newaxis])
            assert np.array_equal(whole[0], out), "other bits"
            counts["clients compared"] += 1
        finally:
            pool_.close(slot)

    async def serve() -> None:
        async with fastgru.MicroBatcher(pool_) as batch:
            tasks: set[asyncio.Task[None]] = set()
            while time.monotonic() < end or not counts["clients compared"]:
                while len(tasks) < CAPACITY // 2:
                    tasks.add(asyncio.create_task(client(batch, rng.randrange(SOUND), rng.randrange(1, 200))))
                if rng.random() < 0.05:
                    rng.choice([*tasks]).cancel()
                    counts["clients cancelled"] += 1
                done, tasks = await asyncio.wait(tasks, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    with contextlib.suppress(asyncio.CancelledError):
                        task.result()
                if counts["frames"] > 20_000 * len(memory.seen):
                    memory.look()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(serve())
    assert len(pool_) == 0
    memory.check()
    return counts | {"pages grown": memory.growth()} | late.quantiles()


# ---- the service ---------------------------------------------------------------------------------


def service(given: Given, seconds: float) -> Record:
    """Clients that talk, and others that come and go, stall, flood and send garbage."""
    import service_clients

    trials, rng = Trials("service", "conversations", seconds, given.kept), given.rng()
    with service_clients.serving(*serving.ARGUMENTS) as (server, address):
        host, port = address.split(":")
        others = 0
        with serving.talkers(address, 2) as talkers:
            memory = Memory()
            while (trials.left or talkers.talks < 2) and not talkers.wrong:
                disturb(rng, address, (host, int(port)))
                others += 1
                if others % 50 == 0:
                    memory.seen.append(serving.pages(server.pid))
            trials.count = talkers.talks
        service_clients.wait_for_places(address, 0)
        trials.figures = {"clients that disturb": others, "pages grown": memory.growth()}
        try:
            memory.check()
        except AssertionError as error:
            trials.fail(str(error))
        if talkers.wrong:
            trials.fail(talkers.wrong[0])
    return trials.record()


def disturb(rng: random.Random, address: str, place: tuple[str, int]) -> None:
    """Be a client that nobody wants."""
    import socket

    import service_clients

    from campaign.targets import protocol

    with contextlib.suppress(OSError), socket.create_connection(place, timeout=5) as connection:
        kind = rng.randrange(5)
        if kind == 0:  # no word
            return
        if kind == 1:
            connection.sendall(rng.randbytes(rng.randrange(1, 5000)))
            return
        connection.sendall(protocol.REQUEST)
        connection.recv(4096)
        if kind == 2:  # flood, and take no answers
            connection.settimeout(0.1)
            connection.sendall(protocol.SOUND * 400)
        elif kind == 3:
            connection.sendall(protocol.SOUND + rng.randbytes(300))
            connection.recv(4096)
        else:  # stall in the middle of a frame
            connection.sendall(protocol.SOUND[: rng.randrange(1, len(protocol.SOUND))])
            threading.Event().wait(0.02)
    if rng.random() < 0.05:
        with contextlib.suppress(Exception):
            service_clients.health(address)


def main(way: str, seconds: str, seed: str) -> None:
    found = {"pool": pool, "batcher": batcher}[way](float(seconds), random.Random(f"{way} {seed}"))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
