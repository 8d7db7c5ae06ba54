"""Initializers against their distributions and against Keras; random seeds; the registry of identifiers."""

import copy
import math
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

from fastgru import _random, initializers
from fastgru._registry import Registry

SEEDED = {  # with the law of the values for the shape (48, 80), or its half width or variance
    "RandomUniform": (initializers.RandomUniform(-0.3, 0.7, seed=1), stats.uniform(-0.3, 1.0)),
    "RandomNormal": (initializers.RandomNormal(0.4, 2.5, seed=2), stats.norm(0.4, 2.5)),
    "TruncatedNormal": (initializers.TruncatedNormal(-1.0, 0.5, seed=3), stats.truncnorm(-2, 2, -1.0, 0.5)),
    "GlorotUniform": (initializers.GlorotUniform(seed=4), (6 / 128) ** 0.5),
    "HeUniform": (initializers.HeUniform(seed=5), (6 / 48) ** 0.5),
    "LecunUniform": (initializers.LecunUniform(seed=6), (3 / 48) ** 0.5),
    "GlorotNormal": (initializers.GlorotNormal(seed=7), 2 / 128),
    "HeNormal": (initializers.HeNormal(seed=8), 2 / 48),
    "LecunNormal": (initializers.LecunNormal(seed=9), 1 / 48),
}
ALL = [
    *(initializer for initializer, _ in SEEDED.values()),
    initializers.VarianceScaling(0.5, "fan_out", "untruncated_normal", seed=10),
    initializers.Orthogonal(1.5, seed=11),
    initializers.Identity(2.0),
    initializers.Constant(0.25),
    initializers.Zeros(),
    initializers.Ones(),
]
NEW = {"module": "keras.initializers"}
DRAWING = [initializer for initializer in ALL if hasattr(initializer, "seed")]


def name_of(initializer):
    return type(initializer).__name__


def same_law(values, distribution):
    """Kolmogorov-Smirnov: whether values may well come from a distribution, or from that of other values."""
    values = np.ravel(values)
    test = stats.ks_2samp if isinstance(distribution, np.ndarray) else stats.kstest
    other = np.ravel(distribution) if isinstance(distribution, np.ndarray) else distribution.cdf
    return test(values, other).pvalue > 1e-3


def cut_normal(variance):
    """The normal distribution cut at two standard deviations that has this variance after the cut."""
    stddev = (variance / stats.truncnorm(-2, 2).var()) ** 0.5
    return stats.truncnorm(-2, 2, 0, stddev)


def error_of(function, *arguments):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*arguments)
    return caught.type


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEEDED)
def test_values_follow_the_documented_distribution(name):
    initializer, law = SEEDED[name]
    if not hasattr(law, "cdf"):
        law = stats.uniform(-law, 2 * law) if name.endswith("Uniform") else cut_normal(law)
    values = initializer((48, 80), np.float64)
    assert values.shape == (48, 80)
    assert same_law(values, law)
    low, high = law.support()
    assert low <= values.min()
    assert values.max() <= high
    error = law.std() / math.sqrt(values.size)
    assert abs(values.mean() - law.mean()) < 4 * error
    assert values.std() == pytest.approx(law.std(), rel=0.05)


@pytest.mark.parametrize("name", SEEDED)
def test_values_follow_the_distribution_of_keras(name, keras):
    initializer, _ = SEEDED[name]
    original = keras.initializers.get(initializers.serialize(initializer))
    assert same_law(initializer((48, 80)), original((48, 80)).numpy())


FANS = [
    ((), 1, 1),
    ((5000,), 5000, 5000),
    ((60, 200), 60, 200),
    ((4, 30, 70), 120, 280),
    ((2, 3, 40, 60), 240, 360),
    ((0, 30), 0, 30),
]
MODES = {
    "fan_in": lambda fan_in, fan_out: max(1, fan_in),
    "fan_out": lambda fan_in, fan_out: max(1, fan_out),
    "fan_avg": lambda fan_in, fan_out: max(1, (fan_in + fan_out) / 2),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "fan_in", "fan_out"), FANS)
