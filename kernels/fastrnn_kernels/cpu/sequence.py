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
from fastrnn_kernels.cpu.operands import VALUES
from fastrnn_kernels.cpu.rows import Indices, Rows
from fastrnn_kernels.cpu.tape import Tape
from fastrnn_kernels.cpu.threads import parts_of
from fastrnn_kernels.cpu.tile import MAX_ROWS, VECTORS, vectors_per_gate
from fastrnn_kernels.cpu.weights import Weights, lanes_of

#: Bytes of the sums of a block of time steps: they leave most of a second-level cache to R.
SUMS_BYTES = 1 << 18
#: A team splits the units in place of the rows where a thread would get fewer rows than make
#: use of its multipliers, or R is so large that each had better keep its own part of it near;
#: but not where a step has less multiply-adds than waiting for each other costs (measured).
FEW_ROWS, LARGE_WEIGHTS, MIN_STEP_WORK = 4, 1 << 20, 40_000
#: Rows from which on R is read so seldom that teams gain nothing (measured).
TEAM_ROWS = 2048
#: Rows that a task takes through all steps, at most twice as many.
MANY_ROWS = 48


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _multiply_adds(rows: Rows, weights: Weights, columns: int) -> float:
    """Of a product of all steps with so many columns of the weights."""
    return float(rows.steps) * len(weights.cell.gates) * weights.hidden_size * columns


