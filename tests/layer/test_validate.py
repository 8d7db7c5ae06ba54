"""Wrong use: the class of the error, its words, and that the layer stays as it was."""

import array
import copy
import pickle
import warnings

import numpy as np
import pytest

import fastgru

X = np.zeros((2, 3, 4), np.float32)


def same(arrays, others):
    """Are they views of the same arrays, one by one?"""
    return all(a.base is b.base is not None for a, b in zip(arrays, others, strict=True))


def equal(states, others):
    """Have both the same values, if any?"""
    return all(np.array_equal(a, b) for a, b in zip(states, others, strict=True))


class Strange:
    """Says it is an array and is none."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no")


CONSTRUCTOR = [
    ({"units": 0}, ValueError, "units must be a positive integer, got 0"),
    ({"units": -3}, ValueError, "units must be a positive integer, got -3"),
    ({"units": 3.0}, TypeError, r"units must be an integer, got 3\.0"),
    ({"units": True}, TypeError, "units must be an integer, got True"),
    ({"units": "3"}, TypeError, "units must be an integer, got '3'"),
    ({"units": None}, TypeError, "units must be an integer, got None"),
    ({"units": 2**31}, ValueError, "units must be at most 715827882"),
    ({"activation": "abcd"}, ValueError, "Unknown activation: 'abcd'. Known names: .*tanh"),
    ({"recurrent_activation": 7}, TypeError, "activation must be .* got 7"),
    ({"kernel_initializer": "abcd"}, ValueError, "Unknown initializer: 'abcd'. Known names"),
    ({"bias_regularizer": "abcd"}, ValueError, "Unknown regularizer: 'abcd'. Known names"),
    ({"recurrent_constraint": "abcd"}, ValueError, "Unknown constraint: 'abcd'. Known names"),
    ({"dropout": None}, TypeError, "dropout must be a number, got None"),
    ({"recurrent_dropout": "a"}, TypeError, "recurrent_dropout must be a number, got 'a'"),
    ({"implementation": 3}, ValueError, "implementation must be 1 or 2, got 3"),
    ({"implementation": None}, ValueError, "implementation must be 1 or 2, got None"),
    ({"dtype": "int32"}, ValueError, "dtype must be one of float32, float64, float16, got 'int32'"),
    ({"dtype": np.complex64}, ValueError, "dtype must be one of"),
    ({"dtype": "mixed_float16"}, ValueError, "dtype must be one of"),
    ({"name": 3}, TypeError, "`name` argument to be a string, got 3"),
    ({"trainable": None}, TypeError, "`trainable` argument to be a boolean, got None"),
    ({"trainable": 1}, TypeError, "`trainable` argument to be a boolean, got 1"),
    ({"seed": 3}, TypeError, "Keyword argument not understood:', 'seed'"),
    ({"use_cudnn": "auto"}, TypeError, "Keyword argument not understood:', 'use_cudnn'"),
    ({"input_shape": 3}, ValueError, "input_shape must be a shape"),
    ({"input_shape": (2.5, 3)}, TypeError, "input_shape must hold integers and None, got 2.5"),
    ({"input_dim": -1}, ValueError, "input_dim must hold sizes of 0 or more, got -1"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), CONSTRUCTOR)
def test_the_constructor_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        fastgru.GRU(**({"units": 2} | arguments))


CALLS = [
    ({"inputs": None}, TypeError, "inputs must be an array, got NoneType"),
    ({"inputs": 3.0}, TypeError, "inputs must be an array, got float"),
    ({"inputs": "abc"}, TypeError, "inputs must be an array, got str"),
    ({"inputs": {}}, TypeError, "inputs must be an array, got dict"),
    ({"inputs": []}, TypeError, "got a list"),
    ({"inputs": X.tolist()}, TypeError, "got a list that starts with no array"),
    ({"inputs": (X,)}, TypeError, "inputs must be an array, got tuple"),
    ({"inputs": Strange()}, TypeError, "inputs must be an array, got Strange: no"),
    (
        {"inputs": X > 0},
        TypeError,
        r"inputs must be an array of float32, got bool: cast it with .astype\('float32'\)",
    ),
    ({"inputs": X.astype(int)}, TypeError, "got int64: cast it"),
    ({"inputs": X.astype(np.uint8)}, TypeError, "got uint8: cast it"),
    ({"inputs": X.astype(complex)}, TypeError, "got complex128: cast it"),
    ({"inputs": X.astype(str)}, TypeError, "got <U32: cast it"),
    ({"inputs": X.astype(object)}, TypeError, "got object: cast it"),
    ({"inputs": X[0]}, ValueError, r"expected ndim=3, found ndim=2. Full shape received: \(3, 4\)"),
    ({"inputs": X[..., None]}, ValueError, "expected ndim=3, found ndim=4"),
    ({"inputs": X[..., :2]}, ValueError, r"expected shape=\(.*, None, 4\), found shape=\(2, 3, 2\)"),
    ({"inputs": X[:, :0]}, ValueError, r"at least one timestep, got shape \(2, 0, 4\)"),
    ({"mask": np.ones((2, 4))}, ValueError, r"mask must have shape \(2, 3\), got \(2, 4\)"),
    ({"mask": np.ones((1, 3))}, ValueError, r"mask must have shape \(2, 3\), got \(1, 3\)"),
    ({"mask": np.ones((3, 2))}, ValueError, r"mask must have shape \(2, 3\), got \(3, 2\)"),
    ({"mask": np.ones(3)}, ValueError, r"mask must have shape \(2, 3\), got \(3,\)"),
    ({"mask": np.ones((2, 3, 5))}, ValueError, r"mask must have shape \(2, 3\), got \(2, 3, 5\)"),
    ({"mask": np.full((2, 3), "a")}, ValueError, "mask must be castable to bool, got <U1"),
    ({"mask": [[True], [True, False]]}, ValueError, "mask must have shape"),
    ({"mask": 3}, ValueError, r"mask must have shape \(2, 3\), got \(\)"),
    (
        {"initial_state": np.zeros((1, 5), "f")},
        ValueError,
        r"initial_state must have shape \(2, 5\), got \(1, 5\)",
    ),
    (
        {"initial_state": np.zeros((2, 6), "f")},
        ValueError,
        r"initial_state must have shape \(2, 5\), got \(2, 6\)",
    ),
    ({"initial_state": np.zeros(5, "f")}, ValueError, r"initial_state must have shape \(2, 5\), got \(5,\)"),
    ({"initial_state": []}, ValueError, "initial_state must be one state, got 0"),
    ({"initial_state": [np.zeros((2, 5))] * 2}, ValueError, "initial_state must be one state, got 2"),
    (
        {"initial_state": np.zeros((2, 5), int)},
        TypeError,
        "initial_state must be an array of float32, got int64",
    ),
    ({"initial_state": [None]}, TypeError, "initial_state must be an array, got NoneType"),
    ({"inputs": [X, X[:, 0, :1]]}, ValueError, "initial_state must have shape"),
    ({"inputs": [X, np.zeros((2, 5))], "initial_state": np.zeros((2, 5))}, ValueError, "given once"),
    ({"training": "yes"}, TypeError, "training must be True, False or None, got 'yes'"),
    ({"training": 2}, TypeError, "training must be True, False or None, got 2"),
    ({"out": []}, TypeError, "out must be a NumPy array, got list"),
    ({"out": np.empty((2, 5))}, ValueError, "out must have dtype float32, got float64"),
    ({"out": np.empty((2, 4), "f")}, ValueError, r"out must have shape \(2, 5\), got \(2, 4\)"),
    ({"out": np.broadcast_to(np.float32(0), (2, 5))}, ValueError, "out must be writeable"),
]


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize(("arguments", "error", "message"), CALLS)
def test_a_call_refuses_and_changes_nothing(arguments, error, message, built, stateful):
    layer = fastgru.GRU(5, stateful=stateful)
    if built or "expected shape" in message:
        layer.build((2, None, 4))
        if stateful:
            layer.reset_states(np.ones((2, 5)))
    weights, states, was_built = layer.weights, layer.states, layer.built
    spec, config = layer.input_spec, layer.get_config()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=message):
            layer(**({"inputs": X} | arguments))
    assert (layer.built, layer.input_spec, layer.get_config()) == (was_built, spec, config)
    assert same(layer.weights, weights)
    assert equal(layer.states, states)


@pytest.mark.parametrize("stateful", [False, True])
def test_out_must_not_overlap_what_is_read(stateful):
    layer = fastgru.GRU(4, return_sequences=True, stateful=stateful)
    buffer = np.zeros((2, 6, 4), np.float32)
    x = buffer[:, :3]
    layer(x)
    for out in (x, buffer[:, 2:5], buffer[:, ::2]):
        with pytest.raises(ValueError, match="out must not overlap"):
            layer(x, out=out)
    layer(x, out=buffer[:, 3:])
    last = fastgru.GRU(4)
    state = np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match="out must not overlap"):
        last(x, state, out=state)


def test_a_stateful_layer_refuses_another_batch_and_an_empty_one():
    layer = fastgru.GRU(5, stateful=True)
    with pytest.raises(ValueError, match="needs to know its batch size"):
        layer(X[:0])
    with pytest.raises(ValueError, match="needs to know its batch size"):
        layer.build((None, None, 4))
    assert not layer.built
    layer(X)
    with pytest.raises(ValueError, match=r"expected shape=\(2, None, 4\), found shape=\(1, 3, 4\)"):
        layer(X[:1])


def test_other_float_types_are_cast_and_the_rest_is_not():
    layer = fastgru.GRU(5)
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    wanted = layer(x.astype(np.float32))
    for given in (x, x.astype(">f4"), x.astype(np.longdouble), memoryview(x), np.ma.masked_array(x)):
        np.testing.assert_allclose(layer(given), wanted, atol=1e-6)
    np.testing.assert_allclose(layer(x.astype(np.float16)), wanted, atol=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(np.full((1, 1, 4), 1e300))
    with pytest.raises(ValueError, match="found ndim=1"):
        layer(array.array("f", [1.0]))


SET_WEIGHTS = [
    ([], ValueError, "weight list of length 0, but the layer was expecting 3 weights"),
    (None, TypeError, "weights must be a list of arrays, got NoneType"),
    ("abc", TypeError, "weights must be a list of arrays, got str"),
    (
        [np.zeros((4, 15)), np.zeros((15, 5)), np.zeros(15)],
        ValueError,
        r"shape \(5, 15\) is not compatible .* \(15, 5\)",
    ),
    (
        [np.zeros((4, 15)), np.zeros((5, 15)), np.zeros((2, 15))],
        ValueError,
        r"shape \(15,\) is not compatible",
    ),
    (
        [np.zeros((4, 15)), np.zeros((5, 15)), np.full(15, "a")],
        TypeError,
        "weight must be an array of float32, got <U1",
    ),
    (
        [np.zeros((4, 15)), np.zeros((5, 15)), None],
        TypeError,
        "weight must be an array of float32, got object",
    ),
    ([np.zeros((4, 15)), np.zeros((5, 15)), [[1], [1, 2]]], ValueError, "weight must have shape"),
]


@pytest.mark.parametrize(("weights", "error", "message"), SET_WEIGHTS)
def test_set_weights_takes_all_or_nothing(weights, error, message):
    layer = fastgru.GRU(5)
    layer(X)
    before = layer.weights
    with pytest.raises(error, match=message):
        layer.set_weights(weights)
    assert same(layer.weights, before)


def test_weights_of_the_constructor_are_checked_when_it_builds():
    layer = fastgru.GRU(5, weights=[np.zeros((3, 15)), np.zeros((5, 15)), np.zeros(15)])
    with pytest.raises(ValueError, match=r"weight shape \(4, 15\) is not compatible"):
        layer(X)
    assert not layer.built
    assert layer(np.zeros((1, 1, 3), np.float32)).shape == (1, 5)


RESETS = [
    ([np.zeros((2, 5))] * 2, ValueError, "expects 1 states, but it received 2"),
    (np.zeros((1, 5)), ValueError, r"expected shape=\(2, 5\), found shape=\(1, 5\)"),
    ([], ValueError, "expects 1 states, but it received 0"),
    (np.zeros((2, 5), complex), ValueError, "dtype that can be cast to float32, got complex128"),
    (np.full((2, 5), "1"), ValueError, "dtype that can be cast to float32, got <U1"),
    (3.0, ValueError, r"found shape=\(\)"),
]


@pytest.mark.parametrize(("states", "error", "message"), RESETS)
def test_reset_states_takes_a_state_that_fits(states, error, message):
    layer = fastgru.GRU(5, stateful=True)
    layer(X)
    layer.reset_states(np.ones((2, 5)))
    before = layer.states[0]
    with pytest.raises(error, match=message):
        layer.reset_states(states)
    assert equal(layer.states, [before])


def test_reset_states_needs_a_stateful_layer_of_known_batch():
    with pytest.raises(AttributeError, match="Layer must be stateful"):
        fastgru.GRU(5).reset_states()
    with pytest.raises(ValueError, match="needs to know its batch size"):
        fastgru.GRU(5, stateful=True, batch_input_shape=(2, None, 4)).reset_states()


def test_build_refuses_shapes_that_are_none():
    layer = fastgru.GRU(5)
    for shape, error in ((None, ValueError), (3, ValueError), ((2, 3), TypeError), ((2, 3, None), TypeError)):
        with pytest.raises(error, match="input_shape must be"):
            layer.build(shape)
    layer.build((2, 3, 4))
    with pytest.raises(ValueError, match="input_shape must end in 4"):
        layer.build((2, 3, 5))
    layer.build((None, None, 4))


def test_build_takes_the_shape_of_the_constructor():
    for arguments in (
        {"batch_input_shape": (2, None, 4)},
        {"input_shape": (None, 4), "batch_size": 2},
        {"input_dim": 4, "input_length": 3, "batch_size": 2},
    ):
        layer = fastgru.GRU(5, stateful=True, **arguments)
        layer.build()
        assert layer.weights[0].shape == (4, 15)
        assert layer.states[0].shape == (2, 5)


def test_arguments_are_read_only_properties():
    layer = fastgru.GRU(5)
    for name in ("units", "activation", "kernel_initializer", "dropout", "reset_after", "states", "built"):
        with pytest.raises(AttributeError):
            setattr(layer, name, 1)


def test_count_params_needs_a_built_layer():
    layer = fastgru.GRU(5, reset_after=True)
    with pytest.raises(ValueError, match="isn't built"):
        layer.count_params()
    layer(X)
    assert layer.count_params() == 4 * 15 + 5 * 15 + 30


# ---- what changes behind a call's back -------------------------------------------------------------


def test_flags_changed_after_building_are_followed_or_refused():
    layer = fastgru.GRU(4)
    layer(X)
    layer.stateful = True
    layer(X)
    with pytest.raises(ValueError, match=r"expected shape=\(2, None, 4\), found shape=\(2000, 3, 4\)"):
        layer(np.zeros((2000, 3, 4), np.float32))
    layer = fastgru.GRU(4, stateful=True)
    layer.build((2, None, 4))
    layer.time_major = True
    with pytest.raises(ValueError, match=r"expected shape=\(None, 2, 4\), found shape=\(2, 5000, 4\)"):
        layer(np.zeros((2, 5000, 4), np.float32))
    assert layer(np.zeros((5, 2, 4), np.float32)).shape == (2, 4)


@pytest.mark.parametrize("change", ["build", "time_major", "stateful", "return_sequences"])
def test_code_behind_an_argument_may_change_the_layer(change):
    layer = fastgru.GRU(4)

    class Mask:
        ndim = 2

        def __array__(self, *args, **kwargs):
            if change == "build":
                layer.build((None, None, 1_000_000))
            else:
                setattr(layer, change, True)
            return np.ones((2, 3), bool)

    if change == "build":
        with pytest.raises(ValueError, match=r"expected shape=\(None, None, 1000000\)|must end in 1000000"):
            layer(X, mask=Mask())
    else:
        assert layer(X, mask=Mask()).shape == (2, 4)


def test_out_is_what_it_is_and_not_what_it_says():
    class Liar(np.ndarray):
        shape = property(lambda self: (2, 3, 4))

    layer = fastgru.GRU(4, return_sequences=True)
    with pytest.raises(ValueError, match=r"out must have shape \(2, 3, 4\), got \(2, 1, 4\)"):
        layer(X, out=np.zeros((2, 1, 4), np.float32).view(Liar))
    out = np.zeros((2, 3, 4), np.float32).view(np.matrix.__base__)
    assert layer(X, out=out) is out


def test_out_must_not_overlap_inputs_that_are_cast():
    buffer = np.zeros((2, 3, 8))
    with pytest.raises(ValueError, match="out must not overlap"):
        fastgru.GRU(8, return_sequences=True)(buffer, out=buffer.view(np.float32)[..., :8])


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # of NumPy 2.5
def test_what_layers_hand_out_does_not_lead_into_them():
    layer = fastgru.GRU(4, stateful=True)
    layer(X)
    for twin in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        for handed_out in (*twin.weights, *twin.states):
            assert not handed_out.flags.writeable
            handed_out.shape = (handed_out.size,)
        assert twin(X).shape == (2, 4)
        assert [w.shape for w in twin.weights] == [(4, 12), (4, 12), (12,)]


def test_an_error_in_a_loss_does_not_advance_the_state():
    layer = fastgru.GRU(
        4, stateful=True, return_sequences=True, activity_regularizer="orthogonal_regularizer"
    )
    layer.build(X.shape)
    with pytest.raises(ValueError, match="must have 2 axes"):
        layer(X + 1)
    assert not layer.states[0].any()


def test_a_stateful_build_that_fails_leaves_the_layer_unbuilt():
    layer = fastgru.GRU(4, stateful=True)
    with pytest.raises((MemoryError, ValueError)):
        layer.build((2**60, None, 4))
    assert not layer.built
    assert layer.input_spec == [fastgru.InputSpec(ndim=3)]


def test_numbers_beyond_floats_are_no_surprise():
    assert fastgru.GRU(3, dropout=10**400).dropout == 1.0
    for make in (fastgru.regularizers.L2, fastgru.activations.LeakyReLU):
        with pytest.raises(ValueError, match="must be a"):
            make(10**400)
    layer = fastgru.GRU(3, kernel_initializer=fastgru.initializers.Constant(1e300), kernel_regularizer="l2")
    layer.build(X.shape)
    assert layer.losses == [np.inf]


def test_a_callable_may_return_the_same_array_each_time():
    buffer = np.empty((2, 4), np.float32)
    arguments = {"weights": [np.ones((4, 12)), np.ones((4, 12)), np.ones(12)]}
    reused = fastgru.GRU(4, recurrent_activation=lambda x: np.tanh(x, out=buffer), **arguments)
    fresh = fastgru.GRU(4, recurrent_activation="tanh", **arguments)
    np.testing.assert_allclose(reused(X - 1), fresh(X - 1), atol=1e-6)
