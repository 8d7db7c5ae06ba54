"""Whole recurrent models as people build them in Keras: for `tf_keras` and Keras 3 alike.

Each function of layers takes the module `keras.layers` and returns a model's layers, one after the other;
sizes are those of the models in use. The race's workers import this under their peer's Python: nothing but
NumPy here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.tasks import FRAMES, Array

Layers = list[Any]  # of Keras


def nsnet2(layers: Any, bins: int = 161, units: int = 400, wide: int = 600) -> Layers:
    """NSNet2, a speech denoiser: spectra of 161 bins to a gain of each."""
    return [
        layers.Dense(units, activation="relu"),
        layers.GRU(units, return_sequences=True),
        layers.GRU(units, return_sequences=True),
        layers.Dense(wide, activation="relu"),
        layers.Dense(wide, activation="relu"),
        layers.Dense(bins, activation="sigmoid"),
    ]


def keyword_spotter(layers: Any, units: int = 154, words: int = 12) -> Layers:
    """The small GRU of "Hello Edge" (Zhang et al., 2017): 25 frames of 10 coefficients to 12 words."""
    return [layers.GRU(units), layers.Dense(words, activation="softmax")]


def precise(layers: Any, units: int = 20, **options: Any) -> Layers:
    """mycroft-precise: a wake word in 29 frames of 13 coefficients."""
    return [layers.GRU(units, name="net", **options), layers.Dense(1, activation="sigmoid")]


def recommender(layers: Any, items: int = 37000, embedding: int = 100, units: int = 100) -> Layers:
    """GRU4Rec: what a session has clicked to scores of every item; with embedding=0 it reads (.., items)."""
    head = [layers.Embedding(items, embedding)] if embedding else []
    return [*head, layers.GRU(units), layers.Dense(items, activation="tanh")]


def sentiment(
    layers: Any, words: int = 10000, embedding: int = 64, units: int = 64, wide: int = 64
) -> Layers:
    """Words, padded with zeros, to the probability of a good review."""
    return [
        layers.Embedding(words, embedding, mask_zero=True),
        layers.SpatialDropout1D(0.2),
        layers.Bidirectional(layers.GRU(units)),
        layers.Dense(wide, activation="relu"),
        layers.Dense(1, activation="sigmoid"),
    ]


def forecaster(layers: Any, filters: int = 32, units: Sequence[int] = (64, 32), hours: int = 24) -> Layers:
    """48 hours of 6 series to the next 24 of one."""
    first, second = units
    return [
        layers.Conv1D(filters, 3, padding="causal", activation="relu"),
        layers.GRU(first, return_sequences=True),
        layers.GRU(second),
        layers.Dense(hours),
    ]


def tagger(layers: Any, words: int = 10000, embedding: int = 64, units: int = 64, tags: int = 17) -> Layers:
    """Words to a tag of each."""
    return [
        layers.Embedding(words, embedding),
        layers.GRU(units, return_sequences=True),
        layers.TimeDistributed(layers.Dense(tags, activation="softmax"), name="tags"),
    ]


def grapheme_to_phoneme(
    keras: Any, letters: Any, phonemes: Any, embedding: int = 256, units: int = 256, padded: bool = False
) -> tuple[Any, Any]:
    """g2p_en: letters to phonemes, a decoder that starts from an encoder's state; its logits and state."""
    layers = keras.layers
    x = layers.Embedding(29, embedding, mask_zero=padded, name="letter")(letters)
    _, state = layers.GRU(units, return_state=True, name="encoder")(x)
    y = layers.Embedding(74, embedding, name="phoneme")(phonemes)
    decoder = layers.GRU(units, return_sequences=True, return_state=True, name="decoder")
    y, last = decoder(y, initial_state=state)
    return layers.Dense(74, name="logits")(y), last


# ---- those that are raced --------------------------------------------------------------------------


class Network(NamedTuple):
    """A model that is raced.

    `inputs`: for each the size of a step's vector, or, negative, how many indices there are. `units`: of
    the states of a stream, of which others have none. `layers` is None of the encoder and decoder, which are
    no chain.
    """

    label: str
    layers: Callable[[Any], Layers] | None
    inputs: tuple[int, ...]
    units: tuple[int, ...] = ()
    padded: bool = False  # with zeros, in a batch


