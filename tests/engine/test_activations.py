"""Activations: error bounds of the kernels, limits, and the objects that stand for them."""

import copy
import pickle

import mpmath
import numpy as np
import pytest
import reference

from fastgru import _kernels, activations

LD = np.longdouble
FLOATS = ["float32", "float64"]


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def mish(x):
    e = np.exp(-np.abs(x))
    right = (1 + 2 * e) / (1 + 2 * e + 2 * e * e)
    return x * np.where(x < 0, e * (e + 2) / (e * (e + 2) + 2), right)


def gelu(x):
    def exact(v):
        if abs(v) > 100:  # e^-5000 is nothing
            return LD(max(v, 0))
        v = mpmath.mpf(float(v))
        return LD(mpmath.nstr(v * mpmath.erfc(-v * float(np.float32(0.5**0.5))) / 2, 25))

    with mpmath.workdps(40):
        return np.array([exact(v) for v in x], LD)


def expm1_below(x, alpha, scale):
    return np.where(x > 0, scale * x, alpha * np.expm1(np.minimum(x, 0)))


# in extended precision: 11 bits more than float64
EXACT = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "elu": lambda x: expm1_below(x, 1, 1),
    "selu": lambda x: expm1_below(x, LD("1.75809934084737685994"), LD("1.05070098735548049342")),
    "gelu": gelu,
    "swish": lambda x: x * sigmoid(x),
    "mish": mish,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": np.exp,
}
ALPHA = {"elu": 1.0, "leaky_relu": 0.2, "thresholded_relu": 1.0, "clipped_line": 1 / 6}


def arguments(dtype, number, rng):
    """Finite arguments of all sizes: where functions bend, where they saturate, subnormal ones."""
    edge = 110 if dtype == "float32" else 760
    tiny = np.finfo(dtype).smallest_subnormal
    sizes = np.exp(rng.uniform(np.log(1e-44 if dtype == "float32" else 1e-320), np.log(30), number))
    parts = [
        rng.uniform(-edge, edge, number),
        rng.uniform(-20, 20, number),
        rng.uniform(-45, 5, number),
        rng.uniform(-1, 1, number),
        sizes * rng.choice([-1, 1], number),
        [0.0, -0.0, tiny, -tiny, 183.0, -183.0, np.finfo(dtype).max, np.finfo(dtype).min],
    ]
    return np.concatenate(parts).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("isa", _kernels.isas())
@pytest.mark.parametrize("name", EXACT)
def test_kernels_are_within_3_ulp(name, isa, dtype):
    x = arguments(dtype, 5_000 if name == "gelu" else 200_000, np.random.default_rng(0))
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(LD))
        kept = np.abs(exact) <= LD(np.finfo(dtype).max)  # the others round to infinity
        y = _kernels.activate(name, x, ALPHA.get(name, 0.0), isa)
        assert not np.isnan(y).any()
        assert np.isinf(y[~kept]).all()
        # a unit in the last place of the exact value
        ulp = np.spacing(np.abs(exact).astype(dtype)).astype(LD)
        error = np.abs(y.astype(LD) - exact)[kept] / ulp[kept]
    worst = error.argmax()
    found = f"{name}({x[kept][worst]!r}) is off by {float(error[worst]):.2f} ULP"
    print(f"{isa} {dtype}: {found}")  # with -s
    assert error[worst] <= 3, found


@pytest.mark.parametrize("isa", _kernels.isas())
def test_hard_sigmoid_is_numpys_multiply_add_clip_bit_for_bit(isa):
    x = np.random.default_rng(1).normal(scale=3, size=100_001).astype(np.float32)
    wanted = np.clip(x * np.float32(0.2) + np.float32(0.5), np.float32(0), np.float32(1))
    np.testing.assert_array_equal(_kernels.activate("hard_sigmoid", x, 0.0, isa), wanted)


