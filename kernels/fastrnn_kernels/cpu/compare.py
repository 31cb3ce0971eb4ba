"""Whether two arrays hold the same bits, at the speed of the memory."""

import numpy as np

from fastrnn_kernels.cache import kernel
from fastrnn_kernels.cpu.memory import Array

#: Words that are compared without a branch: the difference is looked at behind each block.
_BLOCK = 2048


@kernel("same-words")
def _same_words(a, b):  # type: ignore[no-untyped-def]
    at = 0
    while at + _BLOCK <= a.size:
        some, others = a[at : at + _BLOCK], b[at : at + _BLOCK]
        difference = some[0] ^ others[0]
        for n in range(_BLOCK):
            difference |= some[n] ^ others[n]
        if difference:
            return False
        at += _BLOCK
    difference = a[0] ^ a[0]  # 0 of the words' type
    for n in range(at, a.size):
        difference |= a[n] ^ b[n]
    return difference == 0


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays of floats are equal bit for bit, NaN and the sign of 0 included."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.size:
        return True
    words = np.dtype(f"u{a.itemsize}")
    return bool(_same_words(a.reshape(-1).view(words), b.reshape(-1).view(words)))
