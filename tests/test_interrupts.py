"""A signal's handler may raise anywhere: nothing is left held, half done or lost, and it comes out.

Each test interrupts one thing at every place where Python answers signals (`interrupts.py`), and
looks after each at what an interrupt could have left: a lock, a board that is taken, helpers that
nobody waits for, a stream in use, memory that does not come back.
"""

import os
import threading

import numpy as np
import pytest

import fastrnn
from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.stream import entry
from fastrnn_kernels.cpu.threads import board, pool
from interrupts import InterruptError, everywhere

FLOAT = np.dtype(np.float32)
#: In the suite each seventh place; `.ci/run` takes all.
STRIDE = 1 if os.environ.get("FASTRNN_TEST_EVERYWHERE") else 7


@pytest.fixture(autouse=True)
def helpers(many_cpus, monkeypatch):
    """Every call is worth helpers, and is done in parts."""
    before = pool.get_num_threads()
    pool.set_num_threads(2)
    for name in ("MIN_WORK", "WAKING_WORK"):
        monkeypatch.setattr(pool, name, 1)
    yield
    pool.set_num_threads(before)


def in_another_thread(call):
    """What a call gives there; fails where it hangs."""
    found = []
    other = threading.Thread(target=lambda: found.append(call()), daemon=True)
    other.start()
    other.join(20)
    assert not other.is_alive(), "hangs in another thread"
    assert found, "raised in another thread"
    return found[0]


def check_pool():
    words = pool._pool.board
    assert words[board.OWNER] == board.FREE
    for number in range(4):
        assert words[(number + board.FIRST) * board.LINE] in (board.ASLEEP, board.LISTENING)


def interrupted(call, check):
    """Interrupt a call everywhere; `check` after each. How many places that were."""
    call()
    places = 0
    for where, raised in everywhere(call, STRIDE):
        assert type(raised) is InterruptError, f"{raised!r} came out for what was raised at {where}"
        assert str(raised) == where
        try:
            check_pool()
            check()
        except AssertionError as error:
            raise AssertionError(f"after an interrupt at {where}: {error}") from error
        places += 1
    return places


def test_the_harness_finds_what_an_interrupt_leaves(monkeypatch):
    """A lock that is taken and let go of by two statements: some place is between them."""
    lock, held = threading.Lock(), []

    def careless():
        lock.acquire()
        try:
            len(held)
        finally:
            lock.release()

    monkeypatch.setattr("interrupts.FOLDERS", [__file__])
    for _, raised in everywhere(careless):
        assert type(raised) is InterruptError
        held.append(lock.locked())
        if lock.locked():
            lock.release()
    assert any(held)
    assert not all(held)


