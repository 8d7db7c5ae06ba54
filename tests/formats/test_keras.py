"""Files and layers of Keras: what Keras 1 to 3 write, fastgru reads, and computes as exactly as they do."""

import collections
import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import reference

import fastgru
from fastgru import formats
from fastgru.formats import _hdf5, _hdf5_start

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax over axis")  # Keras 3, of one unit

BATCH, TIMESTEPS, FEATURES = 3, 5, 4
KINDS = ["tf_keras 1", "tf_keras 2", "keras 3"]  # which GRU: version 1 or 2 of tf_keras', or Keras 3's


@pytest.fixture(scope="module")
def keras3(tensorflow):
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def libraries(keras, tensorflow, keras3):
    """Of every kind the library and its GRU."""
    classes = [tensorflow.compat.v1.keras.layers.GRU, keras.layers.GRU, keras3.layers.GRU]
    return dict(zip(KINDS, zip([keras, keras, keras3], classes, strict=True), strict=True))


def as_list(results):
    return list(results) if isinstance(results, list | tuple) else [results]


def saved(model, path):
    """The path of what the model writes: all of it, or its weights if it is a file for them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that .h5 is old
        (model.save_weights if "weights" in path.name else model.save)(path)
    return path


# ---- what the layers of a model should give: float64 ---------------------------------------------


def function(name, kind, alphas):
    """An activation's name, or the library's layer, as a function on float64 arrays."""
    if isinstance(name, str):
        return "keras3_hard_sigmoid" if (name, kind) == ("hard_sigmoid", "keras 3") else name
    made, arguments = name
    number = {key: float(np.float32(value)) for key, value in arguments.items()}
    if made == "PReLU":
        alpha = alphas.pop(0).astype(np.float64)
        return lambda x: np.where(x >= 0, x, alpha * x)
    if made == "LeakyReLU":
        (slope,) = number.values()
        return lambda x: np.where(x >= 0, x, slope * x)
    if made == "ELU":
        return lambda x: np.where(x > 0, x, number["alpha"] * np.expm1(np.minimum(x, 0)))
    assert made == "ReLU"
    top, slope, threshold = (number[key] for key in ("max_value", "negative_slope", "threshold"))
    return lambda x: np.where(x >= threshold, np.minimum(x, top), slope * (x - threshold))


def exact(options, kind, weights, x, mask, state):
    """Output and last state of a GRU."""
    names = [options.get("activation", "tanh"), options["recurrent_activation"]]
    alphas = list(weights[2 + options.get("use_bias", True) :])
    g, f = (function(name, kind, alphas) for name in names)
    flags = ("reset_after", "go_backwards", "zero_output_for_mask", "time_major")
    outputs, state = reference.gru(
        x,
        *weights[: 2 + options.get("use_bias", True)],
        activation=g,
        recurrent_activation=f,
        initial_state=state,
        mask=mask,
        **{flag: options.get(flag, False) for flag in flags},
    )
    steps = outputs if options.get("time_major") else outputs.swapaxes(0, 1)
    return outputs if options.get("return_sequences") else steps[-1], state


def exact_both(options, kind, weights, x, mask, states):
    """Outputs and last states of a Bidirectional."""
    outputs, last = [], []
    for i, (own, arrays) in enumerate(zip(options["directions"], weights, strict=True)):
        way = {"go_backwards": bool(i), "zero_output_for_mask": own.get("return_sequences", False)}
        output, state = exact(own | way, kind, arrays, x, mask, states[i])
        outputs.append(output[:, ::-1] if i and own.get("return_sequences") else output)
        last.append(state)
    merge = {
        "concat": lambda y, z: [np.concatenate([y, z], -1)],
        "sum": lambda y, z: [y + z],
        "ave": lambda y, z: [(y + z) / 2],
        "mul": lambda y, z: [y * z],
        None: lambda y, z: [y, z],
    }
    return merge[options["merge_mode"]](*outputs), last


def assert_as_exact(ours, theirs, expected, what):
    """Same structure; the largest error at most twice theirs, and four units of the last place."""
    assert isinstance(ours, list) == isinstance(theirs, list | tuple), what
    for one, other, right in zip(as_list(ours), as_list(theirs), expected, strict=True):
        other = np.asarray(other)
        assert one.shape == other.shape == right.shape, what
        size = np.abs(right).max(initial=1)
        allowed = 2 * np.abs(other - right).max() + 4 * np.finfo(one.dtype).eps * size
        assert np.abs(one - right).max() <= allowed, what


class Head:
    """One recurrent layer of a model, live, and what it was made with."""

    def __init__(self, kind, layer, options, name=None):
        self.kind, self.layer, self.options = kind, layer, options
        self.name = name or layer.name

    @property
    def directions(self):
        two = "directions" in self.options
        return [self.layer.forward_layer, self.layer.backward_layer] if two else [self.layer]

    def randomize(self, rng):
        """Weights that keep states about 1; small ones where gates may be any number."""
        size = 1 if isinstance(self.options.get("recurrent_activation", ""), str) else 0.2
        for direction in self.directions:
            arrays = [np.asarray(array) for array in direction.get_weights()]
            scales = [size / len(array) ** 0.5 if array.ndim == 2 else 0.3 * size for array in arrays]
            direction.set_weights(
                [rng.normal(0, scale, array.shape) for array, scale in zip(arrays, scales, strict=True)]
            )

    def record(self, rng):
        """What the layer gives, and what it should: with a mask or without; both if it is stateful."""
        weights = [direction.get_weights() for direction in self.directions]
        options = self.options if len(weights) == 1 else self.options["directions"][0]
        stateful, states = options.get("stateful", False), [None] * len(weights)
        self.calls = []
        for with_mask in [False, True] if stateful else [rng.random() < 0.6]:
            # float16 holds these, and the mask's first row is masked whole
            x = rng.normal(size=(BATCH, TIMESTEPS, FEATURES)).astype(np.float16).astype(np.float32)
            mask = (
                (rng.random((BATCH, TIMESTEPS)) < 0.6) & (np.arange(BATCH) > 0)[:, None]
                if with_mask
                else None
            )
            given = {"mask": mask} if with_mask else {}
            if len(weights) == 1:
                output, last = exact(options, self.kind, weights[0], x, mask, states[0])
                outputs, last = [output], [last]
            else:
                outputs, last = exact_both(self.options, self.kind, weights, x, mask, states)
            expected = outputs + last * options.get("return_state", False)
            self.calls.append((x, given, self.layer(x, **given), expected))
            states = last if stateful else states
        return self

    def check(self, ours):
        """Is a layer of fastgru of the same type, and does it compute as exactly?"""
        assert ours.dtype == self.layer.dtype
        for x, given, theirs, expected in self.calls:
            assert_as_exact(ours(x, **given), theirs, expected, f"{self.kind}: {self.name} {self.options}")


# ---- what the libraries write --------------------------------------------------------------------

ACTIVATIONS = [
    *["tanh", "tanh", "sigmoid", "hard_sigmoid", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu"],
    *["swish", "mish", "softplus", "softsign", "linear", "softmax"],
    ("ReLU", {"max_value": 0.8, "negative_slope": 0.1, "threshold": 0.1}),
    *[("LeakyReLU", {"alpha": 0.05}), ("ELU", {"alpha": 0.5}), ("PReLU", {}), ("PReLU", {"shared_axes": 1})],
]
VALUES = {
    "activation": ACTIVATIONS,
    "recurrent_activation": ["sigmoid", "hard_sigmoid", ("PReLU", {}), ("LeakyReLU", {"alpha": 0.1})],
    **{flag: [False, True] for flag in ("reset_after", "use_bias", "go_backwards", "return_sequences")},
    **{flag: [False, True] for flag in ("return_state", "stateful", "zero_output_for_mask", "time_major")},
    "dtype": ["float32", "float32", "float64", "float32", "float16", "float32", "mixed_float16"],
    "dropout": [0.0, 0.2],
    "recurrent_dropout": [0.0, 0.0, 0.3],
    "units": [1, 3, 5, 8, 17],
    "unroll": [False, False, False, True],
    "kernel_regularizer": [None, "l2", {"class_name": "L1", "config": {"l1": 0.5}}],
    "activity_regularizer": [None, None, "l2"],
    "bias_constraint": [None, "max_norm"],
    "kernel_initializer": ["glorot_uniform", "custom"],
    "recurrent_initializer": ["glorot_normal", "uniform"],
    "kernel_constraint": [None, None, "custom"],
}


def drawn(kind, count, rng):
    """Arguments of so many GRUs in which every value of every option is there."""
    columns = {}
    for option, values in VALUES.items():
        repeated = (values * count)[: max(count, len(values))]
        columns[option] = [repeated[i] for i in rng.permutation(len(repeated))[:count]]
    for i in range(count):
        options = {option: column[i] for option, column in columns.items()}
        options["name"] = f"drawn_{i}"
        if kind == "keras 3":
            del options["time_major"]
        if options["dtype"] in ("float16", "float64", "mixed_float16"):  # layers as activations are float32
            for option in ("activation", "recurrent_activation"):
                if not isinstance(options[option], str):
                    options[option] = "sigmoid"
        if options["unroll"]:  # Keras' mask is then another one, or there is none
            options["zero_output_for_mask"] = False
        yield options


def made(library, cls, kind, options):
    """A GRU of the library."""

    class Own(library.initializers.Zeros):
        pass

    class OwnToo(library.constraints.NonNeg):
        pass

    options = dict(options)
    for option in ("activation", "recurrent_activation"):
        if not isinstance(options.get(option, ""), str):
            name, arguments = options[option]
            arguments = dict(arguments)
            if "shared_axes" in arguments:
                arguments["shared_axes"] = [1]
            if kind == "keras 3" and name == "LeakyReLU":
                arguments["negative_slope"] = arguments.pop("alpha")
            options[option] = getattr(library.layers, name)(**arguments)
    custom = {"kernel_initializer": Own, "kernel_constraint": OwnToo}
    for option, own in custom.items():
        if options.get(option) == "custom":
            options[option] = own()
    if kind != "keras 3" and options.get("dtype") == "mixed_float16":
        options["dtype"] = library.mixed_precision.Policy("mixed_float16")
    return cls(**options)


COMMON = {"units": 3, "recurrent_activation": "hard_sigmoid", "reset_after": False}


class Written:
    """A model with every kind of recurrent layer in it, and its heads by the names that files have."""

    def __init__(self, kind, library, cls, seed):
        self.kind, self.seed = kind, seed
        rng, layers = np.random.default_rng(seed), library.layers
        self.heads, outputs = {}, []
        x = layers.Input(batch_shape=(BATCH, TIMESTEPS, FEATURES))

        def head(layer, options, name=None, reads=x):
            one = Head(kind, layer, options, name)
            self.heads[one.name] = one
            results = layer(reads)
            outputs.extend(as_list(results))
            return as_list(results)[0]

        def gru(**options):
            return made(library, cls, kind, options), options

        def both(merge_mode, options, other=None, **own):
            layer = made(library, cls, kind, options)
            backward = None if other is None else made(library, cls, kind, other | {"go_backwards": True})
            wrapper = layers.Bidirectional(layer, merge_mode=merge_mode, backward_layer=backward, **own)
            return wrapper, {"merge_mode": merge_mode, "directions": [options, other or options]}

        for options in drawn(kind, 6 if kind == "tf_keras 2" else 9, rng):
            head(*gru(**options))
        modes = ["concat", "sum", "ave", "mul", None] if kind != "tf_keras 2" else ["concat"]
        for i, mode in enumerate(modes):
            flags = {"return_sequences": bool(i % 2), "return_state": i in (1, 4), "stateful": i in (0, 3)}
            if kind == "keras 3":  # which makes no model of one that returns states
                flags["return_state"] = False
            head(*both(mode, COMMON | flags | {"name": f"of_{i}"}, name=f"both_{mode}"))
        other = {**COMMON, "units": 2, "use_bias": False, "activation": ("PReLU", {}), "name": "other"}
        head(*both("concat", COMMON | {"name": "one"}, other, name="of_two"))
        head(*both("concat", COMMON | {"name": "wide_one", "dtype": "float64"}, name="wide"))
        frozen, options = both("concat", COMMON | {"name": "frozen_one"}, name="frozen")
        head(frozen, options)
        frozen.forward_layer.trainable = False

        if kind == "tf_keras 2":  # the rest is as in the others
            self.finish(library.Model(x, outputs, name="whole"), rng)
            return

        cell = layers.GRUCell(4, recurrent_activation="hard_sigmoid", reset_after=True)
        of_cell = layers.RNN(cell, return_sequences=True, go_backwards=True, name="of_cell")
        same = {"return_sequences": True, "go_backwards": True, "reset_after": True}
        head(of_cell, {"recurrent_activation": "hard_sigmoid", **same})

        many = layers.Reshape((1, TIMESTEPS, FEATURES))(x)
        inner, options = gru(**COMMON, return_sequences=True)
        self.heads["distributed"] = Head(kind, inner, options)
        outputs.append(layers.TimeDistributed(inner, name="distributed")(many))

        # inner/innermost/deep, inner/bi, inner/shallow, with others between them; one is not trainable
        deep, deep_options = gru(**COMMON, return_sequences=True, name="deep", trainable=False)
        innermost = library.Sequential(
            [layers.Input((TIMESTEPS, FEATURES)), deep, layers.Dense(FEATURES)], name="innermost"
        )
        shallow, shallow_options = gru(**COMMON, name="shallow")
        two, two_options = both("sum", COMMON | {"name": "deep_one"}, name="bi")
        inside = layers.Input((TIMESTEPS, FEATURES))
        between = layers.BatchNormalization()(innermost(inside))
        ends = [shallow(layers.LSTM(FEATURES, return_sequences=True)(between)), two(inside)]
        model = library.Model(inside, ends, name="inner")
        outputs.extend(model(x))
        for name, layer, options in (
            ("inner/innermost/deep", deep, deep_options),
            ("inner/shallow", shallow, shallow_options),
            ("inner/bi", two, two_options),
        ):
            self.heads[name] = Head(kind, layer, options, name)

        if (
            kind != "keras 3"
        ):  # which has no slashes in names, and calls weights after their layer wherever it is built
            head(*gru(**COMMON, name="block/gru"))
            head(*both("ave", COMMON | {"name": "block/one"}, name="block/both"))
            early, options = gru(**COMMON, name="early")
            early.build((None, TIMESTEPS, FEATURES))
            self.heads["built/early"] = Head(kind, early, options)
            inside = layers.Input((TIMESTEPS, FEATURES))
            later, later_options = gru(**COMMON, name="later")
            built = library.Model(inside, [early(inside), later(inside)], name="built")
            self.heads["built/later"] = Head(kind, later, later_options)
            outputs.extend(built(x))

        self.finish(library.Model(x, outputs, name="whole"), rng)

    def finish(self, model, rng):
        self.model = model
        for one in self.heads.values():
            if self.kind == "keras 3":  # which makes alphas only now
                one.layer(np.zeros((BATCH, TIMESTEPS, FEATURES), np.float32))
            one.randomize(rng)
            if getattr(one.layer, "stateful", False):
                one.layer.reset_states()
            one.record(rng)


@pytest.fixture(scope="module", params=KINDS)
def written(request, libraries):
    seed = np.random.SeedSequence().entropy % 2**32
    print("seed", seed)
    return Written(request.param, *libraries[request.param], seed)


@pytest.mark.parametrize("extension", ["h5", "keras"])
def test_a_whole_model_is_read_with_its_options_and_computes_as_exactly(written, extension, tmp_path):
    print("seed", written.seed)
    layers = fastgru.load_all(saved(written.model, tmp_path / f"model.{extension}"))
    assert layers.keys() == written.heads.keys()
    for name, head in written.heads.items():
        head.check(layers[name])
        if len(head.directions) == 2:
            assert layers[name].forward_layer.name == head.layer.forward_layer.name


@contextlib.contextmanager
def opened(path):
    """For every layer in the file a function from arguments to it."""
    with formats._layers(path) as makers:
        yield {name: lambda make=make, **arguments: make(arguments) for name, make in makers.items()}


def arguments_of(head):
    """What a file of weights alone has to be told; a Bidirectional's directions have the same."""
    config = fastgru.from_keras(head.layer).get_config()
    of_both = {"merge_mode": config["merge_mode"]} if "layer" in config else {}
    config = config["layer"]["config"] if of_both else config
    return {key: value for key, value in config.items() if key != "name"} | of_both


