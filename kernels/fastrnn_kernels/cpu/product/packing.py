"""Weights copied into panels: a training step packs all of them anew.

By the calling thread alone: the copies are bound by memory, and a second thread gains nothing.
"""

from functools import cache
from typing import Any

import numpy as np

from fastrnn_kernels.cache.disk import kernel
from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.product.tile import copy
from fastrnn_kernels.rows import Indices


@inlined
def pack_gates(matrix: Any, positions: Any, H: int, U: int, out: Any) -> None:
    """Panels of `gate_panels` into `out`."""
    K, G = matrix.shape[1], positions.size
    panels = out.reshape(-1, K, G, U)
    for n in range(len(panels)):
        many = min(U, H - n * U)
        for g in range(G):
            row = positions[g] * H + n * U
            # Four rows at a time: what is read of each is next to what was read before.
            for u in range(0, many - 3, 4):
                at = row + u
                a, b, c, d = matrix[at], matrix[at + 1], matrix[at + 2], matrix[at + 3]
                for k in range(K):
                    to = panels[n, k, g]
                    to[u], to[u + 1], to[u + 2], to[u + 3] = a[k], b[k], c[k], d[k]
            for u in range(many - many % 4, U):
                for k in range(K):
                    panels[n, k, g, u] = matrix[row + u, k] if u < many else 0


@inlined
def pack_plain(matrix: Any, positions: Any, H: int, U: int, out: Any) -> None:
    """Panels of `plain_panels` into `out`."""
    N, G = matrix.shape[1], positions.size
    for n in range((N + U - 1) // U):
        many = min(U, N - n * U)
        for g in range(G):
            for k in range(H):
                to = ((n * G + g) * H + k) * U
                copy(out, to, matrix[positions[g] * H + k], n * U, many)
                for u in range(many, U):
                    out[to + u] = 0


@kernel("gate-panels")
def _pack_gates(matrix, positions, H, U, out):  # type: ignore[no-untyped-def]
    pack_gates(matrix, positions, H, U, out)


@kernel("plain-panels")
def _pack_plain(matrix, positions, H, U, out):  # type: ignore[no-untyped-def]
    pack_plain(matrix, positions, H, U, out)


@cache
def _as_array(positions: tuple[int, ...]) -> Indices:
    return np.array(positions, np.int64)


def gate_size(K: int, gates: int, H: int, U: int) -> int:
    """Values of `gate_panels`."""
    return -(-H // U) * K * gates * U


def plain_size(N: int, gates: int, H: int, U: int) -> int:
    """Values of `plain_panels`."""
    return -(-N // U) * gates * H * U


def gate_panels(
    matrix: Array, positions: tuple[int, ...], H: int, U: int, out: Array | None = None
) -> Array:
    """(gates * H, K), the gates at these positions -> [panel][K][gate][U], padded with zeros.

    out: where they go, if that is known.
    """
    if out is None:
        out = memory.aligned(gate_size(matrix.shape[1], len(positions), H, U), matrix.dtype)
    _pack_gates(np.ascontiguousarray(matrix), _as_array(positions), H, U, out)
    return out


def plain_panels(
    matrix: Array, positions: tuple[int, ...], H: int, U: int, out: Array | None = None
) -> Array:
    """(gates * H, N), the gates at these positions -> [panel][gates * H][U], padded with zeros.

    out: where they go, if that is known.
    """
    if out is None:
        out = memory.aligned(plain_size(matrix.shape[1], len(positions), H, U), matrix.dtype)
    _pack_plain(np.ascontiguousarray(matrix), _as_array(positions), H, U, out)
    return out
