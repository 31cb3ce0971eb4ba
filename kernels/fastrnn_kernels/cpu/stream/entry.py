"""Ways into a stream's compiled function: from Python, from compiled code, from C.

A stream's record is that of a job whose calls are the members of a team, and its arguments
the words named below. From Python, `caller` makes a function that reads NumPy's arrays where
they stand: it makes no object and allocates nothing, and takes a tenth of a microsecond.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import types

from fastrnn_kernels.cache.disk import c_address, kernel, native_address
from fastrnn_kernels.cpu.isa import atomic
from fastrnn_kernels.cpu.isa.address import address_of, call_c, call_native, short_word, word, words
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.stream.functions import STEP as PROGRAM_STEP
from fastrnn_kernels.cpu.stream.functions import TEAM as PROGRAM_TEAM
from fastrnn_kernels.cpu.threads import board, pool
from fastrnn_kernels.cpu.threads.job import ARGUMENTS, COUNT, ENTRY, SIGNATURE, TEAM, WORDS, Record

#: Words of a stream's record, behind a job's header.
(
    PROGRAM,  # where its program's table is
    MEMORY,  # where its states are
    X,  # where the inputs of the steps that are asked for begin
    Y,  # and the outputs
    STEPS,  # how many steps that is
    # The thread that uses it, 0 for none. One that an interrupt took out of its use has left it so,
    # and may go on.
    BUSY,
    ROWS,  # B
    INPUTS,  # I
    OUTPUTS,  # O
    ITEM,  # bytes of a value
    KEEPS_LOCK,  # whether a step keeps Python's lock
    SHARED,  # whether helpers share a step
    BOARD,  # where the board is by which they are called
) = range(ARGUMENTS, ARGUMENTS + 13)
#: Of this process: NumPy's class of arrays, its float type, and functions of Python's and C's.
_ARRAY_TYPE, _FLOAT_TYPE, _THREAD, _SAVE_THREAD, _RESTORE_THREAD, _TRUE, _FALSE, _NONE, _CPU = (
    range(BOARD + 1, BOARD + 10)
)

# Where NumPy's and Python's objects have what, in bytes (PyArrayObject_fields).
_HEAD = object.__basicsize__
_TYPE_AT = _HEAD - 8
_DATA, _NDIM, _SHAPE, _DESCR, _FLAGS = (_HEAD + k for k in (0, 8, 16, 40, 48))
#: Contiguous and aligned; and writeable.
_READABLE, _WRITEABLE = 0x0101, 0x0501
_COUNTS_REFERENCES = sys.version_info < (3, 12)  # of True, False and None

#: What C gets: done, or that an address is NULL.
DONE, NULL_POINTER = 0, 1


@inlined
def _step_of(record, x, y):  # type: ignore[no-untyped-def]
    """One step on the calling thread."""
    program = word(record, PROGRAM)
    call_native(word(program, PROGRAM_STEP), (program, word(record, MEMORY), x, y))


@inlined
def run_steps(record, x, y, steps):  # type: ignore[no-untyped-def]
    """Run steps of the stream whose record lies at an address, on the calling thread."""
    item = word(record, ITEM) * word(record, ROWS)
    for t in range(steps):
        _step_of(record, x + t * item * word(record, INPUTS), y + t * item * word(record, OUTPUTS))


@kernel("stream-member")
def _member(record, number, members):  # type: ignore[no-untyped-def]
    """A job's call: one member's share of the steps that the record asks for."""
    record = address_of(record)
    program, memory = word(record, PROGRAM), word(record, MEMORY)
    x, y, steps = word(record, X), word(record, Y), word(record, STEPS)
    if members == 1:
        run_steps(record, x, y, steps)
    else:
        team = word(program, PROGRAM_TEAM)
        call_native(team, (program, memory, x, y, steps, number, members, record))


@inlined
def _fits(array, record, width, wanted):  # type: ignore[no-untyped-def]
    """Whether an object is an array that the function takes: (B, width), or (width,) of one row."""
    if word(array + _TYPE_AT, 0) != word(record, _ARRAY_TYPE):
        return False
    if word(array + _DESCR, 0) != word(record, _FLOAT_TYPE):
        return False
    if short_word(array + _FLAGS, 0) & wanted != wanted:
        return False
    shape, rows = word(array + _SHAPE, 0), word(record, ROWS)
    ndim = short_word(array + _NDIM, 0)
    if ndim == 1:
        return rows == 1 and word(shape, 0) == word(record, width)
    return ndim == 2 and word(shape, 0) == rows and word(shape, 1) == word(record, width)


@inlined
def _take(record, thread):  # type: ignore[no-untyped-def]
    """Mark a stream as in use by a thread; whether it may be."""
    return atomic.replace(record, BUSY, 0, thread) or atomic.load(record, BUSY) == thread


_this_thread = call_c(types.int64, ())
_this_cpu = call_c(types.int32, ())
_save_thread = call_c(types.int64, ())
_restore_thread = call_c(types.void, (types.int64,))


@inlined
def _object(record, at):  # type: ignore[no-untyped-def]
    found = word(record, at)
    if _COUNTS_REFERENCES:
        atomic.add(words(found), 0, 1)
    return found


@inlined
def _held(record):  # type: ignore[no-untyped-def]
    """Helpers for a step, held on another CPU than this thread's; 0 where it takes Python."""
    current = word(record, _CPU)
    if current and _this_cpu(current, ()) != word(word(record, BOARD), board.CPU):
        return 0
    return board.hold(word(record, BOARD), word(record, COUNT))


