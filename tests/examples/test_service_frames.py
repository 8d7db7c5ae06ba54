"""examples/service: frames of RFC 6455 as websockets writes them, and those that break the rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_clients import HOP, parts
from websockets.frames import Close, Frame, Opcode


@pytest.fixture(scope="module")
def modules():
    with parts() as found:
        yield found


@pytest.fixture(scope="module")
def frames(modules):
    return modules["frames"]


@settings(deadline=None)
@given(
    opcode=st.sampled_from([Opcode.BINARY, Opcode.TEXT, Opcode.CONT, Opcode.PING]),
    last=st.booleans(),
    payload=st.one_of(st.binary(max_size=130), st.binary(min_size=300, max_size=1024)),
    before=st.binary(max_size=9),
    behind=st.binary(max_size=9),
)
def test_frames_are_read_as_they_were_written(frames, opcode, last, payload, before, behind):
    if opcode is Opcode.PING:
        last, payload = True, payload[:125]
    wire = Frame(opcode, payload, fin=last).serialize(mask=True)
    data, start = bytearray(before + wire + behind), len(before)
    stop = start + len(wire)
    assert frames.read(data, start, len(data)) == (opcode, last, payload, stop)
    for short in {start, start + 1, start + 2, start + 5, stop - 1}:
        if short < stop:
            assert frames.read(data, start, short) is None


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\xc2\x80", 1002),  # a reserved bit
        (b"\x83\x80", 1002),  # an opcode that is not defined
        (b"\x82\x01", 1002),  # no mask
        (b"\x09\x80", 1002),  # a ping in pieces
        (b"\x89\xfe", 1002),  # a ping of more than 125 bytes
        (b"\x82\xfe\x04\x01", 1009),
        (b"\x82\xff\x80\0\0\0\0\0\0\0", 1009),
    ],
)
def test_a_frame_that_breaks_the_rules_is_refused_by_its_first_bytes(frames, wire, code):
    with pytest.raises(frames.Refusal) as refused:
        frames.read(bytearray(wire), 0, len(wire))
    assert refused.value.code == code
    assert frames.read(bytearray(wire), 0, 1) is None


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
def test_close_frames_are_answered_with_their_code(frames, code):
    assert frames.close_code(Close(code, "ädieu").serialize()) == code
    assert frames.closing(code, "gone") == Frame(Opcode.CLOSE, Close(code, "gone").serialize()).serialize(
        mask=False
    )


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"\x03", 1002), (b"\x03\xed", 1002), (b"\x00\x00", 1002), (b"\x13\x88", 1002), (b"\x03\xe8\xff", 1007)],
)
def test_close_frames_that_break_the_rules_are_refused(frames, payload, code):
    with pytest.raises(frames.Refusal) as refused:
        frames.close_code(payload)
    assert refused.value.code == code


def test_a_close_frame_without_a_code_is_answered_without_one(frames):
    assert frames.closing(frames.close_code(b"")) == b"\x88\0"


def test_frames_of_a_batch_are_unmasked_together(modules):
    rng = np.random.default_rng(0)
    batches = modules["batches"]
    sound = rng.integers(-32768, 32768, (5, HOP)).astype("<i2")
    wires = [Frame(Opcode.BINARY, hop.tobytes()).serialize(mask=True) for hop in sound]
    assert all(wire.startswith(batches.HEAD) and len(wire) == batches.WIRE for wire in wires)
    wires[3] = batches.whole(sound[3].tobytes())
    np.testing.assert_array_equal(batches.unmasked(b"".join(wires)), sound)


def test_a_rate_allows_a_burst_and_then_an_even_pace(modules):
    rate = modules["call"].Rate(10, burst=3)
    waits = [rate.wait(100.0) for _ in range(5)]
    np.testing.assert_allclose(waits, [0, 0, 0, 0.1, 0.1], atol=1e-9)
    assert rate.wait(100.1 + 1e-9) == 0
    assert rate.wait(100.1 + 2e-9) > 0
    assert [rate.wait(200.0) > 0 for _ in range(4)] == [False, False, False, True]  # silence saves no more
