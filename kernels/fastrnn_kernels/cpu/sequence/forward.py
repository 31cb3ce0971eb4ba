"""The forward pass of one direction of one layer, for some rows of the batch.

A block of time steps at a time: first the x-parts of all its steps as one product, then
step by step the h-part and, tile by tile, the gates. Nothing is allocated inside.

Threads either take rows of their own, or, as members of a team, the same rows and units of
their own; members wait for each other once a step, when h is whole. Where no gate has an h-part
they do not, as each unit's h is read by that unit alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.registry import called
from fastrnn_kernels.cpu.arrays.memory import CACHE_LINE
from fastrnn_kernels.cpu.isa.host import current, for_each
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.llvm import fetch, first_on_line, flat, lanes
from fastrnn_kernels.cpu.isa.twins import (
    first_of,
    load_twins_from_two,
    next_vector,
    second_of,
    store_twins,
)
from fastrnn_kernels.cpu.isa.vector import load, load_from_two, store, store_part
from fastrnn_kernels.cpu.product.pairs import keeper, row_keeper
from fastrnn_kernels.cpu.product.panels import VECTORS, vectors_per_gate
from fastrnn_kernels.cpu.product.tile import (
    ONE,
    ZERO,
    alternate,
    copy,
    copy_masked,
    multiply_rows,
    next_rows,
    time_of,
)
from fastrnn_kernels.cpu.product.tiles import leave_tiles, use_tiles
from fastrnn_kernels.cpu.sequence.form import PLAIN, Form, more_arguments, reach_of, reading
from fastrnn_kernels.cpu.sequence.normed import FORWARD, between
from fastrnn_kernels.cpu.sequence.plan import own_layout, shared_layout
from fastrnn_kernels.cpu.threads.barrier import meet
from fastrnn_kernels.cpu.threads.job import FIRST_STEP, LAST_STEP, Job, job
from fastrnn_kernels.draws import draw_units


class Arguments(NamedTuple):
    """What a forward pass is given; all arrays are C-contiguous.

    Rows of the batch are taken in `order`, longest first; their lengths are `lengths[position]`,
    and `valid` counts the rows that still run at each step. Of H and P, HL and PL are padded to
    whole vectors, HU to whole panels, PU to those of h.

    Panels and rows of products hold pairs where the job's `values` is 2 (`product/pairs.py`); where
    it is 1, x_rows is x, and h_rows is state_h unless a mask is between them.
    """

    x: Any  # (T, B, I)
    y: Any  # (T, B, Y), written from column y_at, 0 where a row has ended
    reset: Any  # (T, B) or empty
    order: Any
    lengths: Any
    valid: Any
    x_panels: Any  # (panels, I, G, U)
    bias: Any  # (panels, G, U)
    h_panels: Any  # (panels, P, E, U) of the E early gates
    h_bias: Any  # (panels, A, U) of the A gates apart
    late_panels: Any  # (panels, H, L, U) of the L late gates
    p_panels: Any  # (panels, H, 4 vectors): the projection's, or empty
    units: Any  # (Q, HU)
    start_h: Any  # (B, P)
    start_rest: Any  # (states but h, B, H)
    # The states before the first step, of what begins with it: start_h and start_rest, where
    # resets go back to, or those that the time before has left.
    begin_h: Any
    begin_rest: Any
    final_h: Any  # as start_h
    final_rest: Any  # as start_rest
    # The tape, where `taping`:
    saved: Any  # (T, B, K, HL)
    old_h: Any  # (T, B, PL)
    old_rest: Any  # (states but h, T, B, HL)
    inner: Any  # (T, B, HL) of a cell with late gates
    full_h: Any  # (T, B, HL) before a projection
    # What each call does, or a team does together, and where it works: `plan.py`.
    pieces: Any  # (., 6)
    scratch: Any
    operands: Any  # the same memory as rows of products
    indices: Any
    H: Any
    P: Any
    y_at: Any
    reverse: Any
    resetting: Any
    projected: Any
    taping: Any
    # What is drawn (`draws.py`):
    words: Any  # (2 + D,) or empty
    levels: Any  # (D, 2)
    h_mask: Any  # (B, whole panels of h), of a job that is `masked`
    draw_kind: Any  # of the first of the drawn values
    draw_first: Any  # the time of the first step


def forward_job(cell: Cell, values: int, form: Form = PLAIN) -> Callable[..., Job]:
    """The forward pass of a cell, with `values` to an element of the products' rows, as a job."""
    return _forward_job(cell, values, form)


