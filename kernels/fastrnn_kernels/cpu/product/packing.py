"""Weights copied into panels, by the threads: a training step packs all of them anew."""

from collections.abc import Sequence

import numpy as np

from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.isa.llvm import flat
from fastrnn_kernels.cpu.product.tile import copy
from fastrnn_kernels.cpu.threads import pool
from fastrnn_kernels.cpu.threads.job import Job, job

#: Multiply-adds that take as long as the copy of a value (measured).
COPY_WORK = 12


@job("gate-panels", "the packing of weights")
def _gate_job(arguments):  # type: ignore[no-untyped-def]
    """out[n, k, g, u] = matrix[positions[g] H + n U + u, k], zeros beyond H, of panel `number`."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        matrix_given, positions, H, U, out = arguments(record)
        K, G = matrix_given.shape[1], positions.size
        matrix, step = flat(matrix_given), G * U
        many = min(U, H - number * U)
        for g in range(G):
            row, to = positions[g] * H + number * U, number * K * step + g * U
            if many == U:
                for k in range(K):
                    for u in range(U):
                        out[to + k * step + u] = matrix[(row + u) * K + k]
            else:
                for k in range(K):
                    for u in range(many):
                        out[to + k * step + u] = matrix[(row + u) * K + k]
                    for u in range(many, U):
                        out[to + k * step + u] = 0

    return run


@job("plain-panels", "the packing of weights")
def _plain_job(arguments):  # type: ignore[no-untyped-def]
    """out[n, g H + k, u] = matrix[positions[g] H + k, n U + u], zeros beyond N: panel `number`."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        matrix_given, positions, H, U, out = arguments(record)
        N, G = matrix_given.shape[1], positions.size
        matrix = flat(matrix_given)
        many = min(U, N - number * U)
        for g in range(G):
            for k in range(H):
                to = ((number * G + g) * H + k) * U
                at = (positions[g] * H + k) * N + number * U
                copy(out, to, matrix, at, many)
                for u in range(many, U):
                    out[to + u] = 0

    return run


def _packed(jobs: Sequence[Job], out: Array) -> Array:
    pool.run(jobs, float(COPY_WORK * out.size))
    return out


def gate_panels(matrix: Array, positions: Sequence[int], H: int, U: int) -> Array:
    """(gates * H, K), the gates at these positions -> [panel][K][gate][U], padded with zeros."""
    many, K = -(-H // U), matrix.shape[1]
    out = memory.empty((many * K * len(positions) * U,), matrix.dtype)
    given = np.ascontiguousarray(matrix), np.array(positions, np.int64), H, U, out
    return _packed([_gate_job(many, False, *given)], out)


def plain_panels(matrix: Array, positions: Sequence[int], H: int, U: int) -> Array:
    """(gates * H, N), the gates at these positions -> [panel][gates * H][U], padded with zeros."""
    many = -(-matrix.shape[1] // U)
    out = memory.empty((many * len(positions) * H * U,), matrix.dtype)
    given = np.ascontiguousarray(matrix), np.array(positions, np.int64), H, U, out
    return _packed([_plain_job(many, False, *given)], out)
