"""`quantize`: int8 weights that fit a calibration, for layers of every kind, and the report."""

import io

import numpy as np
import pytest

import fastgru
from fastgru._quantize import MOST

UNITS, FEATURES = 24, 16


def signal(seed, batch=2, timesteps=400, features=FEATURES, rank=5):
    """Inputs that vary together, as those of real sensors do."""
    rng = np.random.default_rng(seed)
    mixed = np.random.default_rng(99).normal(size=(rank, features)) / rank**0.5
    return (rng.normal(size=(batch, timesteps, rank)) @ mixed).astype(np.float32)


def gru(seed=0, units=UNITS, features=FEATURES, **options):
    layer = fastgru.GRU(units, **{"return_sequences": True} | options)
    layer.build((2, None, features))
    rng = np.random.default_rng(seed)
    shapes = [w.shape for w in layer.get_weights()]
    layer.set_weights([rng.normal(size=s) / (s[0] ** 0.5 if len(s) == 2 and s[0] > 2 else 4) for s in shapes])
    return layer


def both(seed=0, **options):
    layer = fastgru.Bidirectional(fastgru.GRU(UNITS, return_sequences=True, **options))
    layer.build((2, None, FEATURES))
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape) / 5 for w in layer.get_weights()])
    return layer


def rms(found, wanted):
    return float(np.sqrt(np.mean((found - wanted) ** 2)))


LAYERS = {
    "reset before": lambda: gru(),
    "reset after": lambda: gru(reset_after=True, recurrent_activation="sigmoid"),
    "no bias": lambda: gru(use_bias=False),
    "backwards": lambda: gru(go_backwards=True, reset_after=True),
    "default state": lambda: gru(default_state=np.linspace(-0.5, 0.5, UNITS)),
    "a callable": lambda: gru(activation=np.tanh),
    "float16": lambda: gru(dtype="float16"),
    "both directions": both,
    "both, not merged": lambda: fastgru.Bidirectional.from_config(both().get_config() | {"merge_mode": None}),
    "stack": lambda: fastgru.Stack(
        [gru(units=FEATURES), both(1, reset_after=True), gru(2, features=2 * UNITS)]
    ),
}


def outputs(layer, x):
    found = layer(x)
    return np.concatenate(found, axis=-1) if isinstance(found, list) else found.astype(np.float32)


@pytest.mark.parametrize("name", LAYERS)
def test_calibrated_layers_have_a_smaller_error_on_other_inputs(name):
    layer = LAYERS[name]()
    if not layer.built:
        layer.build((2, None, FEATURES))
    before = [w.copy() for w in layer.get_weights()]
    plain, none = fastgru.quantize(layer)
    small, report = fastgru.quantize(layer, signal(1))
    x = signal(2)
    wanted = outputs(layer, x)
    errors = [rms(outputs(each, x), wanted) for each in (plain, small)]
    assert 0 < errors[1] < 0.75 * errors[0]
    for ours, theirs in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    members = layer.layers if isinstance(layer, fastgru.Stack) else [layer]
    assert [entry.name for entry in report] == [member.name for member in members]
    assert all(np.isnan(entry.rms) and entry.channel is None for entry in none)
    last = report[-1]
    assert 0.3 < last.rms / errors[1] < 3
    assert last.rms < last.channel_rms <= last.max
    assert type(small) is type(layer)
    assert small.name == layer.name


def test_weights_are_whole_steps_and_stay_those_when_they_are_rounded_again():
    small, _ = fastgru.quantize(gru(reset_after=True), signal(3))
    for kernel in small.get_weights()[:2]:
        steps = np.abs(kernel).max(axis=0) / MOST
        np.testing.assert_allclose(kernel / steps, np.rint(kernel / steps), rtol=0, atol=1e-3)
    again, _ = fastgru.quantize(small)
    x = signal(4)
    np.testing.assert_array_equal(again(x), small(x))
    file = io.BytesIO()
    small.save(file)
    loaded = fastgru.load(file.getvalue())
    assert loaded.weights_dtype == "int8"
    np.testing.assert_array_equal(loaded(x), small(x))


def test_streams_of_a_calibrated_stack_run():
    stack = fastgru.Stack([gru(units=FEATURES), gru(1, reset_after=True)])
    small, _ = fastgru.quantize(stack, signal(5))
    x, stream = signal(6, batch=1, timesteps=5), small.stream()
    wanted = small(x)
    for step in range(5):
        np.testing.assert_array_equal(stream(x[:, step]), wanted[:, step])


