"""A model one step at a time on the CPU: its memory, and the block by which code finds it.

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
    """A block for whoever holds an array of it, with all that the block points to."""

    def __init__(self, block: Array, keeps: Sequence[Any]) -> None:
        self.block, self.keeps = block, list(keeps)
        self.__array_interface__ = block.__array_interface__


class Use:
    """The use of a stream by one thread; another one is refused meanwhile."""

    def __init__(self, block: Array) -> None:
        self._block = block

    def __enter__(self) -> None:
        try:
            if not entry.take(self._block, threading.get_ident()):
                raise RuntimeError(
                    "another thread is using this stream: one stream serves one thread at a time"
                )
        except BaseException:  # an interrupt, too, may come once it is taken
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        entry.leave(self._block, threading.get_ident())


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

    memory: the header and the values of all stages. words: the block, as compiled code takes it;
    who holds it keeps alive what it points to. step: `(x, y) -> bool | None`, one step of arrays
    of NumPy's that fit (`entry.caller`): None where `run_shared` has to do it.
    """

    def __init__(self, program: Program, members: int) -> None:
        """Of a program, whose steps so many threads share; all states zeros."""
        first, last = program.stages[0], program.stages[-1]
        dtype: np.dtype[Any] = np.dtype(first.dtype)
        self._block = block = entry.new_block(first.B, first.I, last.out_size, dtype)
        self.memory = program.new_memory()
        self._owner = _Owner(block, [self.memory])
        self.words: Array = np.asarray(self._owner)
        block[entry.MEMORY] = self.memory.ctypes.data
        block[entry.KEEPS_LOCK] = program.work <= KEEPS_LOCK
        block[COUNT], block[entry.SHARED] = members, members > 1
        self._job = Job(block, ())
        self.step: Callable[[Any, Any], bool | None] = entry.caller(self.words)
        self.use(program)
        _ALIVE.add(self)

    def use(self, program: Program) -> None:
        """Run another program of the same stages from now on."""
        # A thread that steps by the block asks nobody, and may still be reading the one before:
        # so the last ones stay, more than it can miss in one step.
        kept = self._owner.keeps[1:]
        self._owner.keeps = [self.memory, *kept[-KEPT_PROGRAMS:], program]
        block, cleared = self._block, program.cleared
        block[entry.PROGRAM] = program.table.ctypes.data
        block[entry.RUNS], block[entry.RUN_COUNT] = cleared.ctypes.data, len(cleared)
        self.program = program

    def in_use(self) -> Use:
        """Keeps other threads away; raises RuntimeError if one is there."""
        return Use(self._block)

    def free(self) -> None:
        """Whoever had it is gone."""
        self._block[entry.BUSY] = 0

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
        block = self._block
        with Use(block):
            block[entry.X], block[entry.Y] = x.ctypes.data, y.ctypes.data
            block[entry.STEPS] = steps
            pool.run([self._job], self.program.work * steps, 2 * MEMBER_WORK)

    def run_shared(self, x: Array, y: Array) -> None:
        """A step by a team, of arrays that `step` found good.

        Python wakes the helpers, or runs the step alone; while they listen, compiled code calls
        them by itself.
        """
        self._block[entry.BOARD] = pool.board_address()  # another one after a fork
        self.run(x, y, 1)

    @property
    def address(self) -> int:
        """Where the block lies: what C takes as a stream."""
        return int(self.words.ctypes.data)
