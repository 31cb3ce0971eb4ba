"""Backpropagation through time for one direction of one layer, for some rows of the batch.

Step by step backwards: the gates' gradients unit by unit, then the gradient of the old h
as one product with R. The gradients of x and of the weights are products over all steps
and come afterwards (`time_products.py`), from d_sums.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.registry import called
from fastrnn_kernels.cpu.arrays.memory import CACHE_LINE
from fastrnn_kernels.cpu.isa.host import current, for_each
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.llvm import fetch, first_on_line, flat, lanes
from fastrnn_kernels.cpu.isa.vector import add, load, load_from_two, load_part, store, store_part
from fastrnn_kernels.cpu.product.panels import VECTORS
from fastrnn_kernels.cpu.product.tile import (
    ONE,
    ZERO,
    alternate,
    copy,
    multiply_columns,
    next_rows,
    time_of,
)
from fastrnn_kernels.cpu.sequence.form import PLAIN, Form, more_arguments, reach_of, reading
from fastrnn_kernels.cpu.sequence.normed import BACKWARD, back
from fastrnn_kernels.cpu.sequence.plan import backward_layout
from fastrnn_kernels.cpu.threads.barrier import meet
from fastrnn_kernels.cpu.threads.job import FIRST_STEP, LAST_STEP, Job, job


def part_adder() -> Any:
    """A function that adds the first `many` values of `source` to a vector of `target`."""
    load_one, store_one, part = load(1), store(1), load_part()

    @inlined
    def add_part(target, at, source, source_at, many):  # type: ignore[no-untyped-def]
        (old,) = load_one(target, at, 0)
        store_one(target, at, 0, (old + part(source, source_at, many),))

    return add_part


class Arguments(NamedTuple):
    """What a backward pass is given; arrays, their padding, rows and pieces as forward."""

    dy: Any  # (T, B, Y), read from column y_at on
    d_sums: Any  # (T, B, S, H), written where a row runs
    reset: Any
    order: Any
    lengths: Any
    valid: Any
    h_panels: Any  # (panels, E H, 4 vectors) of R, gates in the order of the sums
    late_panels: Any  # (panels, L H, 4 vectors)
    p_panels: Any  # (panels, P, 4 vectors) of the projection
    units: Any  # (Q, HU)
    d_final_h: Any  # (B, P)
    d_final_rest: Any  # (states but h, B, H)
    d_start_h: Any  # as d_final_h
    d_start_rest: Any  # as d_final_rest
    d_begin_h: Any  # of the states before the first step, if those are others
    d_begin_rest: Any
    d_units: Any  # (B, Q, HL): what each row adds to the gradients of parameters per unit
    saved: Any
    old_h: Any
    old_rest: Any
    dh_tape: Any  # (T, B, P): gradient of the projected h, for the projection's own gradient
    pieces: Any
    scratch: Any
    indices: Any
    H: Any
    P: Any
    y_at: Any
    reverse: Any
    resetting: Any
    projected: Any
    clip_value: Any  # 0 where it is off, as below
    clip_norm: Any
    h_mask: Any  # as forward


@inlined
def clip_row(array, at, many, value, norm):  # type: ignore[no-untyped-def]
    """Clip the gradient of a state of a row: each of its values, then its norm; NaN stays."""
    if value > 0:
        for u in range(at, at + many):
            if array[u] > value:
                array[u] = value
            elif array[u] < -value:
                array[u] = -value
    if norm > 0:
        squares = 0.0
        for u in range(at, at + many):
            squares += float(array[u]) * float(array[u])
        if squares > norm * norm:
            scale = norm / math.sqrt(squares)
            for u in range(at, at + many):
                array[u] *= scale


def backward_job(cell: Cell, form: Form = PLAIN) -> Callable[..., Job]:
    """The backward pass of a cell, as a job."""
    return _backward_job(cell, form)


@for_each
def _backward_job(cell: Cell, form: Form) -> Callable[..., Job]:
    G, GH, L, E, S = cell.G, cell.GH, cell.L, cell.E, cell.S
    masked = form.masked
    N, K, Q = cell.N, cell.K, cell.Q
    Z = cell.X + cell.A  # the first sum that h has a part in
    product, largest = multiply_columns(), current().rows(VECTORS)
    fetching = current().fetch_rows
    backward = inlined(cell.backward)
    late_backward = inlined(cell.late_backward) if cell.late_backward else backward
    load_states, load_saved, load_one = load_from_two(1, N - 1), load(K), load(1)
    load_units, add_units = load(Q), add(Q)
    store_one, store_rest = store(1), store(N - 1)
    store_sums, store_late = store_part(S - L), store_part(max(1, L))

    parts, add_part = inlined(backward_layout), part_adder()
    # Of blocks, each gate's part is a product of its own: a panel reads some of its units.
    apart = E if form.blocked else 1
    read_product, (its_reach, depth) = reading(form, product), reach_of(form)
    normed, (factors_of, to_parts) = bool(form.norm), back(cell, form)
    name, words = f"{cell.key}-backward{form.suffix}", f"the {called(cell)}'s backward pass"

    @job(name, words, more_arguments(Arguments, form, BACKWARD))
    def make(arguments):  # type: ignore[no-untyped-def]
        def run(record, number, members):  # type: ignore[no-untyped-def]
            given = arguments(record)
            first_step, last_step = record[FIRST_STEP], record[LAST_STEP]
            T, B, Y = given.dy.shape
            H, P, y_at = given.H, given.P, given.y_at
            reverse, resetting, projected = given.reverse, given.resetting, given.projected
            dy, d_sums, reset = flat(given.dy), flat(given.d_sums), flat(given.reset)
            order, lengths, valid = given.order, given.lengths, given.valid
            h_panels, late_panels, p_panels = given.h_panels, given.late_panels, given.p_panels
            per_unit, d_units = given.units, flat(given.d_units)
            d_final_h, d_final_rest = flat(given.d_final_h), flat(given.d_final_rest)
            d_start_h, d_start_rest = flat(given.d_start_h), flat(given.d_start_rest)
            d_begin_h, d_begin_rest = flat(given.d_begin_h), flat(given.d_begin_rest)
            saved, old_h, old_rest = flat(given.saved), flat(given.old_h), flat(given.old_rest)
            dh_tape, factors = flat(given.dh_tape), factors_of(given)
            pieces, scratch, indices = given.pieces, given.scratch, given.indices
            clip_value, clip_norm = given.clip_value, given.clip_norm
            h_mask, M = flat(given.h_mask), given.h_mask.shape[1]
            W = lanes(dy)
            W4 = W * VECTORS
            panels, state_panels = (H + W4 - 1) // W4, (P + W4 - 1) // W4
            HL, PL = (H + W - 1) // W * W, (P + W - 1) // W * W
            HU, PU = panels * W4, state_panels * W4
            reach, deep = its_reach(given), depth(given, E * H)

            # A team does one piece together; other calls do each its own.
            piece, member = (0, number) if members > 1 else (number, 0)
            first, last = pieces[piece, 0], pieces[piece, 1]
            shared_at, index_at = pieces[piece, 3] + first_on_line(scratch), pieces[piece, 5]
            rows = last - first
            longest = lengths[first] if rows > 0 else 0
            phase = 0
            # A member's own panels of units and of columns of h.
            n_first, n_last = panels * member // members, panels * (member + 1) // members
            p_first = state_panels * member // members
            p_last = state_panels * (member + 1) // members
            u_first, u_last = n_first * W4, min(H, n_last * W4)
            c_first, c_last = p_first * W4, min(P, p_last * W4)
            u_many, c_many = u_last - u_first, c_last - c_first

            rest_at, full_at, inner_at, masked_at, _ = parts(
                rows, N, HU, PU, projected, L > 0, CACHE_LINE // dy.itemsize, masked
            )
            dh, d_rest = scratch[shared_at:], scratch[shared_at + rest_at :]
            d_full, d_inner = scratch[shared_at + full_at :], scratch[shared_at + inner_at :]
            d_masked = scratch[shared_at + masked_at :]
            index_at += member * 3 * rows
            row_at, dh_at = indices[index_at:], indices[index_at + rows :]
            t_at = indices[index_at + 2 * rows :]

            for p in range(rows):
                dh_at[p] = p * PU
            # What begins with a later step finds the gradients as the part before has left them.
            for p in range(rows if first_step == 0 else 0):
                b = order[first + p]
                copy(dh, p * PU + c_first, d_final_h, b * P + c_first, c_many)
                for j in range(N - 1):
                    at = (j * B + b) * H + u_first
                    copy(d_rest, (j * rows + p) * HU + u_first, d_final_rest, at, u_many)
            if GH > 0 or projected:
                phase = meet(record, members, phase)

            for s in range(min(longest, T - first_step) - 1, max(0, T - last_step) - 1, -1):
                active = min(rows, valid[s] - first)
                for p in range(active):
                    t_at[p] = time_of(lengths[first + p], s, reverse) * B + order[first + p]
                    if projected or L > 0:
                        for u in range(c_first, c_last, W):
                            add_part(dh, p * PU + u, dy, t_at[p] * Y + y_at + u, P - u)

                if projected:
                    for p in range(active):
                        at = p * PU + c_first
                        copy(dh_tape, t_at[p] * P + c_first, dh, at, c_many)
                    phase = meet(record, members, phase)
                    for position in range(n_first, n_last):
                        n = alternate(s, position, n_first, n_last)
                        q = ZERO
                        while q < active:
                            m = next_rows(active - q, largest)
                            at = q * HU + n * W4
                            for r in range(m):
                                for u in range(W4):
                                    d_full[at + r * HU + u] = 0
                            product(
                                H - n * W4, m, d_full, at, HU, d_full, at, HU,
                                dh, dh_at, q, ONE, p_panels, n * P * W4, W4, P,
                            )  # fmt: skip
                            q += m
                    # Nobody may clear dh before all have read it.
                    phase = meet(record, members, phase)

                if L > 0:
                    for p in range(active):
                        for u in range(u_first, u_last, W):
                            # One state: the same array stands where the others' would.
                            late = late_backward(
                                load_one(dh, p * PU + u, 0),
                                load_saved(saved, t_at[p] * K * HL + u, HL),
                                load_one(old_h, t_at[p] * PL + u, 0) + load_units(per_unit, u, HU),
                            )
                            at = (t_at[p] * S + G - L) * H + u
                            store_late(d_sums, at, H, H - u, late)
                        row_at[p] = (t_at[p] * S + G - L) * H
                    phase = meet(record, members, phase)
                    for position in range(n_first, n_last):
                        n = alternate(s, position, n_first, n_last)
                        q = ZERO
                        while q < active:
                            m = next_rows(active - q, largest)
                            at = q * HU + n * W4
                            for r in range(m):
                                for u in range(W4):
                                    d_inner[at + r * HU + u] = 0
                            product(
                                H - n * W4, m, d_inner, at, HU, d_inner, at, HU,
                                d_sums, row_at, q, ONE, late_panels, n * L * H * W4, W4, L * H,
                            )  # fmt: skip
                            q += m

                for p in range(active):
                    t_next = t_at[min(p + 1, active - 1)]
                    for u in range(u_first, u_last, W):
                        if fetching:  # what the next row reads
                            for k in range(K):
                                fetch(saved, (t_next * K + k) * HL + u)
                            for j in range(N - 1):
                                fetch(old_rest, (j * T * B + t_next) * HL + u)
                            fetch(dy, t_next * Y + y_at + u)
                        d_at, old_at = p * PU + u, t_at[p] * PL + u
                        if projected:
                            d_at, old_at = 0, 0
                        rest_at = p * HU + u
                        old_rest_at = t_at[p] * HL + u
                        kept = load_saved(saved, t_at[p] * K * HL + u, HL)
                        old = load_states(
                            old_h, old_at, 0, old_rest, old_rest_at, T * B * HL
                        ) + load_units(per_unit, u, HU)
                        if L > 0:
                            d_value = load_one(d_inner, rest_at, 0)[0]
                            if masked:
                                d_value = d_value * load_one(h_mask, order[first + p] * M + u, 0)[0]
                            new_sums, d_old = backward(load_one(dh, d_at, 0), kept, old, d_value)
                        else:
                            if projected:
                                d_states = load_states(
                                    d_full, rest_at, 0, d_rest, rest_at, rows * HU
                                )
                            else:
                                add_part(dh, d_at, dy, t_at[p] * Y + y_at + u, H - u)
                                d_states = load_states(dh, d_at, 0, d_rest, rest_at, rows * HU)
                            new_sums, d_old = backward(d_states, kept, old)
                        store_sums(d_sums, t_at[p] * S * H + u, H, H - u, new_sums)
                        store_rest(d_rest, rest_at, rows * HU, d_old[1:N])
                        add_units(d_units, order[first + p] * Q * HL + u, HL, d_old[N:])
                        if not projected:
                            store_one(dh, d_at, 0, d_old[:1])
                    row_at[p] = (t_at[p] * S + Z) * H
                    if projected:  # its cell reads no h: the products alone give the gradient
                        for u in range(c_first, p_last * W4):
                            dh[p * PU + u] = 0
                if GH > 0 or projected:
                    phase = meet(record, members, phase)

                if normed:
                    to_parts(given, d_sums, t_at, row_at, active, H)
                for position in range(p_first, p_last if E > 0 else p_first):
                    n = alternate(s, position, p_first, p_last)
                    q = ZERO
                    while q < active:
                        m = next_rows(active - q, largest)
                        at = q * PU + n * W4
                        if masked:
                            for r in range(m):
                                for u in range(W4):
                                    d_masked[at + r * PU + u] = 0
                        for g in range(apart):
                            panel_at = (n * apart + g) * deep * W4
                            if masked:
                                read_product(
                                    reach, n, g * H, P - n * W4, m, d_masked, at, PU,
                                    d_masked, at, PU, factors, row_at, q, ONE,
                                    h_panels, panel_at, W4, deep,
                                )  # fmt: skip
                            else:
                                read_product(
                                    reach, n, g * H, P - n * W4, m, dh, at, PU, dh, at, PU,
                                    factors, row_at, q, ONE, h_panels, panel_at, W4, deep,
                                )  # fmt: skip
                        if masked:
                            for r in range(m):
                                at_mask = order[first + q + r] * M + n * W4
                                for u in range(W4):
                                    d_h = d_masked[at + r * PU + u] * h_mask[at_mask + u]
                                    dh[at + r * PU + u] += d_h
                        q += m

                if clip_value > 0 or clip_norm > 0:
                    # A member takes whole rows here, of which others have written the columns.
                    phase = meet(record, members, phase)
                    for p in range(active * member // members, active * (member + 1) // members):
                        clip_row(dh, p * PU, P, clip_value, clip_norm)
                        for j in range(N - 1):
                            clip_row(d_rest, (j * rows + p) * HU, H, clip_value, clip_norm)
                    phase = meet(record, members, phase)

                for p in range(active):
                    b = order[first + p]
                    t = time_of(lengths[first + p], s, reverse)
                    restarted = resetting and s > 0 and reset[(t + 1 if reverse else t) * B + b]
                    if s == 0 or restarted:
                        to_h, to_rest = d_start_h, d_start_rest
                        if s == 0:
                            to_h, to_rest = d_begin_h, d_begin_rest
                        for u in range(c_first, c_last):
                            to_h[b * P + u] += dh[p * PU + u]
                            dh[p * PU + u] = 0
                        for j in range(N - 1):
                            for u in range(u_first, u_last):
                                to_rest[(j * B + b) * H + u] += d_rest[(j * rows + p) * HU + u]
                                d_rest[(j * rows + p) * HU + u] = 0

            for p in range(rows if last_step >= T else 0):
                if lengths[first + p] == 0:
                    b = order[first + p]
                    copy(d_begin_h, b * P + c_first, d_final_h, b * P + c_first, c_many)
                    for j in range(N - 1):
                        at = (j * B + b) * H + u_first
                        copy(d_begin_rest, at, d_final_rest, at, u_many)

        return run

    return make
