"""Frames of many calls to one batch, in the thread that reads and writes the sockets.

A frame stays as its client has masked it until it is in a batch, and the answers of a batch are one
array of bytes, heads included: what costs the same for one frame and for many is done once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

import frames
import numpy as np
import numpy.typing as npt
from denoiser import FULL_SCALE, HOP, PCM, Denoiser

SIZE = HOP * PCM.itemsize  # bytes of sound in a frame
MASKED = 0x80
HEAD = bytes([0x80 | frames.BINARY, MASKED | 126]) + SIZE.to_bytes(2)  # of a frame that is a whole message
KEY = 4  # bytes of its mask
WIRE = len(HEAD) + KEY + SIZE
ANSWER = frames.head(frames.BINARY, SIZE)

COMPANY = 2e-3  # s that a frame may wait for others: four in a batch cost hardly more than one


class Caller(Protocol):
    """Who has a frame in a batch."""

    slot: int

    def answer(self, message: memoryview) -> None:
        """Send it, and go on."""

    def end(self, code: int, reason: str) -> None:
        """Close the call."""


def whole(sound: bytes) -> bytes:
    """A frame as a client masks it, here with zeros, of a message that came in another form."""
    return HEAD + bytes(KEY) + sound


def unmasked(wire: bytes) -> npt.NDArray[np.int16]:
    """The sound of masked frames, shape (n, 160)."""
    words = np.frombuffer(wire, np.uint32).reshape(-1, WIRE // 4)
    return (words[:, 2:] ^ words[:, 1:2]).view(PCM)


class Batches:
    """Collects at most one frame of every call, and has them denoised together.

    Parameters
    ----------
    denoiser : Denoiser
        Or what has its `step` and length. A step that raises must leave all calls as they were.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self._waiting: dict[Caller, bytes] = {}
        self._due: asyncio.Handle | None = None

    def add(self, caller: Caller, wire: bytes) -> None:
        """Put a frame into the next batch, which begins soon: at once, if everybody is in it."""
        self._waiting[caller] = wire
        loop = asyncio.get_running_loop()
        if len(self._waiting) == len(self._denoiser):
            self._set_due(loop.call_soon(self._compute))
        elif len(self._waiting) == 1:
            self._set_due(loop.call_later(COMPANY, self._compute))

    def drop(self, caller: Caller) -> None:
        """Forget the frame of a call that ends, if it has one here."""
        self._waiting.pop(caller, None)

    def _set_due(self, due: asyncio.Handle | None) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = due

    def _compute(self) -> None:
        self._set_due(None)
        callers = list(self._waiting)
        sound = unmasked(b"".join(self._waiting.values()))
        self._waiting.clear()
        if callers:  # they may all have left
            self._answer(callers, sound)

    def _answer(self, callers: Sequence[Caller], sound: npt.NDArray[np.int16]) -> None:
        """Denoise; of a batch that fails each half alone, so that an error ends only the call that has it."""
        try:
            clean = self._denoiser.step([caller.slot for caller in callers], sound / FULL_SCALE)
        except Exception:
            half = len(callers) // 2
            if half:
                self._answer(callers[:half], sound[:half])
                self._answer(callers[half:], sound[half:])
            else:
                logging.exception("a frame could not be denoised")
                callers[0].end(frames.INTERNAL, "a frame could not be denoised")
            return
        answers = np.empty((len(callers), len(ANSWER) + SIZE), np.uint8)
        answers[:, : len(ANSWER)] = np.frombuffer(ANSWER, np.uint8)
        answers[:, len(ANSWER) :] = clean.view(np.uint8)
        for caller, answer in zip(callers, answers, strict=True):
            caller.answer(answer.data)
