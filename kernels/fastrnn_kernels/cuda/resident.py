"""The path for R that fits the multiprocessors' shared memory: a pass in one launch."""

from typing import Any

import numpy as np

from fastrnn_kernels.cuda import passes
from fastrnn_kernels.cuda.arrays import flat, flat_or, xp
from fastrnn_kernels.cuda.division import Division
from fastrnn_kernels.cuda.launch import launch_blocks
from fastrnn_kernels.cuda.resident_kernels import backward_kernel, forward_kernel


def forward(given: passes.Forward, division: Division) -> None:
    """Run a forward pass."""
    weights, rows, tape = given.weights, given.rows, given.tape
    dtype, matrices = weights.dtype, weights.matrices
    T, B, H = rows.T, rows.B, weights.hidden_size
    nothing, no_reset = xp.zeros(1, dtype), xp.zeros(1, bool)
    h = xp.empty((2, B, H), dtype)
    h[0] = given.start_h
    rest = given.start_rest.copy()
    kept: tuple[Any, ...] = (None,) * 3
    if tape is not None:
        kept = tape.saved, tape.old_h, tape.old_rest
    launch_blocks(
        forward_kernel(weights.cell, np.dtype(dtype), division.rows, division.gridded),
        division.blocks, division.threads, division.shared_bytes,
        flat(passes.x_sums(given)), flat(matrices.h), flat(matrices.bias), flat(matrices.h_bias),
        flat(h), flat(rest), flat(given.start_h), flat(given.start_rest), flat(given.final_h),
        flat(given.final_rest), passes.lengths_of(rows), flat_or(given.reset, no_reset),
        flat(given.y), *(flat_or(array, nothing) for array in kept),
        rows.longest, T, B, H, division.units, division.parts, given.y.shape[2], given.y_at,
        given.reverse, given.reset is not None, tape is not None,
    )  # fmt: skip


def backward(given: passes.Backward, division: Division) -> None:
    """Run a backward pass."""
    tape = given.tape
    weights, rows = tape.weights, tape.rows
    dtype = weights.dtype
    T, B, H, E = rows.T, rows.B, weights.hidden_size, len(weights.cell.gates)
    no_reset = xp.zeros(1, bool)
    dh, d_product = xp.zeros((B, H), dtype), xp.zeros((B, H), dtype)
    d_rest = xp.zeros((len(weights.cell.states) - 1, B, H), dtype)
    d_now = xp.zeros((2, B, E * H), dtype)
    launch_blocks(
        backward_kernel(weights.cell, np.dtype(dtype), division.rows, division.gridded),
        division.blocks, division.threads, division.shared_bytes,
        flat(given.dy), flat(weights.matrices.h), flat(dh), flat(d_rest), flat(d_product),
        flat(d_now), flat(given.d_final_h), flat(given.d_final_rest), flat(given.d_start_h),
        flat(given.d_start_rest), passes.lengths_of(rows), flat_or(tape.reset, no_reset),
        flat(tape.saved), flat(tape.old_h), flat(tape.old_rest), flat(given.d_sums),
        rows.longest, T, B, H, division.units, division.parts, given.dy.shape[2], given.y_at,
        tape.reverse, tape.reset is not None,
    )  # fmt: skip
    passes.finish_backward(given, dh, d_product, d_rest)
