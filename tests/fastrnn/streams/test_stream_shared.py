"""Steps that threads share: compiled code calls helpers that listen, Python those that sleep."""

import multiprocessing
import os
import threading

import numpy as np
import pytest

import fastrnn
import fastrnn_kernels.cpu.stream.steps as stream_module
from cases import make
from fastrnn_kernels.cpu.threads import board, pool

STEPS = 400


@pytest.fixture
def two_threads(monkeypatch):
    """Any work is shared by two, and a helper that has worked listens for long."""
    monkeypatch.setattr(stream_module, "MEMBER_WORK", 1)
    monkeypatch.setattr(pool, "WAKING_WORK", 1)
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(2)
    yield
    fastrnn.set_num_threads(before)


@pytest.fixture
def through_python(monkeypatch):
    """Counts the steps for which compiled code found no helper."""
    taken = []
    shared = fastrnn.Stream._shared

    def counted(self, x, y):
        taken.append(1)
        return shared(self, x, y)

    monkeypatch.setattr(fastrnn.Stream, "_shared", counted)
    return taken


def steps(stream, x):
    return np.array([stream.step(row).copy() for row in x])


def inputs(many=STEPS):
    return np.random.default_rng(0).standard_normal((many, 20), dtype=np.float32)


def test_while_helpers_listen_steps_are_shared_without_python(two_threads, through_python):
    layer, x = make("LSTM", 20, 70), inputs()
    np.testing.assert_array_equal(steps(layer.stream(), x), layer(x)[0])
    assert 0 < len(through_python) < STEPS


def test_a_helper_that_falls_asleep_is_woken(two_threads, through_python):
    layer, x = make("LSTM", 20, 70), inputs(20)
    stream, pause = layer.stream(), threading.Event()
    y = []
    for row in x:
        y.append(stream.step(row).copy())
        pause.wait(2e-2)  # much longer than it listens, also where it has to wait for its CPU
    np.testing.assert_array_equal(y, layer(x)[0])
    assert len(through_python) > 10


def test_one_thread_stays_one_thread(two_threads, through_python, monkeypatch):
    layer, x = make("LSTM", 20, 70), inputs()
    stream = layer.stream()
    steps(stream, x[:100])
    fastrnn.set_num_threads(1)
    through_python.clear()
    monkeypatch.setattr(board, "begin", None)
    y = steps(stream, x[100:])
    assert len(through_python) == len(y)
    np.testing.assert_array_equal(y, layer(x)[0][100:])


def test_streams_of_several_threads_share_one_helper(two_threads):
    layer, x = make("LSTM", 20, 70), inputs(3 * STEPS)
    wanted, found = layer(x)[0], {}

    def live(name):
        found[name] = steps(layer.stream(), x)

    callers = [threading.Thread(target=live, args=(name,)) for name in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
        assert not caller.is_alive()
    for name in range(4):
        np.testing.assert_array_equal(found[name], wanted)


def _in_child(stream, x, queue):
    queue.put(steps(stream, x))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_has_helpers_of_its_own(two_threads):
    """Those of its parent listen on a board that it must not use."""
    layer, x = make("LSTM", 20, 70), inputs()
    stream = layer.stream()
    steps(stream, x[:100])
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    child = fork.Process(target=_in_child, args=(stream, x[100:], queue))
    child.start()
    theirs = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(theirs, layer(x)[0][100:])
    np.testing.assert_array_equal(steps(stream, x[100:]), theirs)


def test_helpers_are_held_only_if_all_listen(two_threads):
    """Whoever is held is let go, and so is the board."""
    words = board.new_board()
    words[board.THREADS], words[board.ROOM] = 3, 2
    first, second = (board.FIRST * board.LINE, (board.FIRST + 1) * board.LINE)
    hold = _hold()
    for states, wanted in (
        ((board.ASLEEP, board.LISTENING), 0),
        ((board.LISTENING, board.ASLEEP), 0),
        ((board.LISTENING, board.LISTENING), 2),
    ):
        words[first], words[second] = states
        assert hold(words.ctypes.data, 3) == wanted
        after = (board.HELD, board.HELD) if wanted else states
        assert (words[first], words[second]) == after
        assert words[board.OWNER] == (board.COMPILED if wanted else board.FREE)
    assert hold(words.ctypes.data, 3) == 0, "the board is taken"
    words[board.OWNER] = board.FREE
    words[first] = words[second] = board.LISTENING
    assert hold(words.ctypes.data, 1) == 0, "a team of one needs none"
    words[board.ROOM] = 0
    assert hold(words.ctypes.data, 3) == 0, "no CPU but the caller's"
    words[board.ROOM] = 2
    assert hold(words.ctypes.data, 2) == 1
    assert board.shut(words) is False
    words[board.OWNER] = board.FREE
    assert board.shut(words) is True
    assert hold(words.ctypes.data, 2) == 0
    assert board.begin(words, board.FIRST_CALL, np.zeros(0, np.int64), 1) == board.TAKEN


def _hold():
    import numba

    @numba.njit
    def hold(address, most):
        return board.hold(address, most)

    return hold
