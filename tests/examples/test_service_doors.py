"""examples/service: who is let in, and who is not: tokens, addresses, silence, rates and TLS."""

import json
import socket
import ssl
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress

import numpy as np
import pytest
from service_clients import (
    HOP,
    PATIENCE,
    Echo,
    answer,
    assert_refused,
    call,
    certificate,
    end,
    hosting,
    parts,
    run,
    serving,
    talk,
    wait_for_places,
)
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

SOUND = np.arange(HOP, dtype=np.int16)[np.newaxis]


# before, while or after the client asks for the upgrade
CLOSED = InvalidHandshake, InvalidMessage, ConnectionClosed, OSError, EOFError


def load_of(address, folder):
    """The arguments of a short load of one client."""
    port = address.rpartition(":")[2]
    return ["load", "--port", port, "--clients", 1, "--seconds", 0.1, "-o", folder]


@pytest.fixture(scope="module")
def modules():
    with parts() as found:
        yield found


def assert_served(client):
    np.testing.assert_array_equal(talk(client, SOUND), SOUND)


# ---- tokens ------------------------------------------------------------------------------------------------

TOKEN = "a-Token.of_some~bytes+/="


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_who_shows_the_token_gets_in(modules, scheme):
    with hosting(modules, Echo(2), token=TOKEN.encode()) as address:
        shown = {"Authorization": f"{scheme} {TOKEN}"}
        with call(address, additional_headers=shown) as client:
            assert_served(client)
        request = urllib.request.Request(f"http://{address}/health", headers=shown)
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            assert json.load(reply)["capacity"] == 2


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", f"Bearer {TOKEN[:-1]}")],
        [("Authorization", f"Bearer {TOKEN}x")],
        [("Authorization", f"Bearer {TOKEN.lower()}")],
        [("Authorization", f"Basic {TOKEN}")],
        [("Authorization", TOKEN)],
        [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")],
        [("Authorization", "Bearer t\u00f6ken")],
        [("Cookie", f"Authorization=Bearer {TOKEN}")],
    ],
    ids=str,
)
def test_who_does_not_show_it_gets_a_401_and_no_place(modules, headers):
    denoiser = Echo(2)
    with hosting(modules, denoiser, token=TOKEN.encode()) as address:
        with pytest.raises(InvalidStatus) as refused, call(address, additional_headers=headers):
            pass
        assert refused.value.response.status_code == 401
        assert refused.value.response.headers["WWW-Authenticate"] == "Bearer"
        for path in "health", "nothing":
            request = urllib.request.Request(f"http://{address}/{path}")
            with pytest.raises(urllib.error.HTTPError) as closed:
                urllib.request.urlopen(request, timeout=PATIENCE)
            closed.value.close()
            assert closed.value.code == 401
    assert denoiser._opened == 0


def test_the_program_reads_the_token_of_a_file(tmp_path):
    file, wrong = tmp_path / "token", tmp_path / "wrong"
    file.write_text(f"{TOKEN}\n")
    wrong.write_text("x")
    with serving("--clients", 1, "--token-file", file) as (_, address):
        loading = load_of(address, tmp_path)
        done = run(*loading, "--token-file", file)
        assert (done.returncode, done.stderr) == (0, "")
        assert_refused(run(*loading, "--token-file", wrong), "401 Unauthorized", status=1)
        assert_refused(run(*loading), "401 Unauthorized", status=1)


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"\xff"])
def test_a_file_without_a_token_is_refused(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    assert_refused(run("serve", "--port", 0, "--token-file", tmp_path / "token"), "a token must be one word")
    assert_refused(run("load", "--token-file", tmp_path / "nothing"), "nothing: No such file")


# ---- what else is asked ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /denoise HTTP/1.1\r\n\r\n", b"426"),
        (b"GET /denoise HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET /health HTTP/1.1\r\nno header\r\n\r\n", b"400"),
        (b"GET /health HTTP/1.1\r\nx: " + bytes([97]) * 20_000, b"431"),
    ],
)
def test_a_wrong_request_is_answered_and_its_connection_closed(modules, request_, status):
    denoiser = Echo(2)
    with hosting(modules, denoiser) as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
            client.sendall(request_)
            with client.makefile("rb") as reply:
                assert reply.readline().split()[1] == status
                reply.read()
        with call(address) as client:
            assert_served(client)
    assert denoiser._opened == 1