def by_class(model):
    """The names of a model's layers as .weights.h5 has them: gru, gru_1, ... for GRUs in their order."""
    classes, names = collections.Counter(), {}
    for layer in model.layers:
        name = re.sub("(?<=[a-z])(?=[A-Z])", "_", type(layer).__name__).lower()
        names[layer.name] = f"{name}_{classes[name]}" if classes[name] else name
        classes[name] += 1
    return names


@pytest.mark.parametrize("extension", ["h5", "weights.h5"])
def test_weights_alone_are_read_with_the_arguments_given(written, extension, tmp_path):
    print("seed", written.seed)
    if written.kind == "keras 3":
        extension = "weights.h5"  # it writes no others
    path = saved(written.model, tmp_path / f"model_weights.{extension}")
    heads = {name: head for name, head in written.heads.items() if name not in ("of_two", "frozen", "wide")}
    if extension == "h5":  # in a group of the outermost model's layer
        others = {"inner/innermost/deep": "inner/deep", "built/early": "built/gru"}
        places = {name: others.get(name, name) for name in heads}
    elif written.kind == "keras 3":
        places = {name: head.layer.name for name, head in heads.items()}
    else:
        names = by_class(written.model)
        inner = {"inner/innermost/deep": f"{names['inner']}/sequential/gru"} if "inner" in names else {}
        if inner:
            inner |= {"inner/shallow": "functional/gru", "inner/bi": "functional/bidirectional"}
            inner |= {"built/early": "functional_1/gru", "built/later": "functional_1/gru_1"}
            inner |= {"distributed": "time_distributed/layer"}
        places = {name: inner.get(name) or names[name] for name in heads}
    with opened(path) as layers:
        for name, head in heads.items():
            head.check(layers[places[name]](**arguments_of(head)))


