"""Bits do not depend on company: on packed weights a row has the same result, to the last bit, alone or in a
batch, in one call or in many, whatever stands beside it, on all instruction sets that fuse multiply-adds."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from unittest import mock

import numpy as np
import pytest
from conftest import run_plan
from hypothesis import given, settings
from hypothesis import strategies as st

import fastgru
from fastgru import _config, _kernels, _plans

USUAL = ["tanh", "sigmoid", "hard_sigmoid"]
OTHERS = [
    *["linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "swish", "mish", "softplus"],
    *["softsign", "exponential", "ThresholdedReLU", "LeakyReLU"],
]
LAYOUTS = {
    "side by side": lambda x: x,
    "rows apart": lambda x: np.repeat(x, 2, axis=0)[::2],
    "steps apart": lambda x: np.repeat(x, 3, axis=1)[:, ::3],
    "steps first": lambda x: x.swapaxes(0, 1).copy().swapaxes(0, 1),
    "rows backwards": lambda x: x[::-1].copy()[::-1],
    "steps backwards": lambda x: x[:, ::-1].copy()[:, ::-1],
    "features apart": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "between others": lambda x: np.pad(x, [(0, 0), (0, 0), (1, 2)], constant_values=np.nan)[..., 1:-2],
}


@dataclass(frozen=True)
class Call:
    """All that a call depends on; its numbers follow from the seed."""

    isa: str
    weights: str  # their type
    reset_after: bool
    activation: str
    recurrent_activation: str
    use_bias: bool
    units: int
    features: int
    batch: int
    timesteps: int
    mask: str | None
    zero_output_for_mask: bool
    initial_state: bool
    go_backwards: bool
    time_major: bool
    layout: str
    order: tuple[int, ...]  # some rows in some order
    cuts: tuple[int, ...]  # between steps
    seed: int

    @property
    def dtype(self):
        return "float64" if self.weights == "float64" else "float32"


@st.composite
def calls(draw):
    isa = draw(st.sampled_from(_kernels.isas()))
    weights = ["float32", "float64", "int8", "float16"][: 4 if isa in _kernels.float16_isas() else 3]
    batch, timesteps = draw(st.integers(1, 20)), draw(st.integers(1, 10))
    order = draw(st.permutations(range(batch)))
    activations = st.sampled_from(USUAL) | st.sampled_from(OTHERS)
    return Call(
        isa=isa,
        weights=draw(st.sampled_from(weights)),
        reset_after=draw(st.booleans()),
        activation=draw(activations),
        recurrent_activation=draw(activations),
        use_bias=draw(st.booleans()),
        units=draw(st.integers(1, 20) | st.integers(1, 70) | st.sampled_from([128, 200])),
        features=draw(st.integers(0, 20)),
        batch=batch,
        timesteps=timesteps,
        mask=draw(st.sampled_from([None, None, "random", "rows", "steps", "leading"])),
        zero_output_for_mask=draw(st.booleans()),
        initial_state=draw(st.booleans()),
        go_backwards=draw(st.booleans()),
        time_major=draw(st.booleans()),
        layout=draw(st.sampled_from(list(LAYOUTS))),
        order=tuple(order[: draw(st.integers(1, batch))]),
        cuts=tuple(sorted(draw(st.sets(st.integers(1, max(1, timesteps - 1)))) - {timesteps})),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def weights_of(call):
    """kernel, recurrent kernel, and bias or None."""
    rng, width = np.random.default_rng(call.seed), 3 * call.units
    kernels = [rng.normal(size=(n, width)) / max(n, 1) ** 0.5 for n in (call.features, call.units)]
    exact = call.dtype if call.weights == "int8" else call.weights
    kernels = [kernel.astype(exact).astype(call.dtype) for kernel in kernels]
    bias = rng.normal(size=(2, width) if call.reset_after else width).astype(call.dtype)
    return [*kernels, bias if call.use_bias else None]


def plan_of(call, isa=None):
    g, f = (fastgru.activations.get(name).kernel for name in (call.activation, call.recurrent_activation))
    packed_as = call.weights if call.weights in ("float16", "int8") else None
    return _plans.Plan(*weights_of(call), call.reset_after, g, f, "packed", isa or call.isa, packed_as)


def mask_of(call, rng):
    """(batch, timesteps), or None."""
    shape, steps = (call.batch, call.timesteps), np.arange(call.timesteps)
    match call.mask:
        case "random":
            return rng.random(shape) < 0.6
        case "rows":
            return (rng.random(shape) < 0.8) & (rng.random((call.batch, 1)) < 0.5)
        case "steps":
            return (rng.random(shape) < 0.8) & (rng.random(call.timesteps) < 0.5)
        case "leading":
            return steps >= rng.integers(0, call.timesteps + 1, (call.batch, 1))
    return None


def arrays_of(call):
    """Input, with zeros of both signs in it, initial state or None, mask or None: rows first."""
    rng = np.random.default_rng(call.seed + 1)
    x = rng.normal(size=(call.batch, call.timesteps, call.features))
    x = np.where(rng.random(x.shape) < 0.1, np.copysign(0, x), x).astype(call.dtype)
    h = rng.normal(size=(call.batch, call.units)).astype(call.dtype) if call.initial_state else None
    return x, h, mask_of(call, rng)


def some(array, index):
    """Part of an array that may be None."""
    return None if array is None else array[index]


def run(call, plan, x, h, mask):
    """The output of every step, in the order of the run, and the last state: rows first."""
    x, h = LAYOUTS[call.layout](x), None if h is None else np.ascontiguousarray(h)
    out = np.empty((*x.shape[:2], call.units), call.dtype)
    state = np.empty((len(x), call.units), call.dtype)
    x, given_out, mask = (
        a.swapaxes(0, 1) if call.time_major and a is not None else a for a in (x, out, mask)
    )
    run_plan(
        plan, x, h, state, given_out, mask, call.time_major, call.go_backwards, call.zero_output_for_mask
    )
    return out, state


def time_of(call, first, end):
    """Where the steps of a run from `first` to before `end` stand in time."""
    return slice(call.timesteps - end, call.timesteps - first) if call.go_backwards else slice(first, end)


def pieces(call, cuts):
    """The steps of a run as pairs: first, end."""
    return list(itertools.pairwise([0, *cuts, call.timesteps]))


def run_in_pieces(call, plan, x, h, mask, cuts):
    """As `run`, with the state carried from call to call."""
    outputs = []
    for first, end in pieces(call, cuts):
        time = time_of(call, first, end)
        output, h = run(call, plan, x[:, time], h, some(mask, (slice(None), time)))
        outputs.append(output)
    return np.concatenate(outputs, axis=1), h


def of_pieces(call, output, mask, cuts):
    """The outputs of a whole run as cuts make them: zeros before a row's first step of each piece."""
    if mask is None:
        return output
    kept = mask[:, ::-1] if call.go_backwards else mask
    seen = [np.logical_or.accumulate(kept[:, first:end], axis=1) for first, end in pieces(call, cuts)]
    return np.where(np.concatenate(seen, axis=1)[..., np.newaxis], output, output.dtype.type(0))