def test_a_request_may_come_byte_by_byte_and_frames_right_behind_it(modules):
    request = (
        b"GET /denoise?who=me HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: x, Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    frame = modules["batches"].whole(SOUND.astype("<i2").tobytes())
    with hosting(modules, Echo(2)) as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(request) - 1):
                client.sendall(request[i : i + 1])
            client.sendall(request[-1:] + 2 * frame)
            with client.makefile("rb") as reply:
                while reply.readline() != b"\r\n":
                    pass
                answers = reply.read(2 * 324)
    assert answers == 2 * (b"\x82\x7e\x01\x40" + SOUND.astype("<i2").tobytes())


# ---- addresses ---------------------------------------------------------------------------------------------


def test_an_address_has_a_number_of_connections_and_others_have_theirs(modules):
    with hosting(modules, Echo(20), per_address=3) as address, ExitStack() as clients:
        first, *_ = (clients.enter_context(call(address)) for _ in range(3))
        with pytest.raises(CLOSED), call(address):
            pass
        with call(address, source_address=("127.0.0.2", 0)) as other:
            assert_served(other)
            first.close()
            for _ in range(1000):  # until the server has heard of it
                try:
                    clients.enter_context(call(address))
                    break
                except CLOSED:
                    other.ping().wait(PATIENCE)
            else:
                raise AssertionError("who has left is still counted")


# ---- silence and haste -------------------------------------------------------------------------------------


def test_who_is_silent_is_closed_and_pings_do_not_count(modules):
    denoiser = Echo(3)
    with (
        hosting(modules, denoiser, idle=3.0) as address,
        call(address) as silent,
        call(address) as pinging,
        call(address) as talking,
    ):
        over = threading.Event()

        def talk_on():
            while not over.is_set():
                pinging.ping()
                talk(talking, SOUND)
                over.wait(0.05)

        thread = threading.Thread(target=talk_on)
        thread.start()
        try:
            assert end(silent) == (1008, "no frame within 3 s")
            assert end(pinging) == (1008, "no frame within 3 s")
        except BaseException:
            over.set()
            raise
        over.set()
        thread.join(PATIENCE)
        assert_served(talking)
        assert len(denoiser) == 1


def test_a_hasty_caller_waits_for_itself_alone(modules):
    denoiser = Echo(3)
    # After the first frame of a call, the second is read a thousand seconds later.
    with hosting(modules, denoiser, rate=1e-3, idle=5.0) as address, call(address) as hasty:
        for _ in range(100):
            hasty.send(SOUND.tobytes())
        np.testing.assert_array_equal(answer(hasty), SOUND[0])
        for _ in range(20):
            with call(address) as other:
                assert_served(other)
        assert denoiser.frames == 21
        with suppress(OSError):  # where all this took longer than 5 s
            hasty.socket.shutdown(socket.SHUT_RDWR)
        wait_for_places(address, 0)


# ---- TLS ---------------------------------------------------------------------------------------------------


def test_tls_lets_in_who_trusts_the_certificate_and_nobody_without_tls(tmp_path):
    files, other = certificate(tmp_path), certificate(tmp_path, "other")
    token = tmp_path / "token"
    token.write_text(TOKEN)
    options = "--clients", 2, "--certificate", files[0], "--key", files[1], "--token-file", token
    with serving(*options) as (_, address):
        trusting = ssl.create_default_context(cafile=files[0])
        shown = {"Authorization": f"Bearer {TOKEN}"}
        with call(address, trusting, additional_headers=shown) as client:
            assert talk(client, SOUND).shape == SOUND.shape
        with pytest.raises(InvalidStatus, match="401"), call(address, trusting):
            pass
        with pytest.raises(ssl.SSLCertVerificationError), call(address, ssl.create_default_context()):
            pass
        with pytest.raises((InvalidMessage, OSError, EOFError)), call(address, additional_headers=shown):
            pass
        old = ssl.create_default_context(cafile=files[0])
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError), call(address, old):
            pass
        loading = load_of(address, tmp_path)
        loading += ["--token-file", token]
        done = run(*loading, "--authority", files[0])
        assert (done.returncode, done.stderr) == (0, "")
        assert_refused(run(*loading, "--authority", other[0]), "certificate", status=1)
        assert_refused(run(*loading), "no server at", status=1)


def test_wrong_files_of_tls_get_one_line_and_status_2(tmp_path):
    files, other = certificate(tmp_path), certificate(tmp_path, "other")
    serve = "serve", "--port", 0, "--certificate"
    assert_refused(run(*serve, tmp_path / "nothing"), "No such file")
    assert_refused(run(*serve, files[0], "--key", other[1]), "certificate.pem")
    assert_refused(run(*serve, files[1]), "certificate.key")
    done = run("serve", "--key", files[1])
    assert done.returncode == 2
    assert "--key needs --certificate" in done.stderr
