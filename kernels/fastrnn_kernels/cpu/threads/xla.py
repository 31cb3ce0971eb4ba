"""Recipes called from programs that XLA has compiled: a handler of its FFI, without Python.

The words of a call's frame stand in XLA's `xla/ffi/api/c_api.h`. A call that has use for several
threads asks XLA's own pool for them, which has the CPUs already: these tasks may come late, or
never while other calls keep all threads busy, so nobody waits for one that has not come. What they
look at, the call's crew, is a board whose memory goes when the last has left.
"""

import ctypes
import sys
import time
from functools import cache

import numpy as np
from numba import njit, types

from fastrnn_kernels.cache.disk import c_address, kernel
from fastrnn_kernels.cpu.isa import atomic
from fastrnn_kernels.cpu.isa.address import (
    address_of,
    call_c,
    on_stack,
    set_word,
    short_word,
    word,
    words,
)
from fastrnn_kernels.cpu.isa.inlined import NO_WRAPPERS
from fastrnn_kernels.cpu.threads import board, recipe
from fastrnn_kernels.cpu.threads.board import CALLED, FIRST, LINE, LISTENING, WORKING
from fastrnn_kernels.cpu.threads.job import TEAM, WORDS
from fastrnn_kernels.cpu.threads.pool import board_address
from fastrnn_kernels.forks import forks
from fastrnn_kernels.handlers import Suppressed

#: Words of a frame, by their places: of its parts, `args` and `rets` hold pointers to buffers.
_EXTENSION, _API, _CONTEXT, _STAGE, _ARGS_COUNT, _ARGS, _RETS, _ATTRIBUTES = (
    1,
    2,
    3,
    4,
    7,
    9,
    14,
    20,
)
_BUFFER_DATA, _SCALAR_VALUE = 3, 1
#: Of an extension that asks what the handler was made for: its type, and where the answer goes.
_METADATA, _METADATA_AT, _VERSION_AT, _TRAITS_AT = 1, 3, 3, 4
#: The oldest version of the interface that is known to have these words, 0.1.
_OLDEST = 1 << 32
#: Of the interface: its version, and the functions that are called.
_VERSION, _ERROR_DESTROY, _SCHEDULE = 4, 8, 17
_EXECUTE = 3

#: Words of a crew, behind those of a board.
_JOINED, _ENDED, _REFERENCES, _FREE, _GATE = range(26, 31)
#: Words of what a handler knows beside the recipe: calls and tasks that run, and addresses; of the
#: system's functions for CPUs 0 where it has none.
_RUNNING, _ALLOCATE_AT, _FREE_AT, _TASK_AT, _BOARD_AT, _CPU_AT, _ALLOWED_AT, _ALLOW_AT = range(8)
#: Words of a set of CPUs.
_SET = 16
#: Looks for members of a team that are on their way: some tens of microseconds.
_LOOKS_FOR_TEAM = 2000

_allocate = call_c(types.int64, (types.int64,))
_free = call_c(types.void, (types.int64,))
_asked = call_c(types.int64, (types.int64,))
_told = call_c(types.void, (types.int64,))
_arguments = on_stack(types.int64, 8)
_cpu = call_c(types.int32, ())
_about_cpus = call_c(types.int32, (types.int32, types.int64, types.int64))
_cpus = on_stack(types.int64, 2 * _SET)


@njit(**NO_WRAPPERS)
def _leave(crew):  # type: ignore[no-untyped-def]
    """Look at the crew no more; who leaves last frees it."""
    own = words(crew)
    gate, free = own[_GATE], own[_FREE]
    if atomic.add(own, _REFERENCES, -1) == 1:
        _free(free, (crew,))
    atomic.add(words(gate), _RUNNING, -1)


@njit(**NO_WRAPPERS)
def _keep_off(cpu, gate, allowed):  # type: ignore[no-untyped-def]
    """Have this thread leave a CPU; whether `allowed` now holds the set that it had before.

    The system likes to wake a thread on the CPU of the one that woke it, where it waits until that
    one is done, and a team waits with it.
    """
    at = address_of(allowed)
    if cpu < 0 or cpu >= 64 * _SET or _about_cpus(word(gate, _ALLOWED_AT), (0, 8 * _SET, at)) < 0:
        return False
    others = 0
    for k in range(_SET):
        allowed[_SET + k] = allowed[k]
        if k == cpu // 64:
            allowed[_SET + k] &= ~(1 << (cpu % 64))
        others |= allowed[_SET + k]
    return others != 0 and _about_cpus(word(gate, _ALLOW_AT), (0, 8 * _SET, at + 8 * _SET)) == 0


@kernel("xla-task", for_c=True)
def _task(crew):  # type: ignore[no-untyped-def]
    """What a thread of XLA's pool does for a call: answer until the call has ended."""
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
        _about_cpus(word(gate, _ALLOW_AT), (0, 8 * _SET, address_of(allowed)))
    _leave(crew)


