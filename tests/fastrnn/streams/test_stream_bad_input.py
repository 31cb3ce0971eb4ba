"""What a stream refuses, by what error, and that its state is then as before."""

import copy
import pickle

import numpy as np
import pytest

from cases import make, states


@pytest.fixture
def stream():
    one = make("LSTM", 5, 7).stream(2)
    one.block(np.ones((4, 2, 5), np.float32))
    return one


@pytest.fixture(autouse=True)
def the_state_stays(stream):
    before = [s.copy() for s in states(stream.state)]
    yield
    for now, old in zip(states(stream.state), before, strict=True):
        np.testing.assert_array_equal(now, old)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("out", "copy", "error", "message"),
    [
        (None, 1, TypeError, "copy is 1, wanted True or False"),
        (None, "yes", TypeError, "copy is 'yes', wanted True or False"),
        (zeros(2, 7), True, ValueError, "copy is True and out is given, wanted one of them"),
    ],
)
def test_copies(stream, out, copy, error, message):
    with pytest.raises(error, match=message):
        stream.step(zeros(2, 5), out, copy=copy)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (zeros(2, 4), ValueError, r"input has shape \(2, 4\), wanted \(B, I\) = \(2, 5\)"),
        (zeros(3, 5), ValueError, r"input has shape \(3, 5\), wanted \(B, I\) = \(2, 5\)"),
        (zeros(5), ValueError, r"input has shape \(5,\), wanted \(B, I\) = \(2, 5\)"),
        (zeros(10), ValueError, r"input has shape \(10,\)"),
        (zeros(1, 2, 5), ValueError, r"input has shape \(1, 2, 5\)"),
        (zeros(), ValueError, r"input has shape \(\)"),
        (zeros(2, 0), ValueError, r"input has shape \(2, 0\)"),
        (zeros(2, 5, dtype=np.float64), TypeError, "input has dtype float64, this stream takes"),
        (zeros(2, 5, dtype=">f4"), TypeError, "input has dtype >f4, this stream takes float32"),
        (zeros(2, 5, dtype=np.int32), TypeError, "input has dtype int32"),
        (None, TypeError, "input is None, wanted an array"),
        ("text", TypeError, "input has dtype <U4"),
        ([[0.0] * 5] * 2, TypeError, "input has dtype float64"),
        (np.ma.zeros((2, 5), np.float32), TypeError, "input is a masked array"),
    ],
    ids=repr,
)
def test_wrong_inputs_of_a_step(stream, x, error, message):
    with pytest.raises(error, match=message):
        stream.step(x)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (
            zeros(3, 2, 4),
            ValueError,
            r"input has shape \(3, 2, 4\), wanted \(T, B, I\) = \(T, 2, 5",
        ),
        (zeros(3, 5), ValueError, r"input has shape \(3, 5\)"),
        (zeros(5), ValueError, r"input has shape \(5,\)"),
        (zeros(), ValueError, r"input has shape \(\)"),
        (zeros(3, 2, 5, dtype=np.float64), TypeError, "input has dtype float64"),
        (None, TypeError, "input is None, wanted an array"),
    ],
    ids=repr,
)
def test_wrong_inputs_of_a_block(stream, X, error, message):
    with pytest.raises(error, match=message):
        stream.block(X)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (zeros(2, 6), ValueError, r"out has shape \(2, 6\), wanted the output's = \(2, 7\)"),
        (zeros(14), ValueError, r"out has shape \(14,\)"),
        (zeros(2, 7, dtype=np.float64), TypeError, "out has dtype float64"),
        (zeros(2, 14)[:, ::2], ValueError, "out is not C-contiguous, aligned and writeable"),
        (zeros(7, 2).T, ValueError, "out is not C-contiguous"),
        (read_only(zeros(2, 7)), ValueError, "out is not C-contiguous, aligned and writeable"),
        ([[0.0] * 7] * 2, TypeError, "out is a list, wanted a NumPy array"),
    ],
    ids=["width", "axes", "dtype", "strided", "transposed", "read-only", "list"],
)
def test_wrong_outputs(stream, out, error, message):
    with pytest.raises(error, match=message):
        stream.step(zeros(2, 5), out=out)
    outs = out if isinstance(out, list) else out[None]
    if not isinstance(out, list):
        message = message.replace(r"\(2, 6\)", r"\(1, 2, 6\)").replace(r"\(2, 7\)", r"\(1, 2, 7\)")
        message = message.replace(r"\(14,\)", r"\(1, 14\)")
    with pytest.raises(error, match=message):
        stream.block(zeros(1, 2, 5), out=outs)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (2, ValueError, "rows holds 2, wanted 0 to 1"),
        ([0, -1], ValueError, "rows holds -1, wanted 0 to 1"),
        ([0.5], TypeError, r"rows is \[0.5\], wanted numbers of rows"),
        ([True, False], TypeError, "wanted numbers of rows"),
        ("0", TypeError, "wanted numbers of rows"),
        ([[0]], TypeError, "wanted numbers of rows"),
    ],
)
def test_wrong_rows(stream, rows, error, message):
    with pytest.raises(error, match=message):
        stream.reset(rows)


def test_resetting_no_rows_changes_nothing(stream):
    stream.reset([])


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (zeros(1, 2, 7), TypeError, "state is ndarray, wanted a tuple of arrays"),
        ((zeros(1, 2, 7),), TypeError, "state is 1 of them"),
        ((zeros(1, 2, 7), zeros(1, 3, 7)), ValueError, r"state \(c\) has shape \(1, 3, 7\)"),
        ((zeros(1, 2, 7), zeros(1, 2, 7, dtype=np.float64)), TypeError, r"state \(c\) has dtype"),
    ],
)
def test_wrong_states(stream, state, error, message):
    with pytest.raises(error, match=message):
        stream.state = state


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "1", None, True, 2**40])
def test_wrong_batch_sizes(batch_size):
    with pytest.raises((TypeError, ValueError), match="batch_size is"):
        make("LSTM", 5, 7).stream(batch_size)


def test_bidirectional_layers_cannot_stream():
    with pytest.raises(ValueError, match="is bidirectional and cannot stream: its reverse"):
        make("LSTM", 5, 7, bidirectional=True).stream()


@pytest.mark.parametrize("row", [-1, 2, 0.5, None])
def test_rows_that_are_none(stream, row):
    with pytest.raises((TypeError, ValueError), match="row is"):
        stream.remove_stream(row)


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_stream_cannot_be_copied(stream, take):
    with pytest.raises(TypeError, match="cannot be pickled or copied: take its snapshot"):
        take(stream)
