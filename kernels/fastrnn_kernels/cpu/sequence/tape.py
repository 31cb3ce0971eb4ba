"""What the forward pass of one direction of one layer keeps for the backward pass."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.product.weights import Weights
from fastrnn_kernels.rows import Rows

#: The arrays of a tape that depend on the call. Where a cell has no use for one, it is empty.
ARRAYS = "x", "saved", "old_h", "old_rest", "inner", "full_h"


@dataclass(frozen=True, eq=False)
class Tape:
    """What the backward pass of one direction reads."""

    weights: Weights
    rows: Rows
    x: Array  # (T, B, I)
    reverse: bool
    reset: NDArray[np.bool_] | None  # (T, B)
    # HL and PL: H and P padded to whole vectors
    saved: Array  # (T, B, K, HL)
    old_h: Array  # (T, B, PL)
    old_rest: Array  # (states but h, T, B, HL)
    inner: Array  # (T, B, HL) or empty
    full_h: Array  # (T, B, HL) or empty