def bits(array):
    """As integers; NaN is NaN, whatever its sign and payload."""
    array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
    return array.view(f"u{array.itemsize}")


def assert_same_bits(found, wanted):
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(bits(ours), bits(theirs))


# ---- any call ------------------------------------------------------------------------------------

ANY_CALL = settings(max_examples=300, deadline=None)


@ANY_CALL
@given(calls())
def test_a_row_has_the_same_bits_alone_and_in_any_batch(call):
    plan, (x, h, mask) = plan_of(call), arrays_of(call)
    output, state = run(call, plan, x, h, mask)
    for rows in (list(call.order), *([row] for row in range(call.batch))):
        found = run(call, plan, x[rows], some(h, rows), some(mask, rows))
        assert_same_bits(found, (output[rows], state[rows]))


@ANY_CALL
@given(calls())
def test_a_sequence_has_the_same_bits_in_one_call_and_in_pieces(call):
    plan, arrays = plan_of(call), arrays_of(call)
    output, state = run(call, plan, *arrays)
    for cuts in (call.cuts, range(1, call.timesteps)):
        found = run_in_pieces(call, plan, *arrays, cuts)
        assert_same_bits(found, (of_pieces(call, output, arrays[-1], cuts), state))


@ANY_CALL
@given(calls())
def test_neighbours_and_masked_inputs_may_hold_anything(call):
    plan, (x, h, mask) = plan_of(call), arrays_of(call)
    rows, rng = list(call.order), np.random.default_rng(call.seed + 2)
    wanted = [array[rows] for array in run(call, plan, x, h, mask)]

    def anything(array):
        return rng.choice([np.nan, np.inf, -np.inf, 1e30, -1e-30], array.shape)

    others = np.setdiff1d(range(call.batch), rows)
    x[others] = anything(x[others])
    if h is not None:
        h[others] = anything(h[others])
    kept = np.ones((call.batch, call.timesteps), bool) if mask is None else mask
    kept[others] = rng.random(kept[others].shape) < 0.5
    x[~kept] = anything(x[~kept])
    for given_mask in [kept] if mask is not None else [kept, None]:
        found = run(call, plan, x, h, given_mask)
        assert_same_bits([array[rows] for array in found], wanted)


