"""The documentation: its programs run, its messages are raised, its links lead somewhere."""

import inspect
import os
import re
import runpy
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

import fastgru
from fastgru import _config

ROOT = Path(__file__).resolve().parents[2]
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


PATTERNS = ("index.md", "tutorial.md", "how-to/*.md", "explanation/*.md")
PAGES = [page for pattern in PATTERNS for page in sorted(DOCS.glob(pattern)) if blocks(page, "python")]


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


def test_the_tutorials_service_has_20_lines():
    page = DOCS / "tutorial.md"
    (service,) = (block for _, block in blocks(page, "python") if "def answer" in block)
    assert len([line for line in service.splitlines() if line.strip()]) <= 20


# ---- pages outside of the documentation ----------------------------------------------------------

LINK = re.compile(r"(?<!`)\]\((?!https?:)(?P<path>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")
OUTSIDE = [*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/**/*.md")]


@pytest.mark.parametrize("page", OUTSIDE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    for link in LINK.finditer(page.read_text()):
        target = page.parent / link["path"] if link["path"] else page
        assert target.exists(), link[0]
        if link["anchor"]:
            heads = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            assert link["anchor"] in [re.sub(r"[^\w-]", "", head.lower().replace(" ", "-")) for head in heads]


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert next(line for line in lines if line.startswith("    ")).startswith("    make demo ")


# ---- layers and operators ------------------------------------------------------------------------


def test_the_tables_of_layers_and_operators_are_those_of_the_readers():
    supported = runpy.run_path(str(DOCS / "supported.py"))
    page = supported["PAGE"].read_text()
    tables = [found["name"] for found in supported["TABLE"].finditer(page)]
    assert sorted(tables) == sorted(supported["MAKERS"])
    assert supported["written"](page) == page, "run: python docs/supported.py"


def test_every_layer_and_operator_says_what_is_computed():
    supported = runpy.run_path(str(DOCS / "supported.py"))
    for make in supported["MAKERS"].values():
        _, _, *rows = make().splitlines()
        assert len(rows) > 7
        for row in rows:
            names, computed = row.strip("| ").split(" | ")[:2]
            assert computed.endswith("."), names


# ---- error messages ------------------------------------------------------------------------------

MESSAGE = re.compile(r"^(`+)(?P<message>\w+: .+?)\1\n: From `(?P<code>.+?)`", re.M)


def test_every_error_message_comes_from_the_code_behind_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", sys.modules.get("onnx"))  # which the page sets
    page = DOCS / "reference/errors.md"
    text = page.read_text()
    messages = [match for match in MESSAGE.finditer(text) if match["code"] != "from fastgru import GRU"]
    assert len(messages) == text.count("\n: From ") - 1
    parts = [(start, block, None) for start, block in blocks(page, "python")]
    parts += [(match.start(), match["code"], match["message"]) for match in messages]
    namespace = {}
    for _, code, message in sorted(parts):
        raised = None
        try:
            exec(code, namespace)
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
        assert raised == message, code


def test_an_unknown_engine_is_the_error_of_the_page():
    environment = os.environ | {"FASTGRU_ENGINE": "abacus"}
    command = [sys.executable, "-c", "from fastgru import GRU"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    usable = re.compile("one of .* with \\w+")  # which the machine decides
    text = (DOCS / "reference/errors.md").read_text()
    assert usable.sub("", run.stderr.splitlines()[-1]) in usable.sub("", text)


def test_every_environment_variable_is_in_the_reference():
    text = (DOCS / "reference/environment.md").read_text()
    assert set(re.findall("^`([A-Z_]+)`$", text, re.M)) == {*_config.VARIABLES, "TF_USE_LEGACY_KERAS"}


# ---- figures of the race -------------------------------------------------------------------------

# A figure that is quoted from the tables of docs/benchmarks.md is followed by a comment that names it:
# 4.2<!-- race: 1x1x64x64, fastgru -->; `fastest` of `layers` is at how many fastgru is the fastest.
QUOTED = re.compile(r"(?P<figure>[\d.]+)<!-- race: (?P<what>[^>]+) -->")
TEXTS = {
    page: FENCE.sub("", page.read_text())
    for page in [*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *DOCS.rglob("*.md")]
}


def race_figures():
    """All figures of the race by what they are."""
    page = (DOCS / "benchmarks.md").read_text()
    tables = re.search("<!-- tables of the race -->(.*)<!-- end of the tables of the race", page, re.S)[1]
    first = re.search(r"fastest exact contender at (\d+) of (\d+) layers", tables)
    figures, columns = {"fastest": first[1], "layers": first[2]}, []
    for line in re.findall(r"^\| (.*) \|$", tables, re.M):
        layer, *cells = line.split(" | ")
        columns = cells if layer == "layer" else columns
        figures |= {f"{layer}, {name}": cell for name, cell in zip(columns, cells, strict=True)}
    return figures


def misquoted(text, figures):
    """The quotations of a text that are not in the tables."""
    return [
        match.group()
        for match in QUOTED.finditer(text)
        if match["figure"] != re.sub(r"[^\d.].*", "", figures.get(match["what"], ""))
    ]


def test_figures_of_the_race_are_those_of_its_tables():
    figures = race_figures()
    assert len(figures) > 500
    for page, text in TEXTS.items():
        assert text.count("<!-- race: ") == len(QUOTED.findall(text)), f"{page}: a mark without a figure"
        assert misquoted(text, figures) == [], page
    assert sum(len(QUOTED.findall(text)) for text in TEXTS.values()) > 10
    assert QUOTED.search(TEXTS[ROOT / "README.md"])


def test_a_figure_of_another_race_is_found():
    figures = {"1x1x2x3, fastgru": "4.2", "1x1x2x3, best peer": "9.5 (numpy)"}
    right = "4.2<!-- race: 1x1x2x3, fastgru --> and 9.5<!-- race: 1x1x2x3, best peer -->"
    assert misquoted(right, figures) == []
    assert misquoted(right.replace("4.2", "4.3"), figures) == ["4.3<!-- race: 1x1x2x3, fastgru -->"]
    assert misquoted("4.2<!-- race: 1x1x2x4, fastgru -->", figures) == ["4.2<!-- race: 1x1x2x4, fastgru -->"]


# ---- the pages as they are built -----------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the HTML."""
    folder = tmp_path_factory.mktemp("docs")
    options = ["--quiet", "--nitpicky", "--fail-on-warning", "--keep-going", "-d", str(folder / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(folder / "html")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder / "html"


class Page(HTMLParser):
    """What a page refers to, and what of it others may refer to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = set(), set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.add(value)


@pytest.mark.xdist_group("built documentation")
def test_no_link_anchor_or_image_is_broken(built):
    pages = {path: Page(path) for path in built.rglob("*.html")}
    assert len(pages) > 20
    broken = set()
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(urldefrag(link).fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.add(f"{path.relative_to(built)}: {link}")
    assert not broken


def attributes(cls):
    """Public names of a class of ours but for what its constructor takes, which is documented there."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("fastgru")]
    names = {name for base in ours for name in vars(base) if not name.startswith("_")}
    return names - set(inspect.signature(cls.__init__).parameters)


@pytest.mark.xdist_group("built documentation")
def test_every_public_name_is_in_the_reference(built):
    *_, names = (built / "objects.inv").read_bytes().split(b"\n", 4)
    documented = {line.partition(" ")[0] for line in zlib.decompress(names).decode().splitlines()}
    wanted = {f"fastgru.{name}" for name in fastgru.__all__}
    for cls in (getattr(fastgru, name) for name in fastgru.__all__):
        if isinstance(cls, type):
            wanted |= {f"fastgru.{cls.__name__}.{name}" for name in attributes(cls)}
    assert wanted - documented == set()


@pytest.mark.parametrize("kind", ["activations", "initializers", "regularizers", "constraints"])
def test_every_name_that_a_layer_takes_is_in_the_reference(kind):
    text = (DOCS / f"reference/{kind}.md").read_text()
    with pytest.raises(ValueError, match="Known names") as error:
        getattr(fastgru, kind).get("")
    known = str(error.value).partition("Known names: ")[2].split(", ")
    assert len(known) > 3
    for name in known:
        assert f"`{name}`" in text or f"autoclass:: {name}\n" in text, name
