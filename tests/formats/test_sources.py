"""What may be loaded besides paths, architectures apart from weights, and what is known but not read."""

import gzip
import io
import json
import shutil
import warnings
import zipfile

import numpy as np
import pytest

import fastgru
from fastgru import formats

FEATURES = 5


def built(**options):
    layer = fastgru.GRU(4, name="voice", recurrent_activation="sigmoid", reset_after=True, **options)
    layer.build((None, None, FEATURES))
    return layer


def assert_same(one, other):
    assert one.get_config() == other.get_config()
    for array, same in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(array, same)


def saved(model, path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that .h5 is old
        (model.save_weights if "weights" in path.name else model.save)(path, **options)
    return path


@pytest.fixture(scope="module")
def keras3(tensorflow):
    return pytest.importorskip("keras")


def model_of(library):
    """A model of a GRU and a Bidirectional in another model."""
    layers = library.layers
    inner = library.Sequential(
        [library.Input((None, 3)), layers.Bidirectional(layers.GRU(2, name="way"), name="both")], name="inner"
    )
    inputs = library.Input((None, FEATURES))
    low = layers.GRU(3, return_sequences=True, recurrent_activation="hard_sigmoid", name="low")
    return library.Model(inputs, inner(low(inputs)), name="whole")


# ---- bytes and open files --------------------------------------------------------------------


def test_bytes_and_open_files_are_read_as_files_are(tmp_path):
    layer, path = built(), tmp_path / "layer.npz"
    layer.save(path)
    data = path.read_bytes()
    with path.open("rb") as file:
        assert_same(fastgru.load(file), layer)
    for source in (data, bytearray(data), memoryview(data), io.BytesIO(data)):
        assert_same(fastgru.load(source), layer)
    assert_same(fastgru.load_all(io.BytesIO(data))["voice"], layer)
    assert formats.format_of(data) == "fastgru"


def test_a_layer_is_saved_into_an_open_file(tmp_path):
    layer, buffer = built(), io.BytesIO()
    layer.save(buffer)
    assert_same(fastgru.load(buffer.getvalue()), layer)
    with (tmp_path / "layer.npz").open("wb") as file:
        layer.save(file)
    assert_same(fastgru.load(tmp_path / "layer.npz"), layer)


@pytest.mark.parametrize("extension", ["h5", "keras"])
def test_files_of_keras_are_read_from_memory(extension, keras, tmp_path):
    path = saved(model_of(keras), tmp_path / f"m.{extension}")
    expected, found = fastgru.load_all(path), fastgru.load_all(path.read_bytes())
    assert list(found) == list(expected)
    for name, layer in found.items():
        assert_same(layer, expected[name])


def test_messages_say_what_was_given(tmp_path):
    with pytest.raises(fastgru.FormatError, match=r"^the 3 bytes: no model file"):
        fastgru.load(b"abc")
    with pytest.raises(fastgru.FormatError, match=r"^the open file: no model file"):
        fastgru.load(io.BytesIO(b"abc"))
    (tmp_path / "x.bin").write_bytes(b"abc")
    with (
        (tmp_path / "x.bin").open("rb") as file,
        pytest.raises(fastgru.FormatError, match=r"x\.bin: no model"),
    ):
        fastgru.load(file)
    with pytest.raises(TypeError, match="the open file must be opened for reading bytes, got str from it"):
        fastgru.load(io.StringIO("abc"))
    for source in (3, None, [], object()):
        with pytest.raises(
            TypeError, match="path must be a path, bytes or a file opened for reading bytes, got"
        ):
            fastgru.load(source)
    layer = built()
    layer.save(buffer := io.BytesIO())
    with pytest.raises(ValueError, match=r"one of 'voice', the GRUs in the \d+ bytes, got 'other'"):
        fastgru.load(buffer.getvalue(), "other")


def test_data_beside_a_model_is_not_looked_for_without_a_path(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "model.onnx"
    onnx.save(built().to_onnx(), path, save_as_external_data=True, location="data", size_threshold=0)
    assert fastgru.load(path).built
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        fastgru.FormatError, match=r"lies in another file, 'data': load the model by its path"
    ):
        fastgru.load(path.read_bytes())


# ---- architecture and weights apart ----------------------------------------------------------


@pytest.mark.parametrize("kind", ["tf_keras", "keras 3"])
def test_an_architecture_and_weights_are_what_the_whole_model_is(kind, keras, keras3, tmp_path):
    library = keras if kind == "tf_keras" else keras3
    model = model_of(library)
    expected = fastgru.load_all(saved(model, tmp_path / "m.keras"))
    config = tmp_path / "model.json"
    config.write_text(model.to_json())
    files = [saved(model, tmp_path / "m.weights.h5"), saved(model, tmp_path / "m.h5")]
    if library is keras:
        model.save_weights(tmp_path / "old.h5", save_format="h5")
        files.append(tmp_path / "old.h5")
    for path in files:
        for source in (config, config.read_bytes(), io.BytesIO(config.read_bytes())):
            found = fastgru.load_all(path, config=source)
            assert list(found) == list(expected) == ["low", "inner/both"]
            for name, layer in found.items():
                assert_same(layer, expected[name])
        one = fastgru.load(path.read_bytes(), "low", config=config, return_sequences=False)
        assert (one.units, one.return_sequences) == (3, False)


def test_an_architecture_of_keras_1_is_taken(tmp_path):
    h5py = pytest.importorskip("h5py")
    config = {
        "class_name": "Sequential",
        "keras_version": "1.2.2",
        "config": [
            {"class_name": "GRU", "config": {"name": "gru_1", "output_dim": 3, "inner_activation": "sigmoid"}}
        ],
    }
    shapes = {"W": (FEATURES, 3), "U": (3, 3), "b": (3,)}
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"gru_1"]
        names = [f"gru_1_{kind}_{gate}" for gate in "zrh" for kind in "WUb"]
        group = file.create_group("gru_1")
        group.attrs["weight_names"] = [name.encode() for name in names]
        for i, name in enumerate(names):
            group[name] = np.full(shapes[name[6]], i, np.float32)
    layer = fastgru.load(tmp_path / "w.h5", config=json.dumps(config).encode())
    assert (layer.units, layer.recurrent_activation.__name__) == (3, "sigmoid")
    np.testing.assert_array_equal(layer.weights[0][0], np.repeat([0, 3, 6], 3))