@ANY_CALL
@given(calls())
def test_neither_layouts_nor_what_is_asked_for_change_bits(call):
    plan, (x, h, mask) = plan_of(call), arrays_of(call)
    output, state = run(call, plan, x, h, mask)
    found, last = np.empty_like(state), np.empty_like(state)
    flags = (False, call.go_backwards, call.zero_output_for_mask)
    run_plan(plan, x, h, found, None, mask, *flags)
    assert_same_bits([found], [state])
    found = np.zeros_like(state) if h is None else h.copy()
    run_plan(plan, x, found, found, last, mask, *flags)  # from an array to itself
    assert_same_bits([found, last], [state, output[:, -1]])
    if mask is None:
        run_plan(plan, x, h, found, last, np.ones(x.shape[:2], bool), *flags)
        assert_same_bits([found, last], [state, output[:, -1]])
    backwards = [some(array, (slice(None), slice(None, None, -1))) for array in (x, mask)]
    run_plan(plan, backwards[0], h, found, last, backwards[1], False, not flags[1], flags[2])
    assert_same_bits([found, last], [state, output[:, -1]])


@ANY_CALL
@given(calls(), st.lists(st.tuples(st.integers(1, 20), st.integers(1, 10)), min_size=1, max_size=4))
def test_calls_before_change_no_bits(call, sizes):
    arrays = arrays_of(call)
    wanted = run(call, plan_of(call), *arrays)
    plan = plan_of(call)
    for batch, timesteps in sizes:
        run(call, plan, arrays[0][:batch, :timesteps] + 1, some(arrays[1], slice(batch)), None)
        assert_same_bits(run(call, plan, *arrays), wanted)


@settings(max_examples=60, deadline=None)
@given(calls())
def test_threads_that_share_a_plan_get_the_same_bits(call):
    plan, (x, h, mask) = plan_of(call), arrays_of(call)

    def rows_from(row):
        return run(call, plan, x[row:], some(h, slice(row, None)), some(mask, slice(row, None)))

    wanted = run(call, plan, x, h, mask)
    rows = [row % call.batch for row in range(24)]
    with ThreadPoolExecutor(4) as pool:
        for row, found in zip(rows, pool.map(rows_from, rows), strict=True):
            assert_same_bits(found, [array[row:] for array in wanted])


@ANY_CALL
@given(calls())
def test_instruction_sets_that_fuse_multiply_adds_give_the_same_bits(call):
    usable = _kernels.float16_isas() if call.weights == "float16" else _kernels.packed_isas()
    results = [run(call, plan_of(call, isa), *arrays_of(call)) for isa in usable]
    for found in results[1:]:
        assert_same_bits(found, results[0])


# ---- any stream of a layer -------------------------------------------------------------------------


def layer_of(call, batch, **options):
    names = "units reset_after activation recurrent_activation use_bias go_backwards time_major dtype"
    options |= {name: getattr(call, name) for name in [*names.split(), "zero_output_for_mask"]}
    if call.weights in ("float16", "int8"):
        options["weights_dtype"] = call.weights
    with mock.patch.object(_config, "CHOICE", _config.Choice("packed", call.isa)):
        layer = fastgru.GRU(return_sequences=True, return_state=True, **options)
        layer.build((1, batch, call.features) if call.time_major else (batch, 1, call.features))
        layer.set_weights([weight for weight in weights_of(call) if weight is not None])
    return layer


