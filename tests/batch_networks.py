"""Networks of every kind that cutting a job might change, with weights from a seed; a run of the command."""

import numpy as np

import fastgru
from fastgru._nodes import Convolution, Dense, Embedding, Pool, Recurrent
from fastgru.cli import _main
from fastgru.model import Input, Model, Output

FEATURES = 3


def gru(units=5, **arguments):
    return fastgru.GRU(units, **{"return_sequences": True, "reset_after": True, "name": "g", **arguments})


LAYERS = {
    "sequences": lambda: gru(),
    "last": lambda: gru(return_sequences=False),
    "state": lambda: gru(return_state=True),
    "backwards": lambda: gru(go_backwards=True),
    "backwards, last": lambda: gru(go_backwards=True, return_sequences=False),
    "time-major": lambda: gru(time_major=True),
    "zeros": lambda: gru(zero_output_for_mask=True, reset_after=False),
    "float64": lambda: gru(dtype="float64"),
    "float16": lambda: gru(dtype="float16"),
    "int8": lambda: gru(weights_dtype="int8"),
    "both": lambda: fastgru.Bidirectional(gru()),
    "both, last": lambda: fastgru.Bidirectional(gru(return_sequences=False), merge_mode="sum"),
    "stack": lambda: fastgru.Stack([gru(4), gru(6)]),
    "stack, backwards": lambda: fastgru.Stack([gru(4, go_backwards=True), gru(6)]),
}
MODELS = ["frames", "last", "indices", "pooled", "convolved", "two outputs", "batch of 4"]


def layer(kind, features=FEATURES, seed=0):
    found = LAYERS[kind]()
    found.build((1, None, features))
    rng = np.random.default_rng(seed)
    found.set_weights([rng.normal(size=w.shape).astype(w.dtype) for w in found.get_weights()])
    return found


def model(kind, seed=0):
    rng = np.random.default_rng(seed)

    def numbers(*shape):
        return rng.normal(size=shape).astype("f4")

    inner = gru(4, return_sequences=kind not in ("last", "two outputs", "convolved"))
    inner.return_state = kind == "two outputs"
    inner.build((None, None, FEATURES))
    inner.set_weights([numbers(*w.shape) for w in inner.get_weights()])
    nodes, last = [], "x"
    if kind == "indices":
        nodes.append(Embedding(name="e", inputs=("x",), outputs=("e",), table=numbers(9, FEATURES)))
        last = "e"
    if kind == "convolved":  # which reads zeros, or what follows a row, and passes no lengths on
        kernel = numbers(3, FEATURES, FEATURES)
        nodes.append(
            Convolution(
                name="c", inputs=("x",), outputs=("c",), kernel=kernel, bias=numbers(FEATURES),
                padding="same", activation="relu", passes_mask=False,
            )
        )  # fmt: skip
        last = "c"
    written = ("g", "s") if kind == "two outputs" else ("g",)
    nodes.append(Recurrent(name="g", inputs=(last,), outputs=written, layer=inner))
    last = "g"
    if kind == "pooled":
        nodes.append(Pool(name="p", inputs=("g",), outputs=("p",), largest=False))
        last = "p"
    nodes.append(
        Dense(
            name="d", inputs=(last,), outputs=("y",), kernel=numbers(4, 2), bias=numbers(2), activation="tanh"
        )
    )
    one = Input("x", (None,), True) if kind == "indices" else Input("x", (None, FEATURES))
    outputs = [Output("y"), *([Output("s")] if kind == "two outputs" else [])]
    return Model([one], nodes, outputs, name="whole", batch=4 if kind == "batch of 4" else None)


KINDS = [*(f"layer: {kind}" for kind in LAYERS), *(f"model: {kind}" for kind in MODELS)]


def network(kind):
    what, _, name = kind.partition(": ")
    return layer(name) if what == "layer" else model(name)


def inputs(kind, rng, *shape):
    """Random rows, or one, for a network of the kind."""
    if kind == "model: indices":
        return rng.integers(0, 9, shape)
    return rng.normal(size=(*shape, FEATURES)).astype("f4")


def run(capfd, *arguments, status=0):
    """Standard error of `fastgru run` in this process."""
    found = _main.run(["run", *map(str, arguments)])
    error = capfd.readouterr().err
    assert found == status, error
    return error