def test_variance_scaling_divides_by_the_fan(shape, fan_in, fan_out, mode):
    stddev = (2.5 / MODES[mode](fan_in, fan_out)) ** 0.5
    unit_values = {
        "uniform": 3**0.5 * (2 * _random.generator(14).random(shape) - 1),
        "untruncated_normal": _random.generator(14).standard_normal(shape),
        "truncated_normal": initializers.TruncatedNormal(0, 1 / 0.87962566103423978, 14)(shape, np.float64),
    }
    for distribution, expected in unit_values.items():
        initializer = initializers.VarianceScaling(2.5, mode, distribution, seed=14)
        np.testing.assert_allclose(initializer(shape, np.float64), stddev * expected, rtol=1e-14)


@pytest.mark.parametrize("distribution", ["truncated_normal", "untruncated_normal", "uniform"])
@pytest.mark.parametrize(("shape", "fan_in", "fan_out"), FANS[1:5])
@pytest.mark.parametrize("mode", MODES)
def test_variance_scaling_has_the_variance_of_keras(distribution, shape, fan_in, fan_out, mode, keras):
    arguments = (2.5, mode, distribution, 15)
    ours = initializers.VarianceScaling(*arguments)(shape)
    theirs = keras.initializers.VarianceScaling(*arguments)(shape).numpy()
    stddev = (2.5 / MODES[mode](fan_in, fan_out)) ** 0.5
    assert ours.std() == pytest.approx(stddev, rel=4 / (2 * ours.size) ** 0.5)
    assert theirs.std() == pytest.approx(stddev, rel=4 / (2 * theirs.size) ** 0.5)
    assert same_law(ours, theirs)


def test_truncated_normal_redraws_only_what_lies_outside():
    plain = _random.generator(12).standard_normal(10_000)
    values = initializers.TruncatedNormal(0.0, 1.0, seed=12)((10_000,), np.float64)
    inside = np.abs(plain) <= 2
    assert 0.95 < inside.mean() < 0.96
    np.testing.assert_array_equal(values[inside], plain[inside])
    assert np.abs(values[~inside]).max() <= 2
    assert same_law(values[~inside], stats.truncnorm(-2, 2))


@pytest.mark.parametrize("shape", [(7, 7), (5, 15), (15, 5), (2, 3, 4), (3, 1, 9), (1, 1), (0, 3), (3, 0)])
def test_orthogonal_is_orthonormal_along_the_shorter_side(shape):
    values = initializers.Orthogonal(gain=3.0, seed=0)(shape, np.float64)
    assert values.shape == shape
    matrix = values.reshape(math.prod(shape[:-1]), shape[-1]) / 3.0
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    np.testing.assert_allclose(short @ short.T, np.eye(len(short)), atol=1e-14)


def test_orthogonal_matrices_are_uniformly_distributed():
    _random.set_random_seed(13)
    matrices = np.array([initializers.Orthogonal()((2, 2), np.float64) for _ in range(1000)])
    angle = np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0])
    assert same_law(angle, stats.uniform(-np.pi, 2 * np.pi))
    rotations = int((np.linalg.det(matrices) > 0).sum())
    assert stats.binomtest(rotations, 1000).pvalue > 1e-3


def test_orthogonal_has_the_signs_of_keras(keras):
    def first_elements(initializers, as_array):
        return np.array([as_array(initializers.Orthogonal(seed=seed)((3, 2)))[0, 0] for seed in range(300)])

    ours = first_elements(initializers, np.asarray)
    assert 100 < (ours > 0).sum() < 200
    assert same_law(ours, first_elements(keras.initializers, lambda tensor: tensor.numpy()))


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (0, 2)])
def test_identity_is_a_scaled_eye(shape, keras):
    values = initializers.Identity(gain=0.5)(shape)
    np.testing.assert_array_equal(values, 0.5 * np.eye(*shape))
    np.testing.assert_array_equal(values, keras.initializers.Identity(gain=0.5)(shape))


@pytest.mark.parametrize("shape", [(), (4,), [2, 3], (0, 2)])
def test_zeros_ones_and_constant_fill(shape):
    np.testing.assert_array_equal(initializers.Zeros()(shape), np.zeros(shape))
    np.testing.assert_array_equal(initializers.Ones()(shape), np.ones(shape))
    np.testing.assert_array_equal(initializers.Constant()(shape), np.zeros(shape))
    np.testing.assert_array_equal(initializers.Constant(-1.5)(shape), np.full(shape, -1.5))


