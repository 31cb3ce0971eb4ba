"""The package's own threads. Kernels release the GIL, so Python's threads carry them.

One caller at a time has the helpers; a second Python thread that calls meanwhile, and a
task that calls from within, runs its work itself. Idle helpers wait in a queue and use no
CPU. After a fork the child makes helpers of its own when it first needs them.
"""

import contextlib
import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from fastrnn_kernels.cpu import barrier

Task = Callable[[], None]


@dataclass(frozen=True, eq=False)
class Team:
    """Work for several threads that wait for each other on their way.

    `task(member, members, sync)` does one member's part; all of them run at the same time.
    """

    largest: int  # members worth having
    task: Callable[[int, int, NDArray[np.int64]], None]


_Results = SimpleQueue[BaseException | None]

#: Multiply-adds below which handing work to another thread costs more than it saves.
MIN_WORK = 4_000_000


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


def _work_through(waiting: deque[Task], results: _Results) -> None:
    """Take tasks, whoever is free the next, until there are none."""
    while True:
        try:
            task = waiting.popleft()  # atomic
        except IndexError:
            return
        try:
            task()
        except BaseException as error:
            results.put(error)
        else:
            results.put(None)


class _Helper:
    """A thread that works through the tasks it is sent."""

    def __init__(self, number: int) -> None:
        self._inbox: SimpleQueue[tuple[deque[Task], _Results]] = SimpleQueue()
        self._cpus: frozenset[int] = frozenset()
        self._thread = threading.Thread(target=self._serve, name=f"fastrnn-{number}", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            _work_through(*self._inbox.get())

    def send(self, waiting: deque[Task], results: _Results, cpus: frozenset[int]) -> None:
        """Hand over tasks, to be done on one of these CPUs if the system can be told."""
        if cpus and cpus != self._cpus and self._thread.native_id is not None:
            with contextlib.suppress(OSError):  # forbidden here: slower, not wrong
                os.sched_setaffinity(self._thread.native_id, cpus)
            self._cpus = cpus
        self._inbox.put((waiting, results))


def _cpus_for_helpers() -> frozenset[int]:
    """The caller's CPUs but the one it runs on.

    Left to itself, the scheduler of a virtual machine wakes a helper on the CPU of the
    thread that woke it, where it waits until that one is done (seen: twice the time).
    """
    allowed = _allowed()
    return allowed - {_cpu_of_caller()} or allowed


#: The barrier of a team of one, which nobody waits at.
_ALONE = barrier.new()


class _Pool:
    def __init__(self) -> None:
        self.threads = available_cpus()
        self.forget()

    def forget(self) -> None:
        """Start anew; what a fork copied has no threads behind it."""
        self._busy = threading.Lock()
        self._helpers: list[_Helper] = []

    def _grow(self, wanted: int) -> None:
        # No new threads, at exit or at the system's limit: then fewer do the work.
        with contextlib.suppress(RuntimeError):
            while len(self._helpers) < wanted:
                self._helpers.append(_Helper(len(self._helpers) + 1))

    def run(self, tasks: Sequence[Task | Team], work: float) -> None:
        wanted = sum(task.largest if isinstance(task, Team) else 1 for task in tasks)
        helpers = min(self.threads, wanted) - 1
        if helpers < 1 or work < MIN_WORK or not self._busy.acquire(blocking=False):
            for task in tasks:
                if isinstance(task, Team):
                    task.task(0, 1, _ALONE)
                else:
                    task()
            return
        try:
            self._grow(helpers)
            chosen = self._helpers[:helpers]
            pieces, barriers = _split(tasks, len(chosen) + 1)
            waiting, results = deque(pieces), _Results()
            cpus = _cpus_for_helpers()
            try:
                for helper in chosen:
                    helper.send(waiting, results, cpus)
                _work_through(waiting, results)
                errors = [results.get() for _ in pieces]
            except BaseException:  # an interrupt: this thread's part may never be done
                waiting.clear()
                for sync in barriers:
                    barrier.give_up(sync)
                raise
        finally:
            self._busy.release()
        for error in errors:
            if error is not None:
                raise error


def _split(
    tasks: Sequence[Task | Team], threads: int
) -> tuple[list[Task], list[NDArray[np.int64]]]:
    """Tasks for so many threads, and the barriers that members of teams meet at.

    Members come first and are no more than the threads, so that each finds a thread that is
    free while the others wait for it.
    """
    teams = [task for task in tasks if isinstance(task, Team)]
    each = max(1, threads // max(1, len(teams)))
    members: list[Task] = []
    barriers = []
    for team in teams:
        many = min(team.largest, each)
        barriers.append(barrier.new())
        members += [_member(team, member, many, barriers[-1]) for member in range(many)]
    return members + [task for task in tasks if not isinstance(task, Team)], barriers


def _member(team: Team, member: int, members: int, sync: NDArray[np.int64]) -> Task:
    def work() -> None:
        try:
            team.task(member, members, sync)
        except BaseException:
            barrier.give_up(sync)
            raise

    return work


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)


def run(tasks: Sequence[Task | Team], work: float) -> None:
    """Run all tasks, `work` multiply-adds together, and come back when they are done."""
    _pool.run(tasks, work)


def parts_of(work: float, share: int = 1) -> int:
    """Tasks worth making of so many multiply-adds, where `share` passes run together."""
    return int(max(1, min(_pool.threads // share, 2 * work // MIN_WORK)))


def set_num_threads(threads: int) -> None:
    """Set how many threads a call may use, the calling one among them."""
    _pool.threads = threads


def get_num_threads() -> int:
    """How many threads a call may use."""
    return _pool.threads
