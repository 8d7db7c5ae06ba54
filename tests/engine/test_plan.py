"""The compiled half: layouts in memory, scratch, and the bounds of what it reads and writes."""

import tracemalloc

import numpy as np
import pytest
import reference
from conftest import CHOICES, run_plan

import fastgru
from fastgru import _core, _kernels, _plans
from fastgru._nodes import Dense
from fastgru.model import Input, Model, Output


def random_plan(units, features, reset_after, dtype, choice, rng):
    kernel = rng.normal(size=(features, 3 * units)).astype(dtype) / 3
    recurrent = (rng.normal(size=(units, 3 * units)) / np.sqrt(units)).astype(dtype)
    bias = rng.normal(size=(2, 3 * units) if reset_after else 3 * units).astype(dtype)
    plan = _plans.Plan(kernel, recurrent, bias, reset_after, ("tanh", 0.0), ("sigmoid", 0.0), *choice)
    return plan, (kernel, recurrent, bias)


VECTORS = {"avx512": 64, "avx2": 32, "sse2": 16, "neon": 16, "generic": 0}  # bytes


@pytest.mark.parametrize("isa", _kernels.isas())
def test_few_units_take_the_room_of_one_vector_for_each_input(isa):
    vector = next(size for name, size in VECTORS.items() if isa.startswith(name))
    for dtype in ("float32", "float64"):
        itemsize = np.dtype(dtype).itemsize
        lanes = max(1, vector // itemsize)
        assert lanes <= 16
        for units in (1, lanes):
            plan = _plans.DensePlan(np.ones((1000, units), dtype), None, isa)
            assert plan.nbytes <= 1000 * lanes * itemsize + 128
        assert (
            _plans.DensePlan(np.ones((1000, lanes + 1), dtype), None, isa).nbytes >= 3000 * lanes * itemsize
        )
        layer = _plans.Plan(
            np.ones((1000, 3), dtype),
            np.ones((1, 3), dtype),
            None,
            True,
            ("tanh", 0.0),
            ("tanh", 0.0),
            "packed",
            isa,
        )
        assert layer.nbytes <= 3010 * lanes * itemsize


@pytest.mark.parametrize("weights", [None, "float16", "int8"])
@pytest.mark.parametrize("isa", _kernels.packed_isas())
def test_dense_layers_of_any_number_of_units_are_products(isa, weights):
    if weights == "float16" and isa not in _kernels.float16_isas():
        pytest.skip("no float16")
    rng = np.random.default_rng(3)
    for units in (1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 33):
        for features in (1, 7, 100):
            kernel = (rng.normal(size=(features, units)) / features**0.5).astype("f2").astype("f4")
            bias = rng.normal(size=units).astype("f4")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(fastgru._config, "CHOICE", fastgru._config.Choice("packed", isa))
                node = Dense(name="d", inputs=("x",), outputs=("y",), kernel=kernel, bias=bias)
                model = Model([Input("x", (None, features))], [node], [Output("y")], weights_dtype=weights)
                x = rng.normal(size=(9, 13, features)).astype("f4")
                found = model(x)
                for rows in range(1, 10):
                    np.testing.assert_array_equal(model(x[:rows]), found[:rows])
                    np.testing.assert_array_equal(model(x[:rows, :1]), found[:rows, :1])
            wanted = x.astype("f8") @ kernel + bias
            np.testing.assert_allclose(found, wanted, rtol=0, atol=0.05 if weights == "int8" else 1e-5)


LAYOUTS = {
    "contiguous": lambda x: x,
    "every second timestep": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "time-major behind": lambda x: np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1),
    "backwards in time": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "backwards in rows": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "backwards in features": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "padded features": lambda x: np.concatenate([x, x * np.nan], axis=-1)[..., : x.shape[-1]],
    "features far apart": lambda x: np.repeat(x, 3, axis=-1)[..., ::3],
    "Fortran": np.asfortranarray,
    "unaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 40, 5), (3, 20, 5), (20, 3, 5), (12, 12, 1), (300, 2, 5)])
def test_the_layout_of_the_input_does_not_matter(choice, layout, shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    given = LAYOUTS[layout](x)
    np.testing.assert_array_equal(given, x)
    for reset_after in (False, True):
        plan, weights = random_plan(6, shape[2], reset_after, "float32", choice, rng)
        wanted, last = reference.gru(x, *weights, recurrent_activation="sigmoid", reset_after=reset_after)
        for time_major, backwards in ((False, False), (True, False), (False, True)):
            if backwards:
                wanted, last = reference.gru(
                    x, *weights, recurrent_activation="sigmoid", reset_after=reset_after, go_backwards=True
                )
            state, out = np.zeros((shape[0], 6), np.float32), np.empty((*shape[:2], 6), np.float32)
            if time_major:
                run_plan(
                    plan, given.swapaxes(0, 1), state, state, out.swapaxes(0, 1), None, True, backwards, False
                )
            else:
                run_plan(plan, given, state, state, out, None, False, backwards, False)
            np.testing.assert_allclose(out, wanted, atol=2e-5)
            np.testing.assert_allclose(state, last, atol=2e-5)


def test_overlapping_windows_and_repeated_rows_are_read_in_place(choice):
    rng = np.random.default_rng(1)
    signal = rng.normal(size=200).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(signal, 20)[np.newaxis]  # stride: one element
    repeated = np.broadcast_to(rng.normal(size=(1, 9, 20)).astype(np.float32), (4, 9, 20))
    plan, weights = random_plan(5, 20, True, "float32", choice, rng)
    for x in (windows, repeated):
        state, out = np.zeros((x.shape[0], 5), np.float32), np.empty((*x.shape[:2], 5), np.float32)
        run_plan(plan, x, state, state, out, None, False, False, False)
        wanted, _ = reference.gru(x, *weights, recurrent_activation="sigmoid", reset_after=True)
        np.testing.assert_allclose(out, wanted, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("units", [*range(1, 36), 64, 65])
def test_nothing_is_written_beside_the_rows(choice, units, reset_after, dtype):
    rng = np.random.default_rng(units)
    batch, timesteps, features = 3, 4, 2
    plan, weights = random_plan(units, features, reset_after, dtype, choice, rng)
    x = rng.normal(size=(batch, timesteps, features)).astype(dtype)
    mask = rng.random((batch, timesteps)) < 0.7
    guarded = np.full((batch, timesteps, units + 40), 77, dtype)
    states = np.full(batch * units + 80, 55, dtype)
    state = states[40:-40].reshape(batch, units)
    state[...] = 0
    run_plan(plan, x, state, state, guarded[..., 20 : 20 + units], mask, False, False, False)
    wanted, last = reference.gru(
        x, *weights, recurrent_activation="sigmoid", reset_after=reset_after, mask=mask
    )
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(guarded[..., 20 : 20 + units], wanted, atol=tolerance)
    np.testing.assert_allclose(state, last, atol=tolerance)
    assert (guarded[..., :20] == 77).all()
    assert (guarded[..., 20 + units :] == 77).all()
    assert (states[:40] == 55).all()
    assert (states[-40:] == 55).all()


@pytest.mark.parametrize(
    ("batch", "timesteps", "features", "units", "sequences"),
    [
        (1, 60_000, 4, 64, False),
        (1, 60_000, 4, 64, True),
        (64, 2_000, 8, 32, False),
        pytest.param(300, 40, 8, 256, False, marks=pytest.mark.large),
        pytest.param(5_000, 3, 4, 256, False, marks=pytest.mark.large),
    ],
)
def test_a_call_needs_4_mib_beside_input_and_output(choice, batch, timesteps, features, units, sequences):
    # on the BLAS engine three states of the batch if that is more
    layer = fastgru.GRU(units, return_sequences=sequences)
    x = np.zeros((batch, timesteps, features), np.float32)
    out = np.empty((batch, timesteps, units) if sequences else (batch, units), np.float32)
    mask = np.ones((batch, timesteps), bool)
    layer(x[:, :1])  # BLAS is bound, caches are filled
    states = 3 * units * batch * 4 if choice.engine == "blas" else 0
    allowed = max(4 << 20, states) + (64 << 10)  # and 64 KiB of Python objects
    for m in (None, mask):
        layer.set_weights(layer.get_weights())  # scratch of the call before is gone
        tracemalloc.start()
        layer(x, mask=m, out=out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < allowed
        assert peak > 64 << 10  # the measurement sees the scratch


def test_contiguous_input_is_not_copied(monkeypatch):
    layer = fastgru.GRU(2)
    x = np.zeros((1, 500_000, 8), np.float32)  # 16 MB
    layer(x[:, :1])
    for view in (x, x[:, ::2], x.swapaxes(0, 1)[:1]):
        tracemalloc.start()
        layer(view)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 << 20


def test_an_unknown_instruction_set_lists_the_usable_ones():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=rf"isa must be one of .*{_kernels.isas()[0]}.*, got 'mmx'"):
        random_plan(2, 2, False, "float32", ("packed", "mmx"), rng)


def test_engines_and_instruction_sets_agree_to_rounding():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 10, 4)).astype(np.float32)
    results = []
    for choice in CHOICES:
        plan, _ = random_plan(19, 4, True, "float32", choice, np.random.default_rng(3))
        assert (plan.engine, plan.isa) == choice
        state = np.empty((3, 19), np.float32)
        run_plan(plan, x, None, state, None, None, False, False, False)
        results.append(state)
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], atol=1e-6)


@pytest.mark.parametrize("timesteps", [1, 3])
def test_a_network_may_be_without_a_gru(timesteps):
    values = [(3, np.float32, False, 0), (3, np.float64, False, 0)]
    network = _core.Network(values, [("cast", 0, 1, {})], [1], False, False)
    x = np.random.default_rng(0).normal(size=(2, timesteps, 3)).astype("float32")
    found = network.call(x, None, None, None, None)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, x)
