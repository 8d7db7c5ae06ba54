"""Clients with a frame every 10 ms, and how late the answers are."""

from __future__ import annotations

import asyncio
import gc
import json
import selectors
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import audio
import numpy as np
import numpy.typing as npt
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

RECORDING = Path(audio.__file__).parent / "data" / "jfk.wav"
PERIOD = audio.HOP / audio.RATE  # s
BUDGET = 1e3 * PERIOD  # ms: the next frame is due then
GRACE = 2.0  # s that the last answers, and each connection, may take
QUANTILES = 50, 99, 99.9, 100

HEADING = f"""\
                ms from when a frame was due to its answer    missed:  sent late   cores busy    server,
clients   frames      p50      p99    p99.9      max  > {BUDGET:g} ms  p99, ms  server  load  us/frame"""


class LoadError(Exception):
    """The server cannot be loaded; the message is one line."""


class Server(NamedTuple):
    """Where the server is, and what it asks for.

    Attributes
    ----------
    host : str
    port : int
    token : bytes or None
        What it lets in.
    tls : SSLContext or None
        That trusts its certificate; without one there is no TLS.
    """

    host: str
    port: int
    token: bytes | None = None
    tls: ssl.SSLContext | None = None

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What requests show."""
        return {"Authorization": f"Bearer {self.token.decode()}"} if self.token else {}

    def url(self, scheme: str, path: str) -> str:
        """Of ws or http, with an s for TLS."""
        return f"{scheme}{'s' if self.tls else ''}://{self.address}{path}"


class Round(NamedTuple):
    """What some clients at once have seen.

    Attributes
    ----------
    late : ndarray, shape (clients, frames)
        Time of each answer since its frame was due, ms; infinite if it never came.
    sent_late : ndarray, shape (clients, frames)
        Time of each frame's leaving since it was due, ms. What the load itself adds to `late`.
    server_cores, load_cores : float
        Cores that the server and the load kept busy.
    cost : float
        Processor time of the server for a frame, us.
    """

    late: npt.NDArray[np.float64]
    sent_late: npt.NDArray[np.float64]
    server_cores: float
    load_cores: float
    cost: float

    @property
    def clients(self) -> int:
        return len(self.late)

    @property
    def missed(self) -> int:
        """Number of answers that came too late or never."""
        return int((self.late > BUDGET).sum())

    def quantiles(self) -> list[float]:
        """p50, p99, p99.9 and the largest of `late`, ms; an answer is one of them, none is between two."""
        return [float(value) for value in np.percentile(self.late, QUANTILES, method="higher")]

    def row(self) -> str:
        """Its line under `HEADING`."""
        quantiles = "".join(f"{value:9.2f}" for value in self.quantiles())
        sent = np.percentile(self.sent_late, 99, method="higher")
        return (
            f"{self.clients:7}{self.late.size:9}{quantiles}{self.missed:9}{sent:9.2f}"
            f"{self.server_cores:8.2f}{self.load_cores:6.2f}{self.cost:10.0f}"
        )


class Client(asyncio.Protocol):
    """One call: sends frames when told, and notes when each answer is there.

    Without a task or a queue of its own: the time of an answer is that of its bytes.

    Parameters
    ----------
    server : Server
    frames : sequence of bytes
        As they are sent, masked.
    size : int
        Bytes of an answer's sound.
    """

    def __init__(self, server: Server, frames: Sequence[bytes], size: int) -> None:
        self._websocket = ClientProtocol(parse_uri(server.url("ws", "/denoise")), max_size=2**16)
        self._headers = server.headers
        self._frames = frames
        self._size = size
        self.sent = np.full(len(frames), np.inf)
        self.answered = np.full(len(frames), np.inf)
        self.answers = 0
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.complaint = ""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        request = self._websocket.connect()
        request.headers.update(self._headers)
        self._websocket.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._websocket.receive_data(data)
        for event in self._websocket.events_received():
            if isinstance(event, Response):
                if self._websocket.handshake_exc is None:
                    self.opened.set_result(None)
            elif isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                if len(event.data) != self._size or self.answers == len(self._frames):
                    self.complaint = f"an answer of {len(event.data)} bytes that nobody asked for"
                    self._transport.abort()
                    return
                self.answered[self.answers] = now
                self.answers += 1
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._websocket.receive_eof()
        if not self.opened.done():
            self.opened.set_result(None)
        if not self.complaint and self.answers < len(self._frames):
            refused = self._websocket.handshake_exc or self._websocket.close_exc
            self.complaint = f"the server ended a call: {refused}"
        self.closed.set_result(None)

    @property
    def waits(self) -> bool:
        """True if an answer is still to come."""
        return self.answers < len(self._frames) and not self.closed.done()

    def send(self, frame: int) -> None:
        """Send a frame by its number, unless the call has ended."""
        if self._websocket.state is State.OPEN:
            self._transport.write(self._frames[frame])
            self.sent[frame] = time.perf_counter()

    def hang_up(self) -> None:
        """Begin to close the connection; the server ends it."""
        if self._websocket.state is State.OPEN:
            self._websocket.send_close()
            self._flush()

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def _flush(self) -> None:
        self._transport.write(b"".join(self._websocket.data_to_send()))


async def _pace(clients: Sequence[Client], due: npt.NDArray[np.float64]) -> None:
    """Send every frame when it is due: due (clients, frames), s of `time.perf_counter`."""
    order = due.argsort(axis=None, kind="stable")
    waiting = list(zip(due.flat[order], *np.unravel_index(order, due.shape), strict=True))
    waiting.reverse()
    while waiting:
        while waiting and waiting[-1][0] <= time.perf_counter():
            _, client, frame = waiting.pop()
            clients[client].send(frame)
        # Answers are read meanwhile, also by a load that is behind its clock.
        await asyncio.sleep(max(0.0, waiting[-1][0] - time.perf_counter()) if waiting else 0.0)


def _loop_of_microseconds() -> asyncio.AbstractEventLoop:
    """The clock of epoll, which asyncio waits with by itself, counts milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def _round(server: Server, count: int, frames: int) -> Round:
    """One number of clients; their clocks are evenly apart, as those of strangers are on average."""
    loop = asyncio.get_running_loop()
    clients = [Client(server, _frames(client, count, frames), 2 * audio.HOP) for client in range(count)]
    try:
        async with asyncio.timeout(GRACE + count * GRACE / 100):
            for client in clients:
                host, port, tls = server.host, server.port, server.tls
                await loop.create_connection(lambda client=client: client, host, port, ssl=tls)
                await client.opened
        before, own, start = _health(server), time.process_time(), time.perf_counter()
        due = start + PERIOD * (1 + np.arange(frames) + np.arange(count)[:, np.newaxis] / count)
        await _pace(clients, due)
        deadline = time.perf_counter() + GRACE
        while any(client.waits for client in clients) and time.perf_counter() < deadline:
            await asyncio.sleep(PERIOD)
        duration = time.perf_counter() - start
        load_cores = (time.process_time() - own) / duration
        after = _health(server)
        complaints = [client.complaint for client in clients if client.complaint]
        for client in clients:
            client.hang_up()
        await asyncio.wait([client.closed for client in clients], timeout=GRACE)
    except TimeoutError:
        raise LoadError(f"{server.address}: {count} clients are not let in within a few seconds") from None
    finally:
        for client in clients:
            client.abort()
    if complaints:
        raise LoadError(f"{server.address}: {complaints[0]}")
    late = 1e3 * (np.stack([client.answered for client in clients]) - due)
    sent_late = 1e3 * (np.stack([client.sent for client in clients]) - due)
    spent = after["cpu_seconds"] - before["cpu_seconds"]
    denoised = max(1, after["frames"] - before["frames"])
    return Round(late, sent_late, spent / duration, load_cores, 1e6 * spent / denoised)


