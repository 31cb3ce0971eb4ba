"""Whether memory still holds what was copied from it, at the speed of the memory."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cached_property

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from fastrnn_kernels.cache.disk import kernel
from fastrnn_kernels.cpu.arrays.memory import Array, empty
from fastrnn_kernels.cpu.isa.address import values

#: Words that are compared without a branch: the difference is looked at behind each run.
_RUN = 2048

_words_at = values(types.uint32)


@kernel("same-words")
def _same(places):  # type: ignore[no-untyped-def]
    for k in range(len(places)):
        count = places[k, 2]
        some = numba.carray(_words_at(places[k, 0]), count)
        others = numba.carray(_words_at(places[k, 1]), count)
        for at in range(0, count, _RUN):
            here, there = some[at : at + _RUN], others[at : at + _RUN]
            difference = np.uint32(0)
            for n in range(len(here)):
                difference |= here[n] ^ there[n]
            if difference != 0:
                return False
    return True


def _copy(array: Array) -> Array:
    """In memory that is used again: weights are copied after each step of training."""
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


class Copies:
    """Copies of arrays, and where those lie in memory.

    made: where arrays lie that are contiguous, and what gives copies that somebody has made of
    them; else they are made of `arrays`.
    """

    def __init__(
        self,
        arrays: Sequence[Array],
        made: tuple[list[int], Callable[[], list[Array]]] | None = None,
    ) -> None:
        self._dense = all(array.flags.c_contiguous for array in arrays)
        self._given: Callable[[], list[Array]]
        if made is None:
            copies = [_copy(array) for array in arrays]
            self._at = [array.__array_interface__["data"][0] for array in arrays]
            self._given = lambda: copies
        else:
            self._at, self._given = made

    @cached_property
    def arrays(self) -> list[Array]:
        """The copies."""
        return self._given()

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """Where each array lies, its copy, and its words; in training nobody asks."""
        places = [
            (at, copy.ctypes.data, copy.nbytes // 4)
            for at, copy in zip(self._at, self.arrays, strict=True)
        ]
        return np.array(places, np.int64)

    @cached_property
    def _rests(self) -> list[tuple[int, bytes]]:
        """What is behind the last whole word of arrays of 16 bits: where it lies, and its copy."""
        found = []
        for at, copy in zip(self._at, self.arrays, strict=True):
            whole = copy.nbytes // 4 * 4
            if whole < copy.nbytes:
                found.append((at + whole, copy.tobytes()[whole:]))
        return found

    def current(self) -> bool:
        """Whether the arrays' memory, which must still be theirs, holds the same bits.

        Of arrays that are not contiguous this cannot be said, and False.
        """
        return (
            self._dense
            and bool(_same(self._places))
            and all(ctypes.string_at(at, len(rest)) == rest for at, rest in self._rests)
        )

    def equal(self, arrays: list[Array]) -> bool:
        """Whether these are arrays of the same shapes and types that hold the same bits."""
        if len(arrays) != len(self.arrays):
            return False
        for array, copy in zip(arrays, self.arrays, strict=True):
            if array.shape != copy.shape or array.dtype != copy.dtype:
                return False
        dense = [np.ascontiguousarray(array) for array in arrays]
        for array, copy in zip(dense, self.arrays, strict=True):
            rest = copy.nbytes % 4  # half a word behind the last whole one
            if rest and array.tobytes()[-rest:] != copy.tobytes()[-rest:]:
                return False
        places = self._places.copy()
        places[:, 0] = [array.ctypes.data for array in dense]
        return bool(_same(places))
