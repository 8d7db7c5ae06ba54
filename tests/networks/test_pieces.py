"""Sequences that need not fit into memory: pieces have the bits of one call, whatever their sizes."""

import numpy as np
import pytest

import fastgru
from fastgru import _pieces


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def gru(units=7, return_sequences=True, reset_after=True, **arguments):
    return fastgru.GRU(
        units, return_sequences=return_sequences, return_state=True, reset_after=reset_after, **arguments
    )


LAYERS = {
    "sequences": lambda: gru(),
    "last": lambda: gru(return_sequences=False),
    "last, zeros": lambda: gru(return_sequences=False, zero_output_for_mask=True),
    "backwards": lambda: gru(go_backwards=True),
    "last, backwards": lambda: gru(go_backwards=True, return_sequences=False),
    "time-major": lambda: gru(time_major=True),
    "zeros": lambda: gru(zero_output_for_mask=True, reset_after=False),
    "float16": lambda: gru(dtype="float16"),
    "float64": lambda: gru(dtype="float64"),
    "int8": lambda: gru(weights_dtype="int8"),
    "Python": lambda: gru(activation="softmax"),
    "Python, backwards": lambda: gru(activation="softmax", go_backwards=True),
    "Python, zeros": lambda: gru(activation="softmax", zero_output_for_mask=True),
    "both": lambda: fastgru.Bidirectional(gru()),
    "both, apart": lambda: fastgru.Bidirectional(gru(time_major=True), merge_mode=None),
    "stack": lambda: fastgru.Stack([gru(4), gru(6)]),
    "stack, last": lambda: fastgru.Stack([gru(4, zero_output_for_mask=True), gru(6, return_sequences=False)]),
    "stack, Python": lambda: fastgru.Stack([gru(4), gru(6, activation="softmax")]),
    "stack, backwards": lambda: fastgru.Stack([gru(4, go_backwards=True), gru(6)]),
}


def built(kind, rng):
    layer = LAYERS[kind]()
    layer.build((1, None, 5))
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


@pytest.mark.parametrize("kind", LAYERS)
def test_pieces_have_the_bits_of_one_call(kind, rng, monkeypatch):
    layer, batch, timesteps = built(kind, rng), 9, 23
    x = rng.normal(size=(timesteps, batch, 5) if layer.time_major else (batch, timesteps, 5)).astype("f4")
    states = [rng.normal(size=(batch, part.units)).astype(part.dtype) for part in layer._parts]
    for lengths in None, rng.integers(0, timesteps, batch, endpoint=True), np.full(batch, 7):
        results = layer(x, states, lengths=lengths)
        wanted = np.concatenate(results[: len(layer._dtypes)], axis=-1)
        for size in 200, 3000, 1 << 20:
            monkeypatch.setattr(_pieces, "PIECE_BYTES", size)
            found, count = np.full_like(wanted, np.nan), 0
            whole = found if layer.return_sequences else found[np.newaxis]
            rows = 4 if size == 200 and "Python" not in kind else None  # NumPy's bits depend on rows
            for (i, j), output, done in _pieces.pieces(layer, x, states, lengths, rows):
                whole[i : i + output.shape[0], j : j + output.shape[1]] = output
                count += done
            np.testing.assert_array_equal(found, wanted)
            assert count == batch * timesteps


def test_no_piece_is_longer_than_it_may_be(rng, monkeypatch):
    monkeypatch.setattr(_pieces, "PIECE_BYTES", 200)
    x = np.zeros((9, 23, 5), "f4")
    for kind in LAYERS.keys() - {"time-major", "both, apart"}:
        layer = built(kind, rng)
        whole = kind in ("stack, backwards", "float16", "both")
        count = sum(1 for _ in _pieces.pieces(layer, x, None, None, 4))
        assert (kind, count) == (kind, 3 if whole else 3 * 23)


def test_more_rows_than_there_are_make_no_smaller_pieces(rng, monkeypatch):
    monkeypatch.setattr(_pieces, "PIECE_BYTES", 3000)
    layer, x = built("sequences", rng), np.zeros((2, 50, 5), "f4")
    counts = [[done for *_, done in _pieces.pieces(layer, x, None, None, rows)] for rows in (2, 10**6)]
    assert counts == [[62, 38]] * 2


@pytest.mark.parametrize("time_major", [False, True])
def test_pieces_of_time_major_sequences_are_wide(time_major, rng, monkeypatch):
    monkeypatch.setattr(_pieces, "PIECE_BYTES", _pieces.STEPS * 90 * (5 + 7) * 4)
    x = np.zeros((64, 200, 5) if time_major else (200, 64, 5), "f4")
    layer = built("time-major" if time_major else "sequences", rng)
    firsts = {place[1 if time_major else 0] for place, *_ in _pieces.pieces(layer, x, None, None)}
    assert sorted(firsts) == [*range(0, 200, 90 if time_major else _pieces.ROWS)]
