"""Which steps of a batch run, and what Keras shows at those that do not."""

from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn_kernels.rows import Rows


class Steps:
    """The steps of a batch in the order of the kernel: each row's unmasked ones, then the rest.

    mask (B, T) or None: true where a step runs; anywhere in a row, padding on either side and
    holes alike. go_backwards: time is run from its end, and outputs are given in that order.
    """

    def __init__(self, T: int, B: int, mask: Any, go_backwards: bool) -> None:
        self._backwards, self._columns = go_backwards, np.arange(B)
        self.masked = mask is not None and not mask.all()
        if not self.masked:
            self.rows = Rows.whole(T, B)
            return
        runs = mask.T[::-1] if go_backwards else mask.T
        self._runs = np.ascontiguousarray(runs, np.bool_)  # (T, B), in the order of the run
        order = np.argsort(~self._runs, axis=0, kind="stable")
        self._at = T - 1 - order if go_backwards else order
        self._order = order
        #: position among the kernel's steps of the last one that has run, -1 before the first
        self._latest = np.cumsum(self._runs, axis=0) - 1
        lengths = self._latest[-1] + 1
        self._began = lengths > 0
        self.rows = Rows(T, B, lengths.astype(np.int64))

    def gather(self, x: Array) -> Array:
        """x (B, T, I) -> (T, B, I), in the kernel's order; a copy."""
        x = x.swapaxes(0, 1)
        if self.masked:
            gathered: Array = x[self._at, self._columns]
            return gathered
        return np.array(x[::-1] if self._backwards else x, order="C")

    def scatter(self, dx: Array) -> Array:
        """dx (T, B, I) in the kernel's order -> (B, T, I)."""
        if self.masked:
            scattered = np.empty_like(dx)
            scattered[self._at, self._columns] = dx
            return scattered.swapaxes(0, 1)
        return (dx[::-1].copy() if self._backwards else dx).swapaxes(0, 1)

    def outputs(self, y: Array, before: Array, zeros: bool) -> Array:
        """y (T, B, H) in the kernel's order -> (B, T, H), as Keras shows it.

        At a masked step stands the output before it, `before` (B, H) where there is none;
        with `zeros`, zeros.
        """
        if not self.masked:
            return y.swapaxes(0, 1)
        shown: Array = y[np.maximum(self._latest, 0), self._columns]
        if zeros:
            shown[~self._runs] = 0
        else:
            np.copyto(shown, before, where=(self._latest < 0)[:, :, None])
        return shown.swapaxes(0, 1)

    def d_outputs(self, d_shown: Array, zeros: bool) -> tuple[Array, Array | None]:
        """The gradient (B, T, H) of what was shown -> that of y, and of `before` if it was."""
        d_shown = d_shown.swapaxes(0, 1)
        if not self.masked:
            return np.ascontiguousarray(d_shown), None
        if zeros:  # what stands behind a row's end is not read
            return d_shown[self._order, self._columns], None
        held, sums = np.zeros_like(d_shown[0]), np.empty_like(d_shown)
        for t in reversed(range(len(d_shown))):
            np.add(d_shown[t], held, out=sums[t])
            np.copyto(held, sums[t])
            held[self._runs[t]] = 0
        return sums[self._order, self._columns], held

    def last(self, h: Array, before: Array, zeros: bool) -> Array:
        """What the last step shows: h (B, H) of each row's end, `before` if it never ran."""
        if not self.masked:
            return h.copy()
        shown = np.where(self._began[:, None], h, before)
        if zeros:
            shown[~self._runs[-1]] = 0
        return shown

    def d_last(self, d_shown: Array, zeros: bool) -> tuple[Array, Array | None]:
        """The gradient of what the last step showed -> that of h, and of `before` if it was."""
        if not self.masked:
            return d_shown, None
        runs = (self._runs[-1] if zeros else self._began)[:, None]
        nothing = np.zeros_like(d_shown)
        ended = np.where(runs, d_shown, nothing)
        return ended, None if zeros else np.where(runs, nothing, d_shown)
