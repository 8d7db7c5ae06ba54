"""Frames of a websocket as a server reads and writes them: RFC 6455, without extensions."""

from __future__ import annotations

from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
CONTROL = 8  # opcodes from here on

# Close codes of RFC 6455 and IANA's registry.
PROTOCOL_ERROR, UNSUPPORTED, NO_STATUS, INVALID = 1002, 1003, 1005, 1007
POLICY, TOO_BIG, INTERNAL, RESTART, TRY_AGAIN_LATER = 1008, 1009, 1011, 1012, 1013
SENDABLE = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}

LARGEST = 1024  # bytes of a message; a larger one is refused before it is read
LARGEST_CONTROL = 125  # bytes


class Refusal(Exception):  # noqa: N818 - it ends one call, and nothing else
    """A call must end, with a close code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Frame(NamedTuple):
    """A frame of a client.

    Attributes
    ----------
    opcode : int
    last : bool
        True if its message ends with it.
    payload : bytes
        Without the mask.
    end : int
        Where the next frame begins.
    """

    opcode: int
    last: bool
    payload: bytes
    end: int


def read(data: bytearray, start: int, stop: int) -> Frame | None:
    """The frame of a client that begins at data[start], or None if it is not whole before data[stop].

    Raises
    ------
    Refusal
        If it breaks the rules, or is longer than a message may be; as soon as its first bytes say so.
    """
    if stop - start < 2:
        return None
    first, second = data[start], data[start + 1]
    opcode, last, length = first & 0x0F, bool(first & 0x80), second & 0x7F
    if first & 0x70:
        raise Refusal(PROTOCOL_ERROR, "reserved bits must be 0: no extension was agreed on")
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        raise Refusal(PROTOCOL_ERROR, f"an opcode must be one of RFC 6455, got {opcode}")
    if not second & 0x80:
        raise Refusal(PROTOCOL_ERROR, "frames of a client must be masked")
    if opcode >= CONTROL and not (last and length <= LARGEST_CONTROL):
        raise Refusal(PROTOCOL_ERROR, f"a control frame must be whole, of at most {LARGEST_CONTROL} bytes")
    more = {126: 2, 127: 8}.get(length, 0)  # bytes of the length
    mask = start + 2 + more
    if stop < mask:
        return None
    if more:
        length = int.from_bytes(data[start + 2 : mask])
    check_size(length)
    end = mask + 4 + length
    if stop < end:
        return None
    key = bytes(data[mask : mask + 4]) * (length // 4 + 1)
    payload = int.from_bytes(data[mask + 4 : end]) ^ int.from_bytes(key[:length])
    return Frame(opcode, last, payload.to_bytes(length), end)


def check_size(size: int) -> None:
    """Refuse a message of too many bytes, or the part of one.

    Raises
    ------
    Refusal
    """
    if size > LARGEST:
        raise Refusal(TOO_BIG, f"a message must have at most {LARGEST} bytes")


def head(opcode: int, size: int) -> bytes:
    """What a whole frame of a server begins with; size in bytes, below 65536."""
    if size <= LARGEST_CONTROL:
        return bytes([0x80 | opcode, size])
    return bytes([0x80 | opcode, 126]) + size.to_bytes(2)


def closing(code: int, reason: str = "") -> bytes:
    """A close frame; without a code if that is `NO_STATUS`."""
    payload = b"" if code == NO_STATUS else code.to_bytes(2) + reason.encode()
    return head(CLOSE, len(payload)) + payload


def close_code(payload: bytes) -> int:
    """The code to answer a close frame with: its own.

    Raises
    ------
    Refusal
        If its code or reason breaks the rules.
    """
    if not payload:
        return NO_STATUS
    code = int.from_bytes(payload[:2])
    if len(payload) < 2 or code not in SENDABLE:
        raise Refusal(PROTOCOL_ERROR, "a close code must be one that may be sent")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise Refusal(INVALID, "the reason of a close frame must be UTF-8") from None
    return code
