"""The gradients that are products over all time steps, computed after the loop over them."""

import numpy as np

from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.isa.instruction_set import MAX_ROWS
from fastrnn_kernels.cpu.product.panels import VECTORS
from fastrnn_kernels.cpu.product.weights import Weights, lanes_of
from fastrnn_kernels.cpu.sequence import time_products
from fastrnn_kernels.cpu.threads import pool
from fastrnn_kernels.cpu.threads.job import Job
from fastrnn_kernels.cpu.threads.pool import parts_of
from fastrnn_kernels.gradients import Gradients, in_gate_order
from fastrnn_kernels.rows import Indices
from fastrnn_kernels.tape import Tape


def gradients(
    tape: Tape[Weights], d_sums: Array, dh_tape: Array, d_start_h: Array, d_start_rest: Array
) -> Gradients:
    """The gradients that are products over all steps."""
    weights, rows = tape.weights, tape.rows
    cell, dtype = weights.cell, weights.dtype
    I, H, P = weights.input_size, weights.hidden_size, weights.state_size
    G, A, L, E, S = cell.G, cell.A, cell.L, cell.E, cell.S
    running = rows.running
    dx = memory.empty(tape.x.shape, dtype)
    rows.clear_padding(dx)
    d_bias = np.zeros(S * H, dtype)
    jobs = [
        time_products.bias_gradient(1, False, d_sums, S * H, running, d_bias, np.empty_like(d_bias))
    ]
    jobs.append(_input_job(d_sums, S * H, G * H, weights.backward().x, running, dx))
    d_x_rows, job = _weight_job(d_sums, S * H, 0, G * H, tape.x, I, running)
    jobs.append(job)
    d_h_rows, job = _weight_job(d_sums, S * H, A * H, E * H, tape.old_h, P, running)
    jobs.append(job)
    d_late_rows = np.empty((0, P), dtype)
    if L:
        d_late_rows, job = _weight_job(d_sums, S * H, E * H, L * H, tape.inner, H, running)
        jobs.append(job)
    d_projection = None
    if weights.w_hr is not None:
        d_projection, job = _weight_job(dh_tape, P, 0, P, tape.full_h, H, running)
        jobs.append(job)
    pool.run(jobs, float(running.size) * G * H * (2 * I + P))

    h_rows = np.concatenate([d_h_rows, d_late_rows]) if L else d_h_rows
    return Gradients(
        x=dx,
        start_h=d_start_h,
        start_rest=d_start_rest,
        w_ih=in_gate_order(np, cell, d_x_rows, cell.x_gates),
        w_hh=in_gate_order(np, cell, h_rows, cell.h_gates),
        b_ih=in_gate_order(np, cell, d_bias[: G * H], cell.x_gates),
        b_hh=in_gate_order(np, cell, d_bias[A * H :].copy(), cell.h_gates),
        w_hr=None if d_projection is None else np.ascontiguousarray(d_projection),
    )


def _parts(count: int, work: float) -> tuple[int, int]:
    """Of 0..count for the threads, in whole tiles: how many parts, and the size of each."""
    parts = parts_of(work, 1)
    size = max(1, -(-count // (parts * MAX_ROWS)) * MAX_ROWS)
    return -(-count // size), size


def _weight_job(
    d_sums: Array, width: int, at: int, M: int, b: Array, N: int, running: Indices
) -> tuple[Array, Job]:
    """The (M, N) gradient of a weight that multiplied b (T, B, N or more), and its job."""
    dtype, lanes = b.dtype, lanes_of(b.dtype)
    padded = -(-N // (VECTORS * lanes)) * VECTORS * lanes
    out = memory.zeros((M * padded,), dtype)
    parts, each = _parts(M, float(running.size) * M * N)
    scratch = memory.empty((parts * time_products.weight_scratch(N, lanes),), dtype)
    indices = np.empty(parts * MAX_ROWS, np.int64)
    job = time_products.weight_gradient(
        parts, False, d_sums, at, width, b, b.shape[2], N, running, M, each, out, scratch, indices
    )
    # Rows are padded to whole vectors where N is not.
    return out.reshape(M, padded)[:, :N], job


def _input_job(
    d_sums: Array, width: int, depth: int, panels: Array, running: Indices, dx: Array
) -> Job:
    """What computes dx (T, B, I)."""
    dtype, I = dx.dtype, dx.shape[2]
    parts, each = _parts(running.size, float(running.size) * depth * I)
    scratch = memory.empty((parts * (MAX_ROWS + 1) * VECTORS * lanes_of(dtype),), dtype)
    indices = np.empty(parts * time_products.INPUT_ROWS, np.int64)
    return time_products.input_gradient(
        parts, False, d_sums, width, depth, panels, running, each, dx, I, scratch, indices
    )
