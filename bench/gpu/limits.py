"""What a GPU reaches: copies, products, launches, the grid's barrier, its second-level cache."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from fastrnn_kernels.cuda import choice
from fastrnn_kernels.cuda.isa.operations import arrive, wait_for
from fastrnn_kernels.cuda.launch.arrays import xp
from fastrnn_kernels.cuda.launch.kernel import Kernel
from fastrnn_kernels.cuda.launch.launch import launch_blocks

#: Bytes that are written between two timed calls, so that none finds its data in the cache.
FLUSH = 256 << 20
#: Barriers in a timed launch; bytes that fit the second-level cache of every GPU that has
#: clusters, and how often all of them are read.
BARRIERS, CACHED, READS = 1000, 16 << 20, 1024
#: Bytes that the shared memory of a multiprocessor gives in a clock.
SHARED_BYTES = 128


def median_s(call: Callable[[], Any], seconds: float = 0.3, flushed: bool = True) -> float:
    """Median device time of a call, between events, the cache flushed before each."""
    flush = _flush()
    for _ in range(3):
        call()
    taken: list[float] = []
    end = time.monotonic() + seconds
    while len(taken) < 10 or (time.monotonic() < end and len(taken) < 200):
        if flushed:
            flush.fill(len(taken))
        start, stop = xp.cuda.Event(), xp.cuda.Event()
        start.record()
        call()
        stop.record()
        stop.synchronize()
        taken.append(xp.cuda.get_elapsed_time(start, stop) / 1e3)
    return float(np.median(taken))


@cache
def _flush() -> Any:
    return xp.empty(FLUSH // 4, "float32")


def barriers(met: Any, count: int) -> None:
    """Kernel: all blocks meet so often, as those do that share R; met (1,) begins at 0."""
    for k in range(count):
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            arrive(met, 0)
            wait_for(met, 0, (k + 1) * cuda.gridDim.x)
    cuda.syncthreads()


def reads(data: Any, sums: Any, size: int, times: int) -> None:
    """Kernel: all of `data`, so often; each time another multiprocessor has what a block had."""
    step = cuda.gridDim.x * cuda.blockDim.x
    first = cuda.grid(1)
    total = data[0] - data[0]
    for k in range(times):
        at = (first + k * cuda.blockDim.x) % step
        while at < size:
            total += data[at]
            at += step
    sums[first] = total


MEETING = Kernel(barriers, np.dtype(np.float32), "ni", 256)
READING = Kernel(reads, np.dtype(np.float32), "vvii", 512)


def _grid_barrier_s() -> float:
    many, met = choice.gpu().multiprocessors, xp.zeros(1, "int64")

    def meet() -> None:
        met.fill(0)
        launch_blocks(MEETING, many, 256, 0, met, BARRIERS, cooperative=True)

    return median_s(meet, flushed=False) / BARRIERS


def _cache_rate() -> float:
    blocks, threads = 2 * choice.gpu().multiprocessors, 512
    data, sums = xp.ones(CACHED // 4, "float32"), xp.zeros(blocks * threads, "float32")

    def read() -> None:
        launch_blocks(READING, blocks, threads, 0, data, sums, data.size, READS)

    seconds = median_s(read, flushed=False)
    return CACHED * READS / seconds


def _shared_rate() -> float:
    """Bytes a second that all shared memories give, by the clock."""
    attribute = xp.cuda.runtime.deviceGetAttribute
    hertz = 1e3 * attribute(13, xp.cuda.Device().id)  # cudaDevAttrClockRate
    return SHARED_BYTES * hertz * choice.gpu().multiprocessors


def ceilings() -> dict[str, float]:
    """All of them."""
    a, b = (xp.ones(1 << 28, "float32") for _ in range(2))
    m = xp.ones((8192, 8192), "float32")
    out = xp.empty_like(m)
    tiny = xp.zeros(1, "float32")

    def copy() -> None:
        a[...] = b

    def launches() -> None:
        for _ in range(100):
            tiny.fill(0)

    return {
        "copy_bytes_per_s": 2 * a.nbytes / median_s(copy),
        "float32_flops": 2 * 8192**3 / median_s(lambda: xp.matmul(m, m, out=out)),
        "launch_s": median_s(launches) / 100,
        "grid_barrier_s": _grid_barrier_s(),
        "cache_bytes_per_s": _cache_rate(),
        "shared_bytes_per_s": _shared_rate(),
    }


def floor_s(
    found: dict[str, float], gates: int, shape: tuple[int, ...], train: bool, fits_one: bool
) -> float:
    """The least time of a call: each step's barrier, exchange of h and weights on chip.

    A step takes the barrier of the grid, unless R fits one multiprocessor; every one of them
    reads h (B, H) from the second-level cache; and all weights, on chip, are read once, or
    multiplied with B rows, whichever takes longer. The products over all steps, of x and for
    the gradients, take what their operations do. In training each step is taken twice.
    """
    T, B, I, H = shape
    rate = found["float32_flops"]
    weights = 4 * gates * H * H
    a_step = max(weights / found["shared_bytes_per_s"], 2 * B * weights / 4 / rate)
    if not fits_one:
        exchanged = 4 * B * H * choice.gpu().multiprocessors
        a_step += found["grid_barrier_s"] + exchanged / found["cache_bytes_per_s"]
    of_x = 2 * T * B * I * gates * H / rate
    of_h = 2 * T * B * H * gates * H / rate
    if not train:
        return found["launch_s"] + T * a_step + of_x
    return 2 * found["launch_s"] + 2 * T * a_step + 3 * of_x + of_h
