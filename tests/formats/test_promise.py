"""What SECURITY.md promises of files that are not trusted, sentence by sentence."""

import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastgru
from fastgru import formats

UNITS, FEATURES = 4, 3


def keras_config(**changes):
    return {"name": "gru", "units": UNITS, "reset_after": True} | changes


def keras_h5(path, config):
    """A whole model of Keras 2 with one GRU."""
    h5py = pytest.importorskip("h5py")
    layer = {"class_name": "GRU", "config": config}
    shapes = {
        "kernel:0": (FEATURES, 3 * UNITS),
        "recurrent_kernel:0": (UNITS, 3 * UNITS),
        "bias:0": (2, 3 * UNITS),
    }
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}})
        file.attrs["keras_version"] = "2.4.0"
        group = file.create_group("model_weights/gru")
        group.attrs["weight_names"] = [f"gru/{name}".encode() for name in shapes]
        for name, shape in shapes.items():
            group[f"gru/{name}"] = np.zeros(shape, np.float32)


def built(**arguments):
    layer = fastgru.GRU(UNITS, name="gru", recurrent_activation="sigmoid", reset_after=True, **arguments)
    layer.build((None, None, FEATURES))
    return layer


def native(path, change, both=False):
    """A file of fastgru's own, with another config."""
    layer = built()
    if both:
        layer = fastgru.Bidirectional(layer)
        layer.build((None, None, FEATURES))
    layer.save(path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays["fastgru"].tobytes())
    config = header["config"]["layer"]["config"] if both else header["config"]
    config.update(change)
    arrays["fastgru"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)


def torch_pt(path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.GRU(FEATURES, UNITS).state_dict(), path)


def safetensors(path):
    from fastgru._writers.safetensors import written

    path.write_bytes(written(built().to_torch_state_dict()))


def npz(path):
    with path.open("wb") as file:
        np.savez(file, **built().to_torch_state_dict())


def onnx(path, layer=None):
    pytest.importorskip("onnx")
    path.write_bytes((layer or built()).to_onnx().SerializeToString())


SOUND = {
    "h5": lambda path: keras_h5(path, keras_config()),
    "native": lambda path: built().save(path),
    "native-both": lambda path: native(path, {}, both=True),
    "npz": npz,
    "onnx": onnx,
    "pt": torch_pt,
    "safetensors": safetensors,
}

# ---- 2 and 3: nothing is run, and no other file, socket or process opened ---------------------

WATCH = """
import sys, warnings
import numpy as np
import fastgru, fastgru.formats
path, *libraries = sys.argv[1:]
for library in libraries:
    __import__(library)
fastgru.load(path)  # what is imported when it is needed
seen = []
names = "open compile exec import socket subprocess os pty shutil tempfile ctypes pickle marshal code".split()
def hook(event, arguments):
    if event.split(".")[0] in names:
        if event != "open" or not isinstance(arguments[0], int):  # a descriptor, of what is open
            seen.append([event, str(arguments[0]) if arguments else ""])
sys.addaudithook(hook)
fastgru.load(path)
watched, seen = seen, None
for event in watched:
    print(*event)
"""


@pytest.mark.parametrize("kind", SOUND)
def test_a_load_opens_its_file_and_nothing_else(kind, tmp_path):
    path = tmp_path / "layer.npz"
    SOUND[kind](path)
    libraries = {"onnx": ["onnx"]}.get(kind, [])
    run = [sys.executable, "-c", WATCH, str(path), *libraries]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = [line.split(" ", 1) for line in done.stdout.splitlines()]
    opened = [what for event, what in events if event == "open"]
    assert opened.count(str(path)) == 1  # 7: and it is read once
    others = [(event, what) for event, what in events if (event, what) != ("open", str(path))]
    if kind == "h5":  # a process of its own, which has no terminal and is ended
        own = [("subprocess.Popen", sys.executable), ("open", os.devnull)]
        assert set(own) <= set(others)
        others = [(event, what) for event, what in others if (event, what) not in own and event != "os.kill"]
    assert others == []


def test_a_pickle_is_not_loaded_by_pickle(tmp_path):
    torch_pt(tmp_path / "model.pt")
    code = """
import sys
import fastgru, fastgru.formats
import pickle
class Refusing:
    def __init__(self, *_, **__):
        raise SystemExit("pickle.Unpickler was made")
pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = Refusing
sys.modules["torch"] = None
print(fastgru.load(sys.argv[1]).units)
"""
    run = [sys.executable, "-c", code, str(tmp_path / "model.pt")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(UNITS)], done.stderr


# ---- 6: all parameters are finite ------------------------------------------------------------

