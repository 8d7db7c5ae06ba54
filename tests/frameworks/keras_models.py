"""For the tests of fastgru.keras: one Keras, which FLAVOUR names, and random models of it."""

import contextlib
import os

import numpy as np

import fastgru.keras

FLAVOUR = os.environ["FLAVOUR"]  # torch, jax, tensorflow, numpy, tf_keras
ON_TENSORFLOW = FLAVOUR in ("tensorflow", "tf_keras")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
if FLAVOUR == "tf_keras":
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tf_keras as keras
else:
    os.environ["KERAS_BACKEND"] = FLAVOUR
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_X64"] = "1"
    # what XLA compiles is run a few times
    fast = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {fast}"
    import keras
if ON_TENSORFLOW:
    import tensorflow as tf
elif FLAVOUR == "torch":
    import torch
elif FLAVOUR == "jax":
    import jax

# Of layers of float64 Keras 3 rounds some steps to float32, but on TensorFlow.
TOLERANCE = {"float32": 3e-5, "float64": 1e-10 if ON_TENSORFLOW else 3e-5}
BATCH, TIMESTEPS, FEATURES = 3, 5, 4
ACTIVATIONS = ["tanh", "sigmoid", "hard_sigmoid", "softsign", "relu", "elu", "linear"]


def tensor(array):
    """An array as the backend has it."""
    if FLAVOUR == "tf_keras":
        return tf.constant(array)
    return keras.ops.convert_to_tensor(array)


def arrays(results):
    """Results of a model as a list of arrays."""
    results = results if isinstance(results, (list, tuple)) else [results]
    return [np.array(r.detach() if FLAVOUR == "torch" else r) for r in results]


def inference():
    """What calls in inference are made in: jax without its compiler, which would run for every call."""
    if FLAVOUR == "torch":
        return torch.no_grad()
    return jax.disable_jit() if FLAVOUR == "jax" else contextlib.nullcontext()


def compiles(model):
    """True if Keras computes the model, and records no states: jax then takes less time with its compiler."""
    if not isinstance(model, keras.Model) or any(entry.changed for entry in fastgru.keras.report(model)):
        return False
    return not any(getattr(layer, "stateful", False) for layer in model._flatten_layers())


def infer(model, *args, **kwargs):
    """What a model computes in inference."""
    if FLAVOUR == "jax" and not args[1:] and not kwargs and compiles(model):
        kinds = [
            [v.value for v in kind] for kind in (model.trainable_variables, model.non_trainable_variables)
        ]
        return arrays(
            jax.jit(lambda kinds, x: model.stateless_call(*kinds, x, training=False)[0])(kinds, *args)
        )
    with inference():
        return arrays(model(*args, training=False, **kwargs))


def assert_same(found, wanted, dtype="float32"):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE[dtype])


def randomize(model, rng, scale=0.4):
    """Give a model weights that are all different."""
    model.set_weights([rng.normal(scale=scale, size=w.shape).astype(w.dtype) for w in model.get_weights()])


def gradients(model, x, training=True):
    """The gradients of the sum of squares of what a model computes, as arrays."""
    if FLAVOUR == "torch":
        model.zero_grad()
        loss_of(model(x, training=training)).backward()
        return [np.array(v.value.grad) for v in model.trainable_variables]
    if FLAVOUR == "jax":

        def loss(trainable):
            results, _ = model.stateless_call(trainable, fixed, x, training=training)
            return loss_of(results)

        fixed = [v.value for v in model.non_trainable_variables]
        return list(map(np.array, jax.jit(jax.grad(loss))([v.value for v in model.trainable_variables])))
    with tf.GradientTape() as tape:
        loss = loss_of(model(x, training=training))
    variables = [getattr(v, "value", v) if FLAVOUR == "tensorflow" else v for v in model.trainable_variables]
    return [np.array(g) for g in tape.gradient(loss, variables)]


def loss_of(results):
    results = results if isinstance(results, (list, tuple)) else [results]
    return sum((r * r).sum() if not ON_TENSORFLOW else tf.reduce_sum(r * r) for r in results)


def train(model, x):
    """A step of gradient descent; the NumPy backend, which has no gradients, gets other weights."""
    variables = model.trainable_variables
    numpy = FLAVOUR == "numpy"
    steps = [np.ones(v.shape, v.dtype) for v in variables] if numpy else gradients(model, x)
    for variable, step in zip(variables, steps, strict=True):
        assert np.isfinite(step).all()
        step = step / max(1.0, np.abs(step).max())
        if FLAVOUR == "torch":
            with torch.no_grad():
                variable.value.sub_(torch.tensor(0.1 * step))  # in place, as optimizers do
        elif ON_TENSORFLOW:
            (variable if FLAVOUR == "tf_keras" else variable.value).assign_sub(0.1 * step)
        else:
            variable.assign(np.array(variable.value) - 0.1 * step)


