"""What a path is given: the arrays of one pass through one direction of one layer."""

from dataclasses import dataclass
from functools import lru_cache

from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.launch.arrays import Array, wait, xp
from fastrnn_kernels.cuda.launch.blas import product
from fastrnn_kernels.cuda.launch.launch import caller_key
from fastrnn_kernels.draws import Draws
from fastrnn_kernels.rows import Rows
from fastrnn_kernels.tape import Tape


@dataclass(frozen=True, eq=False)
class ForwardArguments:
    """Those of a forward pass; shapes as `sequence.start_forward` and `Tape` tell them."""

    weights: Weights
    x: Array
    start_h: Array
    start_rest: Array
    final_h: Array
    final_rest: Array
    rows: Rows
    y: Array
    y_at: int
    reverse: bool
    reset: Array | None
    tape: Tape[Weights] | None
    draws: Draws | None = None


@dataclass(frozen=True, eq=False)
class BackwardArguments:
    """Those of a backward pass; the last five are written."""

    tape: Tape[Weights]
    dy: Array
    y_at: int
    d_final_h: Array
    d_final_rest: Array
    d_start_h: Array
    d_start_rest: Array
    d_sums: Array
    dh_tape: Array
    d_units: Array  # (B, Q, H), zeros at first: what each row adds to those of units


def lengths_of(rows: Rows) -> Array:
    """The lengths of the rows in the order of the batch, on the GPU."""
    return xp.asarray(rows.given) if rows.ragged else _all(rows.T, rows.B, caller_key())


@lru_cache(maxsize=64)
def _all(T: int, B: int, stream: tuple[int, int]) -> Array:
    made = xp.full(B, T, "int64")
    wait()  # a stream that is made later may have this one's address
    return made


def x_sums(given: ForwardArguments) -> Array:
    """W x for all steps, (T * B, G H)."""
    weights = given.weights
    x, of = given.x.reshape(-1, weights.input_size), weights.matrices.x
    sums = xp.empty((x.shape[0], of.shape[0]), weights.dtype)
    product(x, of, sums, transposed=True, compute=weights.compute)
    return sums


def prepare_forward(given: ForwardArguments) -> None:
    """Write what kernels do not, who write where a row runs."""
    rows, P = given.rows, given.weights.state_size
    if rows.ragged or rows.T == 0:
        given.y[:, :, given.y_at : given.y_at + P] = 0
        # What has no step at all ends where it starts.
        given.final_h[...] = given.start_h
        given.final_rest[...] = given.start_rest


def finish_backward(given: BackwardArguments, dh: Array, d_product: Array, d_rest: Array) -> None:
    """Add what has come through to the first step to the gradient of the initial state."""
    rows = given.tape.rows
    if rows.T and not rows.ragged:
        given.d_start_h[...] += dh + d_product
        given.d_start_rest[...] += d_rest
        return
    none = xp.asarray(rows.given == 0)[:, None]
    given.d_start_h[...] += xp.where(none, given.d_final_h, dh + d_product)
    given.d_start_rest[...] += xp.where(none, given.d_final_rest, d_rest)
