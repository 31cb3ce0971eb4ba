"""The package's own threads. Kernels release the GIL, so Python's threads carry them.

One caller at a time has the pool; a second Python thread that calls meanwhile, and a
task that calls from within, runs its work itself. After a fork the child makes a pool
of its own when it first needs one.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

Task = Callable[[], None]

#: Multiply-adds below which handing work to another thread costs more than it saves.
MIN_WORK = 4_000_000


def available_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Pool:
    def __init__(self) -> None:
        self.threads = available_cpus()
        self.forget()

    def forget(self) -> None:
        """Start anew; what a fork copied has no threads behind it."""
        self._busy = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._size = 0

    def run(self, tasks: Sequence[Task], work: float) -> None:
        helpers = min(self.threads, len(tasks)) - 1
        if helpers < 1 or work < MIN_WORK or not self._busy.acquire(blocking=False):
            for task in tasks:
                task()
            return
        try:
            if self._executor is None or self._size < helpers:
                if self._executor is not None:
                    self._executor.shutdown()
                self._executor = ThreadPoolExecutor(helpers, thread_name_prefix="fastrnn")
                self._size = helpers
            waiting = deque(tasks)  # whoever is free takes the next; pops are atomic

            def work_through() -> None:
                while True:
                    try:
                        task = waiting.popleft()
                    except IndexError:
                        return
                    task()

            futures: list[Future[None]] = []
            # No new threads, at exit or at the system's limit: then the caller does it all.
            with contextlib.suppress(RuntimeError):
                for _ in range(helpers):
                    futures.append(self._executor.submit(work_through))
            try:
                work_through()
            finally:
                wait(futures)
            for future in futures:
                future.result()
        finally:
            self._busy.release()


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)


def run(tasks: Sequence[Task], work: float) -> None:
    """Run all tasks, `work` multiply-adds together, and come back when they are done."""
    _pool.run(tasks, work)


def set_num_threads(threads: int) -> None:
    """Set how many threads a call may use, the calling one among them."""
    _pool.threads = threads


def get_num_threads() -> int:
    """How many threads a call may use."""
    return _pool.threads
