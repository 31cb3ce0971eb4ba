"""The gradients that are products over all time steps, computed after the loop over them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.memory import Array, Empty
from fastrnn_kernels.cpu.isa.instruction_set import MAX_ROWS
from fastrnn_kernels.cpu.product.panels import VECTORS
from fastrnn_kernels.cpu.product.weights import Weights, lanes_of
from fastrnn_kernels.cpu.sequence import time_products
from fastrnn_kernels.cpu.sequence.normed import NormGradient
from fastrnn_kernels.cpu.threads import pool
from fastrnn_kernels.cpu.threads.job import Job
from fastrnn_kernels.cpu.threads.pool import parts_of
from fastrnn_kernels.gradients import Gradients, in_gate_order
from fastrnn_kernels.rows import Indices
from fastrnn_kernels.tape import Tape

_INDEX = np.dtype(np.int64)


class Running(NamedTuple):
    """Positions t * B + b of steps that are not padding, and how many of them there are, (1,)."""

    at: Indices
    many: Indices

    @staticmethod
    def of(some: Indices) -> "Running":
        """All of these."""
        return Running(some, np.array([some.size], _INDEX))


def met_by_r(tape: Tape[Weights]) -> Array:
    """What R has multiplied (T, B, PL): the old h, or what a mask left of it."""
    old_h: Array = tape.old_h
    if tape.h_mask is None:
        return old_h
    found = memory.empty(old_h.shape, old_h.dtype)
    with np.errstate(all="ignore"):  # of what stands where a row has ended
        np.multiply(old_h, tape.h_mask[:, : old_h.shape[2]], out=found)
    return found


class TimeProducts:
    """The gradients of one direction of one layer that are products over all steps.

    dx: where that of x goes, of rows that have not ended, or is added; None where nobody wants it.
    empty, zeros: give memory, and that of sums, which begin with nothing.
    """

    def __init__(
        self,
        tape: Tape[Weights],
        d_sums: Array,
        dh_tape: Array,
        d_units: Array,
        dx: Array | None,
        adding: bool,
        empty: Empty = memory.empty,
        zeros: Empty = memory.zeros,
        normed: NormGradient | None = None,
    ) -> None:
        weights = tape.weights
        cell, dtype = weights.cell, weights.dtype
        I, H, P = weights.input_size, weights.hidden_size, weights.state_size
        G, L, E, S = cell.G, cell.L, cell.E, cell.S
        self._weights, self._d_sums, self.dx, self._adding = weights, d_sums, dx, adding
        self._descending = down = not tape.reverse
        self.d_bias, self._space = zeros((S * H,), dtype), empty((S * H,), dtype)
        # Where there is a norm, each part of the sums has gradients of its own before it.
        of_x, of_h, x_width, h_width = d_sums, d_sums, S * H, S * H
        h_at = (cell.X + cell.A) * H
        if normed is not None:
            of_x, of_h, x_width, h_width, h_at = normed.d_x, normed.d_h, G * H, E * H, 0
        self._of_x, self._x_width, self.normed = of_x, x_width, normed
        self.d_x = WeightGradient(of_x, x_width, 0, G * H, tape.x, I, down, zeros)
        self.d_h: WeightGradient | BlockGradient | None = None
        self.d_late = self.d_projection = None
        if E:
            make_h = BlockGradient if weights.blocks > 1 else WeightGradient
            sizes = (weights.blocks,) if weights.blocks > 1 else ()
            self.d_h = make_h(of_h, h_width, h_at, E * H, met_by_r(tape), P, down, zeros, *sizes)
        if L:
            at = (G - L) * H
            self.d_late = WeightGradient(d_sums, S * H, at, L * H, tape.inner, H, down, zeros)
        if weights.projected:
            self.d_projection = WeightGradient(dh_tape, P, 0, P, tape.full_h, H, down, zeros)
        make = zeros if cell.Q else empty
        self._of_rows, self.d_units = d_units, make(d_units.shape[1:], dtype)
        #: multiply-adds of a row
        self.each = G * H * (I + weights.w_hh.shape[1] + (0 if dx is None else I))

    def jobs(self, some: Running, empty: Empty = memory.empty, share: int = 1) -> list[Job]:
        """What adds these rows to the sums, and computes their part of dx; `share` run together."""
        cell, width = self._weights.cell, self._space.size
        of_bias = self._d_sums, width, self._descending, *some, self.d_bias, self._space
        jobs = [time_products.bias_gradient(1, False, *of_bias)]
        if self.dx is not None:
            depth, panels = cell.G * self._weights.hidden_size, self._weights.input_panels()
            given = self._of_x, self._x_width, depth, panels, some, self.dx, self._adding
            jobs.append(input_job(*given, empty, share))
        for one in (self.d_x, self.d_h, self.d_late, self.d_projection):
            jobs += [] if one is None else one.jobs(some, empty, share)
        return jobs

    def part(self, running: Indices, first: int, last: int) -> Indices:
        """Of these rows those from `first` to `last`, counted as their sums take them."""
        # From the end where the sums begin there, and at whole chains all the same.
        if self._descending:
            whole = -(-running.size // time_products.ALIGN) * time_products.ALIGN
            first, last = max(0, whole - last), max(0, whole - first)
        return running[first:last]

    def jobs_of_units(self, empty: Empty = memory.empty) -> list[Job]:
        """What adds up, row by row, what each has for the parameters per unit; once for a pass."""
        size, found = self.d_units.size, self.d_units.reshape(-1)
        if not size:
            return []
        rows = Running.of(np.arange(len(self._of_rows), dtype=_INDEX))
        space = empty((size,), found.dtype)
        return [
            time_products.bias_gradient(1, False, self._of_rows, size, False, *rows, found, space)
        ]


def add(products: Sequence[tuple[TimeProducts, Indices]]) -> None:
    """Do the jobs of several passes for all these rows, together.

    They are done in parts between which Python answers signals.
    """
    for of, running in products:
        if of.normed is not None:
            pool.run(of.normed.jobs(running), float(running.size) * of.d_bias.size)
    works = [float(running.size) * of.each for of, running in products]
    longest = max(running.size for _, running in products)

    def part(first: int, last: int) -> None:
        jobs, work = [], 0.0
        for of, running in products:
            some = of.part(running, first, last)
            jobs += of.jobs(Running.of(some), share=len(products))
            work += float(some.size) * of.each
        pool.run(jobs, work)

    whole = -(-longest // time_products.ALIGN) * time_products.ALIGN
    pool.in_parts(part, whole, sum(works), time_products.ALIGN)


class Unfinished(NamedTuple):
    """A pass whose gradients over all steps are still to be computed.

    d_sums, dh_tape, d_units: what its loop over time has written; start_h, start_rest: gradients of
    the initial states; inputs: whether that of x is wanted.
    """

    tape: Tape[Weights]
    d_sums: Array
    dh_tape: Array
    d_units: Array
    start_h: Array
    start_rest: Array
    inputs: bool
    normed: NormGradient | None


def gradients(passes: Sequence[Unfinished], onto: Sequence[Array | None]) -> list[Gradients]:
    """The gradients of passes, of which those over all steps are computed here, together.

    onto: what that of x is added to, in place, if there is something.
    """
    found = []
    for one, given in zip(passes, onto, strict=True):
        dx = given
        if one.inputs and given is None:
            dx = memory.empty(one.tape.x.shape, one.d_sums.dtype)
        found.append(
            TimeProducts(
                one.tape,
                one.d_sums,
                one.dh_tape,
                one.d_units,
                dx,
                given is not None,
                normed=one.normed,
            )
        )
    add([(of, one.tape.rows.running) for of, one in zip(found, passes, strict=True)])
    return [
        gathered(one.tape, of, of.dx, one.start_h, one.start_rest)
        for of, one in zip(found, passes, strict=True)
    ]


def gathered(
    tape: Tape[Weights],
    found: TimeProducts,
    dx: Array | None,
    d_start_h: Array,
    d_start_rest: Array,
) -> Gradients:
    """The gradients of a pass, when the products over all its steps are there."""
    cell = tape.weights.cell
    if cell.Q:
        pool.run(found.jobs_of_units(), 0.0)
    H, d_bias, d_projection = tape.weights.hidden_size, found.d_bias, found.d_projection
    of_h = [one.rows for one in (found.d_h, found.d_late) if one is not None]
    gains: tuple[Array | None, Array | None] = None, None
    if found.normed is not None:
        of_x, of_early = found.normed.gains
        gains = (
            in_gate_order(np, cell.gates, of_x, cell.x_gates),
            in_gate_order(np, cell.recurrent, of_early, cell.h_gates),
        )
    h_rows = np.concatenate(of_h) if len(of_h) > 1 else (of_h or [tape.weights.w_hh])[0]
    return Gradients(
        x=dx,
        start_h=d_start_h,
        start_rest=d_start_rest,
        w_ih=in_gate_order(np, cell.gates, found.d_x.rows, cell.x_gates),
        w_hh=in_gate_order(np, cell.recurrent, h_rows, cell.h_gates),
        b_ih=in_gate_order(np, cell.gates, d_bias[: cell.G * H], cell.x_gates),
        b_hh=in_gate_order(
            np, cell.recurrent, d_bias[(cell.X + cell.A) * H :].copy(), cell.h_gates
        ),
        w_hr=None if d_projection is None else np.ascontiguousarray(d_projection.rows),
        units=np.ascontiguousarray(found.d_units[:, :H]) if cell.Q else None,
        norm_ih=gains[0],
        norm_hh=gains[1],
    )


def _parts(count: int, work: float, share: int) -> tuple[int, int]:
    """Of 0..count for the threads, in whole tiles: how many parts, and the size of each."""
    parts = parts_of(work, share)
    size = max(1, -(-count // (parts * MAX_ROWS)) * MAX_ROWS)
    return -(-count // size), size


class WeightGradient:
    """The (M, N) gradient of a weight that multiplied b (T, B, N or more): the sum of its parts."""

    def __init__(
        self, d_sums: Array, width: int, at: int, M: int, b: Array, N: int, descending: bool,
        empty: Empty, b_at: int = 0,
    ) -> None:  # fmt: skip
        """b_at: the first column of b that is a factor."""
        lanes = lanes_of(b.dtype)
        read = b.reshape(1, 1, -1)[:, :, b_at:] if b_at else b
        self._given = d_sums, at, width, read, b.shape[2], N, descending
        self._sizes = M, N, lanes
        padded = -(-N // (VECTORS * lanes)) * VECTORS * lanes
        #: all there is, to be zeros at first; and the same as rows, padded to whole vectors
        self.out = empty((M * padded,), b.dtype)
        self.whole_rows = self.out.reshape(M, padded)
        self.rows = self.whole_rows[:, :N]

    def job(self, running: Running, empty: Empty = memory.empty, share: int = 1) -> Job:
        """What adds these rows to it; empty: gives it memory to work in."""
        M, N, lanes = self._sizes
        parts, each = _parts(M, float(running.at.size) * M * N, share)
        size = parts * time_products.weight_scratch(N, lanes)
        scratch = empty((size,), self.out.dtype)
        given = *self._given, *running, M, each, self.out, scratch
        return time_products.weight_gradient(parts, False, *given)

    def jobs(self, running: Running, empty: Empty = memory.empty, share: int = 1) -> list[Job]:
        """The same, as of what has several."""
        return [self.job(running, empty, share)]


class BlockGradient:
    """As `WeightGradient`, of gates whose R is made of blocks: each is a product of its own.

    M and N are the rows and the columns of the dense one.
    """

    def __init__(
        self, d_sums: Array, width: int, at: int, M: int, b: Array, N: int, descending: bool,
        empty: Empty, blocks: int,
    ) -> None:  # fmt: skip
        each = N // blocks
        self._parts = [
            WeightGradient(
                d_sums, width, at + first, each, b, each, descending, empty, first % N
            )
            for first in range(0, M, each)
        ]  # fmt: skip

    def jobs(self, running: Running, empty: Empty = memory.empty, share: int = 1) -> list[Job]:
        """What adds these rows to it."""
        return [one.job(running, empty, share) for one in self._parts]

    @property
    def rows(self) -> Array:
        """(gates H, N / blocks), when all are added."""
        return np.concatenate([one.rows for one in self._parts])

    whole_rows = rows


def input_job(
    d_sums: Array,
    width: int,
    depth: int,
    panels: Array,
    running: Running,
    dx: Array,
    adding: bool,
    empty: Empty = memory.empty,
    share: int = 1,
) -> Job:
    """What computes dx (T, B, I), or adds it to what stands there."""
    dtype, I = dx.dtype, dx.shape[2]
    parts, _ = _parts(running.at.size, float(running.at.size) * depth * I, share)
    scratch = empty((parts * (MAX_ROWS + 1) * VECTORS * lanes_of(dtype),), dtype)
    indices = empty((parts * time_products.INPUT_ROWS,), _INDEX)
    return time_products.input_gradient(
        parts, False, d_sums, width, depth, panels, *running, dx, I, adding, scratch, indices
    )
