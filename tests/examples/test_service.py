"""examples/service: the server in a process of its own, under real clients over loopback.

No test depends on how long anything takes.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from scipy.io import wavfile
from service_clients import (
    DENOISE,
    HOP,
    PATIENCE,
    PLACES,
    answer,
    assert_refused,
    call,
    end,
    environment,
    health,
    hops,
    recorded,
    run,
    serving,
    talk,
    wait_for_places,
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server with a few places, which must not complain of anything that a test does to it."""
    with serving("--clients", PLACES, "--seconds", 1000) as (server, address):
        yield address
        server.send_signal(signal.SIGINT)
        _, complaints = server.communicate(timeout=PATIENCE)
        assert (server.returncode, complaints) == (130, "service: interrupted\n")


@pytest.fixture(autouse=True)
def empty_server(address):
    """Every test finds all places free, also after one that failed."""
    wait_for_places(address, 0)


@pytest.fixture(scope="module")
def calls() -> np.ndarray:
    return recorded()


@pytest.fixture(scope="module")
def denoised(calls, tmp_path_factory) -> np.ndarray:
    """What examples/denoise makes of each of them alone."""
    folder = tmp_path_factory.mktemp("denoised")
    results = []
    for samples in calls:
        wavfile.write(folder / "in.wav", 16_000, samples)
        command = [sys.executable, DENOISE, "in.wav", "-o", "out.wav"]
        subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
        results.append(wavfile.read(folder / "out.wav")[1])
    return np.stack(results)


# ---- calls -------------------------------------------------------------------------------------------------


def assert_same_sound(answers: np.ndarray, expected: np.ndarray) -> None:
    # An answer is a hop late. Sums of the dense layers, and so rounding, depend on the batch.
    np.testing.assert_allclose(answers[1:].ravel().astype(int), expected.astype(int), atol=1)
    assert expected.std() > 100


def test_a_call_sounds_as_from_the_denoiser_alone(address, calls, denoised):
    with call(address) as client:
        answers = talk(client, hops(calls[0]))
    assert_same_sound(answers, denoised[0])


def test_calls_at_once_do_not_touch_each_other(address, calls, denoised):
    with call(address) as one, call(address) as two, call(address) as three:
        clients = one, two, three
        answers = [[], [], []]
        for frames in zip(*map(hops, calls), strict=True):
            for client, frame in zip(clients, frames, strict=True):
                client.send(frame.tobytes())
            for client, mine in zip(clients, answers, strict=True):
                mine.append(answer(client))
    for mine, expected in zip(answers, denoised, strict=True):
        assert_same_sound(np.stack(mine), expected)


def test_calls_of_threads_with_clocks_of_their_own_do_not_touch_each_other(address, calls, denoised):
    answers = {}

    def speak(i):
        with call(address) as client:
            answers[i] = talk(client, hops(calls[i]))

    threads = [threading.Thread(target=speak, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for i, expected in enumerate(denoised):
        assert_same_sound(answers[i], expected)


def test_frames_sent_ahead_are_answered_in_order(address, calls, denoised):
    frames = hops(calls[0])
    with call(address) as client:
        sender = threading.Thread(target=lambda: [client.send(frame.tobytes()) for frame in frames])
        sender.start()  # the server reads no further than it answers
        answers = np.stack([answer(client) for _ in frames])
        sender.join(PATIENCE)
    assert_same_sound(answers, denoised[0])


def test_a_message_may_come_in_pieces(address, calls):
    frames = hops(calls[0])[:5]
    with call(address) as client:
        whole = talk(client, frames)
    with call(address) as client:
        for frame, expected in zip(frames, whole, strict=True):
            client.send([frame[:7].tobytes(), frame[7:].tobytes()])
            np.testing.assert_array_equal(answer(client), expected)


def test_full_scale_saturates(address):
    frames = np.where(np.arange(50 * HOP) // 20 % 2, 32767, -32768).astype(np.int16).reshape(-1, HOP)
    with call(address) as client:
        answers = talk(client, frames).astype(int)
    # A sample that wrapped around would jump by the whole range where the square wave does not.
    wrapped = (np.sign(answers[1:]) != np.sign(frames[:-1])) & (np.abs(answers[1:]) > 30_000)
    assert not wrapped.any()


# ---- wrong messages, and too many of them ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        pytest.param("hello", 1003, "frames are binary messages", id="text"),
        pytest.param(b"", 1007, "a frame must have 320 bytes, got 0", id="empty"),
        pytest.param(bytes(319), 1007, "a frame must have 320 bytes, got 319", id="short"),
        pytest.param(bytes(322), 1007, "a frame must have 320 bytes, got 322", id="long"),
        pytest.param(bytes(100_000), 1009, "", id="huge"),
    ],
)
def test_a_wrong_message_ends_its_call_and_no_other(address, calls, denoised, message, code, reason):
    frames = hops(calls[0])
    with call(address) as good, call(address) as bad:
        answers = [talk(good, frames[:30])]
        talk(bad, frames[:3])
        bad.send(message)
        got, why = end(bad)
        answers.append(talk(good, frames[30:]))
    assert got == code
    assert reason in why
    assert_same_sound(np.concatenate(answers), denoised[0])


def test_one_client_too_many_is_asked_to_come_back(address, calls):
    with ExitStack() as clients:
        first, *_ = (clients.enter_context(call(address)) for _ in range(PLACES))
        wait_for_places(address, PLACES)
        with call(address) as refused:
            assert end(refused) == (1013, f"all {PLACES} places are taken")
        assert health(address)["clients"] == PLACES
        first.close()
        wait_for_places(address, PLACES - 1)
        with call(address) as welcome:
            talk(welcome, hops(calls[0])[:2])


def test_a_client_that_vanishes_frees_its_place_for_one_that_hears_nothing_of_it(address, calls, denoised):
    for _ in range(2 * PLACES):
        with call(address) as client:
            talk(client, hops(calls[2])[:5])
            client.send(bytes(2 * HOP))
            client.socket.shutdown(socket.SHUT_RDWR)  # an answer on its way, and no word of goodbye
    wait_for_places(address, 0)
    with call(address) as client:
        answers = talk(client, hops(calls[0]))
    assert_same_sound(answers, denoised[0])


def test_health_counts_clients_and_frames(address, calls):
    before = health(address)
    with call(address) as client:
        talk(client, hops(calls[0])[:7])
        during = health(address)
    assert before["capacity"] == PLACES
    assert (before["clients"], during["clients"]) == (0, 1)
    assert during["frames"] - before["frames"] == 7
    assert during["cpu_seconds"] >= before["cpu_seconds"] > 0


# ---- beginning and end -------------------------------------------------------------------------------------


def test_the_server_ends_by_itself_and_says_so_to_its_clients(calls):
    with serving("--clients", 2, "--seconds", 8) as (server, address):
        with call(address) as client:
            answers = talk(client, hops(calls[0])[:3])
            assert len(answers) == 3
            assert end(client)[0] == 1012
        printed, complaints = server.communicate(timeout=PATIENCE)
        assert (server.returncode, complaints) == (0, "")
        assert printed == "3 frames denoised\n"


def test_a_port_in_use_gets_one_line_and_status_2(address):
    port = address.rpartition(":")[2]
    assert_refused(run("serve", "--port", port), f"127.0.0.1 port {port}: ")
