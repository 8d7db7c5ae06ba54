"""Constraints against their formulas and against Keras."""

import copy
import pickle

import numpy as np
import pytest

from fastgru import constraints

ALL = [
    constraints.MaxNorm(1.5),
    constraints.MaxNorm(1.5, axis=1),
    constraints.MaxNorm(1.5, axis=[0, 1]),
    constraints.MaxNorm(1.5, axis=None),
    constraints.MaxNorm(1.5, axis=[]),
    constraints.MaxNorm(0),
    constraints.MaxNorm(-1),
    constraints.MaxNorm(None),
    constraints.NonNeg(),
    constraints.UnitNorm(),
    constraints.UnitNorm(axis=(0, 1)),
    constraints.MinMaxNorm(),
    constraints.MinMaxNorm(1.8, 2.2, 0.3, 1),
    constraints.MinMaxNorm(3, 1),
    constraints.MinMaxNorm(None, None, 0.5),
]
NAMES = {
    constraints.MaxNorm: ["max_norm", "MaxNorm", "maxnorm"],
    constraints.NonNeg: ["non_neg", "NonNeg", "nonneg"],
    constraints.UnitNorm: ["unit_norm", "UnitNorm", "unitnorm"],
    constraints.MinMaxNorm: ["min_max_norm", "MinMaxNorm"],
    constraints.RadialConstraint: ["radial_constraint", "RadialConstraint"],
}
NEW = {"module": "keras.constraints"}


def weights(shape=(5, 8), dtype=np.float64):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def error_of(function, *arguments):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*arguments)
    return caught.type


# ---- projections ---------------------------------------------------------------------------------


def test_max_norm_shortens_long_columns_only():
    w = np.array([[3.0, 0.3], [4.0, 0.4]])
    expected = w * np.array([2 / (5 + 1e-7), 0.5 / (0.5 + 1e-7)])
    np.testing.assert_allclose(constraints.MaxNorm()(w), expected, rtol=1e-15)


def test_non_neg_is_zero_below_zero():
    np.testing.assert_array_equal(constraints.NonNeg()(np.array([-1.0, 0.0, 2.0, np.inf])), [0, 0, 2, np.inf])


def test_unit_norm_divides_by_the_norm():
    w = np.array([[3.0, 0.0], [4.0, 0.0]])
    np.testing.assert_allclose(constraints.UnitNorm()(w), [[0.6, 0], [0.8, 0]], rtol=3e-8)
    np.testing.assert_array_equal(constraints.UnitNorm()(w), w / (1e-7 + np.array([5.0, 0.0])))


def test_min_max_norm_moves_the_norm_by_the_rate():
    w = np.array([[3.0, 0.3, 0.9], [4.0, 0.4, 1.2]])
    norms = np.linalg.norm(constraints.MinMaxNorm(1.0, 2.0, 0.25)(w), axis=0)
    np.testing.assert_allclose(norms, [0.25 * 2 + 0.75 * 5, 0.25 * 1 + 0.75 * 0.5, 1.5], rtol=3e-7)


def test_radial_takes_one_value_for_each_ring():
    kernel = np.arange(16.0).reshape(4, 4, 1, 1)
    expected = [[15, 15, 15, 15], [15, 5, 5, 15], [15, 5, 5, 15], [15, 15, 15, 15]]
    np.testing.assert_array_equal(constraints.RadialConstraint()(kernel)[:, :, 0, 0], expected)
    kernel = np.arange(9.0).reshape(3, 3, 1, 1)
    expected = [[4, 4, 4], [4, 0, 4], [4, 4, 4]]  # not the centre in the centre: so does Keras
    np.testing.assert_array_equal(constraints.RadialConstraint()(kernel)[:, :, 0, 0], expected)


