"""`quantize` of whole models: less error than by rounding to the nearest, and the same model besides."""

import io
import pickle

import numpy as np
import pytest

import fastgru
from fastgru._nodes import (
    Activation,
    Convolution,
    Dense,
    Depthwise,
    Embedding,
    Last,
    LayerNormalization,
    Merge,
    Recurrent,
)
from fastgru._quantize_model import windows_of
from fastgru.model import Input, Model, Output

FEATURES, UNITS = 16, 24
MIX = np.random.default_rng(99).normal(size=(5, FEATURES)) / 5**0.5


def signal(seed, batch=2, timesteps=400):
    """Inputs that vary together, as those of real sensors do."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(batch, timesteps, len(MIX))) @ MIX).astype(np.float32)


class Maker:
    """Nodes after each other, of known weights."""

    def __init__(self, seed=0):
        self.rng, self.nodes, self.last = np.random.default_rng(seed), [], "x"

    def kernel(self, *shape):
        return (self.rng.normal(size=shape) / np.prod(shape[:-1]) ** 0.5).astype(np.float32)

    def add(self, kind, *inputs, outputs=None, **fields):
        name = f"{kind.__name__.lower()}_{len(self.nodes)}"
        written = tuple(outputs or (name,))
        self.nodes.append(kind(name=name, inputs=inputs or (self.last,), outputs=written, **fields))
        self.last = written[0]
        return self.last

    def dense(self, features, units, *inputs, **options):
        options = {"bias": self.rng.normal(size=units).astype(np.float32) / 4, "activation": "relu"} | options
        return self.add(Dense, *inputs, kernel=self.kernel(features, units), **options)

    def gru(self, features, *inputs, both=False, outputs=None, **options):
        layer = fastgru.GRU(UNITS, **{"return_sequences": True, "reset_after": True} | options)
        layer = fastgru.Bidirectional(layer) if both else layer
        layer.build((None, None, features))
        layer.set_weights([self.kernel(*w.shape) for w in layer.get_weights()])
        return self.add(Recurrent, *inputs, outputs=outputs, layer=layer)

    def model(self, *inputs, outputs=None, **options):
        inputs = inputs or (Input("x", (None, FEATURES)),)
        return Model(inputs, self.nodes, [Output(name) for name in outputs or [self.last]], **options)


def tagger(make):
    make.add(Convolution, kernel=make.kernel(3, FEATURES, 20), padding="causal", activation="relu")
    make.add(Depthwise, kernel=make.kernel(3, 20, 1), padding="causal")
    make.add(LayerNormalization, gamma=np.ones(20, "f"), beta=np.zeros(20, "f"), epsilon=1e-3)
    make.gru(20)
    make.gru(UNITS, reset_after=False)
    make.dense(UNITS, 10, activation=None)
    return make.model()


def spotter(make):
    make.add(
        Convolution, kernel=make.kernel(5, FEATURES, 20), padding="same", strides=2, bias=np.ones(20, "f")
    )
    make.add(Convolution, kernel=make.kernel(3, 20, 20), dilation=2, activation="tanh")
    make.gru(20, both=True, return_sequences=False)
    make.dense(2 * UNITS, 12)
    make.dense(12, 4, activation="softmax")
    return make.model()


def decoder(make):
    make.gru(FEATURES, "x", outputs=["encoded", "state"], return_state=True)
    make.gru(FEATURES, "x", "state", outputs=["decoded"], go_backwards=True)
    make.add(Merge, "encoded", "decoded", mode="sum")
    make.dense(UNITS, 8, activation="tanh")
    return make.model()


MODELS = {"tagger": tagger, "spotter": spotter, "decoder": decoder}


def rms(found, wanted):
    return float(np.sqrt(np.mean((found.astype(float) - wanted) ** 2)))


def file_of(model):
    file = io.BytesIO()
    model.save(file)
    return file.getvalue()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MODELS)
def test_calibrated_models_have_a_smaller_error_on_other_inputs(name, seed):
    model = MODELS[name](Maker(seed))
    before = [array.copy() for array in model.get_weights()]
    data = file_of(model)
    nearest = fastgru.load_model(data, weights_dtype="int8")
    plain, none = fastgru.quantize(model)
    done = []
    small, report = fastgru.quantize(model, signal(seed + 10), progress=lambda *one: done.append(one))
    x = signal(seed + 20, batch=8)
    wanted = model(x)
    errors = [rms(each(x), wanted) for each in (small, plain, nearest)]
    print(errors)
    assert 0 < errors[0] < 0.9 * min(errors[1:])
    assert np.array_equal(plain(x), nearest(x))
    assert all(np.array_equal(*pair) for pair in zip(model.get_weights(), before, strict=True))
    kinds = Recurrent, Dense, Convolution
    names = [node.name for node in model.nodes if isinstance(node, kinds)]
    assert [entry.name for entry in report] == [entry.name for entry in none] == names
    assert all(0 < entry.rms <= entry.channel_rms <= entry.max < 0.1 for entry in report)
    assert all(np.isnan(entry.rms) for entry in none)
    kernels = sum(
        2 * len(node.layer._parts) if isinstance(node, Recurrent) else 1
        for node in model.nodes
        if isinstance(node, kinds)
    )
    assert done == [(number, kernels) for number in range(1, kernels + 1)]


@pytest.mark.parametrize("name", MODELS)
def test_quantized_models_are_saved_and_copied(name):
    small, _ = fastgru.quantize(MODELS[name](Maker(0)), signal(1))
    assert small.weights_dtype == "int8"
    x = signal(2, timesteps=30)
    for other in (fastgru.load_model(file_of(small)), pickle.loads(pickle.dumps(small))):
        assert other.weights_dtype == "int8"
        assert np.array_equal(other(x), small(x))
    for node in small.nodes:
        kernels = [node.kernel] if isinstance(node, Dense | Convolution) else []
        kernels += (
            [array for part in node.layer._parts for array in part.weights[:2]]
            if isinstance(node, Recurrent)
            else []
        )
        for kernel in kernels:
            kernel = kernel.reshape(-1, kernel.shape[-1])
            steps = kernel / (np.abs(kernel).max(axis=0) / 127)
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_the_report_is_of_the_last_fifth_of_the_timesteps():
    model = tagger(Maker(0))
    x = signal(1)
    small, report = fastgru.quantize(model, x)
    error = small(x)[:, 320:].astype(float) - model(x)[:, 320:]
    np.testing.assert_allclose(report[-1].rms, np.sqrt(np.mean(error**2)), rtol=1e-3)
    np.testing.assert_allclose(report[-1].max, np.abs(error).max(), rtol=1e-3)
    assert report[-1].channel == np.sqrt(np.mean(error**2, axis=(0, 1))).argmax()


def test_what_is_masked_does_not_count():
    make = Maker(3)
    make.add(Embedding, table=make.kernel(30, FEATURES) * 5, mask_zero=True)
    make.gru(FEATURES)
    make.dense(UNITS, 8, activation=None)
    model = make.model(Input("x", (None,), indices=True))
    rng = np.random.default_rng(4)
    x = rng.integers(1, 30, (3, 200))
    gaps = np.sort(rng.permutation(300)[:200])
    spread = np.zeros((3, 300), int)
    spread[:, gaps] = x
    first, _ = fastgru.quantize(model, np.where(np.arange(300) < 240, spread, 0))
    count = int(np.sum(gaps < 240))
    again, _ = fastgru.quantize(
        model, np.concatenate([x[:, :count], np.zeros((3, -(-count // 4)), int)], axis=1)
    )
    for one, other in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_lengths_end_the_rows_of_a_calibration():
    make = Maker(5)
    make.gru(FEATURES)
    make.dense(UNITS, 8)
    model = make.model()
    x = signal(1)
    spoilt = x.copy()
    spoilt[:, 300:] = 9
    first, _ = fastgru.quantize(model, x, lengths=[300, 300])
    again, _ = fastgru.quantize(model, spoilt, lengths=[300, 300])
    for one, other in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_states_are_those_that_rows_start_from():
    make = Maker(6)
    make.add(Convolution, kernel=make.kernel(2, FEATURES, FEATURES), padding="causal")
    make.gru(FEATURES)
    model = make.model()
    x = signal(1, batch=300, timesteps=2)
    states = [signal(2, 300, 1)[:, 0], np.random.default_rng(0).normal(size=(300, UNITS)).astype("f") * 0.3]
    assert model.states == (("convolution_0", FEATURES), (make.nodes[1].layer.name, UNITS))
    told, _ = fastgru.quantize(model, x, initial_state=states)
    untold, _ = fastgru.quantize(model, x)
    wanted = model(x, initial_state=states)
    errors = [rms(each(x, initial_state=states), wanted) for each in (told, untold)]
    assert errors[0] < 0.9 * errors[1]


def test_nodes_that_share_weights_share_them_rounded():
    make = Maker(7)
    kernel, bias = make.kernel(FEATURES, FEATURES), np.zeros(FEATURES, "f")
    for _ in range(2):
        make.add(Dense, kernel=kernel, bias=bias, activation="tanh")
    name = make.gru(FEATURES)
    make.add(Recurrent, "dense_0", layer=make.nodes[-1].layer)
    make.add(Merge, make.last, name, mode="sum")
    make.add(Last)
    done = []
    small, report = fastgru.quantize(make.model(), signal(1), progress=lambda *one: done.append(one))
    assert small.nodes[0].kernel is small.nodes[1].kernel
    assert small.nodes[2].layer is small.nodes[3].layer
    assert len(report) == 4
    assert done[-1] == (3, 3)


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 3), (3, 1)])
def test_windows_are_those_of_the_convolution(padding, strides, dilation):
    make = Maker(8)
    make.add(
        Convolution, kernel=make.kernel(3, FEATURES, 4), padding=padding, strides=strides, dilation=dilation
    )
    x = signal(1, timesteps=17)
    node = make.nodes[0]
    found = windows_of(node, x) @ node.kernel.reshape(-1, 4)
    np.testing.assert_allclose(found, make.model()(x), atol=1e-5)


def test_wrong_arguments_are_named():
    make = Maker(9)
    make.gru(FEATURES)
    make.add(Activation, activation="tanh")
    model, x = make.model(), signal(1)
    with pytest.raises(ValueError, match=r"input 'x' must have the shape \(batch, timesteps, 16\), got"):
        fastgru.quantize(model, x[..., :3])
    with pytest.raises(ValueError, match="lengths must lie between 0 and the 400 timesteps"):
        fastgru.quantize(model, x, lengths=[1, 401])
    with pytest.raises(ValueError, match="lengths must come with a calibration"):
        fastgru.quantize(model, lengths=[1, 2])
    with pytest.raises(ValueError, match="initial_state must be a list of 1 arrays"):
        fastgru.quantize(model, x, initial_state=[])
    with pytest.raises(ValueError, match="calibration must lead to finite values, got NaN"):
        fastgru.quantize(model, np.full_like(x, np.nan))
    with pytest.raises(ValueError, match="weights_dtype must be 'int8'"):
        fastgru.quantize(model, x, "float16")
    node = Activation(name="a", inputs=("x",), outputs=("y",))
    wide = Model([Input("x", (None, 3))], [node], [Output("y")], dtype="float64")
    with pytest.raises(
        ValueError, match="a model must be of float32 to be quantized, got 'model' of float64"
    ):
        fastgru.quantize(wide)
