"""The forward pass of one direction of one layer, for some rows of the batch.

A block of time steps at a time: first the x-parts of all its steps as one product, then
step by step the h-part and, tile by tile, the gates. Nothing is allocated inside.
"""

from functools import cache
from typing import Any

from fastrnn_kernels.cache import kernel
from fastrnn_kernels.cell import Cell
from fastrnn_kernels.cpu.simd import gather, lanes, scatter
from fastrnn_kernels.cpu.tile import (
    VECTORS,
    copy,
    inlined,
    multiply,
    next_rows,
    rows_for,
    time_of,
    vectors_per_gate,
)


@cache
def forward_kernel(cell: Cell) -> Any:
    """The compiled forward pass of a cell.

    All arrays are C-contiguous and passed as one row of values. Rows of the batch are
    taken in `order`, longest first, positions `first` to `last` of it; their lengths are
    `lengths[position]`, and `valid` counts the rows that still run at each step.

        x (T, B, I); y (T, B, Y), written from column y_at; reset (T, B) or empty
        x_panels (N, I, G, U), bias (N, G, U), h_bias (N, A, U) of the A gates apart
        h_panels (N, P, G - L, U), late_panels (N, H, L, U) of the L late gates
        p_panels (N', H, 4 vectors): the projection's, or empty
        start_h, final_h (B, P); start_rest, final_rest (states but h, B, H)
        tape, where `taping`: saved (T, B, K, H), old_h (T, B, P), old_rest (., T, B, H),
        inner (T, B, H) of a cell with late gates, full_h (T, B, H) before a projection
        scratch for n rows and q = n * steps_per_block: state_h (2, n, P), state_rest (states
        but h, n, H), full_h and inner (n, H), sums (N, q, S, U), work (a tile's rows, old
        states + S + new states + K, U), x_at (q,), h_at and u_at (n,)
    """
    G, S, K = len(cell.gates), len(cell.sums), len(cell.saved)
    A, L, N = len(cell.apart), len(cell.late), len(cell.states)
    E = G - L
    units = vectors_per_gate(cell)
    x_product, h_product = multiply(G * units), multiply(E * units)
    late_product, plain_product = multiply(max(1, L) * units), multiply(VECTORS)
    largest = rows_for(G * units)
    plain_rows = rows_for(VECTORS)
    forward = inlined(cell.forward)
    inner_value = inlined(cell.inner) if cell.inner else forward
    load_states, load_sums, load_early = gather(N), gather(S), gather(max(1, E))
    store_states, store_saved, store_one = scatter(N), scatter(K), scatter(1)

    @kernel(f"{cell.key}-forward")
    def run(  # type: ignore[no-untyped-def]
        x, y, reset, order, lengths, valid,
        x_panels, bias, h_panels, h_bias, late_panels, p_panels,
        start_h, start_rest, final_h, final_rest,
        saved, old_h, old_rest, inner_tape, full_tape,
        state_h, state_rest, full_h, inner, sums, work, x_at, h_at, u_at,
        T, B, I, H, P, Y, y_at, first, last, steps_per_block,
        reverse, resetting, projected, taping,
    ):  # fmt: skip
        U = lanes(x) * units
        W4 = lanes(x) * VECTORS
        blocks = (H + U - 1) // U
        p_blocks = (P + W4 - 1) // W4
        width = (2 * N + S + K) * U  # of a row of work: old states, sums, new states, saved
        sums_at, new_at, saved_at = N * U, (N + S) * U, (2 * N + S) * U
        rows = last - first
        P4 = p_blocks * W4 if projected else P  # the projection writes whole vectors
        longest = lengths[first] if rows > 0 else 0

        for p in range(rows):
            b = order[first + p]
            copy(state_h, p * P4, start_h, b * P, P)
            for j in range(N - 1):
                copy(state_rest, (j * rows + p) * H, start_rest, (j * B + b) * H, H)
            if lengths[first + p] == 0:
                copy(final_h, b * P, start_h, b * P, P)
                for j in range(N - 1):
                    copy(final_rest, (j * B + b) * H, start_rest, (j * B + b) * H, H)
            u_at[p] = p * H
        current, following = 0, rows * P4

        block_start = 0
        while block_start < longest:
            block_end = min(longest, block_start + steps_per_block)

            # The x-parts of all steps and rows of the block: sums [unit block][step, row][S, U].
            count = 0
            for s in range(block_start, block_end):
                for p in range(min(rows, valid[s] - first)):
                    t = time_of(lengths[first + p], s, reverse)
                    x_at[count] = (t * B + order[first + p]) * I
                    count += 1
            for n in range(blocks):
                q = 0
                while q < count:
                    m = next_rows(count - q, largest)
                    x_product(
                        m, sums, (n * count + q) * S * U, S * U, bias, n * G * U, 0,
                        x, x_at, q, 1, x_panels, n * I * G * U, G * U, I,
                    )  # fmt: skip
                    for r in range(A * m):
                        at = (n * count + q + r // max(1, A)) * S + G + r % max(1, A)
                        copy(sums, at * U, h_bias, (n * A + r % max(1, A)) * U, U)
                    q += m

            step_at = 0  # of the step's first row among the block's
            for s in range(block_start, block_end):
                active = min(rows, valid[s] - first)
                for p in range(active):
                    b = order[first + p]
                    t = time_of(lengths[first + p], s, reverse)
                    h_at[p] = current + p * P4
                    # A boundary lies before step t; the reverse direction crosses it after t.
                    if resetting and s > 0 and reset[(t + 1 if reverse else t) * B + b]:
                        copy(state_h, current + p * P4, start_h, b * P, P)
                        for j in range(N - 1):
                            copy(state_rest, (j * rows + p) * H, start_rest, (j * B + b) * H, H)
                    if taping:
                        at = t * B + b
                        copy(old_h, at * P, state_h, current + p * P4, P)
                        for j in range(N - 1):
                            copy(old_rest, (j * T * B + at) * H, state_rest, (j * rows + p) * H, H)

                if L > 0:
                    # The early gates' sums, and the value that the late gates multiply.
                    for n in range(blocks):
                        here = min(U, H - n * U)
                        q = 0
                        while q < active:
                            m = next_rows(active - q, largest)
                            at = (n * count + step_at + q) * S * U
                            h_product(
                                m, sums, at, S * U, sums, at, S * U,
                                state_h, h_at, q, 1, h_panels, n * P * E * U, E * U, P,
                            )  # fmt: skip
                            for r in range(m):
                                base = r * width
                                p = q + r
                                copy(work, base, state_h, current + p * P4 + n * U, here)
                                copy(work, base + sums_at, sums, at + r * S * U, E * U)
                                for u in range(U):
                                    value = inner_value(
                                        load_early(work, base + sums_at + u, U),
                                        load_states(work, base + u, U),
                                    )
                                    store_one(work, base + new_at + u, U, (value,))
                                copy(inner, p * H + n * U, work, base + new_at, here)
                            q += m
                    if taping:
                        for p in range(active):
                            t = time_of(lengths[first + p], s, reverse)
                            copy(inner_tape, (t * B + order[first + p]) * H, inner, p * H, H)

                for n in range(blocks):
                    here = min(U, H - n * U)
                    q = 0
                    while q < active:
                        m = next_rows(active - q, largest)
                        at = (n * count + step_at + q) * S * U
                        if L > 0:
                            for r in range(m):
                                copy(work, r * width + sums_at, sums, at + r * S * U, E * U)
                            late_product(
                                m, work, sums_at + E * U, width, sums, at + E * U, S * U,
                                inner, u_at, q, 1, late_panels, n * H * L * U, L * U, H,
                            )  # fmt: skip
                        else:
                            if A > 0:
                                for r in range(m):
                                    copy(work, r * width + sums_at, sums, at + r * S * U, A * U)
                            h_product(
                                m, work, sums_at + A * U, width, sums, at + A * U, S * U,
                                state_h, h_at, q, 1, h_panels, n * P * G * U, G * U, P,
                            )  # fmt: skip
                        for r in range(m):
                            base = r * width
                            p = q + r
                            if not projected:
                                copy(work, base, state_h, current + p * P4 + n * U, here)
                            for j in range(N - 1):
                                copy(
                                    work, base + (1 + j) * U,
                                    state_rest, (j * rows + p) * H + n * U, here,
                                )  # fmt: skip
                            for u in range(U):
                                new, kept = forward(
                                    load_sums(work, base + sums_at + u, U),
                                    load_states(work, base + u, U),
                                )
                                store_states(work, base + new_at + u, U, new)
                                store_saved(work, base + saved_at + u, U, kept)
                        for r in range(m):
                            base = r * width
                            p = q + r
                            t = time_of(lengths[first + p], s, reverse)
                            at = t * B + order[first + p]
                            if projected:
                                copy(full_h, p * H + n * U, work, base + new_at, here)
                            else:
                                copy(state_h, following + p * P4 + n * U, work, base + new_at, here)
                                copy(y, at * Y + y_at + n * U, work, base + new_at, here)
                            for j in range(N - 1):
                                copy(
                                    state_rest, (j * rows + p) * H + n * U,
                                    work, base + new_at + (1 + j) * U, here,
                                )  # fmt: skip
                            if taping:
                                for j in range(K):
                                    copy(
                                        saved, (at * K + j) * H + n * U,
                                        work, base + saved_at + j * U, here,
                                    )  # fmt: skip
                        q += m

                if projected:
                    for n in range(p_blocks):
                        q = 0
                        while q < active:
                            m = next_rows(active - q, plain_rows)
                            at = following + q * P4 + n * W4
                            for r in range(m):
                                for u in range(W4):
                                    state_h[at + r * P4 + u] = 0
                            plain_product(
                                m, state_h, at, P4, state_h, at, P4,
                                full_h, u_at, q, 1, p_panels, n * H * W4, W4, H,
                            )  # fmt: skip
                            q += m
                    for p in range(active):
                        t = time_of(lengths[first + p], s, reverse)
                        at = t * B + order[first + p]
                        copy(y, at * Y + y_at, state_h, following + p * P4, P)
                        if taping:
                            copy(full_tape, at * H, full_h, p * H, H)

                for p in range(active):
                    if lengths[first + p] == s + 1:
                        b = order[first + p]
                        copy(final_h, b * P, state_h, following + p * P4, P)
                        for j in range(N - 1):
                            copy(final_rest, (j * B + b) * H, state_rest, (j * rows + p) * H, H)
                current, following = following, current
                step_at += active
            block_start = block_end

    return run
