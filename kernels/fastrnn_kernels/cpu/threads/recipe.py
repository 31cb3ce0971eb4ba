"""Recipes: jobs prepared once for memory whose addresses are known when they are called.

A compiler of another framework knows shapes when it traces a program, and addresses when it runs
it. So a recipe holds jobs whose arrays lie in numbered slots, which are the arguments and results
of a call; the last slot is its workspace. Who calls it (`xla.py`) copies the jobs' records into the
workspace, writes addresses in the place of slots, and runs the jobs, all of it without Python. A
recipe is never changed, so that calls may run at the same time, and never freed: compiled programs
know its address, and nothing tells when the last of them is gone.

    words, by what is named below; then per stage the first word of its records, their words, and
    the threads worth having; then per array the word of a record, slot and offset; then records
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn_kernels.cpu.arrays.memory import CACHE_LINE, Array
from fastrnn_kernels.cpu.threads import pool
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
    HEADER,
) = range(9)
#: The highest byte of the addresses that stand for places in slots: no address has it.
_MARK, _SLOT, _OFFSET = 0x5A, 56, 48


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


class Recipe:
    """Jobs in stages; `address` tells where compiled code finds them, once it is done."""

    def __init__(self, workspace: Slot, slots: int) -> None:
        self._workspace, self._slots = workspace, slots
        self._stages: list[tuple[list[Job], int]] = []
        self.address = 0

    def stage(self, jobs: Sequence[Job], work: float = 0.0) -> None:
        """Run these jobs, `work` multiply-adds together, after those that there are."""
        threads = min(pool.get_num_threads(), sum(job.largest for job in jobs))
        self._stages.append((list(jobs), threads if work >= pool.MIN_WORK else 1))

    @property
    def workspace_bytes(self) -> int:
        """Bytes of the workspace, wherever it begins."""
        return self._workspace.size + self._jobs * WORDS * 8 + CACHE_LINE

    @property
    def _jobs(self) -> int:
        return sum(len(jobs) for jobs, _ in self._stages)

    def done(self) -> "Recipe":
        """The recipe itself, after its last stage."""
        records = np.concatenate([job.record for jobs, _ in self._stages for job in jobs])
        stages, first = [], 0
        for jobs, threads in self._stages:
            stages.append((first, len(jobs) * WORDS, threads))
            first += len(jobs) * WORDS
        places = [
            (at, int(word) >> _OFFSET & 0xFF, int(word) & (1 << _OFFSET) - 1)
            for at, word in enumerate(records)
            if word >> _SLOT == _MARK and at % WORDS >= ARGUMENTS
        ]
        # What was in a record's memory before may look like a place of some other recipe.
        places = [place for place in places if place[1] < self._slots]
        header = np.zeros(HEADER, np.int64)
        header[SLOTS], header[STAGES], header[PLACES] = self._slots, len(stages), len(places)
        header[PLACES_AT] = HEADER + 3 * len(stages)
        header[RECORDS_AT] = header[PLACES_AT] + 3 * len(places)
        header[SIZE], header[WORKSPACE_AT] = records.size, self._workspace.size
        header[HELPERS] = max(threads for *_, threads in stages) - 1
        tables = [np.array(table, np.int64).reshape(-1) for table in (stages, places)]
        self._words = np.concatenate([header, *tables, records])
        self.address = int(self._words.ctypes.data)
        return self
