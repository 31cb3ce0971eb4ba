"""Long calls are done in parts, between which signals are answered: with the same bits."""

import signal
import threading
import time

import numpy as np
import pytest

import fastrnn
from cases import CELLS, make, problem, run
from fastrnn_kernels.cpu.sequence import plan
from fastrnn_kernels.cpu.threads import pool


@pytest.fixture
def parts(monkeypatch):
    """Every call is long; the parts that it was done in, of passes and of products over time."""
    done = []
    in_parts = pool.in_parts

    def noted(part, total, work, align=1):
        def one(first, last):
            done.append((first, last, total))
            part(first, last)

        in_parts(one, total, work, align)

    monkeypatch.setattr(pool, "in_parts", noted)
    monkeypatch.setattr(pool, "LONG", 1)
    monkeypatch.setattr(pool, "MIN_WORK", 1)
    monkeypatch.setattr(pool, "WAKING_WORK", 1)
    monkeypatch.setattr(plan, "MIN_STEP_WORK", 1)
    monkeypatch.setattr(pool, "PART_SECONDS", 1e-9)
    return done


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("arguments", [{}, {"bidirectional": True, "num_layers": 2}])
@pytest.mark.parametrize("cell", CELLS)
def test_parts_give_the_bits_of_the_whole(cell, arguments, threads, many_cpus, request):
    """Ragged rows and resets, of which parts begin and end before, at and behind the last step."""
    T, B = 23, 7
    layer = make(cell, 5, 19, **arguments)
    p = problem(layer, T, B)
    reset = np.zeros((T, B), bool)
    reset[4, 2] = reset[11, 5] = True
    lengths = [23, 1, 0, 9, 23, 16, 2]
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(threads)
        given = [{}, {"lengths": lengths}, {"reset": reset}]
        wanted = [run(layer, p, **one).arrays() for one in given]
        done = request.getfixturevalue("parts")
        for one, whole in zip(given, wanted, strict=True):
            found = run(layer, p, **one).arrays()
            for name, array in whole.items():
                assert np.array_equal(found[name], array, equal_nan=True), name
    finally:
        fastrnn.set_num_threads(before)
    assert any(first > 0 for first, *_ in done)
    assert any(last == total for _, last, total in done)


def test_the_parts_of_many_steps_are_those_of_blocks(parts):
    """More steps than one block of sums holds, and more rows than one part of the products."""
    layer = fastrnn.LSTM(9, 33, seed=1)
    x = np.random.default_rng(0).standard_normal((700, 3, 9), np.float32)
    _, _, tape = layer.forward(x)
    layer.backward(tape, np.ones((700, 3, 33), np.float32))
    assert len({total for *_, total in parts}) == 2
    assert all(first % 64 == 0 for first, _, total in parts if total == 2100)


def test_parts_become_what_takes_the_time_meant(monkeypatch):
    """From what surely takes no longer on any CPU to what took so long here."""
    now, done = [0.0], []
    monkeypatch.setattr(pool, "LONG", 1000)
    monkeypatch.setattr(pool, "_rate", 0.0)
    monkeypatch.setattr(pool.time, "perf_counter", lambda: now[0])

    def part(first, last):
        done.append(last - first)
        now[0] += (last - first) / 10_000  # ten thousand steps a second, of 100 multiply-adds each

    pool.in_parts(part, 10_000, 1_000_000.0)
    assert done[0] == 10
    assert {round(many, -1) for many in done[1:-1]} == {500}
    assert sum(done) == 10_000
    done.clear()
    pool.in_parts(part, 499, 49_900.0)  # known to take no longer
    assert done == [499]


class StopError(Exception):
    """What a signal's handler raises."""


def stopped_after(seconds, call):
    """How long after a signal a call ends with what its handler raises."""

    def handler(*_):
        raise StopError

    sent = []

    def send():
        sent.append(time.perf_counter())
        signal.raise_signal(signal.SIGUSR1)

    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGUSR1, handler)
    timer = threading.Timer(seconds, send)
    timer.start()
    try:
        with pytest.raises(StopError):
            call()
        return time.perf_counter() - sent[0]
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


#: Of a call that takes five seconds and more, mostly thirty. Meant are 0.2 s; machines for tests
#: are busy, some with five times as many processes as CPUs.
SOON = 4.0


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="wants a signal of the user's")
def test_long_calls_answer_signals_and_nothing_is_half_changed():
    layer = fastrnn.LSTM(256, 512, seed=0)
    x = np.zeros((100_000, 4, 256), np.float32)
    h = np.random.default_rng(1).standard_normal((1, 4, 512), np.float32)
    state = (h, h.copy())
    kept = [one.copy() for one in state]
    assert stopped_after(0.5, lambda: layer(x, state)) < SOON
    assert all(np.array_equal(one, before) for one, before in zip(state, kept, strict=True))

    stream = layer.stream(batch_size=4)
    stream.state = state
    assert stopped_after(0.5, lambda: stream.block(x)) < SOON
    for found, before in zip(stream.state, kept, strict=True):
        assert np.array_equal(found, before)
    assert np.isfinite(stream.step(x[0])).all()

    y, _, tape = layer.forward(x[:4000], state)
    gradients = layer.backward(tape, y).parameters

    def train():
        while True:
            layer.backward(tape, y)

    assert stopped_after(0.5, train) < SOON
    again = layer.backward(tape, y).parameters
    assert all(np.array_equal(again[name], value) for name, value in gradients.items())
