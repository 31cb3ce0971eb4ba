"""Compiling in the background: by another process, of low priority, one at a time.

It compiles into the cache on disk, where this process finds what it made. It ends with this one,
however that ends, as its standard input is then at its end. Where it fails, as it does if the cache
cannot be written, nothing more is tried.
"""

import atexit
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastrnn_kernels.cache.disk import cache_folder
from fastrnn_kernels.forks import forks
from fastrnn_kernels.handlers import Suppressed, pass_on

_log = logging.getLogger("fastrnn")

#: Of a task, what has an interest in it: a weak reference to a function that is called when it is
#: done, and tells whether what it wanted is there.
Taker = Callable[[], Callable[[], bool] | None]

#: What such a process does first. Its end is that of its standard input, which this process holds;
#: and an interrupt from the keyboard is for this process alone.
_WATCH = """
import os, signal, sys, threading

def end_with_parent():
    os.read(0, 1)
    os._exit(1)

signal.signal(signal.SIGINT, signal.SIG_IGN)
threading.Thread(target=end_with_parent, daemon=True).start()
if hasattr(os, "nice"):
    os.nice(10)  # with 19 it would never end beside a program that keeps all CPUs busy
"""
_COMPILE = """
task, folder = sys.argv[1:3]
sys.path[:] = sys.argv[3:]
from fastrnn_kernels.cache.disk import cache_folder
from fastrnn_kernels.cpu.stream.program import compile_described
if str(cache_folder()) != folder:
    os._exit(1)
compile_described(task)
os._exit(0)
"""


def usable() -> bool:
    """Whether this process may have another one: `FASTRNN_BACKGROUND=none` says no.

    Nor may a program that holds Python, and is none: its executable would start it once more.
    """
    if os.environ.get("FASTRNN_BACKGROUND", "").strip() == "none" or cache_folder() is None:
        return False
    name = Path(sys.executable or "").stem
    return name.startswith("python") and not getattr(sys, "frozen", False)


def _command(task: str) -> list[str]:
    # Not even the modules that it takes to set the path are to come from the current folder (-P).
    program = [sys.executable, "-P", "-c", _WATCH + _COMPILE]
    return [*program, task, str(cache_folder()), *map(str, sys.path)]


def _start(task: str) -> "subprocess.Popen[bytes]":
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONINSPECT"}
    flags: dict[str, Any] = {}
    if sys.platform == "win32":
        flags["creationflags"] = (
            subprocess.CREATE_NO_WINDOW | subprocess.BELOW_NORMAL_PRIORITY_CLASS
        )
    return subprocess.Popen(
        _command(task),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        **flags,
    )


class _Work:
    """The tasks of this process, in their order, and the process that is at the first of them."""

    def __init__(self) -> None:
        self.forks = forks()
        self.lock = threading.Lock()
        self.tasks: dict[str, list[Taker]] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.running = False  # whether a thread sees to them
        self.refused = False  # whether nothing is tried any more

    def ask(self, task: str, taker: Taker) -> None:
        with self.lock:
            if self.refused:
                return
            self.tasks.setdefault(task, []).append(taker)
            if self.running:
                return
            # It keeps no interpreter alive: what it waits for ends with that.
            thread = threading.Thread(target=self._see_to_them, name="fastrnn", daemon=True)
            self.running = True  # before an interrupt may come, with the thread under way
            try:
                thread.start()
            except RuntimeError as error:  # no more threads at exit, or at the system's limit
                pass_on(error)
                self.running = False

    def give_up(self, task: str) -> None:
        with self.lock:
            first = next(iter(self.tasks), None) == task
            self.tasks.pop(task, None)
            if first and self.process is not None:
                self.process.kill()

    def end(self) -> None:
        """End the process, and wait for that, as this one ends."""
        with self.lock:
            self.refused = True
            self.tasks.clear()
            process = self.process
        if process is not None:
            process.kill()
            process.wait()

    def _see_to_them(self) -> None:
        try:
            while self._see_to_first():
                pass
        except Exception as error:  # nothing of this is worth more than a step of any sizes
            self._refuse(repr(error))

    def _see_to_first(self) -> bool:
        with self.lock:
            task = next(iter(self.tasks), None)
            if task is None:
                self.running = False
                return False
            takers = self.tasks[task]
            self.process = process = _start(task)
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
        with self.lock:
            self.process = None
            if self.tasks.get(task) is not takers:  # given up, and maybe asked for anew
                return True
            del self.tasks[task]
        wanted = [take for taker in takers if (take := taker()) is not None]
        if not all(take() for take in wanted):
            self._refuse(f"the process that compiles ended with {process.returncode}")
            return False
        return True

    def _refuse(self, why: str) -> None:
        with self.lock:
            ended, self.refused, self.running = self.refused, True, False
            self.process = None
            self.tasks.clear()
        if not ended:
            _log.warning(
                "streams go on with steps of any sizes, as none can be compiled in the background "
                "(%s); `stream.warmup()` compiles here",
                why,
            )


_work = _Work()


def _mine() -> _Work:
    """The work of this process: a fork's has the tasks that its parent had not done."""
    global _work
    if _work.forks != forks():
        mine = _Work()
        mine.tasks.update({task: list(takers) for task, takers in _work.tasks.items()})
        mine.refused = _work.refused
        if _work.process is not None and _work.process.stdin is not None:
            _work.process.stdin.close()  # that it ends with the parent
        _parents.append(_work)
        _work = mine
    return _work


#: Of those that this process was forked from; their processes are not this one's to wait for.
_parents: list[_Work] = []


def ask(task: str, taker: Taker) -> None:
    """Have a task done (`program.compile_described`), and `taker` called then."""
    _mine().ask(task, taker)


def give_up(task: str) -> None:
    """Leave a task: who asked for it does it himself."""
    _mine().give_up(task)


@atexit.register
def _end() -> None:
    if _work.forks == forks():
        with Suppressed(OSError):
            _work.end()
