"""Regularizers against their formulas and against Keras."""

import copy
import pickle

import numpy as np
import pytest

from fastgru import regularizers

ALL = [
    regularizers.L1(0.3),
    regularizers.L2(0.07),
    regularizers.L1L2(0.3, 0.07),
    regularizers.L1L2(l2=0.07),
    regularizers.OrthogonalRegularizer(0.2),
    regularizers.OrthogonalRegularizer(0.2, "columns"),
]
NAMES = ["l1", "L1", "l2", "L2", "l1_l2", "L1L2", "orthogonal_regularizer", "OrthogonalRegularizer"]
NEW = {"module": "keras.regularizers"}


def weights(shape=(5, 8), dtype=np.float64):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def error_of(function, *arguments):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*arguments)
    return caught.type


# ---- penalties -----------------------------------------------------------------------------------


def test_l1_is_the_sum_of_magnitudes():
    assert regularizers.L1(0.5)(np.array([[1.0, -2.0], [0.0, 4.0]])) == 3.5


def test_l2_is_the_sum_of_squares_without_a_half():
    assert regularizers.L2(0.5)(np.array([[1.0, -2.0], [0.0, 4.0]])) == 10.5


def test_l1_l2_adds_both_and_leaves_out_zero_strengths():
    w = np.array([1.0, -2.0, 4.0])
    assert regularizers.L1L2(0.5, 0.25)(w) == 3.5 + 5.25
    assert regularizers.L1L2(l1=0.5)(w) == 3.5
    assert regularizers.L1L2(l2=0.25)(w) == 5.25
    assert regularizers.L1L2()(np.array([np.inf])) == 0


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_orthogonal_is_the_mean_cosine_of_all_pairs(mode):
    w = weights((4, 6))
    vectors = list(w if mode == "rows" else w.T)
    cosines = [
        abs(u @ v) / (np.linalg.norm(u) * np.linalg.norm(v))
        for i, u in enumerate(vectors)
        for v in vectors[:i]
    ]
    penalty = regularizers.OrthogonalRegularizer(0.5, mode)(w)
    assert penalty == pytest.approx(0.5 * np.mean(cosines), rel=1e-13)


def test_orthogonal_is_zero_for_orthogonal_and_for_zero_vectors():
    assert regularizers.OrthogonalRegularizer()(np.diag([1.0, -2.0, 3.0])) == 0
    assert regularizers.OrthogonalRegularizer()(np.zeros((2, 3))) == 0


@pytest.mark.parametrize("shape", [(1, 3), (0, 3)])
def test_orthogonal_is_nan_without_pairs_as_in_keras(shape, keras):
    assert np.isnan(regularizers.OrthogonalRegularizer()(np.ones(shape, np.float32)))
    assert np.isnan(keras.regularizers.OrthogonalRegularizer()(keras.backend.ones(shape)))


@pytest.mark.parametrize("regularizer", ALL, ids=repr)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float16, 4e-3), (np.float32, 1e-6), (np.float64, 1e-14)])
def test_penalty_is_that_of_keras_in_the_dtype_of_the_weights(regularizer, dtype, rtol, keras):
    w = weights(dtype=dtype)
    before = w.copy()
    original = keras.regularizers.get(regularizers.serialize(regularizer))
    penalty = regularizer(w)
    assert isinstance(penalty, np.generic)
    assert penalty.dtype == dtype
    np.testing.assert_allclose(penalty, original(keras.backend.constant(w, dtype=dtype)).numpy(), rtol=rtol)
    np.testing.assert_array_equal(w, before)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), ()])
