"""Copies of arrays whose rows lie anywhere, as of batch first made time first."""

import numba
from numba import types

from fastrnn_kernels.cache.disk import kernel
from fastrnn_kernels.cpu.arrays.memory import Array, empty
from fastrnn_kernels.cpu.isa.address import values

_words_at = values(types.uint32)
_WORD = 4


@kernel("copy-rows")
def _copy(source, step, row_step, out, out_step, out_row_step, many, rows, width):  # type: ignore[no-untyped-def]
    """Rows of `width` words; steps are in bytes."""
    for n in range(many):
        for row in range(rows):
            given = numba.carray(_words_at(source + n * step + row * row_step), width)
            here = numba.carray(_words_at(out + n * out_step + row * out_row_step), width)
            for k in range(width):
                here[k] = given[k]


def has_rows(array: Array) -> bool:
    """Whether it has three axes, the last of whose values lie one behind the other, in words."""
    item = array.itemsize
    return (
        array.ndim == 3
        and array.strides[2] == item
        and item % _WORD == 0
        and array.dtype.isnative
        and array.flags.aligned
    )


def rows_copied(array: Array) -> Array:
    """An array with rows, C-contiguous, in memory that is used again.

    Rows are taken in the order in which they lie: what waits for memory is reading, not writing.
    """
    copy = empty(array.shape, array.dtype)
    width = array.shape[2] * array.itemsize // _WORD
    source, out = (one.__array_interface__["data"][0] for one in (array, copy))
    axes = (0, 1) if abs(array.strides[0]) >= abs(array.strides[1]) else (1, 0)
    steps = [one.strides[axis] for one in (array, copy) for axis in axes]
    many, rows = (array.shape[axis] for axis in axes)
    _copy(source, *steps[:2], out, *steps[2:], many, rows, width)
    return copy
