"""What a layer's attributes let a user do, and what they refuse."""

import copy

import numpy as np
import pytest

import fastrnn


@pytest.fixture
def lstm():
    return fastrnn.LSTM(3, 4, num_layers=2, dropout=0.5, seed=0)


@pytest.mark.parametrize("name", ["hidden_size", "num_layers", "bidirectional", "dtype", "device"])
def test_sizes_and_kind_are_fixed(lstm, name):
    with pytest.raises(AttributeError, match=f"{name} of this LSTM is fixed"):
        setattr(lstm, name, 1)


def test_weights_are_not_attributes(lstm):
    with pytest.raises(AttributeError, match="update"):
        lstm.weight_ih_l0 = np.zeros((16, 3), np.float32)


def test_dropout_and_batch_first_are_checked(lstm):
    with pytest.raises(ValueError, match=r"dropout is 7\.0, wanted a number from 0 to 1"):
        lstm.dropout = 7.0
    with pytest.raises(TypeError, match="batch_first is 3, wanted True or False"):
        lstm.batch_first = 3
    lstm.dropout, lstm.batch_first = 0.0, True
    y, _ = lstm(np.zeros((2, 5, 3), np.float32))
    assert y.shape == (2, 5, 4)


def test_a_tape_keeps_the_layout_it_was_made_with(lstm):
    x = np.random.default_rng(0).normal(size=(5, 5, 3)).astype(np.float32)
    y, _, tape = lstm.forward(x, training=False)
    expected = lstm.backward(tape, y).x
    lstm.batch_first = True
    np.testing.assert_array_equal(lstm.backward(tape, y).x, expected)


def test_parameters_cannot_be_made_writeable(lstm):
    weight = lstm.parameters["weight_hh_l0"]
    with pytest.raises(ValueError, match="WRITEABLE"):
        weight.flags.writeable = True
    with pytest.raises(ValueError, match="read-only"):
        weight[0] = 1


def test_copies_draw_their_own_dropout(lstm):
    x = np.ones((4, 2, 3), np.float32)
    twin = copy.deepcopy(lstm)
    first, _, _ = lstm.forward(x)
    second, _, _ = lstm.forward(x)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(twin.forward(x)[0], first)


def test_masked_arrays_are_refused(lstm):
    x = np.ma.masked_array(np.zeros((4, 2, 3), np.float32), mask=True)
    with pytest.raises(TypeError, match="input is a masked array"):
        lstm(x)


def test_a_layer_and_a_cell_share_one_compiled_kernel():
    from fastrnn_kernels.cells.rnn import RNN_TANH
    from fastrnn_kernels.cpu.sequence.forward import forward_job

    x = np.zeros((2, 3, 5), np.float32)
    fastrnn.RNN(5, 4)(x)
    fastrnn.RNNCell(5, 4)(x[0])
    compiled = len(forward_job(RNN_TANH, 1).compiled)
    fastrnn.RNN(6, 3, 2, batch_first=True)(np.zeros((1, 2, 6), np.float32))
    assert len(forward_job(RNN_TANH, 1).compiled) == compiled


def test_sizes_beyond_memory_raise_and_name_them():
    with pytest.raises(MemoryError, match="hidden_size=2000000000"):
        fastrnn.LSTM(1, 2_000_000_000)
    with pytest.raises(ValueError, match="hidden_size is 1000000000000"):
        fastrnn.LSTM(1, 10**12)
    with pytest.raises(ValueError, match="num_layers is 1000000000, wanted at most"):
        fastrnn.LSTM(1, 1, num_layers=10**9)
