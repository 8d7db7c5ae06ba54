"""The service of examples/service, and clients of it that know what the answers must be."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from campaign.part import ROOT

TALK = 40  # frames of a conversation
PLACES = 8


@functools.cache
def cannot_serve() -> str:
    """Why the service cannot run here; empty if it can."""
    import service_clients

    try:
        with service_clients.parts() as parts:
            parts["nsnet2"].model_file()
    except Exception as error:
        return f"needs the model of examples/service: {type(error).__name__}"
    return ""


@functools.cache
def expected() -> tuple[np.ndarray, np.ndarray]:
    """Frames of a conversation and the answers to them, both (TALK, 160), of a denoiser in this process."""
    import service_clients

    frames = service_clients.hops(service_clients.recorded()[0])[:TALK]
    with service_clients.parts() as parts:
        denoiser = parts["denoiser"].Denoiser(parts["nsnet2"].model_file(), 1)
        slot = denoiser.open()
        answers = [denoiser.step([slot], frame[np.newaxis] / np.float32(32768))[0] for frame in frames]
    return frames, np.stack(answers)


def talk(address: str) -> bool:
    """One conversation; True if every answer has the bits that it must have."""
    import service_clients

    frames, answers = expected()
    with service_clients.call(address) as client:
        return bool(np.array_equal(service_clients.talk(client, frames), answers))


class Talkers:
    """Threads that talk to a server, one conversation after the other, until they are told to stop.

    Attributes
    ----------
    talks : int
        Conversations that were right.
    wrong : list of str
        What was not.
    ending : bool
        If set, a conversation may break off: the server ends.
    """

    def __init__(self, address: str, count: int) -> None:
        self.talks = 0
        self.wrong: list[str] = []
        self.ending = self._over = False
        self._address = address
        expected()  # once, before there are threads
        self._threads = [threading.Thread(target=self._talk) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _talk(self) -> None:
        while not self._over:
            try:
                if talk(self._address):
                    self.talks += 1
                elif not self.ending:
                    self.wrong.append("other bits")
            except Exception as error:
                if self.ending:
                    return
                self.wrong.append(f"{type(error).__name__}: {error}")
                return

    def stop(self) -> None:
        self._over = True
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def talkers(address: str, count: int) -> Iterator[Talkers]:
    found = Talkers(address, count)
    try:
        yield found
    finally:
        found.ending = True
        found.stop()


def pages(process: int) -> int:
    """Pages of memory that a process has, besides files."""
    fields = Path(f"/proc/{process}/statm").read_text().split()
    return int(fields[1]) - int(fields[2])


ARGUMENTS = ("--clients", PLACES, "--seconds", 100_000, "--rate", 5000)
EXAMPLE = ROOT / "examples" / "service"
