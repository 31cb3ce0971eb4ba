"""A model one step at a time on the CPU: its memory, and the record by which code finds it.

What `cuda/stream.py` is for the GPU. Whoever steps a model asks this for it, and knows no word.
"""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.stream import entry
from fastrnn_kernels.cpu.stream.program import Program
from fastrnn_kernels.cpu.threads import pool
from fastrnn_kernels.cpu.threads.job import COUNT, Job

#: Multiply-adds of a step up to which it keeps Python's lock: to give it up and get it back
#: takes as long as some thousand of them, and a thread that computes in Python may keep it
#: for milliseconds.
KEEPS_LOCK = 100_000
#: Multiply-adds of a step for each thread that shares it (measured).
MEMBER_WORK = 100_000
#: Programs that stay after they were replaced.
KEPT_PROGRAMS = 8


class _Owner:
    """A record for whoever holds an array of it, with all that the record points to."""

    def __init__(self, record: Array, keeps: Sequence[Any]) -> None:
        self.record, self.keeps = record, list(keeps)
        self.__array_interface__ = record.__array_interface__


class Use:
    """The use of a stream by one thread; another one is refused meanwhile."""

    def __init__(self, record: Array) -> None:
        self._record = record

    def __enter__(self) -> None:
        try:
            if not entry.take(self._record, threading.get_ident()):
                raise RuntimeError(
                    "another thread is using this stream: one stream serves one thread at a time"
                )
        except BaseException:  # an interrupt, too, may come once it is taken
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        entry.leave(self._record, threading.get_ident())


#: All there are: what a fork interrupts in other threads is not in use in the child.
_ALIVE: "weakref.WeakSet[Steps]" = weakref.WeakSet()


def _free_all() -> None:
    for steps in list(_ALIVE):
        steps.free()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)


def members_for(work: int) -> int:
    """How many threads a step of so many multiply-adds is worth."""
    return max(1, min(pool.get_num_threads(), work // MEMBER_WORK))


class Steps:
    """The states of a program, and the ways to run it.

    memory: the header and the values of all stages. words: the record, as compiled code takes it;
    who holds it keeps alive what it points to. step: `(x, y) -> bool | None`, one step of arrays
    of NumPy's that fit (`entry.caller`): None where `run_shared` has to do it.
    """

    def __init__(self, program: Program, members: int) -> None:
        """Of a program, whose steps so many threads share; all states zeros."""
        first, last = program.stages[0], program.stages[-1]
        dtype: np.dtype[Any] = np.dtype(first.dtype)
        self._record = record = entry.new_record(first.B, first.I, last.out_size, dtype)
        self.memory = program.new_memory()
        self._owner = _Owner(record, [self.memory])
        self.words: Array = np.asarray(self._owner)
        record[entry.MEMORY] = self.memory.ctypes.data
        record[entry.KEEPS_LOCK] = program.work <= KEEPS_LOCK
        record[COUNT], record[entry.SHARED] = members, members > 1
        self._job = Job(record, ())
        self.step: Callable[[Any, Any], bool | None] = entry.caller(self.words)
        self.use(program)
        _ALIVE.add(self)

    def use(self, program: Program) -> None:
        """Run another program of the same stages from now on."""
        # A thread that steps by the record asks nobody, and may still be reading the one before:
        # so the last ones stay, more than it can miss in one step.
        kept = self._owner.keeps[1:]
        self._owner.keeps = [self.memory, *kept[-KEPT_PROGRAMS:], program]
        record, cleared = self._record, program.cleared
        record[entry.PROGRAM] = program.table.ctypes.data
        record[entry.RUNS], record[entry.RUN_COUNT] = cleared.ctypes.data, len(cleared)
        self.program = program

    def in_use(self) -> Use:
        """Keeps other threads away; raises RuntimeError if one is there."""
        return Use(self._record)

    def free(self) -> None:
        """Whoever had it is gone."""
        self._record[entry.BUSY] = 0

    @property
    def states(self) -> list[tuple[Array, Array]]:
        """Of each recurrent layer its h (B, P) and other states (states but h, B, H): views."""
        return self.program.states(self.memory)

    @property
    def cells(self) -> list[Cell]:
        """The cells of these layers."""
        return self.program.cells

    def run(self, x: Array, y: Array, steps: int) -> None:
        """Some steps, of x (steps, B, I) to y (steps, B, O), C-contiguous; no lock is held."""
        record = self._record
        with Use(record):
            record[entry.X], record[entry.Y] = x.ctypes.data, y.ctypes.data
            record[entry.STEPS] = steps
            pool.run([self._job], self.program.work * steps, 2 * MEMBER_WORK)

    def run_shared(self, x: Array, y: Array) -> None:
        """A step by a team, of arrays that `step` found good.

        Python wakes the helpers, or runs the step alone; while they listen, compiled code calls
        them by itself.
        """
        self._record[entry.BOARD] = pool.board_address()  # another one after a fork
        self.run(x, y, 1)

    @property
    def address(self) -> int:
        """Where the record lies: what C takes as a stream."""
        return int(self.words.ctypes.data)