def test_a_live_layer_becomes_one_that_computes_as_exactly(written):
    print("seed", written.seed)
    for head in written.heads.values():
        ours = fastgru.from_keras(head.layer)
        assert type(ours).__name__ == ("GRU" if len(head.directions) == 1 else "Bidirectional")
        assert ours.name == head.layer.name
        assert ours.trainable == head.layer.trainable
        if len(head.directions) == 2:
            assert ours.forward_layer.name == head.layer.forward_layer.name
        head.check(ours)
        if head.name != "frozen" or written.kind != "keras 3":  # which has other weights first
            for one, other in zip(ours.get_weights(), head.layer.get_weights(), strict=True):
                np.testing.assert_array_equal(one, other)


def expressible(head, kind):
    """Has a kind of Keras such a layer?"""
    if head.name == "frozen" and kind == "keras 3":
        return False
    if kind == head.kind:
        return True
    names = [str(head.options.get(key)) for key in ("activation", "recurrent_activation")]
    if "directions" in head.options:
        names = [str(head.options["directions"][0].get("recurrent_activation"))]
    if "keras 3" in (kind, head.kind) and "hard_sigmoid" in names:
        return False
    return kind != "keras 3" or not head.options.get("time_major")


def test_a_layer_goes_back_to_keras_and_computes_the_same_or_says_why_not(written, libraries):
    print("seed", written.seed)
    refused = 0
    for head in list(written.heads.values())[::2]:
        ours = fastgru.from_keras(head.layer)
        x, given, _, _ = head.calls[0]
        expected = ours(x, **given)
        for kind, (library, cls) in libraries.items():
            version = 3 if kind == "keras 3" else 2
            if not expressible(head, kind):
                with pytest.raises(ValueError, match=rf"Keras {version} (is|has)"):
                    ours.to_keras_config(version)
                refused += 1
                continue
            if kind == "tf_keras 2" and head.kind != kind:
                continue  # the same config as version 1's
            config = ours.to_keras_config(version)
            made_of = library.layers.Bidirectional if len(head.directions) == 2 else cls
            theirs = made_of.from_config(json.loads(json.dumps(config)))
            theirs(x, **given)
            theirs.set_weights(ours.get_weights())
            if getattr(theirs, "stateful", False):
                theirs.reset_states()
            for one, other in zip(as_list(expected), as_list(theirs(x, **given)), strict=True):
                other = np.asarray(other)
                assert one.shape == other.shape
                tolerance = (5e-3 if "float16" in str(head.options.get("dtype")) else 1e-5) * np.abs(one).max(
                    initial=1
                )
                np.testing.assert_allclose(one, other, 0, tolerance, err_msg=f"{head.name} {head.options}")
    assert refused or written.kind == "tf_keras 2"


# ---- names and places ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["tf_keras 1", "keras 3"])
def dozen(request, libraries):
    """Twelve GRUs whose names the library gives, others between them, in a model in a model."""
    library, cls = libraries[request.param]
    layers, grus = library.layers, []
    x = inside = layers.Input((2, 3))
    for i in range(12):
        grus.append(cls(2, return_sequences=True, unroll=True, name="g" * 3000 + str(i) if i % 2 else None))
        x = grus[-1](x)
        if i == 4:
            x = layers.LSTM(2, return_sequences=True)(layers.Dense(2)(x))
    for i, gru in enumerate(grus):
        gru.set_weights([np.full(array.shape, i + 0.5) for array in gru.get_weights()])
    outer = layers.Input((2, 3))
    inner = library.Model(inside, x, name="inner")
    return library.Model(outer, inner(outer)), [gru.name for gru in grus]


@pytest.mark.parametrize("extension", ["h5", "keras", "weights.h5"])
def test_more_than_ten_layers_with_long_names_stay_apart(dozen, extension, tmp_path):
    model, names = dozen
    path = saved(model, tmp_path / f"model.{extension}")
    if extension == "h5":  # HDF5 has no room for so long an attribute
        with h5py.File(path) as file:
            assert "weight_names1" in file["model_weights/inner"].attrs
    given = {"reset_after": model.get_weights()[2].ndim == 2} if extension == "weights.h5" else {}
    layers = fastgru.load_all(path, **given)
    assert len(layers) == 12
    if extension != "weights.h5":
        assert list(layers) == [f"inner/{name}" for name in names]
    for i, layer in enumerate(layers.values()):
        assert {float(value) for array in layer.get_weights() for value in array.flat} == {i + 0.5}


