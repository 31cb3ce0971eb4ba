"""Recipes: jobs prepared once for memory whose addresses are known when they are called.

A compiler of another framework knows shapes when it traces a program, and addresses when it runs
it. So a recipe holds jobs whose arrays lie in numbered slots, which are the arguments and results
of a call; the last slot is its workspace. Who calls it (`xla.py`) copies the jobs' records into the
workspace, writes addresses in the place of slots, and runs the jobs, all of it without Python. A
recipe is never changed, so that calls may run at the same time, and those that compiled programs
know are never freed: nothing tells when the last of them is gone. Python calls one by `run`.

    words, by what is named below; then per stage the first word of its records, their words, and
    the threads worth having; then per array the word of a record, slot and offset; then per record
    the words that it uses; then records
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit, types

from fastrnn_kernels.cache.disk import kernel
from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.memory import CACHE_LINE, Array
from fastrnn_kernels.cpu.isa.address import words
from fastrnn_kernels.cpu.isa.inlined import NO_WRAPPERS
from fastrnn_kernels.cpu.threads import pool
from fastrnn_kernels.cpu.threads.board import alone_at
from fastrnn_kernels.cpu.threads.job import ARGUMENTS, WORDS, Job

#: Words of a recipe.
(
    SLOTS,  # of which the last is the workspace
    STAGES,  # jobs that are run one after the other
    PLACES,  # of arrays in records, and the word where they begin
    PLACES_AT,
    RECORDS_AT,  # the word where records begin, and how many words they have
    SIZE,
    WORKSPACE_AT,  # where in the workspace they are copied to
    HELPERS,  # the most that a stage has use for
    USED_AT,  # where the numbers of words begin that each record uses
    HEADER,
) = range(10)
#: The highest byte of the addresses that stand for places in slots: no address has it.
_MARK, _SLOT, _OFFSET = 0x5A, 56, 48
#: The most slots that there can be.
MOST_SLOTS = 1 << _SLOT - _OFFSET
_BYTE = np.dtype(np.uint8)


class _Interface:
    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


class Slot:
    """An argument or result of a call; arrays in it have shapes, but nobody may read them here."""

    def __init__(self, number: int) -> None:
        self._number, self.size = number, 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array behind those that there are, on a cache line as seen from the first one."""
        at, dtype = self.size, np.dtype(dtype)
        self.size += -(-math.prod(shape) * dtype.itemsize // CACHE_LINE) * CACHE_LINE
        place = _MARK << _SLOT | self._number << _OFFSET | at
        found = {"shape": shape, "typestr": dtype.str, "data": (place, False), "version": 3}
        return np.asarray(_Interface(found))


@njit(**NO_WRAPPERS)
def _place(made, given, workspace):  # type: ignore[no-untyped-def]
    """Jobs' records into the workspace, with addresses in the place of slots; where they begin."""
    records, first = workspace + made[WORKSPACE_AT], made[RECORDS_AT]
    copied = words(records)
    for n in range(made[SIZE] // WORDS):
        for k in range(n * WORDS, n * WORDS + made[made[USED_AT] + n]):
            copied[k] = made[first + k]
    at, last = made[PLACES_AT], made[SLOTS] - 1
    for k in range(made[PLACES]):
        number, offset = made[at + 3 * k + 1], made[at + 3 * k + 2]
        begin = workspace if number == last else given[number]
        copied[made[at + 3 * k]] = begin + offset
    return records


@kernel("recipe-place")
def _prepare(made, given, workspace):  # type: ignore[no-untyped-def]
    _place(made, given, workspace)


@kernel("recipe-run")
def _run(made, given, workspace):  # type: ignore[no-untyped-def]
    """Make all calls of all stages."""
    alone_at(_place(made, given, workspace), made[SIZE])


def prepare() -> None:
    """Compile what makes calls from Python."""
    array = types.Array(types.int64, 1, "C")
    for function in (_prepare, _run):
        function.compile((array, array, types.int64))


class Recipe:
    """Jobs in stages; `address` tells where compiled code finds them, once it is done."""

    def __init__(self, workspace: Slot, slots: int) -> None:
        self._workspace, self._slots = workspace, slots
        self._stages: list[tuple[list[Job], int, float]] = []
        self.address = 0

    def stage(self, jobs: Sequence[Job], work: float = 0.0) -> None:
        """Run these jobs, `work` multiply-adds together, after those that there are."""
        threads = min(pool.get_num_threads(), _largest(jobs))
        self._stages.append((list(jobs), threads if work >= pool.MIN_WORK else 1, work))

    @property
    def workspace_bytes(self) -> int:
        """Bytes of the workspace, wherever it begins."""
        return self._workspace.size + self._jobs * WORDS * 8 + CACHE_LINE

    @property
    def _jobs(self) -> int:
        return sum(len(jobs) for jobs, *_ in self._stages)

    def done(self) -> "Recipe":
        """The recipe itself, after its last stage."""
        records = np.concatenate([job.record for jobs, *_ in self._stages for job in jobs])
        stages, first = [], 0
        for jobs, threads, _ in self._stages:
            stages.append((first, len(jobs) * WORDS, threads))
            first += len(jobs) * WORDS
        marked = np.flatnonzero(records >> _SLOT == _MARK)
        places = [
            (int(at), int(records[at]) >> _OFFSET & 0xFF, int(records[at]) & (1 << _OFFSET) - 1)
            for at in marked
            if at % WORDS >= ARGUMENTS
        ]
        header = np.zeros(HEADER, np.int64)
        header[SLOTS], header[STAGES], header[PLACES] = self._slots, len(stages), len(places)
        header[PLACES_AT] = HEADER + 3 * len(stages)
        header[USED_AT] = header[PLACES_AT] + 3 * len(places)
        used = [job.used for jobs, *_ in self._stages for job in jobs]
        header[RECORDS_AT] = header[USED_AT] + len(used)
        header[SIZE], header[WORKSPACE_AT] = records.size, self._workspace.size
        header[HELPERS] = max(threads for *_, threads in stages) - 1
        tables = [np.array(table, np.int64).reshape(-1) for table in (stages, places, used)]
        self._words = np.concatenate([header, *tables, records])
        self.address = int(self._words.ctypes.data)
        return self

    @property
    def work(self) -> float:
        """Multiply-adds of its longest stage."""
        return max(work for *_, work in self._stages)

    def run(self, addresses: Sequence[int]) -> None:
        """Make a call, on memory at these addresses, a slot's each but for the workspace's."""
        given, room = np.array(addresses, np.int64), memory.empty((self._room,), _BYTE)
        address: int = room.__array_interface__["data"][0]
        at = -address % CACHE_LINE
        if self._alone:
            _run(self._words, given, address + at)
            return
        _prepare(self._words, given, address + at)
        at += self._workspace.size
        records = room[at : at + 8 * WORDS * self._jobs].view(np.int64)
        first = 0
        for jobs, _, work in self._stages:
            last = first + len(jobs) * WORDS
            pool.run_records(records[first:last], _largest(jobs), work)
            first = last

    @cached_property
    def _alone(self) -> bool:
        """Whether no stage has use for other threads."""
        return all(threads == 1 for _, threads, _ in self._stages)

    @cached_property
    def _room(self) -> int:
        return self.workspace_bytes


def _largest(jobs: Sequence[Job]) -> int:
    """The most threads that can take part."""
    return sum(job.largest for job in jobs)
