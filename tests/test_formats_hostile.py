"""Files that are damaged or lie: a layer or a FormatError; no crash, no hang, no code run, little memory.

Thousands of changes of real files of every format, in processes that may take 256 MB more than they have, and
a few seconds a file. A failing seed is printed; this file as a program repeats it, or does a longer campaign:

    python tests/test_formats_hostile.py KIND FIRST_SEED COUNT
"""

import copy
import importlib
import io
import itertools
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import fastgru
from fastgru.formats import _hdf5

MEMORY = 256 << 20  # bytes besides what a process has
SECONDS = 20  # of processor time for one file, besides those of HDF5's own process
PATIENCE = 120  # seconds on the clock, for a machine that is busy

# ---- real files ------------------------------------------------------------------------------


def write_tf_keras(folder):
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tf_keras

    write_keras(tf_keras, folder / "tf_keras")


def write_keras3(folder):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    write_keras(keras, folder / "keras3")


def write_keras(keras, folder):
    folder.mkdir()
    both = keras.layers.Bidirectional(keras.layers.GRU(2, name="inner"), name="both")
    model = keras.Sequential(
        [keras.Input((None, 3)), keras.layers.GRU(4, return_sequences=True, name="first"), both]
    )
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    if keras.__version__.startswith("2"):
        model.save(folder / "model.h5")
        model.save_weights(folder / "weights.h5")


def write_torch(folder):
    import torch
    from safetensors.torch import save_file

    folder /= "torch"
    folder.mkdir()
    torch.manual_seed(0)
    state = torch.nn.GRU(3, 4, num_layers=2, bidirectional=True).state_dict()
    torch.save(state, folder / "model.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file(state, folder / "model.safetensors")
    np.savez(folder / "state.npz", **{key: tensor.numpy() for key, tensor in state.items()})


def write_onnx(folder):
    import onnx
    from onnx import helper, numpy_helper

    folder /= "onnx"
    folder.mkdir()
    rng = np.random.default_rng(0)

    def tensor(name, *shape):
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Constant", [], ["B"], value=tensor("b", 1, 24)),
        helper.make_node("GRU", ["X", "W", "R", "B"], ["Y"], "first", hidden_size=4, linear_before_reset=1),
        helper.make_node("Squeeze", ["Y", "one"], ["S"]),
        helper.make_node(
            "GRU",
            ["S", "W2", "R2", "", "", "h"],
            ["Y2", "Y_h2"],
            "second",
            hidden_size=2,
            direction="bidirectional",
            activations=["HardSigmoid", "Tanh", "Sigmoid", "LeakyRelu"],
            activation_alpha=[0.2, 0.1],
            activation_beta=[0.5],
        ),
    ]
    tensors = [tensor("W", 1, 12, 3), tensor("R", 1, 12, 4), tensor("W2", 2, 6, 4), tensor("R2", 2, 6, 2)]
    tensors += [tensor("h", 2, 1, 2), numpy_helper.from_array(np.array([1]), "one")]
    inputs = [helper.make_tensor_value_info("X", 1, ["time", "batch", 3])]
    outputs = [helper.make_tensor_value_info(name, 1, None) for name in ("Y2", "Y_h2")]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    onnx.save(model, folder / "model.onnx")
    (folder / "external").mkdir()
    onnx.save(
        model,
        folder / "external" / "model.onnx",
        save_as_external_data=True,
        location="data",
        size_threshold=0,
    )


def write_folded(folder):
    """Weights and a state that nodes compute, in a function and out of it."""
    import onnx
    from onnx import helper, numpy_helper

    folder /= "folded"
    folder.mkdir()
    rng = np.random.default_rng(0)
    values = {
        "q": rng.integers(-99, 99, (1, 12, 3), np.int8),
        "s": np.float32(0.01),
        "z": rng.normal(size=(4, 4)).astype(np.float32),
        "rh": rng.normal(size=(4, 8)).astype(np.float32),
        "h": rng.normal(size=(1, 4)).astype(np.float32),
        "0": np.array([0]),
        "1": np.array([1]),
        "2": np.array([2]),
        "4": np.array([4]),
    }
    node = helper.make_node
    inside = [
        node("GRU", ["X", "W", "R", "", "", "H"], ["Y"], hidden_size=4, linear_before_reset=1),
    ]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "Net", ["X", "W", "R", "H"], ["Y"], inside, opsets)
    nodes = [
        node("DequantizeLinear", ["q", "s"], ["W"]),
        node("Transpose", ["rh"], ["turned"], perm=[1, 0]),
        node("Concat", ["z", "turned"], ["whole"], axis=0),
        node("Unsqueeze", ["whole", "0"], ["R"]),
        node("Shape", ["X"], ["shape"]),
        node("Slice", ["shape", "1", "2"], ["batch"]),
        node("Concat", ["1", "batch", "1"], ["times"], axis=0),
        node("Unsqueeze", ["h", "0"], ["row"]),
        node("Tile", ["row", "times"], ["H"]),
        node("Net", ["X", "W", "R", "H"], ["Y"], "net", domain="own"),
        node("Squeeze", ["Y", "1"], ["S"]),
        node("ConstantOfShape", ["1"], ["zeros"]),
        node("GRU", ["S", "W2", "R", "", "", "H"], ["Y2", "Y_h"], "upper", hidden_size=4),
        node("Slice", ["R", "0", "4", "2"], ["W2"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("X", 1, ["time", "batch", 3])],
        [helper.make_tensor_value_info(name, 1, None) for name in ("Y2", "Y_h")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in values.items()],
    )
    opsets.append(helper.make_opsetid("own", 1))
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[function]), folder / "model.onnx")