@pytest.mark.parametrize(
    "value",
    [1, True, 2.5, np.float64(2), np.array(3.0), [4.0], [[1, 2, 3, 4, 5, 6]], np.arange(6.0).reshape(3, 2)],
)
def test_constant_takes_what_keras_takes(value, keras):
    ours = initializers.Constant(value)((2, 3))
    np.testing.assert_array_equal(ours, keras.initializers.Constant(value)((2, 3)))
    assert ours.dtype == np.float32
    assert not np.shares_memory(ours, np.asarray(value))


@pytest.mark.parametrize("value", ["a", 1 + 2j, [1, 2], []])
def test_constant_refuses_with_the_error_of_keras(value, keras):
    with pytest.raises(TypeError, match="value must"):
        initializers.Constant(value)((3,))
    assert error_of(keras.initializers.Constant(value), (3,)) is TypeError


# ---- dtypes and shapes ---------------------------------------------------------------------------


@pytest.mark.parametrize("initializer", ALL, ids=name_of)
@pytest.mark.parametrize("dtype", [np.float16, "float32", np.dtype(np.float64)])
def test_every_dtype_holds_the_rounded_float64_values(initializer, dtype):
    exact = initializer((6, 9), np.float64)
    assert exact.dtype == np.float64
    values = initializer((6, 9), dtype)
    assert type(values) is np.ndarray
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, exact.astype(dtype))


@pytest.mark.parametrize("initializer", ALL, ids=name_of)
def test_dtype_is_float32_by_default_and_for_none(initializer):
    assert initializer((2, 2)).dtype == np.float32
    assert initializer((2, 2), None).dtype == np.float32


def test_bfloat16_is_a_floating_dtype(keras):
    bfloat16 = keras.initializers.Zeros()((1,), "bfloat16").numpy().dtype
    values = initializers.GlorotUniform(seed=0)((4, 4), bfloat16)
    assert values.dtype == bfloat16
    exact = initializers.GlorotUniform(seed=0)((4, 4), np.float64)
    np.testing.assert_allclose(values.astype(np.float64), exact, rtol=2**-8)


@pytest.mark.parametrize("initializer", [*DRAWING, initializers.Identity()], ids=name_of)
@pytest.mark.parametrize("dtype", [bool, np.complex64, "S4"])
def test_other_dtypes_are_refused_as_by_keras(initializer, dtype, keras):
    with pytest.raises(ValueError, match="dtype must be floating, got"):
        initializer((2, 2), dtype)
    original = keras.initializers.get(initializers.serialize(initializer))
    assert error_of(original, (2, 2), np.dtype(dtype)) is ValueError


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2)])
def test_identity_needs_two_axes(shape):
    with pytest.raises(ValueError, match=r"shape must have 2 axes for Identity, got \("):
        initializers.Identity()(shape)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_orthogonal_needs_two_axes(shape):
    with pytest.raises(ValueError, match=r"shape must have at least 2 axes for Orthogonal, got \("):
        initializers.Orthogonal()(shape)


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scale": 0}, ValueError, "scale must be positive, got 0"),
        ({"scale": -1.0}, ValueError, "scale must be positive, got -1.0"),
        ({"scale": "1"}, TypeError, "<="),
        ({"mode": "fan"}, ValueError, "mode must be 'fan_in', 'fan_out' or 'fan_avg', got 'fan'"),
        ({"mode": "FAN_IN"}, ValueError, "mode must be"),
        ({"mode": None}, ValueError, "mode must be"),
        ({"distribution": "cauchy"}, ValueError, "distribution must be .* got 'cauchy'"),
    ],
)
def test_variance_scaling_refuses_what_keras_refuses(arguments, error, message, keras):
    with pytest.raises(error, match=message):
        initializers.VarianceScaling(**arguments)
    with pytest.raises(error):
        keras.initializers.VarianceScaling(**arguments)


@pytest.mark.parametrize("distribution", ["normal", "Normal", "UNIFORM", "Untruncated_Normal"])
def test_variance_scaling_spells_distributions_as_keras(distribution, keras):
    ours = initializers.VarianceScaling(distribution=distribution)
    assert ours.get_config() == keras.initializers.VarianceScaling(distribution=distribution).get_config()


# ---- random seeds --------------------------------------------------------------------------------


