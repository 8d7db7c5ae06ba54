"""What a request over HTTP is answered with, before there is a call: the upgrade, or why not."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

END = b"\r\n\r\n"  # of a request's head


class Reply(NamedTuple):
    """What to send, and if the connection is a websocket from here on; if not, it ends."""

    message: bytes
    upgraded: bool = False


def reply(head: bytes, token: bytes | None, health: Callable[[], dict[str, Any]]) -> Reply:
    """Answer a request.

    Parameters
    ----------
    head : bytes
        The whole request: it has no body.
    token : bytes or None
        What the request must show; None lets everybody in.
    health : callable
        What `/health` shows.
    """
    protocol = ServerProtocol()
    protocol.receive_data(head)
    request = next(iter(protocol.events_received()), None)
    if not isinstance(request, Request):  # websockets may have said why
        return Reply(b"".join(protocol.data_to_send()) or refusal(HTTPStatus.BAD_REQUEST))
    if token is not None and not _shows(request.headers, token):
        return Reply(refusal(HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Bearer"}))
    path = request.path.partition("?")[0]
    if path == "/health":
        return Reply(_message(HTTPStatus.OK, json.dumps(health()), {"Content-Type": "application/json"}))
    if path != "/denoise":
        return Reply(refusal(HTTPStatus.NOT_FOUND))
    response: Response = protocol.accept(request)
    return Reply(response.serialize(), response.status_code == HTTPStatus.SWITCHING_PROTOCOLS)


def refusal(status: HTTPStatus, headers: dict[str, str] | None = None) -> bytes:
    """A response that says no."""
    return _message(status, f"{status.phrase}\n", {"Content-Type": "text/plain", **(headers or {})})


def _message(status: HTTPStatus, text: str, headers: dict[str, str]) -> bytes:
    body = text.encode()
    length = {"Content-Length": str(len(body)), "Connection": "close"}
    return Response(status, status.phrase, Headers({**headers, **length}), body).serialize()


def _shows(headers: Headers, token: bytes) -> bool:
    """True if a request shows the token; how long that takes does not tell how much of it was right."""
    shown = headers.get_all("Authorization")
    scheme, _, credentials = shown[0].partition(" ") if len(shown) == 1 else ("", "", "")
    right = hmac.compare_digest(credentials.strip().encode(errors="surrogateescape"), token)
    return right and scheme.lower() == "bearer"
