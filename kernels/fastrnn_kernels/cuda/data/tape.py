"""New tapes on the GPU."""

from typing import Any

from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.launch.arrays import Array, take, xp
from fastrnn_kernels.rows import Rows
from fastrnn_kernels.tape import Tape


def new_tape(weights: Weights, rows: Rows, x: Array, reverse: bool, reset: Any) -> Tape[Weights]:
    """A tape to be written; zeros where a row has ended, which products over all steps read."""
    cell, dtype = weights.cell, weights.dtype
    T, B, H, P = rows.T, rows.B, weights.hidden_size, weights.state_size
    make = xp.zeros if rows.ragged else xp.empty
    none = (0, 0, 0)
    return Tape(
        weights, rows, x, reverse, None if reset is None else take(reset),
        saved=make((T, B, cell.K, H), dtype),
        old_h=make((T, B, P), dtype),
        old_rest=make((cell.N - 1, T, B, H), dtype),
        inner=make((T, B, H) if cell.late else none, dtype),
        full_h=make((T, B, H) if weights.w_hr is not None else none, dtype),
    )  # fmt: skip
