"""Files that lie in one way each: what is said of them."""

import json
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from formats.hostile import judging
from formats.hostile.generators import archives, onnx
from formats.hostile.generators.drawing import occurrences
from formats.hostile.real_files import FILES

import fastgru


def assert_refused(cases, folder):
    """Every content of a file by name, with what is said of it."""
    paths = []
    for name, (content, _) in cases.items():
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    for (name, (_, message)), outcome in zip(cases.items(), judging.judged(*paths), strict=True):
        assert re.search(message, outcome), f"{name}: {outcome}"
    assert set(folder.iterdir()) == set(paths)  # and nothing is written


def state_dict(content):
    """An .npz of a state dict with one tensor that is such a member."""
    good = archives.npy(np.zeros((6, 2), np.float32))
    return archives.of_zipfile([("weight_ih_l0.npy", content), ("weight_hh_l0.npy", good)])


# ---- archives and arrays ---------------------------------------------------------------------

METADATA = "metadata.json", b'{"keras_version": "3.0.0"}'


def test_archives_that_lie_are_refused(tmp_path):
    zeros = bytes(100 << 20)
    keras = [METADATA, ("config.json", b"{}")]
    bomb = archives.of_zipfile([*keras, ("model.weights.h5", zeros)], zipfile.ZIP_DEFLATED)
    lying = bytearray(bomb)  # of how much it unpacks to
    for at in occurrences(bomb, struct.pack("<I", len(zeros))):
        lying[at : at + 4] = struct.pack("<I", 1000)
    members = [("weight_ih_l0.npy", b"x" * 5000), ("weight_hh_l0.npy", b"y")]
    sound = archives.of_zipfile(members)
    first, second = occurrences(sound, b"PK\1\2")
    overlapping = bytearray(sound)
    overlapping[second + 42 : second + 46] = overlapping[first + 42 : first + 46]
    encrypted = bytearray(sound)
    encrypted[first + 8] |= 1
    encrypted[6] |= 1
    half_encrypted = bytearray(sound)
    half_encrypted[first + 8] |= 1
    wide = bytearray(sound)
    wide[first + 24 : first + 28] = b"\xfe\xff\xff\xff"
    huge = archives.Member(b"weight_ih_l0.npy", b"x", archives.DEFLATED, size=0xFFFFFFFE)
    json_bomb = archives.of_zipfile(
        [METADATA, ("config.json", b"[" + b"{}," * 351_500 + b"{}]")], zipfile.ZIP_DEFLATED
    )
    names = ["../../x.npy", "/x.npy", "C:\\x"]
    numpy_bomb = archives.of_zipfile([("weight_ih_l0.npy", zeros)], zipfile.ZIP_DEFLATED)
    cases = {
        "bomb.keras": (bomb, "unpacks to 1048576"),
        "bomb.npz": (numpy_bomb, "unpacks to 104857600"),
        "lying.keras": (bytes(lying), "model.weights.h5 must have 1000 bytes"),
        "bzip2.npz": (archives.of_zipfile(members, zipfile.ZIP_BZIP2), "packed by method 12"),
        "lzma.npz": (archives.of_zipfile(members, zipfile.ZIP_LZMA), "packed by method 14"),
        "overlapping.npz": (bytes(overlapping), "is not where the directory says"),
        "encrypted.npz": (bytes(encrypted), "weight_ih_l0.npy is encrypted"),
        "half_encrypted.npz": (bytes(half_encrypted), "'weight_ih_l0.npy' is not as the directory says"),
        "wide.npz": (bytes(wide), "'weight_ih_l0.npy' is not as the directory says"),
        "huge.npz": (archives.written([huge]), "unpacks to 4294967294"),
        "doubled.npz": (archives.of_zipfile([members[0]] * 2), "two members of one name"),
        "json.keras": (json_bomb, "config.json is JSON of 1054504 bytes that takes"),
        "outside.npz": (archives.of_zipfile([(name, b"x") for name in names]), "holds no GRU"),
        "cut.keras": (bomb[:-10], "the archive is damaged: it has no end"),
    }
    assert_refused(cases, tmp_path)
    assert not (tmp_path.parent / "x.npy").exists()
    assert not Path("/x.npy").exists()