def test_an_architecture_that_is_none_is_refused(keras, tmp_path):
    model = model_of(keras)
    weights = saved(model, tmp_path / "m.weights.h5")
    sound = json.loads(model.to_json())
    lies = {
        "{}": "must have a class_name and a config",
        "[]": "must be an object",
        "{": "is no JSON",
        '{"a":' * 10**5: "nested too deeply|more than a file may hold",
        '{"class_name": "S", "class_name": "S", "config": {}}': "the same name twice",
        '{"modelTopology": {}}': "model of TensorFlow.js with weights of its own",
    }
    for text, message in lies.items():
        with pytest.raises(fastgru.FormatError, match=rf"^the \d+ bytes: the architecture .*({message})"):
            fastgru.load(weights, config=text.encode())
    with pytest.raises(TypeError, match="path must be a path, bytes or a file"):
        fastgru.load(weights, config=3)
    with pytest.raises(FileNotFoundError):
        fastgru.load(weights, config=tmp_path / "missing.json")
    sound["config"]["layers"][1]["config"]["units"] = 7
    with pytest.raises(fastgru.FormatError, match=r"m\.weights\.h5: the file has kernel \(5, 9\).*'low'"):
        fastgru.load(weights, "low", config=json.dumps(sound).encode())
    (tmp_path / "model.json").write_text(model.to_json())
    with pytest.raises(
        fastgru.FormatError, match=r"without weights: .*load\('weights\.h5', config='model\.json'\)"
    ):
        fastgru.load(tmp_path / "model.json")
    built().save(tmp_path / "layer.npz")
    with pytest.raises(fastgru.FormatError, match="config must be given with weights of Keras in HDF5"):
        fastgru.load(tmp_path / "layer.npz", config=tmp_path / "model.json")


