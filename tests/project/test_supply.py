"""Distributions: the same bytes from any folder, a list of components, and requirements by hash."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import fastgru

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

of_distributions = pytest.mark.xdist_group("distributions")


@of_distributions
def test_a_build_elsewhere_has_the_same_bytes(distributions, tmp_path):
    sdist, wheel = distributions
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    build = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel"]
    build += ["--outdir", tmp_path, source]
    environment = os.environ | {"TZ": "Pacific/Auckland", "PYTHONHASHSEED": "1", "USER": "someone"}
    run = subprocess.run(build, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    for each in (sdist, wheel):
        assert parts(tmp_path / each.name) == parts(each)  # says which file differs
        assert (tmp_path / each.name).read_bytes() == each.read_bytes()


def parts(path):
    """Names and contents of an archive."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(path) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive if each.isfile()}


@of_distributions
def test_an_sdist_tells_nothing_of_the_machine_that_wrote_it(distributions):
    with tarfile.open(distributions[0]) as archive:
        members = archive.getmembers()
    assert {(each.mtime, each.uid, each.gid, each.uname, each.gname) for each in members} == {
        (int(os.environ.get("SOURCE_DATE_EPOCH", 315532800)), 0, 0, "", "")
    }
    assert {oct(each.mode) for each in members} == {"0o644", "0o755"}


@of_distributions
def test_the_wheel_lists_what_it_is_made_of(distributions):
    with zipfile.ZipFile(distributions[1]) as archive:
        listed = json.loads(archive.read(f"fastgru-{fastgru.__version__}.dist-info/sboms/fastgru.cdx.json"))
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    package = listed["metadata"]["component"]
    assert (package["name"], package["version"]) == ("fastgru", fastgru.__version__)
    assert package["licenses"] == [{"expression": PROJECT["project"]["license"]}]
    required = [each["name"] + each["properties"][0]["value"] for each in listed["components"]]
    assert required == PROJECT["project"]["dependencies"]
    assert listed["dependencies"] == [{"ref": "fastgru", "dependsOn": ["numpy", "scipy"]}]
    tools = {each["name"]: each["version"] for each in listed["metadata"]["tools"]["components"]}
    for name in ("cython", "numpy", "setuptools"):
        assert tools.pop(name) == importlib.metadata.version(name)
    if os.name == "posix":
        assert len(tools) == 1  # the compiler
    assert str(ROOT) not in json.dumps(listed)


LOCK = (ROOT / "requirements" / "build.txt").read_text()


def test_the_lock_has_one_version_and_hashes_of_all_that_builds():
    entry = r"^([\w-]+)==[\d.]+(?: ; .*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
    entries = re.findall(entry, LOCK, re.M)
    assert len(entries) == len(re.findall(r"^\w", LOCK, re.M))
    wanted = PROJECT["dependency-groups"]["build"] + PROJECT["build-system"]["requires"]
    assert {re.split(r"[<>=]", each)[0] for each in wanted} <= {name for name, _ in entries}
