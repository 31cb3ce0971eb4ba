"""Arrays of the CPU's kernels: NumPy's."""

from typing import Any

import numpy as np

from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.arrays.rows import has_rows, rows_copied


class _Writeable:
    """The same memory, not marked read-only.

    Numba compiles a kernel anew for read-only arrays; kernels do not write their inputs.
    """

    def __init__(self, array: Array) -> None:
        self._array = array  # keeps the memory alive
        interface = dict(array.__array_interface__)
        interface["data"] = (array.ctypes.data, False)
        self.__array_interface__ = interface


def take(array: Any, name: str = "the array", copy: bool = False) -> Array:
    """An array as kernels take it: C-contiguous and aligned, copied if it is not, or if asked to.

    Raises TypeError, with its name, for an array on a GPU.
    """
    if type(array) is not np.ndarray:
        raise TypeError(f"{name} lies on a GPU, and this runs on the CPU: copy it, or use .to")
    if not copy and array.flags.carray:  # contiguous, aligned and writeable
        return array
    if has_rows(array) and (copy or not array.flags.c_contiguous):
        return rows_copied(array)
    if copy:
        return np.array(array, order="C")
    array = np.require(array, requirements=["C", "A"])
    return array if array.flags.writeable else np.asarray(_Writeable(array))


def give(array: Array, host: bool) -> Array:
    """A result for a caller who gave arrays of the host; there are no others here."""
    return array