# ---- known, and not read ---------------------------------------------------------------------


def zipped(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return path


def test_files_that_are_known_are_called_by_their_names(tmp_path):
    table = b"\0" * 40 + bytes.fromhex("57fb808b247547db")
    contents = {
        "saved_model.pb": (b"\x08\x01\x12\x06\x0a\x04tags", "a SavedModel of TensorFlow: save the model as"),
        "model.tflite": (b"\x1c\0\0\0TFL3" + b"\0" * 99, "a model of TensorFlow Lite"),
        "lfs.h5": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        "page.onnx": (b"\r\n<!DOCTYPE html>\n<title>404</title>", "a page of HTML in place of the file"),
        "login.pt": (b"<html lang='en'>", "a page of HTML in place of the file"),
        "model.h5.gz": (gzip.compress(b"x"), "compressed by gzip: unpack it"),
        "checkpoint": (b'model_checkpoint_path: "ckpt-1"\n', "a checkpoint of TensorFlow"),
        "ckpt-1.index": (table, "a checkpoint of TensorFlow"),
        "ckpt-1.data-00000-of-00001": (b"\x08\x12" * 9, "a checkpoint of TensorFlow"),
        "other.json": (b'{"a": 1}', "some other JSON"),
    }
    for name, (content, message) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(fastgru.FormatError, match=rf"{name}: .*{message}"):
            fastgru.load(tmp_path / name)
    with pytest.raises(fastgru.FormatError, match="ckpt-1: a checkpoint of TensorFlow"):
        fastgru.load(tmp_path / "ckpt-1")
    for member in ("m.h5", "a/m.keras", "m.onnx", "saved/saved_model.pb", "dir.keras/config.json", "m.pt"):
        with pytest.raises(
            fastgru.FormatError, match=rf"a zip archive with a model in it, {member}: unpack it"
        ):
            fastgru.load(zipped(tmp_path / "m.zip", "readme.txt", member))
    with pytest.raises(fastgru.FormatError, match=r"m\.zip: "):
        fastgru.load(zipped(tmp_path / "m.zip", "readme.txt"))


def test_folders_are_called_what_they_are(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="give the model's file in it"):
        fastgru.load(folder)
    (folder / "model.json").write_text("{}")
    with pytest.raises(IsADirectoryError, match=r"give the model\.json in it"):
        fastgru.load(folder)
    (folder / "checkpoint").write_text("model_checkpoint_path: 'x'")
    with pytest.raises(fastgru.FormatError, match="a checkpoint of TensorFlow"):
        fastgru.load(folder)
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(fastgru.FormatError, match="a SavedModel of TensorFlow"):
        fastgru.load(folder)


def test_a_keras_model_in_a_folder_is_read(keras3, tmp_path):
    model = model_of(keras3)
    folder = tmp_path / "folder"
    saved(model, folder, zipped=False)
    assert folder.is_dir()
    expected = fastgru.load_all(saved(model, tmp_path / "m.keras"))
    for path in (folder, str(folder), shutil.copytree(folder, tmp_path / "plain")):
        found = fastgru.load_all(path)
        assert list(found) == list(expected)
        for name, layer in found.items():
            assert_same(layer, expected[name])
        assert formats.format_of(path) == "keras"
    for name in ("model.weights.h5", "metadata.json"):
        (folder / name).rename(folder / "away")
        with pytest.raises(fastgru.FormatError, match=rf"folder: the member {name} is missing"):
            fastgru.load_all(folder)
        (folder / "away").rename(folder / name)
    (folder / "config.json").write_text('{"a": ' * 10**5)
    with pytest.raises(fastgru.FormatError, match=r"folder: config\.json is"):
        fastgru.load_all(folder)