@kernel("stream-call", for_c=True)
def _call(self, args, many):  # type: ignore[no-untyped-def]
    """(x, y) -> True when the step is done, None if Python has to wake its team, else False."""
    record = word(self + _DATA, 0)
    if many != 2:
        return _object(record, _FALSE)
    x, y = word(args, 0), word(args, 1)
    if not (
        _fits(x, record, INPUTS, _READABLE)
        and _fits(y, record, OUTPUTS, _WRITEABLE)
        and short_word(x + _NDIM, 0) == short_word(y + _NDIM, 0)
        and _take(words(record), _this_thread(word(record, _THREAD), ()))
    ):
        return _object(record, _FALSE)
    source, target = word(x + _DATA, 0), word(y + _DATA, 0)
    if word(record, SHARED):
        helpers = _held(record)
        if helpers == 0:
            atomic.store(words(record), BUSY, 0)
            return _object(record, _NONE)
        atomic.store(words(record), X, source)
        atomic.store(words(record), Y, target)
        atomic.store(words(record), STEPS, 1)
        thread = _save_thread(word(record, _SAVE_THREAD), ())
        board.run_held(word(record, BOARD), record, helpers)
        _restore_thread(word(record, _RESTORE_THREAD), (thread,))
    elif word(record, KEEPS_LOCK):
        _step_of(record, source, target)
    else:
        thread = _save_thread(word(record, _SAVE_THREAD), ())
        _step_of(record, source, target)
        _restore_thread(word(record, _RESTORE_THREAD), (thread,))
    atomic.store(words(record), BUSY, 0)
    return _object(record, _TRUE)


@kernel("stream-step", for_c=True)
def _step(record, x, y):  # type: ignore[no-untyped-def]
    """C's way in: `int step(void *state, const float *x, float *y)`."""
    if record == 0 or x == 0 or y == 0:
        return types.int32(NULL_POINTER)
    _step_of(record, x, y)
    return types.int32(DONE)


@kernel("stream-take")
def take(record, thread):  # type: ignore[no-untyped-def]
    """Mark a stream as in use by a thread, named as Python does; whether it may be."""
    return _take(record, thread)


@kernel("stream-leave", for_c=True)
def _leave(self, args, many):  # type: ignore[no-untyped-def]
    """Mark a stream as free, if this thread has it; who takes it sees what was written before."""
    record = word(self + _DATA, 0)
    atomic.replace(words(record), BUSY, _this_thread(word(record, _THREAD), ()), 0)
    return _object(record, _NONE)


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_FASTCALL = 0x80
_new_function = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.POINTER(_MethodDef), ctypes.py_object, ctypes.c_void_p
)(("PyCFunction_NewEx", ctypes.pythonapi))
_THREE = (types.int64,) * 3


@cache
def _method(dispatcher: Any, name: bytes, doc: bytes) -> _MethodDef:
    """What a function is made of; made once, and never let go, as functions refer to it."""
    return _MethodDef(name, c_address(dispatcher, _THREE), _FASTCALL, doc)


def _function(record: Record, dispatcher: Any, name: bytes, doc: bytes) -> Any:
    return _new_function(ctypes.byref(_method(dispatcher, name, doc)), record, None)


def new_record(rows: int, inputs: int, outputs: int, dtype: np.dtype[Any]) -> Record:
    """The record of a stream, all but the addresses of its program and memory."""
    record = np.zeros(WORDS, np.int64)
    record[ENTRY] = native_address(_member, SIGNATURE)
    record[COUNT], record[TEAM] = 1, 1
    record[ROWS], record[INPUTS], record[OUTPUTS] = rows, inputs, outputs
    record[ITEM] = dtype.itemsize
    record[_ARRAY_TYPE] = id(np.ndarray)
    record[_FLOAT_TYPE] = id(np.dtype(dtype.name))  # NumPy's own: an unpickled one is another
    for at, constant in ((_TRUE, True), (_FALSE, False), (_NONE, None)):
        record[at] = id(constant)
    for at, name in (
        (_THREAD, "PyThread_get_thread_ident"),
        (_SAVE_THREAD, "PyEval_SaveThread"),
        (_RESTORE_THREAD, "PyEval_RestoreThread"),
    ):
        record[at] = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
    record[_CPU], record[BOARD] = pool.CPU_FUNCTION, pool.board_address()
    return record


def caller(record: Record) -> Callable[[Any, Any], bool | None]:
    """A function (x, y) of arrays that takes one step; see `_call`."""
    function: Callable[[Any, Any], bool | None] = _function(
        record, _call, b"step", b"One step of a stream."
    )
    return function


def leaver(record: Record) -> Callable[..., None]:
    """A function of whatever arguments that ends this thread's use of a stream."""
    function: Callable[..., None] = _function(
        record, _leave, b"leave", b"Ends the use of a stream."
    )
    return function


def step_address() -> int:
    """The address of the C function that takes a step."""
    return c_address(_step, _THREE)


def prepare() -> None:
    """Compile what every stream runs, or load it, whatever its sizes."""
    native_address(_member, SIGNATURE)
    take.compile((types.Array(types.int64, 1, "C"), types.int64))
    for function in (_call, _step, _leave):
        c_address(function, _THREE)
