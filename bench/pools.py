"""fastrnn beside the threads of other libraries in one process: `python bench/pools.py [POOL ...]`.

A user's loop takes products by turns with fastrnn's calls. The pool that computed a product may
spin for a while, on the CPU that a helper of fastrnn's wants; and a helper listens for a moment, on
the CPU that the next product wants. So each is timed alone, and right after the other, with the
pool's own number of threads and with one, in processes by turns. Linux only.

Of the rounds, the quarter is kept in which other processes took least of the CPUs.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import files
from typing import Any

import numpy as np

import fastrnn

#: What tells pools how many threads they have.
_VARIABLES = "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"
#: How long a round looks at each of its parts.
_SECONDS = 0.15
_KINDS = "call", "call after", "work", "work after"

Call = Callable[[], object]


def _numpy(size: int) -> Call:
    a = np.ones((size, size), np.float32)
    out = np.empty_like(a)
    return lambda: np.dot(a, a, out=out)


def _mkl(size: int) -> Call:
    """A product by the package `mkl`, as NumPy makes it where it is built with that."""
    name = next(file for file in files("mkl") or () if "libmkl_rt.so" in file.name)
    product = ctypes.CDLL(str(name.locate())).cblas_sgemm
    a, n = np.ones((3, size, size), np.float32), size
    x, y, out = (ctypes.c_void_p(part.ctypes.data) for part in a)
    zero, one = ctypes.c_float(0), ctypes.c_float(1)
    # Rows first, neither transposed, by the numbers of its header.
    return lambda: (product(101, 111, 111, n, n, n, one, x, n, y, n, zero, out, n), a)


def _sklearn(size: int) -> Call:
    from sklearn.metrics import pairwise_distances_argmin  # type: ignore[import-not-found]

    a = np.random.default_rng(0).standard_normal((4 * size, 64)).astype(np.float32)
    return lambda: pairwise_distances_argmin(a, a[:64])


def _numba(layer: str, size: int) -> Call:
    import numba

    numba.config.THREADING_LAYER = layer
    a = np.ones((size, size), np.float32)
    out = np.empty_like(a)

    @numba.njit(parallel=True)  # type: ignore[untyped-decorator]
    def work(a: Any, out: Any) -> None:
        for i in numba.prange(a.shape[0]):
            for j in range(a.shape[1]):
                out[i, j] = np.tanh(a[i, j])

    return lambda: work(a, out)


_POOLS: dict[str, Callable[[int], Call]] = {
    "numpy": _numpy,
    "mkl": _mkl,
    "sklearn": _sklearn,
    "numba-omp": partial(_numba, "omp"),
    "numba-workqueue": partial(_numba, "workqueue"),
}


def _calls() -> dict[str, Call]:
    """Calls of fastrnn's that its threads share, in pieces and as teams."""
    draw = np.random.default_rng(0).standard_normal
    small, large = fastrnn.LSTM(128, 128, device="cpu"), fastrnn.LSTM(512, 512, device="cpu")
    x, x_of_one = draw((50, 16, 128)).astype("f"), draw((20, 1, 512)).astype("f")
    stream = large.stream()

    def train() -> None:
        y, _, tape = small.forward(x)
        small.backward(tape, y)

    return {
        "LSTM(512) stream.step": lambda: stream.step(x_of_one[0]),
        "LSTM(512) T=20 B=1": lambda: large(x_of_one),
        "LSTM(128) T=50 B=16": lambda: small(x),
        "the same, backward too": train,
    }


def _spun(work: Call) -> float:
    """CPU seconds that the pool's threads take after work, until they take none any more."""
    work()
    start = last = time.process_time() - time.thread_time()
    while True:
        time.sleep(0.04)
        now = time.process_time() - time.thread_time()
        if now - last < 1e-3:
            return now - start
        last = now


def _busy() -> float:
    """CPU seconds that all processes but this one have taken."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:8])
    ticks = user + nice + system + sum(interrupts)
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


def _time(parts: dict[str, Call]) -> dict[str, list[float]]:
    """Microseconds of each part, in turn for a while, and CPUs that other processes took."""
    found: dict[str, list[float]] = {kind: [] for kind in parts}
    begin, busy = time.perf_counter(), _busy()
    while (now := time.perf_counter()) < begin + _SECONDS:
        for kind, part in parts.items():
            part()
            now, before = time.perf_counter(), now
            found[kind].append(1e6 * (now - before))
    # The first two bring back caches, and wake threads.
    return {kind: times[2:] or times[-1:] for kind, times in found.items()} | {
        "others": [(_busy() - busy) / _SECONDS]
    }


def _worker(pool: str, size: int, rounds: int) -> None:
    work, calls = _POOLS[pool](size), _calls()
    work()
    spun = [_spun(work) for _ in range(5)]
    found: dict[str, list[dict[str, list[float]]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for parts in {"call": call}, {"work after": work, "call after": call}, {"work": work}:
                found[name].append(_time(parts))
                _spun(work)
    print(json.dumps({"spun": spun, "calls": found}))


def _run(pool: str, one: bool, size: int, rounds: int) -> Any:
    environment = {**os.environ, **dict.fromkeys(_VARIABLES if one else (), "1")}
    numbers = "--size", str(size), "--rounds", str(rounds)
    command = [sys.executable, __file__, pool, *numbers, "--worker"]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def _quiet(rounds: list[dict[str, list[float]]], kind: str) -> tuple[list[float], float]:
    """Times of a kind in the quarter of its rounds that was quietest, and CPUs others took then."""
    own = sorted((one for one in rounds if kind in one), key=lambda one: one["others"])
    kept = own[: max(1, len(own) // 4)]
    return [time for one in kept for time in one[kind]], kept[-1]["others"][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", nargs="*", choices=list(_POOLS), help="numpy where none is named")
    parser.add_argument("--size", type=int, default=128, help="rows and columns of a product")
    parser.add_argument("--rounds", type=int, default=8, help="of each of four processes")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        _worker(given.pool[0], given.size, given.rounds)
        return
    print("lower quartiles, medians in brackets, in µs; others: CPUs that they took at most")
    for pool in given.pool or ["numpy"]:
        runs: dict[bool, list[Any]] = {False: [], True: []}
        for _ in range(2):
            for one, done in runs.items():
                done.append(_run(pool, one, given.size, given.rounds))
        for one, done in runs.items():
            spun = statistics.median(time for run in done for time in run["spun"])
            print(f"\n{pool}, {'one thread' if one else 'its threads'}: spins {1e3 * spun:.0f} ms")
            for name in done[0]["calls"]:
                rounds, line, most = [r for run in done for r in run["calls"][name]], "", 0.0
                for kind in _KINDS:
                    times, others = _quiet(rounds, kind)
                    low, middle = np.quantile(times, (0.25, 0.5))
                    line += f"  {kind} {low:6.0f} ({middle:.0f})"
                    most = max(most, others)
                print(f"  {name:24}{line}  others {most:.1f}", flush=True)


if __name__ == "__main__":
    main()
