"""fastgru's own files, and how `load` and `load_all` tell formats and take arguments."""

import io
import json
import os
import resource
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastgru
from fastgru._writers import native
from fastgru.activations import Activation, Affine, HardSigmoid, ScaledTanh

FEATURES = 3


def built(units=4, features=FEATURES, **arguments):
    layer = fastgru.GRU(units, **arguments)
    layer.build((2, None, features))
    return layer


def both(merge_mode="concat", layer=None, backward=None, **arguments):
    backward = None if backward is None else fastgru.GRU(**{"units": 4, "go_backwards": True} | backward)
    layer = fastgru.GRU(**{"units": 4} | (layer or {}))
    made = fastgru.Bidirectional(layer, merge_mode, backward_layer=backward, **arguments)
    made.build((2, None, FEATURES))
    return made


def outputs(layer, seed=0):
    x = np.random.default_rng(seed).normal(size=(2, 2, FEATURES)).astype(layer.dtype)
    results = layer(x)
    return results if isinstance(results, list) else [results]


def assert_same(loaded, layer):
    """Equal configs and weights, and the same bits in a call."""
    assert type(loaded) is type(layer)
    assert json.dumps(loaded.get_config()) == json.dumps(layer.get_config())
    assert loaded.built
    pairs = zip(loaded.get_weights(), layer.get_weights(), strict=True)
    assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)
    assert [a.tobytes() for a in outputs(loaded)] == [a.tobytes() for a in outputs(layer)]


def assert_comes_back(layer, tmp_path):
    path = tmp_path / "layer.npz"
    layer.save(path)
    loaded = fastgru.load(path)
    assert_same(loaded, layer)
    return loaded


# ---- fastgru's own files ---------------------------------------------------------------------

OPTIONS = [
    {},
    {"reset_after": True, "dtype": "float64"},
    {"dtype": "float16", "use_bias": False},
    {"dtype": "float16", "use_bias": True, "reset_after": True},
    {"return_sequences": True, "return_state": True, "go_backwards": True, "time_major": True},
    {"zero_output_for_mask": True, "unroll": True, "implementation": 2, "name": "decoder/gru 1"},
    {"weights_dtype": "float16", "reset_after": True},
    {"default_state": [0.1, -0.2, 0.3, 1e-30]},
    {"default_state": np.ones((2, 4)), "dtype": "float64"},
    {"stateful": True, "batch_input_shape": (2, None, FEATURES)},
    {"dropout": 0.1, "recurrent_dropout": 0.3, "trainable": False},
    {"activation": "PReLU", "recurrent_activation": "sigmoid"},
    {"activation": "PReLU", "recurrent_activation": "PReLU", "use_bias": False},
    {"activation": {"class_name": "LeakyReLU", "config": {"alpha": 0.1}}},
    {"activation": Affine(0.5, 0.25), "recurrent_activation": HardSigmoid(1 / 3, 0.25)},
    {"activation": ScaledTanh(0.9, 1.1), "recurrent_activation": "keras3_hard_sigmoid"},
    {"kernel_initializer": "he_normal", "recurrent_initializer": "identity", "bias_initializer": "ones"},
    {"kernel_initializer": {"class_name": "Constant", "config": {"value": 0.5}}},
    {"kernel_regularizer": "l1", "recurrent_regularizer": "l2", "bias_regularizer": "l1_l2"},
    {"activity_regularizer": {"class_name": "L1L2", "config": {"l1": 0.1, "l2": 0.2}}},
    {"kernel_constraint": "max_norm", "recurrent_constraint": "unit_norm", "bias_constraint": "non_neg"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_gru_comes_back_as_it_was(options, tmp_path):
    layer = fastgru.GRU(**{"units": 4} | options)
    if options.get("recurrent_initializer") == "identity":
        layer = fastgru.GRU(4, **options | {"recurrent_initializer": "zeros"})
    layer.build((2, None, FEATURES))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(scale=0.3, size=array.shape) for array in layer.get_weights()])
    loaded = assert_comes_back(layer, tmp_path)
    assert loaded.weights_dtype == layer.weights_dtype
    assert loaded.losses == layer.losses


ACTIVATIONS = [name for name, value in vars(fastgru.activations).items() if isinstance(value, Activation)]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_named_activation_comes_back(name, tmp_path):
    assert_comes_back(built(activation=name), tmp_path)