ACTIVATIONS = {
    "LeakyReLU": {"alpha": 1.0},
    "ELU": {"alpha": 1.0},
    "ThresholdedReLU": {"theta": 1.0},
    "ReLU": {"max_value": 1.0, "negative_slope": 0.0, "threshold": 0.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "Affine": {"alpha": 1.0, "beta": 0.0},
    "ScaledTanh": {"alpha": 1.0, "beta": 1.0},
}
PARAMETERS = {
    f"{key}={name}.{parameter}": {key: {"class_name": name, "config": parameters | {parameter: None}}}
    for key in ("activation", "recurrent_activation")
    for name, parameters in ACTIVATIONS.items()
    for parameter in parameters
}
PARAMETERS |= {
    "dropout": {"dropout": None},
    "recurrent_dropout": {"recurrent_dropout": None},
    "kernel_regularizer": {"kernel_regularizer": {"class_name": "L2", "config": {"l2": None}}},
    "bias_constraint": {
        "bias_constraint": {"class_name": "MaxNorm", "config": {"max_value": None, "axis": 0}}
    },
    "kernel_initializer": {
        "kernel_initializer": {
            "class_name": "VarianceScaling",
            "config": {"scale": None, "mode": "fan_in", "distribution": "uniform"},
        }
    },
    "bias_initializer": {"bias_initializer": {"class_name": "Constant", "config": {"value": None}}},
}


def filled(value, number):
    """The config with a number in the place of None."""
    if isinstance(value, dict):
        return {key: filled(item, number) for key, item in value.items()}
    return number if value is None else value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("parameter", PARAMETERS)
@pytest.mark.parametrize("both", [False, True])
def test_parameters_that_are_not_finite_are_refused(both, parameter, number, tmp_path):
    change = PARAMETERS[parameter]
    native(tmp_path / "layer.npz", filled(change, 1.0), both)
    assert fastgru.load(tmp_path / "layer.npz").built
    native(tmp_path / "layer.npz", filled(change, number), both)
    with pytest.raises(fastgru.FormatError, match=r"layer\.npz: .*(finite|must be a|at least|negative)"):
        fastgru.load(tmp_path / "layer.npz")


@pytest.mark.parametrize(
    "change", [{"dropout": math.nan}, {"recurrent_dropout": math.inf}, {"activation": None}]
)
def test_parameters_of_keras_that_are_not_finite_are_refused(change, tmp_path):
    if change == {"activation": None}:
        change = {"activation": {"class_name": "LeakyReLU", "config": {"alpha": math.inf}}}
    keras_h5(tmp_path / "model.h5", keras_config(**change))
    with pytest.raises(fastgru.FormatError, match=r"model\.h5: \S* must be finite, got (nan|inf)"):
        fastgru.load(tmp_path / "model.h5")


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_parameters_of_onnx_that_are_not_finite_are_refused(number, tmp_path):
    helper = pytest.importorskip("onnx").helper
    layer = built(activation=fastgru.activations.Affine(0.5, 0.5))
    model = layer.to_onnx()
    alpha = next(one for one in model.graph.node[0].attribute if one.name == "activation_alpha")
    alpha.CopyFrom(helper.make_attribute("activation_alpha", [number]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(fastgru.FormatError, match="activation_alpha and activation_beta must be finite"):
        fastgru.load(tmp_path / "model.onnx")


# ---- 7: each file is read once ---------------------------------------------------------------


@pytest.mark.parametrize("kind", SOUND)
def test_a_file_that_changes_while_it_is_read_is_the_one_that_it_was(kind, tmp_path, monkeypatch):
    path = tmp_path / "model"
    layer = built()
    SOUND[kind](layer_path := tmp_path / "layer.npz")
    layer_path.rename(path)
    wanted = fastgru.load(path).get_weights()
    told = formats.recognised

    def overwriting(data):
        path.write_bytes(b"\0" * len(data))  # once the file has been read
        return told(data)

    monkeypatch.setattr(formats, "recognised", overwriting)
    found = fastgru.load(path).get_weights()
    assert path.read_bytes().strip(b"\0") == b""
    assert len(found) == len(wanted) >= len(layer.get_weights())
    for array, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(array, other)


def test_a_pipe_in_the_place_of_data_beside_a_model_is_not_waited_for(tmp_path):
    onnx_library = pytest.importorskip("onnx")
    onnx_library.save(
        built().to_onnx(),
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="data",
        size_threshold=0,
    )
    assert fastgru.load(tmp_path / "model.onnx").built
    (tmp_path / "data").unlink()
    os.mkfifo(tmp_path / "data")
    with pytest.raises(fastgru.FormatError, match="which is no plain file beside the model"):
        fastgru.load(tmp_path / "model.onnx")


# ---- 5: what a file holds ---------------------------------------------------------------------


def test_a_file_of_holes_is_not_read(tmp_path):
    path = tmp_path / "model.pt"
    torch_pt(path)
    os.truncate(path, 1 << 33)
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no files with holes")
    with pytest.raises(
        fastgru.FormatError, match=r"the file has 8589934592 bytes, of which \d+ are on the disk"
    ):
        fastgru.load(path)


def test_weights_that_compress_well_are_read(tmp_path):
    arrays = built().to_torch_state_dict()
    with (tmp_path / "model.npz").open("wb") as file:
        np.savez_compressed(file, **{key: np.zeros_like(array) for key, array in arrays.items()})
    assert fastgru.load(tmp_path / "model.npz").built
    with zipfile.ZipFile(tmp_path / "model.npz") as archive:
        assert all(member.compress_type == zipfile.ZIP_DEFLATED for member in archive.infolist())


def test_the_page_names_the_program_that_is_there():
    root = Path(__file__).resolve().parents[2]
    text = (root / "SECURITY.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("    python ")]
    assert (root / line.split()[1]).is_file()