@pytest.mark.parametrize("constraint", ALL, ids=repr)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float16, 3e-3), (np.float32, 1e-6), (np.float64, 1e-14)])
def test_projection_is_that_of_keras_in_the_dtype_of_the_weights(constraint, dtype, rtol, keras):
    w = weights(dtype=np.float16).astype(dtype)
    before = w.copy()
    projected = constraint(w)
    assert projected.dtype == dtype
    assert projected.shape == w.shape
    assert not np.shares_memory(projected, w)
    np.testing.assert_array_equal(w, before)
    original = keras.constraints.get(constraints.serialize(constraint))
    if isinstance(constraint, constraints.NonNeg):  # the original fails for all but float32
        w, rtol = w.astype(np.float32), 0
    expected = original(keras.backend.constant(w, dtype=w.dtype)).numpy()
    np.testing.assert_allclose(projected, expected, rtol=rtol)


@pytest.mark.parametrize("constraint", [*ALL[:2], *ALL[8:10], *ALL[11:13]], ids=repr)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_zeros_and_non_finite_weights_end_as_in_keras(constraint, keras):
    w = np.array([[-1, -0.0, 0, np.nan, np.inf, -np.inf, 1e-30], [2, 0.0, 1, 1, 1, 1, 1]], np.float32)
    original = keras.constraints.get(constraints.serialize(constraint))
    expected = original(keras.backend.constant(w)).numpy()
    projected = constraint(w)
    np.testing.assert_allclose(projected, expected, rtol=1e-6)
    np.testing.assert_array_equal(np.signbit(projected[:, 1]), np.signbit(expected[:, 1]))


@pytest.mark.parametrize("constraint", [constraints.MaxNorm(0.5), constraints.UnitNorm()], ids=repr)
def test_bias_is_projected_as_one_vector(constraint, keras):
    w = weights((6,), np.float32)
    original = keras.constraints.get(constraints.serialize(constraint))
    np.testing.assert_allclose(constraint(w), original(keras.backend.constant(w)).numpy(), rtol=1e-6)


@pytest.mark.parametrize("bound", [np.float64(0.5), np.float32(0.5), np.int64(1), np.array(0.5)])
def test_numpy_scalars_do_not_change_the_dtype(bound):
    w = weights(dtype=np.float32)
    plain = bound.item()
    for ours, expected in [
        (constraints.MaxNorm(bound), constraints.MaxNorm(plain)),
        (constraints.MinMaxNorm(bound, bound, bound), constraints.MinMaxNorm(plain, plain, plain)),
    ]:
        assert ours(w).dtype == np.float32
        np.testing.assert_array_equal(ours(w), expected(w))
        assert constraints.serialize(ours) == constraints.serialize(expected)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7, 8])
def test_radial_is_that_of_keras(size, keras):
    w = weights((size, size, 3, 2), np.float32)
    before = w.copy()
    projected = constraints.RadialConstraint()(w)
    np.testing.assert_array_equal(projected, keras.constraints.RadialConstraint()(keras.backend.constant(w)))
    np.testing.assert_array_equal(w, before)
    assert projected.dtype == np.float32


@pytest.mark.parametrize(
    "shape", [(3,), (3, 3), (3,) * 3, (3,) * 5, (1, 1, 2, 2), (3, 4, 1, 1), (4, 3, 1, 1)]
)
def test_radial_needs_square_kernels(shape, keras):
    with pytest.raises(ValueError, match=r"w must have shape \(size, size, channels, filters\), .* got \("):
        constraints.RadialConstraint()(np.ones(shape))
    error = error_of(keras.constraints.RadialConstraint(), keras.backend.ones(shape))
    assert error is ValueError or (len(shape) == 4 and error.__name__ == "InvalidArgumentError")


# ---- identifiers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "names"), NAMES.items())
def test_name_gives_the_config_of_keras(cls, names, keras):
    for name in names:
        constraint = constraints.get(name)
        assert type(constraint) is cls
        assert constraints.serialize(constraint) == keras.constraints.serialize(keras.constraints.get(name))
        old = {"class_name": name, "config": {}}
        assert constraints.get(old).get_config() == keras.constraints.get(old).get_config()


def test_every_alias_of_keras_is_there(keras):
    public = {name for name in dir(keras.constraints) if not name.startswith("_")}
    for name in public - {"Constraint", "get", "serialize", "deserialize"}:
        assert getattr(constraints, name) is type(constraints.get(name)), name
    assert {"max_norm", "MinMaxNorm"} <= public


