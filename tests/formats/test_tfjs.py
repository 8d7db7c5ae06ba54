"""Layers models of TensorFlow.js: a model.json and its shards, sound ones and ones that lie."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastgru

FEATURES = 5
RECURRENT = {"recurrent_activation": "sigmoid", "reset_after": True}


def gru(name, units, **options):
    return {"class_name": "GRU", "config": {"name": name, "units": units, **RECURRENT, **options}}


def weights_of(features, units, seed=0):
    """kernel, recurrent_kernel, bias."""
    rng = np.random.default_rng(seed)
    shapes = [(features, 3 * units), (units, 3 * units), (2, 3 * units)]
    return [rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes]


def named(folder, arrays):
    kinds = ("kernel", "recurrent_kernel", "bias")
    return {f"{folder}/{kind}": array for kind, array in zip(kinds, arrays, strict=True)}


def manifest_of(weights):
    return [
        {"name": name, "shape": list(array.shape), "dtype": array.dtype.name}
        for name, array in weights.items()
    ]


def written(folder, layers, groups, shard=1000, version="2.15.0"):
    """The path of a model.json.

    layers : list of dict
    groups : list of dict of ndarray
        Weights by name, one group of shards after the other.
    shard : int
        Bytes that a shard has at most.
    """
    manifest = []
    for i, group in enumerate(groups):
        data = b"".join(array.tobytes() for array in group.values())
        parts = [data[start : start + shard] for start in range(0, len(data), shard)]
        paths = [f"group{i + 1}-shard{j + 1}of{len(parts)}.bin" for j in range(len(parts))]
        for path, part in zip(paths, parts, strict=True):
            (folder / path).write_bytes(part)
        manifest.append({"paths": paths, "weights": manifest_of(group)})
    model = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    topology = {"keras_version": version, "backend": "tensorflow", "model_config": model}
    return changed(folder / "model.json", {
        "format": "layers-model", "modelTopology": topology, "weightsManifest": manifest,
    })  # fmt: skip


def changed(path, model):
    path.write_text(json.dumps(model))
    return path


LAYERS = [
    gru("low", 4, return_sequences=True),
    {"class_name": "Bidirectional", "config": {"name": "both", "layer": gru("way", 3), "merge_mode": "ave"}},
]
LOW = named("low/gru_cell", weights_of(FEATURES, 4))
BOTH = named("both/forward_way/gru_cell_1", weights_of(4, 3, 1))
BOTH |= named("both/backward_way/gru_cell_2", weights_of(4, 3, 2))
DENSE = {"dense/kernel": np.ones((3, 2), np.float32), "dense/bias": np.ones(2, np.float32)}


def assert_weights(layer, arrays):
    for one, other in zip(layer.get_weights(), arrays, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def model(tmp_path):
    return written(tmp_path, LAYERS, [LOW, DENSE | BOTH])


@pytest.mark.parametrize("shard", [100, 1000, 10**6])
def test_layers_have_their_weights_wherever_the_shards_are_cut(shard, tmp_path):
    path = written(tmp_path, LAYERS, [LOW | DENSE, BOTH], shard)
    found = fastgru.load_all(path)
    assert list(found) == ["low", "both"]
    assert_weights(found["low"], LOW.values())
    assert_weights(found["both"], BOTH.values())
    assert (found["both"].merge_mode, found["low"].return_sequences) == ("ave", True)
    stack = fastgru.load(path)
    assert [layer.name for layer in stack.layers] == ["low", "both"]
    assert fastgru.formats.format_of(path) == "tfjs"


def test_what_keras_writes_is_read_as_its_own_file_is(keras, tmp_path):
    """As the converter has it: names of an .h5 without ":0", and the model's config."""
    layers = keras.layers
    inputs = keras.Input((None, FEATURES))
    inner = keras.Sequential([keras.Input((None, FEATURES)), layers.GRU(3, name="deep")], name="inner")
    both = layers.Bidirectional(layers.GRU(2), name="both")
    outputs = [layers.GRU(2, name="one")(inputs), inner(inputs), both(inputs)]
    whole = keras.Model(inputs, outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that .h5 is old
        whole.save(tmp_path / "m.h5")
    weights = {weight.name.removesuffix(":0"): weight.numpy() for weight in whole.weights}
    (tmp_path / "js").mkdir()
    path = written(tmp_path / "js", [], [weights])
    model = json.loads(path.read_text())
    model["modelTopology"] = json.loads(whole.to_json())
    expected = fastgru.load_all(tmp_path / "m.h5")
    found = fastgru.load_all(changed(path, model))
    assert list(found) == list(expected) == ["one", "inner/deep", "both"]
    for name, layer in found.items():
        assert_weights(layer, expected[name].get_weights())
        assert layer.get_config() == expected[name].get_config()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
def test_quantized_weights_are_read(dtype, tmp_path):
    stored, entries, wanted = {}, [], []
    for name, array in LOW.items():
        quantization = {"dtype": dtype, "original_dtype": "float32"}
        if dtype == "float16":
            stored[name] = array.astype(np.float16)
        else:
            levels = np.iinfo(dtype).max
            least, scale = float(array.min()), float(np.ptp(array)) / levels
            quantization |= {"min": least, "scale": scale}
            stored[name] = np.round((array - least) / scale).astype(dtype)
            assert np.abs(stored[name] * scale + least - array).max() <= scale
        wanted.append(stored[name] * quantization.get("scale", 1) + quantization.get("min", 0))
        shape = list(array.shape)
        entries.append({"name": name, "shape": shape, "dtype": "float32", "quantization": quantization})
    path = written(tmp_path, LAYERS[:1], [stored])
    model = json.loads(path.read_text())
    model["weightsManifest"][0]["weights"] = entries
    assert_weights(fastgru.load(changed(path, model)), [array.astype(np.float32) for array in wanted])


REAL = Path(__file__).parent / "data" / "tfjs"  # of which its README.md tells more


@pytest.mark.parametrize(
    ("model", "names"),
    [("names", ["forward_gru", "backward_gru", "gru"]), ("places", ["low", "high", "a"])],
)
def test_what_the_converter_writes_is_what_keras_computes(model, names):
    expected = json.loads((REAL / model / "expected.json").read_text())
    stack = fastgru.load(REAL / model / "model.json")
    assert [layer.name for layer in stack.layers] == names
    y = stack(np.array(expected["x"], np.float32))
    np.testing.assert_allclose(y, expected["y"], rtol=0, atol=3e-6)


def test_layers_that_names_do_not_tell_apart_are_refused(tmp_path):
    """Their order is not the model's: the converter sorts by the names of layers."""
    layers = [gru("low", FEATURES, return_sequences=True), gru("high", FEATURES)]
    built_before = [
        named(folder, weights_of(FEATURES, FEATURES, i))
        for i, folder in enumerate(("gru_cell", "gru_cell_1"))
    ]
    path = written(tmp_path, layers, [built_before[0] | built_before[1]])
    with pytest.raises(fastgru.FormatError, match=r"low, high must lie in folders named after .* gru_cell_1"):
        fastgru.load_all(path)
    assert_weights(fastgru.load(written(tmp_path, layers[:1], built_before[:1])), built_before[0].values())


def test_names_of_models_tell_layers_of_one_name_apart(tmp_path):
    """As the converter has them from an .h5 of Keras 3."""
    inner = {"class_name": "Sequential", "config": {"name": "inner", "layers": [gru("gru", FEATURES)]}}
    arrays = [weights_of(FEATURES, FEATURES, i) for i in range(2)]
    weights = named("outer/gru/gru_cell", arrays[0]) | named("inner/gru/gru_cell", arrays[1])
    found = fastgru.load_all(written(tmp_path, [inner, gru("gru", FEATURES)], [weights]))
    assert list(found) == ["inner/gru", "gru"]
    assert_weights(found["gru"], arrays[0])
    assert_weights(found["inner/gru"], arrays[1])


def test_versions_of_tensorflow_js_itself_compute_as_keras_2_does(tmp_path):
    layers = [gru("low", 4, recurrent_activation="hard_sigmoid")]
    for version, wanted in (
        ("tfjs-layers 4.22.0", "hard_sigmoid"),
        ("2.4.0", "hard_sigmoid"),
        ("3.5.0", "keras3_hard_sigmoid"),
    ):
        layer = fastgru.load(written(tmp_path, layers, [LOW], version=version))
        assert layer.recurrent_activation.__name__ == wanted


def test_grus_that_the_topology_does_not_show_are_found_by_their_weights(tmp_path):
    own = {"class_name": "Encoder", "config": {"name": "encoder"}}
    path = written(tmp_path, [own], [named("encoder/gru/gru_cell", LOW.values())])
    with pytest.raises(fastgru.FormatError, match=r"config does not show gru, .*kernel \(5, 12\)"):
        fastgru.load(path)
    assert_weights(fastgru.load(path, **RECURRENT), LOW.values())


# ---- files that lie --------------------------------------------------------------------------


def in_manifest(change):
    """A change of the manifest's first group."""

    def change_model(model):
        change(model["weightsManifest"][0])

    return change_model


def in_weight(**values):
    return in_manifest(lambda group: group["weights"][0].update(values))


def shards(*paths):
    return in_manifest(lambda group: group.update(paths=list(paths)))


LIES = {
    "a shard above": (shards("../group1-shard1of1.bin"), "must be a file in the folder"),
    "the folder itself": (shards(".."), "must be a file in the folder"),
    "a shard by its path": (shards("/etc/passwd"), "must be a file in the folder"),
    "a shard of Windows": (shards("C:x.bin"), "must be a file in the folder"),
    "a shard of Windows above": (shards("..\\x.bin"), "must be a file in the folder"),
    "a shard with a zero": (shards("x\0.bin"), "must be a file in the folder"),
    "a number for a shard": (shards(3), "must be a file in the folder"),
    "no shard": (shards(), "the file cannot hold"),
    "a missing shard": (shards("other.bin"), "shard other.bin cannot be read: No such file"),
    "a long name": (shards("x" * 5000), "cannot be read: File name too long"),
    "a shard twice": (shards("group1-shard1of1.bin", "group1-shard1of1.bin"), "is named twice"),
    "another group's": (shards("group2-shard1of1.bin"), "is named twice|have .* bytes, its weights"),
    "a huge shape": (in_weight(shape=[10**9, 10**9]), "which the file cannot hold"),
    "a shape beyond 64 bits": (in_weight(shape=[10**30, 0]), "which the file cannot hold"),
    "a negative shape": (in_weight(shape=[-1, 12]), "must have a shape"),
    "a shape of floats": (in_weight(shape=[5.0, 12]), "must have a shape"),
    "a shape of truths": (in_weight(shape=[True, 60]), "must have a shape"),
    "no shape": (in_weight(shape=None), "must have a shape"),
    "too small a shape": (in_weight(shape=[4, 12]), "have .* bytes, its weights"),
    "many axes": (in_weight(shape=[1] * 99), "which the file cannot hold"),
    "a text": (in_weight(dtype="string"), "must be of float32"),
    "a list for a dtype": (in_weight(dtype=["float32"]), "must be of float32"),
    "integers": (in_weight(dtype="int32"), "must be of float16, float32 or float64, got int32"),
    "no name": (in_weight(name=None), "must have a name"),
    "a name twice": (in_weight(name="low/gru_cell/bias"), "two weights have the name"),
    "no scale": (in_weight(quantization={"dtype": "uint8"}), "quantized by finite numbers"),
    "an infinite scale": (
        in_weight(quantization={"dtype": "uint8", "min": 0, "scale": float("inf")}),
        "quantized by finite numbers",
    ),
    "another quantization": (in_weight(quantization={"dtype": "int4"}), "must be of float32"),
    "a group that is none": (lambda model: model["weightsManifest"].append(3), "must be an object"),
    "a manifest that is none": (lambda model: model.update(weightsManifest={}), "must be a list of groups"),
    "no manifest": (lambda model: model.pop("weightsManifest"), "must be a list of groups"),
    "no list of paths": (in_manifest(lambda group: group.update(paths="x")), "lists of paths and of weights"),
    "no topology": (lambda model: model.update(modelTopology=None), "modelTopology must be an object"),
    "a graph": (lambda model: model.update(format="graph-model"), "graph model of TensorFlow.js"),
    "a graph by its nodes": (lambda model: model.update(modelTopology={"node": []}), "graph model of"),
    "a config of a list": (
        lambda model: model["modelTopology"].update(model_config=[]),
        "the model's config must be an object",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_model_that_lies_is_refused(lie, tmp_path):
    path = written(tmp_path, LAYERS, [LOW, BOTH], 10**6)
    model = json.loads(path.read_text())
    change, message = LIES[lie]
    change(model)
    with pytest.raises(fastgru.FormatError, match=rf"model\.json: .*({message})"):
        fastgru.load_all(changed(path, model))


def test_texts_that_are_no_sound_json_are_refused(model):
    sound = model.read_text()
    for text in (
        sound[:-10],
        '{"a": ' * 10**5,
        sound.replace('"format"', '"modelTopology"'),
        "{}",
        '{"a": [1]}',
    ):
        model.write_text(text)
        with pytest.raises(fastgru.FormatError, match=r"model\.json: "):
            fastgru.load_all(model)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    arrays = [array.copy() for array in LOW.values()]
    arrays[1][0, 0] = np.nan
    path = written(tmp_path, LAYERS[:1], [named("low/gru_cell", arrays)])
    with pytest.raises(fastgru.FormatError, match="recurrent_kernel must be finite"):
        fastgru.load(path)


@pytest.mark.skipif(os.name == "nt", reason="there are neither links nor pipes that anyone may make")
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_shards_that_are_no_plain_files_are_refused(kind, model, tmp_path):
    shard = tmp_path / "group1-shard1of2.bin"
    shard = shard if shard.exists() else tmp_path / "group1-shard1of1.bin"
    content = shard.read_bytes()
    shard.unlink()
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        shard.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(shard)
    else:
        shard.mkdir()
    with pytest.raises(fastgru.FormatError, match=r"cannot be read|no plain file"):
        fastgru.load_all(model)


def test_any_change_of_the_file_ends_in_layers_or_a_format_error(model):
    seed = np.random.SeedSequence().entropy % 2**32
    print("seed", seed)
    rng, sound = np.random.default_rng(seed), model.read_bytes()
    for _ in range(300):
        data = bytearray(sound)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.choice(list(b'0123456789"{}[],:.-x/'))
        model.write_bytes(data)
        message = f"{model}: "
        try:
            fastgru.load_all(model)
        except fastgru.FormatError as error:
            message = str(error)
        assert message.startswith(f"{model}: ")


def test_a_text_is_held_against_the_shards_too(tmp_path):
    """It takes many times its size when it is read, as that of a model of a thousand layers does."""
    count = 1000
    layers = [gru(f"layer_{i}", 8, return_sequences=True) for i in range(count)]
    arrays = weights_of(8, 8)
    weights = {
        name: array for i in range(count) for name, array in named(f"layer_{i}/gru_cell", arrays).items()
    }
    path = written(tmp_path, layers, [weights], 10**7)
    found = fastgru.load_all(path)
    assert list(found) == [f"layer_{i}" for i in range(count)]
    assert_weights(found["layer_999"], arrays)
    (shard,) = tmp_path.glob("*.bin")
    shard.write_bytes(b"")
    with pytest.raises(fastgru.FormatError, match="more than a file may hold"):
        fastgru.load_all(path)


def test_bytes_have_no_shards(model):
    with pytest.raises(fastgru.FormatError, match="whose weights lie in files beside it: give its path"):
        fastgru.load(model.read_bytes())
