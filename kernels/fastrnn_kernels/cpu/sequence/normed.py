"""What passes of normed layers do between products and gates (`product/norms.py`).

A norm goes over all units of a row, so one thread has them all: there are no teams. Both parts of
the sums are normalised where they have been computed, that of x a block of time steps at a time,
that of h step by step; the backward pass takes the gradient of h's part the same way back, and that
of x's after the loop over time.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.memory import Array, Empty
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.llvm import flat, lanes
from fastrnn_kernels.cpu.isa.vector import load, store
from fastrnn_kernels.cpu.product.norms import norm_backward, normaliser
from fastrnn_kernels.cpu.product.panels import padded, vectors_per_gate
from fastrnn_kernels.cpu.product.tile import ONE, ZERO, alternate, next_rows
from fastrnn_kernels.cpu.product.weights import Weights, lanes_of
from fastrnn_kernels.cpu.sequence.form import Form, reach_of
from fastrnn_kernels.cpu.sequence.time_products import DEPTH
from fastrnn_kernels.cpu.threads.job import Job, job
from fastrnn_kernels.cpu.threads.pool import parts_of
from fastrnn_kernels.rows import Indices
from fastrnn_kernels.tape import Normed, Tape

#: Multiply-adds that take as long as the gradient of a norm of one value.
_WORK = 4.0
#: Arguments of a normed forward pass: gains as panels; a panel of zeros; (B, panels, E, U), where
#: h's part of a step is; and what is `Normed`.
FORWARD = "x_gains", "h_gains", "zeros", "parts", "x_hats", "h_hats", "scales"
#: Of a backward pass: gains (E H,); of `Normed` that of h; d_parts (T, B, E, H).
BACKWARD = "gains", "h_hats", "scales", "d_parts"


class Between(NamedTuple):
    """What a forward pass does between products and gates, as functions; nothing without a norm."""

    start: Any
    inputs: Any
    recurrent: Any
    add: Any


def between(cell: Cell, form: Form, h_product: Any, largest: int) -> Between:
    """The functions of a forward pass; h_product as `reading` has it.

    `start(given)`: what the products of x begin with, panels of the bias or one of zeros.
    `inputs(given, sums, count, x_at, I, H, taping)`: normalise x's part of a block's rows.
    `recurrent(given, h_rows, h_at, t_at, first, active, turn, H, depth, taping)`: h's part of a
    step, computed and normalised.
    `add(given, work, work_at, sums, sums_at, row, many, panel, H)`: it is added to sums.
    """
    if not form.norm:
        nothing = inlined(lambda given, *others: None)
        return Between(inlined(lambda given: given.bias), nothing, nothing, nothing)
    # Drawn values stand in front of the sums.
    units, S, G, E, D = vectors_per_gate(cell), cell.D + cell.S, cell.G, cell.E, cell.D
    of_x = normaliser(G, units, form.norm, True)
    of_h = normaliser(max(1, E), units, form.norm, False)
    its_reach, _ = reach_of(form)
    load_one, store_one = load(1), store(1)

    @inlined
    def inputs(given, sums, count, x_at, I, H, taping):  # type: ignore[no-untyped-def]
        x_hats, scales = flat(given.x_hats), flat(given.scales)
        W = lanes(sums)
        HL, U = (H + W - 1) // W * W, W * units
        for k in range(count):
            t = x_at[k] // I
            scale = of_x(
                sums, (k * S + D) * U, count * S * U, H, W, given.x_gains, given.bias,
                x_hats, t * G * HL, HL, taping,
            )  # fmt: skip
            if taping:
                scales[2 * t] = scale

    @inlined
    def recurrent(given, h_rows, h_at, t_at, first, active, turn, H, depth, taping):  # type: ignore[no-untyped-def]
        parts, h_hats, scales = flat(given.parts), flat(given.h_hats), flat(given.scales)
        W = lanes(parts)
        HL, U = (H + W - 1) // W * W, W * units
        panels = (H + U - 1) // U
        row, reach, zeros = panels * E * U, its_reach(given), given.zeros
        for position in range(panels):
            n = alternate(turn, position, 0, panels)
            q = ZERO
            while q < active:
                m = next_rows(active - q, largest)
                h_product(
                    reach, n, ZERO, ZERO, m, parts, (first + q) * row + n * E * U, row,
                    zeros, ZERO, ZERO,
                    h_rows, h_at, q, ONE, given.h_panels, n * depth * E * U, E * U, depth,
                )  # fmt: skip
                q += m
        for p in range(active):
            scale = of_h(
                parts, (first + p) * row, E * U, H, W, given.h_gains, given.bias,
                h_hats, t_at[p] * E * HL, HL, taping,
            )  # fmt: skip
            if taping:
                scales[2 * t_at[p] + 1] = scale

    @inlined
    def add(given, work, work_at, sums, sums_at, row, many, panel, H):  # type: ignore[no-untyped-def]
        parts = flat(given.parts)
        W = lanes(parts)
        U = W * units
        panels = (H + U - 1) // U
        for r in range(many):
            part_at = ((row + r) * panels + panel) * E * U
            for j in range(E * units):
                at = r * S * U + j * W
                (a,) = load_one(sums, sums_at + at, 0)
                (b,) = load_one(parts, part_at + j * W, 0)
                store_one(work, work_at + at, 0, (a + b,))

    return Between(inlined(lambda given: given.zeros), inputs, recurrent, add)


def back(cell: Cell, form: Form) -> tuple[Any, Any]:
    """What a backward pass does between gates and the product with R, as two functions.

    `(given)`: the factors of the product. `(given, d_sums, t_at, row_at, active, H)`: compute them
    of a step, the gradients of h's part; where rows of them begin is written to `row_at`.
    """
    if not form.norm:
        return inlined(lambda given: flat(given.d_sums)), inlined(lambda given, *others: None)
    S, E, Z = cell.S, cell.E, cell.X + cell.A
    backward = norm_backward(form.norm)

    @inlined
    def through(given, d_sums, t_at, row_at, active, H):  # type: ignore[no-untyped-def]
        d_parts, h_hats, scales = flat(given.d_parts), flat(given.h_hats), flat(given.scales)
        W = lanes(d_sums)
        HL = (H + W - 1) // W * W
        for p in range(active if E > 0 else 0):
            t = t_at[p]
            row_at[p] = t * E * H
            backward(
                d_sums, (t * S + Z) * H, E, H, W, given.gains,
                h_hats, t * E * HL, HL, scales[2 * t + 1], d_parts, row_at[p],
            )  # fmt: skip

    return inlined(lambda given: flat(given.d_parts)), through


def new_normed(weights: Weights, T: int, B: int, empty: Empty) -> Normed:
    """What a tape has of the norm, to be written."""
    cell, dtype = weights.cell, weights.dtype
    HL = padded(weights.hidden_size, lanes_of(dtype))
    x, h = empty((T, B, cell.G, HL), dtype), empty((T, B, cell.E, HL), dtype)
    return Normed(x, h, empty((T, B, 2), dtype))


def forward_arguments(
    weights: Weights, B: int, normed: Normed | None, empty: Empty
) -> tuple[Array, ...]:
    """Those of FORWARD."""
    dtype, cell = weights.dtype, weights.cell
    U = vectors_per_gate(cell) * lanes_of(dtype)
    parts = empty((B, padded(weights.hidden_size, U) * cell.E), dtype)
    none, scales = np.empty((0, 0, 0, 0), dtype), np.empty((0, 0, 0), dtype)
    kept = normed or Normed(none, none, scales)
    return *weights.norm_panels, np.zeros(cell.G * U, dtype), parts, *kept


def backward_arguments(tape: Tape[Weights], d_parts: Array) -> tuple[Array, ...]:
    """Those of BACKWARD."""
    assert tape.normed is not None
    return tape.weights.norm_gains[1], tape.normed.h, tape.normed.scales, d_parts


class NormGradient:
    """The gradients of gains, and of x's part of the sums, of a pass.

    d_parts (T, B, E, H): that of h's part.
    """

    def __init__(self, tape: Tape[Weights], d_sums: Array, d_parts: Array) -> None:
        assert tape.normed is not None
        weights, normed = tape.weights, tape.normed
        cell, H, dtype = weights.cell, weights.hidden_size, weights.dtype
        self._tape, self._normed, self._d_sums, self._down = tape, normed, d_sums, not tape.reverse
        self.d_h = d_parts
        self.gains = np.zeros(cell.G * H, dtype), np.zeros(cell.E * H, dtype)

    @cached_property
    def d_x(self) -> Array:
        """That of x's part, (T, B, G, H), where rows have been asked for."""
        weights = self._tape.weights
        shape = *self._d_sums.shape[:2], weights.cell.G, weights.hidden_size
        return memory.empty(shape, weights.dtype)

    def job_of_inputs(self, rows: Indices) -> Job:
        """What is to be done before the products over time with x's part, for these rows."""
        weights, normed = self._tape.weights, self._normed
        cell, H = weights.cell, weights.hidden_size
        parts = parts_of(float(rows.size) * cell.G * H * _WORK, 1)
        each = -(-rows.size // parts)
        of_x = self._d_sums, cell.G, H, weights.norm_gains[0], normed.x, normed.scales
        return _input_job(weights.norm)(parts, False, *of_x, rows, each, self.d_x)

    def jobs(self, rows: Indices) -> list[Job]:
        """The same, and what adds these rows to the gradients of gains."""
        weights, normed, d_sums = self._tape.weights, self._normed, self._d_sums
        cell, H = weights.cell, weights.hidden_size
        jobs = [self.job_of_inputs(rows)]
        for gates, at, hats, out in (
            (cell.G, 0, normed.x, self.gains[0]),
            (cell.E, (cell.X + cell.A) * H, normed.h, self.gains[1]),
        ):
            space = np.empty_like(out)
            given = d_sums, at, gates, H, hats, self._down, rows, out, space
            jobs.append(gain_gradient(1, False, *given))
        return jobs


def _input_job(norm: str) -> Callable[..., Job]:
    """A job: the gradients of x's part of the sums, before the norm."""
    return {"layer": layer_inputs, "rms": rms_inputs}[norm]


def _inputs(norm: str) -> Any:
    backward = norm_backward(norm)

    def make(arguments):  # type: ignore[no-untyped-def]
        def run(record, number, members):  # type: ignore[no-untyped-def]
            d_sums, G, H, gains, x_hats, scales, rows, each, out = arguments(record)
            d, hats, to, found = flat(d_sums), flat(x_hats), flat(out), flat(scales)
            W, step = lanes(d), d_sums.shape[2] * H
            HL = (H + W - 1) // W * W
            for k in range(number * each, min(number * each + each, rows.size)):
                t = rows[k]
                backward(
                    d, t * step, G, H, W, gains, hats, t * G * HL, HL, found[2 * t], to, t * G * H
                )

        return run

    return make


layer_inputs = job("layer-norm-inputs", "the gradients of layer norm")(_inputs("layer"))
rms_inputs = job("rms-norm-inputs", "the gradients of RMS norm")(_inputs("rms"))


@job("norm-gains", "the gradients of a norm's gains")
def gain_gradient(arguments):  # type: ignore[no-untyped-def]
    """out[m] += Σ_k d_sums[rows[k], at + m] y[rows[k], m], in chains as `bias_gradient`.

    out (gates H,), zeros at first; scratch part, as out.
    """

    def run(record, number, members):  # type: ignore[no-untyped-def]
        d_sums, at, gates, H, hats_given, descending, rows, out, part = arguments(record)
        d, hats, count = flat(d_sums), flat(hats_given), rows.size
        W, step = lanes(d), d_sums.shape[2] * H
        HL = (H + W - 1) // W * W
        chains = (count + DEPTH - 1) // DEPTH
        for turn in range(chains):
            start = (chains - 1 - turn if descending else turn) * DEPTH
            for m in range(gates * H):
                part[m] = 0
            for k in range(start, min(start + DEPTH, count)):
                for g in range(gates):
                    d_at = rows[k] * step + at + g * H
                    of_d: Any = d[d_at : d_at + H]
                    hats_at = (rows[k] * gates + g) * HL
                    of_y: Any = hats[hats_at : hats_at + H]
                    to: Any = part[g * H : g * H + H]
                    for u in range(H):
                        to[u] += of_d[u] * of_y[u]
            for m in range(gates * H):
                out[m] += part[m]

    return run
