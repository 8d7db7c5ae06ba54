"""examples/service: the server in a process of its own, under real clients over loopback.

No test depends on how long anything takes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.io import wavfile
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

import fastgru

EXAMPLE = Path(__file__).parents[2] / "examples" / "service"
DENOISE = EXAMPLE.parent / "denoise"
HOP = 160  # samples
PLACES = 4  # of the server
PATIENCE = 120  # s


def environment(*folders: Path) -> dict[str, str]:
    """What a program finds the package under test with, installed or not, behind some folders."""
    search = [*map(str, folders), str(Path(fastgru.__file__).parents[1]), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))}


def run(*arguments: object, before: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The program, until it ends."""
    command = [sys.executable, EXAMPLE, *map(str, arguments)]
    return subprocess.run(
        command, env=environment(*before), capture_output=True, text=True, check=False, timeout=PATIENCE
    )


@contextmanager
def serving(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on a free port, and its address."""
    command = [sys.executable, EXAMPLE, "serve", "--port", "0", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(), **pipes) as server:
        try:
            ready = server.stdout.readline()
            assert ready, server.stderr.read()
            yield server, re.match(r"ws://(127\.0\.0\.1:\d+)/denoise: ", ready)[1]
        finally:
            server.kill()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server with a few places, which must not complain of anything that a test does to it."""
    with serving("--clients", PLACES, "--seconds", 1000) as (server, address):
        yield address
        server.send_signal(signal.SIGINT)
        _, complaints = server.communicate(timeout=PATIENCE)
        assert (server.returncode, complaints) == (130, "service: interrupted\n")


def call(address: str) -> ClientConnection:
    # close() then waits until the server has let go
    return connect(f"ws://{address}/denoise", compression=None, open_timeout=PATIENCE, close_timeout=PATIENCE)


def health(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/health", timeout=PATIENCE) as answer:
        return json.load(answer)


def wait_for_places(address: str, clients: int) -> None:
    """Until so many clients are left; the server hears of a lost one when it reads on."""
    pause = threading.Event()
    for _ in range(100 * PATIENCE):
        if health(address)["clients"] == clients:
            return
        pause.wait(0.01)
    raise AssertionError(health(address))


@pytest.fixture(autouse=True)
def empty_server(address):
    """Every test finds all places free, also after one that failed."""
    wait_for_places(address, 0)


def hops(samples: np.ndarray) -> np.ndarray:
    """Frames of a call, int16, shape (frames, 160): the last, of silence, brings the last sound."""
    return np.concatenate([samples, np.zeros(HOP, np.int16)]).reshape(-1, HOP)


def answer(client: ClientConnection) -> np.ndarray:
    message = client.recv(timeout=PATIENCE)
    assert isinstance(message, bytes)
    return np.frombuffer(message, "<i2")


def talk(client: ClientConnection, frames: np.ndarray) -> np.ndarray:
    """The answers to frames, one after the other, both (n, 160)."""
    answers = []
    for frame in frames:
        client.send(frame.tobytes())
        answers.append(answer(client))
    return np.stack(answers)


def end(client: ClientConnection) -> tuple[int, str]:
    """Code and reason that the server closes a call with."""
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=PATIENCE)
    return closed.value.rcvd.code, closed.value.rcvd.reason


@pytest.fixture(scope="module")
def calls() -> np.ndarray:
    """A second of the recording, and two of other sound, int16, 16 kHz, shape (3, 16000)."""
    speech = wavfile.read(DENOISE / "data" / "jfk.wav")[1]
    noise = np.random.default_rng(0).normal(0, 2000, 16_000).astype(np.int16)
    return np.stack([speech[8_000:24_000], speech[60_000:76_000] // 3, noise + speech[30_000:46_000] // 2])


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


# ---- the load ----------------------------------------------------------------------------------------------


def test_load_prints_a_table_and_draws_a_picture(address, tmp_path):
    port = address.rpartition(":")[2]
    folder = tmp_path / "new" / "folder"
    done = run("load", "--port", port, "--clients", 1, PLACES, "--seconds", 1, "-o", folder)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r" +\d", line)]
    assert [(int(row[0]), int(row[1])) for row in rows] == [(1, 100), (PLACES, PLACES * 100)]
    for row in rows:
        p50, p99, p999, largest = map(float, row[2:6])
        assert 0 < p50 <= p99 <= p999 <= largest
        assert 0 <= int(row[6]) <= int(row[1])
    assert re.search(r"^p99 below 10 ms: (up to \d|not even 1)", done.stdout, re.MULTILINE)
    header = (folder / "latency.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", header[16:])
    assert 1000 <= width <= 4000
    assert 400 <= height <= 4000


def test_load_needs_a_server(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert_refused(run("load", "--port", port, "-o", tmp_path), f"no server at 127.0.0.1:{port}", status=1)


def test_load_needs_places(address, tmp_path):
    port = address.rpartition(":")[2]
    done = run("load", "--port", port, "--clients", PLACES + 1, "-o", tmp_path)
    assert_refused(done, f"no room for {PLACES + 1} clients", status=1)


def test_load_needs_a_folder(address, tmp_path):
    (tmp_path / "in the way").touch()
    assert_refused(run("load", "-o", tmp_path / "in the way" / "x"), "in the way")


def test_load_says_when_the_server_ends_before_it(tmp_path):
    with serving("--clients", 2, "--seconds", 8) as (server, address):
        port = address.rpartition(":")[2]
        done = run("load", "--port", port, "--clients", 2, "--seconds", 20, "-o", tmp_path)
        assert server.wait(PATIENCE) == 0
    assert_refused(done, address, status=1)


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The parts, which find each other as the program's do."""
    names = "audio", "nsnet2", "denoiser", "load", "server"
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        for folder in DENOISE, EXAMPLE:
            patch.syspath_prepend(folder)
        yield {name: __import__(name) for name in names}
        for name in names:
            del sys.modules[name]


def test_an_answer_that_never_came_counts_as_the_latest(modules):
    late = np.full((2, 100), 1.0)
    late[0, 7], late[1, 99], late[1, 98] = 12.0, 13.0, np.inf
    one = modules["load"].Round(late, np.zeros_like(late), 0.0, 0.0, 0.0)
    assert one.missed == 3
    assert one.quantiles() == [1.0, 13.0, np.inf, np.inf]


@pytest.mark.parametrize(
    ("p99", "expected"),
    [
        ({1: 2.0, 8: 3.0}, "up to 8 clients, and no more were tried"),
        ({1: 2.0, 8: 10.0, 16: 9.0}, "up to 1 clients, not 8"),
        ({8: np.inf}, "not even 8"),
    ],
)
def test_the_verdict_stops_at_the_first_failure(modules, p99, expected):
    load = modules["load"]
    rounds = [load.Round(np.full((n, 9), late), np.zeros((n, 9)), 0.0, 0.0, 0.0) for n, late in p99.items()]
    assert load.verdict(rounds[::-1]) == expected


def test_answers_are_sent_without_delay(modules):
    # asyncio.base_events._set_nodelay: not where the protocol is 0
    with modules["server"].listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


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


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--seconds", "0"],
        ["serve", "--seconds", "inf"],
        ["serve", "--seconds", "nan"],
        ["serve", "--clients", "0"],
        ["serve", "--port", "65536"],
        ["load", "--clients", "901"],
        ["load", "--clients"],
        [],
    ],
    ids=" ".join,
)
def test_wrong_arguments_get_a_usage_and_status_2(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python examples/service")


@pytest.mark.parametrize(
    ("command", "package"), [("serve", "websockets"), ("serve", "onnx"), ("load", "websockets")]
)
def test_a_missing_package_gets_one_line_and_status_1(tmp_path, command, package):
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError(name={package!r})")
    done = run(command, before=(tmp_path,))
    assert_refused(done, f"{package} is not installed: python -m pip install ", status=1)


def assert_refused(done: subprocess.CompletedProcess[str], complaint: str, status: int = 2) -> None:
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("service: ")
    assert complaint in done.stderr


def test_tests_install_what_the_extra_brings():
    project = tomllib.loads((EXAMPLE.parents[1] / "pyproject.toml").read_text())
    assert project["project"]["optional-dependencies"]["service"] == project["dependency-groups"]["service"]


# ---- the denoiser of many calls ----------------------------------------------------------------------------


@pytest.fixture
def denoiser(modules):
    return modules["denoiser"].Denoiser(modules["nsnet2"].model_file(), 3)


def sound(*rows: np.ndarray) -> np.ndarray:
    return np.stack(rows) / np.float32(32768)


def test_a_refused_batch_leaves_every_call_as_it_was(denoiser, calls):
    one, two = hops(calls[0]), hops(calls[1])
    first, second = denoiser.open(), denoiser.open()
    expected = [denoiser.step([first, second], sound(a, b)) for a, b in zip(one[:9], two, strict=False)]
    denoiser.close(first)
    denoiser.close(second)
    closed = first
    first, second = denoiser.open(), denoiser.open()
    loud = sound(*one[40:42])
    wrong = [
        ([first, closed], loud),
        ([first, first], loud),
        ([first, 99], loud),
        ([first, second], loud[:1]),
        ([first, second], loud[:, :-1]),
        ([first], loud[0]),
    ]
    frames = denoiser.frames
    for a, b, answer in zip(one, two, expected, strict=False):
        for slots, x in wrong:
            with pytest.raises(ValueError, match="must"):
                denoiser.step(slots, x)
        np.testing.assert_array_equal(denoiser.step([first, second], sound(a, b)), answer)
    assert denoiser.frames - frames == 18


def test_places_are_given_out_up_to_the_capacity_and_again(denoiser):
    slots = [denoiser.open() for _ in range(3)]
    with pytest.raises(ValueError, match="3"):
        denoiser.open()
    denoiser.close(slots[1])
    assert len(denoiser) == 2
    assert denoiser.open() not in slots
    with pytest.raises(ValueError, match="open"):
        denoiser.close(slots[1])
    assert len(denoiser) == 3


def test_a_call_that_ends_within_a_batch_leaves_nothing_behind(denoiser, calls, monkeypatch):
    one, two = hops(calls[0]), hops(calls[1])
    stays, leaves = denoiser.open(), denoiser.open()
    step = denoiser._pool.step

    def step_and_close(*arguments):
        result = step(*arguments)
        denoiser.close(leaves)
        return result

    monkeypatch.setattr(denoiser, "_pool", _With(denoiser._pool, step=step_and_close))
    denoiser.step([stays, leaves], sound(one[30], two[30]))
    monkeypatch.undo()
    new = denoiser.open()
    silence = np.zeros(HOP, np.int16)
    assert denoiser.step([stays, new], sound(silence, silence))[0].any()
    assert not denoiser.step([new], sound(silence)).any()


class _With:
    """An object with other methods."""

    def __init__(self, inner, **methods):
        self._inner = inner
        self.__dict__.update(methods)

    def __getattr__(self, name):
        return getattr(self._inner, name)
