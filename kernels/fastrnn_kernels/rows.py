"""The rows of a batch, in the order in which kernels take them."""

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Rows:
    """The rows of a batch and their lengths, longest first.

    lengths (B,) or None, when all have T steps.
    """

    def __init__(self, T: int, B: int, lengths: Indices | None = None) -> None:
        self.T, self.B = T, B
        self.ragged = lengths is not None and bool((lengths < T).any())
        if lengths is None:
            lengths = np.full(B, T, np.int64)
        self.order: Indices = np.argsort(-lengths, kind="stable").astype(np.int64, copy=False)
        self.lengths: Indices = np.ascontiguousarray(lengths[self.order], np.int64)
        #: how many rows still run at each step
        self.valid: Indices = np.searchsorted(-self.lengths, -np.arange(T)).astype(np.int64)
        self.steps = int(lengths.sum())
        self.longest = int(lengths.max(initial=0))
        #: lengths in the order of the batch
        self.given = lengths

    @property
    def running(self) -> Indices:
        """Positions t * B + b of all steps that are not padding; made anew, not kept."""
        if not self.ragged:
            return np.arange(self.T * self.B, dtype=np.int64)
        return np.flatnonzero(np.arange(self.T)[:, None] < self.given).astype(np.int64)

    def clear_padding(self, array: NDArray[Any]) -> None:
        """Zeros into an array (T, B, ...) where a row has ended."""
        if self.ragged:
            for b, length in enumerate(self.given):
                array[length:, b] = 0

    @staticmethod
    @lru_cache(maxsize=64)
    def whole(T: int, B: int) -> "Rows":
        """The rows of a batch whose sequences all have T steps."""
        return Rows(T, B)

    def split(self, parts: int) -> list[tuple[int, int]]:
        """Runs of positions with about the same number of steps each."""
        parts = min(parts, self.B)
        if parts <= 1:
            return [(0, self.B)]
        ends = np.cumsum(self.lengths)
        total = int(ends[-1]) if self.B else 0
        cuts = [int(np.searchsorted(ends, total * k / parts, "left")) + 1 for k in range(1, parts)]
        edges = [0, *(min(cut, self.B) for cut in cuts), self.B]
        return [(a, b) for a, b in pairwise(edges) if a < b] or [(0, self.B)]