@njit(**NO_WRAPPERS)
def _gather(frame, gate, wanted):  # type: ignore[no-untyped-def]
    """A crew of helpers that XLA's pool was asked for, 0 if there can be none."""
    size = (wanted + FIRST) * LINE
    crew = _allocate(word(gate, _ALLOCATE_AT), (8 * size,))
    if crew == 0:
        return 0
    for k in range(size):
        set_word(crew, k, 0)
    for k in range(wanted):
        set_word(crew, (k + FIRST) * LINE, LISTENING)
    set_word(crew, _REFERENCES, wanted + 1)
    set_word(crew, _GATE, gate)
    set_word(crew, board.CPU, _cpu(word(gate, _CPU_AT), ()) if word(gate, _CPU_AT) != 0 else -1)
    set_word(crew, _FREE, word(gate, _FREE_AT))
    atomic.add(words(gate), _RUNNING, wanted + 1)
    api = word(frame, _API)
    given = _arguments()
    at = address_of(given)
    for _ in range(wanted):
        given[0], given[1], given[2] = 40, 0, word(frame, _CONTEXT)
        given[3], given[4] = word(gate, _TASK_AT), crew
        error = _asked(word(api, _SCHEDULE), (at,))
        if error != 0:  # this call has no pool
            given[0], given[1], given[2] = 24, 0, error
            _told(word(api, _ERROR_DESTROY), (at,))
            _leave(crew)
    return crew


@njit(**NO_WRAPPERS)
def _run(crew, scheduled, records, size, threads):  # type: ignore[no-untyped-def]
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


@njit(**NO_WRAPPERS)
def _slot(frame, number):  # type: ignore[no-untyped-def]
    """Where an argument or, behind the arguments, a result lies."""
    count = word(frame, _ARGS_COUNT)
    if number < count:
        return word(word(word(frame, _ARGS), number), _BUFFER_DATA)
    return word(word(word(frame, _RETS), number - count), _BUFFER_DATA)


@kernel("xla-handler", for_c=True)
def _handler(frame):  # type: ignore[no-untyped-def]
    """Make a call; attributes are the address of what the handler knows, and of a recipe."""
    extension = word(frame, _EXTENSION)
    if extension != 0 and short_word(extension, 2) == _METADATA:
        answer = word(extension, _METADATA_AT)
        api = word(frame, _API)  # none there when old versions ask
        set_word(answer, _VERSION_AT, _OLDEST if api == 0 else word(api, _VERSION))
        set_word(answer, _TRAITS_AT, 0)
        return 0
    if short_word(frame, 2 * _STAGE) != _EXECUTE:
        return 0
    attributes = word(frame, _ATTRIBUTES)
    gate = word(word(word(attributes, 0), _SCALAR_VALUE), 0)
    made = word(word(word(attributes, 1), _SCALAR_VALUE), 0)
    atomic.add(words(gate), _RUNNING, 1)
    last = word(made, recipe.SLOTS) - 1
    workspace = (_slot(frame, last) + 63) // 64 * 64
    scheduled = min(word(made, recipe.HELPERS), word(word(gate, _BOARD_AT), board.THREADS) - 1)
    crew = 0
    if scheduled > 0:
        crew = _gather(frame, gate, scheduled)
        scheduled = scheduled if crew != 0 else 0
    records, first = workspace + word(made, recipe.WORKSPACE_AT), word(made, recipe.RECORDS_AT)
    for k in range(word(made, recipe.SIZE)):
        set_word(records, k, word(made, first + k))
    at = word(made, recipe.PLACES_AT)
    for k in range(word(made, recipe.PLACES)):
        number, offset = word(made, at + 3 * k + 1), word(made, at + 3 * k + 2)
        begin = workspace if number == last else _slot(frame, number)
        set_word(records, word(made, at + 3 * k), begin + offset)
    for stage in range(word(made, recipe.STAGES)):
        at = recipe.HEADER + 3 * stage
        start, size, threads = word(made, at), word(made, at + 1), word(made, at + 2)
        _run(crew, scheduled, records + 8 * start, size, threads)
    if crew != 0:
        atomic.store(words(crew), _ENDED, 1)
        _leave(crew)
    atomic.add(words(gate), _RUNNING, -1)
    return 0


def _functions_for_cpus() -> list[int]:
    """Addresses of the system's functions: on which CPU one is, which ones are allowed, allow."""
    if sys.platform == "linux":
        with Suppressed(OSError, AttributeError):
            names = "sched_getcpu", "sched_getaffinity", "sched_setaffinity"
            found = [getattr(ctypes.CDLL(None), name) for name in names]
            return [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in found]
    return [0, 0, 0]


class Handler:
    """The handler of this process: `address` is the C function's, `gate` its first attribute."""

    def __init__(self) -> None:
        address = (types.int64,)
        memory = (ctypes.c_int64 * 16)()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))  # threads look at it to the end
        self._words = np.ctypeslib.as_array(memory)
        functions = ctypes.pythonapi.PyMem_RawMalloc, ctypes.pythonapi.PyMem_RawFree
        self._words[[_ALLOCATE_AT, _FREE_AT]] = [
            ctypes.cast(function, ctypes.c_void_p).value for function in functions
        ]
        self._words[_TASK_AT] = c_address(_task, address)
        self._words[_BOARD_AT] = board_address()
        self._words[[_CPU_AT, _ALLOWED_AT, _ALLOW_AT]] = _functions_for_cpus()
        self.address, self.gate = c_address(_handler, address), int(self._words.ctypes.data)
        self._forks = forks()

    def finish(self) -> None:
        """Wait until no call or task is left: their code is unloaded when Python ends."""
        end = time.monotonic() + 60
        while self._words[_RUNNING] and self._forks == forks() and time.monotonic() < end:
            time.sleep(1e-4)


@cache
def handler() -> Handler | None:
    """The handler, compiled when first asked for; None where words are laid out in another way."""
    fits = sys.byteorder == "little" and ctypes.sizeof(ctypes.c_void_p) == 8
    return Handler() if fits else None
