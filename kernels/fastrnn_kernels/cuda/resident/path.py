"""The path for R that fits on the multiprocessors: a pass, or both directions', in one launch."""

from collections.abc import Callable

from fastrnn_kernels.cuda.data import passes
from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.launch.arrays import Array, xp
from fastrnn_kernels.cuda.launch.kernel import Kernel
from fastrnn_kernels.cuda.launch.launch import launch_blocks
from fastrnn_kernels.cuda.resident.backward import backward_kernel
from fastrnn_kernels.cuda.resident.division import Division
from fastrnn_kernels.cuda.resident.forward import forward_kernel
from fastrnn_kernels.cuda.resident.fragments import fragments_of

Arrays = tuple[Array | None, ...]


def forward(*given: passes.ForwardArguments, division: Division) -> None:
    """Run the forward pass of one direction, or of both, divided alike."""
    first, last = given[0], given[-1]
    exchanged = division.exchanged(first.rows.B)

    def arrays(one: passes.ForwardArguments) -> Arrays:
        weights, tape = one.weights, one.tape
        kept = (None, None, None) if tape is None else (tape.saved, tape.old_h, tape.old_rest)
        exchange, met = _exchange(division, exchanged, weights)
        return (
            passes.x_sums(one), fragments_of(weights, division), weights.matrices.bias,
            weights.matrices.h_bias, weights.matrices.units, exchange, one.start_h.copy(),
            one.start_rest.copy(), one.start_h, one.start_rest, one.final_h, one.final_rest, *kept,
            passes.lengths_of(one.rows), met, one.reset,
        )  # fmt: skip

    _launch(
        forward_kernel, division, first.weights, [arrays(one) for one in given],
        first.y,
        (first.rows.longest, first.rows.T, first.rows.B, first.y.shape[2], first.y_at, exchanged),
        last.y_at, (first.reverse, first.reset is not None, first.tape is not None), last.reverse,
    )  # fmt: skip


def backward(*given: passes.BackwardArguments, division: Division) -> None:
    """Run the backward pass of one direction, or of both, divided alike."""
    first, last = given[0], given[-1]
    tape, H = first.tape, division.H
    rows, weights = tape.rows, tape.weights
    exchanged = division.exchanged(rows.B)
    dh, d_product = xp.zeros((2, len(given), rows.B, H), weights.dtype)
    d_rest = xp.zeros((len(given), weights.cell.N - 1, rows.B, H), weights.dtype)

    def arrays(k: int, one: passes.BackwardArguments) -> Arrays:
        weights, tape = one.tape.weights, one.tape
        exchange, met = _exchange(division, exchanged, weights)
        return (
            fragments_of(weights, division), weights.matrices.units, exchange, dh[k], d_rest[k],
            d_product[k], one.d_final_h, one.d_final_rest, one.d_start_h, one.d_start_rest,
            tape.saved, tape.old_h, tape.old_rest, one.d_sums, one.d_units,
            passes.lengths_of(tape.rows), met, tape.reset,
        )  # fmt: skip

    _launch(
        backward_kernel, division, weights, [arrays(k, one) for k, one in enumerate(given)],
        first.dy, (rows.longest, rows.T, rows.B, first.dy.shape[2], first.y_at, exchanged),
        last.y_at, (tape.reverse, tape.reset is not None), last.tape.reverse,
    )  # fmt: skip
    for k, one in enumerate(given):
        passes.finish_backward(one, dh[k], d_product[k], d_rest[k])


def _exchange(division: Division, exchanged: int, weights: Weights) -> tuple[Array, Array]:
    """Where blocks that share the units exchange the operand, and where they meet."""
    if not division.gridded:
        return None, None
    return xp.zeros((2, exchanged), weights.dtype), xp.zeros(1, "int64")


def _launch(
    kernel: Callable[..., Kernel],
    division: Division,
    weights: Weights,
    arrays: list[Arrays],
    shared: Array,
    sizes: tuple[int, ...],
    last_y_at: int,
    flags: tuple[bool, ...],
    last_reverse: bool,
) -> None:
    both = len(arrays) == 2
    launch_blocks(
        kernel(weights.cell, weights.dtype, division.compiled, both),
        len(arrays) * division.blocks, division.threads, division.shared_bytes,
        *(array for one in arrays for array in one), shared, *sizes, division.rows,
        *((last_y_at,) if both else ()), *flags, *((last_reverse,) if both else ()),
        cooperative=division.gridded, cluster=division.cluster,
    )  # fmt: skip