@pytest.mark.parametrize("kind", ["tf_keras 1", "keras 3"])
def test_layers_of_a_subclassed_model_are_found_by_their_places(libraries, kind, tmp_path):
    library, cls = libraries[kind]
    layers = library.layers

    class Encoder(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.first = cls(3, return_sequences=True, unroll=True, name="own_name")
            self.both = layers.Bidirectional(cls(2, unroll=True), name="two")
            self.several = [layers.LSTM(2, return_sequences=True), cls(2, return_sequences=True, unroll=True)]

        def call(self, x):
            x = self.first(x)
            for layer in self.several:
                x = layer(x)
            return self.both(x)

    class Whole(library.Model):
        def __init__(self):
            super().__init__()
            self.encoder, self.last = Encoder(name="e"), cls(4, unroll=True, name="z")

        def call(self, x):
            return self.encoder(x), self.last(x)

    model = Whole()
    model(np.zeros((1, 2, 4), np.float32))
    live = [model.encoder.first, model.encoder.several[1], model.encoder.both, model.last]
    places = [layer.name for layer in live]
    if kind != "keras 3":  # which writes no names
        places = ["encoder/first", "encoder/several/gru", "encoder/both", "gru"]
    flags = {"reset_after": kind == "keras 3"}
    for extension in ("weights.h5", "keras"):
        layers = fastgru.load_all(saved(model, tmp_path / f"model.{extension}"), **flags)
        for place, layer in zip(places, live, strict=True):
            for one, other in zip(layers.pop(place).get_weights(), layer.get_weights(), strict=True):
                np.testing.assert_array_equal(one, other)
        assert not layers


def test_bfloat16_weights_become_float32(keras3, tmp_path):
    gru = keras3.layers.GRU(3, dtype="bfloat16", recurrent_initializer="glorot_normal", name="short")
    model = keras3.Sequential([keras3.layers.Input((2, 4)), gru])
    expected = [array.astype(np.float32) for array in gru.get_weights()]
    for extension in ("h5", "keras", "weights.h5", None):
        if extension is None:
            ours = fastgru.from_keras(gru)
        else:
            given = {"reset_after": True} if "weights" in extension else {}
            ours = fastgru.load(saved(model, tmp_path / f"model.{extension}"), **given)
        assert ours.dtype == "float32"
        for one, other in zip(ours.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_files_of_keras_2_13_name_the_layers_otherwise(keras, tmp_path):
    """As Keras 3 reads them: the folder `layers` is `_layer_checkpoint_dependencies`."""
    layers = keras.layers
    inner = keras.Sequential([layers.Input((2, 4)), layers.GRU(3, unroll=True, name="deep")], name="inner")
    model = keras.Sequential([layers.Input((2, 4)), inner])
    path = saved(model, tmp_path / "model.keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = tmp_path / "model.weights.h5"
    weights.write_bytes(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        file.move("layers/sequential/layers", "layers/sequential/_layer_checkpoint_dependencies")
        file.move("layers", "_layer_checkpoint_dependencies")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | {"model.weights.h5": weights.read_bytes()}).items():
            archive.writestr(name, data)
    for layer in (
        fastgru.load(path, "inner/deep"),
        fastgru.load(weights, "sequential/gru", recurrent_activation="sigmoid", reset_after=True),
    ):
        for one, other in zip(layer.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


# ---- files of old, in the layouts that their libraries wrote -------------------------------------


def write(path, layers, config=None, version=None):
    """An .h5 of Keras 1 or 2: of a model, or of weights alone if there is no config.

    layers : dict of dict of ndarray
        Of every layer the weights in their order, by name.
    """
    with h5py.File(path, "w") as file:
        root = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
            root = file.create_group("model_weights")
        if version is not None:
            file.attrs["keras_version"] = version.encode()
        root.attrs["layer_names"] = np.array([name.encode() for name in layers])
        for name, weights in layers.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = np.array([weight.encode() for weight in weights])
            for weight, array in weights.items():
                group[weight] = array
    return path


def weights_of(features, units, bias=None, seed=0):
    """kernel, recurrent_kernel, bias."""
    rng = np.random.default_rng(seed)
    shapes = [(features, 3 * units), (units, 3 * units), bias or (3 * units,)]
    return [rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes]


def keras_1_weights(name, features, units, seed):
    """The nine arrays of a GRU of Keras 1, by name."""
    rng = np.random.default_rng(seed)
    shapes = {"W": (features, units), "U": (units, units), "b": (units,)}
    return {
        f"{name}_{kind}_{gate}:0": rng.normal(0, 0.5, shapes[kind]).astype(np.float32)
        for gate in "zrh"
        for kind in "WUb"
    }


def keras_1(name, units, **options):
    config = {
        "name": name,
        "trainable": True,
        "batch_input_shape": [None, None, FEATURES],
        "input_dtype": "float32",
        "input_dim": FEATURES,
        "input_length": None,
        "output_dim": units,
        "init": "glorot_uniform",
        "inner_init": "orthogonal",
        "activation": "tanh",
        "inner_activation": "hard_sigmoid",
        "return_sequences": False,
        "go_backwards": False,
        "stateful": False,
        "unroll": False,
        "consume_less": "cpu",
        "W_regularizer": {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.01},
        "U_regularizer": None,
        "b_regularizer": None,
        "dropout_W": 0.1,
        "dropout_U": 0.0,
    }
    return {"class_name": "GRU", "config": config | options}


def test_keras_1_files_are_read_as_keras_2_converts_them(keras, tmp_path):
    from tf_keras.src.saving.legacy.hdf5_format import preprocess_weights_for_loading

    x = np.random.default_rng(1).normal(size=(BATCH, TIMESTEPS, FEATURES)).astype(np.float32)
    arrays = {
        "gru_1": keras_1_weights("gru_1", FEATURES, 3, 1),
        "gru_2": keras_1_weights("gru_2", FEATURES, 2, 2),
        "bidirectional_1": keras_1_weights("forward_gru_3", FEATURES, 5, 3)
        | keras_1_weights("backward_gru_3", FEATURES, 5, 4),
        "gru_4": dict(zip(["gru_4_W:0", "gru_4_U:0", "gru_4_b:0"], weights_of(FEATURES, 4), strict=True)),
        "dense_1": {"dense_1_W:0": np.ones((4, 1)), "dense_1_b:0": np.ones(1)},
    }
    wrapper = {
        "name": "bidirectional_1",
        "trainable": True,
        "merge_mode": "sum",
        "layer": keras_1("gru_3", 5),
    }
    layers = [
        keras_1("gru_1", 3, return_sequences=True, activation="relu"),
        {"class_name": "Sequential", "config": [keras_1("gru_2", 2, inner_activation="sigmoid")]},
        {"class_name": "Bidirectional", "config": wrapper},
        keras_1("gru_4", 4, consume_less="gpu", go_backwards=True),
        {"class_name": "Dense", "config": {"name": "dense_1", "output_dim": 1}},
    ]
    config = {"class_name": "Sequential", "config": layers}
    whole = fastgru.load_all(write(tmp_path / "old.h5", arrays, config, "1.2.2"))
    unversioned = fastgru.load_all(write(tmp_path / "older.h5", arrays, config))
    bare = fastgru.load_all(write(tmp_path / "weights.h5", arrays), recurrent_activation="hard_sigmoid")
    assert list(whole) == ["gru_1", "/gru_2", "bidirectional_1", "gru_4"]
    assert list(bare) == ["gru_1", "gru_2", "bidirectional_1", "gru_4"]

    made = keras.layers.GRU(3, reset_after=False)
    for one, two, three in zip(whole.values(), unversioned.values(), bare.values(), strict=True):
        name = one.name
        directions = [list(arrays[name].values())]
        if name == "bidirectional_1":
            directions = [directions[0][:9], directions[0][9:]]
        expected = [array for nine in directions for array in preprocess_weights_for_loading(made, nine, "1")]
        for layer in (one, two, three):
            for ours, theirs in zip(layer.get_weights(), expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(one(x), two(x))
    options = {"activation": "relu", "recurrent_activation": "hard_sigmoid"}
    expected, _ = reference.gru(x, *whole["gru_1"].get_weights(), **options)
    np.testing.assert_allclose(whole["gru_1"](x), expected, rtol=0, atol=1e-5)
    assert whole["gru_1"].dropout == 0.1
    assert whole["gru_1"].kernel_regularizer is None
    assert whole["/gru_2"].recurrent_activation is fastgru.activations.sigmoid
    assert whole["bidirectional_1"].merge_mode == "sum"
    assert (whole["gru_4"].go_backwards, whole["gru_4"].reset_after) == (True, False)


def keras_2(name, units, class_name="GRU", **options):
    """A GRU as Keras 2.0 to 2.2 wrote it: without reset_after."""
    config = {
        "name": name,
        "trainable": True,
        "return_sequences": False,
        "return_state": False,
        "go_backwards": False,
        "stateful": False,
        "unroll": False,
        "units": units,
        "activation": "tanh",
        "recurrent_activation": "hard_sigmoid",
        "use_bias": True,
        "kernel_initializer": {
            "class_name": "VarianceScaling",
            "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None},
        },
        "recurrent_initializer": {"class_name": "Orthogonal", "config": {"gain": 1.0, "seed": None}},
        "bias_initializer": {"class_name": "Zeros", "config": {}},
        **{f"{kind}_regularizer": None for kind in ("kernel", "recurrent", "bias", "activity")},
        **{f"{kind}_constraint": None for kind in ("kernel", "recurrent", "bias")},
        "dropout": 0.0,
        "recurrent_dropout": 0.0,
        "implementation": 0,
    }
    return {"class_name": class_name, "config": config | options}


def named(*names):
    """Names of kernel, recurrent_kernel and bias."""
    return [
        name for name in names for name in (f"{name}kernel:0", f"{name}recurrent_kernel:0", f"{name}bias:0")
    ]


@pytest.mark.parametrize(
    ("version", "scope", "gates"),
    [
        ("2.0.4", "gru_1/", "hard_sigmoid"),
        ("2.3.1", "gru_1/", "sigmoid"),
        ("2.2.4-tf", "gru_1_1/gru_cell/", "sigmoid"),
    ],
)
def test_files_of_the_first_keras_2_are_read(version, scope, gates, tmp_path):
    x = np.random.default_rng(1).normal(size=(BATCH, TIMESTEPS, FEATURES)).astype(np.float32)
    arrays = weights_of(FEATURES, 3)
    options = {"batch_input_shape": [None, None, FEATURES], "recurrent_activation": gates}
    layers = [keras_2("gru_1", 3, **options), {"class_name": "Dense", "config": {"name": "dense_1"}}]
    config = layers if version == "2.0.4" else {"name": "sequential_1", "layers": layers}
    weights = {"gru_1": dict(zip(named(scope), arrays, strict=True)), "dense_1": {}}
    path = write(tmp_path / "old.h5", weights, {"class_name": "Sequential", "config": config}, version)
    layer = fastgru.load(path)
    assert (layer.reset_after, layer.implementation) == (False, 1)
    expected, _ = reference.gru(x, *arrays, recurrent_activation=gates)
    np.testing.assert_allclose(layer(x), expected[:, -1], rtol=0, atol=1e-6)


def test_weights_of_other_names_are_those_of_keras_order(tmp_path):
    """A session that makes a model twice numbers its scopes; weights that are not trainable come last."""
    layers = [
        keras_2("gru_1", 3, trainable=False),
        {"class_name": "Dense", "config": {"name": "dense_1"}},
        keras_2("gru_2", 3),
        keras_2("gru_3", 3, trainable=False),
    ]
    inner = {"class_name": "Model", "name": "model_1", "config": {"name": "model_1", "layers": layers}}
    config = {"class_name": "Model", "config": {"name": "model_2", "layers": [inner]}}
    arrays = [weights_of(3, 3, seed=seed) for seed in range(3)]
    weights = {"dense_1_1/kernel:0": np.ones((3, 3)), "dense_1_1/bias:0": np.ones(3)}
    for scope, seed in (("gru_3/", 1), ("gru_1_1/", 0), ("gru_4/", 2)):
        weights |= dict(zip(named(scope), arrays[seed], strict=True))
    found = fastgru.load_all(write(tmp_path / "old.h5", {"model_1": weights}, config, "2.2.4"))
    assert list(found) == ["model_1/gru_1", "model_1/gru_2", "model_1/gru_3"]
    for layer, expected in zip(found.values(), arrays, strict=True):
        np.testing.assert_array_equal(layer.get_weights()[0], expected[0])


def test_cudnn_layers_are_read_as_keras_converts_them(keras, tensorflow, tmp_path):
    from tf_keras.src.saving.legacy.hdf5_format import preprocess_weights_for_loading

    cudnn = tensorflow.compat.v1.keras.layers.CuDNNGRU
    x = keras.layers.Input((TIMESTEPS, FEATURES))
    one = cudnn(3, return_sequences=True, return_state=True, name="one")
    two = keras.layers.Bidirectional(cudnn(2, name="way"), merge_mode="sum", name="two")
    model = keras.Model(x, [*one(x), two(x)])
    model.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    converted = []
    for direction in (one, two.forward_layer, two.backward_layer):
        made = keras.layers.GRU(direction.units)
        converted.append(preprocess_weights_for_loading(made, direction.get_weights(), "2"))
    expected = {"one": converted[0], "two": converted[1] + converted[2]}

    read = [
        fastgru.load_all(saved(model, tmp_path / name))
        for name in ("a.h5", "a.keras", "weights.h5", "a.weights.h5")
    ]
    read[-1] = {"one": read[-1]["cu_dnngru"], "two": read[-1]["bidirectional"]}
    read.append({"one": fastgru.from_keras(one), "two": fastgru.from_keras(two)})
    for layers in read:
        assert layers.keys() == expected.keys()
        for name, layer in layers.items():
            for ours, theirs in zip(layer.get_weights(), expected[name], strict=True):
                np.testing.assert_array_equal(ours, theirs)
        for gru in (layers["one"], layers["two"].forward_layer, layers["two"].backward_layer):
            functions = fastgru.activations.tanh, fastgru.activations.sigmoid
            assert (gru.activation, gru.recurrent_activation, gru.reset_after) == (*functions, True)
        if layers is not read[2] and layers is not read[3]:  # files without configs
            assert (layers["one"].return_sequences, layers["one"].return_state) == (True, True)
            assert layers["two"].merge_mode == "sum"


# ---- weights alone -------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path):
    """A file of weights alone: one GRU with reset_after."""
    arrays = weights_of(FEATURES, 3, (2, 9))
    return write(tmp_path / "bare.h5", {"gru": dict(zip(named("gru/gru_cell/"), arrays, strict=True))})


HELD = r"kernel \(4, 9\), recurrent_kernel \(3, 9\), bias \(2, 9\)"


def test_weights_alone_want_arguments_and_say_what_they_are(bare):
    message = rf"bare\.h5: the file has weights only, of gru {HELD}: give the arguments"
    with pytest.raises(fastgru.FormatError, match=message):
        fastgru.load(bare)
    with pytest.raises(fastgru.FormatError, match=message):
        fastgru.load(bare, name="mine")
    layer = fastgru.load(bare, name="mine", reset_after=True)
    assert (layer.name, layer.units, layer.recurrent_activation.__name__) == ("mine", 3, "hard_sigmoid")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"reset_after": False}, r"kernel \(4, 9\), recurrent_kernel \(3, 9\), bias \(9,\)"),
        ({"reset_after": True, "use_bias": False}, r"kernel \(4, 9\), recurrent_kernel \(3, 9\)"),
        ({"reset_after": True, "units": 5}, r"kernel \(4, 15\), recurrent_kernel \(5, 15\), bias \(2, 15\)"),
        ({"reset_after": True, "activation": "PReLU"}, rf"{HELD}, alpha \(3,\)"),
    ],
)
def test_arguments_that_contradict_the_weights_are_refused(bare, arguments, wanted):
    message = rf"bare\.h5: the file has {HELD} for 'gru', which is no layer of .*: that has {wanted}$"
    with pytest.raises(fastgru.FormatError, match=message):
        fastgru.load(bare, **arguments)


# ---- what is not there ---------------------------------------------------------------------------


def model_of(path, *layers, weights=None):
    """A model of Keras 2.2 of GRUs of 3 units, each with weights of its own."""
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": list(layers)}}
    if weights is None:
        weights = {
            layer["config"]["name"]: dict(
                zip(named(f"{layer['config']['name']}/"), weights_of(FEATURES, 3, seed=i), strict=True)
            )
            for i, layer in enumerate(layers)
        }
    return write(path, weights, config, "2.2.4")


def test_a_layer_is_chosen_by_its_name_and_all_names_are_said(tmp_path):
    path = model_of(tmp_path / "two.h5", keras_2("one", 3), keras_2("two", 3))
    for layer in (None, "three"):
        with pytest.raises(ValueError, match=rf"layer must be one of 'one', 'two'.*got {layer!r}"):
            fastgru.load(path, layer)
    np.testing.assert_array_equal(fastgru.load(path, "two").weights[0], weights_of(FEATURES, 3, seed=1)[0])


def test_a_file_without_a_gru_is_refused(tmp_path):
    dense = {"class_name": "Dense", "config": {"name": "dense", "units": 3}}
    lstm = keras_2("lstm", 3, "LSTM")
    arrays = [np.ones(shape, np.float32) for shape in ((4, 12), (3, 12), (12,))]
    weights = {
        "dense": {"dense/kernel:0": np.ones((3, 9))},
        "lstm": dict(zip(named("lstm/"), arrays, strict=True)),
    }
    paths = [
        model_of(tmp_path / "whole.h5", dense, lstm, weights=weights),
        model_of(tmp_path / "none.h5", weights={}),
        write(tmp_path / "bare.h5", weights),
    ]
    for path in paths:
        with pytest.raises(fastgru.FormatError, match=rf"{path.name}: the file holds no GRU"):
            fastgru.load(path, reset_after=True)


def test_missing_weights_are_named(tmp_path):
    path = model_of(tmp_path / "model.h5", keras_2("one", 3), keras_2("two", 3))
    missing = r"model\.h5: weights of two are missing"
    with h5py.File(path, "r+") as file:
        del file["model_weights/two/two/recurrent_kernel:0"]
    with pytest.raises(fastgru.FormatError, match=missing):
        fastgru.load(path, "two")
    with h5py.File(path, "r+") as file:
        del file["model_weights/two"]
    with pytest.raises(fastgru.FormatError, match=missing):
        fastgru.load_all(path)
    assert fastgru.load(path, "one").built
    with h5py.File(path, "r+") as file:
        del file["model_weights"]
    with pytest.raises(fastgru.FormatError, match=r"weights of one are missing$"):
        fastgru.load(path, "one")


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    path = model_of(tmp_path / "model.h5", keras_2("one", 3))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "h5py" else found(name))
    with pytest.raises(
        ImportError, match=r"h5py is needed for this file: pip install 'fastgru\[keras\]'"
    ) as caught:
        fastgru.load(path)
    assert caught.value.name == "h5py"


