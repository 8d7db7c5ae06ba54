"""Recurrent networks as people build them in Keras, small: for tf_keras and Keras 3 alike.

Those of the race of models are in benchmarks/networks.py. Each function takes the module and returns a model
that is built, with weights of a generator.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))  # where `python -m pytest` starts, but not `pytest`

from benchmarks import networks


def randomized(model, rng):
    """The model with random weights, under which no state grows without bounds."""
    for weight in model.weights:
        shape = tuple(weight.shape)
        array = rng.normal(0, 1 / max(1, shape[0]) ** 0.5, shape)
        name = getattr(weight, "path", weight.name)
        if "variance" in name:
            array = rng.uniform(0.3, 2, shape)
        elif "gamma" in name or "scale" in name:
            array = rng.uniform(0.5, 1.5, shape)
        weight.assign(array)
    return model


def keyword_spotter(keras, rng):
    """Frames of 40 features to 12 words, with a convolution at its head that halves the rate."""
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((50, 40)),
            layers.Conv1D(24, 5, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GRU(32, return_sequences=True),
            layers.Dropout(0.2),
            layers.GRU(32),
            layers.Dense(32, activation="relu"),
            layers.Dense(12, activation="softmax"),
        ],
        name="keyword_spotter",
    )
    return randomized(model, rng)


def precise(keras, rng):
    layers = keras.layers
    chain = networks.precise(layers, activation="linear", dropout=0.2)
    return randomized(keras.Sequential([layers.Input((29, 13)), *chain], name="precise"), rng)


def grapheme_to_phoneme(keras, rng):
    letters, phonemes = keras.Input((None,), name="letters"), keras.Input((None,), name="phonemes")
    outputs = networks.grapheme_to_phoneme(keras, letters, phonemes, 16, 24, padded=True)
    return randomized(keras.Model([letters, phonemes], [*outputs], name="g2p"), rng)


def encoder(keras, rng):
    """The first half of an encoder-decoder by itself: letters to a state."""
    layers = keras.layers
    letters = keras.Input((None,), name="letters")
    x = layers.Embedding(29, 16, mask_zero=True)(letters)
    _, state = layers.GRU(24, return_state=True)(x)
    return randomized(keras.Model(letters, state, name="encoder"), rng)


def decoder(keras, rng):
    """The second half, a step at a time: a phoneme and a state to the next of both."""
    layers = keras.layers
    phonemes, state = keras.Input((None,), name="phonemes"), keras.Input((24,), name="state")
    y = layers.Embedding(74, 16)(phonemes)
    y, last = layers.GRU(24, return_sequences=True, return_state=True)(y, initial_state=state)
    return randomized(keras.Model([phonemes, state], [layers.Dense(74)(y), last], name="decoder"), rng)


def recommender(keras, rng, items=300, one_hot=False):
    """With one_hot=True it reads (.., items)."""
    layers = keras.layers
    chain = networks.recommender(layers, items, embedding=0 if one_hot else 32)
    head = layers.Input((None, items) if one_hot else (None,))
    return randomized(keras.Sequential([head, *chain], name="gru4rec"), rng)


def sentiment(keras, rng):
    layers = keras.layers
    chain = networks.sentiment(layers, words=200, embedding=16, units=12, wide=8)
    return randomized(keras.Sequential([layers.Input((None,)), *chain], name="sentiment"), rng)


def forecaster(keras, rng):
    """With a normalization between its GRUs."""
    layers = keras.layers
    convolution, first, *rest = networks.forecaster(layers, filters=16, units=(24, 16))
    x = y = keras.Input((48, 6), name="hours")
    for layer in (convolution, first, layers.LayerNormalization(), *rest):
        y = layer(y)
    return randomized(keras.Model(x, y, name="forecaster"), rng)


def tagger(keras, rng):
    """In both directions, its words padded."""
    layers = keras.layers
    x = keras.Input((None,), name="words")
    y = layers.Embedding(150, 20, mask_zero=True)(x)
    *_, tags = networks.tagger(layers, tags=9)
    y = tags(layers.Bidirectional(layers.GRU(16, return_sequences=True))(y))
    return randomized(keras.Model(x, y, name="tagger"), rng)


NETWORKS = {
    function.__name__: function
    for function in (
        *(keyword_spotter, precise, grapheme_to_phoneme, encoder, decoder, recommender, sentiment),
        *(forecaster, tagger),
    )
}


def inputs_of(model, rng, batch=3, timesteps=7, dtype="float32"):
    """Random arrays for a model's inputs: indices, of which the last ones are 0, where it has two axes."""
    found = []
    for tensor in model.inputs:
        shape = tuple(tensor.shape)[1:]
        if shape == (None,) or "int" in str(tensor.dtype):
            steps = shape[0] or timesteps
            array = rng.integers(1, 9, (batch, steps))
            array[np.arange(steps) >= rng.integers(1, steps + 1, (batch, 1))] = 0
            found.append(array.astype(np.int32))
        else:
            found.append(rng.normal(size=(batch, *(size or timesteps for size in shape))).astype(dtype))
    return found
