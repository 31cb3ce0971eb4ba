"""Everything at once: threads, random shapes and options, a fork in the middle."""

import os
import random
import threading

import numpy as np
import pytest

import fastrnn
import reference
from cases import (
    CELLS,
    TOLERANCE,
    as_state,
    assert_close,
    assert_same_bits,
    make,
    problem,
    run,
    states,
)

THREADS, SHAPES = 8, 1000


def one_shape(seed):
    """A random layer and problem: its values against the reference, its gradients to the bit."""
    draw = random.Random(seed)
    cell = draw.choice(list(CELLS))
    T, B = draw.choice([0, 1, 2, 9, 30]), draw.choice([0, 1, 2, 5, 17])
    I, H = draw.choice([1, 3, 16, 33]), draw.choice([1, 7, 16, 63, 130])
    dtype = draw.choice(["float32", "float64"])
    options = {"bidirectional": draw.random() < 0.3, "bias": draw.random() < 0.8}
    if cell == "LSTM" and H > 1 and draw.random() < 0.3:
        options["proj_size"] = draw.randint(1, H - 1)
    layer = make(cell, I, H, draw.choice([1, 1, 2]), dtype=dtype, **options)
    p = problem(layer, T, B, seed)
    given = {}
    if draw.random() < 0.5:
        given["lengths"] = np.array([draw.randint(0, T) for _ in range(B)], np.int64)
    if draw.random() < 0.3:
        given["reset"] = np.random.default_rng(seed).random((T, B)) < 0.2
    result = run(layer, p, **given)
    kind, equations = CELLS[cell]
    y, state, *_ = reference.layer(kind, layer.state_dict(), p.x, p.state, **given, **equations)
    assert_close(result.y, y, TOLERANCE[dtype], f"y of shape {seed}")
    for mine, its in zip(result.state, state, strict=True):
        assert_close(mine, its, TOLERANCE[dtype], f"state of shape {seed}")
    inferred, final = layer(p.x, as_state(p.state), **given)
    assert np.array_equal(inferred, result.y)
    for mine, its in zip(states(final), result.state, strict=True):
        assert np.array_equal(mine, its)
    assert_same_bits(run(layer, p, **given), result)


def forked_child_is_fine(seeds):
    """Whether a child of this process, forked now, computes as it does."""
    child = os.fork()
    if child == 0:
        try:
            for seed in seeds:
                one_shape(seed)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_threads_shapes_and_a_fork():
    errors, seeds = [], iter(range(SHAPES))
    lock = threading.Lock()
    large = make("LSTM", 32, 256)  # whose calls want the library's own threads
    p = problem(large, 20, 8)
    wanted = run(large, p)

    def work():
        while not errors:
            with lock:
                seed = next(seeds, None)
            if seed is None:
                return
            try:
                one_shape(seed)
                if seed % 25 == 0:
                    assert_same_bits(run(large, p), wanted)
            except BaseException as error:
                errors.append((seed, error))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    if hasattr(os, "fork"):
        assert forked_child_is_fine(range(SHAPES, SHAPES + 20))
    for thread in threads:
        thread.join(600)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise AssertionError(f"shape {errors[0][0]}") from errors[0][1]
    assert fastrnn.get_num_threads() >= 1
