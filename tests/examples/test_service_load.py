"""examples/service: its command line, its load test, and its denoiser of many calls."""

from __future__ import annotations

import re
import signal
import socket
import struct
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import pytest
from service_clients import (
    EXAMPLE,
    HOP,
    PATIENCE,
    PLACES,
    assert_refused,
    hops,
    parts,
    recorded,
    run,
    serving,
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


@pytest.fixture(scope="module")
def calls() -> np.ndarray:
    return recorded()


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with parts() as found:
        yield found


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
    with serving("--clients", 2) as (server, address), ThreadPoolExecutor() as pool:
        port = address.rpartition(":")[2]
        load = pool.submit(run, "load", "--port", port, "--clients", 2, "--seconds", 5, "-o", tmp_path)
        wait_for_places(address, 2)
        server.send_signal(signal.SIGINT)
        assert_refused(load.result(), address, status=1)


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


# ---- the command line --------------------------------------------------------------------------------------


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


def test_a_call_that_ends_leaves_nothing_to_the_next_in_its_place(denoiser, calls):
    one, two = hops(calls[0]), hops(calls[1])
    stays, leaves = denoiser.open(), denoiser.open()
    denoiser.step([stays, leaves], sound(one[30], two[30]))
    denoiser.close(leaves)
    new = denoiser.open()
    silence = np.zeros(HOP, np.int16)
    assert denoiser.step([stays, new], sound(silence, silence))[0].any()
    assert not denoiser.step([new], sound(silence)).any()