LIMITS = {  # at -inf, inf
    "linear": (-np.inf, np.inf),
    "tanh": (-1, 1),
    "sigmoid": (0, 1),
    "hard_sigmoid": (0, 1),
    "clipped_line": (0, 1),
    "relu": (0, np.inf),
    "relu6": (0, 6),
    "leaky_relu": (-np.inf, np.inf),
    "thresholded_relu": (0, np.inf),
    "elu": (-1, np.inf),
    "selu": (-1.7580993408473769, np.inf),
    "gelu": (0, np.inf),
    "swish": (0, np.inf),
    "mish": (0, np.inf),
    "softplus": (0, np.inf),
    "softsign": (-1, 1),
    "exponential": (0, np.inf),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("isa", _kernels.isas())
@pytest.mark.parametrize("name", _kernels.activations())
def test_infinities_give_the_limit_and_nan_stays(name, isa, dtype):
    x = np.array([-np.inf, np.inf], dtype)
    y = _kernels.activate(name, x, ALPHA.get(name, 0.0), isa)
    np.testing.assert_array_equal(y, np.array(LIMITS[name], dtype))
    # NaNs of either sign and with all kinds of bits in what remains of them
    integers = np.dtype(dtype).str.replace("f", "u")
    low_bits = np.concatenate([np.arange(1, 2049), np.random.default_rng(0).integers(1, 2**22, 2000)])
    bits = np.array(np.inf, dtype).view(integers) | low_bits.astype(integers)
    nans = np.concatenate([bits, bits | np.array(-0.0, dtype).view(integers)]).view(dtype)
    assert np.isnan(_kernels.activate(name, nans, ALPHA.get(name, 0.0), isa)).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("isa", _kernels.isas())
def test_saturation_is_exact(isa, dtype):
    far = np.array([20, 40, 183, 1e4, 1e30], dtype)
    for sign in (1, -1):
        assert (_kernels.activate("tanh", sign * far, 0.0, isa) == sign).all()
    assert (_kernels.activate("sigmoid", 2 * far, 0.0, isa) == 1).all()
    assert (_kernels.activate("sigmoid", -800 * far, 0.0, isa) == 0).all()
    assert (np.signbit(_kernels.activate("tanh", np.array([-0.0], dtype), 0.0, isa))).all()


@pytest.mark.parametrize("isa", _kernels.isas())
@pytest.mark.parametrize("n", range(70))
def test_the_rest_of_an_array_is_like_its_beginning(n, isa):
    x = np.random.default_rng(n).normal(size=n).astype(np.float32)
    one_by_one = [_kernels.activate("mish", x[i : i + 1], 0.0, isa)[0] for i in range(n)]
    np.testing.assert_array_equal(_kernels.activate("mish", x, 0.0, isa), np.array(one_by_one, np.float32))


@pytest.mark.parametrize("name", sorted(reference.ACTIVATIONS))
def test_named_objects_are_callables_on_arrays(name):
    x = np.random.default_rng(3).normal(size=(3, 4, 5))
    activation = activations.get(name)
    np.testing.assert_allclose(activation(x), reference.ACTIVATIONS[name](x), rtol=1e-12, atol=1e-14)
    for dtype, tolerance in (("float32", 1e-6), ("float16", 2e-3)):
        y = activation(x.astype(dtype))
        assert y.dtype == dtype
        np.testing.assert_allclose(y, reference.ACTIVATIONS[name](x), rtol=tolerance, atol=10 * tolerance)
    assert pickle.loads(pickle.dumps(activation)) is activation
    assert copy.deepcopy(activation) is activation


LAYERS = {
    "ReLU": ({"max_value": 2.0, "negative_slope": 0.5, "threshold": 1.0}, [-0.75, 0.0, 1.0, 1.5, 2.0]),
    "LeakyReLU": ({"alpha": 0.5}, [-0.25, 0.5, 1.0, 1.5, 4.0]),
    "ELU": ({"alpha": 0.5}, [0.5 * np.expm1(-0.5), 0.5, 1.0, 1.5, 4.0]),
    "ThresholdedReLU": ({"theta": 1.25}, [0.0, 0.0, 0.0, 1.5, 4.0]),
    "HardSigmoid": ({"alpha": 0.25, "beta": 0.25}, [0.125, 0.375, 0.5, 0.625, 1.0]),
    "Affine": ({"alpha": 2.0, "beta": -1.0}, [-2.0, 0.0, 1.0, 2.0, 7.0]),
    "ScaledTanh": ({"alpha": 2.0, "beta": 0.5}, 2 * np.tanh([-0.25, 0.25, 0.5, 0.75, 2.0])),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_activations_follow_their_config(name):
    config, wanted = LAYERS[name]
    x = np.array([-0.5, 0.5, 1.0, 1.5, 4.0])
    if name == "ReLU":
        wanted = [0.5 * (v - 1) if v < 1 else min(v, 2) for v in x]
    for identifier in (
        {"class_name": name, "config": {"name": "a", "trainable": True, "dtype": "float32", **config}},
        {"module": "keras.layers", "class_name": name, "config": config, "registered_name": None},
        getattr(activations, name)(**config),
    ):
        activation = activations.get(identifier)
        np.testing.assert_allclose(activation(x), wanted, rtol=1e-12)
        again = activations.get(activations.serialize(activation))
        assert again.get_config() == config
        np.testing.assert_array_equal(again(x), activation(x))


@pytest.mark.parametrize(
    ("activation", "kernel"),
    [
        (activations.HardSigmoid(), ("clipped_line", float(np.float32(0.2)))),
        (activations.HardSigmoid(0.5), ("clipped_line", 0.5)),
        (activations.HardSigmoid(0.5, 0.25), None),
        (activations.Affine(), ("linear", 0.0)),
        (activations.Affine(beta=1.0), None),
        (activations.ScaledTanh(), ("tanh", 0.0)),
        (activations.ScaledTanh(2.0), None),
    ],
)
def test_onnx_activations_have_kernels_where_one_computes_them(activation, kernel):
    assert activation.kernel == kernel
    x = np.linspace(-3, 3, 25)
    alpha, beta = activation.alpha, activation.beta
    wanted = {
        "HardSigmoid": np.clip(alpha * x + beta, 0, 1),
        "Affine": alpha * x + beta,
        "ScaledTanh": alpha * np.tanh(beta * x),
    }
    np.testing.assert_allclose(activation(x), wanted[type(activation).__name__], rtol=1e-12, atol=1e-15)


def test_the_hard_sigmoid_of_keras_3_is_exact_in_float64_too():
    x = np.linspace(-4, 4, 1001)
    wanted = np.clip(x + 3, 0, 6) / 6
    np.testing.assert_allclose(activations.keras3_hard_sigmoid(x), wanted, rtol=0, atol=1e-15)


def test_softmax_layer_takes_an_axis():
    x = np.random.default_rng(4).normal(size=(3, 4))
    np.testing.assert_allclose(activations.Softmax(axis=0)(x).sum(0), 1)
    np.testing.assert_allclose(activations.get("Softmax")(x), reference.ACTIVATIONS["softmax"](x))


@pytest.mark.parametrize(
    ("identifier", "error", "message"),
    [
        ("abcd", ValueError, r"Unknown activation: 'abcd'. Known names: .*tanh.*LeakyReLU"),
        ("Tanh", ValueError, "Unknown activation: 'Tanh'"),
        ("", ValueError, "Unknown activation: ''"),
        (3, TypeError, "activation must be .* got 3"),
        (["tanh"], TypeError, "activation must be"),
        (b"tanh", TypeError, "activation must be"),
        ({"config": {}}, ValueError, "class_name"),
    ],
)
def test_what_is_no_activation_is_refused(identifier, error, message):
    with pytest.raises(error, match=message):
        activations.get(identifier)


def test_none_is_linear_and_silu_is_swish():
    assert activations.get(None) is activations.linear
    assert activations.serialize(activations.get("silu")) == "swish"