NETWORKS = {
    "nsnet2": Network("NSNet2, speech denoiser", nsnet2, (161,), (400, 400)),
    "keyword": Network("keyword spotter, Hello Edge", keyword_spotter, (10,), (154,)),
    "precise": Network("mycroft-precise", precise, (13,), (20,)),
    "gru4rec": Network("GRU4Rec, 37 000 items", recommender, (-37000,), (100,)),
    "sentiment": Network("sentiment, both directions", sentiment, (-10000,), padded=True),
    "forecaster": Network("forecaster, Conv1D and two GRUs", forecaster, (6,)),
    "tagger": Network("tagger", tagger, (-10000,), (64,)),
    "g2p": Network("g2p_en, encoder and decoder", None, (-29, -74)),
}


def inputs_of(keras: Any, name: str, batch: int | None, timesteps: int | None) -> list[Any]:
    """The symbolic inputs of a model."""
    return [
        keras.Input(batch_shape=(batch, timesteps), dtype="int32")
        if size < 0
        else keras.Input(batch_shape=(batch, timesteps, size))
        for size in NETWORKS[name].inputs
    ]


def whole(keras: Any, name: str, batch: int | None = None, timesteps: int | None = None) -> Any:
    """The model for whole sequences."""
    inputs = inputs_of(keras, name, batch, timesteps)
    make = NETWORKS[name].layers
    if make is None:
        return keras.Model(inputs, grapheme_to_phoneme(keras, *inputs)[0], name=name)
    y = inputs[0]
    for layer in make(keras.layers):
        y = layer(y)
    return keras.Model(inputs, y, name=name)


def step(keras: Any, name: str, batch: int) -> Any:
    """The same model of one step, with the states of its GRUs as inputs and outputs."""
    make = NETWORKS[name].layers
    assert make
    inputs = inputs_of(keras, name, batch, 1)
    y, befores, afters = inputs[0], [], []
    for layer in make(keras.layers):
        if isinstance(layer, keras.layers.GRU):
            befores.append(keras.Input(batch_shape=(batch, layer.units)))
            stepped = keras.layers.GRU.from_config(layer.get_config() | {"return_state": True})
            y, after = stepped(y, initial_state=befores[-1])
            afters.append(after)
        else:
            y = layer(y)
    return keras.Model([*inputs, *befores], [y, *afters], name=f"{name}_step")


class NetworkTask(NamedTuple):
    """A model and how it is called.

    `stream`: step by step, from states of zeros. Otherwise one call, which returns what the model does.
    """

    name: str
    batch: int
    timesteps: int
    stream: bool = False
    dtype: str = "float32"

    @property
    def needs(self) -> frozenset[str]:
        """What not every library has."""
        return frozenset({"batch"} if self.batch > 1 else ())

    @property
    def shape(self) -> str:
        """Rows and steps."""
        return f"{self.batch}x{self.timesteps}"

    def __str__(self) -> str:
        return f"{self.name} {self.shape}"

    def inputs(self) -> list[Array]:
        """The same ones every time: (batch, timesteps) of indices, or (batch, timesteps, size).

        Of a stream there are FRAMES steps. Rows that are padded have at least one word.
        """
        rng = np.random.default_rng(1)
        timesteps = FRAMES if self.stream else self.timesteps
        network, arrays = NETWORKS[self.name], []
        for size in network.inputs:
            if size >= 0:
                arrays.append(rng.standard_normal((self.batch, timesteps, size)).astype(self.dtype))
                continue
            indices = rng.integers(1, -size, (self.batch, timesteps), dtype=np.int32)
            if network.padded and self.batch > 1:
                indices[np.arange(timesteps) >= rng.integers(1, timesteps + 1, (self.batch, 1))] = 0
            arrays.append(indices)
        return arrays


def weighted(model: Any) -> list[Any]:
    """A model's layers that have weights, in an order that all versions of Keras agree in."""
    layers = [layer for layer in model.layers if layer.weights]
    by_name = NETWORKS[model.name.removesuffix("_step")].layers is None
    return sorted(layers, key=lambda layer: layer.name) if by_name else layers


def draw(shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Weights of these shapes, such that no gate is stuck."""
    rng = np.random.default_rng(2)
    return [rng.normal(0, min(max(shape[0], 1), 400) ** -0.5, shape).astype("float32") for shape in shapes]
