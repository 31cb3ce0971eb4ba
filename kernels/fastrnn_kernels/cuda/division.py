"""How a resident pass is divided among blocks: what fits the multiprocessors' shared memory."""

from functools import cache
from typing import NamedTuple

from fastrnn_kernels.cell import Cell
from fastrnn_kernels.cuda.resident_kernels import backward_values, forward_values

#: Threads to a block that keep a multiprocessor's units busy, and the most that find registers.
THREADS, MOST_THREADS = 256, 320
#: Rows of a batch that a block computes at a time, its sums in registers: of a block that holds
#: all of R, and of one that shares it.
BLOCK_ROWS, GRID_ROWS = (4, 1), (8, 4, 1)


class Gpu(NamedTuple):
    """What a division follows from."""

    multiprocessors: int
    shared_bytes: int  # that a block may have at most


class Division(NamedTuple):
    """Units and rows to a block, threads to a unit (C), blocks, and bytes of shared memory."""

    units: int
    rows: int
    parts: int
    blocks: int
    shared_bytes: int
    gridded: bool  # whether blocks share the units, and meet at every step

    @property
    def threads(self) -> int:
        """Threads to a block."""
        return self.units * self.parts


def _fitting(H: int, U: int, E: int, rows: int, item: int, gpu: Gpu, backward: bool) -> int | None:
    """The threads to a unit with which a block fits, or None."""
    values = backward_values if backward else forward_values
    parts = max(rows, min(THREADS // U, H))
    while parts >= rows:
        if U * parts <= MOST_THREADS and values(H, U, parts, E, rows) * item <= gpu.shared_bytes:
            return parts
        parts -= 1
    return None


def _made(
    H: int, U: int, E: int, rows: int, item: int, gpu: Gpu, backward: bool, blocks: int
) -> Division | None:
    parts = _fitting(H, U, E, rows, item, gpu, backward)
    if parts is None:
        return None
    values = backward_values if backward else forward_values
    return Division(U, rows, parts, blocks, values(H, U, parts, E, rows) * item, U < H)


@cache
def one_block(cell: Cell, H: int, B: int, item: int, gpu: Gpu, backward: bool) -> Division | None:
    """The division by rows, each block holding all of R; None where R does not fit one."""
    # Tiles of few rows: as many as there are multiprocessors, before any gets a second.
    most = max(1, -(-B // gpu.multiprocessors))
    for rows in (rows for rows in BLOCK_ROWS if rows < 2 * most):
        found = _made(H, H, len(cell.gates), rows, item, gpu, backward, -(-B // rows))
        if found is not None:
            return found
    return None


@cache
def all_blocks(cell: Cell, H: int, B: int, item: int, gpu: Gpu, backward: bool) -> Division | None:
    """The division by units, all blocks together holding R; None where it does not fit."""
    units = -(-H // gpu.multiprocessors)
    if units == H:
        return None
    for rows in (rows for rows in GRID_ROWS if rows < 2 * B):
        found = _made(H, units, len(cell.gates), rows, item, gpu, backward, -(-H // units))
        if found is not None:
            return found
    return None


def divide(cell: Cell, H: int, B: int, item: int, gpu: Gpu, backward: bool) -> Division | None:
    """The division of a pass, or None where R does not fit.

    The sums of a row depend on the threads to a unit, which follow from H and the rows of a
    block, not from B itself.
    """
    size = cell, H, B, item, gpu, backward
    return one_block(*size) or all_blocks(*size)
