"""One layer, many users: threads, forks, copies and pickles."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import fastrnn
from cases import CELLS, as_state, assert_same_bits, make, make_cell, problem, run, states

THREADS = 8


def all_at_once(work):
    """Runs work(k) in as many threads, started together; returns the results in order."""
    results, errors = [None] * THREADS, []
    start = threading.Barrier(THREADS)

    def body(k):
        try:
            start.wait(timeout=30)
            results[k] = work(k)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(k,)) for k in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return results


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("I", "H", "T", "B"), [(5, 7, 6, 3), (32, 96, 30, 16)])
def test_threads_share_a_layer(cell, I, H, T, B):
    """Forward and backward, small, and large enough for the library's own threads."""
    layer = make(cell, I, H, 2)
    problems = [problem(layer, T, B, seed) for seed in range(THREADS)]
    wanted = [run(layer, p) for p in problems]

    def work(k):
        return [
            (run(layer, problems[k]), layer(problems[k].x, as_state(problems[k].state))[0])
            for _ in range(3)
        ]

    for rounds, its in zip(all_at_once(work), wanted, strict=True):
        for found, inferred in rounds:
            assert_same_bits(found, its)
            assert np.array_equal(inferred, its.y)


def test_threads_share_the_first_call():
    """Nobody has packed the weights yet, and all want them at once."""
    layer, twin = make("LSTM", 16, 48), make("LSTM", 16, 48)
    p = problem(layer, 10, 4)
    wanted = run(twin, p)
    for found in all_at_once(lambda k: run(layer, p)):
        assert_same_bits(found, wanted)


def test_threads_share_a_cell():
    cell = make_cell("GRU", 5, 33)
    x = np.random.default_rng(0).standard_normal((THREADS, 3, 5)).astype(np.float32)

    def work(k):
        h = None
        for _ in range(50):
            h = cell(x[k], h)
        return h

    wanted = [work(k) for k in range(THREADS)]
    for found, its in zip(all_at_once(work), wanted, strict=True):
        assert np.array_equal(found, its)


def test_an_update_is_seen_whole_or_not_at_all():
    """While weights change, every output belongs to the old ones or to the new ones."""
    layer = make("GRU", 5, 33, 2)
    p = problem(layer, 4, 3)
    old = layer.state_dict()
    new = {name: -a for name, a in old.items()}
    outputs = []
    for weights in (old, new):
        layer.update(weights)
        outputs.append(layer(p.x)[0].tobytes())

    def work(k):
        if k == 0:
            for n in range(100):
                layer.update((old, new)[n % 2])
            return set()
        return {layer(p.x)[0].tobytes() for _ in range(100)}

    assert set().union(*all_at_once(work)) <= set(outputs)


def test_threads_share_the_generator_of_dropout():
    """Masks are drawn under a lock: the eight calls get eight masks, those of eight in turn."""
    layer, twin = (make("GRU", 5, 33, 2, dropout=0.5) for _ in range(2))
    p = problem(layer, 6, 3)
    wanted = {twin.forward(p.x)[0].tobytes() for _ in range(THREADS)}
    found = {y.tobytes() for y in all_at_once(lambda k: layer.forward(p.x)[0])}
    assert len(wanted) == THREADS
    assert found == wanted


FORK = """
import os, sys
import numpy as np
import fastrnn

layer = fastrnn.LSTM(64, 128, 2, seed=0)
x = np.random.default_rng(0).standard_normal((30, 16, 64)).astype(np.float32)

def work():
    y, _, tape = layer.forward(x)
    return y, layer.backward(tape, y).x, layer(x)[0]

wanted = work()
for _ in range(2):
    child = os.fork()
    if child == 0:
        try:
            same = all(np.array_equal(a, b) for a, b in zip(work(), wanted))
        except BaseException:
            import traceback
            traceback.print_exc()
            same = False
        os._exit(0 if same else 3)
    parent_is_fine = all(np.array_equal(a, b) for a, b in zip(work(), wanted))
    _, status = os.waitpid(child, 0)
    if status or not parent_is_fine:
        sys.exit(f"status {status}, parent {parent_is_fine}")
print("as before")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork_after_use():
    """A child of a process whose threads have run gives the same bits, and so does the parent."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "as before"


def test_the_process_ends_while_a_thread_computes():
    """A daemon thread in a kernel does not keep the interpreter from leaving."""
    script = """
import threading, numpy as np, fastrnn
layer = fastrnn.LSTM(64, 128, seed=0)
x = np.ones((30, 16, 64), np.float32)
layer(x)
def forever():
    while True:
        layer(x)
threading.Thread(target=forever, daemon=True).start()
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "done"
    assert done.returncode == 0, done.stderr


COPIES = {
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_copy_is_equal_and_independent(cell, how):
    options = {"proj_size": 3} if cell == "LSTM" else {}
    layer = make(cell, 5, 7, 2, bidirectional=True, dropout=0.5, **options)
    p = problem(layer, 4, 3)
    wanted, _ = layer(p.x, as_state(p.state))  # packed before it is copied
    other = COPIES[how](layer)
    assert type(other) is type(layer)
    assert (other.dropout, other.bidirectional) == (0.5, True)
    assert np.array_equal(other(p.x, as_state(p.state))[0], wanted)
    with pytest.raises(ValueError, match="read-only"):
        other.parameters["weight_ih_l0"][:] = 0

    other.update({"bias_ih_l1": other.parameters["bias_ih_l1"] + 1})
    assert np.array_equal(layer(p.x, as_state(p.state))[0], wanted)
    assert not np.array_equal(other(p.x, as_state(p.state))[0], wanted)
    kept = other.state_dict()
    layer.update({name: 0 * a for name, a in layer.state_dict().items()})
    for name, array in other.state_dict().items():
        assert np.array_equal(array, kept[name]), name


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_draws_the_same_dropout_on_its_own(how):
    layer = make("GRU", 5, 33, 2, dropout=0.5)
    p = problem(layer, 4, 3)
    layer.forward(p.x)
    other = COPIES[how](layer)
    first, second = (layer.forward(p.x)[0] for _ in range(2))
    assert np.array_equal(other.forward(p.x)[0], first)
    assert np.array_equal(other.forward(p.x)[0], second)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_copy_of_a_cell(cell, how):
    one = make_cell(cell, 5, 7)
    x = np.ones((3, 5), np.float32)
    wanted = states(one(x))
    other = COPIES[how](one)
    one.update({name: 0 * a for name, a in one.state_dict().items()})
    for mine, its in zip(states(other(x)), wanted, strict=True):
        assert np.array_equal(mine, its)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_while_another_thread_holds_the_layers_lock():
    """The child must not wait for a thread that it has not got."""
    layer = fastrnn.LSTM(3, 4, num_layers=2, dropout=0.5, seed=0)
    x = np.ones((4, 2, 3), np.float32)
    held, done = threading.Event(), threading.Event()

    def hold():
        with layer._lock:
            held.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that hangs dies of it
        layer.forward(x)
        layer.update(layer.state_dict())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    done.set()
    holder.join()
    assert status == 0