# ---- files that mean harm ------------------------------------------------------------------------


def external_link(file, place, other):
    file[place] = h5py.ExternalLink(other, "/data")


def soft_link(file, place, other):
    file["elsewhere"] = np.zeros((FEATURES, 9), np.float32)
    file[place] = h5py.SoftLink("/elsewhere")


def external_storage(file, place, other):
    file.create_dataset(place, (FEATURES, 9), np.float32, external=[(other, 0, FEATURES * 9 * 4)])


def virtual_dataset(file, place, other):
    layout = h5py.VirtualLayout((FEATURES, 9), np.float32, maxshape=(None, 9))
    source = h5py.VirtualSource(other, "data", (FEATURES, 9), np.float32, maxshape=(None, 9))
    layout[: h5py.h5s.UNLIMITED, :] = source[: h5py.h5s.UNLIMITED, :]
    file.create_virtual_dataset(place, layout)


@pytest.mark.parametrize("lay", [external_link, soft_link, external_storage, virtual_dataset])
def test_nothing_is_read_from_elsewhere(lay, tmp_path, monkeypatch):
    path = model_of(tmp_path / "model.h5", keras_2("one", 3))
    other = tmp_path / "other"
    os.mkfifo(other)  # who opens it waits for ever, and is killed
    monkeypatch.setattr(_hdf5, "PATIENCE", 1)
    monkeypatch.setenv("HDF5_EXTFILE_PREFIX", str(tmp_path))
    place = "model_weights/one/one/kernel:0"
    with h5py.File(path, "r+") as file:
        del file[place]
        lay(file, place, str(other))
    with pytest.raises(fastgru.FormatError, match=r"model\.h5: .*kernel:0 (lies in other files|is a link)"):
        fastgru.load(path)


