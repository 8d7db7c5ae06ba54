"""Protobuf messages, looked through before they are parsed: an empty one of two bytes takes 150 as an object.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from typing import Any

from fastgru.formats._model import FormatError

MESSAGES = 250_000  # nodes, values, dimensions and the like; NSNet2 has 91
DEPTH = 100  # of messages in messages, as the parser has it


def check(data: bytes, kind: Any) -> None:
    """Refuse a message that has very many others in it, or too deep.

    Parameters
    ----------
    data : bytes
        What is wrong with it otherwise is left to the parser.
    kind : google.protobuf.descriptor.Descriptor
        What message it is.

    Raises
    ------
    FormatError
    """
    _left(memoryview(data), kind, MESSAGES, 0)


def _left(data: memoryview, kind: Any, left: int, depth: int) -> int:
    """How many messages are left of those that there may be, after those in a message."""
    if depth > DEPTH:
        raise FormatError(f"messages are nested deeper than {DEPTH}")
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        match tag & 7:
            case 2:  # a number of bytes, and they, which may be a message
                size, place = _varint(data, place)
                field = kind.fields_by_number.get(tag >> 3)
                if field is not None and field.message_type is not None:
                    if not left:
                        raise FormatError(f"there are more than {MESSAGES} nodes, values and the like in it")
                    left = _left(data[place : place + size], field.message_type, left - 1, depth + 1)
                place += size
            case 0:  # a number
                _, place = _varint(data, place)
            case 1:
                place += 8
            case 5:
                place += 4
            case _:
                break
    return left


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        byte = data[place] if place < len(data) else 0
        number |= (byte & 127) << shift
        place += 1
        if byte < 128:
            break
    return number, place
