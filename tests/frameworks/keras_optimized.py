"""The tests of fastgru.keras on one Keras, which FLAVOUR names; test_keras_optimize.py runs them on each."""

import copy
import gc
import pickle
import threading

import numpy as np
import pytest
from keras_models import (
    BATCH,
    FEATURES,
    FLAVOUR,
    ON_TENSORFLOW,
    TIMESTEPS,
    arrays,
    assert_same,
    gradients,
    infer,
    inference,
    keras,
    policy,
    random_input,
    random_model,
    randomize,
    tensor,
    train,
)

import fastgru
import fastgru.keras
from fastgru.keras._call import Call
from fastgru.keras._variant import Variant

MODELS = {"torch": 120, "numpy": 120, "tensorflow": 24, "tf_keras": 24, "jax": 6}[FLAVOUR]  # as they take
CHUNKS = 4
layers = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore")  # of the frameworks


@pytest.fixture
def runs(monkeypatch):
    """The calls that fastgru has computed, as the arrays that it was given."""
    found = []
    original = Variant.run

    def run(self, layer, *args):
        found.append(args)
        return original(self, layer, *args)

    monkeypatch.setattr(Variant, "run", run)
    return found


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def gru(units=6, **kwargs):
    return layers.GRU(units, **kwargs)


def built(layer, rng, batch=BATCH):
    """A layer with weights."""
    with inference():
        layer(tensor(np.zeros((batch, TIMESTEPS, FEATURES), layer.compute_dtype)))
    randomize(layer, rng)
    return layer


def sequential(*parts):
    return keras.Sequential([keras.Input((TIMESTEPS, FEATURES)), *parts])


# ---- random models ---------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_models_compute_the_same_before_and_after_training_and_restored(chunk, runs):
    for seed in range(chunk, MODELS, CHUNKS):
        rng = np.random.default_rng(seed)
        dtype = str(rng.choice(["float32", "float32", "float64"]))
        try:
            check(dtype, rng, runs)
        except BaseException:
            print(f"seed {seed}, {FLAVOUR}")
            raise


def check(dtype, rng, runs):
    """Optimize, run, train and restore one model."""
    with policy(dtype):
        model = random_model(rng, dtype)
        x = tensor(random_input(rng, dtype))
        wanted = infer(model, x)
        names = [(v.name, v.shape) for v in model.variables]
        runs.clear()
        assert fastgru.keras.optimize(model) is model
        assert [(v.name, v.shape) for v in model.variables] == names
        assert all(entry.changed for entry in fastgru.keras.report(model))
        assert not runs
        assert_same(infer(model, x), wanted, dtype)
        assert runs
        train(model, x)
        runs.clear()
        trained = infer(model, x)
        assert runs
        fastgru.keras.restore(model)
        runs.clear()
        assert_same(trained, infer(model, x), dtype)
        assert not runs
        assert any((a != b).any() for a, b in zip(trained, wanted, strict=True))


# ---- what the layer keeps --------------------------------------------------------------------


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "ave", "mul", None])
@pytest.mark.parametrize("sequences", [False, True])
def test_bidirectional_layers_return_what_keras_does(merge_mode, sequences, rng, runs):
    layer = layers.Bidirectional(
        gru(return_sequences=sequences, return_state=True), merge_mode=merge_mode, dtype="float32"
    )
    built(layer, rng)
    x = tensor(random_input(rng, "float32"))
    mask = tensor(rng.random((BATCH, TIMESTEPS)) < 0.6)
    states = [tensor(rng.normal(size=(BATCH, 6)).astype("float32")) for _ in range(2)]
    for given in ({}, {"mask": mask}, {"initial_state": states}, {"mask": mask, "initial_state": states}):
        wanted = infer(layer, x, **given)
        with inference():
            kind = type(layer(x, **given))
        with fastgru.keras.optimized(layer):
            runs.clear()
            assert_same(infer(layer, x, **given), wanted)
            apart = FLAVOUR in ("jax", "numpy") and len(given) == 2 and not sequences
            assert len(runs) == 1 + apart  # both directions together
            assert type(layer(x, **given)) is kind


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_masks_and_states_are_keras_own(zeros, backwards, rng, runs):
    layer = gru(return_sequences=True, return_state=True, go_backwards=backwards, zero_output_for_mask=zeros)
    built(layer, rng)
    x = tensor(random_input(rng, "float32", 4))
    mask = rng.random((4, TIMESTEPS)) < 0.6
    mask[0], mask[1] = False, [False, False, True, False, True]
    state = tensor(rng.normal(size=(4, 6)).astype("float32"))
    for given in ({}, {"initial_state": [state]}):
        wanted = infer(layer, x, mask=tensor(mask), **given)
        fastgru.keras.optimize(layer)
        runs.clear()
        found = infer(layer, x, mask=tensor(mask), **given)
        assert runs
        fastgru.keras.restore(layer)
        assert_same(found, wanted)
        start = np.array(state) if given else np.zeros((4, 6), "float32")
        np.testing.assert_array_equal(found[1][0], start[0])  # all steps masked: to the bit


