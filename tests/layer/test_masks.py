"""Masks: what a masked step leaves of output and state. Docstrings name Keras' cases: test_upstream.py."""

import numpy as np
import pytest
from keras_cases import FLAGS, KERAS3, assert_same, random, twin

import fastgru

pytestmark = pytest.mark.usefixtures("choice")


def test_masked_end_is_not_run():
    """gru_v1_test, test_gru_feature_parity_v1_v2: version 2 runs each row to its own length."""
    x = random(20, 4, 10)
    x[-2:, -1] = 0
    layer = fastgru.GRU(8, return_state=True, **KERAS3)
    expected = np.concatenate([layer(x[:-2])[1], layer(x[-2:, :-1])[1]])
    for found in layer(x, mask=(x != 0).any(axis=-1)):
        assert_same(found, expected)


def test_masks_pass_through_a_stack():
    """gru_test, test_with_masking_layer and test_masking_with_stacking."""
    first, second = fastgru.GRU(10, return_sequences=True), fastgru.GRU(5, return_sequences=True)
    x, mask = random(2, 3, 4), np.array([[True, False, True], [True, True, False]])
    outputs = second(first(x, mask=mask), mask=first.compute_mask(x, mask))
    assert_same(outputs[0, [0, 2]], second(first(x[:1, [0, 2]]))[0])
    assert_same(outputs[1, :2], second(first(x[1:, :2]))[0])


def test_rows_run_to_their_own_lengths():
    """gru_lstm_test, test_ragged and test_compare_ragged_with_masks; base_rnn_test,
    test_rnn_with_ragged_input: ragged rows are rows with a masked end."""
    x, lengths = random(20, 20, 32), np.arange(1, 21)
    mask = np.arange(20) < lengths[:, np.newaxis]
    layer = fastgru.GRU(32, return_sequences=True)
    back = fastgru.GRU(8, return_sequences=True, go_backwards=True, activation="sigmoid")
    outputs, reverse = layer(x, mask=mask), back(x, mask=mask)
    for row, length in enumerate(lengths):
        alone = x[row : row + 1, :length]
        assert_same(outputs[row, :length], layer(alone)[0], atol=2e-6)
        assert_same(reverse[row, 20 - length :], back(alone)[0], atol=2e-6)


PADDED = {  # one token and padding, wherever it stands
    "left": [[0, 1, 1], [0, 0, 1]],
    "right": [[1, 1, 0], [1, 0, 0]],
    "mixed": [[1, 0, 1], [0, 1, 0]],
}


@pytest.mark.parametrize("stateful", FLAGS)
@pytest.mark.parametrize("side", PADDED)
def test_padding_may_stand_anywhere(side, stateful):
    """gru_test, test_statefulness, its second half; Keras 2.3, test_masking_correctness."""
    embedding = random(2, 4)
    layer = fastgru.GRU(2, stateful=stateful)
    token = np.array(PADDED[side])
    output = layer(embedding[token], mask=token)
    plain = twin(layer, stateful=False)
    word = embedding[np.newaxis, [1]]
    expected = [plain(np.repeat(word, count, axis=1))[0] for count in (2, 1)]
    assert_same(output, expected)
    if stateful:
        assert_same(layer.states[0], expected)


def test_fully_masked_rows_give_zeros():
    """gru_test, test_with_fully_masked_inputs."""
    x, mask = random(8, 5, 4), np.random.default_rng(1).random((8, 5)) < 0.7
    mask[0] = False
    output = fastgru.GRU(2)(x, mask=mask)
    assert not output[0].any()
    assert output[mask.any(axis=1)].all()


@pytest.mark.parametrize("unroll", FLAGS)
def test_masked_end_keeps_output_and_state(unroll):
    """base_rnn_test, test_masking_rnn_with_output_and_states; backend_test,
    test_rnn_output_and_state_masking_independent; Keras 2.3, test_masking_correctness_output_not_...."""
    x, state, mask = random(2, 4, 2), random(2, 2, seed=1), np.ones((2, 4), bool)
    mask[1, 2:] = False
    layer = fastgru.GRU(2, return_sequences=True, return_state=True, unroll=unroll)
    outputs, last = layer(x, state, mask)
    full, _ = layer(x, state)
    assert_same(outputs[0], full[0])
    assert_same(outputs[1], full[1][[0, 1, 1, 1]])
    assert_same(last, [full[0, 3], full[1, 1]])


def test_masked_beginning_gives_zeros_and_keeps_the_state():
    """backend_test, test_rnn_output_and_state_masking_independent, from the other end."""
    x, state, mask = random(2, 4, 2), random(2, 2, seed=1), np.ones((2, 4), bool)
    mask[1, :2] = False
    outputs, _ = fastgru.GRU(2, return_sequences=True, return_state=True)(x, state, mask)
    assert not outputs[1, :2].any()
    layer = fastgru.GRU(2, return_state=True)
    output, last = layer(x, state, np.zeros((2, 4), bool))
    assert not output.any()
    np.testing.assert_array_equal(last, state)


@pytest.mark.parametrize("unroll", FLAGS)
def test_zeros_stand_for_masked_outputs(unroll):
    """base_rnn_test, test_zero_output_for_masking."""
    layer = fastgru.GRU(5, return_sequences=True, zero_output_for_mask=True, unroll=unroll)
    x = np.ones((6, 5, 5), np.float32)
    expected = layer(x)
    x[5, 3:] = expected[5, 3:] = 0
    assert_same(layer(x, mask=(x != 0).any(axis=-1)), expected)


def test_time_major_takes_masks_of_its_own_order():
    """base_rnn_test, test_rnn_with_time_major."""
    layer = fastgru.GRU(3, return_sequences=True)
    x = random(10, 5, 4)
    x[3, 2:] = x[7, :2] = x[8] = 0
    mask = (x != 0).any(axis=-1)  # as Masking() has it
    layer.build(x.shape)
    major = twin(layer, time_major=True)
    assert major.compute_output_shape((5, None, 4)) == (5, None, 3)
    assert_same(major(x.swapaxes(0, 1)).swapaxes(0, 1), layer(x))
    assert_same(major(x.swapaxes(0, 1), mask=mask.T).swapaxes(0, 1), layer(x, mask=mask))


@pytest.mark.parametrize("initial", FLAGS)
def test_backwards_skips_the_masked_end(initial):
    """gru_v1_test, test_explicit_device_with_go_backward_and_mask_v1; gru_test, the same."""
    x, mask = random(8, 7, 4), np.ones((8, 7), bool)
    mask[:, 5:] = False
    state = random(8, 4, seed=1) if initial else None
    layer = fastgru.GRU(4, return_sequences=True, go_backwards=True)
    outputs = layer(x, state, mask)
    assert_same(outputs[:, -5:], layer(x[:, :5], state))
    assert not outputs[:, :2].any()


def test_a_fully_masked_row_gives_zeros_and_keeps_its_state():
    layer = fastgru.GRU(3, return_state=True)
    h0 = np.ones((2, 3), np.float32)
    mask = np.array([[False, False], [True, True]])
    output, state = layer(np.full((2, 2, 4), np.nan, np.float32), h0, mask)
    assert not output[0].any()
    assert (state[0] == 1).all()
    assert np.isnan(output[1]).all()  # what is not masked is not hidden
