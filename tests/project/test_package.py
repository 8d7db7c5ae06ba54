"""The package as a whole: what an import costs, what a wheel holds, what sources must not say."""

import ast
import email
import graphlib
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import fastgru
from fastgru import _config

ROOT = Path(__file__).resolve().parents[2]


def python(code, executable=sys.executable, cwd=None, **environment):
    """Standard output of a fresh interpreter, with more in its environment."""
    run = subprocess.run(
        [executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | environment,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_package_alone_is_a_module_without_others():
    code = "import sys, typing; before = set(sys.modules); import fastgru; print(*set(sys.modules) - before)"
    assert python(code).split() == ["fastgru"]


def test_importing_a_layer_loads_no_scipy_and_nothing_else_heavy():
    code = """
import sys, numpy
before = set(sys.modules)
from fastgru import GRU, Bidirectional, Stack, Stream, StreamPool, initializers, show_config
print(*set(sys.modules) - before)
"""
    modules = python(code).split()
    new = {name.partition(".")[0] for name in modules}
    assert "scipy" not in new
    assert not new & {"tensorflow", "keras", "matplotlib", "rich", "multiprocessing", "subprocess"}
    assert not new & {"onnx", "h5py", "safetensors", "torch"}
    assert not new & {"dask", "distributed", "pandas", "pyarrow", "zarr"}
    assert "asyncio" not in new
    assert not any(name.startswith("fastgru.formats") for name in modules)


def test_names_of_the_formats_come_when_they_are_asked_for():
    code = """
import sys, fastgru
fastgru.GRU
print(set(fastgru.__all__) <= set(dir(fastgru)), "fastgru.formats" in sys.modules)
load = fastgru.load
print(load is fastgru.formats.load, "fastgru.formats" in sys.modules)
print(not {"onnx", "h5py", "safetensors", "torch", "asyncio"} & set(sys.modules))
from fastgru import *
print(FormatError is fastgru.FormatError, hasattr(fastgru, "loads"))
"""
    assert python(code).split() == ["True", "False", "True", "True", "True", "True", "False"]


@pytest.mark.parametrize("engine", [_config.CHOICE.engine, "blas"])
def test_scipy_comes_when_a_layer_of_the_blas_engine_is_built(engine):
    # not with the first call, where a stream has 10 ms for a frame; with packed weights not at all
    code = """
import sys, numpy as np, fastgru
layer = fastgru.GRU(2)
print("scipy" in sys.modules)
layer.build((1, None, 3))
print("scipy.linalg.cython_blas" in sys.modules)
"""
    assert python(code, FASTGRU_ENGINE=engine).split() == ["False", str(engine == "blas")]


def test_a_blas_with_wide_integers_is_refused():
    code = """
import ctypes, sys, types, numpy as np, fastgru
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
name = b"void (char *, char *, long *, long *, long *, d *, d *, long *, d *, long *, d *, d *, long *)"
import scipy.linalg.cython_blas as real
real.__pyx_capi__["dgemm"] = new(1, name, None)
try:
    fastgru.GRU(2)(np.zeros((1, 1, 3), np.float32))
except ImportError as error:
    print(error)
"""
    assert "cython_blas.dgemm must take 32-bit integers" in python(code, FASTGRU_ENGINE="blas")


# Does what needs no SciPy, then what does.
WITHOUT_SCIPY = """
import numpy as np, fastgru
layers = [fastgru.GRU(3, return_sequences=True), fastgru.Bidirectional(fastgru.GRU(3))]
slow = fastgru.GRU(3, activation=np.tanh)
print(fastgru.Stack(layers)(np.ones((2, 4, 5))).shape, slow(np.ones((1, 1, 2))).shape)
layer = fastgru.GRU(3, dropout=0.5, recurrent_initializer="orthogonal")
layer.build((None, None, 5))
pool = fastgru.StreamPool(layer, 2)
print(layer.stream()(np.ones((1, 5))).shape, pool.step([pool.open()], np.ones((1, 5))).shape)
layer.save("layer.npz")
print(fastgru.load("layer.npz").units)
facts = fastgru.show_config("dicts")
print(facts["scipy"], "|", facts["blas"], "|", facts["numpy"] == np.__version__)
fastgru.show_config()
from fastgru import _config, _kernels
_config.CHOICE = _config.Choice("blas", _kernels.isas()[0])
for _ in range(2):
    layer = fastgru.GRU(3)
    try:
        layer.build((None, None, 5))
    except ImportError as error:
        print(error, "|", error.name, "|", layer.built)
"""


def assert_works_without_scipy(printed):
    lines = printed.splitlines()
    assert lines[:4] == ["(2, 6) (1, 3)", "(1, 3) (1, 3)", "3", "not installed | not installed | True"]
    assert [line.split() for line in lines if line.startswith("scipy")] == [["scipy", "not", "installed"]]
    said = "the BLAS engine needs scipy, which is not installed: pip install scipy | scipy | False"
    assert lines[-2:] == [said] * 2


PACKED = pytest.mark.skipif(_config.CHOICE.engine != "packed", reason="elsewhere SciPy is what computes")


@PACKED
def test_where_the_packed_engine_runs_scipy_may_be_missing(tmp_path):
    hidden = """
import importlib.metadata, sys

class Missing:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "scipy":
            raise ModuleNotFoundError(f"No module named {name!r}", name="scipy")

def distribution(name, found=importlib.metadata.distribution):
    if name == "scipy":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)

sys.meta_path.insert(0, Missing)
importlib.metadata.distribution = distribution
"""
    assert_works_without_scipy(python(hidden + WITHOUT_SCIPY, cwd=tmp_path, PYTHONPATH=str(ROOT)))


of_distributions = pytest.mark.xdist_group("distributions")  # which are built once


@pytest.fixture
def wheel(distributions):
    return distributions[1]


def installed(environment, *packages):
    """The Python of a new environment that has these alone, not even the pip that installs them."""
    venv.create(environment)
    executable = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [sys.executable, "-m", "pip", "--python", executable, "install", "--quiet"]
    install += ["--no-compile", *packages]  # most modules are not imported, those are compiled then
    subprocess.run(install, env=os.environ | {"PYTHONPATH": ""}, check=True)
    return executable


@of_distributions
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a clone knows which files are the project's")
def test_the_sdist_holds_the_files_of_the_project_and_nothing_that_is_made(distributions):
    with tarfile.open(distributions[0]) as archive:
        names = [member.name.partition("/")[2] for member in archive if member.isfile()]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert set(names) - made <= tracked
    assert {name for name in tracked - set(names) if not name.startswith((".git", ".readthedocs"))} == set()


@of_distributions
def test_a_wheel_from_the_sdist_holds_the_package_and_its_headers(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = email.message_from_bytes(archive.read(next(n for n in names if n.endswith("METADATA"))))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    files = {name.removeprefix("fastgru/") for name in names if name.startswith("fastgru/")}
    headers = {str(path.relative_to(ROOT)) for path in sources("include/fastgru/*.h", "src/*.[ch]")}
    modules = {str(path.relative_to(ROOT / "fastgru")) for path in sources("fastgru/**/*.py")}
    assert {"include/fastgru/fastgru.h", "src/layer.c", "src/kernels.h"} <= headers
    stubs = {path.name for path in sources("fastgru/*.pyi")}
    assert headers | modules | stubs | {"py.typed"} <= files
    compiled = files - headers - modules - stubs - {"py.typed"}
    assert sorted(name.split(".")[0] for name in compiled) == sorted(p.stem for p in sources("fastgru/*.pyx"))
    information = f"fastgru-{fastgru.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(("fastgru/", information))} == set()
    assert information + "licenses/LICENSE" in names
    assert information + "sboms/fastgru.cdx.json" in names
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {re.split(r"[<>=]", line)[0] for line in required} == {"numpy", "scipy"}
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    assert metadata["Version"] == fastgru.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == project["requires-python"]
    assert wheel.stat().st_size < 2_000_000  # what is promised


@of_distributions
def test_the_wheel_works_in_a_clean_environment(wheel, tmp_path):
    environment = tmp_path / "environment"
    executable = installed(environment, wheel)
    code = """
import numpy as np, fastgru, pathlib
print(fastgru.GRU(3)(np.zeros((2, 4, 5), np.float32)).shape)
print((pathlib.Path(fastgru.get_include()) / "fastgru" / "fastgru.h").is_file(), fastgru.__file__)
package = pathlib.Path(fastgru.__file__).parent
print(*(pathlib.Path(file).relative_to(package) for file in fastgru.get_sources()))
"""
    lines = python(code, executable=executable, cwd=tmp_path).splitlines()
    assert lines[0] == "(2, 3)"
    assert lines[1].startswith(f"True {environment}")
    assert lines[2].split() == sorted(str(path.relative_to(ROOT)) for path in sources("src/*.c"))


@of_distributions
@PACKED
def test_the_wheel_works_with_numpy_alone(wheel, tmp_path):
    executable = installed(tmp_path / "environment", "--no-deps", "numpy", wheel)
    printed = python(WITHOUT_SCIPY, executable=executable, cwd=tmp_path, PYTHONPATH="")
    assert_works_without_scipy(printed)


# Of a layer that returns its last output, as the README's model does.
MODEL = """
import keras
model = keras.Sequential([keras.Input((None, 40)), keras.layers.GRU(64)])
model.save("model.keras")
"""


def test_the_examples_of_the_readme_run(tmp_path):
    pytest.importorskip("keras")
    python(MODEL, cwd=tmp_path)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    shapes = python("\n".join(examples), cwd=tmp_path).splitlines()
    assert shapes == ["(1, 64)", "(1, 64) (2, 64)"]


def sources(*patterns):
    return [path for pattern in patterns for path in ROOT.glob(pattern)]


def test_kernels_cannot_raise_and_never_take_the_gil():
    text = "\n".join(path.read_text() for path in sources("fastgru/*.pyx", "fastgru/*.pxd"))
    assert "with gil" not in text
    methods = re.findall(
        r"cdef (?!class|struct|enum|extern|readonly|inline|object|Network|list|tuple|cnp)"
        r"[^=\n]*\((?:[^()]|\n)*\)([^:\n]*):",
        text,
    )
    assert methods
    for qualifiers in methods:
        assert "noexcept" in qualifiers or "except" in qualifiers


def test_no_flag_changes_what_floating_point_means():
    flags = (ROOT / "setup.py").read_text()
    assert "-ffp-contract=off" in flags
    assert "fast-math" not in flags
    assert "march" not in flags


# The rooms from the top down, by the names of their modules and packages; below them is what is compiled.
ROOMS = [
    ["__main__"],
    ["cli"],
    ["__init__"],
    ["scorer"],
    ["_scoring"],
    ["torch", "keras"],
    ["formats"],
    ["_quantize"],
    ["_quantize_model", "_pieces"],
    ["model"],
    ["_nodes", "_rounding"],
    ["gru", "wrappers", "stack"],
    ["_gru_node", "_weighted", "_composite", "_layer", "_member", "_export"],
    ["streaming", "_batcher", "_cascade"],
    ["_writers", "_description", "_keras_config"],
    ["activations", "initializers", "regularizers", "constraints"],
    ["_compile", "_config", "_loop", "_roofline"],
    ["_threads"],
    ["_validate", "_validate_streams", "_validate_models", "_layouts"],
    ["_registry", "_random", "_include", "_errors", "_progress", "_interpreter"],
]
SOURCES = {
    ".".join(path.relative_to(ROOT / "fastgru").with_suffix("").parts): path
    for path in sources("fastgru/**/*.py", "fastgru/*.pyx")
}


def imports(source, modules):
    """The modules among these that a source imports: in functions, too, for types alone, and by name."""
    named = set()  # fastgru.x, and what may be a module in it or not
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                named |= {alias.name for alias in names}
            case ast.ImportFrom(module, names, level):
                assert not level, "imports are absolute"
                named |= {f"{module}.{alias.name}" for alias in names}
            case ast.Call(args=[ast.Constant(str(name)), *_]) if "import" in ast.unparse(node.func):
                named.add(name)
    found = set()
    for name in named:
        package, _, inside = name.partition(".")
        while package == "fastgru" and not {inside, f"{inside}.__init__".lstrip(".")} & modules:
            inside = inside.rpartition(".")[0]
        if package == "fastgru":
            found |= {inside, f"{inside}.__init__".lstrip(".")} & modules
    return found


def test_every_kind_of_import_is_seen():
    source = """
import fastgru.gru, numpy
from fastgru import GRU, stack as other
if TYPE_CHECKING:
    from fastgru.formats._zip import Archive
def late():
    import fastgru.formats as f
    importlib.import_module("fastgru.formats.keras")
"""
    modules = {"__init__", "gru", "stack", "formats.__init__", "formats._zip", "formats.keras", "wrappers"}
    assert imports(source, modules) == modules - {"wrappers"}


def names_of(tree):
    """What the classes of a module declare."""
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for node in (node for each in classes for node in ast.walk(each)):
        match node:
            case ast.FunctionDef(name) | ast.AnnAssign(ast.Name(name)) | ast.Assign([ast.Name(name)]):
                yield name


PROTOCOL = {*names_of(ast.parse(SOURCES["_member"].read_text()))}
LAYERS = ["gru", "wrappers", "stack", "_gru_node", "_weighted", "_composite", "_layer", "_export"]
PRIVATE = {name for module in LAYERS for name in names_of(ast.parse(SOURCES[module].read_text()))} - PROTOCOL
FOREIGN = {"torch", "keras"}  # rooms in which other libraries' private names cannot be done without


@pytest.mark.parametrize("module", [name for name, path in SOURCES.items() if path.suffix == ".py"])
def test_private_names_are_used_where_they_are_declared_and_of_layers_those_of_the_protocol(module):
    tree = ast.parse(SOURCES[module].read_text())
    known = (
        PROTOCOL | {*names_of(tree)} | {"_replace", "_fields", "_asdict", "_exit"}
    )  # of named tuples, and of os
    if module == "_layer":
        known |= {"_lock", "_changed"}  # of its base class, which is compiled
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ast.Name("self" | "cls")) | ast.Attribute(ast.Call(ast.Name("super"))):
                pass
            case ast.Attribute(_, name) if name.startswith("_") and not name.startswith("__"):
                foreign = module.partition(".")[0] in FOREIGN and name not in PRIVATE
                assert name in known or foreign, f"line {node.lineno}: {ast.unparse(node)}"


def test_no_file_of_the_package_is_long():
    paths = sources("fastgru/**/*.py", "fastgru/*.p[yx][xd]", "src/*.[ch]", "include/fastgru/*.h")
    long = {path.name: lines for path in paths if (lines := path.read_text().count("\n")) > 500}
    assert not long


def test_modules_import_downwards_only():
    compiled = [name for name, path in SOURCES.items() if path.suffix == ".pyx"]
    room_of = {}
    for module in SOURCES:
        names = {module, module.partition(".")[0]}
        (room_of[module],) = (i for i, room in enumerate([*ROOMS, compiled]) if names & {*room})
    graph = {}
    for module, path in SOURCES.items():
        text = path.read_text()
        if module in compiled:
            named = re.findall(r"^\s*(?:from|c?import) fastgru\.?(\w*)", text, re.M)
            graph[module] = {name or "__init__" for name in named} & set(SOURCES)
        else:
            graph[module] = imports(text, set(SOURCES))
        for name in graph[module]:
            assert room_of[module] <= room_of[name], f"{module} imports {name}, which is in a room above it"
    graphlib.TopologicalSorter(graph).prepare()  # CycleError: modules of a room import each other in a circle