def test_stateful_layers_record_their_states(rng, runs):
    model = keras.Sequential(
        [gru(stateful=True, return_sequences=True), layers.Bidirectional(gru(stateful=True))]
    )
    x = tensor(random_input(rng, "float32"))
    model(x)
    randomize(model, rng)
    recurrent = [layer for layer in model._flatten_layers() if getattr(layer, "stateful", False)]
    recurrent = [layer for layer in recurrent if hasattr(layer, "cell")]

    def reset():
        for layer in recurrent:
            layer.reset_states()

    def run():
        reset()
        results = [infer(model, x)[0] for _ in range(3)]
        return [*results, *(np.array(arrays(_value(layer.states[0]))[0]) for layer in recurrent)]

    wanted = run()
    fastgru.keras.optimize(model)
    found = run()
    assert len(runs) == 9
    assert_same(found, wanted)
    assert not np.allclose(found[0], found[1])
    reset()
    assert not np.array(arrays(_value(recurrent[0].states[0]))[0]).any()


def _value(variable):
    return variable if FLAVOUR == "tf_keras" else variable.value


def test_a_decoder_starts_from_the_encoders_state(rng, runs):
    source, target = keras.Input((TIMESTEPS, FEATURES)), keras.Input((None, FEATURES))
    _, state = gru(return_state=True)(source)
    outputs = gru(return_sequences=True)(target, initial_state=state)
    model = keras.Model([source, target], outputs)
    randomize(model, rng)
    inputs = [tensor(random_input(rng, "float32")) for _ in range(2)]
    wanted = infer(model, inputs)
    fastgru.keras.optimize(model)
    assert_same(infer(model, inputs), wanted)
    assert len(runs) == 2


def test_layers_shared_between_places_and_inside_other_layers_are_changed_once(rng, runs):
    shared = gru(return_sequences=True)
    a, b = keras.Input((TIMESTEPS, FEATURES)), keras.Input((TIMESTEPS, FEATURES))
    frames = keras.Input((2, TIMESTEPS, FEATURES))
    inside = layers.TimeDistributed(gru())(frames)
    model = keras.Model([a, b, frames], [layers.Add()([shared(a), shared(b)]), inside])
    randomize(model, rng)
    inputs = [tensor(random_input(rng, "float32")) for _ in range(2)]
    inputs.append(tensor(rng.normal(size=(BATCH, 2, TIMESTEPS, FEATURES)).astype("float32")))
    wanted = infer(model, inputs)
    fastgru.keras.optimize(model)
    assert len(fastgru.keras.report(model)) == 2
    assert_same(infer(model, inputs), wanted)
    assert len(runs) >= 3


def test_settings_that_are_changed_on_a_live_layer_are_seen(rng, runs):
    layer = built(gru(), rng)
    x = tensor(random_input(rng, "float32"))
    fastgru.keras.optimize(layer)
    shapes = [infer(layer, x)[0].shape]
    for name in ("return_sequences", "go_backwards", "return_state"):
        setattr(layer, name, True)
        runs.clear()
        found = infer(layer, x)
        assert runs
        fastgru.keras.restore(layer)
        assert_same(found, infer(layer, x))
        fastgru.keras.optimize(layer)
        shapes.append(found[0].shape)
    assert shapes == [(BATCH, 6), *[(BATCH, TIMESTEPS, 6)] * 3]
    layer.cell.activation = lambda x: x + x
    runs.clear()
    found = infer(layer, x)
    assert not runs
    fastgru.keras.restore(layer)
    assert_same(found, infer(layer, x))