def called(layer, x, h, mask):
    """Sequences and state, rows first."""
    x, mask = (a.swapaxes(0, 1) if layer.time_major and a is not None else a for a in (x, mask))
    output, state = layer(x, h, mask)
    return output.swapaxes(0, 1) if layer.time_major else output, state


@ANY_CALL
@given(calls())
def test_a_stream_has_the_bits_of_one_call(call):
    x, h, mask = arrays_of(call)
    output, state = called(layer_of(call, call.batch), x, h, mask)
    assert_same_bits((output, state), run(call, plan_of(call), x, h, mask))
    wanted = of_pieces(call, output, mask, call.cuts)
    for rows in ([*call.order], [call.order[0]]):
        stream = layer_of(call, len(rows), stateful=True)
        initial = some(h, rows)
        for first, end in pieces(call, call.cuts):
            time = time_of(call, first, end)
            found, last = called(
                stream, x[rows][:, time], initial, some(some(mask, rows), (slice(None), time))
            )
            assert_same_bits([found], [wanted[rows, first:end]])
            assert_same_bits([last], stream.states)
            initial = None
        assert_same_bits([last], [state[rows]])


# ---- sizes beyond a block of rows, or a chunk of steps ---------------------------------------------

SIZES = [  # batch, timesteps, features, units, weights
    (128, 3, 5, 16, "float32"),  # one block of rows
    (129, 3, 5, 16, "float32"),  # two
    (300, 2, 3, 9, "float64"),
    pytest.param(120, 2, 2, 1100, "float32", marks=pytest.mark.large),  # fewer rows to a block: they are long
    (1, 341, 4, 64, "float32"),  # one chunk of steps
    (1, 342, 4, 64, "float32"),  # and a single step
    (1, 690, 4, 64, "float32"),
    (3, 230, 4, 64, "float32"),
    (1, 172, 4, 64, "float64"),
    (1, 342, 4, 64, "float16"),
    pytest.param(1, 130, 2, 1100, "float32", marks=pytest.mark.large),  # chunks of 128 long rows
    pytest.param(4, 40, 2, 1100, "float32", marks=pytest.mark.large),  # of few rows and many weights
    pytest.param(11, 25, 2, 1100, "float16", marks=pytest.mark.large),
    pytest.param(32, 5, 2, 850, "float64", marks=pytest.mark.large),
    (63, 5, 6, 256, "float32"),  # chunks of two steps
    (65, 5, 6, 256, "float32"),  # steps without a chunk
    (21, 40, 4, 16, "float32"),  # more rows than share the reading of panels
    (44, 5, 6, 64, "float32"),  # full tiles: without a chunk, too
    (130, 9, 3, 64, "float32"),  # two blocks of rows
    (130, 9, 3, 64, "float16"),
    (129, 3, 5, 16, "int8"),
    (1, 342, 4, 64, "int8"),
    (63, 5, 6, 256, "int8"),
    pytest.param(4, 40, 2, 1100, "int8", marks=pytest.mark.large),
]


@pytest.mark.parametrize("mask", [None, "random"])
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize(("batch", "timesteps", "features", "units", "weights"), SIZES)
def test_blocks_and_chunks_change_no_bits(
    batch, timesteps, features, units, weights, reset_after, go_backwards, mask
):
    for isa in _kernels.float16_isas() if weights == "float16" else _kernels.isas():
        call = Call(
            isa, weights, reset_after, "tanh", "sigmoid", True, units, features, batch, timesteps, mask,
            False, True, go_backwards, False, "side by side", (), (), 0,
        )  # fmt: skip
        plan, arrays = plan_of(call), arrays_of(call)
        output, state = run(call, plan, *arrays)
        for cuts in ([1], [timesteps // 2], range(1, timesteps, 7), range(1, timesteps)):
            found = run_in_pieces(call, plan, *arrays, cuts)
            assert_same_bits(found, (of_pieces(call, output, arrays[-1], cuts), state))
        for rows in ([0], [batch - 1], [batch // 2], range(batch // 3), range(batch // 2, batch)):
            rows = list(rows)
            if rows:
                found = run(call, plan, *(array if array is None else array[rows] for array in arrays))
                assert_same_bits(found, (output[rows], state[rows]))
