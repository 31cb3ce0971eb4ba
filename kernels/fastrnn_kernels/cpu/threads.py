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
from itertools import repeat
from queue import SimpleQueue

import numpy as np
from numba import njit, types

from fastrnn_kernels.cache import kernel
from fastrnn_kernels.cpu import atomic
from fastrnn_kernels.cpu.address import word
from fastrnn_kernels.cpu.job import ARRIVALS, CALLS, COUNT, MEMBERS, TEAM, WORDS, Block, Job, call

#: Multiply-adds below which handing work to another thread costs more than it saves, if that
#: thread listens, and if it has to be woken (measured).
MIN_WORK, WAKING_WORK = 1_000_000, 4_000_000
#: Looks for a call before a helper falls asleep, and about how long that is: calls that come
#: in a loop find it awake.
LINGER, LINGER_SECONDS = 20_000, 2e-4
#: Helpers at most: how many mailboxes there are.
MOST_HELPERS = 254

# The board: words that callers and helpers share, those that change on lines of their own.
# Helper k's mailbox is the word at (k + FIRST) * LINE.
NEXT, FINISHED, BLOCKS, TOTAL = 0, 8, 16, 17
LINE, FIRST = 16, 2
#: What a helper does: a caller turns the first two to CALLED, a helper that to WORKING.
ASLEEP, LISTENING, CALLED, WORKING = 0, 1, 2, 3


def _allowed() -> frozenset[int]:
    """The CPUs that the calling thread may run on; empty where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        with contextlib.suppress(OSError):
            return frozenset(os.sched_getaffinity(0))
    return frozenset()


def available_cpus() -> int:
    """How many CPUs this process may run on."""
    return len(_allowed()) or os.cpu_count() or 1


def _current_cpu() -> Callable[[], int]:
    """A function that tells the CPU its thread runs on, or -1 where nobody does."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            function: Callable[[], int] = ctypes.CDLL(None).sched_getcpu
            return function
    return lambda: -1


_cpu_of_caller = _current_cpu()


def _cpus_for_helpers() -> frozenset[int]:
    """The caller's CPUs but the one it runs on.

    Left to itself, the scheduler of a virtual machine wakes a helper on the CPU of the
    thread that woke it, where it waits until that one is done (seen: twice the time).
    """
    allowed = _allowed()
    return allowed - {_cpu_of_caller()} or allowed


@njit(error_model="numpy", no_cfunc_wrapper=True)
def _make_calls(board):  # type: ignore[no-untyped-def]
    """Make calls of the board's jobs, whoever is free the next, until all are begun."""
    total = board[TOTAL]
    while True:
        number = atomic.add(board, NEXT, 1)
        if number >= total:
            return
        block = board[BLOCKS]
        while number >= word(block, CALLS):
            number -= word(block, CALLS)
            block += 8 * WORDS
        call(block, number, word(block, MEMBERS))
        atomic.add(board, FINISHED, 1)


@kernel("threads-alone")
def _alone(blocks):  # type: ignore[no-untyped-def]
    """Make all calls of jobs; a team is one thread."""
    for at in range(0, blocks.size, WORDS):
        for number in range(1 if blocks[at + TEAM] else blocks[at + COUNT]):
            call(blocks.ctypes.data + 8 * at, number, 1)