def test_orthogonal_needs_a_matrix(shape, keras):
    with pytest.raises(ValueError, match="w must have 2 axes for OrthogonalRegularizer, got shape"):
        regularizers.OrthogonalRegularizer()(np.ones(shape))
    assert error_of(keras.regularizers.OrthogonalRegularizer(), keras.backend.ones(shape)) is ValueError


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0, 0.1, 1, True, -2.5, None, np.float64(0.1), 1e-30])
def test_strengths_are_rounded_to_float32_as_by_keras(strength, keras):
    for name in ("L1", "L2"):
        ours, theirs = getattr(regularizers, name)(strength), getattr(keras.regularizers, name)(strength)
        assert ours.get_config() == theirs.get_config()
        ours = getattr(regularizers, name)(l=strength)
        assert ours.get_config() == theirs.get_config()
    for both in ((strength, 0.5), (0.5, strength)):
        assert regularizers.L1L2(*both).get_config() == keras.regularizers.L1L2(*both).get_config()


def test_default_strength_is_a_rounded_hundredth():
    assert regularizers.L2().get_config() == {"l2": 0.009999999776482582}


@pytest.mark.parametrize("strength", [np.nan, np.inf, -np.inf, "a", [1], np.float32(0.1), np.int64(1), 1j])
def test_other_strengths_are_refused_as_by_keras(strength, keras):
    for name in ("L1", "L2", "L1L2", "OrthogonalRegularizer"):
        with pytest.raises(ValueError, match=r"(l1|l2|factor) must be a finite int or float, got "):
            getattr(regularizers, name)(strength)
        assert error_of(getattr(keras.regularizers, name), strength) is ValueError
    with pytest.raises(ValueError, match="l2 must be a finite int or float, got "):
        regularizers.L1L2(0.1, strength)


def test_orthogonal_factor_has_no_none():
    with pytest.raises(ValueError, match="factor must be a finite int or float, got None"):
        regularizers.OrthogonalRegularizer(None)


@pytest.mark.parametrize("mode", ["row", None, 3])
def test_orthogonal_mode_is_checked(mode, keras):
    with pytest.raises(ValueError, match=f"mode must be 'rows' or 'columns', got {mode!r}"):
        regularizers.OrthogonalRegularizer(mode=mode)
    assert error_of(keras.regularizers.OrthogonalRegularizer, 0.1, mode) is ValueError


def test_unknown_argument_is_a_type_error():
    with pytest.raises(TypeError, match="bogus"):
        regularizers.L1(bogus=1)


# ---- identifiers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_name_gives_the_config_of_keras(name, keras):
    config = regularizers.serialize(regularizers.get(name))
    assert config == keras.regularizers.serialize(keras.regularizers.get(name))
    old = {"class_name": name, "config": {}}
    assert regularizers.get(old).get_config() == keras.regularizers.get(old).get_config()


def test_l1_l2_and_its_class_have_different_defaults(keras):
    assert regularizers.get("l1_l2").get_config() == {"l1": 0.009999999776482582, "l2": 0.009999999776482582}
    assert regularizers.get("L1L2").get_config() == {"l1": 0.0, "l2": 0.0}
    for given in ((), (0.5,), (0.5, 0.25)):
        assert regularizers.l1_l2(*given).get_config() == keras.regularizers.l1_l2(*given).get_config()
    identifier = {"class_name": "l1_l2", "config": {"l1": 0.5}}
    assert regularizers.get(identifier).get_config() == keras.regularizers.get(identifier).get_config()


def test_every_alias_of_keras_is_there(keras):
    public = {name for name in dir(keras.regularizers) if name[0] in "lLO" or name.startswith("orth")}
    assert public == set(NAMES)
    for name in sorted(public - {"l1_l2"}):
        assert getattr(regularizers, name) is type(regularizers.get(name))


@pytest.mark.parametrize("regularizer", ALL, ids=repr)
def test_config_is_that_of_keras_and_comes_back(regularizer, keras):
    config = regularizers.serialize(regularizer)
    before = copy.deepcopy(config)
    assert keras.regularizers.serialize(keras.regularizers.get(config)) == config
    config["build_config"] = {"input_shape": (2, 3)}
    again = regularizers.get(config)
    assert type(again) is type(regularizer)
    assert regularizers.serialize(again) == before
    old = {"class_name": config["class_name"], "config": config["config"]}
    assert regularizers.serialize(regularizers.get(old)) == before
    assert config == before | {"build_config": {"input_shape": (2, 3)}}


