"""Memory for tapes, scratch and results, used again once nothing refers to it.

The system hands out large pieces of memory as pages that it clears when they are first
touched; a training step that asks for its tape anew pays for that with up to a third of
its time. So a piece comes back here when its last view is gone, and the next call of like
size gets it. At most LIMIT bytes wait; what is beyond goes back to the system.
"""

import math
import os
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CACHE_LINE = 64
#: Smaller pieces are as quick from NumPy.
LEAST = 1 << 16
#: Bytes that may wait for their next use.
LIMIT = 1 << 28


def _size_class(size: int) -> int:
    """The size rounded up to one of eight steps to a power of two."""
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step


class _Lease:
    """Memory in use; arrays made from it keep it, and their end gives it back."""

    def __init__(self, store: "_Store", buffer: Array, interface: dict[str, Any]) -> None:
        self._store, self._buffer = store, buffer
        self.__array_interface__ = interface

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending():  # what it would need may be gone then
            self._store.give(self._buffer)


class _Store:
    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew: after a fork, another thread may have held the lock."""
        self._lock = threading.Lock()
        # An array may end anywhere, also while this thread holds the lock and collects
        # garbage; what comes back is only put here, and taken up by whoever gets the lock.
        self._returned: deque[Array] = deque()
        self._waiting: dict[int, list[Array]] = defaultdict(list)
        self.bytes = 0

    def take(self, size: int) -> Array:
        with self._lock:
            self._take_up()
            waiting = self._waiting[size]
            if waiting:
                self.bytes -= size
                return waiting.pop()
        try:
            return np.empty(size + CACHE_LINE, np.uint8)
        except MemoryError:
            self.release()
            return np.empty(size + CACHE_LINE, np.uint8)

    def give(self, buffer: Array) -> None:
        self._returned.append(buffer)
        if self._lock.acquire(blocking=False):
            try:
                self._take_up()
            finally:
                self._lock.release()

    def release(self) -> int:
        """Give all that waits back to the system; how many bytes that was."""
        with self._lock:
            self._take_up()
            size, self.bytes = self.bytes, 0
            self._waiting.clear()
        return size

    def _take_up(self) -> None:
        """Keep what has come back, and let go of what is too much. The lock is held."""
        while self._returned:
            buffer = self._returned.popleft()
            size = buffer.size - CACHE_LINE
            if size > LIMIT:
                continue
            for oldest in list(self._waiting):  # the sizes in use longest ago come first
                buffers = self._waiting[oldest]
                while buffers and self.bytes + size > LIMIT:
                    buffers.pop()
                    self.bytes -= oldest
            self._waiting[size] = [*self._waiting.pop(size, []), buffer]
            self.bytes += size


_store = _Store()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_store.forget)


def waiting_bytes() -> int:
    """Bytes that are kept for their next use."""
    return _store.bytes


def release() -> int:
    """Give the memory that is kept for its next use back; how many bytes that was."""
    return _store.release()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array, not initialised; a large one begins on a cache line."""
    size = math.prod(shape) * dtype.itemsize
    if size < LEAST:
        return np.empty(shape, dtype)
    buffer = _store.take(_size_class(size))
    address = buffer.__array_interface__["data"][0]
    interface = {
        "shape": shape,
        "typestr": dtype.str,
        "data": (address + -address % CACHE_LINE, False),
        "version": 3,
    }
    return np.asarray(_Lease(_store, buffer, interface))


def zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The same, all zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def on_line(array: Array) -> Array:
    """The array, or a copy, that begins on a cache line.

    What kernels read a vector at a time has to: else each read of 64 bytes takes two.
    """
    if array.ctypes.data % CACHE_LINE == 0:
        return array
    raw = np.empty(array.nbytes + CACHE_LINE, np.uint8)
    first = -raw.ctypes.data % CACHE_LINE
    copy = raw[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
