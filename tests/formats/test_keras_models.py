"""Whole models of Keras: every class of layers, graphs, masks, and the files that they are saved in."""

import contextlib
import warnings

import keras_graphs
import keras_networks
import numpy as np
import pytest
from streamed import assert_streams_as_called

from fastgru.formats.models import from_keras_model, load_model

pytestmark = [
    pytest.mark.outside,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept"),  # of Keras 3's variables
]
TOLERANCE = {"float32": 3e-5, "float64": 1e-10}
GRAPHS, PER_TEST = 320, 8


@pytest.fixture(scope="module", params=["tf_keras", "keras"])
def flavour(request, tensorflow, keras):
    """tf_keras, and Keras 3 on TensorFlow: the backend on which its float64 is float64 throughout."""
    return keras if request.param == "tf_keras" else pytest.importorskip("keras")


@contextlib.contextmanager
def floatx(keras, dtype):
    """All layers that are made in it are of this type."""
    is_keras_2 = keras.__name__ == "tf_keras"

    def choose(name):
        keras.backend.set_floatx(name)
        if not is_keras_2:  # which keeps what the first layer has asked for
            keras.config.set_dtype_policy(name)

    choose(dtype)
    try:
        yield
    finally:
        choose("float32")


WAYS = ["live", "h5", "keras", "weights", "places"]


def read(model, way, folder):
    """fastgru's model of one of Keras, on one of the ways there are."""
    if way == "live":
        return from_keras_model(model)
    if way in ("h5", "keras"):
        path = str(folder / f"model.{way}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(path)
        return load_model(path)
    is_keras_2 = "tf_keras" in type(model).__module__
    name = "only.h5" if way == "weights" and is_keras_2 else "only.weights.h5"
    model.save_weights(str(folder / name))
    return load_model(str(folder / name), config=model.to_json().encode())


def as_list(results):
    results = results if isinstance(results, list | tuple) else [results]
    return [np.asarray(result) for result in results]


def one_or_all(arrays):
    return arrays if len(arrays) > 1 else arrays[0]


def assert_same(ours, theirs, dtype):
    ours, theirs = as_list(ours), as_list(theirs)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        largest = np.nanmax(np.abs(other), initial=1.0)
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE[dtype] * largest)


# ---- architectures ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", keras_networks.NETWORKS)
def test_networks_as_people_build_them_are_exact(flavour, name, way, tmp_path):
    rng = np.random.default_rng(len(name))
    model = keras_networks.NETWORKS[name](flavour, rng)
    arrays = keras_networks.inputs_of(model, rng)
    found = read(model, way, tmp_path)
    assert found.name == model.name
    assert_same(found(one_or_all(arrays)), model(one_or_all(arrays), training=False), "float32")


def test_one_hot_sessions_are_exact(flavour):
    rng = np.random.default_rng(5)
    model = keras_networks.recommender(flavour, rng, items=40, one_hot=True)
    x = np.eye(40, dtype=np.float32)[rng.integers(0, 40, (3, 6))]
    assert_same(from_keras_model(model)(x), model(x, training=False), "float32")


@pytest.mark.parametrize("way", WAYS)
def test_a_model_of_two_inputs_and_two_outputs_streams(flavour, way, tmp_path):
    rng, layers = np.random.default_rng(6), flavour.layers
    frames, speaker = flavour.Input((None, 6), name="frames"), flavour.Input((3,), name="speaker")
    words = flavour.Input((None,), dtype="int32", name="words")
    said = layers.GRU(5, return_sequences=True)(layers.Embedding(9, 5, mask_zero=True)(words))
    added = layers.Add()([layers.Dense(5)(frames), layers.Dense(5)(speaker), said])
    hidden = layers.GRU(4, return_sequences=True)(added)
    last = layers.GRU(4)(layers.Conv1D(4, 3, padding="causal")(hidden))
    outputs = [layers.Dense(6, "sigmoid")(hidden), layers.Concatenate()([last, speaker])]
    model = keras_networks.randomized(flavour.Model([frames, speaker, words], outputs), rng)
    found = read(model, way, tmp_path)
    arrays = [rng.normal(size=(2, 8, 6)), rng.normal(size=(2, 3)), rng.integers(0, 9, (2, 8))]
    arrays = [one.astype(np.float32 if one.dtype.kind == "f" else np.int32) for one in arrays]
    assert_same(found(arrays), model(arrays, training=False), "float32")
    assert assert_streams_as_called(found, arrays) is None