def test_old_argument_name_is_read_from_configs(keras):
    identifier = {"class_name": "l1", "config": {"l": 0.25}}
    assert regularizers.get(identifier).get_config() == {"l1": 0.25}
    assert keras.regularizers.get(identifier).get_config() == {"l1": 0.25}


def test_none_class_instance_and_callable_are_taken():
    def custom(w):
        return w.max()

    instance = regularizers.L1(0.5)
    assert regularizers.get(None) is None
    assert regularizers.serialize(None) is None
    assert regularizers.get(instance) is instance
    assert regularizers.get(custom) is custom
    assert regularizers.serialize(custom) is custom
    assert regularizers.get(regularizers.L2).get_config() == {"l2": 0.009999999776482582}


@pytest.mark.parametrize("name", ["abcd", "", "l3", "L1_L2", "get", "math"])
def test_unknown_name_is_an_error_that_lists_the_known_ones(name):
    for identifier in (name, {"class_name": name, "config": {}}, NEW | {"class_name": name, "config": {}}):
        with pytest.raises(ValueError, match=f"^Unknown regularizer: '{name}'") as caught:
            regularizers.get(identifier)
        for known in ("l1", "l2", "l1_l2", "orthogonal_regularizer"):
            assert known in str(caught.value).split("Known names: ")[1].split(", ")


@pytest.mark.parametrize(
    "identifier",
    [
        *[3, 2.5, True, False, ..., [], ["l1"], ("l1",), b"l1", np.float32(3), np.zeros(2)],
        *[{}, {"config": {}}, {"class_name": "L1"}, NEW | {"config": {}}],
        *[{"class_name": name, "config": {}} for name in ("abcd", None, 3)],
        {"class_name": "L1", "config": {"bogus": 1}},
        {"class_name": "L1", "config": {"l1": "a"}},
        NEW | {"class_name": "L1L2", "config": {"bogus": 1}},
        NEW | {"class_name": "OrthogonalRegularizer", "config": {"mode": "x"}},
        {"module": None, "class_name": "L1", "config": {}, "registered_name": "L1"},
    ],
    ids=repr,
)
def test_bad_identifier_is_the_error_of_keras(identifier, keras):
    assert error_of(regularizers.get, identifier) is error_of(keras.regularizers.get, identifier)


@pytest.mark.parametrize("identifier", [{"class_name": "L1", "config": None}, NEW | {"class_name": 3}])
def test_malformed_dict_is_a_value_error(identifier):
    with pytest.raises(ValueError, match="regularizer as a dict must have the key 'class_name'"):
        regularizers.get(identifier)


@pytest.mark.parametrize("identifier", [3, ["l1"], b"l1", int])
def test_useless_identifier_is_named_in_the_error(identifier):
    with pytest.raises(ValueError, match=r"^regularizer must be None, a name, .* got ") as caught:
        regularizers.get(identifier)
    assert str(caught.value).endswith(repr(identifier))


# ---- objects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("regularizer", ALL, ids=repr)
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))])
def test_copies_penalize_the_same(regularizer, clone):
    again = clone(regularizer)
    assert again is not regularizer
    assert again(weights()) == regularizer(weights())


@pytest.mark.parametrize("regularizer", ALL, ids=repr)
def test_repr_is_the_call_that_makes_it(regularizer):
    again = eval(repr(regularizer), vars(regularizers))
    assert type(again) is type(regularizer)
    assert again.get_config() == regularizer.get_config()


def test_base_class_has_no_penalty():
    class Mine(regularizers.Regularizer):
        pass

    with pytest.raises(NotImplementedError, match="Mine does not define __call__"):
        Mine()(weights())
