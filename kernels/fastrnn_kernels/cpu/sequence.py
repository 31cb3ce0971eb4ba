"""A whole sequence through one direction of one layer, forward and backward.

`start_forward` and `start_backward` allocate what a pass needs and split its rows into
tasks; a caller may gather the tasks of both directions and run them together
(`threads.run`), then read the results.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastrnn_kernels.cpu import memory, threads
from fastrnn_kernels.cpu.backward import backward_kernel
from fastrnn_kernels.cpu.forward import forward_kernel
from fastrnn_kernels.cpu.gradients import Gradients, gradients
from fastrnn_kernels.cpu.memory import Array, flat
from fastrnn_kernels.cpu.rows import Rows
from fastrnn_kernels.cpu.tape import Tape
from fastrnn_kernels.cpu.threads import parts_of
from fastrnn_kernels.cpu.tile import MAX_ROWS, VECTORS, vectors_per_gate
from fastrnn_kernels.cpu.weights import Weights, lanes_of

#: Bytes of the sums of a block of time steps: they leave most of a second-level cache to R.
SUMS_BYTES = 1 << 18


@dataclass(frozen=True, eq=False)
class Forward:
    """A forward pass: tasks to run, and its results, there once they have run."""

    tasks: list[threads.Task]
    work: float  # multiply-adds
    final_h: Array  # (B, P)
    final_rest: Array  # (states but h, B, H)
    tape: Tape | None


def start_forward(
    weights: Weights,
    x: Array,
    start_h: Array,
    start_rest: Array,
    rows: Rows,
    y: Array,
    y_at: int,
    *,
    reverse: bool = False,
    reset: NDArray[np.bool_] | None = None,
    taping: bool = False,
    share: int = 1,
) -> Forward:
    """Prepare a forward pass.

    x (T, B, I) and y (T, B, Y) C-contiguous, y zeros where a row is padding; h goes to the
    columns of y from y_at on. start_h (B, P), start_rest (states but h, B, H).
    """
    cell, dtype = weights.cell, weights.dtype
    if cell.reads_h and weights.w_hr is not None:
        raise ValueError(f"cell {cell.name} reads h of its own unit, which a projection has not")
    T, B, I, H, P = rows.T, rows.B, weights.input_size, weights.hidden_size, weights.state_size
    projected = weights.w_hr is not None
    G, S, K, N = len(cell.gates), len(cell.sums), len(cell.saved), len(cell.states)
    U = vectors_per_gate(cell) * lanes_of(dtype)
    blocks = -(-H // U)
    final_h, final_rest = np.empty((B, P), dtype), np.empty((N - 1, B, H), dtype)
    nothing = np.empty(0, dtype)
    tape = None
    if taping:
        tape = Tape(
            weights,
            rows,
            x,
            reverse,
            reset,
            saved=memory.empty((T, B, K, H), dtype),
            old_h=memory.empty((T, B, P), dtype),
            old_rest=memory.empty((N - 1, T, B, H), dtype),
            inner=memory.empty((T, B, H), dtype) if cell.late else nothing,
            full_h=memory.empty((T, B, H), dtype) if projected else nothing,
        )
    kept = (
        (tape.saved, tape.old_h, tape.old_rest, tape.inner, tape.full_h) if tape else (nothing,) * 5
    )
    panels = weights.forward()
    run = forward_kernel(cell)
    no_mask = np.empty(0, np.bool_)

    def task(first: int, last: int) -> threads.Task:
        many = last - first
        step_bytes = max(1, many * blocks * S * U * dtype.itemsize)
        steps = max(1, min(T, SUMS_BYTES // step_bytes))
        width = VECTORS * lanes_of(dtype)
        P4 = -(-P // width) * width if projected else P
        parts = memory.scratch(
            [
                2 * many * P4,
                (N - 1) * many * H,
                many * H if projected else 0,
                many * H if cell.late else 0,
                steps * many * blocks * S * U,
                MAX_ROWS * (2 * N + S + K) * U,
            ],
            dtype,
        )
        positions = np.empty((steps + 2) * many, np.int64)
        x_at, h_at, u_at = positions[: -2 * many], positions[-2 * many : -many], positions[-many:]

        def work() -> None:
            run(
                flat(x), flat(y), no_mask if reset is None else flat(reset),
                rows.order, rows.lengths, rows.valid,
                panels.x, panels.bias, panels.h, panels.h_bias, panels.late, panels.projection,
                flat(start_h), flat(start_rest), flat(final_h), flat(final_rest),
                *map(flat, kept), *parts, x_at, h_at, u_at,
                T, B, I, H, P, y.shape[2], y_at, first, last, steps,
                reverse, reset is not None, projected, taping,
            )  # fmt: skip

        return work

    total = float(rows.steps) * G * H * (I + P)
    tasks = [task(first, last) for first, last in rows.split(parts_of(total, share))]
    return Forward(tasks, total, final_h, final_rest, tape)


@dataclass(frozen=True, eq=False)
class Backward:
    """A backward pass through time: tasks to run, then `finish` for the gradients."""

    tasks: list[threads.Task]
    work: float  # multiply-adds
    finish: Callable[[], Gradients]


def start_backward(
    tape: Tape, dy: Array, y_at: int, d_final_h: Array, d_final_rest: Array, *, share: int = 1
) -> Backward:
    """Prepare a backward pass: dy (T, B, Y) C-contiguous, read from column y_at on."""
    weights, rows = tape.weights, tape.rows
    cell, dtype = weights.cell, weights.dtype
    T, B, H, P = rows.T, rows.B, weights.hidden_size, weights.state_size
    projected = weights.w_hr is not None
    G, S, K, N = len(cell.gates), len(cell.sums), len(cell.saved), len(cell.states)
    lanes = lanes_of(dtype)
    width = VECTORS * lanes
    P4, H4 = (-(-size // width) * width for size in (P, H))
    d_sums = memory.empty((T, B, S, H), dtype)
    d_start_h, d_start_rest = np.zeros((B, P), dtype), np.zeros((N - 1, B, H), dtype)
    dh_tape = memory.empty((T, B, P) if projected else (0,), dtype)
    panels = weights.backward()
    run = backward_kernel(cell)
    reset = np.empty(0, np.bool_) if tape.reset is None else tape.reset

    def task(first: int, last: int) -> threads.Task:
        many = last - first
        parts = memory.scratch(
            [
                many * P4,
                (N - 1) * many * H,
                many * H4 if projected else 0,
                many * H4 if cell.late else 0,
                (3 * N + K + 1 + S) * lanes,
            ],
            dtype,
        )
        row_at, dh_at = np.empty(many, np.int64), np.empty(many, np.int64)

        def work() -> None:
            run(
                flat(dy), flat(d_sums), flat(reset), rows.order, rows.lengths, rows.valid,
                panels.h, panels.late, panels.projection,
                flat(d_final_h), flat(d_final_rest), flat(d_start_h), flat(d_start_rest),
                flat(tape.saved), flat(tape.old_h), flat(tape.old_rest), flat(dh_tape),
                *parts, row_at, dh_at,
                T, B, H, P, dy.shape[2], y_at, first, last,
                tape.reverse, tape.reset is not None, projected,
            )  # fmt: skip

        return work

    total = float(rows.steps) * G * H * P
    tasks = [task(first, last) for first, last in rows.split(parts_of(total, share))]

    def finish() -> Gradients:
        return gradients(tape, d_sums, dh_tape, d_start_h, d_start_rest)

    return Backward(tasks, total, finish)