BOTH = [
    {},
    {"merge_mode": None, "layer": {"return_sequences": True, "return_state": True}},
    {"merge_mode": "ave", "layer": {"dtype": "float64", "reset_after": True}, "name": "encoder"},
    {"layer": {"name": "forward_gru", "go_backwards": True, "stateful": True}},
    {"backward": {"units": 7, "use_bias": False, "activation": "PReLU", "name": "backward_x"}},
    {"layer": {"trainable": False}, "backward": {"units": 4}, "trainable": True},
    {"layer": {"default_state": [1.0] * 4}, "backward": {"default_state": [2.0] * 4}, "merge_mode": "sum"},
    {"layer": {"dtype": "float16"}, "dtype": "float32", "batch_input_shape": (2, None, FEATURES)},
    {"layer": {"weights_dtype": "float16", "reset_after": True}, "trainable": False},
]


@pytest.mark.parametrize("options", BOTH, ids=str)
def test_a_bidirectional_comes_back_as_it_was(options, tmp_path):
    layer = both(**options)
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=array.shape) for array in layer.get_weights()])
    loaded = assert_comes_back(layer, tmp_path)
    assert loaded.trainable == layer.trainable
    assert loaded.dtype == layer.dtype
    for one in ("forward_layer", "backward_layer"):
        assert getattr(loaded, one).get_config() == getattr(layer, one).get_config()


def stacked(**options):
    """A Stack of GRUs and a Bidirectional."""
    below = [fastgru.GRU(n, return_sequences=True, name=f"g{n}", **options) for n in (4, 3)]
    both, top = fastgru.Bidirectional(below[1], name="both"), fastgru.GRU(2, name="top")
    layer = fastgru.Stack([below[0], both, top], name="all")
    layer.build((2, None, FEATURES))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(scale=0.3, size=array.shape) for array in layer.get_weights()])
    return layer


@pytest.mark.parametrize("return_state", [False, True])
def test_a_stack_comes_back_as_it_was(return_state, tmp_path):
    layer = stacked(reset_after=True, activation="PReLU", default_state=None)
    layer.return_state = return_state
    loaded = assert_comes_back(layer, tmp_path)
    assert fastgru.load_all(tmp_path / "layer.npz").keys() == {"all"}
    assert [one.name for one in loaded.layers] == [one.name for one in layer.layers]
    with np.load(tmp_path / "layer.npz", allow_pickle=False) as file:
        assert file.files[1:7] == ["0.0", "0.1", "0.2", "0.3", "1.forward.0", "1.forward.1"]
        assert json.loads(file["fastgru"].tobytes())["class_name"] == "Stack"


def test_arguments_go_to_the_layers_of_a_stack_that_they_are_for(tmp_path):
    path = tmp_path / "layer.npz"
    stacked().save(path)
    given = {"name": "mine", "return_sequences": True, "return_state": True, "merge_mode": "sum"}
    loaded = fastgru.load(path, **given, dtype="float64", stateful=True, input_shape=(None, FEATURES))
    assert (loaded.name, loaded.return_sequences, loaded.return_state) == ("mine", True, True)
    assert [layer.name for layer in loaded.layers] == ["g4", "both", "top"]
    assert loaded.layers[1].merge_mode == "concat"
    assert all(part.stateful and part.dtype == "float64" for part in loaded._parts)
    assert len(loaded(np.ones((2, 4, FEATURES)))) == 5
    with pytest.raises(fastgru.FormatError, match="which is no layer of units=7"):
        fastgru.load(path, units=7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(layers=None), "the layers of a Stack must be GRUs and Bidirectionals"),
        (lambda c: c.update(layers=[3]), "the layers of a Stack must be GRUs and Bidirectionals"),
        (lambda c: c["layers"][0].update(class_name="Stack"), "the layers of a Stack must be GRUs and"),
        (lambda c: c["layers"][0].update(class_name=[]), "the layers of a Stack must be GRUs and"),
        (lambda c: c["layers"][0].update(config=3), "the layers of a Stack must be GRUs and"),
        (lambda c: c.update(layers=[]), "layers must be a list of GRU and Bidirectional layers"),
        (lambda c: c["layers"].pop(0), "a GRU has kernel|no layer of units=3|expecting"),
        (
            lambda c: c["layers"].append(c["layers"][0]),
            "a GRU has kernel, recurrent_kernel and bias, got noth",
        ),
        (lambda c: c["layers"][0]["config"].update(units=5), "no layer of units=5"),
        (lambda c: c["layers"][0]["config"].update(return_sequences=False), "layers must return sequences"),
    ],
)
def test_a_stack_that_is_none_is_refused(change, message, tmp_path):
    path = tmp_path / "layer.npz"
    stacked().save(path)
    with_header(path, lambda header: change(header["config"]))
    with pytest.raises(fastgru.FormatError, match=message):
        fastgru.load(path)


