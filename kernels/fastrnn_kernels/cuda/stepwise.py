"""The path for any shape: to each step a product with R and a kernel of a thread to a unit."""

from fastrnn_kernels.cuda import passes
from fastrnn_kernels.cuda.arrays import xp
from fastrnn_kernels.cuda.launch import launch
from fastrnn_kernels.cuda.stepwise_kernels import backward_kernels, forward_kernels


def forward(given: passes.Forward) -> None:
    """Run a forward pass."""
    weights, rows, tape = given.weights, given.rows, given.tape
    cell, dtype, matrices = weights.cell, weights.dtype, weights.matrices
    T, B, H, P = rows.T, rows.B, weights.hidden_size, weights.state_size
    L, Y = len(cell.late), given.y.shape[2]
    E = len(cell.gates) - L
    projected, taping = weights.w_hr is not None, tape is not None
    kernels = forward_kernels(cell, dtype, projected)

    x_sums = passes.x_sums(given)
    h, rest = given.start_h.copy(), given.start_rest.copy()
    h_sums, late_sums = xp.empty((B, E * H), dtype), xp.empty((B, L * H), dtype)
    # Rows that have ended keep theirs, which are multiplied and then not read.
    full_h, inner = xp.zeros((2, B, H), dtype)
    new_h = xp.empty((B, P), dtype)
    lengths, resetting = passes.lengths_of(rows), given.reset is not None
    saved = old_h = old_rest = inner_tape = full_tape = None
    if tape is not None:
        saved, old_h, old_rest = tape.saved, tape.old_h, tape.old_rest
        inner_tape, full_tape = tape.inner, tape.full_h
    for s in range(T):
        xp.matmul(h, matrices.h.T, out=h_sums)
        if L:
            launch(
                kernels.inner, B * H, x_sums, h_sums, matrices.bias, h, rest, lengths,
                inner, inner_tape, s, B, H, given.reverse, taping,
            )  # fmt: skip
            xp.matmul(inner, matrices.late.T, out=late_sums)
        launch(
            kernels.gates, B * H, x_sums, h_sums, late_sums, matrices.bias, matrices.h_bias, h,
            rest, given.start_h, given.start_rest, given.final_h, given.final_rest, lengths,
            given.reset, given.y, saved, old_h, old_rest, full_h, full_tape, s, T, B, H, Y,
            given.y_at, given.reverse, resetting, taping,
        )  # fmt: skip
        if projected:
            xp.matmul(full_h, matrices.projection.T, out=new_h)
            launch(
                kernels.keep, B * P, new_h, h, given.start_h, given.final_h, lengths,
                given.reset, given.y, old_h, s, B, P, Y, given.y_at, given.reverse, resetting,
                taping,
            )  # fmt: skip


def backward(given: passes.Backward) -> None:
    """Run a backward pass."""
    tape = given.tape
    weights, rows = tape.weights, tape.rows
    cell, dtype, matrices = weights.cell, weights.dtype, weights.matrices
    T, B, H, P = rows.T, rows.B, weights.hidden_size, weights.state_size
    L, N, Y = len(cell.late), len(cell.states), given.dy.shape[2]
    E = len(cell.gates) - L
    projected = weights.w_hr is not None
    kernels = backward_kernels(cell, dtype, projected)

    dh, d_product, dh_now = xp.zeros((3, B, P), dtype)
    d_rest = xp.zeros((N - 1, B, H), dtype)
    d_now, d_late_now = xp.zeros((B, E * H), dtype), xp.zeros((B, L * H), dtype)
    d_full, d_inner = xp.empty((2, B, H), dtype)
    lengths, resetting = passes.lengths_of(rows), tape.reset is not None
    for s in range(T - 1, -1, -1):
        place = (Y, given.y_at, tape.reverse, resetting)
        if projected:
            launch(
                kernels.hidden, B * P, given.dy, d_product, dh, given.d_final_h,
                given.d_start_h, lengths, tape.reset, dh_now, given.dh_tape, s, B, P, *place,
            )  # fmt: skip
            xp.matmul(dh_now, matrices.projection, out=d_full)
        if L:
            launch(
                kernels.late, B * H, given.dy, d_product, dh, given.d_final_h, given.d_start_h,
                lengths, tape.reset, tape.saved, tape.old_h, given.d_sums, d_late_now, s, B, H,
                *place,
            )  # fmt: skip
            xp.matmul(d_late_now, matrices.late, out=d_inner)
        launch(
            kernels.gates, B * H, given.dy, d_product, dh, d_rest, given.d_final_h,
            given.d_final_rest, given.d_start_h, given.d_start_rest, d_full, d_inner, lengths,
            tape.reset, tape.saved, tape.old_h, tape.old_rest, given.d_sums, d_now, s, T, B, H,
            *place,
        )  # fmt: skip
        xp.matmul(d_now, matrices.h, out=d_product)
    passes.finish_backward(given, dh, d_product, d_rest)
