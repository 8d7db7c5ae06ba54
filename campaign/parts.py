"""The parts of a campaign, in the order in which they are run."""

from __future__ import annotations

from campaign import c_face, command, files, machine, readers, soak, threads
from campaign.part import Part

PARTS = {
    "readers": Part(
        readers.run,
        6,
        "Files of every format under a fuzzer with coverage (atheris), which changes files of the "
        "libraries and of grammars. Each must give layers that can be called, or a `FormatError`; no "
        "other file, socket or process may be opened. Files of grammars have their memory and time "
        "counted, too.",
    ),
    "C face": Part(
        c_face.run,
        2,
        "Calls of the C functions with any sizes, strides, masks, lengths, states and threads, under "
        "libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer, on every instruction set of "
        "the machine. Each row must have the bits that it has alone, cut in time, and on any number of "
        "threads.",
    ),
    "programs": Part(
        command.run,
        2,
        "The command `fastgru` with any options and files, and the protocol of `examples/service` with "
        "any bytes, under atheris. The command must end with a status of its own and one line of a "
        "message; a client that breaks the rules must lose its place and disturb nobody.",
    ),
    "files": Part(
        files.run,
        1,
        "Commands that write files: `run`, `convert` and `quantize`. A file must be as it was or whole, "
        "whatever fails and whenever the process is killed; a command that fails must say so in one "
        "line, and leave nothing.",
    ),
    "machine": Part(
        machine.run,
        1.5,
        "Allocations that fail while files are loaded: an error, and then all is as before. Crashes are "
        "counted, not judged: Python 3.11 itself crashes in a call with `**keywords` that it has no "
        "memory for, and which are its own has not been told apart. Clocks "
        "that jump by an hour and back every second, beneath calls with threads and beneath the "
        "service: the same bits. Signals at any moment to a service with clients: it answers, and ends "
        "as it should.",
    ),
    "threads": Part(
        threads.run,
        1.5,
        "Random calls with helpers under ThreadSanitizer, and children that are forked while other "
        "threads compute with helpers: no race, the same bits, no child that hangs.",
    ),
    "soak": Part(
        soak.run,
        3,
        "Frames of many clients for as long as there is time: streams, a pool with clients that come "
        "and go, a batcher, the service with clients that stall, flood and send garbage. Memory must "
        "not grow, the bits must be those of a call over the whole sequence, and errors against float64 "
        "must not drift. Memory is judged only in runs of some minutes. One of four minutes (2026-12-01, AMD "
        "EPYC) failed by that rule: the pool's process had 5,918 pages in its first half and 5,919 in its "
        "last quarter, and the service's grew from 28,651 to 28,683 over 745 conversations. Where these "
        "pages come from is not known yet.",
    ),
}