def test_wrong_inputs_have_keras_own_errors(rng):
    layer = built(gru(), rng)
    wrong = [np.zeros((BATCH, FEATURES), "float32"), np.zeros((BATCH, TIMESTEPS, FEATURES + 1), "float32")]

    def messages():
        found = []
        for x in wrong:
            with pytest.raises(Exception) as raised:  # noqa: PT011
                layer(tensor(x))
            found.append((raised.type, str(raised.value)))
        return found

    wanted = messages()
    fastgru.keras.optimize(layer)
    assert messages() == wanted


def test_layers_of_float64_compute_in_it(rng, runs):
    layer = built(gru(dtype="float64", return_sequences=True), rng)
    x = keras.backend.cast(random_input(rng, "float64"), "float64") if FLAVOUR == "tf_keras" else None
    x = keras.ops.convert_to_tensor(random_input(rng, "float64"), dtype="float64") if x is None else x
    fastgru.keras.optimize(layer)
    found = infer(layer, x)[0]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, fastgru.from_keras(layer)(arrays(x)[0]), rtol=0, atol=1e-10)
    assert runs


def test_other_types_are_cast_as_keras_does(rng):
    layer = built(gru(), rng)
    whole = rng.integers(-2, 3, (BATCH, TIMESTEPS, FEATURES))
    for x in (random_input(rng, "float64"), whole.astype("float16") if FLAVOUR == "tf_keras" else whole):
        with fastgru.keras.optimized(layer):
            found = infer(layer, x)
        assert_same(found, infer(layer, x))


# ---- weights ---------------------------------------------------------------------------------


def test_every_way_to_change_weights_is_seen(rng, runs):
    model = sequential(layers.Bidirectional(gru()), layers.Dense(1))
    x = tensor(random_input(rng, "float32"))
    twin = keras.models.clone_model(model)
    fastgru.keras.optimize(model)
    kernel = next(v for v in model.variables if v.shape == (FEATURES, 18))

    def assign():
        kernel.assign(np.ones((FEATURES, 18), "float32"))

    def assign_one_more():
        kernel.assign_add(np.ones((FEATURES, 18), "float32"))

    for change in (lambda: randomize(model, rng), assign, assign_one_more, lambda: train(model, x)):
        before = infer(model, x)
        change()
        runs.clear()
        found = infer(model, x)
        assert runs
        twin.set_weights(model.get_weights())
        assert_same(found, infer(twin, x))
        assert (found[0] != before[0]).any()


def test_weights_are_packed_once(rng, monkeypatch):
    layer = built(gru(), rng)
    fastgru.keras.optimize(layer)
    x = tensor(random_input(rng, "float32"))
    made = []
    original = Variant._made
    monkeypatch.setattr(Variant, "_made", lambda self, arrays: made.append(arrays) or original(self, arrays))
    for _ in range(5):
        infer(layer, x)
        gc.collect()
    assert sum(map(bool, made)) == 1
    randomize(layer, rng)
    for _ in range(5):
        infer(layer, x)
    assert sum(map(bool, made)) == 2


@pytest.mark.parametrize("weights_dtype", ["float16", "int8"])
def test_kernels_may_be_kept_in_fewer_bits(rng, weights_dtype):
    layer = built(gru(), rng)
    x = random_input(rng, "float32")
    fastgru.keras.optimize(layer, weights_dtype=weights_dtype)
    found = infer(layer, tensor(x))
    plain = fastgru.from_keras(layer)
    wanted = fastgru.GRU.from_config(plain.get_config() | {"weights_dtype": weights_dtype})
    wanted.build(x.shape)
    wanted.set_weights(plain.get_weights())
    assert_same(found, [wanted(x)])
    assert np.abs(found[0] - plain(x)).max() > 1e-6
    double = built(gru(dtype="float64"), rng)
    with pytest.raises(ValueError, match=f"weights_dtype must be .*layer '{double.name}'"):
        fastgru.keras.optimize(keras.Sequential([layer, double]), weights_dtype=weights_dtype)


# ---- what is saved and copied ----------------------------------------------------------------


