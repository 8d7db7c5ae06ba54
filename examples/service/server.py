"""The service: a websocket for each call, and one batch at a time of whoever has a frame waiting.

/denoise   10 ms in, 10 ms out: 160 samples of 16-bit PCM, little-endian, 16 kHz, mono
/health    how many calls there are, as JSON
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import uvicorn
from denoiser import FULL_SCALE, PCM, Denoiser
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from fastgru import MicroBatcher

UNSUPPORTED, INVALID, TRY_AGAIN_LATER = 1003, 1007, 1013  # close codes of RFC 6455 and IANA's registry
LARGEST = 1024  # bytes of a message; a larger one is refused before it is read (close code 1009)


def application(denoiser: Denoiser) -> FastAPI:
    """The service around a denoiser."""
    batcher: MicroBatcher
    size = denoiser.features * PCM.itemsize

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal batcher
        async with MicroBatcher(denoiser) as batcher:
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
        try:
            # The next frame is read when this one is answered: who sends faster than that fills the
            # buffers of TCP, and those of nobody else.
            while (message := await websocket.receive())["type"] == "websocket.receive":
                frame = message.get("bytes")
                if frame is None:
                    await websocket.close(UNSUPPORTED, "frames are binary messages")
                    return
                if len(frame) != size:
                    await websocket.close(INVALID, f"a frame must have {size} bytes, got {len(frame)}")
                    return
                clean = await batcher.step(slot, np.frombuffer(frame, PCM) / FULL_SCALE)
                await websocket.send_bytes(clean.tobytes())
        except WebSocketDisconnect:
            pass
        finally:
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

    gc.freeze()  # the libraries stay: looking through them takes longer than a frame
    asyncio.run(serve())