def test_a_stack_leaves_layer_by_layer_for_keras_which_has_none(tmp_path):
    layer = stacked()
    for version in (2, 3):
        with pytest.raises(ValueError, match="Keras has no layer that is a Stack: write its `layers` one by"):
            layer.to_keras_config(version)
    with pytest.raises(ValueError, match="must be built to be saved"):
        fastgru.Stack([fastgru.GRU(2)]).save(tmp_path / "layer.npz")


def test_a_recorded_state_stays_behind(tmp_path):
    layer = built(stateful=True)
    first = outputs(layer)
    layer.save(tmp_path / "layer.npz")
    loaded = fastgru.load(tmp_path / "layer.npz")
    assert loaded.states == [None]
    assert np.array_equal(outputs(loaded)[0], first[0])


def test_a_file_holds_arrays_and_json_and_no_pickle(tmp_path):
    path = tmp_path / "layer.npz"
    layer = both(backward={"use_bias": False})
    layer.save(path)
    with np.load(path, allow_pickle=False) as file:
        header = json.loads(file["fastgru"].tobytes())
        assert header.keys() == {"format", "class_name", "config"}
        assert (header["format"], header["class_name"]) == (1, "Bidirectional")
        names = ["forward.0", "forward.1", "forward.2", "backward.0", "backward.1"]
        assert file.files == ["fastgru", *names]
        assert all(np.array_equal(file[name], w) for name, w in zip(names, layer.weights, strict=True))


def test_the_same_layer_gives_the_same_bytes(tmp_path):
    layer = both()
    layer.save(tmp_path / "one.npz")
    layer.save(tmp_path / "two.npz")
    fastgru.load(tmp_path / "one.npz").save(tmp_path / "three.npz")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def with_header(path, change):
    """A file with another header."""
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays["fastgru"].tobytes())
    change(header)
    arrays["fastgru"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)


SOFTMAX = {"class_name": "Softmax", "config": {"axis": 7}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(format=2), "the format must be 1, got 2: a newer fastgru may read it"),
        (lambda h: h.update(format=None), "the format must be 1, got None"),
        (lambda h: h.update(class_name="LSTM"), "the class must be one of GRU, Bidirectional, Stack, got"),
        (lambda h: h.update(config=[1]), "the header must be an object with a config"),
        (lambda h: h["config"].update(units=5), "no layer of units=5, use_bias=True, reset_after=False"),
        (lambda h: h["config"].update(activation="x"), "Unknown activation: 'x'"),
        (lambda h: h["config"].update(lstm=1), "wrong kind: Keyword argument not understood: lstm"),
        (lambda h: h["config"].update(units="4"), "wrong kind: units must be an integer, got '4'"),
        (lambda h: h["config"].update(activation=SOFTMAX), r"its activation Softmax\(axis=7\) is none"),
        (lambda h: h["config"].update(use_bias=False), "no layer of units=4, use_bias=False|expecting 2"),
        (
            lambda h: h["config"].update(default_state=[float("nan")] * 4),
            "default_state must be finite, got nan",
        ),
    ],
)
def test_a_header_that_is_none_is_refused(change, message, tmp_path):
    path = tmp_path / "layer.npz"
    built().save(path)
    with_header(path, change)
    with pytest.raises(fastgru.FormatError, match=message) as caught:
        fastgru.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_weights_that_a_float16_layer_cannot_hold_are_refused(tmp_path):
    path = tmp_path / "layer.npz"
    layer = built()
    layer.set_weights([w + 1e6 for w in layer.get_weights()])
    layer.save(path)
    with pytest.raises(fastgru.FormatError, match="weights must be finite as float16"):
        fastgru.load(path, dtype="float16")


