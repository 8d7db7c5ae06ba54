"""Layers whose weights are int8: which are refused, what others see of them, and every kind of layer."""

import copy
import io
import pickle
import tracemalloc

import numpy as np
import pytest
from conftest import CHOICES

import fastgru
from fastgru import _config

UNITS, FEATURES = 9, 6


@pytest.fixture(params=CHOICES, ids="-".join)
def choice(request, monkeypatch):
    """Every engine on every instruction set in turn."""
    monkeypatch.setattr(_config, "CHOICE", request.param)
    return request.param


def random_weights(seed=0, reset_after=False, units=UNITS, features=FEATURES):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(n, 3 * units)) / n**0.5 for n in (features, units)]
    weights.append(rng.normal(size=(2, 3 * units) if reset_after else 3 * units) / 10)
    return [w.astype(np.float32) for w in weights]


def rounded(weights):
    """The kernels as int8 has them, all else as it is."""
    scales = [np.abs(w).max(axis=0) / np.float32(127) for w in weights[:2]]
    return [np.rint(w / s) * s for w, s in zip(weights, scales, strict=False)] + weights[2:]


def layer_with(weights, **options):
    layer = fastgru.GRU(weights[1].shape[0], **options)
    layer.build((4, None, weights[0].shape[0]))
    layer.set_weights(weights)
    return layer


def inputs(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


OPTIONS = {
    "reset before": {},
    "reset after": {"reset_after": True},
    "relu": {"activation": "relu", "recurrent_activation": "sigmoid"},
    "backwards": {"go_backwards": True, "zero_output_for_mask": True},
    "no bias": {"use_bias": False},
    "softmax": {"activation": "softmax"},
    "a callable": {"recurrent_activation": lambda x: np.clip(x, 0, 1)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_results_are_near_those_of_rounded_weights(choice, options):
    weights = random_weights(0, "reset_after" in options)[: 3 - ("use_bias" in options)]
    flags = {"return_sequences": True, "return_state": True}
    small = layer_with(weights, weights_dtype="int8", **options, **flags)
    plain, exact = (layer_with(w, **options, **flags) for w in (rounded(weights), weights))
    x, mask = inputs(4, 7, FEATURES), np.random.default_rng(2).random((4, 7)) < 0.7
    for arguments in ({}, {"mask": mask}, {"lengths": [7, 0, 3, 5]}, {"initial_state": inputs(4, UNITS)}):
        found = small(x, **arguments)
        for ours, theirs in zip(found, plain(x, **arguments), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)  # 16-bit inputs and states
        assert np.abs(found[0] - exact(x, **arguments)[0]).max() > 1e-4


def test_every_engine_computes_them_alike(choice, monkeypatch):
    weights, x = random_weights(3), inputs(3, 5, FEATURES)
    found = layer_with(weights, weights_dtype="int8")(x)
    monkeypatch.setattr(_config, "CHOICE", choice._replace(engine="packed"))
    assert layer_with(weights, weights_dtype="int8")(x).tobytes() == found.tobytes()


def test_layers_of_them_stream_and_stack(choice):
    lower, upper = (
        layer_with(random_weights(i, True, UNITS, FEATURES if i == 0 else UNITS), weights_dtype="int8",
                   reset_after=True, return_sequences=True)
        for i in range(2)
    )  # fmt: skip
    stack, x = fastgru.Stack([lower, upper]), inputs(2, 6, FEATURES)
    wanted = upper(lower(x))
    assert stack(x).tobytes() == wanted.tobytes()
    stream, pool = stack.stream(2), fastgru.StreamPool(stack, 3)
    slots = [pool.open() for _ in range(2)]
    for step in range(6):
        assert stream(x[:, step]).tobytes() == wanted[:, step].tobytes()
        assert pool.step(slots, x[:, step]).tobytes() == wanted[:, step].tobytes()
    both = fastgru.Bidirectional(fastgru.GRU(UNITS, weights_dtype="int8", return_sequences=True))
    both.build((2, 6, FEATURES))
    forward, backward = both.forward_layer, both.backward_layer
    assert forward.weights_dtype == backward.weights_dtype == "int8"
    sides = forward(x), backward(x)[:, ::-1]
    assert both(x).tobytes() == np.concatenate(sides, axis=-1).tobytes()


def test_float16_layers_may_have_them(choice):
    weights = random_weights(4)
    x = inputs(2, 3, FEATURES).astype(np.float16)
    found = layer_with(weights, dtype="float16", weights_dtype="int8")(x)
    assert found.dtype == np.float16
    halves = [w.astype(np.float16).astype(np.float32) for w in weights]
    np.testing.assert_array_equal(found, layer_with(halves, weights_dtype="int8")(x).astype(np.float16))


# ---- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("index", "name"), [(0, "kernel"), (1, "recurrent_kernel")])
def test_a_weight_that_is_not_finite_is_refused_and_changes_nothing(choice, index, name, value):
    layer, x = layer_with(random_weights(5), weights_dtype="int8"), inputs(2, 3, FEATURES)
    before, weights = layer(x), random_weights(6)
    weights[index][2, 3] = value
    message = f"^{name} must be finite with weights_dtype='int8', got {value}$"
    with pytest.raises(ValueError, match=message):
        layer.set_weights(weights)
    assert layer(x).tobytes() == before.tobytes()
    unbuilt = fastgru.GRU(UNITS, weights_dtype="int8", weights=weights)
    with pytest.raises(ValueError, match=message):
        unbuilt(x)
    assert not unbuilt.built


def test_columns_of_zeros_and_huge_or_tiny_ones_are_taken(choice):
    weights = random_weights(7)
    weights[0][:, 0], weights[0][:, 1], weights[1][:, 2], weights[0][:, 4] = 0, 3e38, 1e-38, -1e-45
    with np.errstate(all="raise"):
        layer = layer_with(weights, weights_dtype="int8")
    found = layer(inputs(2, 3, FEATURES))
    assert np.isfinite(found).all()


def test_weights_come_back_as_they_were_set(choice):
    weights = random_weights(8)
    layer = layer_with(weights, weights_dtype="int8")
    for ours, theirs in zip(layer.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def saved(layer):
    file = io.BytesIO()
    layer.save(file)
    return fastgru.load(file.getvalue())


TWINS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "file": saved,
}


@pytest.mark.parametrize("twin_of", TWINS.values(), ids=TWINS)
def test_copies_and_files_have_it(twin_of):
    layer, x = layer_with(random_weights(9), weights_dtype="int8"), inputs(2, 3, FEATURES)
    twin = twin_of(layer)
    assert twin.weights_dtype == twin.get_config()["weights_dtype"] == "int8"
    assert twin(x).tobytes() == layer(x).tobytes()


def test_packed_weights_take_a_quarter_of_the_memory():
    units, features = 256, 128
    weights, taken = random_weights(10, True, units, features), []
    for weights_dtype in (None, "int8"):
        layer = layer_with(weights, reset_after=True, weights_dtype=weights_dtype)
        tracemalloc.start()
        layer.set_weights(weights)
        taken.append(tracemalloc.get_traced_memory()[0] - sum(w.nbytes for w in weights))
        tracemalloc.stop()
    elements = (units + features) * 3 * units
    assert 0 <= taken[1] - elements < 32 << 10  # biases, steps and sums of columns, objects
    assert _config.CHOICE.engine != "packed" or taken[0] > 3.7 * taken[1]
