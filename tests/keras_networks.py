"""Recurrent networks as people build them in Keras, small: for tf_keras and Keras 3 alike.

Each function takes the module and returns a model that is built, with weights of a generator.
"""

import numpy as np


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
    """mycroft-precise: a wake word in 29 frames of 13 coefficients."""
    layers = keras.layers
    gru = layers.GRU(20, activation="linear", dropout=0.2, name="net")
    model = keras.Sequential(
        [layers.Input((29, 13)), gru, layers.Dense(1, activation="sigmoid")], name="precise"
    )
    return randomized(model, rng)


def grapheme_to_phoneme(keras, rng):
    """g2p_en: letters to phonemes, an encoder whose state a decoder starts from."""
    layers = keras.layers
    letters, phonemes = keras.Input((None,), name="letters"), keras.Input((None,), name="phonemes")
    x = layers.Embedding(29, 16, mask_zero=True, name="letter")(letters)
    _, state = layers.GRU(24, return_state=True, name="encoder")(x)
    y = layers.Embedding(74, 16, name="phoneme")(phonemes)
    y, last = layers.GRU(24, return_sequences=True, return_state=True, name="decoder")(y, initial_state=state)
    model = keras.Model([letters, phonemes], [layers.Dense(74, name="logits")(y), last], name="g2p")
    return randomized(model, rng)


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
    """GRU4Rec: what a session has clicked to scores of every item; with one_hot=True it reads (.., items)."""
    layers = keras.layers
    if one_hot:
        head = [layers.Input((None, items))]
    else:
        head = [layers.Input((None,)), layers.Embedding(items, 32)]
    tail = [layers.GRU(100), layers.Dense(items, activation="tanh")]
    return randomized(keras.Sequential([*head, *tail], name="gru4rec"), rng)


def sentiment(keras, rng):
    """Words, padded with zeros, to the probability of a good review."""
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((None,)),
            layers.Embedding(200, 16, mask_zero=True),
            layers.SpatialDropout1D(0.2),
            layers.Bidirectional(layers.GRU(12)),
            layers.Dense(8, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ],
        name="sentiment",
    )
    return randomized(model, rng)


def forecaster(keras, rng):
    """48 hours of 6 series to the next 24 of one."""
    layers = keras.layers
    x = keras.Input((48, 6), name="hours")
    y = layers.Conv1D(16, 3, padding="causal", activation="relu")(x)
    y = layers.GRU(24, return_sequences=True)(y)
    y = layers.GRU(16)(layers.LayerNormalization()(y))
    return randomized(keras.Model(x, layers.Dense(24)(y), name="forecaster"), rng)


def tagger(keras, rng):
    """Words to a tag of each."""
    layers = keras.layers
    x = keras.Input((None,), name="words")
    y = layers.Embedding(150, 20, mask_zero=True)(x)
    y = layers.Bidirectional(layers.GRU(16, return_sequences=True))(y)
    y = layers.TimeDistributed(layers.Dense(9, activation="softmax"), name="tags")(y)
    return randomized(keras.Model(x, y, name="tagger"), rng)


NETWORKS = {
    function.__name__: function
    for function in (
        *(keyword_spotter, precise, grapheme_to_phoneme, encoder, decoder, recommender, sentiment),
        *(forecaster, tagger),
    )
}


def inputs_of(model, rng, batch=3, timesteps=7, dtype="float32"):
    """Random arrays for a model's inputs: of two axes without a size, indices, of which the last ones are 0."""
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