class OwnInitializer:
    def __call__(self, shape, dtype):
        return np.zeros(shape, dtype)

    def get_config(self):
        return {}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda: built(activation=lambda x: x),
            "Python object <function .*only what has a name can be saved",
        ),
        (lambda: built(kernel_initializer=OwnInitializer()), "cannot be saved: .*OwnInitializer"),
        (lambda: both(layer={"recurrent_activation": np.tanh}), "Python object <ufunc 'tanh'>"),
        (lambda: fastgru.GRU(3, name="new"), "the layer new must be built to be saved"),
        (lambda: fastgru.Bidirectional(fastgru.GRU(3), name="new"), "the layer new must be built"),
        (lambda: built(bias_initializer=lambda s, d: np.full(s, np.nan)), "must have finite weights"),
        (lambda: built(default_state=[np.inf] * 4), "must have finite weights and states"),
    ],
)
def test_what_cannot_be_saved_is_not(layer, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        layer().save(tmp_path / "layer.npz")
    assert not isinstance(caught.value, fastgru.FormatError)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "layer.npz"
    built().save(path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as of a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            built(units=50).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_to_is_an_os_error(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    layer = built()
    for place, error in [
        ("missing/layer.npz", FileNotFoundError),
        ("file/layer.npz", NotADirectoryError),
        ("folder", IsADirectoryError),
        ("pipe", OSError),
    ]:
        with pytest.raises(error):
            layer.save(tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_is_replaced_and_a_link_to_it_stays(tmp_path):
    path, link = tmp_path / "layer.npz", tmp_path / "latest"
    built().save(path)
    link.symlink_to(path.name)
    other = built(units=7)
    other.save(str(link))
    assert link.is_symlink()
    assert_same(fastgru.load(path), other)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_name_of_any_length_can_be_saved_to(tmp_path):
    path = tmp_path / ("x" * 255)
    built().save(path)
    assert fastgru.load(path).units == 4


# ---- telling formats -------------------------------------------------------------------------


def write_state_dict(path, layer):
    with path.open("wb") as file:
        np.savez(file, **layer.to_torch_state_dict())


def write_safetensors(path, layer):
    from safetensors.numpy import save_file

    save_file(layer.to_torch_state_dict(), path)


def write_onnx(path, layer):
    path.write_bytes(layer.to_onnx().SerializeToString())


def write_torch(path, layer, zipped=True):
    import torch

    state = {key: torch.from_numpy(array) for key, array in layer.to_torch_state_dict().items()}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)


def write_h5(path, layer):
    """As Keras 2 writes a model."""
    import h5py

    layers = [{"class_name": "GRU", "config": layer.to_keras_config()}]
    names = [f"{layer.name}/gru_cell/{name}:0" for name in ("kernel", "recurrent_kernel", "bias")]
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
        group = file.create_group(f"model_weights/{layer.name}")
        group.attrs["weight_names"] = [name.encode() for name in names]
        for name, array in zip(names, layer.weights, strict=True):
            group[name] = array


def write_keras(path, layer):
    """As Keras 3 writes a model."""
    import h5py

    config = {"layers": [{"class_name": "GRU", "config": layer.to_keras_config(3)}]}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.0"}))
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": config}))
        weights = io.BytesIO()
        with h5py.File(weights, "w") as file:
            for i, array in enumerate(layer.weights):
                file[f"layers/gru/cell/vars/{i}"] = array
        archive.writestr("model.weights.h5", weights.getvalue())


WRITERS = {
    "native": lambda path, layer: layer.save(path),
    "state dict": write_state_dict,
    "safetensors": write_safetensors,
    "onnx": write_onnx,
    "torch": write_torch,
    "torch, legacy": lambda path, layer: write_torch(path, layer, zipped=False),
    "h5": write_h5,
    "keras": write_keras,
}
EXTENSIONS = ["npz", "safetensors", "onnx", "pt", "h5", "keras", "txt", ""]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_format_is_told_by_its_content(kind, tmp_path):
    layer = built(reset_after=True, recurrent_activation="sigmoid", return_sequences=True, name="gru")
    wanted = outputs(layer)[0]
    for extension in EXTENSIONS:
        path = tmp_path / f"model.{extension}"
        WRITERS[kind](path, layer)
        time_major = kind == "onnx"
        if time_major:
            loaded = fastgru.load(path, time_major=False)
        else:
            loaded = fastgru.load(path, return_state=False)
        assert np.array_equal(outputs(loaded)[0], wanted)


def test_a_block_of_a_programs_own_may_come_before_hdf5(tmp_path):
    layer = built()
    write_h5(tmp_path / "model.h5", layer)
    for size in (512, 1024, 2048):
        path = tmp_path / f"{size}.h5"
        path.write_bytes(b"x" * size + (tmp_path / "model.h5").read_bytes())
        assert np.array_equal(fastgru.load(path).get_weights()[0], layer.get_weights()[0])


def test_a_path_is_a_str_or_path_like(tmp_path):
    class Place:
        def __fspath__(self):
            return str(tmp_path / "layer.npz")

    layer = built()
    layer.save(Place())
    for path in (Place(), str(tmp_path / "layer.npz"), tmp_path / "layer.npz"):
        assert_same(fastgru.load(path), layer)
        assert_same(fastgru.load_all(path)[layer.name], layer)
    for path in (3, None, open):
        with pytest.raises(TypeError, match="path must be a path, bytes or a file opened for reading bytes"):
            fastgru.load(path)


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
OTHERS = {
    "empty": (lambda path: path.touch(), "no model file: it is empty"),
    "text": (lambda path: path.write_text("Hello, this is no model.\n" * 99), "no model file"),
    "json": (lambda path: path.write_text('{"class_name": "GRU"}'), "no model file"),
    "PNG": (lambda path: path.write_bytes(PNG * 99), "no model file"),
    "zip": (zipped, "the file holds no GRU"),
    "pickle": (lambda path: path.write_bytes(b"\x80\x04N."), "a pickle that torch.save has not written"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("load", [fastgru.load, fastgru.load_all])
def test_another_file_is_refused_by_its_name(kind, load, tmp_path):
    write, message = OTHERS[kind]
    path = tmp_path / "model.h5"
    write(path)
    with pytest.raises(fastgru.FormatError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_text_that_begins_as_onnx_does_is_no_model(tmp_path):
    path = tmp_path / "model.onnx"
    for first in fastgru.formats.ONNX_FIRST:
        path.write_bytes(bytes([first]) + b"ROW,SE\n" * 99)
        with pytest.raises(fastgru.FormatError, match=r"no model file|no ONNX model"):
            fastgru.load(path)


def test_what_cannot_be_opened_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.h5"):
        fastgru.load(tmp_path / "missing.h5")
    with pytest.raises(IsADirectoryError):
        fastgru.load_all(tmp_path)


def test_a_saved_model_says_what_to_save_instead(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(fastgru.FormatError, match=r"SavedModel of TensorFlow: save the model as \.keras"):
        fastgru.load(tmp_path)


# ---- arguments -------------------------------------------------------------------------------


def test_arguments_come_before_what_the_file_says(tmp_path):
    path = tmp_path / "layer.npz"
    layer = built(return_state=True)
    layer.save(path)
    given = {"return_sequences": True, "name": "mine", "default_state": [[1.0] * 4], "dtype": "float64"}
    loaded = fastgru.load(path, **given)
    assert loaded.get_config() == layer.get_config() | given
    x = np.zeros((2, 5, FEATURES))
    sequences, _ = loaded(x)
    assert sequences.shape == (2, 5, 4)
    assert np.abs(sequences - built(units=4)(x)[:, None]).any()


def test_arguments_go_to_both_directions_and_merge_mode_to_the_wrapper(tmp_path):
    path = tmp_path / "layer.npz"
    both(backward={"units": 4}).save(path)
    loaded = fastgru.load(path, merge_mode="sum", name="mine", return_sequences=True, dtype="float64")
    assert (loaded.merge_mode, loaded.name, loaded.return_sequences) == ("sum", "mine", True)
    assert {layer.dtype for layer in (loaded.forward_layer, loaded.backward_layer)} == {"float64"}
    assert loaded(np.zeros((2, 5, FEATURES))).shape == (2, 5, 4)


def test_a_merge_mode_is_for_layers_of_two_directions(tmp_path):
    path = tmp_path / "layer.npz"
    layer = built()
    layer.save(path)
    assert_same(fastgru.load(path, merge_mode="sum"), layer)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"unit": 3}, TypeError, "unit"),
        ({"units": 0}, ValueError, "units must be a positive integer"),
        ({"activation": "x"}, ValueError, "Unknown activation"),
        ({"merge_mode": "x"}, ValueError, "Invalid merge mode"),
        ({"dtype": "int8"}, ValueError, "dtype must be one of"),
        ({"weights": []}, TypeError, "weights"),
        ({"default_state": "x"}, ValueError, "default_state must be"),
        ({"name": 3.5}, TypeError, "name"),
    ],
)
def test_a_wrong_argument_is_no_fault_of_the_file(arguments, error, message, tmp_path):
    path = tmp_path / "layer.npz"
    path.write_text("no model")
    for load in (fastgru.load, fastgru.load_all):
        with pytest.raises(error, match=message) as caught:
            load(path, **arguments)
        assert not isinstance(caught.value, fastgru.FormatError)


@pytest.fixture
def several(tmp_path):
    """A state dict of three layers, and what they return."""
    layers = {name: built(reset_after=True, recurrent_activation="sigmoid") for name in ("z", "a", "m")}
    arrays = {f"{name}.{k}": w for name, one in layers.items() for k, w in one.to_torch_state_dict().items()}
    np.savez(tmp_path / "model.npz", **arrays)
    return tmp_path / "model.npz", layers


def test_of_several_layers_one_is_named(several):
    path, layers = several
    for name, layer in layers.items():
        loaded = fastgru.load(path, layer=name, return_sequences=False, return_state=False)
        assert loaded.name == name
        assert np.array_equal(outputs(loaded)[0], outputs(layer)[0])
    for name, got in ((None, "None"), ("x", "'x'"), ([], r"\[\]"), (0, "0")):
        with pytest.raises(ValueError, match=rf"layer must be one of 'z', 'a', 'm', the GRUs in .*got {got}"):
            fastgru.load(path, layer=name)


def test_load_all_keeps_the_order_of_the_file(several):
    path, layers = several
    loaded = fastgru.load_all(path, return_state=False)
    assert list(loaded) == ["z", "a", "m"]
    assert [layer.return_state for layer in loaded.values()] == [False] * 3
    assert all(np.array_equal(loaded[name].weights[0], layers[name].weights[0]) for name in layers)


def test_one_layer_may_be_named_too(tmp_path):
    layer = built(name="own")
    layer.save(tmp_path / "layer.npz")
    assert_same(fastgru.load(tmp_path / "layer.npz", layer="own"), layer)
    with pytest.raises(ValueError, match="layer must be one of 'own'"):
        fastgru.load(tmp_path / "layer.npz", "other")


def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch):
    layer = built(reset_after=True, recurrent_activation="sigmoid")
    cases = {"h5": ("h5py", "keras"), "onnx": ("onnx", "onnx")}
    for kind, (module, extra) in cases.items():
        WRITERS[kind](tmp_path / kind, layer)
        with monkeypatch.context() as patch:
            patch.setattr("importlib.util.find_spec", lambda name, *_: None)
            with pytest.raises(ImportError, match=rf"fastgru\[{extra}\]") as caught:
                fastgru.load(tmp_path / kind)
        assert caught.value.name == module


def test_a_warning_that_the_user_makes_an_error_is_no_fault_of_the_file(tmp_path):
    pytest.importorskip("onnx")
    model = built().to_onnx()
    model.producer_name = "pytorch"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserWarning, match="linear_before_reset=0"):
        fastgru.load(tmp_path / "model.onnx")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert fastgru.load(tmp_path / "model.onnx").units == 4
    assert len(caught) == 1


def test_no_other_file_is_opened(tmp_path, several):
    # what `open` is called with while an archive with names from elsewhere is read
    path, _ = several
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../outside.npy", "x")
        archive.writestr("/tmp/outside.npy", "x")
    before = set(Path("/tmp").iterdir())
    assert len(fastgru.load_all(path)) == 3
    assert not (tmp_path.parent.parent / "outside.npy").exists()
    assert not {p.name for p in set(Path("/tmp").iterdir()) - before} & {"outside.npy"}


def test_the_format_has_one_number():
    assert native.FORMAT == 1  # a file of another one must be refused, or still be read


@pytest.mark.parametrize("block", [512, 1024, 2048, 4096])
def test_an_archive_with_hdf5_where_a_block_would_end_is_an_archive(block, tmp_path):
    layer = built()
    layer.save(tmp_path / "layer.npz")
    with zipfile.ZipFile(tmp_path / "layer.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "model", "w") as archive:
        archive.writestr("first", bytes(block - 2 * 30 - len("first") - len("second")))
        archive.writestr("second", b"\x89HDF\r\n\x1a\n")
        for name, content in members.items():
            archive.writestr(name, content)
    assert (tmp_path / "model").read_bytes()[block:].startswith(b"\x89HDF")
    assert_same(fastgru.load(tmp_path / "model"), layer)