def _split(rows: Rows, weights: Weights, columns: int, share: int) -> list[tuple[int, int, int]]:
    """Runs of rows (first, last), each with the members of the team that takes it."""
    parts = parts_of(_multiply_adds(rows, weights, columns), share)
    step_work = rows.B * weights.w_hh.size
    few_rows = FEW_ROWS * parts > rows.B or (
        weights.w_hh.nbytes >= LARGE_WEIGHTS and rows.B < TEAM_ROWS
    )
    if parts > 1 and few_rows and step_work >= MIN_STEP_WORK:
        return [(0, rows.B, parts)]
    # More rows at a time than make good tiles only push their sums out of the caches.
    return [(first, last, 1) for first, last in rows.split(max(parts, rows.B // MANY_ROWS))]


@dataclass(frozen=True, eq=False)
class Forward:
    """A forward pass: tasks to run, and its results, there once they have run."""

    tasks: list[threads.Team]
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

    x (T, B, I) and y (T, B, Y) C-contiguous; h goes to the columns of y from y_at on, zeros
    where a row is padding. start_h (B, P), start_rest (states but h, B, H).
    """
    cell, dtype = weights.cell, weights.dtype
    if cell.reads_h and weights.w_hr is not None:
        raise ValueError(f"cell {cell.name} reads h of its own unit, which a projection has not")
    T, B, I, H, P = rows.T, rows.B, weights.input_size, weights.hidden_size, weights.state_size
    projected = weights.w_hr is not None
    S, K, N = len(cell.sums), len(cell.saved), len(cell.states)
    lanes = lanes_of(dtype)
    U = vectors_per_gate(cell) * lanes
    HL, PL, HU = _padded(H, lanes), _padded(P, lanes), _padded(H, U)
    PU = _padded(P, VECTORS * lanes) if projected else HU
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
            saved=memory.empty((T, B, K, HL), dtype),
            old_h=memory.empty((T, B, PL), dtype),
            old_rest=memory.empty((N - 1, T, B, HL), dtype),
            inner=memory.empty((T, B, HL), dtype) if cell.late else nothing,
            full_h=memory.empty((T, B, HL), dtype) if projected else nothing,
        )
    kept = (
        (tape.saved, tape.old_h, tape.old_rest, tape.inner, tape.full_h) if tape else (nothing,) * 5
    )
    panels = weights.forward()
    values = VALUES[weights.products]
    run = forward_kernel(cell, values)
    operand = weights.operand_dtype
    if taping and values > 1:
        raise ValueError(f"products in {weights.products} are for inference: they keep no tape")
    no_mask = np.empty(0, np.bool_)

    def task(first: int, last: int, largest: int = 1) -> threads.Team:
        many = last - first
        step_bytes = many * HU * S * dtype.itemsize
        steps = max(1, min(T, SUMS_BYTES * largest // max(1, step_bytes)))
        elements = many * HU // values
        of_team = [
            2 * many * PU,
            (N - 1) * many * HU,
            many * PU if values > 1 else 0,
            elements if projected else 0,
            elements if cell.late else 0,
        ]
        shared = memory.scratch(of_team, dtype) if largest > 1 else None

        def work(member: int, members: int, sync: Indices) -> None:
            units = -(-HU // (U * members)) * U
            x_row = _padded(I, lanes) // values if values > 1 else 0
            own = [steps * many * units * S, MAX_ROWS * S * U, steps * many * x_row]
            if shared is None:
                parts = memory.scratch([*of_team, *own], dtype)
            else:
                parts = [*shared, *memory.scratch(own, dtype)]
            state_h, state_rest, h_rows, full_h, inner, sums, tile, x_rows = parts
            if values > 1:
                h_rows, full_h, inner, x_rows = (
                    part.view(operand) for part in (h_rows, full_h, inner, x_rows)
                )
            else:
                h_rows, x_rows = state_h, flat(x)
            at = np.empty(steps * many, np.int64), *np.empty((3, many), np.int64)
            run(
                flat(x), flat(y), no_mask if reset is None else flat(reset),
                rows.order, rows.lengths, rows.valid,
                panels.x, panels.bias, panels.h, panels.h_bias, panels.late, panels.projection,
                flat(start_h), flat(start_rest), flat(final_h), flat(final_rest),
                *map(flat, kept),
                state_h, state_rest, h_rows, full_h, inner, sync,
                sums, tile, x_rows, *at,
                T, B, I, H, P, y.shape[2], y_at, first, last, steps, member, members,
                reverse, reset is not None, projected, taping,
            )  # fmt: skip

        return threads.Team(largest, work)

    tasks = [task(*piece) for piece in _split(rows, weights, I + P, share)]
    return Forward(tasks, _multiply_adds(rows, weights, I + P), final_h, final_rest, tape)


@dataclass(frozen=True, eq=False)
class Backward:
    """A backward pass through time: tasks to run, then `finish` for the gradients."""

    tasks: list[threads.Team]
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
    S, N = len(cell.sums), len(cell.states)
    width = VECTORS * lanes_of(dtype)
    HU, PU = _padded(H, width), _padded(P, width)
    d_sums = memory.empty((T, B, S, H), dtype)
    d_start_h, d_start_rest = np.zeros((B, P), dtype), np.zeros((N - 1, B, H), dtype)
    dh_tape = memory.empty((T, B, P) if projected else (0,), dtype)
    panels = weights.backward()
    run = backward_kernel(cell)
    reset = np.empty(0, np.bool_) if tape.reset is None else tape.reset

    def task(first: int, last: int, largest: int = 1) -> threads.Team:
        many = last - first
        shared = memory.scratch(
            [
                many * PU,
                (N - 1) * many * HU,
                many * HU if projected else 0,
                many * HU if cell.late else 0,
            ],
            dtype,
        )

        def work(member: int, members: int, sync: Indices) -> None:
            row_at, dh_at, t_at = np.empty((3, many), np.int64)
            run(
                flat(dy), flat(d_sums), flat(reset), rows.order, rows.lengths, rows.valid,
                panels.h, panels.late, panels.projection,
                flat(d_final_h), flat(d_final_rest), flat(d_start_h), flat(d_start_rest),
                flat(tape.saved), flat(tape.old_h), flat(tape.old_rest), flat(dh_tape),
                *shared, sync, row_at, dh_at, t_at,
                T, B, H, P, dy.shape[2], y_at, first, last, member, members,
                tape.reverse, tape.reset is not None, projected,
            )  # fmt: skip

        return threads.Team(largest, work)

    tasks = [task(*piece) for piece in _split(rows, weights, P, share)]

    def finish() -> Gradients:
        return gradients(tape, d_sums, dh_tape, d_start_h, d_start_rest)

    return Backward(tasks, _multiply_adds(rows, weights, P), finish)
