"""Which steps the rows of a recipe's call run, and how they go to the kernels' order and back."""

from typing import Any

import numpy as np

from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.sequence import exchange, masks
from fastrnn_kernels.cpu.sequence.gradients import Running
from fastrnn_kernels.cpu.sequence.plan import Plan
from fastrnn_kernels.cpu.sequence.shapes import Masked, Sequences
from fastrnn_kernels.cpu.threads.job import Job
from fastrnn_kernels.cpu.threads.recipe import Slot
from fastrnn_kernels.rows import Indices

_INDEX = np.dtype(np.int64)


class AllSteps:
    """Of rows that run all their steps: known before the call.

    jobs: what has to be done before all else, in this order.
    """

    #: Whether lengths are known when a call is made, not sooner.
    later = False

    def __init__(self, of: Sequences, work: Slot) -> None:
        self._of, self._work, rows = of, work, of.rows
        self.order, self.lengths, self.valid = rows.order, rows.lengths, rows.valid
        self.jobs: list[Job] = []

    def pieces(self, plan: Plan) -> Indices:
        """The pieces of a plan."""
        return plan.pieces

    def running(self) -> Running:
        """The positions of all steps that run."""
        return Running.of(self._of.rows.running)

    def gathered(self, x: Array, out: Array) -> Job:
        """What brings x (B, T, I) into the kernels' order."""
        return exchange.axes(1, False, x, out, False, self._of.go_backwards)

    def scattered(self, dx: Array, out: Array) -> Job:
        """What brings dx (T, B, I) into the framework's order."""
        return exchange.axes(1, False, dx, out, self._of.go_backwards, False)

    def shown(self, y: Array, final_h: Array, start_h: Array, out: Array) -> list[Job]:
        """What makes the output."""
        if self._of.sequences:
            return [exchange.axes(1, False, y, out, False, False)]
        return [exchange.copied(1, False, final_h.reshape(-1), out.reshape(-1))]

    def d_shown(self, given: Array, d_h: Array, dy: Array) -> tuple[Array, list[Job]]:
        """The gradient of the final h, and what makes that, and dy, of the output's and d_h."""
        if self._of.sequences:
            return d_h, [exchange.axes(1, False, given, dy, False, False)]
        d_final = self._work.empty(d_h.shape, d_h.dtype)
        both = d_h.reshape(-1), given.reshape(-1), d_final.reshape(-1)
        return d_final, [exchange.clear(1, False, dy.reshape(-1)), exchange.added(1, False, *both)]

    def d_start(self, d_h: Array) -> list[Job]:
        """What adds to the gradient of the initial h what came by the output past all steps."""
        return []


class MaskedSteps(AllSteps):
    """Of rows with a mask, in a slot: found out at each call, in its workspace."""

    later = True

    def __init__(self, of: Sequences, masked: Masked, slot: int, work: Slot) -> None:
        super().__init__(of, work)
        self._masked = masked
        self._mask = Slot(slot).empty((of.B, of.T), np.bool_)
        self.order, self.lengths, self._given = (work.empty((of.B,), _INDEX) for _ in range(3))
        self.valid, places = work.empty((of.T,), _INDEX), work.empty((of.T + 1,), _INDEX)
        self._before = work.empty((of.B, of.H), of.dtype)
        self._job(masks.rows, self.order, self.lengths, self.valid, self._given, places)

    def _job(self, make: Any, *arguments: Any) -> None:
        self.jobs.append(make(1, False, self._mask, *arguments))

    def pieces(self, plan: Plan) -> Indices:
        """Those of a plan, so that each has about the same number of steps."""
        if len(plan.pieces) == 1:
            return plan.pieces
        out: Indices = self._work.empty(plan.pieces.shape, _INDEX)
        how = self._of.T, plan.most, plan.row_bytes
        self.jobs.append(masks.pieces(1, False, self.lengths, plan.pieces, *how, out))
        return out

    def running(self) -> Running:
        """The positions of all steps that run."""
        T, B = self._of.T, self._of.B
        found = Running(self._work.empty((T * B,), _INDEX), self._work.empty((1,), _INDEX))
        self.jobs.append(masks.running(1, False, self._given, T, *found))
        return found

    def gathered(self, x: Array, out: Array) -> Job:
        """What brings the steps of x (B, T, I) that run into the kernels' order."""
        return masks.gathered(1, False, self._mask, x, self._of.go_backwards, out)

    def scattered(self, dx: Array, out: Array) -> Job:
        """What brings dx (T, B, I) into the framework's order."""
        return masks.scattered(1, False, self._mask, dx, self._of.go_backwards, out)

    def shown(self, y: Array, final_h: Array, start_h: Array, out: Array) -> list[Job]:
        """What makes the output."""
        of, jobs, before = self._of, [], start_h
        if not self._masked.holds_start:
            before = self._before
            jobs.append(exchange.clear(1, False, before.reshape(-1)))
        how = of.go_backwards, self._masked.zeros, out
        if of.sequences:
            jobs.append(masks.shown(1, False, self._mask, y, before, *how))
        else:
            ends = final_h, before, self._given
            jobs.append(masks.shown_last(1, False, self._mask, *ends, *how))
        return jobs

    def d_shown(self, given: Array, d_h: Array, dy: Array) -> tuple[Array, list[Job]]:
        """The gradient of the final h, and what makes that, and dy, of the output's and d_h."""
        of, zeros = self._of, self._masked.zeros
        how = self._given, of.go_backwards, zeros
        if of.sequences:
            space = self._work.empty((of.H,), of.dtype)
            given_and_how = self._mask, given, *how
            return d_h, [masks.d_shown(1, False, *given_and_how, dy, self._before, space)]
        d_final = self._work.empty(d_h.shape, d_h.dtype)
        both = self._mask, given, d_h, *how
        return d_final, [
            exchange.clear(1, False, dy.reshape(-1)),
            masks.d_shown_last(1, False, *both, d_final, self._before),
        ]

    def d_start(self, d_h: Array) -> list[Job]:
        """What adds to the gradient of the initial h what came by the output past all steps."""
        if not self._masked.holds_start:
            return []
        both = d_h.reshape(-1), self._before.reshape(-1), d_h.reshape(-1)
        return [exchange.added(1, False, *both)]


def steps_of(of: Sequences, slot: int, work: Slot) -> AllSteps:
    """The steps of a call, whose mask, if there is one, is in a slot."""
    return AllSteps(of, work) if of.masked is None else MaskedSteps(of, of.masked, slot, work)
