"""Weights in float16: what is computed with them, which are refused, and that nobody else sees them."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from conftest import CHOICES

import fastgru
from fastgru import _config, _kernels


@pytest.fixture(params=[c for c in CHOICES if c.isa in _kernels.float16_isas()], ids="-".join)
def choice(request, monkeypatch):
    """Every engine on every instruction set that has float16 weights in turn."""
    monkeypatch.setattr(_config, "CHOICE", request.param)
    return request.param


def random_weights(units, features, reset_after=False, seed=0):
    """What float16 does not hold exactly, tiny values among it; and a bias."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(n, 3 * units)) / n**0.5 for n in (features, units)]
    weights = [np.where(rng.random(w.shape) < 0.1, w * 2.0**-16, w) for w in weights]
    weights.append(rng.normal(size=(2, 3 * units) if reset_after else 3 * units))
    return [w.astype(np.float32) for w in weights]


def rounded(weights):
    """The kernels as float16 has them, all else as it is."""
    return [w.astype(np.float16).astype(np.float32) for w in weights[:2]] + weights[2:]


def layer_with(weights, units, **options):
    layer = fastgru.GRU(units, **options)
    layer.build((4, None, weights[0].shape[0]))
    layer.set_weights(weights)
    return layer


def assert_same(found, wanted, choice):
    """Bit for bit on packed weights; elsewhere to the rounding of the sums."""
    tolerance = 0 if choice.engine == "packed" else 1e-6
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


# ---- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reset_after": True},
        {"activation": "relu", "recurrent_activation": "sigmoid"},
        {"go_backwards": True, "time_major": True, "reset_after": True},
        {"stateful": True},
        {"use_bias": False},
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    ("batch", "timesteps", "features", "units"), [(4, 1, 5, 6), (4, 3, 1, 33), (4, 30, 40, 64)]
)
def test_results_are_those_of_rounded_weights(choice, batch, timesteps, features, units, options):
    weights = random_weights(units, features, "reset_after" in options)[
        : 3 if "use_bias" not in options else 2
    ]
    options = options | {"return_sequences": True, "return_state": True}
    half = fastgru.GRU(units, weights_dtype="float16", **options)
    plain, exact = fastgru.GRU(units, **options), fastgru.GRU(units, **options)
    for layer, values in ((half, weights), (plain, rounded(weights)), (exact, weights)):
        layer.build((batch, batch, features))  # rows or steps first
        layer.set_weights(values)
    rng = np.random.default_rng(1)
    shape = (timesteps, batch) if half.time_major else (batch, timesteps)
    for mask in (None, rng.random(shape) < 0.7):
        x = rng.normal(size=(*shape, features)).astype(np.float32)
        found = half(x, mask=mask)
        assert_same(found, plain(x, mask=mask), choice)
        assert (found[0] != exact(x, mask=mask)[0]).any()


def test_a_layer_of_float16_has_them_already(choice):
    weights = [w.astype(np.float16) for w in random_weights(7, 5)]
    half, plain = (
        layer_with(weights, 7, dtype="float16", weights_dtype=weights_dtype)
        for weights_dtype in ("float16", None)
    )
    assert (half.weights_dtype, plain.weights_dtype) == ("float16", "float32")
    x = np.random.default_rng(2).normal(size=(4, 3, 5)).astype(np.float16)
    found = half(x)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, plain(x))


@pytest.mark.parametrize(
    "options",
    [
        {"activation": lambda x: np.clip(x, -0.5, 0.5)},
        {"activation": "softmax"},
        {"recurrent_activation": "softmax", "reset_after": True},
        {"dropout": 0.3},
        {"recurrent_dropout": 0.3, "reset_after": True},
    ],
    ids=["callable", "softmax", "recurrent softmax", "dropout", "recurrent dropout"],
)
def test_the_loop_in_numpy_has_rounded_weights_too(choice, options):
    weights = random_weights(8, 5, "reset_after" in options)
    layers = [
        layer_with(weights, 8, weights_dtype="float16", **options),
        layer_with(rounded(weights), 8, **options),
        layer_with(weights, 8, **options),
    ]
    x = np.random.default_rng(3).normal(size=(4, 6, 5)).astype(np.float32)
    results = []
    for layer in layers:
        fastgru.set_random_seed(4)
        results.append(layer(x, training=True))
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()