def test_memory(monkeypatch):
    monkeypatch.setattr(memory, "_store", memory._Store())
    monkeypatch.setattr(memory, "LIMIT", 8 * memory.LEAST)

    def call():
        arrays = [memory.empty((memory.LEAST // 4 * k,), FLOAT) for k in (1, 2, 1, 3, 9)]
        arrays.pop(0)
        memory.zeros((memory.LEAST // 4,), FLOAT)
        arrays.clear()
        memory.release()

    def check():
        assert memory.waiting_bytes() <= memory.LIMIT
        memory.release()
        alive = [made for made, _ in memory._store._made.values() if made() is not None]
        assert not alive, "memory that neither waits nor is used"
        array = memory.empty((memory.LEAST // 4,), FLOAT)
        at = array.ctypes.data
        del array
        assert memory.empty((memory.LEAST // 4,), FLOAT).ctypes.data == at, "does not come back"

    assert STRIDE * interrupted(call, check) > 50


def test_a_layer_forward_and_backward():
    layer = fastrnn.LSTM(16, 48, seed=0)
    x = np.random.default_rng(0).standard_normal((40, 12, 16), np.float32)

    def call():
        y, _, tape = layer.forward(x)
        return y, layer.backward(tape, y).parameters["weight_hh_l0"]

    wanted = call()

    def check():
        for found, value in zip(call(), wanted, strict=True):
            assert np.array_equal(found, value)

    assert STRIDE * interrupted(call, check) > 200


def test_a_layer_in_parts(monkeypatch):
    monkeypatch.setattr(pool, "LONG", 1)
    monkeypatch.setattr(pool, "PART_SECONDS", 1e-9)
    layer = fastrnn.GRU(3, 20, seed=0)
    x = np.random.default_rng(0).standard_normal((5, 12, 3), np.float32)
    wanted = layer(x)[0]

    def check():
        assert np.array_equal(layer(x)[0], wanted)
        assert np.array_equal(in_another_thread(lambda: layer(x)[0]), wanted)

    assert STRIDE * interrupted(lambda: layer(x), check) > 100


def test_helpers_are_started(monkeypatch, many_cpus):
    """From none on, as in a process's first call."""
    layer = fastrnn.RNN(16, 48, seed=0)
    x = np.random.default_rng(0).standard_normal((40, 12, 16), np.float32)
    wanted = layer(x)[0]
    first, made = pool._pool, []

    def call():
        pool._pool = pool._Pool()
        made.append(pool._pool)
        pool._pool.threads = 2
        return layer(x)[0]

    monkeypatch.setattr(pool, "_pool", first)
    many_cpus.setattr(pool, "_room", lambda: (frozenset(), 4))

    def check():
        for _ in range(2):
            assert np.array_equal(layer(x)[0], wanted)
            assert np.array_equal(in_another_thread(lambda: layer(x)[0]), wanted)

    try:
        assert STRIDE * interrupted(call, check) > 100
    finally:
        for one in made:
            one.close()


def test_streams():
    layer = fastrnn.LSTM(8, 16, seed=0)
    stream = layer.stream(batch_size=2)
    x = np.random.default_rng(0).standard_normal((6, 2, 8), np.float32)
    start = stream.snapshot()
    wanted = stream.block(x)

    def call():
        stream.restore(start)
        stream.step(np.asfortranarray(x[0]))
        stream.block(x[1:])
        stream.reset()
        stream.state = stream.state

    def check():
        assert stream._steps._record[entry.BUSY] == 0, "in use for good"
        stream.restore(start)
        assert np.array_equal(stream.block(x), wanted)
        assert np.array_equal(in_another_thread(lambda: stream.block(x)).shape, wanted.shape)

    assert STRIDE * interrupted(call, check) > 100


def test_parameters():
    layer = fastrnn.RNN(2, 3, seed=0)
    values = layer.state_dict()

    def call():
        layer.update(values)
        return layer._dropout_generator()

    def check():
        in_another_thread(call)
        assert all(np.array_equal(layer.parameters[name], one) for name, one in values.items())

    assert STRIDE * interrupted(call, check) > 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
def test_a_fork_runs_no_code_of_ours():
    """What a handler raises in a fork's callback is lost: so no such callback is Python's."""
    places = []

    def call():
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    for where, _ in everywhere(call):
        places.append(where)
    assert not places


def test_a_handler_may_call_a_layer_anywhere():
    """While this thread is inside of one: also where helpers are started, or called."""
    layer = fastrnn.RNN(16, 48, seed=0)
    x = np.random.default_rng(0).standard_normal((40, 12, 16), np.float32)
    wanted = layer(x)[0]
    seen = []

    class CallsError(InterruptError):
        def __init__(self, where):
            super().__init__(where)
            seen.append(np.array_equal(layer(x)[0], wanted))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interrupts.InterruptError", CallsError)
        for where, raised in everywhere(lambda: layer(x), STRIDE):
            assert type(raised) is CallsError, where
            try:
                check_pool()
            except AssertionError as error:
                raise AssertionError(f"after a call at {where}: {error}") from error
    assert STRIDE * len(seen) > 50
    assert all(seen)
