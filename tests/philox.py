"""Philox-4x32-10 in Python's whole numbers, and the masks that layers draw by it.

Salmon, Moraes, Dror and Shaw 2011, Sec. 3.3. Nothing is shared with the library.
"""

import numpy as np

#: What is drawn, as the last word of a counter has it; a cell's own values come from 3 on.
INPUT, RECURRENT, WEIGHT, CELL = 0, 1, 2, 3
_ALL = 2**32 - 1


def philox(counter, key):
    """The four words of a counter of four and a key of two."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _ALL, (p0 >> 32) ^ c3 ^ k1, p0 & _ALL
        k0, k1 = (k0 + 0x9E3779B9) & _ALL, (k1 + 0xBB67AE85) & _ALL
    return c0, c1, c2, c3


def below(key, what, number, row, time, width, rate):
    """Of each unit, whether its draw is below the rate."""
    words = key & _ALL, key >> 32
    drawn = [
        word
        for group in range(-(-width // 4))
        for word in philox((group, row, time, what + 256 * number), words)
    ]
    return np.array([word < round(rate * 2**32) for word in drawn[:width]])


def dropout(key, what, number, rows, width, rate):
    """A dropout mask (rows, width), the same at all steps."""
    drawn = [below(key, what, number, row, 0, width, rate) for row in range(rows)]
    return np.where(drawn, 0.0, 1 / (1 - rate) if rate < 1 else 0.0)


def each_step(key, what, number, T, B, width, rate):
    """Whether draws are below the rate, (T, B, width)."""
    return np.array(
        [[below(key, what, number, b, t, width, rate) for b in range(B)] for t in range(T)]
    ).reshape(T, B, width)
