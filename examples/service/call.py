"""A connection: first a request, then a call of frames and answers, until one side ends it."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import frames
import handshake
from batches import HEAD, SIZE, WIRE, Batches, whole
from denoiser import Denoiser

ROOM = 8192  # bytes that a connection may have here, unread; further ones wait in its own TCP connection
UNSENT = 8192  # bytes of answers, from which on nothing more is read of who does not take them
PATIENCE = 5.0  # s for a request, and for leaving after the last word
BURST = 0.5  # s of frames at the highest rate, which may come at once


class Limits(NamedTuple):
    """What a client must keep to.

    Attributes
    ----------
    token : bytes or None
        What every request must show, as `Authorization: Bearer TOKEN`; None lets everybody in.
    per_address : int
        Connections at once of an address.
    idle : float
        s without a frame, after which a call is closed.
    rate : float
        Frames of a call per second, of any kind; further ones wait in its TCP connection.
    """

    token: bytes | None = None
    per_address: int = 100
    idle: float = 30.0
    rate: float = 200.0


class Rate:
    """How soon the next frame of a call may be read: `rate` per second on average, `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._gap = 1 / rate
        self._ahead = max(0.0, burst - 1) * self._gap
        self._due = 0.0  # when the next one would come at the highest rate

    def wait(self, now: float) -> float:
        """0, and a frame is counted; or the s to wait until another one may be."""
        wait = self._due - self._ahead - now
        if wait > 0:
            return wait
        self._due = max(self._due, now) + self._gap
        return 0.0


class Host(Protocol):
    """What a connection needs of the server."""

    denoiser: Denoiser
    batches: Batches
    limits: Limits

    def health(self) -> dict[str, Any]: ...


class Call(asyncio.BufferedProtocol):
    """One client: its unread bytes, its slot, and the deadline of what it must do next.

    At most one frame is in a batch; the next is read when that is answered. So whatever a client sends,
    and however little it takes, it holds `ROOM` and about `UNSENT` bytes here.

    Attributes
    ----------
    slot : int or None
        Of the denoiser: the client's place. None before and after the call.
    deadline : float
        Until when something must happen, in s of `time.monotonic`; then `expire` is to be called.
    over : Future
        Done when the connection is closed.
    """

    def __init__(self, host: Host) -> None:
        self.slot: int | None = None
        self.deadline = time.monotonic() + PATIENCE
        self.over = asyncio.get_running_loop().create_future()
        self._host = host
        self._data = bytearray(ROOM)
        self._view = memoryview(self._data)
        self._stop = 0  # bytes before are unread
        self._message: bytearray | None = None  # of several frames, so far
        self._rate = Rate(host.limits.rate, BURST * host.limits.rate)
        self._later: asyncio.Handle | None = None  # reads on when the rate allows
        self._waits = False  # for a batch
        self._stuck = False  # as it does not take its answers
        self._paused = False
        self._ended = False
        self._transport: asyncio.Transport

    # ---- what the transport calls --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        transport.set_write_buffer_limits(UNSENT)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._stop :]

    def buffer_updated(self, count: int) -> None:
        if self._ended:
            return  # what comes after the last word is not read
        self._stop += count
        if self.slot is None:
            self._shake_hands()
        if not self._waits:
            self._read()
        elif self._stop == ROOM:
            self._pause(True)

    def pause_writing(self) -> None:
        self._stuck = True

    def resume_writing(self) -> None:
        self._stuck = False
        self._read()

    def eof_received(self) -> None:
        self._leave()  # and the transport closes

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._ended = True
        if not self.over.cancelled():  # at the end nobody waits for it any more
            self.over.set_result(None)

    # ---- what the server calls -----------------------------------------------------------------------------

    def answer(self, message: memoryview) -> None:
        """Send the clean sound, and read on."""
        self._waits = False
        self._transport.write(message)
        self.deadline = time.monotonic() + self._host.limits.idle
        if self._stop:
            self._read()

    def end(self, code: int, reason: str = "") -> None:
        """Say the last word, give up the place, and let the client close the connection."""
        if self.slot is not None:
            self._last_word(frames.closing(code, reason))
        else:
            self.abort()

    def expire(self) -> None:
        """The deadline is over."""
        if self.slot is not None:
            self.end(frames.POLICY, f"no frame within {self._host.limits.idle:g} s")
        else:
            self.abort()

    def abort(self) -> None:
        """Leave without a word."""
        self._leave()
        self._transport.abort()

    # ---- the request ---------------------------------------------------------------------------------------

    def _shake_hands(self) -> None:
        """Answer the request, once it is there."""
        size = self._data.find(handshake.END, 0, self._stop) + len(handshake.END)
        if size < len(handshake.END):
            if self._stop == ROOM:
                self._last_word(handshake.refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
            return
        host = self._host
        reply = handshake.reply(bytes(self._data[:size]), host.limits.token, host.health)
        if not reply.upgraded:
            self._last_word(reply.message)
            return
        self._transport.write(reply.message)
        self._shift(size)
        if len(host.denoiser) == host.denoiser.capacity:  # a close code reaches only who has been let in
            reason = f"all {host.denoiser.capacity} places are taken"
            self._last_word(frames.closing(frames.TRY_AGAIN_LATER, reason))
            return
        self.slot = host.denoiser.open()
        self.deadline = time.monotonic() + host.limits.idle

    # ---- the call ------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read frames as long as the client may go on."""
        start = 0
        if self._later is not None:
            self._later.cancel()
            self._later = None
        try:
            while not (self._waits or self._stuck) and self.slot is not None:
                plain = self._message is None and self._data.startswith(HEAD, start, self._stop)
                if plain and self._stop - start >= WIRE:  # what nearly every frame is
                    end = start + WIRE
                    frame = None
                else:
                    frame = frames.read(self._data, start, self._stop)
                    if frame is None:
                        break
                    end = frame.end
                leaves = frame is not None and frame.opcode == frames.CLOSE
                wait = 0.0 if leaves else self._rate.wait(time.monotonic())
                if wait:
                    self._later = asyncio.get_running_loop().call_later(wait, self._read)
                    break
                if frame is None:
                    self._hear(bytes(self._view[start:end]))
                else:
                    self._take(frame)
                start = end
        except frames.Refusal as refusal:
            self.end(refusal.code, refusal.reason)
        if not self._ended:
            self._shift(start)
            self._pause(self._stop == ROOM)

    def _hear(self, wire: bytes) -> None:
        self._waits = True
        self._host.batches.add(self, wire)

    def _take(self, frame: frames.Frame) -> None:
        """Do what any frame wants."""
        if frame.opcode == frames.PING:
            self._transport.write(frames.head(frames.PONG, len(frame.payload)) + frame.payload)
        elif frame.opcode == frames.CLOSE:
            self.end(frames.close_code(frame.payload))
        elif frame.opcode != frames.PONG:
            self._take_part(frame)

    def _take_part(self, frame: frames.Frame) -> None:
        """Put messages of several frames together."""
        if frame.opcode == frames.TEXT:
            raise frames.Refusal(frames.UNSUPPORTED, "frames are binary messages")
        if (self._message is None) is (frame.opcode == frames.CONTINUATION):
            raise frames.Refusal(frames.PROTOCOL_ERROR, "a message must be whole before the next one begins")
        if self._message is None:
            self._message = bytearray()
        self._message += frame.payload
        frames.check_size(len(self._message))
        if frame.last:
            sound, self._message = bytes(self._message), None
            if len(sound) != SIZE:
                raise frames.Refusal(frames.INVALID, f"a frame must have {SIZE} bytes, got {len(sound)}")
            self._hear(whole(sound))

    # ---- both ----------------------------------------------------------------------------------------------

    def _shift(self, start: int) -> None:
        """Forget the bytes before."""
        if start:
            self._data[: self._stop - start] = self._data[start : self._stop]
            self._stop -= start

    def _pause(self, paused: bool) -> None:
        if paused is not self._paused:
            self._paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _leave(self) -> None:
        """Give up the place."""
        if self._later is not None:
            self._later.cancel()
        if self.slot is not None:
            slot, self.slot = self.slot, None
            self._host.batches.drop(self)
            self._host.denoiser.close(slot)

    def _last_word(self, message: bytes) -> None:
        self._leave()
        self._ended = True
        self._stop = 0
        self.deadline = time.monotonic() + PATIENCE
        self._transport.write(message)
        # If bytes were left unread, closing would reset the connection, and the last word could be lost.
        self._pause(False)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()  # TLS has a farewell of its own
