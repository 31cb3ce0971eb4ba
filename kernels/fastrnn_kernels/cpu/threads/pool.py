"""The package's own threads, which make the calls of jobs without Python and its lock.

One caller at a time has the helpers; a second Python thread that calls meanwhile runs its
jobs itself. A helper that has worked listens for the next call a little longer, in
compiled code; then it sleeps in a queue of Python's and uses no CPU. After a fork the child
makes helpers of its own when it first needs them.
"""

import _thread
import atexit
import ctypes
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, repeat
from queue import Empty, SimpleQueue

import numpy as np

from fastrnn_kernels.cpu.threads import board, openmp
from fastrnn_kernels.cpu.threads.board import FIRST, LINE, LINGER_SECONDS, MOST_HELPERS, TAKEN
from fastrnn_kernels.cpu.threads.job import FIRST_STEP, LAST_STEP, Job, Record
from fastrnn_kernels.cpu.threads.openmp import Runtime
from fastrnn_kernels.forks import forks
from fastrnn_kernels.handlers import Suppressed, pass_on

#: Multiply-adds below which handing work to another thread costs more than it saves, if that
#: thread listens, and if it has to be woken (measured).
MIN_WORK, WAKING_WORK = 1_000_000, 4_000_000
#: Multiply-adds from which on work may be done in parts, and how long one takes: signals are
#: answered between them. A slow CPU does LONG in a tenth of a second.
LONG, PART_SECONDS = 200_000_000, 0.05


