"""Streams inside of a user's own compiled functions, and from C."""

import copy
import ctypes
import gc
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from types import ModuleType

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


def test_a_named_tuple_made_in_compiled_code_is_no_handle():
    handle = make("LSTM", 5, 7).stream().handle
    words, memory, start = handle

    @numba.njit
    def f(x, y):
        return fastrnn.jit.step(fastrnn.jit.Handle(words, memory, start), x, y)

    with pytest.raises(numba.TypingError, match="wanted the handle of a stream"):
        f(np.zeros(5, np.float32), np.zeros(7, np.float32))


HANDLE: fastrnn.jit.Handle | None = None
WITHIN: tuple | None = None
MODULE = ModuleType("module")


def as_a_default(handle):
    def function(x, y, handle=handle):
        return fastrnn.jit.step(handle, x, y)

    return function


def of_an_outer_function(handle):
    return lambda x, y: fastrnn.jit.block(handle, x, y)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(
    "made",
    [
        lambda _: lambda x, y: fastrnn.jit.step(HANDLE, x, y),
        lambda _: lambda x, y: fastrnn.jit.step(WITHIN[1][0], x, y),
        lambda _: lambda x, y: fastrnn.jit.step(MODULE.handle, x, y),
        lambda _: lambda x, y: fastrnn.jit.reset(HANDLE),
        lambda _: lambda x, y: HANDLE.words[0],
        as_a_default,
        of_an_outer_function,
    ],
    ids=["global", "in a tuple", "of a module", "reset", "words", "default", "closure"],
)
def test_a_handle_is_no_constant_of_compiled_code(made, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    handle = make("GRU", 5, 7).stream().handle
    monkeypatch.setitem(globals(), "HANDLE", handle)
    monkeypatch.setitem(globals(), "WITHIN", (1, (handle,)))
    monkeypatch.setattr(MODULE, "handle", handle, raising=False)
    function = made(handle)
    compiled = numba.njit(function, cache=cache)
    # To look for a closure on disk, Numba pickles what it holds, which is a TypeError.
    closure = cache and function.__closure__
    error = TypeError if closure else numba.TypingError
    with pytest.raises(error, match="pass the handle as an argument"):
        compiled(np.zeros(5, np.float32), np.zeros(7, np.float32))


CACHED = """
import numba, numpy as np, fastrnn

@numba.njit(cache=True)
def f(handle, x, y):
    return fastrnn.jit.step(handle, x, y)

stream, same = fastrnn.GRU(5, 7, seed=0).stream(), fastrnn.GRU(5, 7, seed=0).stream()
y = np.empty(7, np.float32)
assert f(stream.handle, np.ones(5, np.float32), y) == 0
assert np.array_equal(y, same.step(np.ones(5, np.float32)))
print(sum(f.stats.cache_hits.values()))
"""


def test_code_on_disk_takes_the_handles_of_the_next_process(tmp_path):
    (tmp_path / "cached.py").write_text(CACHED)
    said = [
        subprocess.run(
            [sys.executable, "cached.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        for _ in range(2)
    ]
    assert [one.stdout.strip() for one in said] == ["0", "1"], said


def ignore(given):
    return None


@pytest.mark.parametrize("name", ["handle", "cfunc"])
def test_what_holds_addresses_is_neither_copied_nor_pickled(name):
    stream = make("LSTM", 5, 7).stream()
    held = getattr(stream, name)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            pickle.dumps(held, protocol)
    for refused in (copy.copy, copy.deepcopy):
        for value in (held, [held], {"kept": held}):
            if refused is copy.deepcopy or value is held:
                with pytest.raises(TypeError, match="cannot be pickled or copied"):
                    refused(value)
    with ProcessPoolExecutor(1) as pool, pytest.raises(TypeError, match="pickled or copied"):
        pool.submit(ignore, held).result()


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