def test_copies_configs_and_files_are_the_ordinary_ones(rng, tmp_path):
    model = sequential(layers.Bidirectional(gru(return_sequences=True)), gru())
    randomize(model, rng)
    x = tensor(random_input(rng, "float32"))
    wanted, config = infer(model, x), model.get_config()
    fastgru.keras.optimize(model)
    infer(model, x)
    assert model.get_config() == config
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    clone = keras.models.clone_model(model)
    clone.load_weights(tmp_path / "model.weights.h5")
    pickled = pickle.dumps(model)
    assert b"fastgru" not in pickled
    assert b"fastgru" not in (tmp_path / "model.keras").read_bytes()
    copies = [clone, keras.models.load_model(tmp_path / "model.keras"), pickle.loads(pickled)]
    for other in [*copies, copy.deepcopy(model)]:
        assert not any(entry.changed for entry in fastgru.keras.report(other))
        assert_same(infer(other, x), wanted)
        other.set_weights([0 * w for w in other.get_weights()])
        assert not infer(other, x)[0].any()  # it has weights of its own
    assert all(entry.changed for entry in fastgru.keras.report(model))
    assert_same(infer(model, x), wanted)


# ---- what is changed, and what is not --------------------------------------------------------


def other_tanh():
    def tanh(x):
        return 2 * x

    return tanh


class Other(layers.GRU):
    def call(self, sequences, initial_state=None, mask=None, training=False):
        return 2 * super().call(sequences, mask=mask, training=training, initial_state=initial_state)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Other(3), "Other is a class of its own"),
        (lambda: layers.LSTM(3), "LSTM is no GRU"),
        (lambda: layers.Bidirectional(layers.LSTM(3)), "LSTM is no GRU"),
        (lambda: layers.RNN(layers.SimpleRNNCell(3)), "SimpleRNNCell is no GRUCell"),
        (lambda: layers.RNN([layers.GRUCell(3), layers.GRUCell(2)]), "StackedRNNCells is no GRUCell"),
        (lambda: gru(activation=other_tanh()), "none of Keras' own functions"),
        (lambda: gru(recurrent_activation=layers.LeakyReLU()), "none of Keras' own functions"),
        (lambda: gru(dtype="mixed_float16"), "it computes in float16"),
    ],
)
def test_what_fastgru_does_not_compute_stays_keras_own(make, reason, rng, runs):
    layer = make()
    model = keras.Sequential([layer])
    x = tensor(random_input(rng, "float32"))
    model(x)
    wanted = infer(model, x)
    fastgru.keras.optimize(model)
    entry = next(entry for entry in fastgru.keras.report(model) if entry.name == layer.name)
    assert not entry.changed
    assert reason in entry.reason
    assert "call" not in layer.__dict__
    found = infer(model, x)
    assert not runs
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_report_says_what_has_become_of_each_layer():
    model = sequential(
        gru(return_sequences=True, name="first"), layers.LSTM(2, name="second"), layers.Dense(1)
    )
    assert [entry[:3] for entry in fastgru.keras.report(model)] == [
        ("first", "GRU", False),
        ("second", "LSTM", False),
    ]
    fastgru.keras.optimize(model)
    first, second = fastgru.keras.report(model)
    assert first.changed
    assert first.reason
    assert second == fastgru.keras.Entry("second", "LSTM", False, "LSTM is no GRU")
    lines = str(fastgru.keras.report(model)).splitlines()
    assert lines[:2] == ["first: GRU, fastgru", "second: LSTM, Keras: LSTM is no GRU"]
    assert lines[2:] == [f"fastgru: {first.reason}"]
    assert str(fastgru.keras.report(layers.Dense(1))) == "no recurrent layers"


@pytest.mark.parametrize("function", ["optimize", "restore", "report"])
def test_what_is_no_model_is_refused(function):
    with pytest.raises(TypeError, match="model must be a model or a layer of Keras 3 or tf_keras, got GRU"):
        getattr(fastgru.keras, function)(fastgru.GRU(3))


def test_contexts_leave_a_model_as_it_was(rng):
    model = sequential(gru(return_sequences=True), gru())
    first = model.layers[0]
    fastgru.keras.optimize(first)
    before = Call.of(first)

    def fail(found):
        assert found is model
        assert all(entry.changed for entry in fastgru.keras.report(model))
        assert Call.of(first) is not before
        raise InterruptedError

    with pytest.raises(InterruptedError), fastgru.keras.optimized(model, weights_dtype="float16") as found:
        fail(found)
    assert Call.of(first) is before
    assert [entry.changed for entry in fastgru.keras.report(model)] == [True, False]
    fastgru.keras.restore(model)
    fastgru.keras.restore(model)
    assert "call" not in first.__dict__


