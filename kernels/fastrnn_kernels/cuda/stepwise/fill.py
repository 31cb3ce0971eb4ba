"""The kernel that writes a table (`table.py`); like all kernels, it compiles without a GPU."""

from functools import cache

import numpy as np
from numba import cuda

from fastrnn_kernels.cuda.isa.values import store
from fastrnn_kernels.cuda.launch.kernel import Kernel

#: Words of a table.
WORDS = 20


@cache
def fill_kernel() -> Kernel:
    """Writes a table."""
    stored = store(WORDS)

    def fill(  # type: ignore[no-untyped-def]
        words, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t
    ):
        if cuda.grid(1) == 0:
            stored(words, 0, 1, (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t))

    return Kernel(fill, np.dtype(np.int64), "n" + "i" * WORDS)
