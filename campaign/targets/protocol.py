"""The service's protocol: whatever a client sends, in any pieces, its call ends well, and others go on."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaign.targets.target import Target

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
REQUEST = (
    b"GET /denoise HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SOUND = b"\x82\xfe\x01\x40" + bytes(4) + bytes(range(160)) * 2  # a frame as clients send it
PLACES = 2
MODULES = ("server", "call", "frames", "handshake", "batches")


class Transport:
    """In the place of a TCP connection: keeps what is written to it."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.paused = self.closed = False

    def write(self, data: bytes | memoryview) -> None:
        assert not self.closed, "written after the end"
        self.written += data

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    close = abort


def prepare() -> Callable[[bytes], None]:
    """A function that sends bytes to the service; the first one says in which pieces."""
    import call
    import server
    import service_clients

    logging.disable()
    loop = asyncio.new_event_loop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))

    def client_of(service: Any) -> tuple[Any, Transport]:
        one, transport = call.Call(service), Transport()
        one.connection_made(transport)
        return one, transport

    async def conversation(data: bytes) -> None:
        echo = service_clients.Echo(PLACES)
        service = server.Service(echo, call.Limits(rate=1e6))
        neighbour, stranger = client_of(service), client_of(service)
        await send(*neighbour, REQUEST + SOUND, None)
        answered = len(neighbour[1].written)
        await send(*stranger, data[1:], random.Random(data[:1]))
        await send(*neighbour, SOUND, None)
        assert len(neighbour[1].written) > answered, "its neighbour is not served"
        for one, transport in (neighbour, stranger):
            if not transport.closed:
                one.eof_received()
            one.connection_lost(None)
            assert one.over.done()
        assert not echo.slots, "a place is still taken"

    async def send(one: Any, transport: Transport, data: bytes, rng: random.Random | None) -> None:
        """Bytes in pieces, as long as the service reads; a pause after each."""
        while data and not transport.closed:
            if not transport.paused:
                room = one.get_buffer(-1)
                assert len(room), "no room, and reads on"
                size = min(len(room), len(data), rng.randrange(1, 600) if rng else len(data))
                room[:size] = data[:size]
                one.buffer_updated(size)
                data = data[size:]
            await asyncio.sleep(0)
            if transport.paused:
                await asyncio.sleep(0.003)  # until the next batch
        await asyncio.sleep(0.003 if rng is None else 0)

    def run(data: bytes) -> None:
        loop.run_until_complete(conversation(data))
        assert not errors, errors

    return run


def seeds() -> dict[str, bytes]:
    def masked(opcode: int, payload: bytes, last: bool = True) -> bytes:
        return bytes([opcode | 0x80 * last, 0x80 | len(payload)]) + bytes(4) + payload

    sound = SOUND[8:]
    halves = [masked(2, sound[:100], False), masked(0, sound[100:200], False), masked(0, sound[200:])]
    talks = {
        "sound": SOUND * 3,
        "ping": masked(9, b"x") + SOUND,
        "pong": masked(10, b""),
        "close": masked(8, b"\x03\xe8bye"),
        "text": masked(1, b"hello"),
        "pieces": halves[0] + masked(9, b"") + halves[1] + halves[2] + SOUND,
        "long": b"\x82\xff" + (1 << 62).to_bytes(8) + bytes(4),
        "short": masked(2, b"123"),
    }
    found = {name: b"\0" + REQUEST + talk for name, talk in talks.items()}
    found["health"] = b"\0GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    found["elsewhere"] = b"\0POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    return found


def changed(data: bytes, rng: random.Random) -> bytes:
    """The frames behind a sound request changed, so that there is a call."""
    if not data[1:].startswith(REQUEST):
        raise ValueError("no request")
    talk = bytearray(data[1 + len(REQUEST) :])
    others = seeds()
    for _ in range(rng.randrange(1, 4)):
        match rng.randrange(4):
            case 0 if talk:
                talk[rng.randrange(len(talk))] ^= 1 << rng.randrange(8)
            case 1 if talk:
                del talk[rng.randrange(len(talk)) :]
            case 2:
                talk += SOUND
            case _:
                talk += rng.choice([*others.values()])[1 + len(REQUEST) :]
    return data[:1] + REQUEST + bytes(talk)


sys.path += [str(EXAMPLES / "service"), str(EXAMPLES / "denoise")]
TARGETS = {"protocol": Target(prepare, seeds, changed, MODULES)}
