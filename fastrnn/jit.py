"""Streams inside of your own compiled functions.

    handle = stream.handle

    @njit(nogil=True)
    def process(handle, samples, outputs):
        for t in range(len(samples)):
            fastrnn.jit.step(handle, samples[t], outputs[t])

A handle is a named tuple of arrays, and always an argument: as a global variable of compiled code
its addresses would be frozen there, so that it does not compile. Nothing here allocates, raises or
takes Python's lock. One handle serves one thread at a time; nothing checks that here.
"""

from typing import Any, NamedTuple

import numba
from numba import types
from numba.core.datamodel.models import TupleModel
from numba.core.datamodel.registry import register_default
from numba.core.errors import TypingError
from numba.core.typing.typeof import Purpose
from numba.extending import overload, typeof_impl

from fastrnn.arrays import Array
from fastrnn_kernels.cache.keys import sources
from fastrnn_kernels.cpu.isa.address import address_of
from fastrnn_kernels.cpu.stream.entry import INPUTS, OUTPUTS, ROWS, run_steps
from fastrnn_kernels.cpu.stream.functions import HEADER

__all__ = ["DONE", "WRONG_INPUT", "WRONG_OUTPUT", "Handle", "block", "reset", "step"]

#: What the functions return: done, or whose shape is wrong.
DONE, WRONG_INPUT, WRONG_OUTPUT = 0, 1, 2


class Handle(NamedTuple):
    """A stream for compiled code: its record, which keeps all else alive, and its memory.

    start: the memory of a stream that begins.
    """

    words: Array
    memory: Array
    start: Array

    def __reduce__(self) -> Any:
        """Refuse to be pickled or copied: its words are addresses of this process's memory."""
        raise TypeError(
            "a handle cannot be pickled or copied, as it holds addresses: pass the handle as an "
            "argument to compiled code, and the stream's snapshot to another process"
        )


class _HandleType(types.NamedTuple):  # type: ignore[misc]
    """A handle's type, another one for each version of the kernels.

    What users compile and keep on disk reads a record's words itself: with other kernels it has
    to be compiled anew, and is, as the type of its argument is another.
    """

    def __init__(self, kinds: Any, cls: Any) -> None:
        self._sources = sources()
        super().__init__(kinds, cls)

    @property
    def key(self) -> Any:
        return super().key, self._sources


register_default(_HandleType)(TupleModel)


@typeof_impl.register(Handle)  # type: ignore[untyped-decorator]
def _typeof_handle(handle: Handle, context: Any) -> Any:
    if context.purpose is Purpose.constant:
        # Compiled code would keep a copy of the addresses, and `cache=True` take it to disk.
        raise TypingError(
            "a stream's handle is a global variable, a default or a variable of an outer function "
            "here, whose addresses compiled code would keep for good: pass the handle as an "
            "argument"
        )
    kinds = [typeof_impl(value, context) for value in handle]
    return None if None in kinds else _HandleType(kinds, Handle)


def step(handle: Handle, x: Array, y: Array) -> int:
    """One step: x (I,) to y (O,) with batch size 1, else x (B, I) to y (B, O).

    Arrays are C-contiguous and of the stream's float type, or it does not compile. Returns
    DONE (0), or WRONG_INPUT or WRONG_OUTPUT for another shape, without a step then.
    """
    return _step(handle, x, y)  # type: ignore[no-any-return]


def block(handle: Handle, X: Array, Y: Array) -> int:
    """T steps: X (T, I) to Y (T, O), or X (T, B, I) to Y (T, B, O); else as `step`."""
    return _block(handle, X, Y)  # type: ignore[no-any-return]


def reset(handle: Handle) -> None:
    """Begin anew, all rows from states of zeros, or from those that the model has learned."""
    _reset(handle)


def _check_handle(handle: Any) -> None:
    if not isinstance(handle, _HandleType):
        raise TypingError(f"handle is of type {handle}, wanted the handle of a stream")


def _check_array(
    name: str, array: Any, handle: Any, ndims: tuple[int, ...], written: bool = False
) -> None:
    dtype = handle.types[1].dtype
    wanted = f"a C-contiguous array of {dtype} with {' or '.join(map(str, ndims))} axes"
    if written:
        wanted = wanted.replace("C-contiguous", "writeable, C-contiguous")
    if not isinstance(array, types.Array):
        raise TypingError(f"{name} is of type {array}, wanted {wanted}")
    fits = array.dtype == dtype and array.layout == "C" and array.ndim in ndims and array.aligned
    if not fits or (written and not array.mutable):
        raise TypingError(f"{name} is {array}, wanted {wanted}")


@overload(step, inline="never")
def _overload_step(handle, x, y):  # type: ignore[no-untyped-def]
    _check_handle(handle)
    _check_array("x", x, handle, (1, 2))
    _check_array("y", y, handle, (x.ndim,), written=True)
    single = x.ndim == 1

    def run(handle, x, y):  # type: ignore[no-untyped-def]
        words = handle.words
        rows = 1 if single else x.shape[0]
        if rows != words[ROWS] or x.shape[-1] != words[INPUTS]:
            return WRONG_INPUT
        if x.size * words[OUTPUTS] != y.size * words[INPUTS] or y.shape[-1] != words[OUTPUTS]:
            return WRONG_OUTPUT
        run_steps(address_of(words), address_of(x), address_of(y), 1)
        return DONE

    return run


@overload(block, inline="never")
def _overload_block(handle, X, Y):  # type: ignore[no-untyped-def]
    _check_handle(handle)
    _check_array("X", X, handle, (2, 3))
    _check_array("Y", Y, handle, (X.ndim,), written=True)
    single = X.ndim == 2

    def run(handle, X, Y):  # type: ignore[no-untyped-def]
        words = handle.words
        rows = 1 if single else X.shape[1]
        if rows != words[ROWS] or X.shape[-1] != words[INPUTS]:
            return WRONG_INPUT
        if Y.shape[:-1] != X.shape[:-1] or Y.shape[-1] != words[OUTPUTS]:
            return WRONG_OUTPUT
        run_steps(address_of(words), address_of(X), address_of(Y), X.shape[0])
        return DONE

    return run


@overload(reset, inline="never")
def _overload_reset(handle):  # type: ignore[no-untyped-def]
    _check_handle(handle)

    def run(handle):  # type: ignore[no-untyped-def]
        memory, start = handle.memory, handle.start
        for at in range(HEADER // memory.itemsize, memory.size):
            memory[at] = start[at]

    return run


# The same from Python, where there is no hurry.
_step = numba.njit(lambda handle, x, y: step(handle, x, y))
_block = numba.njit(lambda handle, X, Y: block(handle, X, Y))
_reset = numba.njit(lambda handle: reset(handle))


def __dir__() -> list[str]:
    return sorted(__all__)
