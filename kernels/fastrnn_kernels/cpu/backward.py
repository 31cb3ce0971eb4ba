"""Backpropagation through time for one direction of one layer, for some rows of the batch.

Step by step backwards: the gates' gradients unit by unit, then the gradient of the old h
as one product with R. The gradients of x and of the weights are products over all steps
and come afterwards (`products.py`), from d_sums.
"""

from functools import cache
from typing import Any

from fastrnn_kernels.cache import kernel
from fastrnn_kernels.cell import Cell
from fastrnn_kernels.cpu.simd import gather, lanes, scatter
from fastrnn_kernels.cpu.tile import VECTORS, copy, inlined, multiply, next_rows, rows_for, time_of


@cache
def backward_kernel(cell: Cell) -> Any:
    """The compiled backward pass of a cell.

    Arrays and the order of rows as in the forward pass; beside them

        dy (T, B, Y), read from column y_at; d_sums (T, B, S, H), written where a row runs
        h_panels (N, (G - L) H, 4 vectors) of R, gates in the order of the sums
        late_panels (N, L H, 4 vectors); p_panels (N, P, 4 vectors) of the projection
        d_final_h, d_start_h (B, P); d_final_rest, d_start_rest (states but h, B, H)
        dh_tape (T, B, P): gradient of the projected h, for the projection's own gradient
        scratch for n rows: dh (n, P), d_full and d_inner (n, H), rows padded to whole
        vectors, d_rest (states but h, n, H), work (3 states + K + 1 + S, a vector), row_at
        and dh_at (n,)
    """
    G, S, K = len(cell.gates), len(cell.sums), len(cell.saved)
    A, L, N = len(cell.apart), len(cell.late), len(cell.states)
    E = G - L
    product, largest = multiply(VECTORS), rows_for(VECTORS)
    backward = inlined(cell.backward)
    late_backward = inlined(cell.late_backward) if cell.late_backward else backward
    load_states, load_saved, load_one = gather(N), gather(K), gather(1)
    store_states, store_sums, store_late = scatter(N), scatter(S - L), scatter(max(1, L))

    @kernel(f"{cell.key}-backward")
    def run(  # type: ignore[no-untyped-def]
        dy, d_sums, reset, order, lengths, valid,
        h_panels, late_panels, p_panels,
        d_final_h, d_final_rest, d_start_h, d_start_rest,
        saved, old_h, old_rest, dh_tape,
        dh, d_rest, d_full, d_inner, work, row_at, dh_at,
        T, B, H, P, Y, y_at, first, last, reverse, resetting, projected,
    ):  # fmt: skip
        U = lanes(dy)
        W4 = lanes(dy) * VECTORS
        blocks = (H + U - 1) // U
        p_blocks = (P + W4 - 1) // W4
        P4 = p_blocks * W4  # rows of dh are whole vectors
        H4 = (H + W4 - 1) // W4 * W4
        rows = last - first
        longest = lengths[first] if rows > 0 else 0
        # A row of work: d_states, old states, saved, gradient of inner, d_sums, d_old_states.
        old_at, saved_at, inner_at = N * U, 2 * N * U, (2 * N + K) * U
        sums_at, d_old_at = inner_at + U, inner_at + U + S * U

        for p in range(rows):
            b = order[first + p]
            copy(dh, p * P4, d_final_h, b * P, P)
            for j in range(N - 1):
                copy(d_rest, (j * rows + p) * H, d_final_rest, (j * B + b) * H, H)
            dh_at[p] = p * P4

        for s in range(longest - 1, -1, -1):
            active = min(rows, valid[s] - first)
            for p in range(active):
                t = time_of(lengths[first + p], s, reverse)
                at = t * B + order[first + p]
                row_at[p] = (at * S + A) * H
                gradient = dh[p * P4 : p * P4 + P]
                above = dy[at * Y + y_at : at * Y + y_at + P]
                for u in range(P):
                    gradient[u] += above[u]
                if projected:
                    copy(dh_tape, at * P, dh, p * P4, P)
                    for u in range(H4):
                        d_full[p * H4 + u] = 0

            if projected:
                for n in range(H4 // W4):
                    q = 0
                    while q < active:
                        m = next_rows(active - q, largest)
                        at = q * H4 + n * W4
                        product(
                            m, d_full, at, H4, d_full, at, H4,
                            dh, dh_at, q, 1, p_panels, n * P * W4, W4, P,
                        )  # fmt: skip
                        q += m

            if L > 0:
                for p in range(active):
                    t = time_of(lengths[first + p], s, reverse)
                    at = t * B + order[first + p]
                    for n in range(blocks):
                        here = min(U, H - n * U)
                        copy(work, 0, dh, p * P4 + n * U, here)
                        copy(work, old_at, old_h, at * P + n * U, here)
                        for j in range(K):
                            copy(work, saved_at + j * U, saved, (at * K + j) * H + n * U, here)
                        for u in range(U):
                            late = late_backward(
                                load_states(work, u, U),
                                load_saved(work, saved_at + u, U),
                                load_states(work, old_at + u, U),
                            )
                            store_late(work, sums_at + u, U, late)
                        for j in range(L):
                            to = (at * S + E + j) * H + n * U
                            copy(d_sums, to, work, sums_at + j * U, here)
                    row_at[p] = (at * S + E) * H
                    for u in range(H4):
                        d_inner[p * H4 + u] = 0
                for n in range(H4 // W4):
                    q = 0
                    while q < active:
                        m = next_rows(active - q, largest)
                        at = q * H4 + n * W4
                        product(
                            m, d_inner, at, H4, d_inner, at, H4,
                            d_sums, row_at, q, 1, late_panels, n * L * H * W4, W4, L * H,
                        )  # fmt: skip
                        q += m

            for p in range(active):
                t = time_of(lengths[first + p], s, reverse)
                at = t * B + order[first + p]
                for n in range(blocks):
                    here = min(U, H - n * U)
                    if projected:
                        copy(work, 0, d_full, p * H4 + n * U, here)
                    else:
                        copy(work, 0, dh, p * P4 + n * U, here)
                        copy(work, old_at, old_h, at * P + n * U, here)
                    for j in range(N - 1):
                        copy(work, (1 + j) * U, d_rest, (j * rows + p) * H + n * U, here)
                        copy(
                            work, old_at + (1 + j) * U,
                            old_rest, (j * T * B + at) * H + n * U, here,
                        )  # fmt: skip
                    for j in range(K):
                        copy(work, saved_at + j * U, saved, (at * K + j) * H + n * U, here)
                    if L > 0:
                        copy(work, inner_at, d_inner, p * H4 + n * U, here)
                        for u in range(U):
                            (from_inner,) = load_one(work, inner_at + u, U)
                            new_sums, d_old = backward(
                                load_states(work, u, U),
                                load_saved(work, saved_at + u, U),
                                load_states(work, old_at + u, U),
                                from_inner,
                            )
                            store_sums(work, sums_at + u, U, new_sums)
                            store_states(work, d_old_at + u, U, d_old)
                    else:
                        for u in range(U):
                            new_sums, d_old = backward(
                                load_states(work, u, U),
                                load_saved(work, saved_at + u, U),
                                load_states(work, old_at + u, U),
                            )
                            store_sums(work, sums_at + u, U, new_sums)
                            store_states(work, d_old_at + u, U, d_old)
                    for j in range(S - L):
                        copy(d_sums, (at * S + j) * H + n * U, work, sums_at + j * U, here)
                    if not projected:
                        copy(dh, p * P4 + n * U, work, d_old_at, here)
                    for j in range(N - 1):
                        copy(
                            d_rest, (j * rows + p) * H + n * U,
                            work, d_old_at + (1 + j) * U, here,
                        )  # fmt: skip
                row_at[p] = (at * S + A) * H
                if projected:  # its cell reads no h: the products alone give the gradient
                    for u in range(P4):
                        dh[p * P4 + u] = 0

            for n in range(p_blocks):
                q = 0
                while q < active:
                    m = next_rows(active - q, largest)
                    at = q * P4 + n * W4
                    product(
                        m, dh, at, P4, dh, at, P4,
                        d_sums, row_at, q, 1, h_panels, n * E * H * W4, W4, E * H,
                    )  # fmt: skip
                    q += m

            for p in range(active):
                b = order[first + p]
                t = time_of(lengths[first + p], s, reverse)
                restarted = resetting and s > 0 and reset[(t + 1 if reverse else t) * B + b]
                if s == 0 or restarted:
                    for u in range(P):
                        d_start_h[b * P + u] += dh[p * P4 + u]
                        dh[p * P4 + u] = 0
                    for j in range(N - 1):
                        for u in range(H):
                            d_start_rest[(j * B + b) * H + u] += d_rest[(j * rows + p) * H + u]
                            d_rest[(j * rows + p) * H + u] = 0

        for p in range(rows):
            if lengths[first + p] == 0:
                b = order[first + p]
                copy(d_start_h, b * P, d_final_h, b * P, P)
                for j in range(N - 1):
                    copy(d_start_rest, (j * B + b) * H, d_final_rest, (j * B + b) * H, H)

    return run
