"""The example in C: any compiler makes a program of it that has the bits of the layer in Python."""

import os
import re
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from compilers import SANITIZED, SCALAR, USUAL, WARNINGS

import fastgru
from fastgru import _config, _kernels

TESTS = Path(__file__).resolve().parents[1]
FOLDER = TESTS.parent / "examples" / "c"
README = (FOLDER / "README.md").read_text()
WRITE, READ = re.findall(r"```python\n(.*?)```", README, re.S)
MAKE, COMPILE = re.findall(r"^    (make .*|cc .*)$", README, re.M)

C = ["-std=c99", "-pedantic"]
CPP = ["-x", "c++", "-std=c++11"]
COMPILERS = {"gcc": C, "clang": C, "g++": CPP, "clang++": CPP}


def build(folder, objects, *compiler):
    """The program, without a single warning."""
    program = folder / "gru"
    strict = ["-O1", *WARNINGS, f"-I{fastgru.get_include()}"]
    source = [FOLDER / "gru.c", "-x", "none"]  # what follows is no C++
    subprocess.run([*compiler, *strict, *source, *objects, "-o", program], check=True)
    return program


@pytest.fixture(scope="module", params=[name for name in COMPILERS if shutil.which(name)])
def program(request, tmp_path_factory, engine):
    return build(tmp_path_factory.mktemp("program"), engine(*USUAL), request.param, *COMPILERS[request.param])


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory, engine):
    return build(tmp_path_factory.mktemp("sanitized"), engine(*SANITIZED, SCALAR), SANITIZED[0], *C)


def run(*command, **options):
    environment = os.environ | {"ASAN_OPTIONS": "handle_sigill=1"}
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False, **options)


def results(*command):
    """The instruction set and the last state."""
    with Path("state.txt").open("w") as file:
        ran = run(*command, stdout=file)
    assert (ran.returncode, ran.stderr) == (0, "")
    names = {"np": np}
    exec(READ, names)
    return re.match(r"# (\w+):", Path("state.txt").read_text())[1], np.atleast_1d(names["state"])


def write(layer, x):
    exec(WRITE, {"np": np, "layer": layer, "x": x})


@pytest.fixture(autouse=True)
def in_a_folder_and_on_the_kernels_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_config, "CHOICE", _config.Choice("packed", _kernels.isas()[0]))


LAYERS = [  # timesteps, features, units, arguments
    (1, 1, 1, {}),
    (30, 5, 17, {"reset_after": True}),
    (100, 40, 64, {"recurrent_activation": "sigmoid"}),
    (400, 3, 70, {"reset_after": True, "recurrent_activation": "sigmoid"}),
]


def layer_and_frames(timesteps, features, units, arguments):
    rng = np.random.default_rng(units)
    x = rng.normal(size=(timesteps, features)).astype(np.float32)
    layer = fastgru.GRU(units, bias_initializer="random_normal", **arguments)
    layer.build((1, timesteps, features))
    return layer, x


@pytest.mark.parametrize("arguments", LAYERS)
def test_the_state_has_the_bits_of_the_layer_in_python(program, arguments):
    layer, x = layer_and_frames(*arguments)
    write(layer, x)
    isa, state = results(program, "layer.gru")
    assert isa == _kernels.isas()[0]
    np.testing.assert_array_equal(state, layer(x[np.newaxis])[0], strict=True)