@kernel("threads-begin")
def _begin(board, blocks, helpers):  # type: ignore[no-untyped-def]
    """Put jobs on the board and call helpers; how many of them sleep and have to be woken.

    Teams come first and have no more members than there are threads, so that each member
    finds a thread that is free while the others wait for it.
    """
    teams = 0
    for at in range(0, blocks.size, WORDS):
        teams += blocks[at + TEAM]
    total = 0
    for at in range(0, blocks.size, WORDS):
        many = blocks[at + COUNT]
        if blocks[at + TEAM]:
            many = min(many, max(1, (helpers + 1) // teams))
        blocks[at + CALLS] = many
        blocks[at + MEMBERS] = many if blocks[at + TEAM] else 1
        blocks[at + ARRIVALS] = 0
        total += many
    board[BLOCKS], board[TOTAL] = blocks.ctypes.data, total
    board[FINISHED] = 0
    atomic.store(board, NEXT, 0)
    asleep = 0
    for k in range(helpers):
        mailbox = (k + FIRST) * LINE
        while not atomic.replace(board, mailbox, LISTENING, CALLED):
            if atomic.replace(board, mailbox, ASLEEP, CALLED):
                asleep += 1
                break
    return asleep


@kernel("threads-finish")
def _finish(board, helpers):  # type: ignore[no-untyped-def]
    """Take part, and come back when all calls are made and all helpers away from the board."""
    _make_calls(board)
    looks = 0
    while atomic.load(board, FINISHED) < board[TOTAL]:
        looks = atomic.wait(looks)
    for k in range(helpers):
        mailbox = (k + FIRST) * LINE
        # Who has not come yet need not come any more.
        if not atomic.replace(board, mailbox, CALLED, ASLEEP):
            while atomic.load(board, mailbox) == WORKING:
                looks = atomic.wait(looks)


@kernel("threads-serve")
def _serve(board, mailbox):  # type: ignore[no-untyped-def]
    """Answer the calls that come, until none has come for a while."""
    looks = 0
    while True:
        state = atomic.load(board, mailbox)
        if state == CALLED:
            if atomic.replace(board, mailbox, CALLED, WORKING):
                _make_calls(board)
                atomic.store(board, mailbox, LISTENING)
                looks = 0
        elif state == ASLEEP:
            return
        else:
            atomic.pause()
            looks += 1
            if looks > LINGER and atomic.replace(board, mailbox, LISTENING, ASLEEP):
                return


def _new_board() -> Block:
    """The words of a board, which stay for good: a helper may look at them as Python ends."""
    memory = (ctypes.c_int64 * (LINE * (MOST_HELPERS + FIRST)))()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
    return np.ctypeslib.as_array(memory)


class _Helper:
    """A thread that makes calls."""

    def __init__(self, board: Block, number: int) -> None:
        self._board, self._mailbox = board, (number + FIRST) * LINE
        self.wakes: SimpleQueue[None] = SimpleQueue()
        self._cpus: frozenset[int] = frozenset()
        self.serving = False
        name = f"fastrnn-{number + 1}"
        self.thread = threading.Thread(target=self._live, name=name, daemon=True)
        self.thread.start()

    def _live(self) -> None:
        while True:
            self.wakes.get()
            self.serving = True
            _serve(self._board, self._mailbox)
            self.serving = False

    def stay_on(self, cpus: frozenset[int]) -> None:
        """Run on one of these CPUs from now on, if the system can be told."""
        if cpus and cpus != self._cpus and self.thread.native_id is not None:
            with contextlib.suppress(OSError):  # forbidden here: slower, not wrong
                os.sched_setaffinity(self.thread.native_id, cpus)
            self._cpus = cpus


def prepare_threads() -> None:
    """Compile what threads run, or load it; a helper must not find it missing when called."""
    words = types.Array(types.int64, 1, "C")
    for function, kinds in (
        (_alone, (words,)),
        (_begin, (words, words, types.int64)),
        (_finish, (words, types.int64)),
        (_serve, (words, types.int64)),
    ):
        function.compile(kinds)


class _Pool:
    def __init__(self) -> None:
        self.threads = available_cpus()
        self._closed = False
        self.forget()

    def forget(self) -> None:
        """Start anew; what a fork copied has no threads behind it."""
        self._busy = threading.Lock()
        self._board = _new_board()
        self._helpers: list[_Helper] = []
        self._cpu = -1  # that the last caller ran on
        self._last = -1.0  # when the last call ended

    def close(self) -> None:
        """Call no helper any more, and wait until they have left compiled code.

        That code is unloaded when Python ends.
        """
        self._closed = True
        end = time.monotonic() + 1
        while any(helper.serving for helper in self._helpers) and time.monotonic() < end:
            time.sleep(1e-4)

    def _grow(self, wanted: int) -> int:
        if not self._helpers:
            prepare_threads()
        # No new threads, at exit or at the system's limit: then fewer do the work.
        with contextlib.suppress(RuntimeError):
            while len(self._helpers) < min(wanted, MOST_HELPERS):
                self._helpers.append(_Helper(self._board, len(self._helpers)))
        return min(wanted, len(self._helpers))

    def _make_room(self, helpers: int) -> None:
        """Keep helpers off the CPU that the caller runs on."""
        self._cpu = _cpu_of_caller()
        cpus = _cpus_for_helpers()
        for helper in self._helpers[:helpers]:
            helper.stay_on(cpus)

    def run(self, jobs: Sequence[Job], work: float, least: float) -> None:
        blocks = jobs[0].block if len(jobs) == 1 else np.concatenate([job.block for job in jobs])
        helpers = 0
        if self.threads > 1 and work >= least and not self._closed:
            helpers = min(self.threads, sum(job.largest for job in jobs)) - 1
            # A single call of little work would be done before a helper is awake.
            if work < WAKING_WORK and time.perf_counter() - self._last > LINGER_SECONDS:
                helpers = 0
        if helpers < 1 or self._busy.locked():
            _alone(blocks)
            self._last = time.perf_counter()
            return
        with self._busy:  # an interrupt cannot come between taking this and giving it back
            self._run_with(self._grow(helpers), blocks)

    def _run_with(self, helpers: int, blocks: Block) -> None:
        if _cpu_of_caller() != self._cpu:
            self._make_room(helpers)
        # Whatever is raised from here on, by a signal's handler at any line: helpers that were
        # called are woken, each in turn by this one call, and their calls waited for.
        wakes = map(SimpleQueue.put, [h.wakes for h in self._helpers[:helpers]], repeat(None))
        asleep = helpers
        try:
            asleep = _begin(self._board, blocks, helpers)
            if asleep:
                self._make_room(helpers)
        finally:
            try:
                if asleep:
                    deque(wakes, 0)
            finally:
                _finish(self._board, helpers)
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


def parts_of(work: float, share: int = 1) -> int:
    """Parts worth making of so many multiply-adds, where `share` passes run together."""
    return int(max(1, min(_pool.threads // share, 2 * work // MIN_WORK)))


def set_num_threads(threads: int) -> None:
    """Set how many threads a call may use, the calling one among them."""
    _pool.threads = threads


def get_num_threads() -> int:
    """How many threads a call may use."""
    return _pool.threads