@pytest.mark.parametrize("initializer", DRAWING, ids=name_of)
def test_seeded_initializer_repeats_itself(initializer):
    first = initializer((3, 5))
    np.testing.assert_array_equal(first, initializer((3, 5)))
    other = copy.copy(initializer)
    other.seed = 999
    assert not np.array_equal(first, other((3, 5)))


@pytest.mark.parametrize("initializer", DRAWING, ids=name_of)
def test_unseeded_initializer_draws_on_and_restarts_with_the_global_seed(initializer):
    initializer = copy.copy(initializer)
    initializer.seed = None
    _random.set_random_seed(42)
    first, second = initializer((3, 5)), initializer((3, 5))
    assert not np.array_equal(first, second)
    _random.set_random_seed(42)
    np.testing.assert_array_equal(initializer((3, 5)), first)
    np.testing.assert_array_equal(initializer((3, 5)), second)
    _random.set_random_seed(43)
    assert not np.array_equal(initializer((3, 5)), first)


def test_global_seed_does_not_touch_seeded_initializers():
    initializer = initializers.RandomNormal(seed=5)
    _random.set_random_seed(0)
    first = initializer((4,))
    _random.set_random_seed(1)
    np.testing.assert_array_equal(initializer((4,)), first)


@pytest.mark.parametrize("seed", [0, -1, 2**40, np.int64(3), np.uint8(3)])
def test_initializer_takes_any_integer_as_seed(seed):
    first = initializers.RandomNormal(seed=seed)((4,))
    np.testing.assert_array_equal(initializers.RandomNormal(seed=int(seed))((4,)), first)
    assert not np.array_equal(first, initializers.RandomNormal(seed=int(seed) + 1)((4,)))


@pytest.mark.parametrize("seed", [1.5, "1", True, np.float32(1), [1]])
def test_initializer_refuses_other_seeds(seed):
    with pytest.raises(TypeError, match="seed must be an integer, got"):
        initializers.RandomNormal(seed=seed)((4,))


@pytest.mark.parametrize("seed", [1.0, "1", None, True, np.float32(1), [1]])
def test_set_random_seed_needs_an_integer(seed):
    with pytest.raises(TypeError, match="seed must be an integer, got"):
        _random.set_random_seed(seed)


@pytest.mark.parametrize("seed", [-1, np.int32(-7)])
def test_set_random_seed_refuses_negative_numbers(seed):
    with pytest.raises(ValueError, match="seed must not be negative, got -"):
        _random.set_random_seed(seed)


def test_set_random_seed_takes_numpy_integers():
    _random.set_random_seed(np.int64(7))
    first = _random.generator().random(3)
    _random.set_random_seed(7)
    np.testing.assert_array_equal(_random.generator().random(3), first)


def test_refused_seed_leaves_the_generator_alone():
    before = _random.generator()
    with pytest.raises(ValueError, match="seed"):
        _random.set_random_seed(-1)
    assert _random.generator() is before


def test_generator_is_one_pcg64_for_all_threads(monkeypatch):
    monkeypatch.setattr(_random, "_global", None)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: _random.generator(), range(64)))
    assert len({id(generator) for generator in made}) == 1
    assert isinstance(made[0].bit_generator, np.random.PCG64)