@pytest.mark.parametrize("constraint", [*ALL, constraints.RadialConstraint()], ids=repr)
def test_config_is_that_of_keras_and_comes_back(constraint, keras):
    config = constraints.serialize(constraint)
    before = copy.deepcopy(config)
    assert keras.constraints.serialize(keras.constraints.get(config)) == config
    config["build_config"] = None
    again = constraints.get(config)
    assert type(again) is type(constraint)
    assert constraints.serialize(again) == before
    old = {"class_name": config["class_name"], "config": config["config"]}
    assert constraints.serialize(constraints.get(old)) == before
    assert config == before | {"build_config": None}


def test_none_class_instance_and_callable_are_taken():
    def custom(w):
        return w / 2

    instance = constraints.MaxNorm(3)
    assert constraints.get(None) is None
    assert constraints.serialize(None) is None
    assert constraints.get(instance) is instance
    assert constraints.get(custom) is custom
    assert constraints.serialize(custom) is custom
    assert constraints.get(constraints.MinMaxNorm).get_config() == constraints.MinMaxNorm().get_config()


@pytest.mark.parametrize("name", ["abcd", "", "minmaxnorm", "Max_Norm", "get", "backend"])
def test_unknown_name_is_an_error_that_lists_the_known_ones(name):
    for identifier in (name, {"class_name": name, "config": {}}, NEW | {"class_name": name, "config": {}}):
        with pytest.raises(ValueError, match=f"^Unknown constraint: '{name}'") as caught:
            constraints.get(identifier)
        for known in ("max_norm", "non_neg", "unit_norm", "min_max_norm", "radial_constraint"):
            assert known in str(caught.value).split("Known names: ")[1].split(", ")


@pytest.mark.parametrize(
    "identifier",
    [
        *[3, 2.5, True, False, ..., [], ["non_neg"], ("non_neg",), b"non_neg", np.float32(3), np.zeros(2)],
        *["abcd", "", {}, {"config": {}}, {"class_name": "NonNeg"}, NEW | {"config": {}}],
        *[{"class_name": name, "config": {}} for name in ("abcd", None, 3)],
        {"class_name": "MaxNorm", "config": {"bogus": 1}},
        {"class_name": "NonNeg", "config": {"bogus": 1}},
        NEW | {"class_name": "UnitNorm", "config": {"bogus": 1}},
        {"module": None, "class_name": "NonNeg", "config": {}, "registered_name": "NonNeg"},
    ],
    ids=repr,
)
def test_bad_identifier_is_the_error_of_keras(identifier, keras):
    assert error_of(constraints.get, identifier) is error_of(keras.constraints.get, identifier)


@pytest.mark.parametrize("identifier", [{"class_name": "NonNeg", "config": None}, NEW | {"class_name": 3}])
def test_malformed_dict_is_a_value_error(identifier):
    with pytest.raises(ValueError, match="constraint as a dict must have the key 'class_name'"):
        constraints.get(identifier)


@pytest.mark.parametrize("identifier", [3, ["non_neg"], b"non_neg", int])
def test_useless_identifier_is_named_in_the_error(identifier):
    with pytest.raises(ValueError, match=r"^constraint must be None, a name, .* got ") as caught:
        constraints.get(identifier)
    assert str(caught.value).endswith(repr(identifier))


# ---- objects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("constraint", ALL, ids=repr)
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))])
def test_copies_project_the_same(constraint, clone):
    again = clone(constraint)
    assert again is not constraint
    np.testing.assert_array_equal(again(weights()), constraint(weights()))


@pytest.mark.parametrize("constraint", ALL, ids=repr)
def test_repr_is_the_call_that_makes_it(constraint):
    again = eval(repr(constraint), vars(constraints))
    assert type(again) is type(constraint)
    assert again.get_config() == constraint.get_config()


def test_base_class_has_no_projection():
    class Mine(constraints.Constraint):
        pass

    with pytest.raises(NotImplementedError, match="Mine does not define __call__"):
        Mine()(weights())
