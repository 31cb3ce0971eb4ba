"""What real-time threads rely on: nothing allocated, denormals no slower, threads and forks."""

import multiprocessing
import os
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys

import fastrnn
from cases import make
from fastrnn_kernels.cpu.stream import entry


@pytest.fixture
def counted():
    """Numba's counts of allocations, which are off by default."""
    _nrt_python.memsys_enable_stats()
    yield rtsys.get_allocation_stats
    _nrt_python.memsys_disable_stats()


def _allocated(call, times):
    """Bytes that Python holds behind so many calls beyond those before, and the most in between."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(times):
            call()
        return tuple(many - before for many in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()


def test_steps_allocate_nothing(counted):
    stream = make("LSTM", 40, 64, num_layers=2).stream()
    x = np.zeros(40, np.float32)
    out = np.zeros(64, np.float32)
    for _ in range(10):
        stream.step(x)
        stream.step(x, out)
    numbers = counted()
    # Threads of the test runner's allocate now and then: what steps do, they do each time.
    after, peak = min(_allocated(lambda: stream.step(x), 100_000) for _ in range(3))
    assert counted() == numbers
    assert after < 1024  # the loop's own counter, at most
    assert peak < 1024


@numba.njit(nogil=True)
def loop(handle, x, y, steps):
    for _ in range(steps):
        fastrnn.jit.step(handle, x, y)


def test_compiled_steps_allocate_nothing(counted):
    stream = make("LSTM", 5, 7).stream()
    x, y = np.zeros(5, np.float32), np.zeros(7, np.float32)
    loop(stream.handle, x, y, 1)
    before = counted()
    loop(stream.handle, x, y, 1)
    one = counted()
    loop(stream.handle, x, y, 100_000)
    many = counted()
    # What the call from Python takes for its arguments does not grow with the steps.
    assert many.alloc - one.alloc == one.alloc - before.alloc
    assert many.free - one.free == one.free - before.free


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN-relu"])
def test_silence_leaves_no_denormals(cell):
    """Ten minutes of silence after noise, at 8 kHz: no state is ever among the denormals.

    A state that decays to them and stays makes steps tens of times slower.
    """
    layer = make(cell, 1, 16, bias=False)
    # Small enough weights that every state decays.
    largest = {name: np.abs(w).sum(1).max() for name, w in layer.parameters.items()}
    layer.update({name: 0.99 * w / largest[name] for name, w in layer.parameters.items()})
    stream, rate = layer.stream(), 8000
    stream.block(np.random.default_rng(0).standard_normal((rate, 1), dtype=np.float32))
    second = np.zeros((rate, 1), np.float32)
    y = np.empty((rate, 16), np.float32)
    tiny, states = np.finfo(np.float32).tiny, []
    for _ in range(600):
        stream.block(second, out=y)
        states += [y, *(stream.state if cell == "LSTM" else (stream.state,))]
        assert not any(((one != 0) & (np.abs(one) < tiny)).any() for one in states)
        states.clear()
    assert np.abs(y).max() < 1e-6  # it did decay


def test_denormals_are_zeros_inside_and_nowhere_else():
    stream = make("RNN-relu", 1, 1).stream()
    zero = np.zeros(1)
    one = {"weight_ih_l0": np.ones((1, 1)), "bias_ih_l0": zero, "bias_hh_l0": zero}
    stream.model.update(one)
    stream.refresh()
    small = np.full(1, 1e-40, np.float32)
    assert stream.step(small)[0] == 0
    assert stream.block(small[None])[0, 0] == 0
    assert (small * np.float32(0.5))[0] != 0
    y = np.ones(1, np.float32)
    loop(stream.handle, small, y, 1)
    assert y[0] == 0
    assert (small * np.float32(0.5))[0] != 0


def work(stream, x, found, at):
    first, steps = stream.block(x[:50]), [stream.step(row)[None].copy() for row in x[50:]]
    found[at] = np.concatenate([first, *steps])


def test_threads_have_a_stream_each_over_one_layer():
    layer = make("LSTM", 40, 64, num_layers=2)
    random = np.random.default_rng(0)
    inputs = [random.standard_normal((400, 40), dtype=np.float32) for _ in range(8)]
    wanted = [layer(x)[0] for x in inputs]
    found = [None] * 8
    threads = [
        threading.Thread(target=work, args=(layer.stream(), x, found, k))
        for k, x in enumerate(inputs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for mine, its in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mine, its)


def insist(stream, x):
    """Run a block as soon as the stream is free."""
    while True:
        try:
            stream.block(x)
        except RuntimeError:
            continue
        return


def test_one_stream_refuses_a_second_thread():
    stream = make("LSTM", 200, 300).stream()
    x = np.zeros((3000, 200), np.float32)
    thread = threading.Thread(target=insist, args=(stream, x))
    thread.start()
    refused = set()
    while thread.is_alive():
        try:
            stream.step(x[0])
        except RuntimeError as error:
            refused.add(str(error))
    thread.join()
    wanted = "another thread is using this stream: one stream serves one thread at a time"
    assert refused == {wanted}
    stream.step(x[0])


def test_an_interrupted_use_leaves_the_stream_to_its_thread():
    stream = make("LSTM", 5, 7).stream()
    x = np.zeros(5, np.float32)
    # An interrupt right behind this would leave the stream as this does.
    assert entry.take(stream._steps._record, threading.get_ident())
    with ThreadPoolExecutor(1) as others:
        with pytest.raises(RuntimeError, match="another thread is using this stream"):
            others.submit(stream.step, x).result()
        stream.step(x)
        others.submit(stream.step, x).result()
        assert entry.take(stream._steps._record, threading.get_ident())
        stream.reset()
        others.submit(stream.block, x[None]).result()


def _in_child(stream, x, queue):
    queue.put(stream.block(x))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("sizes", [(5, 7), (200, 300)])
def test_a_fork_goes_on_with_its_own_copy(sizes):
    layer = make("LSTM", *sizes)
    x = np.random.default_rng(0).standard_normal((30, sizes[0]), dtype=np.float32)
    stream = layer.stream()
    stream.block(x[:10])
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    child = fork.Process(target=_in_child, args=(stream, x[10:], queue))
    child.start()
    theirs = queue.get(timeout=60)
    child.join(60)
    np.testing.assert_array_equal(theirs, layer(x)[0][10:])
    np.testing.assert_array_equal(stream.block(x[10:]), theirs)
