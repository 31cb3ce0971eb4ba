"""A framework's own threads, to which calls of jobs are handed in place of helpers.

A framework whose OpenMP runtime has worked a moment ago has threads that go on spinning, on the
CPUs that helpers want. Who is called from there gives its jobs to these threads: they are awake,
and no two pools fight for the CPUs. `GOMP_parallel` starts a parallel region in GNU's runtime, and
in LLVM's and Intel's, which have it under the same name.
"""

import ctypes
import threading

import numpy as np
from numba import types

from fastrnn_kernels.cache.disk import c_address, kernel
from fastrnn_kernels.cpu.isa import atomic
from fastrnn_kernels.cpu.isa.address import call_c, words
from fastrnn_kernels.cpu.threads import board
from fastrnn_kernels.cpu.threads.job import Record
from fastrnn_kernels.forks import forks
from fastrnn_kernels.handlers import Suppressed

_number = call_c(types.int32, ())
_parallel = call_c(types.void, (types.int64, types.int64, types.uint32, types.uint32))


@kernel("openmp-region", for_c=True)
def _region(at):  # type: ignore[no-untyped-def]
    """What each thread of a region runs: the first puts the jobs there, for all that have come.

    There may be fewer threads than were asked for.
    """
    own = words(at)
    if atomic.replace(own, board.REGION, board.EMPTY, board.FILLED):
        board.put(own, own[board.RECORDS], own[board.SIZE], _number(own[board.NUMBER_OF], ()))
        atomic.store(own, board.REGION, board.OPEN)
    looks = 0
    while atomic.load(own, board.REGION) != board.OPEN:
        looks = atomic.wait(looks)
    board.make_calls(own)


@kernel("openmp-run")
def _run(own, number, records, threads, parallel, number_of, inside, region):  # type: ignore[no-untyped-def]
    """Make all calls of jobs in a parallel region; whether it could be."""
    if _number(inside, ()) != 0:  # the other threads of that region have work of their own
        return False
    if not atomic.replace(own, board.OWNER, board.FREE, number):
        return False
    own[board.RECORDS], own[board.SIZE] = records.ctypes.data, records.size
    own[board.NUMBER_OF] = number_of
    atomic.store(own, board.REGION, board.EMPTY)
    _parallel(parallel, (region, own.ctypes.data, np.uint32(threads), np.uint32(0)))
    atomic.store(own, board.OWNER, board.FREE)
    return True


def prepare() -> int:
    """Compile what a region runs, or load it; its address."""
    array = types.Array(types.int64, 1, "C")
    _run.compile((array, types.int64, array, *[types.int64] * 5))
    return c_address(_region, (types.int64,))


class _Here(threading.local):
    """Of the calling thread: the runtime that jobs are handed to, and how many threads it gives."""

    runtime: "Runtime | None" = None
    threads = 0


_here = _Here()


class Runtime:
    """An OpenMP runtime of this process: of the library that a framework computes with.

    In its context, the calling thread's jobs are handed to it. It is of no use in a child of this
    process, where its threads are not.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises AttributeError where the library has none."""
        self._functions = tuple(
            ctypes.cast(getattr(library, name), ctypes.c_void_p).value
            for name in ("GOMP_parallel", "omp_get_num_threads", "omp_in_parallel")
        )
        self._most = library.omp_get_max_threads
        self._forks = forks()
        self._region = prepare()

    @property
    def alive(self) -> bool:
        """Whether its threads are of this process."""
        return self._forks == forks()

    @property
    def threads(self) -> int:
        """How many the calling thread was given as it entered the context."""
        return _here.threads

    def __enter__(self) -> None:
        # Which may change from call to call.
        _here.runtime, _here.threads = self, int(self._most())

    def __exit__(self, *_: object) -> None:
        # What a handler called meanwhile has left it too: what follows goes to helpers. And what a
        # handler raises here, before this line, the next call makes good.
        _here.runtime = None

    def run(self, own: Record, number: int, records: Record, threads: int) -> bool:
        """Make all calls of jobs, as call `number` of a board; whether it could be."""
        return bool(_run(own, number, records, threads, *self._functions, self._region))


def runtime_of(library: str) -> Runtime | None:
    """The OpenMP runtime by which a library computes, if it has one that can be used.

    library: its path. Where another runtime was loaded before all others, calls of the library
    have come to that one.
    """
    with Suppressed(OSError, AttributeError):
        own, everywhere = ctypes.CDLL(library), ctypes.CDLL(None)
        return Runtime(everywhere if hasattr(everywhere, "GOMP_parallel") else own)
    return None


def current() -> Runtime | None:
    """The runtime that the calling thread's jobs are handed to; none after a fork in between."""
    runtime = _here.runtime
    return runtime if runtime is not None and runtime.alive else None
