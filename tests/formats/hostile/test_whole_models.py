"""Whole models of Keras that lie: an error that says where, whatever a config claims."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest

import fastgru
from fastgru.formats.models import load_model

h5py = pytest.importorskip("h5py")


def layer(class_name, inbound=None, **config):
    made = {"class_name": class_name, "config": {"trainable": True, "dtype": "float32", **config}}
    if inbound is not None:
        made |= {"name": config["name"], "inbound_nodes": [[[name, 0, 0, {}] for name in inbound]]}
    return made


def sound():
    """Config and weights of a functional model: an embedding, a GRU, a dense layer, and a merge."""
    start = layer("InputLayer", [], name="ids", batch_input_shape=[None, None])
    start["inbound_nodes"] = []
    layers = [
        start,
        layer("Embedding", ["ids"], name="table", input_dim=5, output_dim=3, mask_zero=True),
        layer("GRU", ["table"], name="gru", units=3, reset_after=True, return_sequences=True),
        layer("BatchNormalization", ["gru"], name="norm", axis=[2], epsilon=0.001),
        layer("Add", ["norm", "table"], name="add"),
        layer("Dense", ["add"], name="dense", units=2, activation="relu"),
    ]
    config = {
        "name": "model",
        "layers": layers,
        "input_layers": [["ids", 0, 0]],
        "output_layers": [["dense", 0, 0]],
    }
    weights = {
        "table": {"embeddings": (5, 3)},
        "gru": {"kernel": (3, 9), "recurrent_kernel": (3, 9), "bias": (2, 9)},
        "norm": dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (3,)),
        "dense": {"kernel": (3, 2), "bias": (2,)},
    }
    return {"class_name": "Functional", "config": config}, weights


def written(model, weights, fill=0.25):
    """The bytes of an .h5."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["model_config"] = json.dumps(model)
        groups = file.create_group("model_weights")
        groups.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            group = groups.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{key}:0".encode() for key in arrays]
            for key, shape in arrays.items():
                group[f"{name}/{key}:0"] = np.full(shape, fill, np.float32)
    return content.getvalue()


