"""The loops that the time is spent in have every sum in a register."""

import platform
import re
import shutil
import subprocess

import pytest

from fastgru import _plans

pytestmark = [
    pytest.mark.outside,
    pytest.mark.skipif(
        platform.machine() != "x86_64" or shutil.which("objdump") is None,
        reason="reads x86-64 assembly with objdump",
    ),
]
INSTRUCTION = re.compile(r"^ *([0-9a-f]+):\t(.*)$", re.M)
ON_STACK = re.compile(r"\(%r[sb]p[,)]")


def functions():
    """Instructions of each function of the extension, (address, text), by its name."""
    command = ["objdump", "--disassemble", "--no-show-raw-insn", _plans.__file__]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    parts = re.split(r"^[0-9a-f]+ <([^>]+)>:$", listing, flags=re.M)
    return dict(zip(parts[1::2], map(INSTRUCTION.findall, parts[2::2]), strict=True))


def innermost_loops(instructions):
    """Texts of the instructions from the target of a jump back to that jump, if no other jump is between."""
    places = {int(address, 16): place for place, (address, _) in enumerate(instructions)}
    texts = [text for _, text in instructions]
    for place, text in enumerate(texts):
        target = re.match(r"j\w+ +([0-9a-f]+)", text)
        start = places.get(int(target[1], 16)) if target else None
        if start is not None and start <= place and not any(t.startswith("j") for t in texts[start:place]):
            yield texts[start : place + 1]


def test_products_keep_their_sums_in_registers():
    found = fetching = 0
    for name, instructions in functions().items():
        shape = re.match(r"product_(\d)_(\d)x(\d)_(f\d\d)_(avx2|avx512)\b", name)
        # float16 at 2 x 2: GCC 12 converts a column too early and puts two others on the stack
        if shape is None or name.startswith(("product_2_2x2_f16", "product_3_2x2_f16")):
            continue
        gates, rows, panels = map(int, shape.groups()[:3])
        for loop in innermost_loops(instructions):
            products = sum("vfmadd" in text for text in loop)
            if products in (gates * rows * panels, 2 * gates * rows * panels):  # of one k or of two
                found += 1
                fetches = any("prefetch" in text for text in loop)
                fetching += fetches
                spilled = [text for text in loop if ON_STACK.search(text)]
                # eight rows' addresses and what is fetched are more than AVX-512 has general registers for
                assert [text for text in spilled if "mm" in text or not fetches] == [], name
    # with AVX2 and float32 alone: of two sets of gates, seven sizes, two halves, and the largest size twice
    assert found >= 32
    assert fetching >= 4


def test_products_of_int8_keep_their_sums_in_registers():
    found = set()
    for name, instructions in functions().items():
        shape = re.match(r"product_(\d)_(\d)x1_i8_(avx2|avx512|avxvnni|avx512vnni)\b", name)
        if shape is None:
            continue
        gates, rows = map(int, shape.groups()[:2])
        for loop in innermost_loops(instructions):
            products = sum("vpmaddwd" in text or "vpdpbusd" in text for text in loop)
            if products in (gates * rows, 2 * gates * rows):  # of one part of the sums or of both
                found.add((shape[3], gates, rows))
                assert [text for text in loop if ON_STACK.search(text)] == [], name
    assert len(found) == 3 * (3 + 3 * 4)  # gates; AVX2 has no tile of four rows


def test_dense_layers_multiply_by_the_same_products():
    found = 0
    for name, instructions in functions().items():
        shape = re.match(r"dense_(\d)_(\d)x(\d)_((?:f32|f64)_(?:avx2|avx512))\b", name)
        if shape is not None:
            found += 1
            product = f"<product_{shape[1]}_{shape[2]}x{shape[3]}_{shape[4]}"
            assert any(product in text for _, text in instructions), name
            loops = innermost_loops(instructions)
            assert [loop for loop in loops if any("vfmadd" in text for text in loop)] == [], name
    assert found >= 14  # with AVX2 alone: seven sizes of two types, of three blocks