def write_native(folder):
    folder /= "native"
    folder.mkdir()
    layer = fastgru.GRU(4, activation="PReLU", kernel_initializer="he_normal", kernel_regularizer="l2")
    layer.build((None, None, 3))
    layer.save(folder / "gru.npz")
    state = np.ones(2, np.float32)
    both = fastgru.Bidirectional(
        fastgru.GRU(2, activation={"class_name": "LeakyReLU", "config": {"alpha": 0.1}}, default_state=state)
    )
    both.build((None, None, 3))
    both.save(folder / "both.npz")
    below = fastgru.Bidirectional(fastgru.GRU(2, return_sequences=True))
    stack = fastgru.Stack([fastgru.GRU(3, return_sequences=True), below, fastgru.GRU(4, reset_after=True)])
    stack.build((None, None, 3))
    stack.save(folder / "stack.npz")


# kind: who writes it, its file, arguments of load_all, mutations in the tests
SIGMOID = {"recurrent_activation": "sigmoid", "reset_after": True}
KINDS = {
    "tf_keras-h5": (write_tf_keras, "tf_keras/model.h5", {}, 110),
    "tf_keras-h5-weights": (write_tf_keras, "tf_keras/weights.h5", SIGMOID, 70),
    "tf_keras-keras": (write_tf_keras, "tf_keras/model.keras", {}, 140),
    "tf_keras-weights-h5": (write_tf_keras, "tf_keras/model.weights.h5", SIGMOID, 45),
    "keras3-keras": (write_keras3, "keras3/model.keras", {}, 140),
    "keras3-weights-h5": (write_keras3, "keras3/model.weights.h5", SIGMOID, 45),
    "torch-zip": (write_torch, "torch/model.pt", {}, 1500),
    "torch-legacy": (write_torch, "torch/legacy.pt", {}, 1500),
    "safetensors": (write_torch, "torch/model.safetensors", {}, 2000),
    "npz": (write_torch, "torch/state.npz", {}, 2000),
    "onnx": (write_onnx, "onnx/model.onnx", {}, 2000),
    "onnx-external": (write_onnx, "onnx/external/model.onnx", {}, 2000),
    "onnx-folded": (write_folded, "folded/model.onnx", {}, 2000),
    "native": (write_native, "native/gru.npz", {}, 2000),
    "native-bidirectional": (write_native, "native/both.npz", {}, 2000),
    "native-stack": (write_native, "native/stack.npz", {}, 2000),
}

# ---- mutations -------------------------------------------------------------------------------

WEIRD = [
    *(None, True, False, -1, 0, 1, 3, 1.5, 1e308, 2**31, 2**63, 10**30, float("nan"), float("inf")),
    *("", "x", "GRU", "softmax", "../x", "\0", "gru", "float16", [], {}, [1, 2], [[]], ["x"], [None] * 3),
    {"class_name": "GRU"},
    {"class_name": "Softmax", "config": {"axis": 7}},
    {"class_name": "PReLU", "config": {"shared_axes": [3]}},
    {"class_name": "__numpy__", "config": {"value": [1], "dtype": "U999999999"}},
    {"class_name": "Constant", "config": {"value": [[1, 2], [3]]}},
]
NUMBERS = [
    0,
    1,
    2,
    0x7F,
    0xFF,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFF,
    1 << 32,
    1 << 40,
    (1 << 63) - 1,
    (1 << 64) - 1,
]
SIGNATURES = [
    b"TREE",
    b"SNOD",
    b"HEAP",
    b"GCOL",
    b"OHDR",
    b"PK\1\2",
    b"PK\3\4",
    b"PK\5\6",
    b"\x93NUMPY",
    b"{",
]


def scrambled(data, rng):
    """Bytes with some of them changed, moved, doubled or left out."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
        size = len(data)
        at = rng.randrange(size + 1)
        if rng.random() < 0.3:  # near what tells the parts of a file
            places = [i for s in SIGNATURES for i in occurrences(data, s)] or [0]
            at = min(size, rng.choice(places) + rng.randrange(64))
        length = min(rng.choice([1, 2, 4, 8, 64, 1000]), size - at)
        match rng.randrange(9):
            case 0 if length:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + length] = rng.randbytes(length)
            case 2:
                data[at : at + length] = rng.choice([b"\0", b"\xff"]) * length
            case 3:
                other = rng.randrange(size + 1)
                data[at : at + length] = data[other : other + length]
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                data[at:at] = rng.randbytes(length)
            case 6:
                del data[at : at + length]
            case 7:
                width = rng.choice([1, 2, 4, 8])
                number = rng.choice(NUMBERS) & ((1 << 8 * width) - 1)
                data[at : at + width] = number.to_bytes(width, rng.choice(["little", "big"]))
            case 8 if rng.random() < 0.2:
                del data[at:]
    return bytes(data)


def occurrences(data, signature):
    at = data.find(signature)
    while at >= 0:
        yield at
        at = data.find(signature, at + 1)


def nodes(value):
    """Every (container, key) of a tree of JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from nodes(item)


def changed_json(text, rng):
    """JSON with values, names and texts of another kind."""
    tree = {"": json.loads(text)}
    for _ in range(rng.choice([1, 1, 2, 4])):
        container, key = rng.choice(list(nodes(tree)))
        match rng.randrange(6):
            case 0 | 1 | 2:
                container[key] = copy.deepcopy(rng.choice(WEIRD))
            case 3:
                container[key] = (
                    container.get(rng.choice(list(container))) if isinstance(container, dict) else 0
                )
            case 4 if container is not tree:
                del container[key]
            case 5 if isinstance(container, dict) and container is not tree:
                container[rng.choice(["weights", "name", "config", "cell", "layers", "x"])] = container.pop(
                    key
                )
    text = json.dumps(tree.get("")).encode()
    match rng.randrange(20):
        case 0:
            text = text.replace(b"{", b'{"config": 1, "config": 2, ', 1)
        case 1:
            deep = rng.choice([50, 500, 5_000])
            text = text.replace(b"null", b"[" * deep + b"]" * deep)
        case 2:
            text = text.replace(b"1", b"1" * 5_000)
        case 3:
            text = scrambled(text, rng)
    return text


