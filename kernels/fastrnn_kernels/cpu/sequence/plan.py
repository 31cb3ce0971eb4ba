"""How a pass is divided among threads, and the scratch memory that it takes.

A pass is cut into pieces, runs of rows that one thread takes through all steps, or is the
work of a team, which takes all rows together, each member its own units. Kernels read
what a plan holds:

    pieces (., 6): the first row, the last, the time steps of a block, and where the
        piece's scratch, the own scratch of its members, and its indices begin

Where lengths come later than the plan (`later`), each piece has room for up to `most` rows, and the
first three are chosen when they are known (`masks.py`).

Scratch holds the states of a piece's rows (`shared_layout`, `backward_layout`), and of each
member the sums of a block of time steps (`own_layout`). The layouts are functions that
kernels compile, too. Sizes count values; every part begins on a cache line.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.memory import CACHE_LINE, Array
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.product.pairs import VALUES
from fastrnn_kernels.cpu.product.panels import VECTORS, padded, vectors_per_gate
from fastrnn_kernels.cpu.product.weights import Weights, lanes_of
from fastrnn_kernels.cpu.threads import pool
from fastrnn_kernels.device import Route
from fastrnn_kernels.rows import Indices, Rows

#: Bytes of the sums of a block of time steps: they leave most of a second-level cache to R.
SUMS_BYTES = 1 << 18
#: A team splits the units in place of the rows where a thread would get fewer rows than make
#: use of its multipliers, or R is so large that each had better keep its own part of it near;
#: but not where a step has less multiply-adds than waiting for each other costs (measured).
FEW_ROWS, LARGE_WEIGHTS, MIN_STEP_WORK = 4, 1 << 20, 10_000
#: Rows from which on R is read so seldom that teams gain nothing (measured).
TEAM_ROWS = 2048
#: Rows that a piece takes through all steps, at most twice as many.
MANY_ROWS = 48
_INDEX = np.dtype(np.int64)


def shared_layout(
    rows: int,
    states: int,
    HU: int,
    PU: int,
    values: int,
    projected: bool,
    late: bool,
    line: int,
    masked: bool = False,
) -> tuple[int, int, int, int, int]:
    """Of a forward pass, for n rows: where its parts begin, and their end.

    state_h (2, n, PU) first; then state_rest (states but h, n, HU) and, as rows of products,
    h_rows (2, n, PU) of pairs, or of what a mask leaves of h, full_h and inner (n, HU).
    """
    rest = (2 * rows * PU + line - 1) // line * line
    h_rows = rest + ((states - 1) * rows * HU + line - 1) // line * line
    apart = 2 * rows * PU // values if values > 1 or masked else 0
    full_h = h_rows + (apart + line - 1) // line * line
    one = (rows * HU // values + line - 1) // line * line
    inner = full_h + (one if projected else 0)
    return rest, h_rows, full_h, inner, inner + (one if late else 0)


def own_layout(
    steps: int, units: int, S: int, U: int, XW: int, values: int, most_rows: int, line: int
) -> tuple[int, int, int]:
    """Of a member of a forward pass, for `steps` rows of a block: where its parts begin, the end.

    sums (its units / U, steps, S, U) first; then work (a tile's rows, S, U) and, where
    values are paired, x_rows (steps, XW).
    """
    work = (steps * units * S + line - 1) // line * line
    x_rows = work + (most_rows * S * U + line - 1) // line * line
    return work, x_rows, x_rows + ((steps * XW + line - 1) // line * line if values > 1 else 0)


def backward_layout(
    rows: int,
    states: int,
    HU: int,
    PU: int,
    projected: bool,
    late: bool,
    line: int,
    masked: bool = False,
) -> tuple[int, int, int, int, int]:
    """Of a backward pass, for n rows: where its parts begin, and their end.

    dh (n, PU) first; then d_rest (states but h, n, HU), d_full and d_inner (n, HU), and d_masked
    (n, PU), the gradient of what a mask leaves of h.
    """
    rest = (rows * PU + line - 1) // line * line
    d_full = rest + ((states - 1) * rows * HU + line - 1) // line * line
    one = (rows * HU + line - 1) // line * line
    d_inner = d_full + (one if projected else 0)
    d_masked = d_inner + (one if late else 0)
    return rest, d_full, d_inner, d_masked, d_masked + (rest if masked else 0)


@dataclass(frozen=True, eq=False)
class Plan:
    """Pieces of a pass, or the one of a team, and what scratch they take."""

    pieces: NDArray[np.int64]
    count: int  # pieces, or members worth having
    team: bool
    scratch_size: int
    indices_size: int
    dtype: np.dtype[Any]
    work: float  # multiply-adds
    most: int  # rows of a piece
    row_bytes: int  # of the sums of a step, of a row of a piece that one thread takes

    @property
    def bytes(self) -> int:
        """Scratch memory of a pass."""
        return self.scratch_size * self.dtype.itemsize + self.indices_size * 8

    def scratch(self, empty: memory.Empty = memory.empty) -> tuple[Array, Indices]:
        """Memory for one pass; anything may stand in it."""
        line = CACHE_LINE // self.dtype.itemsize  # kernels begin at the first whole one
        values = empty((self.scratch_size + line,), self.dtype)
        return values, empty((self.indices_size,), _INDEX)


def forward_plan(
    weights: Weights, rows: Rows, share: int, later: bool = False, masked: bool = False
) -> Plan:
    """The plan of a forward pass, where `share` passes run together.

    masked: whether R multiplies what a mask leaves of h.
    """
    key = "forward", share, later, masked
    return _kept(weights, rows, key, lambda: _forward_plan(weights, rows, share, later, masked))


def scratch_bytes(weights: Weights, T: int, B: int, share: int) -> int:
    """Scratch memory of a forward pass over whole sequences, where `share` run together."""
    return forward_plan(weights, Rows.whole(T, B), share).bytes


def route(weights: Weights, T: int, B: int, share: int, backward: bool) -> Route:
    """The path that a pass over whole sequences takes, where `share` run together."""
    divide = backward_plan if backward else forward_plan
    found = divide(weights, Rows.whole(T, B), share)
    if found.team:
        return Route("team", f"{found.count} threads, each with units of its own")
    return Route("rows", f"a thread to each piece of the batch, {found.count} in all")


def backward_plan(
    weights: Weights, rows: Rows, share: int, later: bool = False, masked: bool = False
) -> Plan:
    """The plan of a backward pass, where `share` passes run together; masked: as there."""
    key = "backward", share, later, masked
    return _kept(weights, rows, key, lambda: _backward_plan(weights, rows, share, later, masked))


#: Plans that are kept, by all that they depend on; weights change with each step of training.
_plans: dict[tuple[Any, ...], Plan] = {}
_MOST_KEPT = 256


def _kept(weights: Weights, rows: Rows, key: tuple[Any, ...], make: Callable[[], Plan]) -> Plan:
    if rows.ragged:
        return make()
    many = pool.get_num_threads()
    key = (
        *key, weights.cell, weights.dtype, weights.compute, weights.w_ih.shape, weights.w_hh.shape,
        weights.projected, weights.norm, rows.T, rows.B, many, current(),
    )  # fmt: skip
    plan = _plans.get(key)
    if plan is None:
        plan = make()
        if pool.get_num_threads() == many:  # else it may be one for another number
            if len(_plans) >= _MOST_KEPT:
                _plans.clear()
            _plans[key] = plan
    return plan


def _split(
    rows: Rows, weights: Weights, columns: int, share: int
) -> tuple[list[tuple[int, int]], int, float]:
    """Runs of rows, the members of the team that takes them (1: no team), and multiply-adds."""
    work = float(rows.steps) * weights.cell.G * weights.hidden_size * columns
    parts = pool.parts_of(work, share)
    step_work = rows.B * weights.w_hh.size
    few_rows = FEW_ROWS * parts > rows.B or (
        weights.w_hh.nbytes >= LARGE_WEIGHTS and rows.B < TEAM_ROWS
    )
    if weights.norm:  # a thread has all units of its rows
        return rows.split(max(parts, rows.B // MANY_ROWS)), 1, work
    waiting = weights.cell.GH > 0  # members of a cell whose h meets no R never wait
    if parts > 1 and few_rows and (step_work >= MIN_STEP_WORK or not waiting):
        return [(0, rows.B)], parts, work
    # More rows at a time than make good tiles only push their sums out of the caches.
    return rows.split(max(parts, rows.B // MANY_ROWS)), 1, work


def block_steps(T: int, row_bytes: int, rows: int, members: int) -> int:
    """The time steps of a block."""
    return max(1, min(T, SUMS_BYTES * members // max(1, row_bytes * rows)))


def _most(runs: list[tuple[int, int]], B: int) -> int:
    """Rows that a piece has room for where lengths come later: double its share."""
    return min(B, 2 * -(-B // len(runs)))


def _forward_plan(weights: Weights, rows: Rows, share: int, later: bool, masked: bool) -> Plan:
    cell, dtype, values = weights.cell, weights.dtype, VALUES[weights.compute]
    I, H, P = weights.input_size, weights.hidden_size, weights.state_size
    projected = weights.w_hr is not None
    read = weights.w_hh.shape[1]  # of h, by a unit
    S, lanes, line = cell.D + cell.S, lanes_of(dtype), CACHE_LINE // dtype.itemsize
    U = vectors_per_gate(cell) * lanes
    HU = padded(H, U)
    PU = padded(P, VECTORS * lanes) if projected else HU
    XW = padded(I, lanes) // values
    most_rows = current().most_rows(values)
    runs, largest, work = _split(rows, weights, I + read, share)
    most, row_bytes = _most(runs, rows.B), HU * S * dtype.itemsize

    def sizes(many: int) -> tuple[int, int, int]:
        """Of a piece of so many rows: shared scratch, its members' own, and indices."""
        steps = block_steps(rows.T, row_bytes, many, largest)
        kinds = values, projected, bool(cell.late), line, masked
        *_, shared = shared_layout(many, cell.N, HU, PU, *kinds)
        own = 0
        for members in range(1, largest + 1):  # fewer may come
            units = -(-HU // (U * members)) * U
            *_, each = own_layout(steps * many, units, S, U, XW, values, most_rows, line)
            own = max(own, members * each)
        return shared, own, largest * (steps + 3) * many

    pieces, at, indices_at = [], 0, 0
    for first, last in runs:
        steps = block_steps(rows.T, row_bytes, last - first, largest)
        room = map(sizes, range(1, most + 1) if later else [last - first])
        shared, own, indices = map(max, zip(*room, strict=True))
        pieces.append((first, last, steps, at, at + shared, indices_at))
        at += shared + own
        indices_at += indices
    return _plan(pieces, largest, at, indices_at, dtype, work, most, row_bytes)


def _plan(pieces: Sequence[tuple[int, ...]], largest: int, *rest: Any) -> Plan:
    count = largest if largest > 1 else len(pieces)
    return Plan(np.array(pieces, np.int64).reshape(-1, 6), count, largest > 1, *rest)


def _backward_plan(weights: Weights, rows: Rows, share: int, later: bool, masked: bool) -> Plan:
    cell, dtype = weights.cell, weights.dtype
    H, P = weights.hidden_size, weights.state_size
    width, line = VECTORS * lanes_of(dtype), CACHE_LINE // dtype.itemsize
    HU, PU = padded(H, width), padded(P, width)
    runs, largest, work = _split(rows, weights, weights.w_hh.shape[1], share)
    most = _most(runs, rows.B)
    pieces, at, indices_at = [], 0, 0
    for first, last in runs:
        many = most if later else last - first
        *_, shared = backward_layout(
            many, cell.N, HU, PU, weights.w_hr is not None, bool(cell.late), line, masked
        )
        pieces.append((first, last, 0, at, at + shared, indices_at))
        at += shared
        indices_at += largest * 3 * many
    return _plan(pieces, largest, at, indices_at, dtype, work, most, 0)
