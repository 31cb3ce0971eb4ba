"""Random numbers by counter: the same for any number of threads, in any order, on any device.

What is drawn is a function of a key and of where it stands: no generator has a state that kernels
would have to share. That is Philox-4x32-10: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw,
"Parallel Random Numbers: As Easy as 1, 2, 3", SC11 (2011), Sec. 3.3.

    key      the call's, 64 bits
    counter  the unit / 4, the row of the batch, the step of the row, and for what it is drawn
    value    the word (unit % 4) of the four that Philox makes of these, below 2^32

A value below rate 2^32 is drawn with the probability of the rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fastrnn_kernels.cache.disk import kernel

Array = Any  # of the device's own kind

#: What is drawn for a pass. Values of the cell's own (`Cell.drawn`) are numbered from CELL on.
INPUT, RECURRENT, WEIGHT, CELL = 0, 1, 2, 3
#: What a drawn value of a gate's dropout, or the rate of a state's zoneout, is called in equations.
DROPPED = "left_of_{}"
ZONEOUT = "zoneout_{}"

# Words are of 64 bits, so that products of two of them are whole, and none is ever negative.
_HALF, _WORD = np.uint64(32), np.uint64(0xFFFFFFFF)
_TIMES, _OTHER_TIMES = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_NEXT, _OTHER_NEXT = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


def philox(a: Any, b: Any, c: Any, d: Any, key: Any, other_key: Any) -> Any:
    """Ten rounds over the counter (a, b, c, d): four words below 2^32, all uint64."""
    for _ in range(10):
        first, second = _TIMES * a, _OTHER_TIMES * c
        a, c = (second >> _HALF) ^ b ^ key, (first >> _HALF) ^ d ^ other_key
        b, d = second & _WORD, first & _WORD
        key, other_key = (key + _NEXT) & _WORD, (other_key + _OTHER_NEXT) & _WORD
    return a, b, c, d


_philox = njit(philox)


def draw_units(
    out: Any, at: Any, unit: Any, many: Any, row: Any, time: Any, kind: Any, words: Any, n: Any,
    below: Any, otherwise: Any,
) -> None:  # fmt: skip
    """Draw for the units from `unit` on into out[at : at + many].

    words: (key, other key, thresholds ...), uint64; with the probability of threshold n a value is
    `below`, else `otherwise`.
    """
    key, other_key, threshold = words[0], words[1], words[2 + n]
    for group in range(unit // 4, (unit + many + 3) // 4):
        a, b, c, d = _philox(
            np.uint64(group), np.uint64(row), np.uint64(time), np.uint64(kind), key, other_key
        )
        u = 4 * group - unit
        if 0 <= u < many:
            out[at + u] = below if a < threshold else otherwise
        if 0 <= u + 1 < many:
            out[at + u + 1] = below if b < threshold else otherwise
        if 0 <= u + 2 < many:
            out[at + u + 2] = below if c < threshold else otherwise
        if 0 <= u + 3 < many:
            out[at + u + 3] = below if d < threshold else otherwise


_draw_units = njit(draw_units)


@kernel("draw-rows")
def _draw_rows(out, width, kind, words, levels):  # type: ignore[no-untyped-def]
    for row in range(out.shape[0]):
        _draw_units(out[row], 0, 0, width, row, 0, kind, words, 0, levels[0, 0], levels[0, 1])


class Draw(NamedTuple):
    """What is drawn: `below` with the probability `rate`, else `otherwise`."""

    rate: float
    below: float
    otherwise: float


def dropout(rate: float) -> Draw:
    """0, or what leaves the expectation as it is: 1 / (1 - rate)."""
    return Draw(rate, 0.0, 1 / (1 - rate) if rate < 1 else 0.0)


def zoneout(rate: float) -> Draw:
    """1 where a unit keeps its state."""
    return Draw(rate, 1.0, 0.0)


def words_of(key: int, of: Sequence[Draw]) -> NDArray[np.uint64]:
    """The words of a key, and the threshold of each draw."""
    thresholds = [round(one.rate * 2**32) for one in of]
    return np.array([key & 0xFFFFFFFF, key >> 32, *thresholds], np.uint64)


def levels_of(of: Sequence[Draw], dtype: Any) -> Array:
    """(draws, 2): the values below the threshold, and else."""
    return np.array([(one.below, one.otherwise) for one in of], dtype).reshape(-1, 2)


@dataclass(frozen=True)
class Key:
    """What draws of a pass depend on: the call's key, and the pass's number among the call's."""

    key: int
    number: int = 0

    def kind(self, what: int) -> int:
        """The counter's word for what is drawn."""
        return what + 256 * self.number

    def rows(self, what: int, rows: int, width: int, rate: float, dtype: Any) -> NDArray[Any]:
        """A dropout mask (rows, width)."""
        found, one = np.empty((rows, width), dtype), (dropout(rate),)
        kind = np.int64(self.kind(what))
        _draw_rows(found, width, kind, words_of(self.key, one), levels_of(one, found.dtype))
        return found


@dataclass(frozen=True, eq=False)
class Draws:
    """What is drawn in a pass, of its direction of its layer.

    of: the values of `Cell.drawn`, drawn anew at each step of each row. h_mask (B, P) or None:
    what h is multiplied by before R, the same at all steps. first: the time of the first step.
    """

    key: Key
    of: tuple[Draw, ...] = ()
    h_mask: Array | None = None
    first: int = 0

    def after(self, steps: int) -> "Draws":
        """Of the same sequences from a later time on."""
        return replace(self, first=self.first + steps)