def with_nan(data, rng):
    """Bytes with a NaN or an infinity where a float32 may be."""
    at = rng.randrange(max(1, len(data) // 4)) * 4
    return data[:at] + struct.pack("<f", rng.choice([np.nan, np.inf, -np.inf, 3e38])) + data[at + 4 :]


def changed_npy(data, rng):
    """An .npy file with another header, or other numbers."""
    (length,) = struct.unpack_from("<H", data, 8)
    header, rest = data[10 : 10 + length], data[10 + length :]
    match rng.randrange(6):
        case 0:
            descr = rng.choice(
                [b"|O", b"<f8", b"<f2", b">f4", b"|V4", b"<U9", b"<c8", b"|u1", b"<f4,<f4", b"x"]
            )
            header = header.replace(b"<f4", descr)
        case 1:
            shapes = [b"(-1,)", b"(1, 2, 3)", b"(9999999999, 9999999999)", b"(0, 99999999999)", b"((4,),)"]
            shapes += [b"()", b"(True,)", b"(" + b"1, " * 70 + b")", b"(1e3,)", b"[4]", b"(" * 300]
            header = header[: header.index(b"(")] + rng.choice(shapes) + b", }"
        case 2:
            header = header.replace(b"False", rng.choice([b"True", b"1", b"None", b"__import__('os')"]))
        case 3:
            header = scrambled(header, rng)
        case 4:
            rest = with_nan(rest, rng)
        case 5:
            return scrambled(data, rng)
    return data[:8] + struct.pack("<H", len(header) & 0xFFFF) + header + rest


def changed_member(name, data, rng):
    if name == "fastgru.npy":
        (length,) = struct.unpack_from("<H", data, 8)
        buffer = io.BytesIO()
        np.save(buffer, np.frombuffer(changed_json(data[10 + length :], rng), np.uint8))
        return buffer.getvalue()
    kinds = {"json": changed_json, "npy": changed_npy, "h5": changed_h5}
    change = kinds.get(name.rpartition(".")[2], scrambled)
    return change(data, rng) if rng.random() < 0.8 else scrambled(data, rng)


def changed_zip(data, rng):
    """A sound archive with a changed member, or with others."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = rng.randrange(len(members))
    name, content = members[at]
    match rng.randrange(8):
        case 0:
            members[at] = rng.choice(["../x", "/x", "x" * 300, name + "x", members[0][0]]), content
        case 1:
            del members[at]
        case 2:
            members.append((rng.choice([name, "config.json", "fastgru.npy", "a/data.pkl", "0.npy"]), content))
        case _:
            members[at] = name, changed_member(name, content, rng)
    buffer = io.BytesIO()
    packing = rng.choice([zipfile.ZIP_STORED] * 10 + [zipfile.ZIP_DEFLATED] * 5 + [zipfile.ZIP_BZIP2])
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", packing) as archive:
        warnings.simplefilter("ignore")  # of two members with one name
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def changed_safetensors(data, rng):
    (length,) = struct.unpack_from("<Q", data)
    header, rest = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.2:
        return data[: 8 + length] + with_nan(rest, rng)
    header = changed_json(header, rng)
    length = rng.choice(NUMBERS) if rng.random() < 0.1 else len(header)
    return struct.pack("<Q", length) + header + rest


def changed_proto(data, rng):
    """A message of ONNX with a field of another value."""
    import onnx
    from google.protobuf.descriptor import FieldDescriptor as Field

    model = onnx.ModelProto.FromString(data)

    def fields(message):
        for field, value in message.ListFields():
            yield message, field
            if field.type == Field.TYPE_MESSAGE:
                for item in value if hasattr(value, "extend") else [value]:
                    yield from fields(item)

    def another(field, old):
        if field.type == Field.TYPE_MESSAGE:
            return None
        if field.type == Field.TYPE_STRING:
            names = [
                "",
                "X",
                "W",
                "R",
                "B",
                "Y",
                "h",
                "GRU",
                "first",
                "../data",
                "/etc/passwd",
                "data",
                "9" * 30,
            ]
            return rng.choice([*names, "-1", "0", "x" * 1000])
        if field.type == Field.TYPE_BYTES:
            words = [b"", b"Tanh", b"reverse", b"forward", b"\xff", b"softmax", b"x" * 1000]
            return rng.choice([*words, scrambled(old, rng), with_nan(old, rng)])
        if field.type in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE):
            return rng.choice([0.0, -1.0, 1e38, float("nan"), float("inf")])
        if field.type == Field.TYPE_ENUM:
            return rng.choice(field.enum_type.values).number
        return rng.choice([-(2**31), -1, 0, 1, 2, 3, 10, 11, 16, 1000, 2**31 - 1])

    for _ in range(rng.choice([1, 1, 2, 4])):
        message, field = rng.choice(list(fields(model)))
        value = getattr(message, field.name)
        if rng.random() < 0.1:
            message.ClearField(field.name)
        elif hasattr(value, "extend"):
            at = rng.randrange(len(value))
            new = another(field, value[at])
            if new is None or rng.random() < 0.3:
                if rng.random() < 0.5:
                    del value[at]
                else:
                    value.append(value[at])
            else:
                value[at] = new
        elif (new := another(field, value)) is not None:
            setattr(message, field.name, new)
    return model.SerializeToString()


def changed_h5(data, rng):
    """An HDF5 file that the library itself has changed: attributes, shapes, types, links."""
    import h5py

    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        found = []
        file.visit(found.append)
        datasets = [name for name in found if isinstance(file[name], h5py.Dataset)]
        groups = ["/", *(name for name in found if name not in datasets)]
        name, group = rng.choice(datasets), file[rng.choice(groups)]
        old = file[name][()]
        match rng.randrange(9):
            case 0:
                del file[name]
                shape = rng.choice([old.T.shape, (old.size,), (*old.shape, 1), (), (0, 3), (1000,)])
                file.create_dataset(name, shape, rng.choice(["f2", "f4", "f8", ">f4", "i4", "S4"]))
            case 1:
                del file[name]
            case 2:
                file[name][...] = with_nan_array(old, rng)
            case 3:
                del file[name]
                links = [h5py.SoftLink("/"), h5py.SoftLink("/x"), h5py.ExternalLink("/etc/passwd", "/")]
                file[name] = rng.choice(links)
            case 4:
                file[f"{group.name}/loop"] = file["/"]
            case 5:
                del file[name]
                shape = rng.choice([(1 << 40,), (1 << 20, 1 << 20), (3, 12)])
                file.create_dataset(name, shape, "f4", chunks=(1,) * len(shape), fillvalue=1)
            case _:
                owners = [g for g in (file[g] for g in groups) if len(g.attrs)]
                owner = rng.choice(owners) if owners else group
                key = rng.choice(list(owner.attrs) or ["layer_names"])
                value = owner.attrs.get(key, "")
                if isinstance(value, (str, bytes)) and key == "model_config":
                    text = changed_json(value, rng).decode("latin1").replace("\0", "")
                    owner.attrs[key] = text[:60_000]
                elif key == "keras_version":
                    owner.attrs[key] = rng.choice(["1.2.2", "3.0.0", "", "x", "9" * 100])
                else:
                    names = np.ravel(value).tolist()
                    weird = [names[::-1], names[1:], names + names, [b"x"], [b"../x"], [b"\xff"]]
                    weird = [
                        np.array([str(n).encode() if isinstance(n, str) else n for n in w], "S")
                        for w in weird
                    ]
                    owner.attrs[key] = rng.choice([*weird, 7, "x"])
    return buffer.getvalue()


def with_nan_array(array, rng):
    changed = array.ravel().copy()
    if changed.size:
        changed[rng.randrange(changed.size)] = rng.choice([np.nan, np.inf])
    return changed.reshape(array.shape)


CHANGES = {
    ".h5": changed_h5,
    ".keras": changed_zip,
    ".npz": changed_zip,
    ".pt": changed_zip,
    ".safetensors": changed_safetensors,
    ".onnx": changed_proto,
}


def mutate(original, folder, seed):
    """A changed copy of a file, and of what lies beside it, in a folder; its path."""
    rng = random.Random(f"{original.name} {seed}")
    beside = original.parent / "data"
    path, target = folder / original.name, original
    shutil.copy(original, path)
    if beside.exists():
        shutil.copy(beside, folder / "data")
        target = rng.choice([original, original, beside])
    data = target.read_bytes()
    change = CHANGES.get(target.suffix, scrambled)
    if change is changed_zip and original.name == "legacy.pt":
        change = scrambled
    data = change(data, rng) if rng.random() < 0.5 else scrambled(data, rng)
    (folder / target.name).write_bytes(data)
    return path


# ---- judging ---------------------------------------------------------------------------------


def confine():
    """Let this process take little more than it has, and this file little time."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", UserWarning)  # which are ours


def judge(path, arguments):
    """What becomes of a file: "loaded", or the message of a FormatError; all else is an exception."""
    resource.setrlimit(
        resource.RLIMIT_CPU, (int(time.process_time()) + SECONDS, resource.getrlimit(resource.RLIMIT_CPU)[1])
    )
    signal.alarm(PATIENCE)  # ends the process
    try:
        layers = fastgru.load_all(path, **arguments)
    except fastgru.FormatError as error:
        if not str(error).startswith(f"{path}: "):
            raise AssertionError(f"the message does not begin with the path: {error}") from error
        return str(error).removeprefix(f"{path}: ")
    assert layers
    for layer in layers.values():
        one, *_ = parts = layer._parts
        features = one.weights[0].shape[0]
        batch = max(1 if part.default_state is None else len(part.default_state) for part in parts)
        shape = (2, batch, features) if one.time_major else (batch, 2, features)
        layer(np.zeros(shape, layer.dtype))
    return "loaded"


def campaign(original, arguments, first, count):
    """Judge so many mutations: a line of JSON for each that fails, and one of what became of the others."""
    _hdf5.SECONDS = 2
    outcomes, failures = Counter(), 0
    for module in ("h5py", "onnx", "safetensors", "torch"):  # before there is no memory for them
        importlib.import_module(module)
    assert judge(original, arguments) == "loaded"
    signal.alarm(0)
    seed, last = first, first + count
    with tempfile.TemporaryDirectory() as folder:
        while seed < last:
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                os.close(reading)
                judge_many(original, Path(folder), arguments, range(seed, min(last, seed + 250)), writing)
            os.close(writing)
            with os.fdopen(reading) as lines:
                reports = [json.loads(line) for line in lines]
            _, status = os.waitpid(child, 0)
            done = [report for report in reports if len(report) == 2]
            failed = [(s, text) for s, text in done if text.startswith("FAILED")]
            if len(reports) != 2 * len(done) or status:
                failed.append((reports[-1][0], f"FAILED: the process ended with status {status}"))
            failures += len(failed)
            for failure in failed:
                print(json.dumps(failure), flush=True)
            outcomes.update(kind_of(text) for _, text in done if not text.startswith("FAILED"))
            seed = reports[-1][0] + 1
    print(json.dumps(outcomes.most_common()))
    return failures


def judge_many(original, folder, arguments, seeds, report):
    """In a process of its own: the seed before each file, and with what became of it after."""
    try:
        confine()
        for seed in seeds:
            os.write(report, json.dumps([seed]).encode() + b"\n")
            path = mutate(original, folder, seed)
            try:
                outcome = judge(path, arguments)
            except BaseException as error:
                outcome = f"FAILED: {type(error).__name__}: {error}"
            os.write(report, json.dumps([seed, outcome[:2000]]).encode() + b"\n")
        os._exit(0)
    except BaseException:  # of the mutation
        traceback.print_exc()
        os._exit(1)


def kind_of(text):
    """A message without what is of one file alone."""
    return "".join("#" if c.isdigit() else c for c in text)[:60]


def write(writer, folder):
    """Have the real files written in a process of its own, which keeps their libraries to itself."""
    run = [sys.executable, __file__, "write", writer.__name__, str(folder)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def main(*arguments):
    if arguments[0] == "write":
        globals()[arguments[1]](Path(arguments[2]))
        return 0
    if arguments[0] == "judge":
        _hdf5.SECONDS = 2
        for module in ("onnx", "safetensors", "torch"):  # before there is no memory for them
            importlib.import_module(module)
        confine()
        for path in arguments[1:]:
            print(json.dumps(judge(Path(path), {})), flush=True)
        return 0
    kind, first, count, *folder = arguments
    writer, name, given, _ = KINDS[kind]
    with tempfile.TemporaryDirectory() as own:
        if not folder:
            write(writer, Path(own))
        return campaign(Path(folder[0] if folder else own) / name, given, int(first), int(count))


# ---- tests -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def real_files(tmp_path_factory):
    """A folder for each writer, written when it is first asked for."""
    folders = {}

    def folder_of(writer):
        if writer not in folders:
            folders[writer] = tmp_path_factory.mktemp("real")
            write(writer, folders[writer])
        return folders[writer]

    return folder_of


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_gives_a_layer_or_a_format_error(kind, real_files):
    writer, _, _, count = KINDS[kind]
    run = [sys.executable, __file__, kind, "0", str(count), str(real_files(writer))]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    *failures, outcomes = done.stdout.splitlines()
    assert not failures, f"repeat with: python tests/test_formats_hostile.py {kind} SEED 1"
    assert done.returncode == 0
    outcomes = dict(json.loads(outcomes))
    assert sum(outcomes.values()) == count
    assert outcomes["loaded"] > count // 50  # and the changes reach all the way
    assert len(outcomes) > 5


def judged(*paths):
    """What becomes of files, in a process that is confined as those above."""
    run = [sys.executable, __file__, "judge", *map(str, paths)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_refused(cases, folder):
    """Every content of a file by name, with what is said of it."""
    paths = []
    for name, (content, _) in cases.items():
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    for (name, (_, message)), outcome in zip(cases.items(), judged(*paths), strict=True):
        assert re.search(message, outcome), f"{name}: {outcome}"
    assert set(folder.iterdir()) == set(paths)  # and nothing is written


def archive_of(members, packing=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", packing) as archive:
        warnings.simplefilter("ignore")  # of two members with one name
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(header, data=b"", version=1):
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def state_dict(content):
    """An .npz of a state dict with one tensor that is such a member."""
    good = io.BytesIO()
    np.save(good, np.zeros((6, 2), np.float32))
    return archive_of([("weight_ih_l0.npy", content), ("weight_hh_l0.npy", good.getvalue())])


def test_archives_that_lie_are_refused(tmp_path):
    zeros = bytes(100 << 20)
    keras = [("metadata.json", b'{"keras_version": "3.0.0"}'), ("config.json", b"{}")]
    bomb = archive_of([*keras, ("model.weights.h5", zeros)], zipfile.ZIP_DEFLATED)
    lying = bytearray(bomb)  # of how much it unpacks to
    for at in occurrences(bomb, struct.pack("<I", len(zeros))):
        lying[at : at + 4] = struct.pack("<I", 1000)
    members = [("weight_ih_l0.npy", b"x" * 5000), ("weight_hh_l0.npy", b"y")]
    sound = archive_of(members)
    overlapping = bytearray(sound)
    first, second = occurrences(sound, b"PK\1\2")
    overlapping[second + 42 : second + 46] = overlapping[first + 42 : first + 46]
    encrypted = bytearray(sound)
    encrypted[first + 8] |= 1
    wide = bytearray(sound)
    wide[first + 24 : first + 28] = b"\xfe\xff\xff\xff"
    json_bomb = archive_of(
        [keras[0], ("config.json", b"[" + b"{}," * 351_500 + b"{}]")], zipfile.ZIP_DEFLATED
    )
    cases = {
        "bomb.keras": (bomb, "unpacks to 1048576"),
        "bomb.npz": (archive_of([("weight_ih_l0.npy", zeros)], zipfile.ZIP_DEFLATED), "unpacks to 104857600"),
        "lying.keras": (bytes(lying), "model.weights.h5 is damaged: Bad CRC|must have 1000 bytes"),
        "bzip2.npz": (archive_of(members, zipfile.ZIP_BZIP2), "packed by method 12"),
        "lzma.npz": (archive_of(members, zipfile.ZIP_LZMA), "packed by method 14"),
        "overlapping.npz": (bytes(overlapping), "is damaged|no .npy file"),
        "encrypted.npz": (bytes(encrypted), "weight_ih_l0.npy is encrypted"),
        "wide.npz": (bytes(wide), "unpacks to 4294967"),
        "doubled.npz": (archive_of([members[0]] * 2), "two members of one name"),
        "json.keras": (json_bomb, "of config.json"),
        "outside.npz": (
            archive_of([("../../x.npy", b"x"), ("/x.npy", b"x"), ("C:\\x", b"")]),
            "holds no GRU",
        ),
        "cut.keras": (bomb[:-10], "the archive is damaged"),
    }
    assert_refused(cases, tmp_path)
    assert not (tmp_path.parent / "x.npy").exists()
    assert not Path("/x.npy").exists()


def test_arrays_that_lie_are_refused(tmp_path):
    data = np.zeros((6, 2), np.float32).tobytes()

    def header(descr="'<f4'", order="False", shape="(6, 2)"):
        return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()

    shapes = {
        "terabytes": "(1000000, 1000000)",
        "negative": "(-6, -2)",
        "huge": f"({10**30}, 2)",
        "empty": f"(0, {10**17})",
        "axes": "(" + "1, " * 60 + ")",
        "number": "12",
        "nested": "((6, 2),)",
        "code": "__import__('os').system('touch code')",
        "deep": "(" * 400 + ")" * 400,
        "minus": "-" * 900 + "1",
    }
    refused = r"which the file cannot hold|must be an array of numbers"
    cases = {
        f"{name}.npz": (state_dict(npy(header(shape=shape), data)), refused) for name, shape in shapes.items()
    }
    descriptions = [
        "'|O'",
        "[('a', '<f4'), ('b', '<f4')]",
        "'<U9999999'",
        "'|V4'",
        "('<f4', (10**9,))",
        "None",
        "'<f4,<f4'",
    ]
    for number, descr in enumerate([*descriptions, "'<c8'", "'<M8[s]'", "'<f3'"]):
        cases[f"descr{number}.npz"] = (state_dict(npy(header(descr), data)), "must be an array of numbers")
    cases |= {
        "long.npz": (state_dict(npy(header() + b" " * 60_000, data)), "has a header of 60"),
        "longer.npz": (state_dict(npy(header(), data, 2)[:8] + b"\xff" * 8), "has a header of 4294967295"),
        "version.npz": (state_dict(b"\x93NUMPY\x09\0" + data), "is no .npy file"),
        "short.npz": (state_dict(npy(header(), data[:-1])), "needs 48 bytes, has 47"),
        "integers.npz": (
            state_dict(npy(header("'<i4'"), data)),
            "must be of float16, float32 or float64, got int32",
        ),
        "order.npz": (state_dict(npy(header(order="1"), data)), "must be an array of numbers"),
        "none.npz": (state_dict(b""), "is no .npy file"),
    }
    assert_refused(cases, tmp_path)
    assert not Path("code").exists()


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_safetensors_that_lie_are_refused(tmp_path):
    def tensor(shape, *offsets, dtype="F32"):
        return {"dtype": dtype, "shape": shape, "data_offsets": offsets}

    name = "weight_ih_l0"
    overlapping = {name: tensor([6, 2], 0, 48), "weight_hh_l0": tensor([6, 2], 0, 48)}
    entry = b'"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    twice = b"{" + entry + b", " + entry + b"}"
    cases = {
        "terabytes": (
            safetensors({name: tensor([10**6, 10**6], 0, 4 * 10**12)}, bytes(48)),
            "must end where the file",
        ),
        "overflow": (
            safetensors({name: tensor([2**62, 2**62], 0, 48)}, bytes(48)),
            "no sound safetensors file",
        ),
        "overlapping": (safetensors(overlapping, bytes(48)), "no sound safetensors file"),
        "backwards": (
            safetensors({name: tensor([6, 2], 48, 0)}, bytes(48)),
            "must end where the file|no sound",
        ),
        "negative": (safetensors({name: tensor([-6, -2], 0, 48)}, bytes(48)), "no sound"),
        "twice": (safetensors(twice, bytes(4)), "same name twice"),
        "deep": (safetensors(b'{"a":' * 10_000 + b"1" + b"}" * 10_000), "nested too deeply"),
        "numbers": (safetensors(b'{"a": ' + b"1" * 5000 + b"}"), "is no JSON: Exceeds the limit"),
        "list": (safetensors({"a": [1, 2]}), "where its data is"),
        "nothing": (safetensors({}), "where its data is"),
        "length": (struct.pack("<Q", 2**40) + b'{"a": 1}' * 9, "no model file"),
        "nan": (
            safetensors({name: tensor([3, 2], 0, 24), "weight_hh_l0": tensor([3, 1], 24, 36)}, b"\xff" * 36),
            "must be finite",
        ),
    }
    assert_refused(cases, tmp_path)


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


def test_pickles_run_no_code(tmp_path):
    code = pickle.dumps({"weight_ih_l0": Malicious()}, 2)
    system = b"\x80\x02cposix\nsystem\nX\x0d\x00\x00\x00touch touched\x85R."
    cases = {}
    for name, content in (("reduce", code), ("system", system), ("empty", b""), ("stop", b"\x80\x02.")):
        members = [("model/data.pkl", content), ("model/version", b"3\n"), ("model/byteorder", b"little")]
        cases[f"{name}.pt"] = (archive_of(members), "torch.load|it is damaged|pickle")
        if content:
            cases[f"{name}.pkl"] = (content, "torch.load|it is damaged|pickle")
    assert_refused(cases, tmp_path)
    assert not Path("touched").exists()


def varint(number):
    """As protobuf writes it."""
    return bytes([number & 0x7F | 0x80]) + varint(number >> 7) if number > 0x7F else bytes([number])


def nested(tag, depth):
    """A message of protobuf in a message in a message."""
    text = b""
    for _ in range(depth):
        text = tag + varint(len(text)) + text
    return text


def test_deep_nesting_is_refused(tmp_path):
    graphs = nested(b"\x0a" + b"\x2a", 1)  # an empty node in a graph
    inside = b""
    for _ in range(1000):  # an attribute's graph, a node's attribute, a graph's node
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            inside = tag + varint(len(inside)) + inside
    keras = [("metadata.json", b'{"keras_version": "3.0.0"}'), ("model.weights.h5", b"")]
    deep = b"[" * 100_000 + b"]" * 100_000
    objects = b'{"config":' * 100_000 + b"1" + b"}" * 100_000
    layers = b'{"config": {"layers": [' * 400 + b"]}}" * 400
    header = io.BytesIO()
    np.save(header, np.frombuffer(deep, np.uint8))
    cases = {
        "protobuf.onnx": (nested(b"\x3a", 10_000), "no ONNX model|no model file"),
        "graphs.onnx": (nested(b"\x3a", 1) + graphs * 10_000, "no ONNX model|no model file"),
        "inside.onnx": (
            b"\x08\x08\x3a" + varint(len(inside)) + inside,
            "messages are nested deeper than 100",
        ),
        "json.keras": (archive_of([*keras, ("config.json", deep)]), "config.json is nested too deeply"),
        "objects.keras": (archive_of([*keras, ("config.json", objects)]), "config.json is nested too deeply"),
        "models.keras": (
            archive_of([*keras, ("config.json", layers)]),
            "nested too deeply|no sound HDF5|must be",
        ),
        "native.npz": (archive_of([("fastgru.npy", header.getvalue())]), "the header is nested too deeply"),
    }
    assert_refused(cases, tmp_path)


def test_more_objects_than_memory_has_room_for_are_refused(tmp_path):
    # of two or three bytes each in the file, and a hundred in memory
    nodes = b"\x0a\x00" * 300_000
    listed = b"[" + b"{}," * 3_000_000 + b"{}]"
    keras = [("metadata.json", b'{"keras_version": "3.0.0"}'), ("model.weights.h5", b"")]
    cases = {
        "nodes.onnx": (b"\x08\x08\x3a" + varint(len(nodes)) + nodes, "more than 250000 nodes"),
        "header.safetensors": (safetensors(b'{"a": ' + listed + b"}"), "it has a header of 9000"),
        "config.keras": (archive_of([*keras, ("config.json", listed)]), "config.json is JSON of 9000"),
    }
    assert_refused(cases, tmp_path)


def model_of(nodes, values=None, functions=(), padding=0):
    """An ONNX model whose last node is a GRU of a W and an R that nodes compute.

    Parameters
    ----------
    nodes : list
        Arguments of make_node.
    values : dict, optional
        Initializers besides a W and an R that are sound, by the names w and r.
    functions : sequence of onnx.FunctionProto
    padding : int
        Bytes of an initializer that nothing reads: a large file may hold more.
    """
    from onnx import helper, numpy_helper

    values = {"w": np.zeros((1, 6, 3), "f"), "r": np.zeros((1, 6, 2), "f"), "one": np.array([1])} | (
        values or {}
    )
    values |= {"padding": np.zeros(padding, np.int8)} if padding else {}
    made = [helper.make_node(*each) if isinstance(each, tuple) else each for each in nodes]
    made.append(helper.make_node("GRU", ["X", "W", "r", "", "", "H"], ["Y"], "gru", hidden_size=2))
    outputs = {name for node in made for name in node.output}
    made[:0] = [helper.make_node("Identity", ["w"], ["W"])] if "W" not in outputs else []
    made[-1].input[5] = "H" if "H" in outputs else ""
    graph = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info("X", 1, ["time", "batch", 3])],
        [helper.make_tensor_value_info("Y", 1, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in values.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)
    return model.SerializeToString()


def doubling(op, times):
    """A chain of nodes each of which has twice as much as the one before, into W."""
    names = [f"v{i}" for i in range(times)] + ["W"]
    nodes = [("Identity", ["w"], [names[0]])]
    for lower, upper in itertools.pairwise(names):
        if op == "Concat":
            nodes.append(("Concat", [lower, lower], [upper]))
        else:
            nodes.append((op, [lower, "twice"], [upper]))
    from onnx import helper

    made = [helper.make_node(*each) for each in nodes]
    for node in made:
        if node.op_type == "Concat":
            node.attribute.append(helper.make_attribute("axis", 0))
    return made


def billion(levels):
    """Functions that call each other, ten times each."""
    from onnx import helper

    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(levels):
        kind, domain = (f"f{level - 1}", "own") if level else ("Neg", "")
        chain = [f"x{i}" for i in range(11)]
        nodes = [helper.make_node(kind, [a], [b], domain=domain) for a, b in itertools.pairwise(chain)]
        functions.append(helper.make_function("own", f"f{level}", ["x0"], ["x10"], nodes, opsets))
    return functions


def calling(function):
    from onnx import helper

    return helper.make_node(function, ["w"], ["W"], domain="own")


def test_constants_that_explode_are_refused(tmp_path):
    from onnx import helper

    huge = np.array([1 << 20, 1 << 20])
    axes = np.array([1] * 1000)
    node = helper.make_node
    memory = "take more memory than a file of its size may"
    own = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    loop = [
        helper.make_function(
            "own", f"f{i}", ["x0"], ["x1"], [node(f"f{1 - i}", ["x0"], ["x1"], domain="own")], own
        )
        for i in (0, 1)
    ]
    deep = [
        helper.make_function(
            "own", f"f{i}", ["x0"], ["x1"], [node(f"f{i + 1}", ["x0"], ["x1"], domain="own")], own
        )
        for i in range(5000)
    ]
    square = {"a": np.zeros((1, 200_000), "f"), "b": np.zeros((200_000, 1), "f")}
    shape = [("Shape", ["X"], ["shape"])]
    cases = {
        "filled.onnx": (model_of([("ConstantOfShape", ["huge"], ["W"])], {"huge": huge}), memory),
        "overflow.onnx": (
            model_of([("ConstantOfShape", ["n"], ["W"])], {"n": np.array([1 << 40] * 4)}),
            memory,
        ),
        "none.onnx": (
            model_of([("ConstantOfShape", ["n"], ["W"])], {"n": np.array([0, 1 << 62, 1 << 62])}),
            memory,
        ),
        "negative.onnx": (
            model_of([("ConstantOfShape", ["n"], ["W"])], {"n": np.array([-1, -(1 << 62)])}),
            "a shape must have no negative size",
        ),
        "expanded.onnx": (
            model_of([("Expand", ["w", "n"], ["W"])], {"n": np.array([1 << 40, 6, 3])}),
            memory,
        ),
        "rank.onnx": (model_of([("Expand", ["w", "n"], ["W"])], {"n": axes}), "at most 32 integers"),
        "unsqueezed.onnx": (
            model_of([("Unsqueeze", ["w", "n"], ["W"])], {"n": np.arange(1000)}),
            "cannot be computed",
        ),
        "tiled.onnx": (
            model_of([("Tile", ["w", "n"], ["W"])], {"n": np.array([1 << 20] * 3)}),
            memory,
        ),
        "range.onnx": (
            model_of(
                [("Range", ["a", "b", "c"], ["W"])],
                {"a": np.float32(0), "b": np.float32(1e30), "c": np.float32(1e-30)},
            ),
            "finite|memory",
        ),
        "long.onnx": (
            model_of(
                [("Range", ["a", "b", "c"], ["W"])],
                {"a": np.array(0), "b": np.array(1 << 62), "c": np.array(1)},
            ),
            memory,
        ),
        "padded.onnx": (
            model_of([("Pad", ["w", "n"], ["W"])], {"n": np.array([1 << 30] * 6)}),
            memory,
        ),
        "resized.onnx": (
            model_of([("Resize", ["w", "", "n"], ["W"])], {"n": np.array([1e9] * 3, "f")}),
            r"\(Resize\) is no operator|Resize is no operator",
        ),
        "gathered.onnx": (
            model_of(
                [("Gather", ["w", "n"], ["v"]), ("Gather", ["v", "n"], ["W"])],
                {"n": np.zeros(200_000, np.int64), "w": np.zeros((1, 60, 10), "f")},
            ),
            memory,
        ),
        "product.onnx": (model_of([("MatMul", ["b", "a"], ["W"])], square), memory),
        "doubled.onnx": (model_of(doubling("Concat", 60)), memory),
        "tiles.onnx": (model_of(doubling("Tile", 60), {"twice": np.array([2, 1, 1])}), memory),
        "functions.onnx": (
            model_of([calling("f11")], functions=billion(12)),
            "take more than a file of its size may hold",
        ),
        "recursion.onnx": (model_of([calling("f0")], functions=loop), "nested deeper than 32"),
        "deep_functions.onnx": (model_of([calling("f0")], functions=deep), "nested deeper than 32"),
        "cycle.onnx": (
            model_of([("Neg", ["W2"], ["W"]), ("Neg", ["W"], ["W2"])]),
            "is an input of what it is computed from",
        ),
        "itself.onnx": (model_of([("Add", ["W", "W"], ["W"])]), "is an input of what it is computed from"),
        "states.onnx": (
            model_of([*shape, ("ConstantOfShape", ["huge"], ["H"])], {"huge": np.array([1, 1 << 40, 2])}),
            memory,
        ),
        "batch.onnx": (
            model_of(
                [*shape, ("Mul", ["shape", "big"], ["n"]), ("ConstantOfShape", ["n"], ["H"])],
                {"big": np.array([1 << 40, 1 << 40, 1])},
            ),
            memory,
        ),
        "random.onnx": (
            model_of([node("RandomNormal", [], ["H"], shape=[1, 1, 2])]),
            "initial_h cannot be told: a node RandomNormal is no operator",
        ),
        "texts.onnx": (
            model_of([node("Cast", ["w"], ["W"], to=8)]),
            "is no operator|must be|cannot",
        ),
        "custom.onnx": (
            model_of([node("Load", ["w"], ["W"], domain="own")]),
            "node own.Load is no operator that is computed when a file is read",
        ),
        "attribute.onnx": (
            model_of([node("Neg", ["w"], ["W"], _run="x")]),
            "has the attribute '_run' twice or of a wrong type",
        ),
    }
    assert_refused(cases, tmp_path)


def test_tensors_of_nodes_lie_in_no_other_file(tmp_path):
    from onnx import TensorProto, helper

    cases = {}
    for place in ("../outside", "/etc/passwd", "beside", ".."):
        tensor = TensorProto(name="v", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=place)
        shape = helper.make_node("ConstantOfShape", ["one"], ["W"], value=tensor)
        constant = helper.make_node("Constant", [], ["W"], value=tensor)
        name = place.replace("/", "_").replace(".", "_")
        cases[f"shape{name}.onnx"] = model_of([shape]), "a tensor in a node must be one number"
        cases[f"constant{name}.onnx"] = model_of([constant]), "is no plain file beside the model"
    assert_refused(cases, tmp_path)


@pytest.mark.parametrize("kind", ["Identity", "Neg", "Reshape", "If"])
def test_a_hundred_thousand_nodes_in_a_row_are_read_or_refused(tmp_path, kind):
    from onnx import helper

    count = 100_000
    names = ["w", *(f"v{i}" for i in range(count - 1)), "W"]
    nodes = []
    for lower, upper in itertools.pairwise(names):
        inputs = [lower, "shape"] if kind == "Reshape" else [lower]
        node = helper.make_node("Neg" if kind == "If" else kind, inputs, [upper])
        nodes.append(node)
    if kind == "If":  # what an If reads is not run, but looked through
        nodes = [helper.make_node("If", [lower], [upper]) for lower, upper in itertools.pairwise(names)]
    content = model_of(nodes, {"shape": np.array([1, 6, 3])}, padding=8 << 20)
    wanted = "loaded" if kind != "If" else "is no operator that is computed"
    assert_refused({"model.onnx": (content, wanted)}, tmp_path)


STARTS = {
    "h5": b"\x89HDF\r\n\x1a\n" + bytes(88),
    "zip": b"PK\x03\x04" + bytes(60),
    "safetensors": safetensors(
        {"weight_ih_l0": {"dtype": "F32", "shape": [10**6, 10**5], "data_offsets": [0, 48]}}
    ),
    "onnx": b"\x08\x07\x12\x07pytorch",
    "pt": b"\x80\x02" + bytes(60),
    "txt": b"Hello",
}


def test_files_of_a_terabyte_without_content_are_not_read(tmp_path):
    paths = [tmp_path / f"model.{extension}" for extension in STARTS]
    for path, start in zip(paths, STARTS.values(), strict=True):
        path.write_bytes(start)
        os.truncate(path, 1 << 40)
    assert "loaded" not in judged(*paths)


def test_what_is_no_plain_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "pipe", tmp_path / "link", "/dev/zero", "/dev/null"):
        with pytest.raises(fastgru.FormatError, match="no plain file"):
            fastgru.load(path)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        fastgru.load(tmp_path / "loop")
    layer = fastgru.GRU(3)
    layer.build((None, None, 2))
    layer.save(tmp_path / "layer.npz")
    (tmp_path / "good").symlink_to("layer.npz")
    assert fastgru.load(tmp_path / "good").units == 3


def test_every_beginning_of_a_file_is_refused(real_files, tmp_path):
    cases = {}
    for kind, (writer, name, _, _) in KINDS.items():
        data = (real_files(writer) / name).read_bytes()
        sizes = [0, 1, 7, 8, 64] if kind.endswith("h5") else range(65)  # they take a process each
        cases |= {f"{kind}.{size}": (data[:size], "^(?!loaded)") for size in sizes}
    assert_refused(cases, tmp_path)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) != 0)
