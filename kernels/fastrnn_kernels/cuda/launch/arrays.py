"""Arrays on the GPU: CuPy's, whose matrix products are cuBLAS's; NumPy's on the simulator."""

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numba import config

#: The module of arrays.
xp: Any = import_module("numpy" if config.ENABLE_CUDASIM else "cupy")
Array = Any  # of `xp`
#: Bytes at whose multiples arrays begin: by that cuBLAS chooses among algorithms, and bits follow.
ALIGNED = 16


@cache
def _first_device() -> int:
    """The GPU that is current when fastrnn first uses one."""
    return int(xp.cuda.Device().id)


def check_device(array: Array | None = None, name: str = "the array") -> None:
    """Raise RuntimeError where another GPU is current, or holds an array, than the first used.

    Weights, and what kernels are allowed, belong to that one.
    """
    if config.ENABLE_CUDASIM:
        return
    first, now = _first_device(), int(xp.cuda.Device().id)
    held = first if array is None or isinstance(array, np.ndarray) else int(array.device.id)
    if held != first:
        raise RuntimeError(f"{name} lies on GPU {held}, and fastrnn uses GPU {first} here")
    if now != first:
        raise RuntimeError(f"GPU {now} is current, and fastrnn uses GPU {first} here")


def wait() -> None:
    """Wait for the caller's stream."""
    if not config.ENABLE_CUDASIM:
        xp.cuda.get_current_stream().synchronize()


def adopt(array: Any) -> Array:
    """Another library's array on the GPU, as one of `xp`, not copied.

    By DLPack, where it has that: streams then wait for each other, and nothing waits for them.
    """
    if isinstance(array, xp.ndarray):
        return array
    return (xp.from_dlpack if hasattr(array, "__dlpack__") else xp.asarray)(array)


def take(array: Any, name: str = "the array", copy: bool = False) -> Array:
    """An array as kernels take it: on the GPU and C-contiguous.

    Copied if it is not, or begins in the middle of `ALIGNED` bytes, or if asked to. Raises
    RuntimeError, with its name, for an array on another GPU.
    """
    check_device(array if hasattr(array, "device") else None, name)
    if copy:
        return xp.array(array, order="C")
    found = xp.ascontiguousarray(xp.asarray(array))
    if not config.ENABLE_CUDASIM and found.data.ptr % ALIGNED:
        found = xp.array(found)
    return found


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array that is to be written."""
    return xp.empty(shape, dtype)


def give(array: Array, host: bool) -> Any:
    """A result for a caller who gave arrays of the host, or of the GPU; the former waits for it."""
    return xp.asnumpy(array) if host and not isinstance(array, np.ndarray) else array


def put(own: Array, new: Any) -> None:
    """Write an array, on the GPU or of NumPy's, into another of its shape and type."""
    if isinstance(own, np.ndarray):
        own[...] = new
    elif isinstance(new, np.ndarray):
        own.set(np.ascontiguousarray(new))
    elif new.flags.c_contiguous:  # without the kernel that CuPy would look for
        own.data.copy_from_device_async(new.data, own.nbytes)
    else:
        own[...] = new
