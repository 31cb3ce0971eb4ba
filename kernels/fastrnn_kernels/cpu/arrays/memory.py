"""Memory for tapes, scratch and results, used again once nothing refers to it.

The system hands out large pieces of memory as pages that it clears when they are first
touched; a training step that asks for its tape anew pays for that with up to a third of
its time. So a piece comes back here when its last view is gone, and the next call of like
size gets it. At most LIMIT bytes come back to wait, those used last; what is beyond goes
to the system.

What a framework around the kernels frees at the end of a step goes to the system as well, if it is
more than glibc's malloc keeps: twice the largest piece that the process ever freed. A framework's
own layers raise that by what they free. As none of the pieces here is freed, one is, once.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, count
from operator import attrgetter
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from fastrnn_kernels.handlers import pass_on

Array = NDArray[Any]
#: What gives an array of a shape and a type.
Empty = Callable[[tuple[int, ...], np.dtype[Any]], Array]

CACHE_LINE = 64
#: Smaller pieces are as quick from NumPy.
LEAST = 1 << 16
#: Bytes that may wait for their next use.
LIMIT = 1 << 28
#: From this size on a piece shows that steps are large; what is then freed, once: nearly the most
#: that raises what malloc keeps.
LARGE, FREED = 1 << 20, (1 << 25) - (1 << 16)


def _size_class(size: int) -> int:
    """The size rounded up to one of eight steps to a power of two."""
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step


class _Buffer:
    """Memory that is to come back when nothing refers to it.

    address: of its first cache line. user: who has it, if somebody has. asked: orders buffers by
    when somebody last asked for one.
    """

    __slots__ = ("__weakref__", "address", "asked", "memory", "user")

    def __init__(self, size: int) -> None:
        self.memory: Array = np.empty(size + CACHE_LINE, np.uint8)
        first = self.memory.__array_interface__["data"][0]
        self.address = first + -first % CACHE_LINE
        self.user: ref[_Lease] | None = None
        self.asked = 0


class _Lease:
    """Memory in use; arrays made from it keep it, and their end gives it back.

    A signal's handler may raise wherever Python's code runs, and what it raises in a `__del__` is
    lost. So none runs here: Python asks the property, which is a function of C's, for what to call,
    and calls that, which is another.
    """

    __del__ = property(attrgetter("give_back"))

    def __init__(self, give_back: Callable[[], object], interface: dict[str, Any]) -> None:
        self.give_back, self.__array_interface__ = give_back, interface


class _Store:
    """Buffers by the classes of their sizes.

    There is no lock, which an interrupt could leave held, or a forked child inherit: every step is
    one call of C's, and what an interrupt takes out between two of them goes back to the system.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, deque[_Buffer]] = {}
        #: Every buffer that is to come back, in use or waiting, by a number, and its size.
        self._made: dict[int, tuple[ref[_Buffer], int]] = {}
        self._numbers = count()
        self._freed = False

    def array(self, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array in memory of a class, which has room for it; on a cache line."""
        waiting = self._waiting.get(size)
        if waiting is None:
            waiting = self._waiting.setdefault(size, deque())
        comes_back = size <= LIMIT
        try:
            buffer = waiting.pop()
        except IndexError as error:
            pass_on(error)
            if comes_back:
                self._make_room(size)
            buffer = self._new(size)
            if comes_back:
                self._made[next(self._numbers)] = ref(buffer), size
        interface = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (buffer.address, False),
            "version": 3,
        }
        lease = _Lease(partial(waiting.append if comes_back else id, buffer), interface)
        buffer.user, buffer.asked = ref(lease), next(self._numbers)
        return np.asarray(lease)

    def _new(self, size: int) -> _Buffer:
        try:
            if size >= LARGE and not self._freed:
                self._freed = True
                np.empty(FREED, np.uint8)
            return _Buffer(size)
        except MemoryError as error:
            pass_on(error)
            self.release()
            return _Buffer(size)

    def _make_room(self, size: int) -> None:
        """Let go of what waits, or will come back, longest ago first, until there is room."""
        found = []
        for number, (made, each) in list(self._made.items()):
            buffer = made()
            if buffer is None:
                self._made.pop(number, None)
            else:
                found.append((buffer.asked, number, each))
        total = size + sum(each for *_, each in found)
        buffer = None  # else the last of them would stay
        # What is in use among them, as results that somebody keeps, the system gets when it ends.
        for _, number, _ in sorted(found):
            if total <= LIMIT:
                return
            total -= self._forget(number)

    def _forget(self, number: int) -> int:
        """Let a buffer wait no longer, nor come back to wait; its size."""
        made, size = self._made.pop(number, (None, 0))
        buffer = None if made is None else made()
        if buffer is None:
            return size
        user = None if buffer.user is None else buffer.user()
        if user is not None:
            user.give_back = partial(id, buffer)  # which keeps it, and does nothing
            return size
        try:
            self._waiting[size].remove(buffer)
        except ValueError as error:  # another thread has just taken it
            pass_on(error)
            self._made[number] = ref(buffer), size
            return 0
        return size

    @property
    def bytes(self) -> int:
        """Bytes that wait."""
        return sum(size * len(waiting) for size, waiting in list(self._waiting.items()))

    def release(self) -> int:
        """Give all that waits back to the system; how many bytes that was."""
        before = self.bytes
        for waiting in list(self._waiting.values()):
            waiting.clear()
        return before


_store = _Store()


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
    return _store.array(_size_class(size), shape, dtype)


def bytes_of(make: Callable[[Empty], object]) -> int:
    """The bytes of all arrays that `make(empty)` asks for, which are not made."""
    sizes: list[int] = []

    def counted(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        sizes.append(math.prod(shape) * dtype.itemsize)
        return np.empty(0, dtype)

    make(counted)
    return sum(sizes)


def aligned(size: int, dtype: np.dtype[Any]) -> Array:
    """So many values, not initialised, that begin on a cache line, few as they may be."""
    if size * dtype.itemsize >= LEAST:
        return empty((size,), dtype)
    raw = np.empty(size * dtype.itemsize + CACHE_LINE, np.uint8)
    first = -raw.__array_interface__["data"][0] % CACHE_LINE
    return raw[first : first + size * dtype.itemsize].view(dtype)


def parts(sizes: Sequence[int], dtype: np.dtype[Any]) -> tuple[int, list[Array]]:
    """Rows of so many values, one behind the other in one piece of memory, each on a cache line.

    With the address where they begin.
    """
    line = CACHE_LINE // dtype.itemsize
    ends = list(accumulate(-(-size // line) * line for size in sizes))
    whole = aligned(ends[-1], dtype)
    begins = [0, *ends[:-1]]
    address: int = whole.__array_interface__["data"][0]
    return address, [whole[at : at + size] for at, size in zip(begins, sizes, strict=True)]


def zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The same, all zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def on_line(array: Array) -> Array:
    """The array, or a copy, that begins on a cache line.

    What kernels read a vector at a time has to: else each read of 64 bytes takes two.
    """
    if array.__array_interface__["data"][0] % CACHE_LINE == 0:
        return array
    copy = aligned(array.size, array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
