"""Dropout: the statistics of the masks, what they touch, and when they are drawn."""

import numpy as np
import pytest
import reference

import fastgru

X = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)


def masks_of(layer, batch=4, features=5):
    return layer._dropout_masks(batch, features)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_masks_drop_the_rate_and_scale_the_rest(rate):
    fastgru.set_random_seed(1)
    masks = masks_of(fastgru.GRU(200, dropout=rate, recurrent_dropout=rate), 100, 300)
    for name, size in (("input_masks", 300), ("recurrent_masks", 200)):
        z, r, h = masks[name]
        for mask in (z, r, h):
            assert mask.shape == (100, size)
            assert set(np.unique(mask)) == {np.float32(0), np.float32(1) / np.float32(1 - rate)}
            # 20 000 independent elements or more: five standard deviations
            assert abs((mask == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / mask.size)
            # no row or column has a rate of its own
            for axis in (0, 1):
                means = (mask == 0).mean(axis)
                spread = np.sqrt(rate * (1 - rate) / mask.shape[axis])
                assert abs(means.std() / spread - 1) < 0.3
        assert abs(np.corrcoef((z == 0).ravel(), (r == 0).ravel())[0, 1]) < 0.05


def test_masks_are_drawn_for_every_call_and_follow_the_seed(choice):
    layer = fastgru.GRU(5, dropout=0.5, recurrent_dropout=0.5)
    layer.build(X.shape)
    fastgru.set_random_seed(7)
    first, second = layer(X, training=True), layer(X, training=True)
    assert (first != second).any()
    fastgru.set_random_seed(7)
    np.testing.assert_array_equal(layer(X, training=True), first)


@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("implementation", [1, 2])
@pytest.mark.parametrize(("dropout", "recurrent_dropout"), [(0.3, 0.0), (0.0, 0.4), (0.3, 0.4)])
def test_the_same_masks_serve_all_steps(
    choice, monkeypatch, dropout, recurrent_dropout, implementation, reset_after
):
    layer = fastgru.GRU(
        5,
        dropout=dropout,
        recurrent_dropout=recurrent_dropout,
        implementation=implementation,
        reset_after=reset_after,
        return_sequences=True,
        dtype="float64",
    )
    masks = masks_of(layer)
    monkeypatch.setattr(layer, "_dropout_masks", lambda batch, features: masks)
    mask = np.random.default_rng(1).random((4, 6)) < 0.7
    got = layer(X.astype(np.float64), mask=mask, training=True)
    wanted, _ = reference.gru(X, *layer.get_weights(), reset_after=reset_after, mask=mask, **masks)
    np.testing.assert_allclose(got, wanted, atol=1e-12)
    assert set(masks) == {
        name for name, rate in (("input_masks", dropout), ("recurrent_masks", recurrent_dropout)) if rate
    }


def test_implementation_2_has_one_input_mask():
    (z, r, h), (z1, r1, h1) = (
        masks_of(fastgru.GRU(5, dropout=0.5, implementation=i), 50)["input_masks"] for i in (2, 1)
    )
    assert z is r is h
    assert (z1 != r1).any()
    assert (r1 != h1).any()


def test_recurrent_dropout_forces_implementation_1():
    assert fastgru.GRU(5, recurrent_dropout=0.5, implementation=2).implementation == 1
    assert fastgru.GRU(5, recurrent_dropout=-1, implementation=2).implementation == 2


@pytest.mark.parametrize("training", [None, False, 0, np.False_])
def test_nothing_is_dropped_outside_training(choice, training):
    layer = fastgru.GRU(5, dropout=0.9, recurrent_dropout=0.9)
    plain = fastgru.GRU(5)
    plain.build(X.shape)
    layer.build(X.shape)
    layer.set_weights(plain.get_weights())
    np.testing.assert_array_equal(layer(X, training=training), plain(X))


@pytest.mark.parametrize(
    ("given", "kept"), [(-0.5, 0.0), (1.5, 1.0), (float("nan"), 0.0), (True, 1.0), (np.float32(0.5), 0.5)]
)
def test_rates_are_clipped(given, kept):
    layer = fastgru.GRU(5, dropout=given, recurrent_dropout=given)
    assert (layer.dropout, layer.recurrent_dropout) == (kept, kept)


def test_a_rate_of_one_is_refused_in_training_only(choice):
    layer = fastgru.GRU(5, dropout=1.0)
    layer(X)
    with pytest.raises(ValueError, match=r"range \[0, 1\), got 1.0"):
        layer(X, training=True)
