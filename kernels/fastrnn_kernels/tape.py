"""What the forward pass of one direction of one layer keeps for the backward pass."""

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from fastrnn_kernels.rows import Rows
from fastrnn_kernels.weights import Weights

Array = Any  # of the device's own kind
Own = TypeVar("Own", bound=Weights)  # the device's own weights

#: The arrays of a tape that depend on the call. Where a cell has no use for one, it is empty.
ARRAYS = "x", "saved", "old_h", "old_rest", "inner", "full_h"


class Normed(NamedTuple):
    """What was normalised, each part by its gates in the order of the sums, and 1 / sqrt(...)."""

    x: Array  # (T, B, G, HL)
    h: Array  # (T, B, E, HL)
    scales: Array  # (T, B, 2), of x and of h


@dataclass(slots=True, eq=False)  # frozen ones take longer to make
class Tape(Generic[Own]):
    """What the backward pass of one direction reads.

    HL and PL are H and P, on the CPU padded to whole vectors.
    """

    weights: Own
    rows: Rows
    x: Array  # (T, B, I)
    reverse: bool
    reset: Array | None  # (T, B)
    saved: Array  # (T, B, K, HL)
    old_h: Array  # (T, B, PL)
    old_rest: Array  # (states but h, T, B, HL)
    inner: Array  # (T, B, HL) of a cell with late gates, or empty
    full_h: Array  # (T, B, HL) before a projection, or empty
    h_mask: Array | None = None  # (B, P or more): what h was multiplied by before R
    normed: "Normed | None" = None  # where there is a norm
