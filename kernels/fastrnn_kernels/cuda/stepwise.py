"""The path for any shape: to each step a product with R and a kernel of a thread to a unit."""

from fastrnn_kernels.cuda import passes
from fastrnn_kernels.cuda.arrays import flat, flat_or, launch, xp
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

    nothing = xp.zeros(1, dtype)
    no_reset = xp.zeros(1, bool)
    x_sums = flat(passes.x_sums(given))
    h, rest = given.start_h.copy(), flat(given.start_rest.copy())
    h_sums, late_sums = xp.empty((B, E * H), dtype), xp.empty((B, L * H), dtype)
    # Rows that have ended keep theirs, which are multiplied and then not read.
    full_h, inner, new_h = (xp.zeros((B, width), dtype) for width in (H, H, P))
    lengths = passes.lengths_of(rows)
    resetting, reset = given.reset is not None, flat_or(given.reset, no_reset)
    bias, h_bias = flat(matrices.bias), flat(matrices.h_bias)
    y, start_h, start_rest = flat(given.y), flat(given.start_h), flat(given.start_rest)
    final_h, final_rest = flat(given.final_h), flat(given.final_rest)
    if tape is None:
        saved = old_h = old_rest = inner_tape = full_tape = nothing
    else:
        saved, old_h, old_rest = flat(tape.saved), flat(tape.old_h), flat(tape.old_rest)
        inner_tape, full_tape = flat(tape.inner), flat(tape.full_h)
    flat_h, flat_sums, flat_late = flat(h), flat(h_sums), flat(late_sums)
    flat_full, flat_inner, flat_new = flat(full_h), flat(inner), flat(new_h)
    for s in range(T):
        xp.matmul(h, matrices.h.T, out=h_sums)
        if L:
            launch(
                kernels.inner, B * H, x_sums, flat_sums, bias, flat_h, rest, lengths,
                flat_inner, inner_tape, s, B, H, given.reverse, taping,
            )  # fmt: skip
            xp.matmul(inner, matrices.late.T, out=late_sums)
        launch(
            kernels.gates, B * H, x_sums, flat_sums, flat_late, bias, h_bias, flat_h,
            rest, start_h, start_rest, final_h, final_rest, lengths, reset, y, saved, old_h,
            old_rest, flat_full, full_tape, s, T, B, H, Y, given.y_at, given.reverse,
            resetting, taping,
        )  # fmt: skip
        if projected:
            xp.matmul(full_h, matrices.projection.T, out=new_h)
            launch(
                kernels.keep, B * P, flat_new, flat_h, start_h, final_h, lengths, reset, y,
                old_h, s, B, P, Y, given.y_at, given.reverse, resetting, taping,
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

    no_reset = xp.zeros(1, bool)
    dh, d_product, dh_now = (xp.zeros((B, P), dtype) for _ in range(3))
    d_others = xp.zeros((N - 1, B, H), dtype)
    d_rest = flat(d_others)
    d_now, d_late_now = xp.zeros((B, E * H), dtype), xp.zeros((B, L * H), dtype)
    d_full, d_inner = xp.zeros((B, H), dtype), xp.zeros((B, H), dtype)
    lengths = passes.lengths_of(rows)
    resetting, reset = tape.reset is not None, flat_or(tape.reset, no_reset)
    dy, d_sums, dh_tape = flat(given.dy), flat(given.d_sums), flat(given.dh_tape)
    saved, old_h, old_rest = flat(tape.saved), flat(tape.old_h), flat(tape.old_rest)
    d_final_h, d_final_rest = flat(given.d_final_h), flat(given.d_final_rest)
    d_start_h, d_start_rest = flat(given.d_start_h), flat(given.d_start_rest)
    for s in range(T - 1, -1, -1):
        place = (Y, given.y_at, tape.reverse, resetting)
        if projected:
            launch(
                kernels.hidden, B * P, dy, flat(d_product), flat(dh), d_final_h, d_start_h,
                lengths, reset, flat(dh_now), dh_tape, s, B, P, *place,
            )  # fmt: skip
            xp.matmul(dh_now, matrices.projection, out=d_full)
        if L:
            launch(
                kernels.late, B * H, dy, flat(d_product), flat(dh), d_final_h, d_start_h,
                lengths, reset, saved, old_h, d_sums, flat(d_late_now), s, B, H, *place,
            )  # fmt: skip
            xp.matmul(d_late_now, matrices.late, out=d_inner)
        launch(
            kernels.gates, B * H, dy, flat(d_product), flat(dh), d_rest, d_final_h, d_final_rest,
            d_start_h, d_start_rest, flat(d_full), flat(d_inner), lengths, reset, saved, old_h,
            old_rest, d_sums, flat(d_now), s, T, B, H, *place,
        )  # fmt: skip
        xp.matmul(d_now, matrices.h, out=d_product)
    passes.finish_backward(given, dh, d_product, d_others)
