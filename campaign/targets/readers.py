"""Readers of files: layers that can be called or a FormatError, and nothing else is opened, run or started.

The judge is that of tests/formats/hostile, and so are the real files, the grammars and the changes of one
part of a file. The fuzzer adds coverage, and changes of changes.
"""

from __future__ import annotations

import functools
import io
import random
import resource
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

from campaign.targets.target import Target

READERS = ("fastgru.formats", "fastgru._keras_config", "fastgru._config", "fastgru._nodes")
ADDRESS_SPACE = 1 << 30  # bytes besides what the process has: those of the fuzzer, too
HDF5_SECONDS = 20  # for its process to start and to read, on a machine that may be busy
DRAWN = 20  # seeds of each grammar
LARGEST = 1 << 15  # bytes of a seed
MEMORY = Path("/dev/shm")  # a disk in memory
REAL = Path(__file__).parents[2] / "build" / "campaign" / "real"  # files that libraries have written
ZIP = b"PK\x03\x04"  # the start of an archive


def prepare(suffix: str, arguments: dict[str, object]) -> Callable[[bytes], None]:
    """A function that judges the bytes of a file of a kind."""
    from formats.hostile import judging

    from fastgru.formats import _hdf5

    judging.prepare()
    _hdf5.SECONDS = HDF5_SECONDS
    _hdf5.open_tree = judging.KeptOpen()  # to start a process for each archive takes all the time
    watch = judging.Watch()
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    path = folder / f"file{suffix}"
    known = {path}
    for name, content in beside(suffix).items():
        (folder / name).write_bytes(content)
        known.add(folder / name)
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", UserWarning)  # of ours, which show a line of the source
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ADDRESS_SPACE,) * 2)

    def one(data: bytes) -> None:
        path.write_bytes(data)
        with watch.over(known):
            judging.judge(path, arguments)

    return one


def beside(suffix: str) -> dict[str, bytes]:
    """The files of weights that a model.json of TensorFlow.js names."""
    if suffix != ".json":
        return {}
    folder = Path(__file__).parents[2] / "tests" / "formats" / "data" / "tfjs"
    return {path.name: path.read_bytes() for path in folder.glob("*/*.bin")}


def seeds(kinds: tuple[str, ...], real: tuple[str, ...]) -> dict[str, bytes]:
    """Files of grammars and of libraries, as tests/formats/hostile names them."""
    from formats.hostile import campaign, real_files

    found = {}
    for kind in kinds:
        for seed in range(DRAWN):
            found[f"{kind}-{seed}"] = campaign.KINDS[kind].make(seed).content
    REAL.mkdir(parents=True, exist_ok=True)
    written = campaign.RealFiles(REAL)
    for name in real:
        one = real_files.FILES[name]
        found[name] = (written[one.writer] / one.name).read_bytes()
    return {name: data for name, data in found.items() if len(data) <= LARGEST}


def tfjs_seeds() -> dict[str, bytes]:
    folder = Path(__file__).parents[2] / "tests" / "formats" / "data" / "tfjs"
    real = {path.parent.name: path.read_bytes() for path in folder.glob("*/model.json")}
    return real | seeds(("tfjs",), ())


def changed(suffix: str, data: bytes, rng: random.Random) -> bytes:
    """A file with one part changed, so that the rest stays sound."""
    from formats.hostile import mutants

    if suffix in mutants.CHANGES:
        return mutants.CHANGES[suffix](data, rng)
    if suffix == ".json":
        return mutants.changed_text(data, rng)
    return mutants.scrambled(data, rng)


def with_member(data: bytes, rng: random.Random, mutate: Callable[[bytes], bytes]) -> bytes:
    """An archive with a member that the fuzzer has changed, and its checksum with it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice([*members])
    members[name] = mutate(members[name])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def reader(
    suffix: str, kinds: tuple[str, ...] = (), real: tuple[str, ...] = (), **arguments: object
) -> Target:
    return Target(
        functools.partial(prepare, suffix, arguments),
        tfjs_seeds if suffix == ".json" else functools.partial(seeds, kinds, real),
        functools.partial(changed, suffix),
        READERS,
        (*kinds, *(f"mutants-{name}" for name in real)),
    )


OF_WEIGHTS = {"recurrent_activation": "sigmoid", "reset_after": True}  # of files that hold nothing else
TARGETS = {
    "keras": reader(".keras", ("keras-archives",), ("tf_keras-keras", "keras3-keras")),
    "hdf5": reader(".h5", ("keras-h5", "hdf5"), ("tf_keras-h5",)),
    "hdf5 weights": reader(
        ".h5", (), ("tf_keras-h5-weights", "tf_keras-weights-h5", "keras3-weights-h5"), **OF_WEIGHTS
    ),
    "pytorch zip": reader(
        ".pt", ("pickles-zipped", "archives"), ("torch-zip", "torch-checkpoint", "torch-module")
    ),
    "torchscript": reader(".pt", ("pickles-torchscript",), ("torch-script",)),
    "pytorch legacy": reader("", ("pickles-legacy",), ("torch-legacy",)),
    "safetensors": reader(".safetensors", ("safetensors",), ("safetensors",)),
    "npz": reader(".npz", ("npy",), ("npz",)),
    "onnx": reader(".onnx", ("onnx",), ("onnx", "onnx-folded", "onnx-external")),
    "onnx loops": reader(".onnx", ("onnx-loops",)),
    "fastgru": reader(".npz", ("native",), ("native", "native-bidirectional", "native-stack")),
    "tensorflow.js": reader(".json", ("tfjs",)),
}