def test_sizes_that_the_file_cannot_hold_are_refused(tmp_path):
    path = model_of(tmp_path / "model.h5", keras_2("one", 10**6), weights={"one": {}})
    with h5py.File(path, "r+") as file:  # terabytes, none of them written
        group = file["model_weights/one"]
        group.attrs["weight_names"] = [name.encode() for name in named("one/")]
        for name, shape in zip(
            named("one/"), ((4, 3 * 10**6), (10**6, 3 * 10**6), (3 * 10**6,)), strict=True
        ):
            group.create_dataset(name, shape, np.float32, chunks=True)
    with pytest.raises(fastgru.FormatError, match="which the file cannot hold"):
        fastgru.load(path)

    units = 1000  # 12 million bytes of zeros in some ten thousand
    path = model_of(tmp_path / "bomb.h5", keras_2("one", units), weights={"one": {}})
    with h5py.File(path, "r+") as file:
        group = file["model_weights/one"]
        group.attrs["weight_names"] = [name.encode() for name in named("one/")]
        for name, shape in zip(named("one/"), ((4, 3000), (1000, 3000), (3000,)), strict=True):
            group.create_dataset(
                name, data=np.zeros(shape, np.float32), compression="gzip", compression_opts=9
            )
    assert path.stat().st_size < 10**5
    with pytest.raises(fastgru.FormatError, match="which the file cannot hold"):
        fastgru.load(path)


def test_a_dataset_that_many_layers_share_is_not_read_for_all(tmp_path):
    layers = [keras_2(f"gru_{i}", 3) for i in range(40)]
    path = model_of(tmp_path / "model.h5", *layers, weights={})
    arrays = [np.zeros(shape, np.float32) for shape in ((5000, 9), (3, 9), (9,))]
    with h5py.File(path, "r+") as file:
        for i in range(40):
            group = file["model_weights"].create_group(f"gru_{i}")
            group.attrs["weight_names"] = [name.encode() for name in named("")]
            for name, array in zip(named(""), arrays, strict=True):
                if i:
                    group[name] = file[f"model_weights/gru_0/{name}"]
                else:
                    group.create_dataset(name, data=array, compression="gzip")
    assert fastgru.load(path, "gru_7").weights[0].shape == (5000, 9)
    with pytest.raises(fastgru.FormatError, match="which the file cannot hold"):
        fastgru.load_all(path)


def test_a_chunk_that_unpacks_to_more_than_it_says_ends_in_an_error(tmp_path):
    path = model_of(tmp_path / "model.h5", keras_2("one", 3))
    with h5py.File(path, "r+") as file:
        del file["model_weights/one/one/kernel:0"]
        place = "model_weights/one/one/kernel:0"
        layout = {"chunks": (500, 500), "maxshape": (None, None), "compression": "gzip"}
        kernel = file.create_dataset(place, (FEATURES, 9), np.float32, **layout)
        kernel.id.write_direct_chunk((0, 0), zlib.compress(bytes(2 * 10**8), 1))
    with pytest.raises(fastgru.FormatError, match=r"model\.h5"):
        fastgru.load(path)


READY = f"print({_hdf5.READY.decode().strip()!r}, flush=True)\n"
SPIN = "while True: pass"
CRASH = "import os; os.abort()"
ANSWER = """
import sys, os
print(
    '{"attributes": {"": {"layer_names": ["gru"]}, "gru": {"weight_names": ["kernel", "recurrent_kernel"]}},'
    '"datasets": {"gru/kernel": [[4, 9], "<f4"], "gru/recurrent_kernel": [[3, 9], "<f4"]}}',
    flush=True,
)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    "program",
    [
        SPIN,
        CRASH,
        ANSWER + SPIN,
        ANSWER + CRASH,
        ANSWER + "print('{}')",
        ANSWER + "print('{}'); print('x' * 50)",
    ],
)
def test_a_library_that_hangs_or_crashes_ends_in_an_error(program, bare, tmp_path, monkeypatch):
    mean = tmp_path / "mean.py"
    mean.write_text(READY + program)
    monkeypatch.setattr(_hdf5_start, "PROGRAM", mean)
    monkeypatch.setattr(_hdf5, "SECONDS", 1)
    monkeypatch.setattr(_hdf5, "PATIENCE", 1)
    with pytest.raises(fastgru.FormatError, match="the HDF5 library crashed on it or took too long"):
        fastgru.load(bare, use_bias=False)


def test_a_process_that_answers_nonsense_is_not_waited_for(bare, tmp_path, monkeypatch):
    mean = tmp_path / "mean.py"
    mean.write_text(READY + "print('[}', flush=True)\n" + SPIN)
    monkeypatch.setattr(_hdf5_start, "PROGRAM", mean)
    with pytest.raises(fastgru.FormatError):  # at once: there are two minutes for an answer
        fastgru.load(bare, use_bias=False)


@pytest.mark.parametrize(("program", "codes"), [("bytearray(1 << 30)", {7}), (SPIN, {-24, -9})])
def test_the_process_limits_its_own_time_and_memory(program, codes):
    limited = f"""
import runpy
runpy.run_path({str(_hdf5_start.PROGRAM)!r})["confine"](1, 1 << 20)
try:
    {program}
except MemoryError:
    raise SystemExit(7)
"""
    assert subprocess.run([sys.executable, "-c", limited], check=False).returncode in codes


def children():
    """Process ids of this process' children, dead or alive."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


