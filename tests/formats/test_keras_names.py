"""Weights of Keras that a config does not show, or with names of their own: cells, own layers, Windows."""

import io
import json
import warnings
import zipfile

import numpy as np
import pytest

import fastgru
from fastgru import formats

h5py = pytest.importorskip("h5py")
FEATURES = 5
GIVEN = {"recurrent_activation": "sigmoid", "reset_after": True}


@pytest.fixture(scope="module")
def keras3(tensorflow):
    return pytest.importorskip("keras")


@pytest.fixture(scope="module", params=["tf_keras", "keras 3"])
def library(request, keras, keras3):
    return keras if request.param == "tf_keras" else keras3


def saved(model, path):
    """The path of what the model writes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that .h5 is old
        (model.save_weights if "weights" in path.name else model.save)(path)
    return path


def weights_of(features, units, seed=0, bias=(2,)):
    """kernel, recurrent_kernel, bias."""
    rng = np.random.default_rng(seed)
    shapes = [(features, 3 * units), (units, 3 * units), (*bias, 3 * units)]
    return [rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes]


def legacy(path, groups, config=None):
    """An .h5 by names: of weights alone, or of a model; groups has three arrays by layer and folder."""
    with h5py.File(path, "w") as file:
        root = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
            file.attrs["keras_version"] = b"2.15.0"
            root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in groups]
        for layer, folders in groups.items():
            group = root.require_group(layer)
            names = []
            for folder, arrays in folders.items():
                for kind, array in zip(("kernel:0", "recurrent_kernel:0", "bias:0"), arrays, strict=True):
                    names.append(f"{folder}/{kind}")
                    group[names[-1]] = array
            group.attrs["weight_names"] = [name.encode() for name in names]
    return path


def gru(name, units, **options):
    return {"class_name": "GRU", "config": {"name": name, "units": units, **GIVEN, **options}}


def assert_weights(layer, arrays):
    for one, other in zip(layer.get_weights(), arrays, strict=True):
        np.testing.assert_array_equal(one, other)


# ---- Windows ---------------------------------------------------------------------------------


def by_place(separator, extra=()):
    """A .weights.h5 of a Bidirectional and a GRU, whose groups are named with this separator."""
    buffer = io.BytesIO()
    places = ["bidirectional/forward_layer", "bidirectional/backward_layer", "gru"]
    with h5py.File(buffer, "w") as file:
        for seed, place in enumerate(places):
            group = file.create_group(f"layers/{place}/cell".replace("/", separator)).create_group("vars")
            for i, array in enumerate(weights_of(8 if place == "gru" else FEATURES, 4, seed)):
                group[str(i)] = array
        for name in extra:
            file.create_group(name)
    return buffer.getvalue()


def archive(path, config, weights, version="2.15.0"):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("metadata.json", json.dumps({"keras_version": version}))
        file.writestr("model.weights.h5", weights)
    return path


BOTH = {"name": "both", "layer": gru("way", 4, return_sequences=True), "merge_mode": "concat"}
TWO = {
    "class_name": "Sequential",
    "config": {
        "name": "two",
        "layers": [{"class_name": "Bidirectional", "config": BOTH}, gru("top", 4)],
    },
}


def test_backslashes_are_separators(tmp_path):
    found = {}
    for separator in "/\\":
        data = by_place(separator)
        whole = fastgru.load_all(archive(tmp_path / "m.keras", TWO, data))
        assert {name: type(layer).__name__ for name, layer in whole.items()} == {
            "both": "Bidirectional",
            "top": "GRU",
        }
        bare = fastgru.load_all(data, **GIVEN)
        assert {name: type(layer).__name__ for name, layer in bare.items()} == {
            "bidirectional": "Bidirectional",
            "gru": "GRU",
        }
        assert bare["bidirectional"].backward_layer.go_backwards
        found[separator] = [layer.get_weights() for layer in (*whole.values(), *bare.values())]
    for one, other in zip(found["/"], found["\\"], strict=True):
        for array, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, same)


def test_backslashes_in_names_of_weights_are_separators(tmp_path):
    arrays = weights_of(FEATURES, 4)
    path = legacy(tmp_path / "w.h5", {"block\\gru": {"block\\gru\\gru_cell": arrays}})
    (layer,) = fastgru.load_all(path, **GIVEN).values()
    assert_weights(layer, arrays)
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [gru("block\\gru", 4)]}}
    path = legacy(tmp_path / "m.h5", {"block\\gru": {"block\\gru\\gru_cell": arrays}}, config)
    assert_weights(fastgru.load(path), arrays)


def test_names_that_differ_in_separators_alone_are_refused():
    data = by_place("\\", extra=["layers/gru/cell/vars"])
    with pytest.raises(fastgru.FormatError, match="differ in nothing but slashes and backslashes"):
        fastgru.load_all(data, **GIVEN)


# ---- cells, and layers in one group ----------------------------------------------------------


@pytest.mark.parametrize("wrapped", [False, True])
def test_cells_in_a_row_are_a_stack(library, wrapped, tmp_path):
    rng = np.random.default_rng(0)
    layers = library.layers
    cells = [
        layers.GRUCell(4, reset_after=False),
        layers.GRUCell(3, recurrent_activation="hard_sigmoid"),
        layers.GRUCell(2, activation="relu", use_bias=False),
    ]
    cell = layers.StackedRNNCells(cells) if wrapped else cells
    rnn = layers.RNN(cell, return_sequences=True, return_state=True, name="cells")
    inputs = library.Input((None, FEATURES))
    model = library.Model(inputs, rnn(inputs))
    model.set_weights([rng.normal(0, 0.5, array.shape) for array in model.get_weights()])
    x = rng.normal(size=(2, 6, FEATURES)).astype(np.float32)
    mask = rng.random((2, 6)) < 0.6
    paths = [saved(model, tmp_path / name) for name in ("m.h5", "m.keras")]
    for stack in (*map(fastgru.load, paths), fastgru.from_keras(rnn)):
        assert (type(stack), stack.name) == (fastgru.Stack, "cells")
        assert [layer.units for layer in stack.layers] == [4, 3, 2]
        for options in ({}, {"mask": mask}):
            for ours, theirs in zip(stack(x, **options), rnn(x, **options), strict=True):
                theirs = np.reshape(theirs, ours.shape)  # Keras 3 has each state in a list
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
        assert stack.get_config()["layers"][0]["config"]["reset_after"] is False
    last = fastgru.load(paths[0], return_sequences=False, return_state=False, name="mine")
    assert (last.name, last(x).shape) == ("mine", (2, 2))


def test_cells_in_a_row_of_weights_alone_stay_apart(library, tmp_path):
    layers = library.layers
    inputs = library.Input((None, FEATURES))
    cells = layers.RNN([layers.GRUCell(4), layers.GRUCell(3)], name="cells")
    model = library.Model(inputs, cells(inputs))
    arrays = model.get_weights()
    extensions = ["weights.h5"] if library.__name__ == "keras" else ["weights.h5", "old_weights.h5"]
    for extension in extensions:
        path = tmp_path / f"m.{extension}"
        if extension == "old_weights.h5":
            model.save_weights(path, save_format="h5")
        else:
            saved(model, path)
        found = fastgru.load_all(path, **GIVEN)
        assert len(found) == 2
        for layer, first in zip(found.values(), (0, 3), strict=True):
            assert_weights(layer, arrays[first : first + 3])
        with pytest.raises(ValueError, match="layer must be one of"):
            fastgru.load(path, **GIVEN)


def test_cells_in_a_row_of_both_directions_are_found_one_by_one(library, tmp_path):
    layers = library.layers
    inputs = library.Input((None, FEATURES))
    rnn = layers.RNN([layers.GRUCell(4), layers.GRUCell(3)])
    model = library.Model(inputs, layers.Bidirectional(rnn, name="both")(inputs))
    arrays = {array.tobytes() for array in model.get_weights()}
    for extension in ("h5", "keras", "weights.h5"):
        found = fastgru.load_all(saved(model, tmp_path / f"m.{extension}"), **GIVEN)
        assert len(found) == 4
        assert {type(layer) for layer in found.values()} == {fastgru.GRU}
        assert {array.tobytes() for layer in found.values() for array in layer.get_weights()} == arrays


def test_cells_in_a_row_that_go_backwards_are_refused(library, tmp_path):
    layers = library.layers
    inputs = library.Input((None, FEATURES))
    model = library.Model(
        inputs, layers.RNN([layers.GRUCell(4), layers.GRUCell(3)], go_backwards=True)(inputs)
    )
    with pytest.raises(fastgru.FormatError, match="must go forward, got go_backwards=True"):
        fastgru.load(saved(model, tmp_path / "m.keras"))


def test_a_gru_beside_a_bidirectional_in_one_group_is_another_layer(tmp_path):
    one, forward, backward = (weights_of(FEATURES, units, units) for units in (4, 2, 3))
    groups = {
        "a": {"a/gru_cell": one, "a/forward_g/gru_cell_1": forward, "a/backward_g/gru_cell_2": backward}
    }
    found = fastgru.load_all(legacy(tmp_path / "w.h5", groups), merge_mode=None, **GIVEN)
    assert {name: type(layer).__name__ for name, layer in found.items()} == {
        "a/gru_cell": "GRU",
        "a/g": "Bidirectional",
    }
    assert_weights(found["a/gru_cell"], one)
    assert_weights(found["a/g"], forward + backward)


def test_names_that_begin_as_those_of_directions_may_be_of_other_layers(tmp_path):
    grus = {f"e/{name}/gru_cell": weights_of(FEATURES, 2, seed) for seed, name in
            enumerate(["forward_a", "forward_b", "backward_c", "backward_d"])}  # fmt: skip
    wide = {"f/forward_x/gru_cell": weights_of(4, 2, 5), "f/backward_x/gru_cell": weights_of(3, 2, 6)}
    alone = {"forward_gru/gru_cell": weights_of(FEATURES, 2, 7)}
    groups = {"e": grus, "f": wide, "forward_gru": alone}
    found = fastgru.load_all(legacy(tmp_path / "w.h5", groups), **GIVEN)
    assert set(map(type, found.values())) == {fastgru.GRU}
    arrays = [arrays for group in groups.values() for arrays in group.values()]
    assert len(found) == len(arrays) == 7
    for layer, expected in zip(found.values(), arrays, strict=True):
        assert_weights(layer, expected)


# ---- what the config does not show -----------------------------------------------------------


@pytest.fixture(scope="module")
def own(library):
    """Models with GRUs that a config does not show: by name the model, and how many it shows and hides."""
    layers = library.layers

    class Encoder(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.gru = layers.GRU(4, return_sequences=True)

        def build(self, shape):
            self.gru.build(shape)
            super().build(shape)

        def call(self, x):
            return self.gru(x)

    @library.saving.register_keras_serializable("tests")
    class Mine(layers.GRU):
        pass

    class Net(library.Model):
        def __init__(self):
            super().__init__()
            self.gru = layers.GRU(4)

        def call(self, x):
            return self.gru(x)

    inputs = library.Input((None, FEATURES))
    net = Net()
    net(np.ones((1, 2, FEATURES), np.float32))
    return {
        "alone": (library.Model(inputs, Encoder()(inputs)), 0, 1),
        "beside": (library.Model(inputs, layers.GRU(6, name="plain")(Encoder()(inputs))), 1, 1),
        "in a sequence": (
            library.Sequential(
                [
                    inputs,
                    layers.GRU(4, return_sequences=True),
                    layers.GRU(4, return_sequences=True),
                    Encoder(),
                ]
            ),
            2,
            1,
        ),
        "a subclass": (library.Model(inputs, [Mine(2)(inputs), layers.GRU(3, name="plain")(inputs)]), 1, 1),
        "both ways": (library.Model(inputs, layers.Bidirectional(Mine(2))(inputs)), 0, 1),
        "a model": (net, 0, 1),
    }


@pytest.mark.parametrize("name", ["alone", "beside", "in a sequence", "a subclass", "both ways", "a model"])
@pytest.mark.parametrize("extension", ["keras", "h5", "weights.h5"])
def test_grus_that_no_config_shows_are_found_by_their_weights(own, name, extension, library, tmp_path):
    model, shown, hidden = own[name]
    if name == "a model" and extension == "h5" and library.__name__ != "keras":
        pytest.skip("tf_keras saves no .h5 of a model without layers in its config")
    path = saved(model, tmp_path / f"m.{extension}")
    found = fastgru.load_all(path, **GIVEN)
    assert len(found) == shown + hidden
    arrays = {array.tobytes() for array in model.get_weights()}
    assert {array.tobytes() for layer in found.values() for array in layer.get_weights()} == arrays
    if shown + hidden > 1:
        with pytest.raises(ValueError, match=r"layer must be one of .*, the GRUs in"):
            fastgru.load(path)
    elif extension != "weights.h5" and name != "a model":
        (only,) = found
        with pytest.raises(
            fastgru.FormatError, match=rf"does not show {only}, .*kernel \({FEATURES}, .*give the"
        ):
            fastgru.load(path)
    else:
        with pytest.raises(fastgru.FormatError, match=r"weights only.*give the arguments"):
            fastgru.load(path)
    if name == "beside" and extension != "weights.h5":
        assert fastgru.load(path, "plain").units == 6


def test_a_class_of_ones_own_that_is_called_gru_is_not_taken_for_keras(tmp_path):
    arrays = weights_of(FEATURES, 4)
    for other in (
        {"class_name": "package>GRU"},
        {"registered_name": "GRU"},
        {"module": None},
        {"registered_name": "package>GRU"},
        {"module": "package.layers"},
    ):
        layer = {"module": "keras.layers", "registered_name": None} | gru("mine", 4) | other
        config = {"class_name": "Sequential", "config": {"name": "s", "layers": [layer]}}
        path = legacy(tmp_path / "m.h5", {"mine": {"mine/gru_cell": arrays}}, config)
        with pytest.raises(fastgru.FormatError, match="config does not show mine"):
            fastgru.load(path)
        assert_weights(fastgru.load(path, **GIVEN), arrays)


def test_attributes_that_are_called_as_directions_may_be_of_other_layers(tmp_path):
    places = {
        "a/forward_layer/cell": 5,  # reads other inputs
        "a/backward_layer/cell": 4,
        "b/cell": 5,  # has layers of such names
        "b/forward_layer/cell": 5,
        "b/backward_layer/cell": 5,
        "c/forward_layer/cell": 5,  # alone
        "d": 5,  # beside a cell
        "d/cell": 5,
    }
    arrays = {place: weights_of(features, 4, i) for i, (place, features) in enumerate(places.items())}
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for place, three in arrays.items():
            for i, array in enumerate(three):
                file[f"{place}/vars/{i}"] = array
    found = fastgru.load_all(tmp_path / "m.weights.h5", **GIVEN)
    assert {type(layer) for layer in found.values()} == {fastgru.GRU}
    assert len(found) == len(places)
    kernels = {array.tobytes() for three in arrays.values() for array in three}
    assert {array.tobytes() for layer in found.values() for array in layer.get_weights()} == kernels


def test_layers_nested_in_each_other_are_looked_into_once(tmp_path):
    """Each Bidirectional has two layers: to look into both is to look into one 2 ** 200 times."""
    nested = gru("deep", 4)
    for _ in range(200):
        nested = {"class_name": "Bidirectional", "config": {"name": "b", "layer": nested}}
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [nested]}}
    path = legacy(tmp_path / "m.h5", {"b": {"b/gru_cell": weights_of(FEATURES, 4)}}, config)
    with pytest.raises(fastgru.FormatError, match="config does not show b,"):
        fastgru.load(path)


def test_weights_that_are_said_to_be_missing_may_be_there_by_another_name(tmp_path):
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [
        {"class_name": "Model", "config": {"name": "m", "layers": [gru("a", 4), gru("b", 4)]}}]}}  # fmt: skip
    arrays = weights_of(FEATURES, 4)
    path = legacy(tmp_path / "m.h5", {"m": {"a/gru_cell": arrays}}, config)
    with pytest.raises(fastgru.FormatError, match=r"weights of m/a, m/b are missing"):
        fastgru.load(path, "m/a")
    with formats._layers(path) as makers:
        (name,) = set(makers) - {"m/a", "m/b"}
    assert_weights(fastgru.load(path, name, **GIVEN), arrays)


def test_the_command_takes_no_layer_without_a_config_for_one_of_its_defaults(tmp_path, capfd):
    run = pytest.importorskip("fastgru.cli._main").run
    config = {
        "class_name": "Sequential",
        "config": {"name": "s", "layers": [gru("plain", 4, reset_after=False)]},
    }
    arrays = weights_of(FEATURES, 4, bias=())
    groups = {"plain": {"plain/gru_cell": arrays}, "own": {"own/gru/gru_cell": arrays}}
    path = legacy(tmp_path / "m.h5", groups, config)
    assert run(["inspect", str(path)]) == 0
    shown = capfd.readouterr().out.splitlines()
    assert any("plain" in line and "sigmoid" in line for line in shown)
    assert any("own" in line and "not in the file" in line for line in shown)
    np.save(tmp_path / "x.npy", np.zeros((2, 3, FEATURES), np.float32))
    call = ["run", str(path), str(tmp_path / "x.npy"), "--output", str(tmp_path / "y.npy")]
    for layer, expected in (("own", "of 'own' the file has the weights only"), (None, "by --layer")):
        assert run(call if layer is None else [*call, "--layer", layer]) != 0
        assert expected in capfd.readouterr().err
    assert run([*call, "--layer", "plain"]) == 0
