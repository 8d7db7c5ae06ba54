"""Recorded and initial states. Docstrings name Keras' own cases, as in test_upstream.py."""

import numpy as np
import pytest
from keras_cases import assert_same, random, twin

import fastgru

pytestmark = pytest.mark.usefixtures("choice")


def test_state_persists_until_it_is_reset():
    """gru_test, test_statefulness, its first half; Keras 2.3, test_statefulness."""
    layer = fastgru.GRU(2, return_sequences=False, stateful=True, weights=None)
    x = np.ones((2, 3, 4), np.float32)
    first = layer(x)
    assert first.shape == (2, 2)
    second = layer(x, training=True)
    assert np.abs(first - second).max() > 1e-4
    layer.reset_states()
    third = layer(x)
    np.testing.assert_array_equal(third, first)
    assert np.abs(layer(x) - third).max() > 1e-4


def test_another_batch_is_an_error():
    """Keras 2.3, test_stateful_invalid_use."""
    layer = fastgru.GRU(3, stateful=True, batch_input_shape=(2, 5, 4))
    layer.build()
    for batch in (4, 3, 1):
        with pytest.raises(ValueError, match="incompatible with the layer"):
            layer(random(batch, 5, 4))


def test_states_are_reset_to_values():
    """Keras 2.3, test_reset_states_with_values."""
    layer = fastgru.GRU(3, stateful=True)
    layer.build((2, 5, 4))
    layer.reset_states()
    np.testing.assert_array_equal(layer.states, [np.zeros((2, 3))])
    layer.reset_states(np.ones((2, 3)))
    np.testing.assert_array_equal(layer.states, [np.ones((2, 3))])
    with pytest.raises(ValueError, match="expects 1 states, but it received 2"):
        layer.reset_states([1] * 2)


def test_reset_needs_the_batch_size():
    """base_rnn_test, test_reset_states."""
    with pytest.raises(ValueError, match="it needs to know its batch size"):
        fastgru.GRU(1, stateful=True).reset_states()


def test_returned_state_is_the_recorded_one():
    """gru_test, test_return_states; Keras 2.3, test_return_state."""
    layer = fastgru.GRU(3, return_state=True, stateful=True)
    output, state = layer(random(2, 5, 4))
    np.testing.assert_array_equal(state, layer.states[0])
    np.testing.assert_array_equal(state, output)


def test_recorded_state_comes_before_the_initial_one():
    """base_rnn_test, test_stateful_rnn_with_initial_state."""
    x, ones = np.full((12, 1, 8), 0.5, np.float32), np.ones((12, 16), np.float32)
    layer = fastgru.GRU(16, return_sequences=True, stateful=True)
    first, second = layer(x, ones), layer(x, ones)
    layer.reset_states()
    np.testing.assert_array_equal(layer(x, ones), first)
    layer.reset_states(first[:, -1])
    np.testing.assert_array_equal(layer(x), second)

    without = twin(layer, batch_input_shape=None, stateful=False)
    assert np.abs(without(x) - first).max() > 1e-3
    np.testing.assert_array_equal(without(x), without(x))
    for _ in range(2):
        assert_same(without(x, ones), first)


def test_one_row_keeps_its_state_apart_from_the_initial_one():
    """base_rnn_test, test_full_input_spec."""
    layer = fastgru.GRU(1, stateful=True)
    x, one = np.ones((1, 1, 1), np.float32), np.ones((1, 1), np.float32)
    layer.build(x.shape)
    layer.set_weights([np.full_like(w, 0.1) for w in layer.get_weights()])
    first, second = layer(x, one), layer(x, one)
    layer.reset_states()
    np.testing.assert_array_equal(layer(x, one), first)
    assert np.abs(first - second).max() > 1e-3
    assert layer.input_spec[0].shape == (1, None, 1)


def test_stacked_layers_keep_states_of_their_own():
    """base_rnn_test, test_stateful_rnn_with_stacking."""
    layers = [fastgru.GRU(32, stateful=True, return_sequences=True), fastgru.GRU(64, stateful=True)]
    x = np.ones((12, 10, 8), np.float32)

    def run():
        return layers[1](layers[0](x))

    first, second = run(), run()
    for layer in layers:
        layer.reset_states()
    np.testing.assert_array_equal(run(), first)
    assert np.abs(first - second).max() > 1e-4
    for layer in layers:
        layer.reset_states(np.ones((12, layer.units)))
    assert np.abs(run() - first).max() > 1e-4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initial_state_is_of_the_dtype_of_the_inputs(dtype):
    """gru_test, test_get_initial_states; base_rnn_test, test_get_initial_state."""
    (state,) = fastgru.GRU(20).get_initial_state(np.ones((4, 7, 20), dtype))
    assert (state.shape, state.dtype) == ((4, 20), dtype)
    assert not state.any()


def test_the_recorded_state_cannot_be_written_into():
    layer = fastgru.GRU(3, stateful=True)
    layer(np.ones((1, 2, 4), np.float32))
    with pytest.raises(ValueError, match="read-only"):
        layer.states[0][...] = 1
    with pytest.raises(ValueError, match="read-only"):
        layer.weights[0][...] = 1


@pytest.mark.parametrize("shape", [(5, 2, 7), (0, 2, 4)])
def test_a_refused_call_records_no_state_for_a_layer_that_became_stateful(shape):
    layer = fastgru.GRU(3)
    layer(np.ones((2, 2, 4), np.float32))
    layer.stateful = True
    with pytest.raises(ValueError, match=r"incompatible|not empty"):
        layer(np.ones(shape, np.float32))
    assert layer.states == [None]
    layer(np.ones((2, 2, 4), np.float32))
    assert layer.states[0].shape == (2, 3)


def test_a_layer_that_is_stateful_no_longer_takes_any_batch():
    layer = fastgru.GRU(3, stateful=True)
    layer(np.ones((2, 2, 4), np.float32))
    layer.stateful = False
    layer.build((None, None, 4))
    assert layer(np.ones((5, 2, 4), np.float32)).shape == (5, 3)
