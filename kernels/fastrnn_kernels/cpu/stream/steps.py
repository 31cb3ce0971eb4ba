"""A model one step at a time on the CPU: its memory, and the record by which code finds it.

What `cuda/stream.py` is for the GPU. Whoever steps a model asks this for it, and knows no word.
"""

import threading
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.stream import entry
from fastrnn_kernels.cpu.stream.program import LayerState, Program, begin_from, new_memory
from fastrnn_kernels.cpu.threads import pool
from fastrnn_kernels.cpu.threads.job import COUNT, Job
from fastrnn_kernels.forks import forks

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
        self._record, self._forks = record, forks()
        self._leave = entry.leaver(record)

    def __enter__(self) -> None:
        now = forks()
        if self._forks != now:  # a thread of the parent may have had it, and is not here
            self._record[entry.BUSY], self._forks = 0, now
        try:
            if not entry.take(self._record, threading.get_ident()):
                raise RuntimeError(
                    "another thread is using this stream: one stream serves one thread at a time"
                )
        except BaseException:  # an interrupt, too, may come once it is taken
            self._leave()
            raise

    #: A function of C's, which no interrupt can come before.
    __exit__ = property(attrgetter("_leave"))


def members_for(work: int) -> int:
    """How many threads a step of so many multiply-adds is worth."""
    return max(1, min(pool.get_num_threads(), work // MEMBER_WORK))


class Steps:
    """The states of a program, and the ways to run it.

    memory: the header and the values of all stages. start: the same of a stream that begins.
    words: the record, as compiled code takes it; who holds it keeps alive what it points to.
    step: `(x, y) -> bool | None`, one step of arrays of NumPy's that fit (`entry.caller`): None
    where `run_shared` has to do it.
    """

    def __init__(self, program: Program, members: int, starts: Sequence[LayerState]) -> None:
        """Of a program, whose steps so many threads share.

        starts: the states that it begins from.
        """
        first, last = program.stages[0], program.stages[-1]
        dtype: np.dtype[Any] = np.dtype(first.dtype)
        self._record = record = entry.new_record(first.B, first.I, last.out_size, dtype)
        self.memory, self.start = new_memory(program.stages), new_memory(program.stages)
        begin_from(program.stages, self.memory, starts)
        self._owner = _Owner(record, [self.memory])
        self.words: Array = np.asarray(self._owner)
        record[entry.MEMORY] = self.memory.ctypes.data
        record[entry.KEEPS_LOCK] = program.work <= KEEPS_LOCK
        record[COUNT], record[entry.SHARED] = members, members > 1
        self._job = Job(record, ())
        self.step: Callable[[Any, Any], bool | None] = entry.caller(self.words)
        self._in_use = Use(record)
        self.use(program, starts)

    def use(self, program: Program, starts: Sequence[LayerState]) -> None:
        """Run another program of the same stages from now on, and begin anew from other states."""
        begin_from(program.stages, self.start, starts)
        # A thread that steps by the record asks nobody, and may still be reading the one before:
        # so the last ones stay, more than it can miss in one step.
        kept = self._owner.keeps[1:]
        self._owner.keeps = [self.memory, *kept[-KEPT_PROGRAMS:], program]
        self._record[entry.PROGRAM] = program.table.ctypes.data
        self.program = program

    def in_use(self) -> Use:
        """Keeps other threads away; raises RuntimeError if one is there."""
        return self._in_use

    @property
    def states(self) -> list[LayerState]:
        """Of each recurrent layer its h (B, P) and other states (states but h, B, H): views."""
        return self.program.states(self.memory)

    @property
    def starts(self) -> list[LayerState]:
        """The states that it begins from: views."""
        return self.program.states(self.start)

    def run(self, x: Array, y: Array, steps: int) -> None:
        """Some steps, of x (steps, B, I) to y (steps, B, O), C-contiguous; no lock is held.

        What a signal's handler raises meanwhile leaves the states as they were before.
        """
        record, work = self._record, self.program.work
        with self._in_use:
            if work * steps < pool.whole():
                self._run(x.ctypes.data, y.ctypes.data, steps)
                return
            row = record[entry.ITEM] * record[entry.ROWS]
            x_step, y_step = row * record[entry.INPUTS], row * record[entry.OUTPUTS]
            sources, targets = x.ctypes.data, y.ctypes.data

            def part(first: int, last: int) -> None:
                self._run(sources + first * x_step, targets + first * y_step, last - first)

            before = self.memory.copy()
            try:
                pool.in_parts(part, steps, work * steps)
            except BaseException:
                self.memory[...] = before
                raise

    def _run(self, x: int, y: int, steps: int) -> None:
        record = self._record
        record[entry.X], record[entry.Y], record[entry.STEPS] = x, y, steps
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
