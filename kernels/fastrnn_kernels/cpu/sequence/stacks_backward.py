"""Recipes of the backward passes of whole sequences through a stack of layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn_kernels.cpu.arrays.memory import Array, Empty
from fastrnn_kernels.cpu.product.weights import BackwardPanels, Weights
from fastrnn_kernels.cpu.sequence import exchange
from fastrnn_kernels.cpu.sequence.gradients import Running, TimeProducts
from fastrnn_kernels.cpu.sequence.stacks import Stacked, kept, panels_in, parts_of_pass, tapes
from fastrnn_kernels.cpu.sequence.start import Through, through_time
from fastrnn_kernels.cpu.threads.job import Job
from fastrnn_kernels.cpu.threads.recipe import Recipe, Slot
from fastrnn_kernels.tape import Tape

#: How the gradient of y lies: (T, B, D P), (B, T, D P), or there is none.
TIME_FIRST, BATCH_FIRST, NONE = range(3)
#: Where the one block of rows goes that a result has.
_FIRST = np.zeros(1, np.int64)


@dataclass(frozen=True)
class Wanted:
    """Which gradients a backward pass is given, and which it gives beside those of the weights.

    d_y: TIME_FIRST, BATCH_FIRST or NONE; d_final: whether there are those of the final states;
    inputs, states: whether those of x and of the initial states are wanted.
    """

    d_y: int
    d_final: bool
    inputs: bool
    states: bool


def _backward(of: Stacked, wanted: Wanted) -> Recipe:
    """A backward pass.

    Slots: the tape, x, the gradients of y and of the final states, each pass's backward panels,
    each pass's panels for the gradient of its input; the gradients of x (T, B, I), of the initial
    states, and of each pass's weights in the order w_ih, w_hh, b_ih, b_hh, w_hr, each parameter
    per unit. Nobody looks at the slots of what is not there.
    """
    N, D, P, dtype = of.cell.N, of.directions, of.P, np.dtype(of.dtype)
    panels_at = 3 + N
    dx_at = panels_at + 2 * of.passes
    gradients_at = dx_at + 1 + N
    slots = gradients_at + of.passes * of.each + 1
    work = Slot(slots - 1)
    recipe = Recipe(work, slots)
    cleared: list[Job] = []

    def zeros(shape: tuple[int, ...], dtype: np.dtype[np.generic], slot: Slot = work) -> Array:
        array = slot.empty(shape, dtype)
        cleared.append(exchange.clear(1, False, array.reshape(-1)))
        return array

    dy = _given_gradient(of, wanted.d_y, recipe, work, zeros)
    final = [
        Slot(3 + n).empty(shape, dtype) if wanted.d_final else zeros(shape, dtype)
        for n, shape in enumerate(of.states)
    ]
    start = [
        zeros(shape, dtype, Slot(dx_at + 1 + n) if wanted.states else work)
        for n, shape in enumerate(of.states)
    ]
    every = tapes(of, Slot(1), Slot(0))
    for layer in reversed(range(of.num_layers)):
        runs, products, through = [], [], wanted.inputs or layer > 0
        dx = (work if layer else Slot(dx_at)).empty(every[layer][0].x.shape, dtype)
        for d, tape in enumerate(every[layer]):
            k, weights = layer * D + d, tape.weights
            panels = panels_in(Slot(panels_at + k), weights.backward_sizes, of.dtype)
            weights.keep("backward", BackwardPanels.of(panels))
            size = weights.size_of_input_panels
            weights.keep("inputs", Slot(panels_at + of.passes + k).empty((size,), dtype))
            run = through_time(
                tape, dy, d * P, *parts_of_pass(final, k), D, parts_of_pass(start, k), work.empty,
                zeros,
            )  # fmt: skip
            runs.append(run)
            onto = dx if through else None
            at = gradients_at + k * of.each
            products.append(_Products(of, run, tape, onto, d > 0, at, work.empty, zeros))
        recipe.stage(cleared)
        cleared.clear()
        recipe.stage([run.job for run in runs], sum(run.work for run in runs))
        for one in products:
            running = Running.of(of.rows.running)
            jobs = one.found.jobs(running, work.empty) + one.found.jobs_of_units(work.empty)
            recipe.stage(jobs, float(running.at.size) * one.found.each)
            recipe.stage(one.finished())
        dy = dx
    return recipe.done()


def _given_gradient(of: Stacked, d_y: int, recipe: Recipe, work: Slot, zeros: Any) -> Array:
    """The gradient of y (T, B, D P)."""
    shape, dtype = (of.T, of.B, of.width), np.dtype(of.dtype)
    if d_y == NONE:
        dy: Array = zeros(shape, dtype)
        return dy
    if d_y == TIME_FIRST:
        return Slot(2).empty(shape, dtype)
    dy, given = work.empty(shape, dtype), Slot(2).empty((of.B, of.T, of.width), dtype)
    recipe.stage([exchange.axes(1, False, given, dy, False, False)])
    return dy


class _Products:
    """The products over time of one pass, and how their results come to where they are wanted."""

    def __init__(
        self, of: Stacked, run: Through, tape: Tape[Weights], dx: Array | None, adding: bool,
        at: int, empty: Empty, zeros: Any,
    ) -> None:  # fmt: skip
        self._of, self._at, self._input = of, at, tape.x.shape[2]
        given = run.d_sums, run.dh_tape, run.d_units
        self.found = TimeProducts(tape, *given, dx, adding, empty, zeros)

    def finished(self) -> list[Job]:
        """What copies results, in rows that are whole vectors, to the gradients' slots."""
        of, cell, H = self._of, self._of.cell, self._of.H
        found, dtype = self.found, np.dtype(self._of.dtype)
        jobs: list[Job] = []

        def slot(name: str, shape: tuple[int, ...], of_units: int = 0) -> Array:
            return Slot(self._at + of.slots[name] + of_units).empty(shape, dtype)

        def ordered(
            rows: Array, gates: Sequence[str], to: Sequence[str], each: int, out: Array
        ) -> None:
            positions = np.array([to.index(gate) for gate in gates], np.int64)
            jobs.append(exchange.ordered(1, False, rows, positions, each, out))

        w_ih = slot("w_ih", (cell.G * H, self._input))
        ordered(found.d_x.whole_rows, cell.x_gates, cell.gates, H, w_ih)
        for part, gates in ((found.d_h, cell.early), (found.d_late, cell.late)):
            if part is not None:
                w_hh = slot("w_hh", (cell.GH * H, of.P))
                ordered(part.whole_rows, gates, cell.recurrent, H, w_hh)
        first = (cell.X + cell.A) * H
        for name, rows, gates, to in (
            ("b_ih", found.d_bias[: cell.G * H], cell.x_gates, cell.gates),
            ("b_hh", found.d_bias[first:], cell.h_gates, cell.recurrent),
        ):
            if name in of.slots:
                ordered(rows.reshape(len(to), H), gates, to, 1, slot(name, (len(to), H)))
        if found.d_projection is not None:
            rows, out = found.d_projection.whole_rows, slot("w_hr", (of.P, H))
            jobs.append(exchange.ordered(1, False, rows, _FIRST, of.P, out))
        for q in range(cell.Q):
            rows, out = found.d_units[q : q + 1], slot("units", (1, H), q)
            jobs.append(exchange.ordered(1, False, rows, _FIRST, 1, out))
        return jobs


def backward(of: Stacked, wanted: Wanted) -> Recipe:
    """The backward pass of a forward pass that kept a tape."""
    made: Recipe = kept((of, wanted), lambda: _backward(of, wanted))
    return made