def npy(header, data=b"", version=1):
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


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
    descriptions = ["'|O'", "[('a', '<f4'), ('b', '<f4')]", "'<U9999999'", "'|V4'", "('<f4', (10**9,))"]
    descriptions += ["None", "'<f4,<f4'", "'<c8'", "'<M8[s]'", "'<f3'"]
    for number, descr in enumerate(descriptions):
        cases[f"descr{number}.npz"] = (state_dict(npy(header(descr), data)), "must be an array of numbers")
    integers = state_dict(npy(header("'<i4'"), data))
    cases |= {
        "long.npz": (state_dict(npy(header() + b" " * 60_000, data)), "has a header of 60"),
        "longer.npz": (state_dict(npy(header(), data, 2)[:8] + b"\xff" * 8), "has a header of 4294967295"),
        "version.npz": (state_dict(b"\x93NUMPY\x09\0" + data), "is no .npy file"),
        "short.npz": (state_dict(npy(header(), data[:-1])), "needs 48 bytes, has 47"),
        "integers.npz": (integers, "must be of float16, float32 or float64, got int32"),
        "order.npz": (state_dict(npy(header(order="1"), data)), "must be an array of numbers"),
        "none.npz": (state_dict(b""), "is no .npy file"),
    }
    assert_refused(cases, tmp_path)
    assert not Path("code").exists()


# ---- safetensors -----------------------------------------------------------------------------


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_safetensors_that_lie_are_refused(tmp_path):
    def tensor(shape, *offsets, dtype="F32"):
        return {"dtype": dtype, "shape": shape, "data_offsets": offsets}

    name, other = "weight_ih_l0", "weight_hh_l0"
    overlapping = {name: tensor([6, 2], 0, 48), other: tensor([6, 2], 0, 48)}
    nan = {name: tensor([3, 2], 0, 24), other: tensor([3, 1], 24, 36)}
    entry = b'"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    twice = b"{" + entry + b", " + entry + b"}"
    deep = b'{"a":' * 2_000 + b"1" + b"}" * 2_000
    deeper = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
    terabytes, overflow = (
        {name: tensor([10**6, 10**6], 0, 4 * 10**12)},
        {name: tensor([2**62, 2**62], 0, 48)},
    )
    unwritten = "must say of every tensor where its data is"
    cases = {
        "terabytes": (safetensors(terabytes, bytes(48)), "which the file cannot hold"),
        "overflow": (safetensors(overflow, bytes(48)), "which the file cannot hold"),
        "overlapping": (safetensors(overlapping, bytes(48)), "must begin at 48, lies from 0"),
        "backwards": (safetensors({name: tensor([6, 2], 48, 0)}, bytes(48)), unwritten),
        "negative": (safetensors({name: tensor([-6, -2], 0, 48)}, bytes(48)), unwritten),
        "longer": (safetensors({name: tensor([6, 2], 0, 48)}, bytes(49)), "must end where the file does"),
        "twice": (safetensors(twice, bytes(4)), "same name twice"),
        "deep": (safetensors(deep), "nested too deeply"),
        "deeper": (safetensors(deeper), "is JSON of 60001 bytes that takes"),
        "numbers": (safetensors(b'{"a": ' + b"1" * 5000 + b"}"), "is no JSON: Exceeds the limit"),
        "list": (safetensors({"a": [1, 2]}), unwritten),
        "nothing": (safetensors({}), "must say where tensors are, and has none"),
        "length": (struct.pack("<Q", 2**40) + b'{"a": 1}' * 9, "no model file"),
        "nan": (safetensors(nan, b"\xff" * 36), "must be finite"),
    }
    assert_refused(cases, tmp_path)


# ---- pickles ---------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


