"""How far float32 results are from those in float64, next to the original's."""

import secrets

import numpy as np
import reference

import fastgru

CONFIGURATIONS = 200


def configuration(rng):
    """Constructor's arguments of a random layer, its weights, an input and an initial state."""
    units, features = rng.integers(1, 101, 2)
    batch, timesteps = rng.integers(1, 9), rng.integers(1, 16)
    options = {
        "units": int(units),
        "reset_after": bool(rng.integers(2)),
        "recurrent_activation": str(rng.choice(["sigmoid", "hard_sigmoid"])),
    }
    weights = [rng.normal(size=(n, 3 * units)) / n**0.5 for n in (features, units)]
    weights.append(rng.normal(0, 0.5, (2, 3 * units) if options["reset_after"] else 3 * units))
    x, state = rng.normal(size=(batch, timesteps, features)), rng.normal(0, 0.5, (batch, units))
    return options, *([a.astype(np.float32) for a in arrays] for arrays in (weights, (x, state)))


def outputs(gru, options, weights, x, state):
    layer = gru(**options, return_sequences=True)
    layer.build(x.shape)
    layer.set_weights(weights)
    return np.asarray(layer(x, initial_state=state))


def test_the_largest_error_is_no_larger_than_that_of_the_original(tensorflow):
    seed, original = secrets.randbits(32), tensorflow.compat.v1.keras.layers.GRU
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(CONFIGURATIONS):
        options, weights, (x, state) = configuration(rng)
        equations = {key: value for key, value in options.items() if key != "units"}
        exact, _ = reference.gru(x, *weights, **equations, initial_state=state)
        found = outputs(fastgru.GRU, options, weights, x, state)
        theirs = outputs(original, options, weights, x, tensorflow.constant(state))
        errors.append([np.abs(result - exact).max() for result in (found, theirs)])
    ours, theirs = np.transpose(errors)
    assert (theirs > 0).all()
    ratios = ours / theirs
    median, quartiles = np.median(ratios), np.quantile(ratios, [0.25, 0.75])
    found = f"seed {seed}: median {median:.3f} of {CONFIGURATIONS} ratios, quartiles {quartiles}"
    print(found)  # with -s
    assert median <= 1, found
