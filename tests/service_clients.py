"""examples/service under test: its program, its parts in this process, and clients of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from scipy.io import wavfile
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

import fastgru

EXAMPLE = Path(__file__).parents[1] / "examples" / "service"
DENOISE = EXAMPLE.parent / "denoise"
HOP = 160  # samples
PLACES = 4  # of the server
PATIENCE = 120  # s


def environment(*folders: Path) -> dict[str, str]:
    """What a program finds the package under test with, installed or not, behind some folders."""
    search = [*map(str, folders), str(Path(fastgru.__file__).parents[1]), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))}


def run(*arguments: object, before: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The program, until it ends."""
    command = [sys.executable, EXAMPLE, *map(str, arguments)]
    return subprocess.run(
        command, env=environment(*before), capture_output=True, text=True, check=False, timeout=PATIENCE
    )


@contextmanager
def serving(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on a free port, and its address."""
    command = [sys.executable, EXAMPLE, "serve", "--port", "0", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(), **pipes) as server:
        try:
            ready = server.stdout.readline()
            assert ready, server.stderr.read()
            yield server, re.match(r"wss?://(127\.0\.0\.1:\d+)/denoise: ", ready)[1]
        finally:
            server.kill()


def assert_refused(done: subprocess.CompletedProcess[str], complaint: str, status: int = 2) -> None:
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("service: ")
    assert complaint in done.stderr


# ---- clients -----------------------------------------------------------------------------------------------


def call(address: str, tls: ssl.SSLContext | None = None, **options: object) -> ClientConnection:
    url = f"{'wss' if tls else 'ws'}://{address}/denoise"
    # close() then waits until the server has let go
    patience = {"open_timeout": PATIENCE, "close_timeout": PATIENCE}
    return connect(url, compression=None, ssl=tls, **patience, **options)


def health(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/health", timeout=PATIENCE) as answer:
        return json.load(answer)


def wait_for_places(address: str, clients: int) -> None:
    """Until this many clients are left; the server hears of a lost one when it reads on."""
    pause = threading.Event()
    for _ in range(100 * PATIENCE):
        if health(address)["clients"] == clients:
            return
        pause.wait(0.01)
    raise AssertionError(health(address))


def hops(samples: np.ndarray) -> np.ndarray:
    """Frames of a call, int16, shape (frames, 160): the last, of silence, brings the last sound."""
    return np.concatenate([samples, np.zeros(HOP, np.int16)]).reshape(-1, HOP)


def answer(client: ClientConnection) -> np.ndarray:
    message = client.recv(timeout=PATIENCE)
    assert isinstance(message, bytes)
    return np.frombuffer(message, "<i2")


def talk(client: ClientConnection, frames: np.ndarray) -> np.ndarray:
    """The answers to frames, one after the other, both (n, 160)."""
    answers = []
    for frame in frames:
        client.send(frame.tobytes())
        answers.append(answer(client))
    return np.stack(answers)


def end(client: ClientConnection) -> tuple[int, str]:
    """Code and reason that the server closes a call with."""
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=PATIENCE)
    return closed.value.rcvd.code, closed.value.rcvd.reason


def recorded() -> np.ndarray:
    """A second of the recording, and two of other sound, int16, 16 kHz, shape (3, 16000)."""
    speech = wavfile.read(DENOISE / "data" / "jfk.wav")[1]
    noise = np.random.default_rng(0).normal(0, 2000, 16_000).astype(np.int16)
    return np.stack([speech[8_000:24_000], speech[60_000:76_000] // 3, noise + speech[30_000:46_000] // 2])


def certificate(folder: Path, name: str = "certificate") -> tuple[Path, Path]:
    """A certificate of this machine's own address, and its key, as PEM."""
    files = folder / f"{name}.pem", folder / f"{name}.key"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    where = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run([*made.split(), *where], check=True, capture_output=True)
    return files


# ---- parts -------------------------------------------------------------------------------------------------


@contextmanager
def parts() -> Iterator[dict[str, ModuleType]]:
    """The example's modules, which find each other as the program's do."""
    names = "audio", "nsnet2", "denoiser", "frames", "batches", "handshake", "call", "load", "server"
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        for folder in DENOISE, EXAMPLE:
            patch.syspath_prepend(folder)
        yield {name: __import__(name) for name in names}
        for name in names:
            del sys.modules[name]


class Echo:
    """In the place of the network: answers what it hears, and fails on a frame that begins with `BAD`."""

    BAD = 666

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.frames = 0
        self.slots: set[int] = set()
        self._opened = 0

    def __len__(self) -> int:
        return len(self.slots)

    def open(self) -> int:
        assert len(self.slots) < self.capacity
        self._opened += 1
        self.slots.add(self._opened)
        return self._opened

    def close(self, slot: int) -> None:
        self.slots.remove(slot)

    def step(self, slots: list[int], x: np.ndarray) -> np.ndarray:
        assert self.slots >= set(slots)
        assert len(set(slots)) == len(slots) == len(x)
        pcm = (x * 32768).astype("<i2")
        if (pcm[:, 0] == self.BAD).any():
            raise ArithmeticError("a bad frame")
        self.frames += len(slots)
        return pcm


@contextmanager
def hosting(parts, denoiser, *, make_loop=None, tls=None, **limits) -> Iterator[str]:
    """The service in a thread of this process, and its address."""
    server = parts["server"]
    running = SimpleNamespace()
    ready = threading.Event()

    async def serve(listener):
        running.loop, running.end = asyncio.get_running_loop(), asyncio.Event()
        service = server.Service(denoiser, parts["call"].Limits(**limits))
        ready.set()
        await service.run(listener, tls, running.end)

    def run(listener):
        with asyncio.Runner(loop_factory=make_loop or server.new_event_loop) as runner:
            runner.run(serve(listener))

    with server.listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=run, args=(listener,))
        thread.start()
        assert ready.wait(PATIENCE)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            running.loop.call_soon_threadsafe(running.end.set)
            thread.join(PATIENCE)
        assert not thread.is_alive()