def places(value, path=()):
    """The paths of everything in a config."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from places(one, (*path, key))


def changed(value, path, new):
    """The same with another value in one place."""
    if not path:
        return new
    value = copy.deepcopy(value)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = new
    return value


def test_the_model_that_is_changed_is_sound():
    found = load_model(written(*sound()))
    assert found(np.array([[1, 2, 0]])).shape == (1, 3, 2)


@pytest.mark.parametrize(
    "new", [None, True, -1, 2**70, 1e400, "x", [], {}, [[[]]], [None] * 3, {"class_name": []}]
)
def test_any_type_in_any_field_is_an_error_or_means_nothing(new):
    model, weights = sound()
    every = list(places(model))
    rng = np.random.default_rng(len(repr(new)))
    for number in rng.choice(len(every), 12, replace=False):
        path = every[number]
        print(path, new)
        data = written(changed(model, path, new), weights)
        with contextlib.suppress(fastgru.FormatError):
            found = load_model(data)
            results = found(np.array([[1, 2, 0]]))
            assert all(len(result) == 1 for result in (results if isinstance(results, list) else [results]))


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        ((1, "inbound_nodes"), [[["dense", 0, 0, {}]]], "in a circle: add, dense, gru, norm, table"),
        ((2, "inbound_nodes"), [[["missing", 0, 0, {}]]], "'gru' reads 'missing'"),
        ((2, "inbound_nodes"), [[["table", 0, 7, {}]]], "'gru' reads 'table:7', which no layer writes"),
        ((2, "inbound_nodes"), [[["table", 3, 0, {}]]], "'gru' reads 'table', which the model does not have"),
        (
            (2, "inbound_nodes"),
            [[["table", 0, 0, {"training": True}]]],
            r"GRU 'gru' \(called with training=True\)",
        ),
        ((2, "class_name"), "LSTM", "does not compute: LSTM 'gru': keep what these compute in Keras"),
        ((2, "config", "units"), 4, "which is no layer of units=4"),
        ((1, "config", "input_dim"), 10**9, r"must have embeddings \(1000000000, 3\), got \(5, 3\)"),
        ((5, "config", "units"), 10**9, r"Dense 'dense' must have kernel \(3, 1000000000\)"),
        ((5, "config", "dtype"), "mixed_float16", "Dense 'dense' .dtype=mixed_float16"),
        ((5, "config", "dtype"), "float64", "float32 of 'table' and float64 of 'dense'"),
        ((5, "config", "activation"), "sparsemax", "Dense 'dense' .activation='sparsemax'"),
        ((3, "config", "axis"), [1], "must have the axis of the features, got axis=.1."),
        ((3, "config", "epsilon"), -1.0, "must have a moving_variance, with epsilon, above 0"),
        ((0, "config", "batch_input_shape"), [None, 2**40], "the input 'ids' must have a shape of sizes"),
        (
            (0, "config", "batch_input_shape"),
            [None, None, 3],
            r"'ids' of indices must be \(batch, timesteps\)",
        ),
    ],
)
def test_what_lies_is_named(path, new, message):
    model, weights = sound()
    with pytest.raises(fastgru.FormatError, match=message):
        load_model(written(changed(model, ("config", "layers", *path), new), weights))


def test_every_layer_that_stands_in_the_way_is_named_at_once():
    model, weights = sound()
    layers = model["config"]["layers"]
    layers[2]["class_name"], layers[4]["class_name"] = "LSTM", "Dot"
    layers[5]["config"]["activation"] = "sparsemax"
    with pytest.raises(
        fastgru.FormatError, match=r"LSTM 'gru'; Dot 'add'; Dense 'dense' \(activation='sparsemax'\)"
    ):
        load_model(written(model, weights))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(number):
    with pytest.raises(fastgru.FormatError, match="embeddings:0 must be finite"):
        load_model(written(*sound(), fill=number))


def test_weights_that_are_missing_or_in_another_order_are_named():
    model, weights = sound()
    with pytest.raises(fastgru.FormatError, match="weights of dense are missing"):
        load_model(written(model, {name: weights[name] for name in ("table", "gru", "norm")}))
    weights["norm"] = dict(reversed(weights["norm"].items()))
    with pytest.raises(fastgru.FormatError, match="norm must have its gamma where norm/moving_variance:0 is"):
        load_model(written(model, weights))


def test_models_in_models_that_call_each_other_twice_end():
    """Thirty models, each of which calls the next one twice: a config of some kilobytes, 2^30 calls."""
    inner = layer("Dense", ["x"], name="dense", units=1)
    for depth in range(30):
        start = layer("InputLayer", [], name="x", batch_input_shape=[None, 1])
        start["inbound_nodes"] = []
        last = inner["name"]
        config = {
            "name": f"model_{depth}",
            "layers": [start, inner],
            "input_layers": [["x", 0, 0]],
            "output_layers": [[last, len(inner["inbound_nodes"]) - 1, 0]],
        }
        inner = {"class_name": "Functional", "config": config, "name": config["name"]}
        inner["inbound_nodes"] = [[["x", 0, 0, {}]], [[config["name"], 0, 0, {}]]]
    del inner["inbound_nodes"]
    with pytest.raises(fastgru.FormatError, match="a model may have 10000 calls of layers, got more"):
        load_model(written(inner, {}))


def test_widths_that_double_end():
    """Concatenations of a value with itself: 2^40 numbers a step."""
    start = layer("InputLayer", [], name="x", batch_input_shape=[None, None, 1])
    start["inbound_nodes"] = []
    layers = [start]
    for number in range(40):
        layers.append(layer("Concatenate", [layers[-1]["name"]] * 2, name=f"c{number}", axis=-1))
    config = {"name": "m", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["c39", 0, 0]]}
    model = {"class_name": "Functional", "config": config}
    with pytest.raises(fastgru.FormatError, match="which is too large"):
        load_model(written(model, {}))
    norm = layer("LayerNormalization", ["c24"], name="norm", axis=[2], scale=False, center=False, epsilon=0.1)
    config["layers"] = [*layers[:26], norm]
    config["output_layers"] = [["norm", 0, 0]]
    with pytest.raises(fastgru.FormatError, match="wider than a file of its size can hold weights for"):
        load_model(written(model, {}))
