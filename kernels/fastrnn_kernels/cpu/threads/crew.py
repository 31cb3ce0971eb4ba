"""A call's crew: threads of a framework's pool, which compiled code asks for without Python.

Tasks of that pool may come late, or never while other calls keep all its threads busy, so nobody
waits for one that has not come. What they look at is a board whose memory goes when the last has
left.
"""

import ctypes
import sys

from numba import njit, types

from fastrnn_kernels.cache.disk import kernel
from fastrnn_kernels.cpu.isa import atomic
from fastrnn_kernels.cpu.isa.address import address_of, call_c, on_stack, set_word, word, words
from fastrnn_kernels.cpu.isa.inlined import NO_WRAPPERS
from fastrnn_kernels.cpu.threads import board
from fastrnn_kernels.cpu.threads.board import CALLED, FIRST, LINE, LISTENING, WORKING
from fastrnn_kernels.cpu.threads.job import TEAM, WORDS
from fastrnn_kernels.handlers import Suppressed

#: Words of a crew, behind those of a board.
_JOINED, _ENDED, _REFERENCES, _FREE, _GATE = range(26, 31)
#: Words of what a handler knows beside the recipe: calls and tasks that run, and addresses; of the
#: system's functions for CPUs 0 where it has none.
RUNNING, ALLOCATE_AT, FREE_AT, TASK_AT, BOARD_AT, CPU_AT, ALLOWED_AT, ALLOW_AT = range(8)
#: Words of a set of CPUs.
_SET = 16
#: Looks for members of a team that are on their way: some tens of microseconds.
_LOOKS_FOR_TEAM = 2000

_allocate = call_c(types.int64, (types.int64,))
_free = call_c(types.void, (types.int64,))
_cpu = call_c(types.int32, ())
_about_cpus = call_c(types.int32, (types.int32, types.int64, types.int64))
_cpus = on_stack(types.int64, 2 * _SET)


@njit(**NO_WRAPPERS)
def leave(crew):  # type: ignore[no-untyped-def]
    """Look at the crew no more; who leaves last frees it."""
    own = words(crew)
    gate, free = own[_GATE], own[_FREE]
    if atomic.add(own, _REFERENCES, -1) == 1:
        _free(free, (crew,))
    atomic.add(words(gate), RUNNING, -1)


@njit(**NO_WRAPPERS)
def _keep_off(cpu, gate, allowed):  # type: ignore[no-untyped-def]
    """Have this thread leave a CPU; whether `allowed` now holds the set that it had before.

    The system likes to wake a thread on the CPU of the one that woke it, where it waits until that
    one is done, and a team waits with it.
    """
    at = address_of(allowed)
    if cpu < 0 or cpu >= 64 * _SET or _about_cpus(word(gate, ALLOWED_AT), (0, 8 * _SET, at)) < 0:
        return False
    others = 0
    for k in range(_SET):
        allowed[_SET + k] = allowed[k]
        if k == cpu // 64:
            allowed[_SET + k] &= ~(1 << (cpu % 64))
        others |= allowed[_SET + k]
    return others != 0 and _about_cpus(word(gate, ALLOW_AT), (0, 8 * _SET, at + 8 * _SET)) == 0


@kernel("crew-task", for_c=True)
def task(crew):  # type: ignore[no-untyped-def]
    """What a thread of the pool does for a call: answer until the call has ended."""
    own = words(crew)
    gate, allowed, moved = own[_GATE], _cpus(), False
    if atomic.load(own, _ENDED) == 0:
        moved = _keep_off(own[board.CPU], gate, allowed)
    mailbox = (atomic.add(own, _JOINED, 1) + FIRST) * LINE
    looks = 0
    while True:
        if atomic.load(own, mailbox) == CALLED:
            if atomic.replace(own, mailbox, CALLED, WORKING):
                board.make_calls(own)
                atomic.store(own, mailbox, LISTENING)
                looks = 0
        elif atomic.load(own, _ENDED) != 0:
            break
        else:
            looks = atomic.wait(looks)
    if moved:
        _about_cpus(word(gate, ALLOW_AT), (0, 8 * _SET, address_of(allowed)))
    leave(crew)


@njit(**NO_WRAPPERS)
def gathered(gate, wanted):  # type: ignore[no-untyped-def]
    """A crew for so many tasks, which are still to be asked for, and its caller; 0 without memory.

    Each of them, and the caller, leaves it once.
    """
    size = (wanted + FIRST) * LINE
    crew = _allocate(word(gate, ALLOCATE_AT), (8 * size,))
    if crew == 0:
        return 0
    for k in range(size):
        set_word(crew, k, 0)
    for k in range(wanted):
        set_word(crew, (k + FIRST) * LINE, LISTENING)
    set_word(crew, _REFERENCES, wanted + 1)
    set_word(crew, _GATE, gate)
    set_word(crew, board.CPU, _cpu(word(gate, CPU_AT), ()) if word(gate, CPU_AT) != 0 else -1)
    set_word(crew, _FREE, word(gate, FREE_AT))
    atomic.add(words(gate), RUNNING, wanted + 1)
    return crew


@njit(**NO_WRAPPERS)
def end(crew):  # type: ignore[no-untyped-def]
    """Let its tasks go; the caller leaves."""
    atomic.store(words(crew), _ENDED, 1)
    leave(crew)


@njit(**NO_WRAPPERS)
def run(crew, scheduled, records, size, threads):  # type: ignore[no-untyped-def]
    """Run the jobs whose records lie at an address, with helpers of the crew if there are any."""
    helpers = min(threads - 1, scheduled)
    if helpers < 1:
        board.alone_at(records, size)
        return
    own = words(crew)
    team = False
    for at in range(0, size, WORDS):
        team = team or word(records, at + TEAM) != 0
    if team:  # its members wait for each other: none may be called that has not come
        looks = 0
        while atomic.load(own, _JOINED) < helpers and looks < _LOOKS_FOR_TEAM:
            atomic.pause()
            looks += 1
        helpers = min(helpers, atomic.load(own, _JOINED))
    board.put(own, records, size, helpers + 1)
    for k in range(helpers):
        atomic.store(own, (k + FIRST) * LINE, CALLED)
    board.come_back(own, helpers, LISTENING)


def functions_for_cpus() -> list[int]:
    """Addresses of the system's functions: on which CPU one is, which ones are allowed, allow."""
    if sys.platform == "linux":
        with Suppressed(OSError, AttributeError):
            names = "sched_getcpu", "sched_getaffinity", "sched_setaffinity"
            found = [getattr(ctypes.CDLL(None), name) for name in names]
            return [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in found]
    return [0, 0, 0]
