"""The gradients that are products over all time steps, computed after the loop over them."""

from dataclasses import dataclass

import numpy as np

from fastrnn_kernels.cpu import memory, products, threads
from fastrnn_kernels.cpu.memory import Array, flat
from fastrnn_kernels.cpu.rows import Indices
from fastrnn_kernels.cpu.tape import Tape
from fastrnn_kernels.cpu.threads import parts_of
from fastrnn_kernels.cpu.tile import MAX_ROWS, VECTORS
from fastrnn_kernels.cpu.weights import lanes_of

#: Rows whose positions the gradient of x prepares at a time.
INPUT_GRADIENT_ROWS = MAX_ROWS * 16


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of one direction; of the weights in the cell's gate order."""

    x: Array
    start_h: Array
    start_rest: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array
    b_hh: Array
    w_hr: Array | None


def gradients(
    tape: Tape, d_sums: Array, dh_tape: Array, d_start_h: Array, d_start_rest: Array
) -> Gradients:
    """The gradients that are products over all steps."""
    weights, rows = tape.weights, tape.rows
    cell, dtype = weights.cell, weights.dtype
    I, H, P = weights.input_size, weights.hidden_size, weights.state_size
    S, A, L = len(cell.sums), len(cell.apart), len(cell.late)
    G = len(cell.gates)
    E = G - L
    running = rows.running
    dx = memory.empty(tape.x.shape, dtype)
    rows.clear_padding(dx)
    d_bias = np.zeros(S * H, dtype)
    tasks: list[threads.Task] = [
        lambda: products.bias_gradient(flat(d_sums), S * H, running, d_bias, np.empty_like(d_bias))
    ]
    tasks += _input_tasks(d_sums, S * H, G * H, weights.backward().x, running, dx)
    d_x_rows, more = _weight_tasks(d_sums, S * H, 0, G * H, tape.x, I, running)
    tasks += more
    d_h_rows, more = _weight_tasks(d_sums, S * H, A * H, E * H, tape.old_h, P, running)
    tasks += more
    d_late_rows = np.empty((0, P), dtype)
    if L:
        d_late_rows, more = _weight_tasks(d_sums, S * H, E * H, L * H, tape.inner, H, running)
        tasks += more
    d_projection = None
    if weights.w_hr is not None:
        d_projection, more = _weight_tasks(dh_tape, P, 0, P, tape.full_h, H, running)
        tasks += more
    threads.run(tasks, float(running.size) * G * H * (2 * I + P))

    def in_gate_order(by_sum: Array, gates: tuple[str, ...]) -> Array:
        if gates == cell.gates:
            return np.ascontiguousarray(by_sum)
        position = [gates.index(gate) for gate in cell.gates]
        return np.concatenate([by_sum[p * H : (p + 1) * H] for p in position])

    h_rows = np.concatenate([d_h_rows, d_late_rows]) if L else d_h_rows
    return Gradients(
        x=dx,
        start_h=d_start_h,
        start_rest=d_start_rest,
        w_ih=in_gate_order(d_x_rows, cell.x_gates),
        w_hh=in_gate_order(h_rows, cell.h_gates),
        b_ih=in_gate_order(d_bias[: G * H], cell.x_gates),
        b_hh=in_gate_order(d_bias[A * H :].copy(), cell.h_gates),
        w_hr=None if d_projection is None else np.ascontiguousarray(d_projection),
    )


def _ranges(count: int, work: float) -> list[tuple[int, int]]:
    """Runs of 0..count for the threads, in whole tiles."""
    parts = parts_of(work, 1)
    size = -(-count // (parts * MAX_ROWS)) * MAX_ROWS
    return [(first, min(first + size, count)) for first in range(0, count, max(size, 1))]


def _weight_tasks(
    d_sums: Array, width: int, at: int, M: int, b: Array, N: int, running: Indices
) -> tuple[Array, list[threads.Task]]:
    """The (M, N) gradient of a weight that multiplied b (T, B, N or more), and its tasks."""
    dtype = b.dtype
    panel = VECTORS * lanes_of(dtype)
    padded = -(-N // panel) * panel
    out = memory.zeros((M * padded,), dtype)

    def task(first: int, last: int) -> threads.Task:
        def work() -> None:
            products.weight_gradient(
                flat(d_sums), at, width, flat(b), b.shape[2], N, running, first, last, out,
                memory.empty((products.DEPTH * (products.SPAN + products.PADDING),), dtype),
                memory.empty((products.DEPTH * padded,), dtype),
                np.empty(MAX_ROWS, np.int64),
            )  # fmt: skip

        return work

    ranges = _ranges(M, float(running.size) * M * N)
    # Rows are padded to whole vectors where N is not.
    return out.reshape(M, padded)[:, :N], [task(*part) for part in ranges]


def _input_tasks(
    d_sums: Array, width: int, depth: int, panels: Array, running: Indices, dx: Array
) -> list[threads.Task]:
    """What computes dx (T, B, I)."""
    dtype, I = dx.dtype, dx.shape[2]

    def task(first: int, last: int) -> threads.Task:
        def work() -> None:
            products.input_gradient(
                flat(d_sums), width, depth, panels, running, first, last, flat(dx), I,
                memory.empty(((MAX_ROWS + 1) * VECTORS * lanes_of(dtype),), dtype),
                np.empty(INPUT_GRADIENT_ROWS, np.int64),
            )  # fmt: skip

        return work

    return [task(*part) for part in _ranges(running.size, float(running.size) * depth * I)]