# ---- graphs at random ------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(0, GRAPHS // 2, PER_TEST))
def test_graphs_drawn_at_random_are_exact(flavour, tensorflow, first, tmp_path):
    for seed in range(first, first + PER_TEST):
        rng = np.random.default_rng([7, seed])
        dtype = "float64" if seed % 3 == 0 else "float32"
        way = WAYS[seed % len(WAYS)]
        print(f"seed {seed}, {flavour.__name__}, {dtype}, {way}")
        with floatx(flavour, dtype):
            model = keras_graphs.Graph(flavour, rng).model()
            arrays = keras_graphs.inputs_of(model, rng, dtype)
            found = read(model, way, tmp_path)
            given = one_or_all(arrays)
            assert_same(found(given), model(given, training=False), dtype)
            assert_streams_as_called(found, arrays)
            if len(arrays) == 1 and arrays[0].ndim == 3:
                mask = rng.random(arrays[0].shape[:2]) < 0.7
                assert_same(
                    found(given, mask=mask),
                    model(given, training=False, mask=tensorflow.constant(mask)),
                    dtype,
                )


# ---- nodes that become one -------------------------------------------------------------------


def test_what_follows_a_product_becomes_part_of_it(flavour):
    layers, rng = flavour.layers, np.random.default_rng(3)
    product = layers.Dense(4)
    x = flavour.Input((None, 5))
    folded = layers.ReLU()(layers.BatchNormalization()(product(x)))
    again = layers.BatchNormalization()(product(x))  # with weights of its own
    read_twice = layers.Conv1D(4, 1)(x)
    kept = layers.BatchNormalization()(read_twice)
    model = flavour.Model(x, layers.Concatenate()([folded, again, read_twice, kept]))
    model = keras_networks.randomized(model, rng)
    found = from_keras_model(model)
    kinds = [node.label for node in found.nodes]
    assert sorted(kinds) == ["Concatenate", "Convolution", "Dense", "Dense", "Scale"]
    assert {array.dtype.name for node in found.nodes for array in node.weights.values()} == {"float32"}
    array = rng.normal(size=(2, 7, 5)).astype(np.float32)
    assert_same(found(array), model(array, training=False), "float32")


@pytest.mark.parametrize("kind", ["Conv1D", "DepthwiseConv1D"])
def test_zeros_that_make_a_convolution_causal_stream(flavour, kind):
    layers, rng = flavour.layers, np.random.default_rng(4)
    made = layers.Conv1D(6, 3, dilation_rate=2) if kind == "Conv1D" else layers.DepthwiseConv1D(5)
    following = made, layers.BatchNormalization(), layers.ReLU(), layers.GRU(3, return_sequences=True)
    model = flavour.Sequential([layers.Input((None, 5)), layers.ZeroPadding1D((4, 0)), *following])
    model = keras_networks.randomized(model, rng)
    found = from_keras_model(model)
    x = rng.normal(size=(2, 9, 5)).astype(np.float32)
    assert_same(found(x), model(x, training=False), "float32")
    stream = found.stream(2)
    steps = np.stack([stream(x[:, step]).copy() for step in range(9)], 1)
    np.testing.assert_array_equal(steps, found(x))


@pytest.mark.parametrize("ends", [(3, 0), (4, 1), (0, 4)])
def test_other_zeros_do_not_stream(flavour, ends):
    layers = flavour.layers
    model = flavour.Sequential(
        [layers.Input((None, 5)), layers.ZeroPadding1D(ends), layers.Conv1D(2, 5), layers.GRU(3)]
    )
    with pytest.raises(ValueError, match=r"layer 'zero_padding1d.*' adds timesteps or leaves some out"):
        from_keras_model(model).stream()