def test_no_process_and_no_open_file_is_left(bare, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    broken = tmp_path / "broken.h5"
    broken.write_bytes(bare.read_bytes()[:-100])
    archive = tmp_path / "none.keras"
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("config.json", json.dumps({"config": {"layers": []}}))
        members.writestr("metadata.json", json.dumps({"keras_version": "3.0"}))
        members.writestr("model.weights.h5", bare.read_bytes())
    mean = tmp_path / "mean.py"
    mean.write_text(READY + ANSWER + CRASH)

    def load(path, *arguments, program=_hdf5_start.PROGRAM):
        monkeypatch.setattr(_hdf5_start, "PROGRAM", program)
        fastgru.load(path, *arguments, use_bias=False, reset_after=True)

    def used():
        """What other tests have left may end meanwhile, but nothing may come."""
        watching = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
        files = set()
        for file in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the folder's own
                files.add(str(file.readlink()))
        return children(), files, watching

    with pytest.raises(fastgru.FormatError):
        load(bare)
    before = used()
    for i in range(50):
        path = (broken, archive, bare)[i % 3] if i < 6 else bare
        with pytest.raises(fastgru.FormatError):  # one has a bias
            load(path, program=_hdf5_start.PROGRAM if i < 6 else mean)
    with pytest.raises(ValueError, match="layer must be"):
        load(bare, "another")
    monkeypatch.undo()
    assert fastgru.load(bare, reset_after=True).built
    for now, earlier in zip(used(), before, strict=True):
        assert all(one in earlier for one in now)
    assert not list(tmp_path.glob("*/*"))


def mutations(value):
    """JSON like this, with something else in place of each of its parts in turn."""
    yield from [None, True, -1, 10**30, 1e308, "", "x", [], [[]], {}, {"class_name": "GRU"}]
    yield from [[value], {"config": value}]
    if isinstance(value, dict):
        for key in value:
            yield {other: item for other, item in value.items() if other != key}
            yield from (value | {key: changed} for changed in mutations(value[key]))
    if isinstance(value, list):
        for i in range(len(value)):
            yield from ([*value[:i], changed, *value[i + 1 :]] for changed in mutations(value[i]))


def held(path, monkeypatch):
    """The file's tree, which from now on is what every file holds."""
    with _hdf5.open_tree(path.read_bytes(), 10**6) as tree:
        tree.floats = {place: tree.floats(place) for place in tree.shapes}.__getitem__
    monkeypatch.setattr(_hdf5, "open_tree", lambda *_: contextlib.nullcontext(tree))
    return tree


@pytest.mark.parametrize("version", ["1.2.2", "3.15.1"])
def test_configs_with_anything_in_them_end_in_a_layer_or_a_format_error(version, tmp_path, monkeypatch):
    units = {"units": 3} if version > "2" else {"output_dim": 3}
    relu = {"class_name": "ReLU", "config": {}}
    gru = {"class_name": "GRU", "config": {"name": "a", **units, "activation": relu}}
    cell = {"class_name": "GRUCell", "config": {"name": "c", **units}}
    other = {"class_name": "GRU", "config": {"name": "o", **units, "go_backwards": True}}
    both = {"name": "b", "merge_mode": "concat", "layer": gru, "backward_layer": other}
    layers = [
        {"class_name": "Model", "name": "m", "config": {"name": "m", "trainable": False, "layers": [gru]}},
        {"class_name": "Bidirectional", "config": both},
        {
            "class_name": "RNN",
            "config": {"name": "r", "cell": cell, "dtype": {"config": {"name": "float32"}}},
        },
        {"class_name": "TimeDistributed", "config": {"name": "t", "layer": gru}},
    ]
    config = {"class_name": "Model", "config": {"name": "s", "layers": layers}}
    arrays = weights_of(FEATURES, 3)
    scopes = {"m": ["a/"], "b": ["b/forward_a/", "b/backward_o/"], "r": ["r/"], "t": ["t/"]}
    if version > "3":
        scopes["b"] = ["b/a/", "b/o/"]
    groups = {name: dict(zip(named(*own), arrays * len(own), strict=True)) for name, own in scopes.items()}
    path = write(tmp_path / "model.h5", groups, config, version)
    assert list(fastgru.load_all(path)) == ["m/a", "b", "r", "t"]
    tree = held(path, monkeypatch)
    root = tree.attributes[""]
    read = refused = 0
    for changed in mutations(config):
        root["model_config"] = json.dumps(changed)
        message = None
        try:
            read += len(fastgru.load_all(path)) > 0
        except fastgru.FormatError as error:
            message = str(error)
        if message is not None:
            assert message.startswith(f"{path}: ")
            refused += 1
    assert read > 100
    assert refused > 100
    for text in ("[" * 10**5, '{"config": ' * 10**5, '{"a": 1, "a": 2}', "9" * 5000, "\ud800", "NaN"):
        root["model_config"] = text
        with pytest.raises(fastgru.FormatError):
            fastgru.load_all(path)
    root["model_config"] = json.dumps(config)
    for attributes in (
        {"weight_names": "x"},
        {"weight_names0": []},
        {"weight_names": ["", "/", "a/", "../x"]},
    ):
        tree.attributes["model_weights/m"] = attributes
        with pytest.raises(fastgru.FormatError, match=r"m/a|must be a list"):
            fastgru.load_all(path)


def test_a_thousand_layers_in_a_model_are_told_apart(tmp_path, monkeypatch):
    count, arrays = 1000, weights_of(FEATURES, 3)
    layers = [keras_2(f"g{i}", 3) for i in range(count)]
    config = {"config": {"layers": [{"class_name": "Model", "config": {"name": "m", "layers": layers}}]}}
    tree = held(write(tmp_path / "model.h5", {"gru": {}}), monkeypatch)
    with (tmp_path / "model.h5").open("ab") as file:
        file.write(bytes(4 * 10**6))  # as many bytes as such a file has
    for scope in ("g", "other"):  # by names, and by order
        weights = {
            f"model_weights/m/{scope}{i}/{name}": array + np.float32(i)
            for i in range(count)
            for name, array in zip(named(""), arrays, strict=True)
        }
        names = [place.removeprefix("model_weights/m/") for place in weights]
        tree.attributes = {
            "": {"model_config": json.dumps(config)},
            "model_weights/m": {"weight_names": names},
        }
        tree.shapes = {place: array.shape for place, array in weights.items()}
        tree.floats = weights.__getitem__
        found = fastgru.load_all(tmp_path / "model.h5")
        kernels = [layer.weights[0][0, 0] - arrays[0][0, 0] for layer in found.values()]
        np.testing.assert_allclose(kernels, np.arange(count), rtol=0, atol=0.01)


# ---- live objects, and states --------------------------------------------------------------------


def test_live_layers_that_are_not_built_give_such_ones(libraries):
    x = np.zeros((2, 3, 4), np.float32)
    for library, cls in libraries.values():
        ours = fastgru.from_keras(cls(3, recurrent_activation="sigmoid", return_state=True, name="mine"))
        assert (ours.name, ours.units, ours.return_state, ours.built) == ("mine", 3, True, False)
        assert ours(x)[0].shape == (2, 3)
        both = fastgru.from_keras(library.layers.Bidirectional(cls(3), merge_mode="ave"))
        assert (both.merge_mode, both.built) == ("ave", False)
        assert both(x).shape == (2, 3)
        cell = library.layers.GRUCell(3, recurrent_activation="hard_sigmoid")
        ours = fastgru.from_keras(library.layers.RNN(cell))
        wanted = "keras3_hard_sigmoid" if library.__name__ == "keras" else "hard_sigmoid"
        assert (ours.reset_after, ours.recurrent_activation.__name__) == (True, wanted)


def test_objects_of_subclasses_are_taken_for_what_keras_made_of_them(libraries):
    for kind, (_, cls) in libraries.items():

        class GRU(cls):
            def __init__(self, *arguments, more=1, **options):
                super().__init__(*arguments, **options)
                self.more = more

            def get_config(self):
                return super().get_config() | {"more": self.more}

        theirs = GRU(3, recurrent_activation="hard_sigmoid", more=2)
        theirs.build((None, None, FEATURES))
        ours = fastgru.from_keras(theirs)
        wanted = "keras3_hard_sigmoid" if kind == "keras 3" else "hard_sigmoid"
        assert ours.recurrent_activation.__name__ == wanted
        np.testing.assert_array_equal(ours.weights[0], theirs.get_weights()[0])


def test_other_objects_are_refused(libraries):
    others = [object(), "gru", None, fastgru.GRU(3), fastgru.GRU]
    for library, cls in libraries.values():
        layers = library.layers
        others += [layers.LSTM(3), layers.Dense(3), layers.GRUCell(3), layers.Bidirectional(layers.LSTM(3))]
        others += [layers.RNN([layers.GRUCell(3), layers.LSTMCell(3)]), cls]
    for other in others:
        with pytest.raises(TypeError, match="layer must be a GRU or a Bidirectional GRU of Keras, got"):
            fastgru.from_keras(other)


def sequential(library, cls, *between, masked=True):
    """A Sequential of two GRUs and a Bidirectional, with other layers between them."""
    layers = library.layers
    model = library.Sequential(
        [
            layers.Input((TIMESTEPS, FEATURES)),
            *([layers.Masking()] if masked else []),
            cls(3, return_sequences=True, recurrent_activation="sigmoid", reset_after=True, name="low"),
            layers.Dropout(0.5),
            *between,
            layers.Bidirectional(
                cls(4, return_sequences=True, recurrent_activation="sigmoid", reset_after=True)
            ),
            cls(2, return_sequences=True, recurrent_activation="sigmoid", reset_after=True, name="high"),
        ],
        name="run",
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_grus_in_a_row_of_a_sequential_are_a_stack(kind, libraries, tmp_path):
    library, cls = libraries[kind]
    model = sequential(library, cls)
    x = np.random.default_rng(1).normal(size=(BATCH, TIMESTEPS, FEATURES)).astype(np.float32)
    x[0, 1:] = 0
    wanted, mask = np.asarray(model(x)), (x != 0).any(-1)
    live = fastgru.from_keras(model)
    paths = [saved(model, tmp_path / f"model.{extension}") for extension in ("h5", "keras")]
    for stack in (live, *map(fastgru.load, paths)):
        assert (type(stack), stack.name) == (fastgru.Stack, "run")
        assert [type(layer).__name__ for layer in stack.layers] == ["GRU", "Bidirectional", "GRU"]
        np.testing.assert_allclose(stack(x, mask=mask)[mask], wanted[mask], rtol=0, atol=1e-5)
    for path in paths:
        layers = fastgru.load_all(path)
        assert list(layers) == [layer.name for layer in live.layers]
        assert type(fastgru.load(path, "low")) is fastgru.GRU
        loaded = fastgru.load(path, stateful=True, return_sequences=False)
        assert [layer.return_sequences for layer in loaded.layers] == [True, True, False]
        assert loaded.stateful


@pytest.mark.parametrize("kind", KINDS)
def test_grus_with_others_between_them_are_none(kind, libraries, tmp_path):
    library, cls = libraries[kind]
    model = sequential(library, cls, library.layers.Dense(5))
    with pytest.raises(ValueError, match="must have its GRUs in a row, got the Sequential 'run' with other"):
        fastgru.from_keras(model)
    for extension in ("h5", "keras"):
        path = saved(model, tmp_path / f"model.{extension}")
        with pytest.raises(ValueError, match=r"layer must be one of 'low', 'bidirectional.*', 'high'"):
            fastgru.load(path)
    inner = sequential(library, cls, masked=False)
    outer = library.Sequential([library.layers.Input((TIMESTEPS, FEATURES)), inner, library.layers.Dense(2)])
    assert fastgru.load(saved(outer, tmp_path / "nested.keras")).name == "run"
    more = library.Sequential([library.layers.Input((TIMESTEPS, FEATURES)), inner, cls(2, name="more")])
    with pytest.raises(ValueError, match="layer must be one of 'run/low'"):
        fastgru.load(saved(more, tmp_path / "more.keras"))
    one = library.Sequential([library.layers.Input((TIMESTEPS, FEATURES)), cls(2, name="one")])
    assert fastgru.from_keras(one).name == fastgru.load(saved(one, tmp_path / "one.keras")).name == "one"
    with pytest.raises(TypeError, match="got a Sequential without one"):
        fastgru.from_keras(library.Sequential([library.layers.Dense(2)]))


def test_an_activation_of_ones_own_is_refused_unless_it_is_given(libraries, tmp_path):
    def own(x):
        return x * 2

    x = np.random.default_rng(0).normal(size=(2, 2, FEATURES)).astype(np.float32)
    for kind, (library, cls) in libraries.items():
        gru = cls(3, activation=own, recurrent_activation="sigmoid", unroll=True)
        model = library.Sequential([library.layers.Input((2, FEATURES)), gru])
        path = saved(model, tmp_path / f"{kind[-1]}.keras")
        with pytest.raises(fastgru.FormatError, match=r"\.keras: .*activation.*own"):
            fastgru.load(path)
        theirs = np.asarray(gru(x))
        np.testing.assert_allclose(fastgru.load(path, activation=own)(x), theirs, rtol=0, atol=1e-5)


def test_a_stateful_layer_takes_its_batch_from_the_first_call(tmp_path):
    stateful = {"stateful": True, "batch_input_shape": [2, None, FEATURES]}
    both = {"name": "both", "merge_mode": "concat", "layer": keras_2("way", 3, **stateful)}
    layers = [keras_2("one", 3, **stateful), {"class_name": "Bidirectional", "config": both}]
    arrays = weights_of(FEATURES, 3)
    weights = {
        "one": dict(zip(named("one/"), arrays, strict=True)),
        "both": dict(zip(named("both/forward_way/", "both/backward_way/"), arrays * 2, strict=True)),
    }
    x = np.random.default_rng(0).normal(size=(5, 4, FEATURES)).astype(np.float32)
    for name, layer in fastgru.load_all(model_of(tmp_path / "m.h5", *layers, weights=weights)).items():
        config = layer.get_config()
        assert (config if name == "one" else config["layer"]["config"])["stateful"] is True
        assert layer.states == [None] * (1 + (name == "both"))
        first, second = layer(x), layer(x)
        assert all(state.shape == (5, 3) for state in layer.states)
        assert np.abs(first - second).max() > 0.01
        with pytest.raises(ValueError, match="incompatible"):
            layer(x[:3])
        layer.reset_states()
        np.testing.assert_array_equal(layer(x), first)


@pytest.mark.parametrize("two", [False, True])
def test_the_callers_arguments_come_before_those_of_the_file(two, tmp_path):
    both = {"name": "both", "merge_mode": "concat", "layer": keras_2("way", 3)}
    if two:
        both["backward_layer"] = keras_2("way", 3, go_backwards=True)
    arrays = weights_of(FEATURES, 3) + weights_of(FEATURES, 3, seed=1)
    names = named("both/forward_way/", "both/backward_way/")
    layers = [{"class_name": "Bidirectional", "config": both}]
    path = model_of(tmp_path / "m.h5", *layers, weights={"both": dict(zip(names, arrays, strict=True))})
    given = {"return_sequences": True, "merge_mode": "sum", "go_backwards": True, "dtype": "float64"}
    layer = fastgru.load(path, name="mine", **given)
    assert (layer.name, layer.merge_mode, layer.dtype) == ("mine", "sum", "float64")
    assert (layer.forward_layer.go_backwards, layer.backward_layer.go_backwards) == (True, False)
    assert layer(np.zeros((2, 5, FEATURES))).shape == (2, 5, 3)
    for one, other in zip(layer.get_weights(), arrays, strict=True):
        np.testing.assert_array_equal(one, other)


# ---- back to Keras -------------------------------------------------------------------------------


def test_layers_that_keras_has_not_are_not_handed_over():
    hard, hard_3 = {"recurrent_activation": "hard_sigmoid"}, {"recurrent_activation": "keras3_hard_sigmoid"}
    sigmoid = {"recurrent_activation": "sigmoid"}
    onnx = {"activation": fastgru.activations.Affine(2.0), **sigmoid}
    started = {"default_state": [0.0, 1.0], **sigmoid}
    cases = [
        (2, hard_3, "activation"),
        (3, hard, "activation"),
        (2, onnx, "activation"),
        (3, onnx, "activation"),
    ]
    cases += [(3, {"activation": "ThresholdedReLU", **sigmoid}, "activation")]
    cases += [(2, started, "default_state"), (3, started, "default_state")]
    cases += [(3, {"time_major": True, **sigmoid}, "time_major")]
    for version, options, reason in cases:
        for layer in (fastgru.GRU(2, **options), fastgru.Bidirectional(fastgru.GRU(2, **options))):
            with pytest.raises(ValueError, match=rf"Keras {version} has .*{reason}"):
                layer.to_keras_config(version)
    with pytest.raises(ValueError, match="version must be 2 or 3"):
        fastgru.GRU(2).to_keras_config(4)


def test_every_name_goes_to_keras_and_comes_back(libraries):
    """Whatever fastgru knows by name; both libraries' hard sigmoids apart."""
    names = set(fastgru.activations._registry._functions) - {"hard_sigmoid", "keras3_hard_sigmoid"}
    only_3 = {activation.__name__ for activation in fastgru.activations.KERAS_3} | {"hard_swish"}
    layers = ["ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"]
    initializers = ["zeros", "orthogonal", "he_uniform", "lecun_normal", "identity", "truncated_normal"]
    for kind, (_, cls) in libraries.items():
        for i, name in enumerate([*sorted(names), *layers]):
            ours = fastgru.GRU(
                3,
                activation=name,
                recurrent_activation="sigmoid",
                kernel_initializer=initializers[i % len(initializers)],
                kernel_regularizer=[None, "l1", "l2", "l1_l2"][i % 4],
                bias_constraint=[None, "max_norm", "non_neg", "unit_norm", "min_max_norm"][i % 5],
            )
            if kind != "keras 3" and name in only_3:
                with pytest.raises(ValueError, match=r"Keras 2 has no activation"):
                    ours.to_keras_config(2)
                continue
            config = json.loads(json.dumps(ours.to_keras_config(3 if kind == "keras 3" else 2)))
            back = fastgru.from_keras(cls.from_config(config))
            assert type(back.activation) is type(ours.activation)
            assert getattr(back.activation, "__name__", "") == getattr(ours.activation, "__name__", "")
            for option in ("kernel_initializer", "kernel_regularizer", "bias_constraint"):
                one, other = getattr(back, option), getattr(ours, option)
                assert type(one) is type(other), (kind, option, one, other)
