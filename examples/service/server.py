"""The service: who may come in, how long, and the end.

/denoise   10 ms in, 10 ms out: 160 samples of 16-bit PCM, little-endian, 16 kHz, mono
/health    how many calls there are, as JSON

One thread reads and writes all sockets and computes. So no call waits for another thread to be woken, nor
for Python's lock.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import ssl
import time
from collections import Counter
from pathlib import Path
from typing import Any

import frames
from batches import Batches
from call import PATIENCE, Call, Limits
from denoiser import Denoiser

SWEEP = 0.25  # s between looks at deadlines
EXHAUSTED = 0.1  # s until the next try, where the system has no more files

try:
    from uvloop import new_event_loop
except ModuleNotFoundError:  # on Windows
    from asyncio import new_event_loop


class Service:
    """Connections and what they share.

    Parameters
    ----------
    denoiser : Denoiser
    limits : Limits
    """

    def __init__(self, denoiser: Denoiser, limits: Limits) -> None:
        self.denoiser = denoiser
        self.limits = limits
        self.batches = Batches(denoiser)
        self._calls: set[Call] = set()
        self._addresses: Counter[str] = Counter()  # connections of each
        self._tasks: set[asyncio.Task[None]] = set()  # one for each connection

    def health(self) -> dict[str, Any]:
        """What `/health` shows."""
        return {
            "clients": len(self.denoiser),
            "capacity": self.denoiser.capacity,
            "frames": self.denoiser.frames,
            "cpu_seconds": time.process_time(),
        }

    async def run(self, listener: socket.socket, tls: ssl.SSLContext | None, end: asyncio.Event) -> None:
        """Serve until the end; calls that still go on are closed with 1012, restart."""
        accepting = asyncio.create_task(self._accept(listener, tls))
        sweeping = asyncio.create_task(self._sweep())
        await end.wait()
        accepting.cancel()
        for call in [*self._calls]:
            call.end(frames.RESTART, "the server ends")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PATIENCE)
        for call in [*self._calls]:
            call.abort()
        for task in [sweeping, *self._tasks]:
            task.cancel()
        await asyncio.gather(accepting, sweeping, *self._tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Let connections in; those that an address has too many of are closed at once."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                connection, (address, *_) = await loop.sock_accept(listener)
            except OSError:  # no more files, or a client that has gone already
                await asyncio.sleep(EXHAUSTED)
                continue
            if self._addresses[address] >= self.limits.per_address:
                connection.close()
                continue
            self._addresses[address] += 1
            task = loop.create_task(self._host(connection, address, tls))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _host(self, connection: socket.socket, address: str, tls: ssl.SSLContext | None) -> None:
        """Have a connection until it is over, a handshake of TLS included."""
        loop = asyncio.get_running_loop()
        call = Call(self)
        patience = {"ssl_handshake_timeout": PATIENCE, "ssl_shutdown_timeout": PATIENCE} if tls else {}
        try:
            await loop.connect_accepted_socket(lambda: call, connection, ssl=tls, **patience)
            self._calls.add(call)
            await call.over
        except OSError:  # it left, spoke no TLS, or took too long
            connection.close()
        finally:
            self._calls.discard(call)
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    async def _sweep(self) -> None:
        """Close what is over its deadline."""
        while True:
            await asyncio.sleep(SWEEP)
            now = time.monotonic()
            for call in [call for call in self._calls if call.deadline < now]:
                call.expire()


def listen(host: str, port: int) -> socket.socket:
    """A socket that connections wait at until the service runs.

    Raises
    ------
    OSError
        If the address cannot be had.
    """
    # asyncio sends without delay (TCP_NODELAY) only on sockets that name their protocol. Otherwise an
    # answer waits until the client's next frame acknowledges the one before.
    tcp = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    family, kind, protocol, _, address = tcp[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, by PEM files; the key may be in that of the certificate.

    Raises
    ------
    OSError
        If a file cannot be read, or they do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key, password="")  # it must not ask on the terminal
    return context


def run(
    denoiser: Denoiser,
    listener: socket.socket,
    seconds: float,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve for some seconds, or until a signal.

    Raises
    ------
    KeyboardInterrupt
        After SIGINT, when everything is closed.
    """
    interrupted = False

    async def serve() -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()

        def stop(number: int, _: object) -> None:
            nonlocal interrupted
            interrupted |= number == signal.SIGINT
            loop.call_soon_threadsafe(end.set)

        loop.call_later(seconds, end.set)
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            await Service(denoiser, limits or Limits()).run(listener, tls, end)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    gc.freeze()  # the libraries stay: looking through them takes longer than a frame
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve())
    if interrupted:
        raise KeyboardInterrupt