@for_each
def _forward_job(cell: Cell, values: int, form: Form) -> Callable[..., Job]:
    G, GH, A, L, E, masked = cell.G, cell.GH, cell.A, cell.L, cell.E, form.masked
    N, K, Q, D = cell.N, cell.K, cell.Q, cell.D
    S = D + cell.S  # drawn values stand in front of the sums
    Z = D + cell.X + A  # the first sum that h has a part in
    # Sums that the last product of a step leaves as they are: without one, all.
    F = D + G - L if L else Z if E else S
    units = vectors_per_gate(cell)
    paired = values == 2
    tiled = paired and current().tiles
    x_product, h_product = (
        multiply_rows(G * units, values),
        multiply_rows(max(1, E) * units, values),
    )
    late_product, plain_product = (
        multiply_rows(max(1, L) * units, values),
        multiply_rows(VECTORS, values),
    )
    largest = current().rows(G * units, values)
    plain_rows = current().rows(VECTORS, values)
    # Rows that the gates are applied to together: an even number where registers take an odd one.
    group = largest if largest % 2 == 0 else 2 * largest
    most_rows = current().most_rows(values)
    fetching = current().fetch_rows
    forward = inlined(cell.forward)
    inner_value = inlined(cell.inner) if cell.inner else forward
    load_sums, load_states = load_twins_from_two(F, S - F), load_twins_from_two(1, N - 1)
    store_h, store_rest, store_saved = store_twins(1), store_twins(N - 1), store_twins(K)
    load_early, load_one_states = load(max(1, D + G - L)), load_from_two(1, N - 1)
    load_units, load_one_units = load_twins_from_two(Q, 0), load(Q)
    load_one, store_one, store_y = load(1), store(1), store_part(1)
    keep, keep_row = keeper(values), row_keeper(values)
    draw = inlined(draw_units)
    read_product, (its_reach, depth) = reading(form, h_product), reach_of(form)
    normed, norm = bool(form.norm), between(cell, form, read_product, largest)
    x_start, normalise_inputs, recurrent_part, add_part = norm
    # A norm comes before the bias, so the products of x begin with one panel of zeros.
    init_step = 0 if normed else 1
    shared_parts, own_parts = (
        inlined(shared_layout),
        inlined(own_layout),
    )
    # Rows of x are read where they are, or rounded to pairs first.
    rows_of_x = inlined(
        (lambda x, operands, at: operands[at:]) if paired else (lambda x, operands, at: x)
    )

    words = f"the {called(cell)}'s forward pass" + (" in bfloat16" if paired else "")
    # Of the three ways to multiply pairs, each has kernels of its own in a wheel (`isa/levels.py`).
    by = "-tiles" if tiled else "-dots" if current().pairs else ""
    name = f"{cell.key}-forward{form.suffix}{f'-pairs{by}' if paired else ''}"

    @job(name, words, more_arguments(Arguments, form, FORWARD))
    def make(arguments):  # type: ignore[no-untyped-def]
        def run(record, number, members):  # type: ignore[no-untyped-def]
            given = arguments(record)
            unit = use_tiles() if tiled else 0
            first_step, last_step = record[FIRST_STEP], record[LAST_STEP]
            T, B, I = given.x.shape
            Y, H, P, y_at = given.y.shape[2], given.H, given.P, given.y_at
            reverse, resetting = given.reverse, given.resetting
            projected, taping = given.projected, given.taping
            x, y, reset = flat(given.x), flat(given.y), flat(given.reset)
            order, lengths, valid = given.order, given.lengths, given.valid
            x_panels = given.x_panels
            h_panels, h_bias = given.h_panels, given.h_bias
            x_init, reach = x_start(given), its_reach(given)
            late_panels, p_panels, per_unit = given.late_panels, given.p_panels, given.units
            start_h, start_rest = flat(given.start_h), flat(given.start_rest)
            begin_h, begin_rest = flat(given.begin_h), flat(given.begin_rest)
            final_h, final_rest = flat(given.final_h), flat(given.final_rest)
            saved, old_h, old_rest = flat(given.saved), flat(given.old_h), flat(given.old_rest)
            inner_tape, full_tape = flat(given.inner), flat(given.full_h)
            pieces, scratch = given.pieces, given.scratch
            operands, indices = given.operands, given.indices
            words, levels = given.words, given.levels
            h_mask, M = flat(given.h_mask), given.h_mask.shape[1]
            W = lanes(x)
            U, W4 = W * units, W * VECTORS
            panels, state_panels = (H + U - 1) // U, (P + W4 - 1) // W4
            HL, PL = (H + W - 1) // W * W, (P + W - 1) // W * W
            HU = panels * U
            PU = state_panels * W4 if projected else HU
            # Products to a sum, and elements to a row of x.
            KI, KH, KP = (
                (I + values - 1) // values,
                (H + values - 1) // values,
                (depth(given, P) + values - 1) // values,
            )
            XW = (I + W - 1) // W * W // values

            # A team does one piece together; other calls do each its own.
            piece, member = (0, number) if members > 1 else (number, 0)
            first, last, steps_per_block = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
            shared_at, own_at, index_at = pieces[piece, 3], pieces[piece, 4], pieces[piece, 5]
            rows = last - first
            longest = lengths[first] if rows > 0 else 0
            phase = 0
            # A member's own panels, units, panels of columns of h, and these columns.
            n_first, n_last = panels * member // members, panels * (member + 1) // members
            u_first, u_many = n_first * U, min(H, n_last * U) - n_first * U
            p_first = state_panels * member // members
            p_last = state_panels * (member + 1) // members
            c_first, c_many = u_first, u_many
            if projected:
                c_first, c_many = p_first * W4, min(P, p_last * W4) - p_first * W4

            line, whole = CACHE_LINE // x.itemsize, first_on_line(scratch)
            shared_at += whole
            own_at += whole
            rest_at, rows_at, full_at, inner_at, _ = shared_parts(
                rows, N, HU, PU, values, projected, L > 0, line, masked
            )
            state_h, state_rest = scratch[shared_at:], scratch[shared_at + rest_at :]
            h_rows = operands[shared_at + (rows_at if paired or masked else 0) :]
            full_h, inner = operands[shared_at + full_at :], operands[shared_at + inner_at :]
            panels_each = (panels + members - 1) // members
            most = steps_per_block * rows
            work_at, x_rows_at, own_size = own_parts(
                most, panels_each * U, S, U, XW, values, most_rows, line
            )
            own_at += member * own_size
            sums, work = scratch[own_at:], scratch[own_at + work_at :]
            x_rows = rows_of_x(x, operands, own_at + x_rows_at)
            index_at += member * (most + 3 * rows)
            x_at = indices[index_at:]
            h_at, u_at = indices[index_at + most :], indices[index_at + most + rows :]
            t_at = indices[index_at + most + 2 * rows :]

            for p in range(rows):
                u_at[p] = p * HU // values
            # What begins with a later step finds the states as the part before has left them.
            for p in range(rows if first_step == 0 else 0):
                b = order[first + p]
                copy(state_h, p * PU + c_first, begin_h, b * P + c_first, c_many)
                if paired:
                    keep_row(h_rows, p * PU + c_first, begin_h, b * P + c_first, c_many, W)
                if masked:
                    at = p * PU + c_first
                    copy_masked(h_rows, at, state_h, at, h_mask, b * M + c_first, c_many)
                for j in range(N - 1):
                    at = (j * B + b) * H + u_first
                    copy(state_rest, (j * rows + p) * HU + u_first, begin_rest, at, u_many)
                if lengths[first + p] == 0:
                    copy(final_h, b * P + c_first, begin_h, b * P + c_first, c_many)
                    for j in range(N - 1):
                        at = (j * B + b) * H + u_first
                        copy(final_rest, at, begin_rest, at, u_many)
                for t in range(lengths[first + p], T):
                    at = (t * B + b) * Y + y_at + c_first
                    y[at : at + c_many] = 0

            # In whole blocks, so that parts compute what the whole does.
            block_start = (first_step + steps_per_block - 1) // steps_per_block * steps_per_block
            current, following = 0, rows * PU
            if block_start % 2 == 1:
                current, following = following, current
            while block_start < min(longest, last_step):
                block_end = min(longest, block_start + steps_per_block)

                # The x-parts of all steps and rows of the block: sums
                # [panel][step, row][S, U].
                count = 0
                for s in range(block_start, block_end):
                    for p in range(min(rows, valid[s] - first)):
                        t = time_of(lengths[first + p], s, reverse)
                        x_at[count] = (t * B + order[first + p]) * I
                        if paired:
                            keep_row(x_rows, count * XW * values, x, x_at[count], I, W)
                            x_at[count] = count * XW
                        count += 1
                for n in range(n_first, n_last):
                    q = ZERO
                    while q < count:
                        m = next_rows(count - q, largest)
                        at = ((n - n_first) * count + q) * S * U
                        x_product(
                            unit, m, sums, at + D * U, S * U, x_init, n * G * U * init_step, ZERO,
                            x_rows, x_at, q, ONE, x_panels, n * KI * G * U, G * U, KI,
                        )  # fmt: skip
                        for j in range(A * units):
                            h_part = load_one(h_bias, n * A * U + j * W, 0)
                            for r in range(m):
                                store_one(sums, at + (r * S + D + G) * U + j * W, 0, h_part)
                        q += m
                if normed:
                    normalise_inputs(given, sums, count, x_at, I, H, taping)

                if D > 0:
                    row = 0
                    for s in range(block_start, block_end):
                        for p in range(min(rows, valid[s] - first)):
                            t = time_of(lengths[first + p], s, reverse) + given.draw_first
                            for n in range(n_first, n_last):
                                at = ((n - n_first) * count + row) * S * U
                                for d in range(D):
                                    draw(
                                        sums, at + d * U, n * U, U, order[first + p], t,
                                        given.draw_kind + d, words, d, levels[d, 0], levels[d, 1],
                                    )  # fmt: skip
                            row += 1

                # Not sooner: a member may come late, and has its x-part to do.
                if block_start == 0 and (GH > 0 or projected):
                    phase = meet(record, members, phase)
                step_at = 0  # of the step's first row among the block's
                for s in range(block_start, block_end):
                    active = min(rows, valid[s] - first)
                    for p in range(active):
                        h_at[p] = (current + p * PU) // values
                        t_at[p] = time_of(lengths[first + p], s, reverse) * B + order[first + p]
                        if taping and projected:
                            at = current + p * PU + c_first
                            copy(old_h, t_at[p] * PL + c_first, state_h, at, c_many)

                    if L > 0:
                        # The early gates' sums, and the value that the late gates multiply.
                        for position in range(n_first, n_last):
                            n = alternate(s, position, n_first, n_last)
                            q = ZERO
                            while q < active:
                                m = next_rows(active - q, largest)
                                at = ((n - n_first) * count + step_at + q) * S * U
                                if E > 0:
                                    to = at + Z * U
                                    h_product(
                                        unit, m, sums, to, S * U, sums, to, S * U,
                                        h_rows, h_at, q, ONE, h_panels, n * KP * E * U, E * U, KP,
                                    )  # fmt: skip
                                for r in range(m):
                                    p = q + r
                                    for v in range(units):
                                        u = n * U + v * W
                                        value = inner_value(
                                            load_early(sums, at + r * S * U + v * W, U),
                                            load_one_states(
                                                state_h, current + p * PU + u, 0,
                                                state_rest, p * HU + u, rows * HU,
                                            ) + load_one_units(per_unit, u, HU),
                                        )  # fmt: skip
                                        if masked:
                                            at_mask = order[first + p] * M + u
                                            value = value * load_one(h_mask, at_mask, 0)[0]
                                        keep(inner, p * HU + u, H - u, value)
                                        if taping and u < H:
                                            store_one(inner_tape, t_at[p] * HL + u, 0, (value,))
                                q += m
                        phase = meet(record, members, phase)

                    if normed and E > 0:
                        recurrent_part(given, h_rows, h_at, t_at, first, active, s, H, KP, taping)
                    # One row alone has its gates applied for two panels at a time.
                    together = 2 if active == 1 and units == 1 else 1
                    for position in range(n_first, n_last, together):
                        n = alternate(s, position, n_first, n_last)
                        n2 = n
                        if together == 2 and position + 1 < n_last:
                            n2 = alternate(s, position + 1, n_first, n_last)
                        vectors = min(units, (H - n * U + W - 1) // W)
                        q = ZERO
                        while q < active:
                            m = next_rows(active - q, group)
                            m = min(m + m % 2, active - q)
                            at = ((n - n_first) * count + step_at + q) * S * U
                            to_panel = (n2 - n) * count * S * U
                            if fetching and taping:
                                # What the gates write, while the products are computed.
                                for r in range(m):
                                    for v in range(vectors):
                                        t, u = t_at[q + r], n * U + v * W
                                        for k in range(K):
                                            fetch(saved, (t * K + k) * HL + u)
                                        for j in range(N - 1):
                                            fetch(old_rest, (j * T * B + t) * HL + u)
                                        fetch(old_h, t * PL + u)
                            k, panel, sums_at = ZERO, n, at
                            while k < m or panel != n2:
                                if k == m:
                                    panel, sums_at = n2, at + to_panel - k * S * U
                                many, to = next_rows(max(ONE, m - k), largest), k * S * U
                                if L > 0:
                                    late_product(
                                        unit, many, work, to + F * U, S * U,
                                        sums, sums_at + to + F * U, S * U, inner, u_at,
                                        min(q + k, active - 1), ONE,
                                        late_panels, panel * KH * L * U, L * U, KH,
                                    )  # fmt: skip
                                elif normed and E > 0:
                                    add_part(
                                        given,
                                        work,
                                        to + F * U,
                                        sums,
                                        sums_at + to + F * U,
                                        first + min(q + k, active - 1),
                                        many,
                                        panel,
                                        H,
                                    )
                                elif E > 0:
                                    read_product(
                                        reach, panel, ZERO, unit, many, work, to + F * U, S * U,
                                        sums, sums_at + to + F * U, S * U, h_rows, h_at,
                                        min(q + k, active - 1), ONE,
                                        h_panels, panel * KP * E * U, E * U, KP,
                                    )  # fmt: skip
                                k += many
                            r, v = ZERO, ZERO
                            while r < m:
                                # Two vectors at a time; one that is left over is both.
                                r2, v2 = next_vector(r, v, vectors)
                                if r2 == m:
                                    r2, v2 = r, v
                                p, u, sum_at = q + r, n * U + v * W, r * S * U + v * W
                                p2, u2, sum_at2 = q + r2, n * U + v2 * W, r2 * S * U + v2 * W
                                work_at2 = sum_at2
                                r, v = next_vector(r2, v2, vectors)
                                if n2 != n:
                                    u2, sum_at2, work_at2 = n2 * U, to_panel, S * U
                                rest, rest2 = p * HU + u, p2 * HU + u2
                                h_from, h_from2 = current + p * PU + u, current + p2 * PU + u2
                                if projected:  # no value of h is the unit's; its cell reads none
                                    h_from, h_from2 = 0, 0
                                states = load_states(
                                    state_h, h_from, h_from2, 0, state_rest, rest, rest2, rows * HU
                                )
                                new, kept = forward(
                                    load_sums(
                                        sums, at + sum_at, at + sum_at2, U,
                                        work, F * U + sum_at, F * U + work_at2, U,
                                    ),
                                    states + load_units(per_unit, u, u2, HU, per_unit, 0, 0, 0),
                                )  # fmt: skip
                                t, t2 = t_at[p], t_at[p2]
                                if taping:
                                    to, to2 = t * HL + u, t2 * HL + u2
                                    store_saved(saved, t * K * HL + u, t2 * K * HL + u2, HL, kept)
                                    store_rest(old_rest, to, to2, T * B * HL, states[1:])
                                    if projected:
                                        store_h(full_tape, to, to2, 0, new[:1])
                                    else:
                                        to, to2 = t * PL + u, t2 * PL + u2
                                        store_h(old_h, to, to2, 0, states[:1])
                                store_rest(state_rest, rest, rest2, rows * HU, new[1:])
                                h, h2 = first_of(new[:1]), second_of(new[:1])
                                if projected:
                                    keep(full_h, rest, H - u, h[0])
                                    keep(full_h, rest2, H - u2, h2[0])
                                else:
                                    to, to2 = following + p * PU + u, following + p2 * PU + u2
                                    store_h(state_h, to, to2, 0, new[:1])
                                    if paired:
                                        keep(h_rows, to, H - u, h[0])
                                        keep(h_rows, to2, H - u2, h2[0])
                                    if masked:
                                        at_mask = order[first + p] * M + u
                                        at_mask2 = order[first + p2] * M + u2
                                        mask = load_one(h_mask, at_mask, 0)[0]
                                        mask2 = load_one(h_mask, at_mask2, 0)[0]
                                        store_one(h_rows, to, 0, (h[0] * mask,))
                                        store_one(h_rows, to2, 0, (h2[0] * mask2,))
                                    store_y(y, t * Y + y_at + u, 0, H - u, h)
                                    store_y(y, t2 * Y + y_at + u2, 0, H - u2, h2)
                            q += m

                    if projected:
                        phase = meet(record, members, phase)
                        for position in range(p_first, p_last):
                            n = alternate(s, position, p_first, p_last)
                            q = ZERO
                            while q < active:
                                m = next_rows(active - q, plain_rows)
                                at = following + q * PU + n * W4
                                for r in range(m):
                                    for u in range(W4):
                                        state_h[at + r * PU + u] = 0
                                plain_product(
                                    unit, m, state_h, at, PU, state_h, at, PU,
                                    full_h, u_at, q, ONE, p_panels, n * KH * W4, W4, KH,
                                )  # fmt: skip
                                q += m
                        for p in range(active):
                            at = following + p * PU + c_first
                            copy(y, t_at[p] * Y + y_at + c_first, state_h, at, c_many)
                            if paired:
                                keep_row(h_rows, at, state_h, at, c_many, W)
                            if masked:
                                at_mask = order[first + p] * M + c_first
                                copy_masked(h_rows, at, state_h, at, h_mask, at_mask, c_many)

                    for p in range(active):
                        b = order[first + p]
                        length = lengths[first + p]
                        h_of_row = following + p * PU + c_first
                        if length == s + 1:
                            copy(final_h, b * P + c_first, state_h, h_of_row, c_many)
                            for j in range(N - 1):
                                at = (j * rows + p) * HU + u_first
                                copy(final_rest, (j * B + b) * H + u_first, state_rest, at, u_many)
                        elif resetting:
                            # A boundary lies before the next step's t; the reverse direction
                            # crosses it after t.
                            t = time_of(length, s + 1, reverse)
                            if reset[(t + 1 if reverse else t) * B + b]:
                                copy(state_h, h_of_row, start_h, b * P + c_first, c_many)
                                if paired:
                                    keep_row(h_rows, h_of_row, start_h, b * P + c_first, c_many, W)
                                if masked:
                                    copy_masked(
                                        h_rows, h_of_row, state_h, h_of_row,
                                        h_mask, b * M + c_first, c_many,
                                    )  # fmt: skip
                                for j in range(N - 1):
                                    at = (j * rows + p) * HU + u_first
                                    start = (j * B + b) * H + u_first
                                    copy(state_rest, at, start_rest, start, u_many)
                    current, following = following, current
                    step_at += active
                    if GH > 0 or projected:
                        phase = meet(record, members, phase)
                block_start = block_end
            if tiled:
                leave_tiles(unit)

        return run

    return make
