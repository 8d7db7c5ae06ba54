"""The documentation: its programs run, its messages are raised, its links lead somewhere, nothing is left out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.M | re.S)


def blocks(page, language):
    """The blocks of a language: where they start in the page's text, and their text."""
    found = FENCE.finditer(page.read_text())
    return [(match.start("text"), match["text"]) for match in found if match["language"] == language]


def program(page):
    """The Python of a page, each line where it is in the page."""
    text, end, lines = page.read_text(), 0, ""
    for start, block in blocks(page, "python"):
        lines += "\n" * text.count("\n", end, start) + block
        end = start + len(block)
    return lines


PAGES = [
    page
    for page in (DOCS / "index.md", DOCS / "tutorial.md", *DOCS.glob("how-to/*.md"), *DOCS.glob("explanation/*.md"))
    if blocks(page, "python")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_blocks_of_a_page_run_and_print_what_it_says(page, tmp_path):
    script = tmp_path / f"{page.stem}.py"
    script.write_text(program(page))
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {"PYTHONPATH": path, "PYTHONWARNINGS": "error:::__main__"}
    run = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    outputs = [text for _, text in blocks(page, "output")]
    assert not outputs or run.stdout == "".join(outputs)