def _frames(client: int, count: int, frames: int) -> list[bytes]:
    """Masked frames of the recording, which is repeated; each client begins at another place."""
    hops = audio.split(audio.read_wav(RECORDING).samples)[:, 0]
    pcm = np.rint(hops * 32768).astype("<i2")
    first = client * len(pcm) // count
    sound = (pcm[(first + frame) % len(pcm)].tobytes() for frame in range(frames))
    return [Frame(Opcode.BINARY, hop).serialize(mask=True) for hop in sound]


def _health(server: Server) -> dict[str, float]:
    """What the server says of itself."""
    request = urllib.request.Request(server.url("http", "/health"), headers=server.headers)
    try:
        with urllib.request.urlopen(request, timeout=GRACE, context=server.tls) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise LoadError(f"{server.address}: {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        why = getattr(reason, "strerror", None) or reason
        raise LoadError(f"no server at {server.address}: {why}") from None


def rounds(server: Server, counts: Sequence[int], seconds: float) -> Iterator[Round]:
    """Put each number of clients on the server for some seconds, one after the other.

    Raises
    ------
    LoadError
        If there is no server, it has too few places, or it ends a call.
    """
    frames = max(1, round(seconds / PERIOD))
    for count in counts:
        deadline = time.monotonic() + GRACE
        while (health := _health(server))["clients"] + count > health["capacity"]:
            if time.monotonic() > deadline:
                raise LoadError(
                    f"{server.address} has {health['capacity']} places, {health['clients']} of them taken: "
                    f"no room for {count} clients"
                )
            time.sleep(0.1)  # those before may still be leaving
        gc.collect()
        gc.freeze()  # what is there stays: looking through it takes longer than a frame
        with asyncio.Runner(loop_factory=_loop_of_microseconds) as runner:
            yield runner.run(_round(server, count, frames))


def verdict(rounds: Sequence[Round]) -> str:
    """The largest number of clients whose p99 is in time, if that of every smaller number is, too."""
    reached = 0
    for one in sorted(rounds, key=lambda one: one.clients):
        if not one.quantiles()[1] < BUDGET:
            return f"up to {reached} clients, not {one.clients}" if reached else f"not even {one.clients}"
        reached = one.clients
    return f"up to {reached} clients, and no more were tried"
