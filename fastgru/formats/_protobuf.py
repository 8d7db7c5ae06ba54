"""Protobuf messages, measured before they are parsed: an empty one of two bytes takes 150 as an object.

Source: https://protobuf.dev/programming-guides/encoding/
"""

import functools
from typing import Any, NamedTuple

from fastgru._errors import FormatError

DEPTH = 100  # of messages in messages, as the parser has it
# Bytes that the parser of protobuf 7.36 takes, by the memory of a process (2026-11-30): for a message, each
# of its fields, a text in a list, and a number in a list by its size, as lists double when they grow.
MESSAGE, FIELD, TEXT = 48, 8, 36
NUMBER = 2
LOW = bytes(range(128))  # the last bytes of varints
VARINTS = (
    3,
    4,
    5,
    8,
    13,
    14,
    17,
    18,
)  # FieldDescriptor.type of int64, uint64, int32, bool, uint32, enum, ...
WIDE = (3, 4, 18)  # of them those of 64 bits
STRINGS = (9, 12)


class Field(NamedTuple):
    """What a field of a message costs.

    Attributes
    ----------
    message : descriptor or None
        Of the messages that it holds.
    text : bool
        Whether it is a list of texts.
    number : int
        Bytes of a number, where it is a list of varints; 0 where it is none.
    """

    message: Any
    text: bool
    number: int


@functools.cache
def _fields(kind: Any) -> tuple[int, dict[int, Field]]:
    """Bytes of a message of a kind, and its fields by number."""
    fields = {}
    for number, field in kind.fields_by_number.items():
        repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
        varint = (8 if field.type in WIDE else 4) if repeated and field.type in VARINTS else 0
        fields[number] = Field(field.message_type, repeated and field.type in STRINGS, varint)
    return MESSAGE + FIELD * len(fields), fields


def check(data: bytes, kind: Any, limit: int) -> None:
    """Refuse a message that takes more memory than it may when it is parsed, or that no writer writes.

    Parameters
    ----------
    data : bytes
        What is wrong with it otherwise is left to the parser.
    kind : google.protobuf.descriptor.Descriptor
        What message it is.
    limit : int
        Bytes.

    Raises
    ------
    FormatError
        If it takes more, or has messages that are nested too deeply, or groups, which would hide others.
    """
    _left(memoryview(data), kind, limit - len(data), 0)


def _left(data: memoryview, kind: Any, left: int, depth: int) -> int:
    """What is left of `left` bytes after a message."""
    if depth > DEPTH:
        raise FormatError(f"messages are nested deeper than {DEPTH}")
    size, fields = _fields(kind)
    left -= size
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        field = fields.get(tag >> 3)
        match tag & 7:
            case 2:  # a number of bytes, and they
                size, place = _varint(data, place)
                piece = data[place : place + size]
                place += size
                if field is None:
                    pass
                elif field.message is not None:
                    left = _left(piece, field.message, left, depth + 1)
                elif field.text:
                    left -= TEXT
                elif field.number:  # a list of varints: their last bytes are low
                    left -= NUMBER * field.number * (len(piece) - len(bytes(piece).translate(None, LOW)))
            case 0:  # a number
                _, place = _varint(data, place)
                left -= NUMBER * field.number if field else 0
            case 1:
                place += 8
            case 5:
                place += 4
            case other:
                raise FormatError(f"no ONNX model: it has a field of the wire type {other}")
        if left < 0:
            raise FormatError("it has more nodes, values and the like than a file of its size may hold")
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
