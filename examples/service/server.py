"""The service: a websocket for each call, and one batch at a time of whoever has a frame waiting.

/denoise   10 ms in, 10 ms out: 160 samples of 16-bit PCM, little-endian, 16 kHz, mono
/health    how many calls there are, as JSON
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import uvicorn
from denoiser import FULL_SCALE, PCM, Denoiser
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from fastgru import MicroBatcher

UNSUPPORTED, INVALID, INTERNAL, TRY_AGAIN_LATER = (
    1003,
    1007,
    1011,
    1013,
)  # close codes of RFC 6455 and IANA's registry
AHEAD = 3  # frames of a call in the works at once, so that calls that have fallen behind catch up
COMPANY = 2000  # microseconds that a frame may wait for others: two in a batch cost hardly less than four
LARGEST = 1024  # bytes of a message; a larger one is refused before it is read (close code 1009)


async def hear(
    websocket: WebSocket, step: Callable[[Any], Coroutine[Any, Any, Any]], steps: asyncio.Queue[Any]
) -> tuple[int, str] | None:
    """Ask for the step of every frame; code and reason to close the call with, or None: its client has gone.

    Waits for a place in the queue before it reads on: who sends too fast fills the buffers of TCP, and
    those of nobody else.
    """
    size = Denoiser.features * PCM.itemsize
    while (message := await websocket.receive())["type"] == "websocket.receive":
        frame = message.get("bytes")
        if frame is None:
            return UNSUPPORTED, "frames are binary messages"
        if len(frame) != size:
            return INVALID, f"a frame must have {size} bytes, got {len(frame)}"
        await steps.put(asyncio.create_task(step(np.frombuffer(frame, PCM) / FULL_SCALE)))
    return None


async def answer(websocket: WebSocket, steps: asyncio.Queue[asyncio.Task[Any]]) -> None:
    """Send the clean frames of a call as they come out of the batches, in order."""
    try:
        while True:
            clean = await (await steps.get())
            await websocket.send_bytes(clean.tobytes())
    except WebSocketDisconnect:
        pass  # `hear` is told, too
    except Exception:
        logging.exception("a frame could not be denoised")
        await websocket.close(INTERNAL, "a frame could not be denoised")


def application(denoiser: Denoiser) -> FastAPI:
    """The service around a denoiser."""
    batcher: MicroBatcher

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal batcher
        async with MicroBatcher(denoiser, max_wait_us=COMPANY) as batcher:
            yield

    service = FastAPI(title="NSNet2 on fastgru", lifespan=lifespan)

    @service.get("/health")
    async def health() -> dict[str, Any]:
        return {
            "clients": len(denoiser),
            "capacity": denoiser.capacity,
            "frames": denoiser.frames,
            "cpu_seconds": time.process_time(),
        }

    @service.websocket("/denoise")
    async def denoise(websocket: WebSocket) -> None:
        await websocket.accept()  # a close code reaches only who has been let in
        if len(denoiser) == denoiser.capacity:
            await websocket.close(TRY_AGAIN_LATER, f"all {denoiser.capacity} places are taken")
            return
        slot = denoiser.open()
        steps: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue(AHEAD)
        answering = asyncio.create_task(answer(websocket, steps))
        try:
            refusal = await hear(websocket, lambda sound: batcher.step(slot, sound), steps)
            answering.cancel()
            if refusal:
                await websocket.close(*refusal)
        except WebSocketDisconnect:
            pass
        finally:
            left = [answering, *(steps.get_nowait() for _ in range(steps.qsize()))]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            denoiser.close(slot)

    return service


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


def run(denoiser: Denoiser, listener: socket.socket, seconds: float) -> None:
    """Serve for some seconds, or until a signal; calls that still go on are closed with 1012, restart."""
    config = uvicorn.Config(
        application(denoiser),
        log_level="warning",
        access_log=False,
        ws="websockets-sansio",
        ws_max_size=LARGEST,
        ws_per_message_deflate=False,  # costs more than the network, and sound does not shrink
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)

    async def serve() -> None:
        asyncio.get_running_loop().call_later(seconds, setattr, server, "should_exit", True)
        await server.serve(sockets=[listener])

    interrupted = False

    def interrupt(*_: object) -> None:  # who is started in the background has no handler to be told by
        nonlocal interrupted
        interrupted = server.should_exit = True

    gc.freeze()  # the libraries stay: looking through them takes longer than a frame
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:  # uvloop where there is one
            runner.run(serve())
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt
