"""Recipes called from programs that XLA has compiled: a handler of its FFI, without Python.

The words of a call's frame are those of the C header of XLA's FFI, which jaxlib brings. A call that
has use for several threads asks XLA's own pool for them (`crew.py`), which has the CPUs already.
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
from fastrnn_kernels.cpu.threads import board, crew, recipe
from fastrnn_kernels.cpu.threads.pool import board_address
from fastrnn_kernels.forks import forks

#: Words of a frame, by their places: of its parts, `args` and `rets` hold pointers to buffers.
_EXTENSION, _API, _CONTEXT, _STAGE, _ARGS_COUNT, _ARGS, _RETS, _ATTRIBUTES = (
    1, 2, 3, 4, 7, 9, 14, 20,
)  # fmt: skip
_BUFFER_DATA, _SCALAR_VALUE = 3, 1
#: Of an extension that asks what the handler was made for: its type, and where the answer goes.
_METADATA, _METADATA_AT, _VERSION_AT, _TRAITS_AT = 1, 3, 3, 4
#: The oldest version of the interface that is known to have these words, 0.1.
_OLDEST = 1 << 32
#: Of the interface: its version, and the functions that are called.
_VERSION, _ERROR_DESTROY, _SCHEDULE = 4, 8, 17
_EXECUTE = 3

_asked = call_c(types.int64, (types.int64,))
_told = call_c(types.void, (types.int64,))
_arguments = on_stack(types.int64, 8)


@njit(**NO_WRAPPERS)
def _gather(frame, gate, wanted):  # type: ignore[no-untyped-def]
    """A crew that XLA's pool was asked for, 0 if there can be none."""
    api, members = word(frame, _API), crew.gathered(gate, wanted)
    given = _arguments()
    at = address_of(given)
    for _ in range(wanted if members != 0 else 0):
        given[0], given[1], given[2] = 40, 0, word(frame, _CONTEXT)
        given[3], given[4] = word(gate, crew.TASK_AT), members
        error = _asked(word(api, _SCHEDULE), (at,))
        if error != 0:  # this call has no pool
            given[0], given[1], given[2] = 24, 0, error
            _told(word(api, _ERROR_DESTROY), (at,))
            crew.leave(members)
    return members


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
    atomic.add(words(gate), crew.RUNNING, 1)
    last = word(made, recipe.SLOTS) - 1
    workspace = (_slot(frame, last) + 63) // 64 * 64
    scheduled = min(word(made, recipe.HELPERS), word(word(gate, crew.BOARD_AT), board.THREADS) - 1)
    members = 0
    if scheduled > 0:
        members = _gather(frame, gate, scheduled)
        scheduled = scheduled if members != 0 else 0
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
        crew.run(members, scheduled, records + 8 * start, size, threads)
    if members != 0:
        crew.end(members)
    atomic.add(words(gate), crew.RUNNING, -1)
    return 0


class Handler:
    """The handler of this process: `address` is the C function's, `gate` its first attribute."""

    def __init__(self) -> None:
        address = (types.int64,)
        memory = (ctypes.c_int64 * 16)()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))  # threads look at it to the end
        self._words = np.ctypeslib.as_array(memory)
        functions = ctypes.pythonapi.PyMem_RawMalloc, ctypes.pythonapi.PyMem_RawFree
        self._words[[crew.ALLOCATE_AT, crew.FREE_AT]] = [
            ctypes.cast(function, ctypes.c_void_p).value for function in functions
        ]
        self._words[crew.TASK_AT] = c_address(crew.task, address)
        self._words[crew.BOARD_AT] = board_address()
        self._words[[crew.CPU_AT, crew.ALLOWED_AT, crew.ALLOW_AT]] = crew.functions_for_cpus()
        self.address, self.gate = c_address(_handler, address), int(self._words.ctypes.data)
        self._forks = forks()

    def finish(self) -> None:
        """Wait until no call or task is left: their code is unloaded when Python ends."""
        end = time.monotonic() + 60
        while self._words[crew.RUNNING] and self._forks == forks() and time.monotonic() < end:
            time.sleep(1e-4)


@cache
def handler() -> Handler | None:
    """The handler, compiled when first asked for; None where words are laid out in another way."""
    fits = sys.byteorder == "little" and ctypes.sizeof(ctypes.c_void_p) == 8
    return Handler() if fits else None