def _allowed() -> frozenset[int]:
    """The CPUs that the calling thread may run on; empty where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        with Suppressed(OSError):
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
        with Suppressed(OSError, AttributeError):
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
        self.board, self._mailbox = own, (number + FIRST) * LINE
        self.wakes: SimpleQueue[None] = SimpleQueue()
        self._cpus: frozenset[int] = frozenset()
        self._wanted = self._cpus
        self._seat = [None]
        self.running = self.stopped = False
        #: Its thread by the system's number; and whether it has ended.
        self.native_id: int | None = None
        self.ended: SimpleQueue[None] = SimpleQueue()

    def start(self) -> bool:
        """Give it a thread, if the system has one left; whether it has one."""
        try:
            # One call of C's: `threading` waits for the thread, and may tell of an interrupt
            # meanwhile as of a KeyError.
            _thread.start_new_thread(self._live, ())
        except RuntimeError as error:  # at exit or at the system's limit: then fewer do the work
            pass_on(error)
            return False
        self.running = True
        return True

    def _live(self) -> None:
        try:
            self._seat.pop()
        except IndexError:  # an interrupt of `start`, or another caller, had it start twice
            return
        self.native_id = threading.get_native_id()
        self.stay_on(self._wanted)  # said before there was a number
        while True:
            self.wakes.get()
            if self.stopped:
                self.ended.put(None)
                return
            board.serve(self.board, self._mailbox)

    def stay_on(self, cpus: frozenset[int]) -> None:
        """Run on one of these CPUs from now on, if the system can be told."""
        self._wanted = cpus
        if cpus and cpus != self._cpus and self.native_id is not None:
            with Suppressed(OSError):  # forbidden here: slower, not wrong
                os.sched_setaffinity(self.native_id, cpus)
                self._cpus = cpus


class _Pool:
    """Helpers and the board by which they are called.

    There is no lock: a signal's handler may call a layer wherever this thread is just then, and
    what it raises leaves nothing held. Two callers that start helpers at once find the same ones.
    """

    def __init__(self) -> None:
        self.threads = available_cpus()
        self._closed = False
        self._calls = count(board.FIRST_CALL)
        self._start()

    def _start(self) -> None:
        """Start anew; what a fork copied has no threads behind it."""
        now = forks()
        words = board.new_board()
        words[board.THREADS], words[board.ROOM] = self.threads, _room()[1]
        if hasattr(os, "register_at_fork"):
            # For compiled code that knows this one. No function of Python's, see `forks.py`.
            close = partial(words.__setitem__, board.OWNER, board.CLOSED)
            os.register_at_fork(after_in_child=close)
        self._helpers: dict[int, _Helper] = {}
        self._last = -1.0  # when the last call ended
        self.board = words
        self._forks = now

    def own_board(self) -> Record:
        """The board of this process."""
        if self._forks != forks():
            self._start()
        return self.board

    def close(self) -> None:
        """Call no helper any more, and wait until they have left compiled code.

        That code is unloaded when Python ends.
        """
        self._closed = True
        if self._forks != forks():
            return
        helpers = [helper for helper in self._helpers.values() if helper.running]
        end = time.monotonic() + 1
        while helpers and not board.shut(self.board) and time.monotonic() < end:
            time.sleep(1e-4)
        for helper in helpers:
            helper.stopped = True
            helper.wakes.put(None)
        for helper in helpers:
            with Suppressed(Empty):
                helper.ended.get(timeout=max(0.0, end - time.monotonic()))

    def _grow(self, wanted: int) -> list[_Helper]:
        """So many helpers with threads, or as many as there can be."""
        own, helpers = self.own_board(), self._helpers
        if not helpers:
            board.prepare()
            board.set_looks(own)
        found: list[_Helper] = []
        for number in range(min(wanted, MOST_HELPERS)):
            helper = helpers.get(number)
            if helper is None:
                helper = helpers.setdefault(number, _Helper(own, number))
            if not (helper.running or helper.start()):
                break
            found.append(helper)
        return found

    def _make_room(self, own: Record, helpers: Sequence[_Helper]) -> None:
        """Keep helpers off the CPU that the caller, who has the board, runs on."""
        cpus, room = _room()
        own[board.CPU], own[board.ROOM] = _cpu_of_caller(), room
        for helper in helpers:
            helper.stay_on(cpus)

    def run(self, records: Record, largest: int, work: float, least: float) -> None:
        """Run jobs by their records; largest: the most threads that can take part."""
        runtime, many = openmp.current(), 0
        if runtime is not None:
            self._hand(runtime, records, largest, work >= least)
            return
        if self.threads > 1 and work >= least and not self._closed:
            many = min(self.threads, largest) - 1
            # A single call of little work would be done before a helper is awake.
            if work < WAKING_WORK and time.perf_counter() - self._last > LINGER_SECONDS:
                many = 0
        if many > 0 and self.own_board()[board.OWNER] == board.FREE:
            moved = _cpu_of_caller() != self.board[board.CPU]
            many = min(many, _room()[1] if moved else int(self.board[board.ROOM]))
            helpers = self._grow(many)
            if helpers:
                self._run_with(helpers, moved, records)
                return
        board.alone(records)
        self._last = time.perf_counter()

    def _hand(self, runtime: Runtime, records: Record, largest: int, worth: bool) -> None:
        many = min(get_num_threads(), largest)
        handed = worth and many > 1 and not self._closed
        if not (handed and runtime.run(self.own_board(), next(self._calls), records, many)):
            board.alone(records)

    def _run_with(self, helpers: Sequence[_Helper], moved: bool, records: Record) -> None:
        own, many, number, here = helpers[0].board, len(helpers), next(self._calls), forks()
        # Whatever is raised from here on, by a signal's handler at any line: helpers that were
        # called are woken, each in turn by this one call, and their calls waited for.
        wakes = map(SimpleQueue.put, [helper.wakes for helper in helpers], repeat(None))
        asleep = many
        try:
            asleep = board.begin(own, number, records, many)
            if asleep > 0 or (moved and asleep != TAKEN):
                self._make_room(own, helpers)
        finally:
            try:
                if asleep > 0:
                    deque(wakes, 0)
            finally:
                board.finish(own, number, many)
        if asleep == TAKEN or here != forks():  # a handler forked, and this is the child
            board.alone(records)
        self._last = time.perf_counter()


_pool = _Pool()
#: Multiply-adds a second of the last part that was long.
_rate = 0.0
atexit.register(lambda: _pool.close())


def run(jobs: Sequence[Job], work: float, least: float | None = None) -> None:
    """Run all jobs, `work` multiply-adds together, and come back when they are done.

    Other threads take part from `least` multiply-adds on, or MIN_WORK. Jobs that all have steps
    over time are done in parts where it takes long.
    """
    least = MIN_WORK if least is None else least
    records = [job.record for job in jobs]
    largest = sum(job.largest for job in jobs)
    if work < whole() or not all(job.steps for job in jobs):
        _pool.run(_joined(records), largest, work, least)
        return
    steps = max(job.steps for job in jobs)

    def part(first: int, last: int) -> None:
        for record in records:
            record[FIRST_STEP], record[LAST_STEP] = first, last
        _pool.run(_joined(records), largest, work * (last - first) / steps, least)

    in_parts(part, steps, work)


def _joined(records: Sequence[Record]) -> Record:
    return records[0] if len(records) == 1 else np.concatenate(records)


def run_records(records: Record, largest: int, work: float) -> None:
    """Run jobs whose records lie one behind the other, `work` multiply-adds together.

    largest: the most threads that can take part. Not in parts, however long it takes.
    """
    _pool.run(records, largest, work, MIN_WORK)


def whole() -> float:
    """Multiply-adds of a part: as many as took PART_SECONDS the last time, but at least LONG."""
    return max(LONG, _rate * PART_SECONDS)


def in_parts(part: Callable[[int, int], object], total: int, work: float, align: int = 1) -> None:
    """Call `part(first, last)` for parts of 0 to total, one after the other.

    Between two of them, Python answers signals: so each takes PART_SECONDS at most, if that is more
    than a step, and begins at a multiple of `align`. work: multiply-adds of all.
    """
    global _rate
    if work < whole():
        part(0, total)
        return
    first = 0
    while first < total:
        many = max(1, int(total * min(1.0, whole() / work)) // align) * align
        last = min(total, first + many)
        start = time.perf_counter()
        part(first, last)
        # A part that something else slowed makes the next one shorter, and so on.
        _rate = work * (last - first) / total / max(time.perf_counter() - start, 1e-6)
        first = last


def board_address() -> int:
    """Where the board is, for callers in compiled code; after a fork, another one."""
    return int(_pool.own_board().ctypes.data)


def parts_of(work: float, share: int = 1) -> int:
    """Parts worth making of so many multiply-adds, where `share` passes run together."""
    return int(max(1, min(get_num_threads() // share, 2 * work // MIN_WORK)))


def set_num_threads(threads: int) -> None:
    """Set how many threads a call may use, the calling one among them."""
    _pool.threads = threads
    _pool.own_board()[board.THREADS] = threads


def get_num_threads() -> int:
    """How many threads a call may use."""
    runtime = openmp.current()
    return _pool.threads if runtime is None else min(_pool.threads, runtime.threads)
