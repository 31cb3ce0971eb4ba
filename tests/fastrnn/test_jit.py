"""Streams inside of a user's own compiled functions, and from C."""

import ctypes
import gc

import numba
import numpy as np
import pytest

import fastrnn
from cases import make


@numba.njit(nogil=True)
def follow(handle, X, Y):
    for t in range(len(X)):
        if fastrnn.jit.step(handle, X[t], Y[t]) != 0:
            return t
    return len(X)


@numba.njit(nogil=True)
def follow_in_blocks(handle, X, Y, many):
    for t in range(0, len(X), many):
        status = fastrnn.jit.block(handle, X[t : t + many], Y[t : t + many])
        if status != 0:
            return status
    return 0


@numba.njit
def reset(handle):
    fastrnn.jit.reset(handle)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((12, 1, 5), dtype=np.float32)


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_and_blocks_give_what_the_layer_gives(x, dtype):
    layer, x = make("LSTM", 5, 7, num_layers=2, dtype=dtype), x.astype(dtype)
    wanted, _ = layer(x)
    stream = layer.stream()
    for X, shape in ((x, (12, 1, 7)), (x[:, 0], (12, 7))):
        y = np.full(shape, np.nan, dtype)
        stream.reset()
        assert follow(stream.handle, X, y) == 12
        np.testing.assert_array_equal(y, wanted.reshape(shape), strict=True)
        y.fill(np.nan)
        reset(stream.handle)
        assert follow_in_blocks(stream.handle, X, y, 5) == 0
        np.testing.assert_array_equal(y, wanted.reshape(shape), strict=True)


def test_python_may_call_the_same_functions(x):
    layer = make("GRU", 5, 7)
    stream, y = layer.stream(), np.empty((12, 1, 7), np.float32)
    for t in range(12):
        assert fastrnn.jit.step(stream.handle, x[t], y[t]) == fastrnn.jit.DONE
    np.testing.assert_array_equal(y, layer(x)[0])
    fastrnn.jit.reset(stream.handle)
    assert fastrnn.jit.block(stream.handle, x, y) == fastrnn.jit.DONE
    np.testing.assert_array_equal(y, layer(x)[0])


def test_the_state_is_that_of_the_stream(x):
    layer = make("LSTM", 5, 7)
    stream, y = layer.stream(), np.empty((12, 1, 7), np.float32)
    stream.block(x[:5])
    follow(stream.handle, x[5:], y[5:])
    np.testing.assert_array_equal(y[5:], layer(x)[0][5:])
    np.testing.assert_array_equal(stream.state[1], layer(x)[1][1])


def test_wrong_shapes_are_told_and_change_nothing(x):
    stream = make("LSTM", 5, 7).stream()
    stream.block(x)
    before = stream.state
    step, block = fastrnn.jit.step, fastrnn.jit.block
    f = np.float32
    for X, Y, status in (
        (np.zeros(4, f), np.zeros(7, f), fastrnn.jit.WRONG_INPUT),
        (np.zeros((2, 5), f), np.zeros((2, 7), f), fastrnn.jit.WRONG_INPUT),
        (np.zeros(5, f), np.zeros(6, f), fastrnn.jit.WRONG_OUTPUT),
        (np.zeros((1, 5), f), np.zeros((2, 7), f), fastrnn.jit.WRONG_OUTPUT),
    ):
        assert step(stream.handle, X, Y) == status
        assert block(stream.handle, X[None], Y[None]) == status
    assert block(stream.handle, x, np.zeros((11, 1, 7), f)) == fastrnn.jit.WRONG_OUTPUT
    for now, old in zip(stream.state, before, strict=True):
        np.testing.assert_array_equal(now, old)


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        (np.zeros((12, 5)), np.zeros((12, 7), np.float32), "x is array"),
        (np.zeros((12, 10), np.float32)[:, ::2], np.zeros((12, 7), np.float32), "x is array"),
        (np.zeros((12, 5), np.float32), np.zeros((12, 1, 7), np.float32), "y is array"),
        (list(range(5)), np.zeros((12, 7), np.float32), "x is of type"),
        (
            np.zeros((12, 5), np.float32),
            np.frombuffer(bytes(4 * 12 * 7), np.float32).reshape(12, 7),
            "wanted a writeable, C-contiguous array",
        ),
    ],
    ids=["dtype", "strided", "axes", "list", "read-only"],
)
def test_wrong_types_do_not_compile(X, Y, message):
    stream = make("LSTM", 5, 7).stream()
    with pytest.raises(numba.TypingError, match=message):
        follow(stream.handle, X, Y)


def test_another_thing_is_no_handle():
    with pytest.raises(numba.TypingError, match="wanted the handle of a stream"):
        follow((np.zeros(3), np.zeros(3)), np.zeros((2, 5)), np.zeros((2, 7)))


def test_with_other_kernels_a_handle_is_of_another_type(monkeypatch):
    """So that what users keep compiled on disk is not taken for records that it cannot read."""
    handle = make("LSTM", 5, 7).stream().handle
    now = numba.typeof(handle)
    assert numba.typeof(handle) == now
    monkeypatch.setattr(fastrnn.jit, "sources", lambda: "others")
    assert numba.typeof(handle) != now


def test_a_handle_outlives_its_stream_and_layer(x):
    layer = make("LSTM", 5, 7)
    wanted, _ = layer(x)
    handle = layer.stream().handle
    layer.update({name: 2 * value for name, value in layer.parameters.items()})
    del layer
    gc.collect()
    y = np.empty((12, 1, 7), np.float32)
    follow(handle, x, y)
    np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_c_calls_take_the_same_steps(x, dtype):
    layer, x = make("GRU", 5, 7, dtype=dtype), x.astype(dtype)
    stream, y = layer.stream(), np.empty((12, 1, 7), dtype)
    step = stream.cfunc.ctypes
    number = ctypes.POINTER({"float32": ctypes.c_float, "float64": ctypes.c_double}[dtype])
    for t in range(12):
        source, target = (a[t].ctypes.data_as(number) for a in (x, y))
        assert step(stream.address, source, target) == 0
    np.testing.assert_array_equal(y, layer(x)[0])
    same = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 3)(stream.cfunc.address)
    before = stream.state
    for arguments in (
        (0, x.ctypes.data, y.ctypes.data),
        (stream.address, 0, 1),
        (stream.address, 1, 0),
    ):
        assert same(*arguments) == 1
    np.testing.assert_array_equal(stream.state, before)