def test_alphas_and_biases_are_not_rounded(choice):
    weights = [*random_weights(4, 3), np.full(4, 0.1, np.float32)]
    half = layer_with(weights, 4, activation="PReLU", weights_dtype="float16")
    plain = layer_with(rounded(weights), 4, activation="PReLU")
    x = np.random.default_rng(5).normal(size=(4, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(half(x), plain(x))


# ---- values --------------------------------------------------------------------------------------


def test_weights_come_back_as_they_were_set(choice):
    weights = random_weights(6, 5)
    layer = layer_with(weights, 6, weights_dtype="float16", kernel_regularizer="l2")
    plain = layer_with(weights, 6, kernel_regularizer="l2")
    for found in (layer.get_weights(), layer.weights, fastgru.GRU.get_weights(copy.deepcopy(layer))):
        for ours, theirs in zip(found, weights, strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_array_equal(ours, theirs)
    assert (layer.losses, layer.count_params()) == (plain.losses, plain.count_params())


TOO_LARGE = [
    *[(65505.0, "65505"), (-65505.0, "65505"), (7e4, "70000"), (np.inf, "inf"), (-np.inf, "inf")],
    (np.nextafter(np.float32(65504), np.float32(np.inf)), "65504[.]00"),
]


@pytest.mark.parametrize(("value", "shown"), TOO_LARGE)
@pytest.mark.parametrize(("index", "name"), [(0, "kernel"), (1, "recurrent_kernel")])
def test_a_weight_beyond_float16_is_refused_and_changes_nothing(choice, index, name, value, shown):
    layer = layer_with(random_weights(6, 5), 6, weights_dtype="float16")
    x = np.random.default_rng(6).normal(size=(4, 3, 5)).astype(np.float32)
    before, weights = layer(x), random_weights(6, 5, seed=1)
    weights[index][2, 3] = value
    weights[index][0, 0] = np.nan  # which hides nothing
    message = rf"^{name} must lie between -65504 and 65504 with weights_dtype='float16', got .?{shown}"
    with pytest.raises(ValueError, match=message):
        layer.set_weights(weights)
    np.testing.assert_array_equal(layer(x), before)
    for ours, theirs in zip(layer.get_weights(), random_weights(6, 5), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    unbuilt = fastgru.GRU(6, weights_dtype="float16", weights=weights)
    with pytest.raises(ValueError, match=message):
        unbuilt(x)
    assert not unbuilt.built


def test_the_largest_float16_and_any_bias_are_taken(choice):
    weights = random_weights(6, 5)
    weights[0][0], weights[0][1] = 65504, -65504
    weights[2][:3] = 1e30
    half, plain = layer_with(weights, 6, weights_dtype="float16"), layer_with(rounded(weights), 6)
    x = np.random.default_rng(7).normal(size=(4, 3, 5)).astype(np.float32)
    assert_same(half(x), plain(x), choice)


def test_a_nan_stays_one(choice):
    weights = random_weights(6, 5, reset_after=True)
    weights[0][3, 12 + 2] = np.nan  # the candidate of unit 2
    layer = layer_with(weights, 6, reset_after=True, weights_dtype="float16")
    assert np.isnan(layer.get_weights()[0][3, 12 + 2])
    x = np.ones((4, 1, 5), np.float32)
    np.testing.assert_array_equal(np.isnan(layer(x)), [[False, False, True, False, False, False]] * 4)


def test_all_kernels_may_be_nan(choice):
    weights = [np.full_like(w, np.nan) for w in random_weights(6, 5)]
    assert np.isnan(layer_with(weights, 6, weights_dtype="float16")(np.ones((4, 1, 5), np.float32))).all()


def test_subnormal_float16_are_exact_and_less_is_rounded_to_them(choice):
    # one unit without gates: with z and r the constant 0, its state is x.kernel
    least = 2.0**-24
    for weight, kept in [(least, least), (3 * least, 3 * least), (1.4 * least, least), (0.4 * least, 0.0)]:
        kernel = np.array([[0, 0, weight], [0, 0, -weight]], np.float32)
        weights = [kernel, np.zeros((1, 3), np.float32)]
        options = {"activation": "linear", "recurrent_activation": "relu", "use_bias": False}
        layer = layer_with(weights, 1, weights_dtype="float16", **options)
        x = np.array([[[2.0**30, 2.0**20]]], np.float32)
        assert layer(x) == (2.0**30 - 2.0**20) * kept


def test_rounding_heeds_no_floating_point_error(choice):
    weights = random_weights(6, 5)
    weights[0][0] = 1e-30
    with np.errstate(all="raise"):
        layer_with(weights, 6, weights_dtype="float16")


# ---- the argument --------------------------------------------------------------------------------


@pytest.mark.skipif(_config.CHOICE.isa not in _kernels.float16_isas(), reason="the CPU converts no float16")
@pytest.mark.parametrize("value", ["float16", np.float16, np.dtype("float16")])
@pytest.mark.parametrize("dtype", ["float32", "float16", None])
def test_the_config_has_it_and_gives_it_back(dtype, value):
    layer = fastgru.GRU(3, dtype=dtype, weights_dtype=value)
    assert layer.weights_dtype == layer.get_config()["weights_dtype"] == "float16"
    again = fastgru.GRU.from_config(layer.get_config())
    assert again.weights_dtype == "float16"
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("dtype", "value", "kept"),
    [
        ("float32", None, "float32"),
        ("float32", "float32", "float32"),
        ("float64", None, "float64"),
        ("float64", np.float64, "float64"),
        ("float16", None, "float32"),
        ("float16", "float32", "float32"),
    ],
)
def test_the_config_is_that_of_keras_without_it(dtype, value, kept):
    layer = fastgru.GRU(3, dtype=dtype, weights_dtype=value)
    assert layer.weights_dtype == kept
    assert "weights_dtype" not in layer.get_config()


@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_copies_have_it(choice, twin_of):
    weights = random_weights(6, 5)
    layer = layer_with(weights, 6, weights_dtype="float16")
    x = np.random.default_rng(8).normal(size=(4, 3, 5)).astype(np.float32)
    twin = twin_of(layer)
    assert twin.weights_dtype == "float16"
    np.testing.assert_array_equal(twin(x), layer(x))
    np.testing.assert_array_equal(twin.get_weights()[0], weights[0])
    assert twin_of(fastgru.GRU(3, weights_dtype="float16")).weights_dtype == "float16"  # unbuilt


@pytest.mark.parametrize(
    ("dtype", "usable"),
    [
        ("float32", ["float32", "float16", "int8"]),
        ("float64", ["float64"]),
        ("float16", ["float32", "float16", "int8"]),
        (None, ["float32", "float16", "int8"]),
    ],
)
def test_unknown_types_are_told_the_usable_ones(dtype, usable):
    unusable = {"float32", "float64", "float16", "int8"} - set(usable)
    for value in ("bfloat16", "int4", "", 16, ["float16"], {}, np.int16, np.zeros(2), *unusable):
        with pytest.raises(ValueError, match=r"^weights_dtype must be None or one of ") as error:
            fastgru.GRU(3, dtype=dtype, weights_dtype=value)
        message = str(error.value)
        assert message.removesuffix(f", got {value!r}") != message
        assert f" {', '.join(usable)} " in message


def test_a_cpu_that_cannot_convert_is_told_what_it_lacks(monkeypatch):
    monkeypatch.setattr(fastgru.gru, "float16_isas", lambda: ())
    message = r"^weights_dtype='float16' needs a CPU that .*AVX2 and F16C, AVX-512 or NEON"
    with pytest.raises(ValueError, match=message):
        fastgru.GRU(3, weights_dtype="float16")
    assert fastgru.GRU(3, weights_dtype="float32").weights_dtype == "float32"


def test_packed_weights_take_half_the_memory(choice):
    weights = random_weights(256, 128, reset_after=True)
    elements, taken = (256 + 128) * 3 * 256, []
    for weights_dtype in (None, "float16"):
        layer = layer_with(weights, 256, reset_after=True, weights_dtype=weights_dtype)
        tracemalloc.start()
        layer.set_weights(weights)
        taken.append(tracemalloc.get_traced_memory()[0] - sum(w.nbytes for w in weights))
        tracemalloc.stop()
    itemsizes = {"packed": (4, 2), "blas": (0, 4)}[choice.engine]  # BLAS reads the weights themselves
    for size, itemsize in zip(taken, itemsizes, strict=True):
        assert 0 <= size - itemsize * elements < 16 << 10  # biases, lines of the cache, objects
