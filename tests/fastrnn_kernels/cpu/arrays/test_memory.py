"""Memory comes back when its last view is gone, not before, and what waits is bounded."""

import gc
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest

from fastrnn_kernels.cpu.arrays import memory

FLOAT = np.dtype(np.float32)
LARGE = (memory.LEAST // 4 + 5,)


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    """A store without what other tests left in it."""
    monkeypatch.setattr(memory, "_store", memory._Store())


def address(array):
    return array.__array_interface__["data"][0]


def test_large_arrays_begin_on_a_cache_line():
    for size in (1, 5, 1000, memory.LEAST, 3 * memory.LEAST):
        array = memory.empty((size, 2), FLOAT)
        assert array.shape == (size, 2)
        assert array.flags.carray
        assert array.nbytes < memory.LEAST or address(array) % memory.CACHE_LINE == 0
        array[:] = 1


def test_zeros_are_zeros_in_used_memory_too():
    first = memory.empty(LARGE, FLOAT)
    first[:] = 3
    at = address(first)
    del first
    again = memory.zeros(LARGE, FLOAT)
    assert address(again) == at
    assert not again.any()


def test_memory_comes_back_when_the_last_view_is_gone():
    array = memory.empty(LARGE, FLOAT)
    at, view = address(array), array[7:].reshape(1, -1)
    del array
    other = memory.empty(LARGE, FLOAT)
    assert address(other) != at, "taken from under a view"
    assert memory.waiting_bytes() == 0
    del view
    assert memory.waiting_bytes() > 0
    assert address(memory.empty(LARGE, FLOAT)) == at


def test_like_sizes_share_memory_and_little_is_wasted():
    array = memory.empty((100_000,), FLOAT)
    at = address(array)
    del array
    assert address(memory.empty((99_000,), FLOAT)) == at
    for size in (1, 63, 64, 65, 1_000_000, (1 << 40) + 1):
        assert size <= memory._size_class(size) <= size * 9 / 8 + 1


def test_what_waits_is_bounded(monkeypatch):
    monkeypatch.setattr(memory, "LIMIT", 10 * memory.LEAST)
    arrays = [memory.empty((k * LARGE[0],), FLOAT) for k in (1, 2, 3, 4, 5, 30)]
    while arrays:
        arrays.pop(0)
        assert memory.waiting_bytes() <= memory.LIMIT
    assert memory.waiting_bytes() > 0


def test_threads_never_get_the_same_memory():
    wrong = []

    def use(mark):
        for _ in range(300):
            array = memory.empty(LARGE, FLOAT)
            array[:] = mark
            if not (array == mark).all():
                wrong.append(mark)

    workers = [threading.Thread(target=use, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_impossible_sizes_raise_and_nothing_breaks():
    with pytest.raises(MemoryError):
        memory.empty((1 << 60,), FLOAT)
    memory.empty(LARGE, FLOAT)[:] = 1


def test_release_gives_all_back():
    array = memory.empty(LARGE, FLOAT)
    assert memory.release() == 0, "given back while in use"
    del array
    waiting = memory.waiting_bytes()
    assert memory.release() == waiting > 0
    assert memory.waiting_bytes() == 0


def test_arrays_that_stay_do_not_keep_others_from_coming_back(monkeypatch):
    """As where a caller collects results: the oldest go to the system when they end."""
    monkeypatch.setattr(memory, "LIMIT", 4 * memory.LEAST)
    kept = [memory.empty(LARGE, FLOAT) for _ in range(20)]
    for k, array in enumerate(kept):
        array[:] = k
    array = memory.empty(LARGE, FLOAT)
    at = address(array)
    del array
    assert address(memory.empty(LARGE, FLOAT)) == at
    assert all((array == k).all() for k, array in enumerate(kept))
    kept.clear()
    assert 0 < memory.waiting_bytes() <= memory.LIMIT


def test_results_that_are_kept_do_not_push_out_what_is_used_again(monkeypatch):
    """Steps that keep a result each, as long as the limit holds: their other memory comes back."""
    monkeypatch.setattr(memory, "LIMIT", 6 * memory.LEAST)
    made, new = [], memory._store._new
    monkeypatch.setattr(memory._store, "_new", lambda size: made.append(size) or new(size))
    kept = []
    for _ in range(12):
        memory.empty(LARGE, FLOAT)
        kept.append(memory.empty((2 * LARGE[0],), FLOAT))
    assert made.count(memory._size_class(4 * LARGE[0])) == 1


def test_what_no_longer_fits_leaves_nothing_behind():
    """The store knows no block that is gone, whatever the sizes that come after each other."""
    for k in range(200):
        memory.empty((LARGE[0] * (1 + k % 7),), FLOAT)
    memory.release()
    memory.empty((LARGE[0] * 9,), FLOAT)
    assert len(memory._store._made) <= 1


def test_an_array_in_a_cycle_comes_back_in_a_collection():
    cycle = [memory.empty(LARGE, FLOAT)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert memory.waiting_bytes() > 0


STEPS = """
import resource, sys
import numpy as np
from fastrnn_kernels.cpu.arrays import memory

if sys.argv[1] == "with":
    memory.empty((memory.LARGE,), np.dtype(np.uint8))
for step in range(20):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [np.ones(5_600_000, np.uint8) for _ in range(3)]
    del pieces
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is kept is glibc's malloc's")
def test_what_others_free_at_the_end_of_a_step_stays():
    """Else the system clears thousands of pages anew in each step."""
    faults = {}
    for which in ("with", "without"):
        found = subprocess.run(
            [sys.executable, "-c", STEPS, which], capture_output=True, text=True, check=True
        )
        faults[which] = float(found.stdout)
    if faults["without"] < 300:  # as where pages are large
        pytest.skip(f"here the system clears {faults['without']:.0f} pages a step in any case")
    assert faults["with"] < faults["without"] / 3
    assert faults["with"] < 100