def test_time_major_inputs_and_lengths_are_those_of_the_layer():
    x, lengths = signal(7), [400, 250]
    unused = x.copy()
    unused[1, 250:] = np.nan  # beyond its length
    layer, major = gru(), gru(time_major=True)
    small, report = fastgru.quantize(layer, unused, lengths=lengths)
    other, same = fastgru.quantize(major, unused.swapaxes(0, 1), lengths=lengths)
    for ours, theirs in zip(small.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert report[0][1:] == same[0][1:]
    assert np.isfinite(report[0].rms)


STATES = {
    "gru": (lambda: gru(use_bias=True), 1, lambda states: states[0]),
    "in a list": (lambda: gru(reset_after=True), 1, lambda states: states),
    "backwards": (lambda: gru(go_backwards=True), 1, lambda states: states[0]),
    "both directions": (both, 2, lambda states: states),
    "stack": (
        lambda: fastgru.Stack([gru(units=FEATURES), both(1), gru(2, features=2 * UNITS)]),
        4,
        lambda states: [None, *states[1:]],
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_states_are_those_that_the_calibration_starts_from(name):
    # rows of two timesteps, so that most of what is multiplied by the recurrent kernel is these states
    make, count, given = STATES[name]
    layer = make()
    x, other = signal(20, batch=600, timesteps=3), signal(21, batch=50, timesteps=3)
    units = [part.units for part in layer._parts]
    assert len(units) == count

    def states(seed, batch):
        rng = np.random.default_rng(seed)
        mixed = [np.random.default_rng(7).normal(size=(4, n)) for n in units]
        return given([np.tanh(rng.normal(size=(batch, 4)) @ m).astype(np.float32) for m in mixed])

    with_states, report = fastgru.quantize(layer, x, initial_state=states(1, 600))
    without, _ = fastgru.quantize(layer, x)
    start = states(2, 50)

    def run(each):
        found = each(other, initial_state=start)
        return np.concatenate(found, axis=-1) if isinstance(found, list) else found

    wanted = run(layer)
    errors = [rms(run(each), wanted) for each in (with_states, without)]
    assert 0 < errors[0] < 0.9 * errors[1]
    assert 0.3 < report[-1].rms / errors[0] < 3


def test_stateful_layers_keep_their_state_and_are_stateful():
    layer = gru(stateful=True)
    layer(signal(8, timesteps=3))
    state = layer.states[0]
    small, _ = fastgru.quantize(layer, signal(9))
    np.testing.assert_array_equal(layer.states[0], state)
    assert small.stateful
    assert small(signal(10, timesteps=3)).shape == (2, 3, UNITS)


def test_progress_counts_kernels():
    told = []
    fastgru.quantize(both(), signal(11), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


# ---- the report --------------------------------------------------------------------------------------


def test_the_report_tells_what_it_sees():
    layer = gru(units=100, features=FEATURES)
    weights = layer.get_weights()
    weights[1][:, 7] /= 100
    weights[1][3, 7] = 4.0  # one of a hundred
    weights[2][200:] = 9.0  # the candidate is 1
    weights[2][:100] = -9.0
    layer.set_weights(weights)
    _, report = fastgru.quantize(layer, signal(12))
    dominated, saturated = report[0].notes
    assert dominated == f"recurrent_kernel of {layer.name} has columns that one weight dominates: 1"
    assert saturated.endswith("of its outputs are saturated, beyond 0.99")
    lines = str(report).splitlines()
    assert lines[0].split() == ["layer", "rms", "max", "worst", "unit", "its", "rms"]
    assert lines[1].split()[0] == layer.name
    assert lines[2:] == [f"{layer.name}: {note}" for note in report[0].notes]


def test_without_calibration_the_table_has_names_alone():
    layer = gru()
    _, report = fastgru.quantize(layer)
    assert str(report).splitlines()[1:] == [layer.name]


# ---- what is refused ---------------------------------------------------------------------------------

REFUSED = {
    "no layer": (lambda: "gru", {}, TypeError, "layer must be a GRU, Bidirectional or Stack, got str"),
    "not built": (lambda: fastgru.GRU(3), {}, ValueError, "layer must be built to be quantized, got 'gru"),
    "float64": (lambda: gru(dtype="float64"), {}, ValueError, "weights_dtype must be None or one of float64"),
    "features": (gru, {"calibration": signal(0)[:, :, :3]}, ValueError, "calibration must have shape .* 16"),
    "one timestep": (gru, {"calibration": signal(0)[:, :1]}, ValueError, "at least two timesteps, got"),
    "float16": (gru, {"weights_dtype": "float16"}, ValueError, "weights_dtype must be 'int8', got 'float16'"),
    "no type": (gru, {"weights_dtype": "int4"}, ValueError, "weights_dtype must be .* got 'int4'"),
    "a list": (gru, {"calibration": [[[1.0] * 16] * 2]}, TypeError, "calibration must be an array, got list"),
    "two axes": (
        gru,
        {"calibration": signal(0)[0]},
        ValueError,
        r"calibration must have shape .*\(400, 16\)",
    ),
    "no rows": (gru, {"calibration": signal(0)[:0]}, ValueError, r"calibration must have shape .*got \(0,"),
    "integers": (
        gru,
        {"calibration": np.ones((1, 2, 16), int)},
        TypeError,
        "calibration must be an array of float32",
    ),
    "NaN": (gru, {"calibration": signal(0) * np.nan}, ValueError, "calibration must be finite"),
    "lengths": (
        gru,
        {"calibration": signal(0), "lengths": [1]},
        ValueError,
        r"lengths must have shape \(2,\)",
    ),
    "lengths alone": (gru, {"lengths": [1, 2]}, ValueError, "lengths must come with a calibration"),
    "states alone": (
        gru,
        {"initial_state": np.zeros((2, UNITS), "f4")},
        ValueError,
        "initial_state must come with a calibration",
    ),
    "other states": (
        gru,
        {"calibration": signal(0), "initial_state": np.zeros((3, UNITS), "f4")},
        ValueError,
        "initial_state must",
    ),
    "one state of two": (
        both,
        {"calibration": signal(0), "initial_state": [np.zeros((2, UNITS), "f4")]},
        ValueError,
        "initial_state.* forward and backward, got 1",
    ),
    "a state of NaN": (
        gru,
        {"calibration": signal(0), "initial_state": np.full((2, UNITS), np.nan, "f4")},
        ValueError,
        "initial_state must be finite",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_quantized_is_refused(case):
    make, options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        fastgru.quantize(make(), **options)
