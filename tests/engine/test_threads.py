"""Calls with helpers have the bits of calls alone, and no data race; by threads.c."""

import re

import pytest
from compilers import GNU, HERE, SCALAR, USUAL, WARNINGS, include, run

pytestmark = pytest.mark.outside

PROGRAM = HERE / "threads.c"
TSAN = ["gcc", "-O1", "-fsanitize=thread", *GNU, *WARNINGS, SCALAR]


def counts(text):
    """Calls with helpers and alone, units that helpers did, and helpers that were lost."""
    found = re.search(r"(\d+) calls with helpers, (\d+) alone, (\d+) units helped, (\d+) lost", text)
    assert found, text
    return tuple(map(int, found.groups()))


@pytest.mark.parametrize("size", [[], ["small"]], ids=["large", "small"])
def test_any_call_has_the_bits_of_the_call_alone(engine, size, tmp_path):
    command = ["gcc", "-O2", *GNU, *WARNINGS]
    program = tmp_path / "program"
    run(*command, *include(), PROGRAM, *engine(*USUAL), "-o", program, "-lm", "-pthread")
    finished = run(program, "1", "30" if not size else "600", *size, check=False)
    assert finished.returncode == 0, finished.stdout
    calls, _, helped, _ = counts(finished.stdout)
    assert calls
    assert helped


def test_thread_sanitizer_finds_no_race(engine, tmp_path):
    program = tmp_path / "program"
    run(*TSAN, *include(), PROGRAM, *engine(*TSAN), "-o", program, "-lm", "-pthread")
    finished = run(program, "1", "400", "small", check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    _, _, helped, lost = counts(finished.stdout)
    assert helped
    assert lost  # so what is written for those has been run
