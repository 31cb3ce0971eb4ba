"""Recipes of whole sequences, forward and backward, for who knows shapes before addresses.

A recipe computes what `start_forward`, `start_backward` and `gradients` do, bit for bit, by the
same jobs. Where rows have masks, each call finds out what they tell (`run_steps.py`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.product.panels import padded, vectors_per_gate
from fastrnn_kernels.cpu.product.weights import columns_of, lanes_of
from fastrnn_kernels.cpu.sequence import backward, exchange, forward, time_products
from fastrnn_kernels.cpu.sequence.gradients import WeightGradient, input_job
from fastrnn_kernels.cpu.sequence.plan import Plan, backward_plan, forward_plan
from fastrnn_kernels.cpu.sequence.run_steps import steps_of
from fastrnn_kernels.cpu.sequence.shapes import Sequences, tape_in
from fastrnn_kernels.cpu.sequence.start import NOTHING_DRAWN
from fastrnn_kernels.cpu.threads.pool import get_num_threads
from fastrnn_kernels.cpu.threads.recipe import Recipe, Slot
from fastrnn_kernels.rows import Indices

_NO_RESET = np.empty((0, 0), np.bool_)


def _scratch(plan: Plan, work: Slot) -> tuple[Array, Indices]:
    values = plan.scratch_size + 64 // plan.dtype.itemsize
    return work.empty((values,), plan.dtype), work.empty((plan.indices_size,), np.int64)


def forward_recipe(of: Sequences, taping: bool) -> Recipe:
    """Slots: x, kernel, recurrent kernel, bias if any, states, mask if any; output, states, tape.

    The last only if `taping`.
    """
    cell, dtype, T, B, I, H = of.cell, np.dtype(of.dtype), of.T, of.B, of.I, of.H
    G, N = cell.G, cell.N
    given = 3 + (of.biases > 0)
    shown_at = given + N + (of.masked is not None)
    slots = shown_at + 1 + N + taping + 1
    x = Slot(0).empty((B, T, I), dtype)
    kernel = Slot(1).empty((I, G * H), dtype)
    recurrent = Slot(2).empty((H, G * H), dtype)
    bias = Slot(3).empty(of.bias, dtype) if of.biases else np.empty(of.bias, dtype)
    start, final = given, shown_at + 1
    work = Slot(slots - 1)
    steps = steps_of(of, shown_at - 1, work)
    tape = tape_in(of, Slot(slots - 2) if taping else work, taping)
    recipe = Recipe(work, slots)
    U = vectors_per_gate(cell) * lanes_of(dtype)
    prepared = [steps.gathered(x, tape.x)]

    def panels(matrix: Array, gates: Sequence[str]) -> Array:
        if not gates:
            return np.empty(0, dtype)
        out = work.empty((padded(H, U) * matrix.shape[0] * len(gates),), dtype)
        prepared.append(exchange.gate_panels(1, False, matrix, of.positions(gates), H, U, out))
        return out

    x_bias, h_bias = work.empty((1, G * H), dtype), work.empty((1, G * H), dtype)
    apart = np.zeros(G, np.bool_)
    apart[of.positions(cell.apart)] = True
    prepared.append(exchange.biases(1, False, bias, apart, x_bias.reshape(-1), h_bias.reshape(-1)))
    y = work.empty((T, B, H), dtype)
    plan = forward_plan(of.weights, of.rows, 1, steps.later)
    scratch, indices = _scratch(plan, work)
    start_h, final_h = (Slot(at).empty((B, H), dtype) for at in (start, final))
    start_rest = Slot(start + 1).empty((N - 1, B, H), dtype)
    arguments = forward.Arguments(
        x=tape.x, y=y, reset=_NO_RESET, order=steps.order, lengths=steps.lengths, valid=steps.valid,
        x_panels=panels(kernel, cell.x_gates), bias=panels(x_bias, cell.x_gates),
        h_panels=panels(recurrent, cell.early), h_bias=panels(h_bias, cell.apart),
        late_panels=panels(recurrent, cell.late), p_panels=np.empty(0, dtype),
        units=np.empty(0, dtype),
        start_h=start_h, start_rest=start_rest, begin_h=start_h, begin_rest=start_rest,
        final_h=final_h, final_rest=Slot(final + 1).empty((N - 1, B, H), dtype),
        saved=tape.saved, old_h=tape.old_h, old_rest=tape.old_rest, inner=tape.inner,
        full_h=np.empty((0, 0, 0), dtype), pieces=steps.pieces(plan), scratch=scratch,
        operands=scratch, indices=indices, H=H, P=H, y_at=0, reverse=False, resetting=False,
        projected=False, taping=taping, **NOTHING_DRAWN[dtype],
    )  # fmt: skip
    recipe.stage([*steps.jobs, *prepared])
    recipe.stage([forward.forward_job(cell, 1)(plan.count, plan.team, *arguments)], plan.work)
    shown = Slot(shown_at).empty(of.shown, dtype)
    recipe.stage(steps.shown(y, final_h, start_h, shown))
    return recipe.done()


def backward_recipe(of: Sequences, inputs: bool) -> Recipe:
    """Slots: tape, kernel, recurrent kernel, then gradients.

    Given are those of the output and of the final states, then the mask if there is one; results
    those of x if `inputs`, of the weights, and of the initial states.
    """
    cell, dtype, T, B, I, H = of.cell, np.dtype(of.dtype), of.T, of.B, of.I, of.H
    G, A, L, E, S, N = cell.G, cell.A, cell.L, cell.E, cell.S, cell.N
    width, results = columns_of(dtype), 4 + N + (of.masked is not None)
    slots = results + inputs + 2 + (of.biases > 0) + N + 1
    tape = tape_in(of, Slot(0))
    kernel = Slot(1).empty((I, G * H), dtype)
    recurrent = Slot(2).empty((H, G * H), dtype)
    d_shown = Slot(3).empty(of.shown, dtype)
    d_kernel, d_start, work = results + inputs, slots - 1 - N, Slot(slots - 1)
    recipe, steps = Recipe(work, slots), steps_of(of, results - 1, work)
    dy = work.empty((T, B, H), dtype)
    d_final_h, prepared = steps.d_shown(d_shown, Slot(4).empty((B, H), dtype), dy)

    def zeros(array: Array) -> Array:
        prepared.append(exchange.clear(1, False, array.reshape(-1)))
        return array

    def panels(matrix: Array, gates: Sequence[str]) -> Array:
        if not gates:
            return np.empty(0, dtype)
        out = work.empty((padded(matrix.shape[0], width) * len(gates) * H,), dtype)
        positions = of.positions(gates)
        prepared.append(exchange.plain_panels(1, False, matrix, positions, H, width, out))
        return out

    d_sums = work.empty((T, B, S, H), dtype)
    plan = backward_plan(of.weights, of.rows, 1, steps.later)
    scratch, indices = _scratch(plan, work)
    d_start_h = zeros(Slot(d_start).empty((B, H), dtype))
    d_start_rest = zeros(Slot(d_start + 1).empty((N - 1, B, H), dtype))
    arguments = backward.Arguments(
        dy=dy, d_sums=d_sums, reset=_NO_RESET, order=steps.order, lengths=steps.lengths,
        valid=steps.valid, h_panels=panels(recurrent, cell.early),
        late_panels=panels(recurrent, cell.late), p_panels=np.empty(0, dtype),
        units=np.empty(0, dtype), d_units=np.empty((0, 0, 0), dtype),
        d_final_h=d_final_h, d_final_rest=Slot(5).empty((N - 1, B, H), dtype),
        d_start_h=d_start_h, d_start_rest=d_start_rest, d_begin_h=d_start_h,
        d_begin_rest=d_start_rest,
        saved=tape.saved, old_h=tape.old_h, old_rest=tape.old_rest,
        dh_tape=np.empty((0, 0, 0), dtype), pieces=steps.pieces(plan), scratch=scratch,
        indices=indices, H=H, P=H, y_at=0, reverse=False, resetting=False, projected=False,
        clip_value=0.0, clip_norm=0.0, h_mask=np.empty((0, 0), dtype),
    )  # fmt: skip

    running = steps.running()
    d_bias, space = zeros(work.empty((S * H,), dtype)), work.empty((S * H,), dtype)
    d_x = WeightGradient(d_sums, S * H, 0, G * H, tape.x, I, True, work.empty)
    d_h = WeightGradient(d_sums, S * H, A * H, E * H, tape.old_h, H, True, work.empty)
    of_weights = [(d_x, cell.x_gates, d_kernel), (d_h, cell.early, d_kernel + 1)]
    if L:
        d_late = WeightGradient(d_sums, S * H, E * H, L * H, tape.inner, H, True, work.empty)
        of_weights.append((d_late, cell.late, d_kernel + 1))
    jobs = [time_products.bias_gradient(1, False, d_sums, S * H, True, *running, d_bias, space)]
    finished = steps.d_start(d_start_h)
    if inputs:
        dx, found = work.empty((T, B, I), dtype), Slot(results).empty((B, T, I), dtype)
        x_panels = panels(kernel, cell.x_gates)
        jobs.append(input_job(d_sums, S * H, G * H, x_panels, running, dx, False, work.empty))
        finished.append(steps.scattered(dx, found))
    for one, gates, slot in of_weights:
        zeros(one.out)
        jobs.append(one.job(running, work.empty))
        matrix = Slot(slot).empty((I if one is d_x else H, G * H), dtype)
        finished.append(exchange.gradient(1, False, one.whole_rows, of.positions(gates), H, matrix))
    if of.biases:
        out = Slot(d_kernel + 2).empty(of.bias, dtype)
        parts = (d_bias[: G * H], cell.x_gates), (d_bias[A * H :], cell.h_gates)
        for row, (part, gates) in zip(range(of.biases), parts, strict=False):
            finished.append(
                exchange.gradient(
                    1, False, part.reshape(-1, 1), of.positions(gates), H, out[row : row + 1]
                )
            )
    each = G * H * (I + H + (I if inputs else 0))  # multiply-adds of a row
    recipe.stage([*steps.jobs, *prepared])
    recipe.stage([backward.backward_job(cell)(plan.count, plan.team, *arguments)], plan.work)
    recipe.stage(jobs, float(running.at.size) * each)
    recipe.stage(finished)
    return recipe.done()


#: Recipes that were asked for, kept for good, as programs know their addresses.
_made: dict[tuple[Any, ...], Recipe] = {}


def kept(of: Sequences, backwards: bool, option: bool) -> Recipe:
    """The recipe of a pass, forward (option: taping) or backwards (option: with dx)."""
    key = of, backwards, option, get_num_threads(), current()
    found = _made.get(key)
    if found is None:
        made = backward_recipe(of, option) if backwards else forward_recipe(of, option)
        found = _made.setdefault(key, made)  # another thread may have been first
    return found
