"""The command and the service under a fuzzer with coverage."""

from __future__ import annotations

from collections.abc import Iterator

from campaign import fuzzed
from campaign.part import Given
from campaign.record import Record
from campaign.targets import command, protocol


def run(given: Given) -> Iterator[Record]:
    yield from fuzzed.run(command.TARGETS | protocol.TARGETS, given)