def test_layers_are_freed(rng):
    import weakref

    layer = built(gru(), rng)
    fastgru.keras.optimize(layer)
    infer(layer, tensor(random_input(rng, "float32")))
    gone = weakref.ref(layer)
    del layer
    keras.backend.clear_session()
    gc.collect()
    assert gone() is None


# ---- training --------------------------------------------------------------------------------


if FLAVOUR != "numpy":

    @pytest.mark.parametrize("training", [False, True])
    def test_gradients_are_keras_own(training, rng):
        model = sequential(layers.Bidirectional(gru(return_sequences=True)), gru(), layers.Dense(1))
        randomize(model, rng)
        x = tensor(random_input(rng, "float32"))
        wanted = gradients(model, x, training)
        fastgru.keras.optimize(model)
        infer(model, x)
        assert_same(gradients(model, x, training), wanted)

    def test_dropout_drops_as_keras_does(rng, runs):
        layer = built(
            gru(dropout=0.5, recurrent_dropout=0.5, seed=3) if FLAVOUR != "tf_keras" else gru(dropout=0.5),
            rng,
        )
        x = tensor(np.ones((BATCH, TIMESTEPS, FEATURES), "float32"))
        fastgru.keras.optimize(layer)
        keras.utils.set_random_seed(1)
        found = [arrays(layer(x, training=True))[0] for _ in range(2)]
        assert not runs
        assert (found[0] != found[1]).any()
        assert_same(infer(layer, x), infer(layer, x))
        assert runs

    def test_models_are_fitted_evaluated_and_asked_to_predict(rng, runs):
        def made(change):
            keras.utils.set_random_seed(5)
            model = sequential(layers.Bidirectional(gru(return_sequences=True)), gru(), layers.Dense(1))
            model.compile("adam", "mse")
            return change(model)

        x = random_input(rng, "float32", 8)
        y = rng.normal(size=(8, 1)).astype("float32")

        def history(model):
            found = [model.predict(x, verbose=0)]
            fitted = model.fit(x, y, batch_size=4, epochs=2, verbose=0, shuffle=False, validation_data=(x, y))
            losses = [np.float32(fitted.history[name]) for name in ("loss", "val_loss")]
            evaluated = np.float32(model.evaluate(x, y, verbose=0))
            return [*found, *losses, evaluated, model.predict(x, verbose=0), *model.get_weights()]

        wanted = history(made(lambda model: model))
        assert not runs
        model = made(fastgru.keras.optimize)
        assert_same(history(model), wanted)
        assert runs
        fastgru.keras.restore(model)
        runs.clear()
        assert_same([model.predict(x, verbose=0)], wanted[4:5])
        assert not runs
        fastgru.keras.optimize(model)  # after a function was made that predicts with Keras' own computation
        assert_same([model.predict(x, verbose=0)], wanted[4:5])
        assert runs


# ---- threads ---------------------------------------------------------------------------------


def test_eight_threads_call_one_model(rng):
    model = sequential(layers.Bidirectional(gru(return_sequences=True)), gru())
    randomize(model, rng)
    inputs = [tensor(random_input(rng, "float32", 1 + i)) for i in range(8)]
    wanted = [infer(model, x) for x in inputs]
    fastgru.keras.optimize(model)
    failures, together = [], threading.Barrier(8)

    def work(i):
        try:
            together.wait()
            for _ in range(30):
                assert_same(infer(model, inputs[i]), wanted[i])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[i]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ---- memory ----------------------------------------------------------------------------------


def test_inputs_are_read_where_they_are(rng, runs):
    layer = built(gru(), rng)
    x = tensor(random_input(rng, "float32"))
    fastgru.keras.optimize(layer)
    layer.__dict__["call"](x) if FLAVOUR != "torch" else infer(layer, x)
    place = np.asarray(x).__array_interface__["data"][0]
    assert runs[-1][0].__array_interface__["data"][0] == place


if ON_TENSORFLOW:
    from keras_optimized_tensorflow import *  # noqa: F403
elif FLAVOUR == "jax":
    from keras_optimized_jax import *  # noqa: F403
elif FLAVOUR == "torch":
    from keras_optimized_torch import *  # noqa: F403