@pytest.mark.skipif(not all(map(shutil.which, ["make", "pkg-config"])), reason="needs make and pkg-config")
def test_it_is_built_as_its_readme_says(tmp_path, engine):
    library = tmp_path / "library"
    # a loop for each lane compiles in a fifth of the time; test_header.py has what the others export
    subprocess.run(f"{MAKE} C_LIBRARY={library} CFLAGS='-O1 {SCALAR}'", shell=True, check=True, cwd=FOLDER)
    command = COMPILE.replace("../../build/c-library", str(library))
    command = command.replace("-o gru", f"-o {tmp_path / 'gru'}")
    subprocess.run(command, shell=True, check=True, cwd=FOLDER)
    isa, state = results(tmp_path / "gru")
    usual_isa, usual_state = results(build(library, engine(*USUAL, SCALAR), "gcc", *C))
    assert isa == usual_isa == "generic"
    np.testing.assert_array_equal(state, usual_state)
    exported = subprocess.run(
        ["nm", "--dynamic", "--defined-only", "--format=posix", library / "lib" / "libfastgru.so"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    headers = sorted((library / "include" / "fastgru").glob("*.h"))
    header = "\n".join(path.read_text() for path in headers)
    functions = re.findall(r"^\w[\w *]*?\b(fastgru_\w+)\(", header, re.M)
    assert {line.split()[0] for line in exported.splitlines()} == {*functions, "fastgru_activation_names"}
    assert (library / "lib" / "libfastgru.a").exists()


@pytest.mark.parametrize("arguments", LAYERS)
def test_nothing_is_leaked_or_touched_out_of_bounds(sanitized, arguments):
    layer, x = layer_and_frames(*arguments)
    write(layer, x)
    isa, state = results(sanitized, "layer.gru")
    assert isa == "generic"
    np.testing.assert_allclose(state, layer(x[np.newaxis])[0], atol=1e-5)


def test_without_a_file_it_runs_what_the_formula_says(program):
    features, units, timesteps = 40, 64, 1000
    shapes = [(features, 3 * units), (units, 3 * units), (2, 3 * units), (timesteps, features)]
    number, numbers = 0, []
    for _ in range(sum(map(np.prod, shapes))):
        number = (number * 1664525 + 1013904223) % 2**32
        numbers.append(((number >> 8) / 2**24 - 0.5) / 2)
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    arrays = np.split(np.array(numbers, np.float32), ends[:-1])
    *weights, x = (array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True))
    layer = fastgru.GRU(units, recurrent_activation="sigmoid", reset_after=True, weights=weights)
    _, state = results(program)
    np.testing.assert_array_equal(state, layer(x[np.newaxis])[0], strict=True)
    quoted = re.findall(r"^    (-?0x.*)$", README, re.M)
    assert quoted
    np.testing.assert_allclose(list(map(float.fromhex, quoted)), state[: len(quoted)], rtol=1e-5)


def header(features=2, units=3, timesteps=4, reset_after=0, hard_sigmoid=1):
    return b"GRU1" + np.array([features, units, timesteps, reset_after, hard_sigmoid], "<u4").tobytes()


FLOATS = bytes(4 * (2 * 9 + 3 * 9 + 9 + 4 * 2))
MOST = 2**32 - 1
WRONG = {  # contents, what the message says
    "empty": (b"", "must begin with GRU1 and 5 numbers"),
    "another format": (b"GGUF" + header()[4:] + FLOATS, "must begin with GRU1"),
    "half a header": (header()[:15], "must begin with GRU1"),
    "a header": (header(), "must have the 272 bytes that its header asks for, got 24"),
    "a byte too few": (header() + FLOATS[1:], "the 272 bytes that its header asks for, got 271"),
    "a byte too many": (header() + FLOATS + b"\0", "the 272 bytes that its header asks for, got 273"),
    "the other reset": (header(reset_after=1) + FLOATS, "the 308 bytes that its header asks for, got 272"),
    "no features": (header(features=0) + FLOATS, "features must be from 1 to 4096, got 0"),
    "no units": (header(units=0) + FLOATS, "units must be from 1 to 4096, got 0"),
    "no timesteps": (header(timesteps=0) + FLOATS, "timesteps must be from 1 to 16777216, got 0"),
    "a third reset": (header(reset_after=2) + FLOATS, "reset_after must be from 0 to 1, got 2"),
    "no flag": (header(hard_sigmoid=MOST) + FLOATS, f"hard_sigmoid must be from 0 to 1, got {MOST}"),
    "too many features": (header(features=MOST) + FLOATS, f"features must be from 1 to 4096, got {MOST}"),
    "too many units": (header(units=2**31) + FLOATS, f"units must be from 1 to 4096, got {2**31}"),
    "too many timesteps": (header(timesteps=MOST) + FLOATS, f"16777216, got {MOST}"),
    "the largest": (header(4096, 4096, 2**24) + FLOATS, "must have the 275280609304 bytes"),
}


def assert_refused(ran, message):
    assert ran.returncode == 2
    assert not ran.stdout
    assert re.fullmatch(r"gru: [^\n]*\n", ran.stderr)
    assert message in ran.stderr


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_file_is_refused_in_one_line(sanitized, wrong):
    contents, message = WRONG[wrong]
    Path("layer.gru").write_bytes(contents)
    assert_refused(run(sanitized, "layer.gru", stdout=subprocess.PIPE), message)


def test_so_is_what_is_no_file(sanitized):
    assert_refused(run(sanitized, "layer.gru", stdout=subprocess.PIPE), "layer.gru: No such file")
    assert_refused(run(sanitized, ".", stdout=subprocess.PIPE), ".: must begin with GRU1")
    assert_refused(run(sanitized, "a", "b", stdout=subprocess.PIPE), "usage: gru [file]")


def test_so_is_an_output_that_takes_nothing(sanitized):
    with Path("/dev/full").open("w") as full:
        ran = run(sanitized, stdout=full)
    assert (ran.returncode, ran.stderr) == (2, "gru: cannot write: No space left on device\n")


def test_so_is_a_file_that_memory_cannot_hold(program):
    contents = header(256, 1, 2**20)
    with Path("layer.gru").open("wb") as file:
        file.write(contents)
        file.truncate(len(contents) + 4 * (257 * 3 + 3 + 256 * 2**20))  # 1 GiB, none of it on the disk

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))

    ran = run(program, "layer.gru", stdout=subprocess.PIPE, preexec_fn=limit)
    assert_refused(ran, "out of memory: 1024.0 MiB wanted")