@pytest.mark.outside
def test_import_loads_neither_scipy_nor_numpy_random():
    program = (
        "import sys, fastgru.initializers, fastgru.regularizers, fastgru.constraints;"
        "sys.exit(str([name for name in ('scipy', 'numpy.random', 'tensorflow') if name in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == "[]"


# ---- identifiers ---------------------------------------------------------------------------------


def keras_names(keras):
    from tf_keras.src.initializers import LOCAL

    return sorted(set(LOCAL.ALL_OBJECTS) - {"Initializer", "initializer"})  # the base class, by accident


def test_every_name_of_keras_gives_the_same_config(keras):
    names = keras_names(keras)
    assert len(names) == 55
    for name in names:
        ours = initializers.serialize(initializers.get(name))
        assert ours == keras.initializers.serialize(keras.initializers.get(name)), name
        assert list(ours["config"]) == list(keras.initializers.get(name).get_config()), name


def test_every_function_alias_of_keras_is_there(keras):
    public = [name for name in dir(keras.initializers) if name.islower() and not name.startswith("_")]
    public = set(public) - {"get", "serialize", "deserialize"}
    assert "he_normal" in public
    for name in public:
        assert getattr(initializers, name) is type(initializers.get(name)), name


@pytest.mark.parametrize("initializer", ALL, ids=name_of)
def test_config_is_that_of_keras_and_comes_back(initializer, keras):
    config = initializers.serialize(initializer)
    assert config["module"] == "keras.initializers"
    assert keras.initializers.serialize(keras.initializers.get(config)) == config
    again = initializers.get(config)
    assert type(again) is type(initializer)
    assert again.get_config() == initializer.get_config()
    old = {"class_name": config["class_name"], "config": config["config"]}
    assert initializers.serialize(initializers.get(old)) == config


@pytest.mark.parametrize(
    "identifier",
    [
        {"class_name": "RandomNormal", "config": {"mean": 1.0, "stddev": 0.5, "seed": 3, "dtype": "float32"}},
        {
            "module": "keras.initializers",
            "class_name": "RandomNormal",
            "config": {"mean": 1.0, "stddev": 0.5, "seed": 3},
            "registered_name": None,
            "build_config": {"input_shape": (2, 3)},
        },
        {"module": "keras.initializers", "class_name": "random_normal", "config": None},
        {"module": "keras.initializers", "class_name": "RandomNormal"},
        {"module": "elsewhere", "class_name": "RandomNormal", "config": {"mean": 2}, "registered_name": "x"},
    ],
)
def test_dict_is_read_as_by_keras_and_left_as_it_is(identifier, keras):
    before = copy.deepcopy(identifier)
    ours = initializers.get(identifier)
    assert identifier == before
    assert ours.get_config() == keras.initializers.get(identifier).get_config()


def test_from_config_leaves_the_config_as_it_is():
    config = {"gain": 2.0, "seed": None, "dtype": "float32"}
    assert initializers.Orthogonal.from_config(config).gain == 2.0
    assert config == {"gain": 2.0, "seed": None, "dtype": "float32"}


def test_configs_of_keras_3_are_read():
    config = {"seed": None, "input_axes": None, "output_axes": None}
    identifier = {"module": "keras.initializers", "class_name": "GlorotUniform", "config": config}
    assert repr(initializers.get(identifier)) == "GlorotUniform(seed=None)"
    config["input_axes"] = (0,)
    with pytest.raises(TypeError, match="input_axes"):
        initializers.get(identifier)
    before_3_7 = initializers.get("OrthogonalInitializer")
    assert isinstance(before_3_7, initializers.Orthogonal)


def test_constant_array_survives_its_config(keras):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    config = initializers.serialize(initializers.Constant(array))
    assert config == keras.initializers.serialize(keras.initializers.Constant(array))
    again = initializers.get(config).value
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, array)


def test_none_class_instance_and_callable_are_taken(keras):
    def custom(shape, dtype=None):
        return np.full(shape, 7.0, dtype)

    instance = initializers.Ones()
    assert initializers.get(None) is None
    assert initializers.serialize(None) is None
    assert initializers.get(instance) is instance
    assert initializers.get(custom) is custom
    assert initializers.serialize(custom) is custom
    assert isinstance(initializers.get(initializers.HeNormal), initializers.HeNormal)
    assert isinstance(keras.initializers.get(keras.initializers.HeNormal), keras.initializers.HeNormal)


def test_custom_class_is_written_as_by_keras(keras):
    methods = {
        "__call__": lambda self, shape, dtype=None: np.zeros(shape, dtype),
        "get_config": lambda self: {"a": np.float32(0.5), "b": np.arange(2), "c": (1, 2), "d": {"e": None}},
        "__module__": "somewhere",
    }
    ours = type("Mine", (initializers.Initializer,), methods)()
    theirs = type("Mine", (keras.initializers.Initializer,), methods)()
    assert initializers.serialize(ours) == keras.initializers.serialize(theirs)
    type(ours).__module__ = type(theirs).__module__ = "__main__"
    assert initializers.serialize(ours) == keras.initializers.serialize(theirs)