def test_pickles_run_no_code(tmp_path):
    code = pickle.dumps({"weight_ih_l0": Malicious()}, 2)
    system = b"\x80\x02cposix\nsystem\nX\x0d\x00\x00\x00touch touched\x85R."
    cases = {}
    messages = {
        "reduce": (code, "the file holds no GRU"),
        "system": (system, "the file holds no GRU"),
        "empty": (b"", "the pickle is damaged: it ends too early"),
        "stop": (b"\x80\x02.", "the pickle is damaged: it takes what is not there"),
    }
    for name, (content, message) in messages.items():
        members = [("model/data.pkl", content), ("model/version", b"3\n"), ("model/byteorder", b"little")]
        cases[f"{name}.pt"] = (archives.of_zipfile(members), message)
        if content:
            cases[f"{name}.pkl"] = (content, "torch.save has not written|it takes what is not there")
    assert_refused(cases, tmp_path)
    assert not Path("touched").exists()


# ---- depth and numbers -----------------------------------------------------------------------


def test_deep_nesting_is_refused(tmp_path):
    graphs = onnx.piece(1, onnx.piece(5, b""))
    inside = onnx.nested((6, 5, 1), 1000)
    keras = [METADATA, ("model.weights.h5", b"")]
    short, deep = (b"[" * depth + b"]" * depth for depth in (10_000, 100_000))
    objects = b'{"config":' * 3_000 + b"1" + b"}" * 3_000
    layers = b'{"config": {"layers": [' * 400 + b"]}}" * 400

    def model(config):
        return archives.of_zipfile([*keras, ("config.json", config)])

    def native(text):
        return archives.of_zipfile([("fastgru.npy", archives.npy(np.frombuffer(text, np.uint8)))])

    cases = {
        "protobuf.onnx": (onnx.nested((7,), 10_000), "no ONNX model|no model file"),
        "graphs.onnx": (onnx.piece(7, b"") + graphs * 10_000, "no ONNX model|no model file"),
        "inside.onnx": (b"\x08\x08" + onnx.piece(7, inside), "messages are nested deeper than 100"),
        "json.keras": (model(short), "config.json is nested too deeply"),
        "objects.keras": (model(objects), "config.json is nested too deeply"),
        "deeper.keras": (model(deep), "config.json is JSON of 200000 bytes that takes 9000000"),
        "models.keras": (model(layers), "nested too deeply|no sound HDF5|must be"),
        "native.npz": (native(short), "the header is nested too deeply"),
        "deeper.npz": (native(deep), "the header is JSON of 200000 bytes that takes 9000000"),
    }
    assert_refused(cases, tmp_path)


def test_more_objects_than_memory_has_room_for_are_refused(tmp_path):
    # of two or three bytes each in the file, and a hundred in memory
    nodes = onnx.piece(1, b"") * 300_000
    listed = b"[" + b"{}," * 3_000_000 + b"{}]"
    keras = [METADATA, ("model.weights.h5", b""), ("config.json", listed)]
    cases = {
        "nodes.onnx": (b"\x08\x08" + onnx.piece(7, nodes), "more nodes, values and the like than a file"),
        "header.safetensors": (safetensors(b'{"a": ' + listed + b"}"), "it has a header of 9000"),
        "config.keras": (archives.of_zipfile(keras), "config.json is JSON of 9000"),
    }
    assert_refused(cases, tmp_path)


# ---- what is no whole file -------------------------------------------------------------------

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
    for outcome in judging.judged(*paths):
        assert re.fullmatch("the file has 1099511627776 bytes, of which [0-9]+ are on the disk", outcome)


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


@pytest.mark.xdist_group("real files")
def test_every_beginning_of_a_file_is_refused(real_files, tmp_path):
    cases = {}
    for kind, file in FILES.items():
        data = (real_files[file.writer] / file.name).read_bytes()
        sizes = [0, 1, 7, 8, 64] if file.name.endswith(".h5") else range(65)  # they take a process each
        cases |= {f"{kind}.{size}": (data[:size], "^(?!loaded)") for size in sizes}
    assert_refused(cases, tmp_path)
