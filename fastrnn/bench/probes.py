"""What this machine can do at most, with the same number of threads as the contenders.

A fused multiply-add probe and a read probe for each level of the memory, in compiled code that
does nothing else. A limit is what was reached, so the best of a few runs counts here, not the
median.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import numpy as np
from numba import njit

from fastrnn.bench.machine import cache_bytes
from fastrnn_kernels.cpu.isa.host import HOST
from fastrnn_kernels.cpu.product.block import register_block
from fastrnn_kernels.cpu.product.pairs import VALUES

#: Each run lasts about so long; the best of so many counts, as others may use the machine too.
SECONDS, RUNS = 0.03, 10
#: Accumulators, one operand for each row and one for the column fill the registers exactly
#: or leave some free; a block of 6 x 2 sums, which spills two of sixteen, reaches half the speed.
ROWS, VECTORS = (6, 4) if HOST.registers >= 32 else (3, 4)
#: Products to a sum: the panel of one then fits the first cache.
DEPTH = 128
#: However large the last cache is, more than this is not allocated to get past it.
MOST_BYTES = 1 << 30

_product = register_block(ROWS, VECTORS)


@njit(nogil=True)
def _multiply_add(out, a, rows, panel, width, depth, repeats):  # type: ignore[no-untyped-def]
    for _ in range(repeats):
        _product(out, 0, width, out, 0, width, a, rows, 0, 1, panel, 0, width, depth)


@njit(nogil=True, fastmath=True)  # fastmath, so that the sum becomes vector code
def _read(values, repeats):  # type: ignore[no-untyped-def]
    total = values[0]
    for _ in range(repeats):
        for i in range(values.size):
            total += values[i]
    return total


def _repeats(work: Callable[[int, int], Any]) -> int:
    """How often `work` is to repeat itself to last `SECONDS`; compiles it first."""
    work(0, 1)
    repeats = 1
    while True:
        start = perf_counter()
        work(0, repeats)
        seconds = perf_counter() - start
        if seconds > SECONDS / 8:
            return max(1, round(repeats * SECONDS / seconds))
        repeats *= 4


def _together(threads: int, work: Callable[[int, int], Any], amount: float) -> float:
    """What all threads together get through in a second.

    Args:
        threads: how many, all at work at the same time.
        work: takes a thread's number and how often to repeat itself.
        amount: what one repetition gets through.
    """
    repeats = _repeats(work)
    barrier = threading.Barrier(threads)

    def rate(thread: int) -> float:
        barrier.wait()
        start = perf_counter()
        work(thread, repeats)
        return amount * repeats / (perf_counter() - start)

    with ThreadPoolExecutor(threads) as pool:
        return max(sum(pool.map(rate, range(threads))) for _ in range(RUNS))


def multiply_add(threads: int, dtype: str) -> float:
    """FLOP/s of fused multiply-adds from registers and the first cache."""
    arrays = "float32" if dtype == "bfloat16" else dtype
    width = VECTORS * HOST.lanes(np.dtype(arrays).itemsize)
    a = np.full((ROWS, DEPTH), 0.5, arrays)
    panel = np.zeros((DEPTH, width), arrays)
    rows = np.arange(ROWS, dtype=np.int64) * DEPTH
    if dtype == "bfloat16":  # pairs, as integers of 32 bits
        a, panel = a.view(np.int32), panel.view(np.int32)

    def work(thread: int, repeats: int) -> None:
        out = np.zeros((ROWS, width), arrays)
        _multiply_add(out, a, rows, panel, width, DEPTH, repeats)

    return _together(threads, work, 2.0 * ROWS * width * DEPTH * VALUES[dtype])


def read(threads: int, size: int) -> float:
    """Bytes/s that the threads read together, each its own `size` bytes over and over."""
    # ones: untouched zeros would all be one page of memory
    values = [np.ones(size // 4, np.float32) for _ in range(threads)]

    def work(thread: int, repeats: int) -> None:
        _read(values[thread], repeats)

    return _together(threads, work, float(values[0].nbytes))


def sizes(threads: int) -> dict[str, int]:
    """Bytes that each thread reads to measure a level: half of its share, or far beyond all."""
    caches = cache_bytes()
    share = caches["L3"] // threads
    found = {"L1": caches["L1"] // 2, "L2": caches["L2"] // 2}
    if share // 2 > caches["L2"]:  # a smaller share would still lie in the L2
        found["L3"] = share // 2
    found["memory"] = min(4 * max(caches["L3"], caches["L2"]), MOST_BYTES) // threads
    return found


def probe(threads: int, dtype: str) -> dict[str, float]:
    """Run all probes.

    Returns:
        `fma`, FLOP/s in `dtype`; `L1`, `L2`, `L3` (where there is one), `memory`, bytes/s. All
        are of `threads` threads together.
    """
    found = {"fma": multiply_add(threads, dtype)}
    return found | {level: read(threads, size) for level, size in sizes(threads).items()}
