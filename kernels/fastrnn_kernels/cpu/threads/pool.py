"""The package's own threads, which make the calls of jobs without Python and its lock.

One caller at a time has the helpers; a second Python thread that calls meanwhile runs its
jobs itself. A helper that has worked listens for the next call a little longer, in
compiled code; then it sleeps in a queue of Python's and uses no CPU. After a fork the child
makes helpers of its own when it first needs them.
"""

import atexit
import contextlib
import ctypes
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count, repeat
from queue import SimpleQueue

import numpy as np

from fastrnn_kernels.cpu.threads import board
from fastrnn_kernels.cpu.threads.board import FIRST, LINE, LINGER_SECONDS, MOST_HELPERS, TAKEN
from fastrnn_kernels.cpu.threads.job import Job, Record

#: Multiply-adds below which handing work to another thread costs more than it saves, if that
#: thread listens, and if it has to be woken (measured).
MIN_WORK, WAKING_WORK = 1_000_000, 4_000_000


def _allowed() -> frozenset[int]:
    """The CPUs that the calling thread may run on; empty where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        with contextlib.suppress(OSError):
            return frozenset(os.sched_getaffinity(0))
    return frozenset()


def available_cpus() -> int:
    """How many CPUs this process may run on."""
    return len(_allowed()) or os.cpu_count() or 1


def _current_cpu() -> tuple[Callable[[], int], int]:
    """A function that tells the CPU its thread runs on, and its address for compiled code.

    Where nobody does, the function tells -1, and there is no address (0).
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            function = ctypes.CDLL(None).sched_getcpu
            return function, ctypes.cast(function, ctypes.c_void_p).value or 0
    return (lambda: -1), 0


_cpu_of_caller, CPU_FUNCTION = _current_cpu()


def _room() -> tuple[frozenset[int], int]:
    """The caller's CPUs but the one it runs on, and how many helpers find one.

    Left to itself, the scheduler of a virtual machine wakes a helper on the CPU of the
    thread that woke it, where it waits until that one is done (seen: twice the time).
    """
    allowed = _allowed()
    return allowed - {_cpu_of_caller()}, len(allowed) - 1 if allowed else MOST_HELPERS


class _Helper:
    """A thread that makes calls."""

    def __init__(self, own: Record, number: int) -> None:
        self._board, self._mailbox = own, (number + FIRST) * LINE
        self.wakes: SimpleQueue[None] = SimpleQueue()
        self._cpus: frozenset[int] = frozenset()
        self.stopped = False
        name = f"fastrnn-{number + 1}"
        self.thread = threading.Thread(target=self._live, name=name, daemon=True)
        self.thread.start()

    def _live(self) -> None:
        while True:
            self.wakes.get()
            if self.stopped:
                return
            board.serve(self._board, self._mailbox)

    def stay_on(self, cpus: frozenset[int]) -> None:
        """Run on one of these CPUs from now on, if the system can be told."""
        if cpus and cpus != self._cpus and self.thread.native_id is not None:
            with contextlib.suppress(OSError):  # forbidden here: slower, not wrong
                os.sched_setaffinity(self.thread.native_id, cpus)
                self._cpus = cpus


class _Pool:
    def __init__(self) -> None:
        self.threads = available_cpus()
        self._closed = False
        self._calls = count(board.FIRST_CALL)
        self._start()

    def _start(self) -> None:
        self._growing = threading.Lock()
        self.board = board.new_board()
        self.board[board.THREADS], self.board[board.ROOM] = self.threads, _room()[1]
        self._helpers: list[_Helper] = []
        self._last = -1.0  # when the last call ended

    def forget(self) -> None:
        """Start anew; what a fork copied has no threads behind it."""
        self.board[board.OWNER] = board.CLOSED  # for compiled code that knows this one
        self._start()

    def close(self) -> None:
        """Call no helper any more, and wait until they have left compiled code.

        That code is unloaded when Python ends.
        """
        self._closed = True
        end = time.monotonic() + 1
        while self._helpers and not board.shut(self.board) and time.monotonic() < end:
            time.sleep(1e-4)
        for helper in self._helpers:
            helper.stopped = True
            helper.wakes.put(None)
        for helper in self._helpers:
            helper.thread.join(max(0.0, end - time.monotonic()))

    def _grow(self, wanted: int) -> int:
        with self._growing:
            if not self._helpers:
                board.prepare()
                board.set_looks(self.board)
            # No new threads, at exit or at the system's limit: then fewer do the work.
            with contextlib.suppress(RuntimeError):
                while len(self._helpers) < min(wanted, MOST_HELPERS):
                    self._helpers.append(_Helper(self.board, len(self._helpers)))
        return min(wanted, len(self._helpers))

    def _make_room(self, helpers: int) -> None:
        """Keep helpers off the CPU that the caller, who has the board, runs on."""
        cpus, room = _room()
        self.board[board.CPU], self.board[board.ROOM] = _cpu_of_caller(), room
        for helper in self._helpers[:helpers]:
            helper.stay_on(cpus)

    def run(self, jobs: Sequence[Job], work: float, least: float) -> None:
        records = jobs[0].record if len(jobs) == 1 else np.concatenate([job.record for job in jobs])
        helpers = 0
        if self.threads > 1 and work >= least and not self._closed:
            helpers = min(self.threads, sum(job.largest for job in jobs)) - 1
            # A single call of little work would be done before a helper is awake.
            if work < WAKING_WORK and time.perf_counter() - self._last > LINGER_SECONDS:
                helpers = 0
        if helpers > 0 and self.board[board.OWNER] == board.FREE:
            moved = _cpu_of_caller() != self.board[board.CPU]
            helpers = min(helpers, _room()[1] if moved else int(self.board[board.ROOM]))
            if helpers > 0:
                self._run_with(self._grow(helpers), moved, records)
                return
        board.alone(records)
        self._last = time.perf_counter()

    def _run_with(self, helpers: int, moved: bool, records: Record) -> None:
        own, number = self.board, next(self._calls)
        # Whatever is raised from here on, by a signal's handler at any line: helpers that were
        # called are woken, each in turn by this one call, and their calls waited for.
        wakes = map(SimpleQueue.put, [h.wakes for h in self._helpers[:helpers]], repeat(None))
        asleep = helpers
        try:
            asleep = board.begin(own, number, records, helpers)
            if asleep > 0 or (moved and asleep != TAKEN):
                self._make_room(helpers)
        finally:
            try:
                if asleep > 0:
                    deque(wakes, 0)
            finally:
                board.finish(own, number, helpers)
        if asleep == TAKEN or own is not self.board:  # a handler forked, and this is the child
            board.alone(records)
        self._last = time.perf_counter()


_pool = _Pool()
atexit.register(lambda: _pool.close())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)


def run(jobs: Sequence[Job], work: float, least: float | None = None) -> None:
    """Run all jobs, `work` multiply-adds together, and come back when they are done.

    Other threads take part from `least` multiply-adds on, or MIN_WORK.
    """
    _pool.run(jobs, work, MIN_WORK if least is None else least)


def board_address() -> int:
    """Where the board is, for callers in compiled code; after a fork, another one."""
    return int(_pool.board.ctypes.data)


def parts_of(work: float, share: int = 1) -> int:
    """Parts worth making of so many multiply-adds, where `share` passes run together."""
    return int(max(1, min(_pool.threads // share, 2 * work // MIN_WORK)))


def set_num_threads(threads: int) -> None:
    """Set how many threads a call may use, the calling one among them."""
    _pool.threads = threads
    _pool.board[board.THREADS] = threads


def get_num_threads() -> int:
    """How many threads a call may use."""
    return _pool.threads
