"""examples/service: a place is free whatever its client does, and nobody takes more than allowed."""

import asyncio
import os
import select
import socket
import ssl
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from service_clients import (
    HOP,
    PATIENCE,
    Echo,
    answer,
    call,
    certificate,
    end,
    health,
    hosting,
    parts,
    serving,
    talk,
    wait_for_places,
)
from websockets.frames import Frame, Opcode

PLACES = 8
REQUEST = (
    b"GET /denoise HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(scope="module")
def modules():
    with parts() as found:
        yield found


@pytest.fixture
def rng():
    seed = np.random.SeedSequence().entropy % 2**32
    print("seed", seed)
    return np.random.default_rng(seed)


def frame(samples, opcode=Opcode.BINARY):
    return Frame(opcode, np.asarray(samples, "<i2").tobytes()).serialize(mask=True)


SOUND = frame(np.arange(HOP))
BAD = frame(np.full(HOP, Echo.BAD))


# ---- ways to leave -----------------------------------------------------------------------------------------


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def vanish(client):
    client.close()


def half_close(client):
    if isinstance(client, ssl.SSLSocket):
        client.close()
    else:
        client.shutdown(socket.SHUT_WR)
        read_all(client)


def orderly(client):
    client.sendall(Frame(Opcode.CLOSE, struct.pack(">H", 1000) + b"bye").serialize(mask=True))
    read_all(client)


def word_and_reset(client):
    client.sendall(Frame(Opcode.CLOSE, b"").serialize(mask=True))
    reset(client)


def text(client):
    client.sendall(Frame(Opcode.TEXT, b"hello").serialize(mask=True))
    read_all(client)


def unmasked(client):
    client.sendall(Frame(Opcode.BINARY, bytes(2 * HOP)).serialize(mask=False))
    read_all(client)


def wrong_size_and_reset(client):
    client.sendall(Frame(Opcode.BINARY, bytes(7)).serialize(mask=True))
    reset(client)


def fault(client):
    client.sendall(BAD)
    read_all(client)


def fault_and_more(client):
    client.sendall(BAD + 6 * SOUND)
    reset(client)


def half_a_frame(client):
    client.sendall(SOUND[:100])
    reset(client)


def half_a_message(client):
    client.sendall(Frame(Opcode.BINARY, bytes(20), fin=False).serialize(mask=True))
    vanish(client)


def pings(client):
    client.sendall(30 * Frame(Opcode.PING, bytes(125)).serialize(mask=True))
    reset(client)


WAYS = [
    reset, vanish, half_close, orderly, word_and_reset, text, unmasked, wrong_size_and_reset, fault,
    fault_and_more, half_a_frame, half_a_message, pings,
]  # fmt: skip


def read_all(client):
    """Until the server has closed the connection, or dropped it with answers on their way; then leave."""
    with suppress(ConnectionError):
        while client.recv(65536):
            pass
    client.close()


def connected(address, tls):
    """A socket on which the server has said anything to a request."""
    host, port = address.split(":")
    client = socket.create_connection((host, int(port)), timeout=PATIENCE)
    if tls:
        client = tls.wrap_socket(client, server_hostname=host, suppress_ragged_eofs=True)
    client.sendall(REQUEST)
    assert client.recv(4096).startswith(b"HTTP/1.1 101 ")
    return client


@pytest.fixture(params=["uvloop", "asyncio", "uvloop, TLS", "asyncio, TLS"])
def stage(request, modules, tmp_path):
    """Options of a service, and what its clients need."""
    loop, *tls = request.param.split(", ")
    options = {"make_loop": asyncio.new_event_loop} if loop == "asyncio" else {}
    if not tls:
        return options, None
    options["tls"] = modules["server"].tls_context(*certificate(tmp_path))
    # A client of two threads would read tickets in one while the other writes its request; until Python 3.13
    # nothing keeps these apart, and now and then the request was lost.
    options["tls"].num_tickets = 0
    return options, ssl.create_default_context(cafile=tmp_path / "certificate.pem")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of asyncio, about TLS connections that were reset
@pytest.mark.parametrize("ahead", [0, 1, 5, 40], ids=lambda count: f"{count} unanswered")
def test_a_storm_of_leaving_takes_no_place(stage, modules, rng, ahead):
    options, tls = stage
    denoiser = Echo(PLACES)
    # Who has left must be forgotten: there are more of them than an address may have at once.
    with hosting(modules, denoiser, rate=1e6, per_address=3 * PLACES, **options) as address:
        leavers = [[WAYS[i] for i in rng.permutation(len(WAYS))] for _ in range(PLACES - 1)]
        faults = []

        def storm(ways):
            try:
                for leave in ways:
                    client = connected(address, tls)
                    client.sendall(ahead * SOUND)
                    with suppress(ConnectionError):
                        leave(client)
            except Exception as fault:
                faults.append(fault)

        with call(address, tls) as good:
            threads = [threading.Thread(target=storm, args=(ways,)) for ways in leavers]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                sound = rng.integers(-500, 500, (1, HOP), dtype=np.int16)
                np.testing.assert_array_equal(talk(good, sound), sound)
        assert not faults
    assert len(denoiser) == 0


def test_those_who_never_ask_are_let_go(modules, monkeypatch):
    monkeypatch.setattr(modules["call"], "PATIENCE", 2.0)
    denoiser = Echo(PLACES)
    with hosting(modules, denoiser, per_address=4) as address:
        host, port = address.split(":")
        silent = [socket.create_connection((host, int(port)), timeout=PATIENCE) for _ in range(4)]
        silent[0].sendall(REQUEST[:-2])
        for client in silent:
            assert client.recv(100) == b""
            client.close()
        with call(address) as welcome:
            talk(welcome, np.zeros((1, HOP), np.int16))


def test_only_the_call_whose_frame_fails_ends(modules, rng):
    denoiser = Echo(PLACES)
    sound = rng.integers(-500, 500, (PLACES, HOP), dtype=np.int16)
    sound[3, 0] = Echo.BAD
    with hosting(modules, denoiser) as address, ExitStack() as opened:
        clients = [opened.enter_context(call(address)) for _ in range(PLACES)]
        for client, hop in zip(clients, sound, strict=True):
            client.send(hop.tobytes())
        for i, (client, hop) in enumerate(zip(clients, sound, strict=True)):
            if i == 3:
                assert end(client) == (1011, "a frame could not be denoised")
            else:
                np.testing.assert_array_equal(answer(client), hop)
        wait_for_places(address, PLACES - 1)


def test_who_is_there_at_the_end_is_told_and_leaves_no_place_taken(modules, monkeypatch):
    monkeypatch.setattr(modules["call"], "PATIENCE", 2.0)
    denoiser = Echo(PLACES)
    with ExitStack() as clients:
        with hosting(modules, denoiser) as address:
            stays = clients.enter_context(call(address))
            clients.enter_context(connected(address, None))  # and hears nothing
            talk(stays, np.zeros((1, HOP), np.int16))
        assert end(stays) == (1012, "the server ends")
    assert len(denoiser) == 0


# ---- who does not take what it is sent ---------------------------------------------------------------------

FLOOD = 10_000_000  # bytes of each flooding client


def flood(address, message):
    """A client that sends and never reads, until the server reads no more of it."""
    client = connected(address, None)
    client.setblocking(False)
    data, at, left = memoryview(message * (65536 // len(message))), 0, FLOOD
    while left > 0 and select.select([], [client], [], 1)[1]:
        with suppress(BlockingIOError):
            sent = client.send(data[at:])
            left, at = left - sent, (at + sent) % len(data)
    return client


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(Frame(Opcode.PING, bytes(125)).serialize(mask=True), id="pings"),
        pytest.param(SOUND, id="frames"),
    ],
)
def test_a_flood_takes_no_memory(message):
    with serving("--clients", PLACES, "--rate", 1e6, "--idle", 1000) as (server, address):
        with call(address) as good, ThreadPoolExecutor(5) as pool:
            talk(good, np.zeros((20, HOP), np.int16))
            before = resident(server.pid)
            flooders = list(pool.map(flood, [address] * 5, [message] * 5))
            talk(good, np.zeros((20, HOP), np.int16))
            grown = resident(server.pid) - before
        for client in flooders:
            reset(client)
        wait_for_places(address, 0)
    assert grown < FLOOD / 2  # of five that sent as much each


def resident(process: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_pings_count_as_frames_do(modules):
    frames = np.ones((1, HOP), np.int16)
    # The second message of a call would be read after a thousand seconds.
    with hosting(modules, Echo(PLACES), rate=1e-3) as address:
        with call(address) as good, connected(address, None) as greedy:
            greedy.sendall(1000 * Frame(Opcode.PING, b"?").serialize(mask=True))
            assert greedy.recv(3) == b"\x8a\x01?"
            np.testing.assert_array_equal(talk(good, frames), frames)
            for _ in range(20):
                health(address)
            assert not select.select([greedy], [], [], 0)[0]
            for client in good.socket, greedy:
                client.shutdown(socket.SHUT_RDWR)
        wait_for_places(address, 0)
