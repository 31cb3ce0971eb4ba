"""What the forward pass of one direction of one layer keeps for the backward pass."""

from dataclasses import dataclass
from typing import Any

from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.launch.arrays import Array, take, xp
from fastrnn_kernels.rows import Rows


@dataclass(frozen=True, eq=False)
class Tape:
    """What the backward pass of one direction reads."""

    weights: Weights
    rows: Rows
    x: Array  # (T, B, I)
    reverse: bool
    reset: Array | None  # (T, B)
    saved: Array  # (T, B, K, H)
    old_h: Array  # (T, B, P)
    old_rest: Array  # (states but h, T, B, H)
    inner: Array  # (T, B, H) or empty
    full_h: Array  # (T, B, H) or empty


def new_tape(weights: Weights, rows: Rows, x: Array, reverse: bool, reset: Any) -> Tape:
    """A tape to be written; zeros where a row has ended, which products over all steps read."""
    cell, dtype = weights.cell, weights.dtype
    T, B, H, P = rows.T, rows.B, weights.hidden_size, weights.state_size
    make = xp.zeros if rows.ragged else xp.empty
    none = (0, 0, 0)
    return Tape(
        weights, rows, x, reverse, None if reset is None else take(reset),
        saved=make((T, B, len(cell.saved), H), dtype),
        old_h=make((T, B, P), dtype),
        old_rest=make((len(cell.states) - 1, T, B, H), dtype),
        inner=make((T, B, H) if cell.late else none, dtype),
        full_h=make((T, B, H) if weights.w_hr is not None else none, dtype),
    )  # fmt: skip