def test_subclass_has_the_config_of_its_arguments():
    class Noisy(initializers.Initializer):
        def __init__(self, noise=0.1):
            self.noise = noise
            self._cache = None

    assert Noisy(0.2).get_config() == {"noise": 0.2}
    assert Noisy.from_config({"noise": 0.3, "dtype": "float32"}).noise == 0.3
    assert repr(Noisy()) == "Noisy(noise=0.1)"
    with pytest.raises(NotImplementedError, match="Noisy does not define __call__"):
        Noisy()((2, 2))


@pytest.mark.parametrize("name", ["abcd", "", "Glorot_uniform", "ZEROS", "get", "serialize", "Initializer"])
def test_unknown_name_is_an_error_that_lists_the_known_ones(name):
    for identifier in (name, {"class_name": name, "config": {}}, NEW | {"class_name": name, "config": {}}):
        with pytest.raises(ValueError, match=f"^Unknown initializer: '{name}'") as caught:
            initializers.get(identifier)
        for known in ("zeros", "glorot_uniform", "orthogonal", "identity", "variance_scaling", "constant"):
            assert known in str(caught.value)


@pytest.mark.parametrize(
    "identifier",
    [
        *[3, 2.5, True, False, ..., [], ["zeros"], ("zeros",), b"zeros", np.float32(3), np.zeros(2)],
        *["abcd", "", {}, {"config": {}}, {"class_name": "Ones"}, NEW | {"config": {}}],
        *[{"class_name": name, "config": {}} for name in ("abcd", None, 3)],
        {"class_name": "Constant", "config": {"bogus": 1}},
        {"class_name": "VarianceScaling", "config": {"scale": -1}},
        NEW | {"class_name": "Constant", "config": {"bogus": 1}},
        NEW | {"class_name": "VarianceScaling", "config": {"mode": "x"}},
        {"module": None, "class_name": "Zeros", "config": {}, "registered_name": "Zeros"},
    ],
    ids=repr,
)
def test_bad_identifier_is_the_error_of_keras(identifier, keras):
    assert error_of(initializers.get, identifier) is error_of(keras.initializers.get, identifier)


@pytest.mark.parametrize(
    "identifier",
    [
        {"class_name": "Ones", "config": None},
        {"class_name": "Ones", "config": "x"},
        {"class_name": ["Ones"], "config": {}},
        NEW | {"class_name": "Ones", "config": "x"},
        NEW | {"class_name": None, "config": {}},
    ],
    ids=repr,
)
def test_malformed_dict_is_a_value_error(identifier):
    with pytest.raises(ValueError, match="initializer as a dict must have the key 'class_name'"):
        initializers.get(identifier)


@pytest.mark.parametrize("identifier", [3, ["zeros"], b"zeros", int, object])
def test_useless_identifier_is_named_in_the_error(identifier):
    with pytest.raises(ValueError, match=r"^initializer must be None, a name, .* got ") as caught:
        initializers.get(identifier)
    assert str(caught.value).endswith(repr(identifier))


# ---- objects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("initializer", ALL, ids=name_of)
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))])
def test_copies_draw_the_same(initializer, clone):
    again = clone(initializer)
    assert again is not initializer
    assert type(again) is type(initializer)
    np.testing.assert_array_equal(again((3, 4)), initializer((3, 4)))


@pytest.mark.parametrize("initializer", ALL, ids=name_of)
def test_repr_is_the_call_that_makes_it(initializer):
    again = eval(repr(initializer), vars(initializers))
    assert type(again) is type(initializer)
    assert again.get_config() == initializer.get_config()


def test_registry_keeps_functions_as_they_are():
    def tanh(x):
        return np.tanh(x)

    functions = {"tanh": tanh, "th": tanh}
    registry = Registry("activation", "keras.activations", {}, functions, wrong_type=TypeError)
    by_name = {"class_name": "tanh", "config": {}}
    by_kind = {"module": "builtins", "class_name": "function", "config": "tanh"}
    for identifier in ("tanh", "th", tanh, by_name, by_kind):
        assert registry.get(identifier) is tanh
    assert registry.serialize(tanh) == "tanh"
    with pytest.raises(ValueError, match=r"^Unknown activation: 'Tanh'\. Known names: tanh$"):
        registry.get("Tanh")
    with pytest.raises(ValueError, match=r"activation 'tanh' takes no config, got \{'alpha': 1\}"):
        registry.get({"class_name": "tanh", "config": {"alpha": 1}})
    with pytest.raises(TypeError, match="activation must be None, a name"):
        registry.get(3)