# ---- random models ---------------------------------------------------------------------------


@contextlib.contextmanager
def policy(dtype):
    """Have Keras compute in that type; a model of another type than its layers rounds what they are given."""
    setter = (
        keras.mixed_precision.set_global_policy if FLAVOUR == "tf_keras" else keras.config.set_dtype_policy
    )
    keras.backend.set_floatx(dtype)
    setter(dtype)
    try:
        yield
    finally:
        keras.backend.set_floatx("float32")
        setter("float32")


def random_arguments(rng, dtype, sequences, masked):
    """Arguments of a GRU."""
    chosen = {
        "units": int(rng.integers(1, 9)),
        "activation": str(rng.choice(["tanh", *ACTIVATIONS])),
        "recurrent_activation": str(rng.choice(["sigmoid", *ACTIVATIONS[:4]])),
        "use_bias": bool(rng.random() < 0.8),
        "reset_after": bool(rng.random() < 0.6),
        "dropout": float(rng.choice([0, 0, 0.3])),
        "recurrent_dropout": float(rng.choice([0, 0, 0.3])),
        "go_backwards": bool(rng.random() < 0.3),
        "unroll": bool(not masked and rng.random() < 0.2),  # with masks some backends fail
        "return_sequences": sequences,
        "dtype": dtype,
    }
    if not chosen["dropout"] and rng.random() < 0.3:  # Keras 3 cannot drop out with implementation=1
        chosen["implementation"] = int(rng.integers(1, 3))
    if rng.random() < 0.2:
        chosen["zero_output_for_mask"] = True
    if rng.random() < 0.2:
        chosen["activity_regularizer"] = "l2"
    return chosen


CELL = ("units", "activation", "recurrent_activation", "use_bias", "reset_after", "dropout", "dtype")
CELL += ("recurrent_dropout",)


def random_layer(rng, dtype, sequences, masked):
    """A GRU, an RNN of a GRUCell, or a Bidirectional of one of them."""
    arguments = random_arguments(rng, dtype, sequences, masked)
    merge_mode = str(rng.choice(["concat", "sum", "ave", "mul"]))
    kind = rng.choice(["gru", "gru", "rnn", "both", "both of rnn"])
    if kind.startswith("both"):
        arguments["go_backwards"] = False  # Keras 3 wants it
    if kind in ("rnn", "both of rnn"):
        cell = {key: arguments.pop(key) for key in CELL}
        arguments.pop("implementation", None)
        layer = keras.layers.RNN(keras.layers.GRUCell(**cell), dtype=dtype, **arguments)
    else:
        layer = keras.layers.GRU(**arguments)
    if kind.startswith("both"):
        return keras.layers.Bidirectional(layer, merge_mode=merge_mode, dtype=dtype)
    return layer


def random_model(rng, dtype):
    """A model of one to three recurrent layers: Sequential, Functional, nested or subclassed."""
    count = 1 if FLAVOUR == "jax" else int(rng.integers(1, 4))  # jax compiles each for seconds
    many = bool(rng.random() < 0.5)
    masked = bool(rng.random() < 0.5)
    layers = [random_layer(rng, dtype, many or i < count - 1, masked) for i in range(count)]
    if masked:
        layers.insert(0, keras.layers.Masking(dtype=dtype))
    layers.append(keras.layers.Dense(2, dtype=dtype))
    form = rng.choice(["sequential", "functional", "nested", "subclassed"])
    shape = (TIMESTEPS, FEATURES)
    if form == "sequential":
        model = keras.Sequential([keras.Input(shape, dtype=dtype), *layers])
    elif form == "subclassed":
        model = Subclassed(layers, dtype=dtype)
    else:
        inputs = keras.Input(shape, dtype=dtype)
        outputs = inputs
        if form == "nested":
            inner = keras.Sequential(layers[:-1])
            outputs = layers[-1](inner(inputs))
        else:
            for layer in layers:
                outputs = layer(outputs)
        model = keras.Model(inputs, outputs)
    model(tensor(np.ones((1, *shape), dtype)))
    randomize(model, rng)
    return model


class Subclassed(keras.Model):
    def __init__(self, layers, **kwargs):
        super().__init__(**kwargs)
        self.parts = layers

    def call(self, x, training=None):
        for layer in self.parts:
            takes = isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional))
            x = layer(x, training=training) if takes else layer(x)
        return x


def random_input(rng, dtype, batch=BATCH):
    """Sequences of which some steps are zero, which a Masking layer masks."""
    x = rng.normal(size=(batch, TIMESTEPS, FEATURES)).astype(dtype)
    x[rng.random((batch, TIMESTEPS)) < 0.3] = 0
    return x
