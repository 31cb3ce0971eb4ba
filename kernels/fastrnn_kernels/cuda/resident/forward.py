"""All steps in one launch, R resident on the multiprocessors.

A block holds R of U units, in its threads' registers as far as they go, and takes all time steps
of its rows of the batch. Where R of all H units fits one block, tiles of rows are independent,
and a step costs barriers of a block alone. Else all blocks together hold R and exchange the
operand through the second-level cache, with one barrier of all to a step.

A step multiplies an operand by R (`products.py`): forward h, backward the gradients of
the sums of the step before it. Then thread (r, u) of a block adds up the parts of the sums of row
r and unit u, in one order, and applies the gates. What a step reads beside the operand is asked
for before the barrier, and what only later kernels read is written behind it. So a row's bits
depend on the division alone.

Dynamic shared memory, in values: fragments of R without a register; the operand (rows, K), unless
tensor cores take it from the exchange; parts of sums (C, rows, N). Global arrays:

    h (B, H): h of the step at hand, of whom computes it; d_product (B, H): what came through R
    exchange (2, operand): of the step at hand and of the next; met (1,): arrivals at barriers

Other arrays and letters as in `stepwise/forward.py`; cells without late gates, without projection.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda, from_dtype

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cuda.isa.operations import ALIGNMENT, arrive, wait_for
from fastrnn_kernels.cuda.isa.times import begins_anew, time_of
from fastrnn_kernels.cuda.isa.values import device, load, store
from fastrnn_kernels.cuda.launch.kernel import Kernel
from fastrnn_kernels.cuda.resident.division import Division
from fastrnn_kernels.cuda.resident.products import (
    add_parts,
    cluster_barrier,
    filled,
    multiplied,
    put,
    started,
)


@cache
def forward_kernel(cell: Cell, dtype: np.dtype[Any], division: Division, both: bool) -> Kernel:
    """The forward pass: of one direction; or of both, the second's arrays behind the first's.

    Of the blocks of both, the second half is the second direction's.
    """
    G, A, S, N, K, Q = cell.G, cell.A, cell.S, cell.N, cell.K, cell.Q
    kind = from_dtype(dtype)
    forward = device(cell.forward)
    load_sums, load_rest, load_units = load(S), load(N - 1), load(Q)
    store_saved, store_rest = store(K), store(N - 1)
    H, U, rows, gridded = division.H, division.units, division.rows, division.gridded
    blocks, held_values = division.blocks, max(1, division.held * division.vector)
    start, fill, multiply = started(division), filled(division), multiplied(division)
    filling = gridded and not division.compute
    cluster, clustered = division.cluster, division.cluster > 1
    come, go_on = cluster_barrier(division)
    add_own, place = add_parts(division, cell.X + A), put(division)
    padded, sums_at = division.padded_width, division.sums_at

    @cuda.jit(device=True)
    def one(  # type: ignore[no-untyped-def]
        x_sums, packed, bias, h_bias, units, exchange, h, rest, start_h, start_rest, final_h,
        final_rest, saved, old_h, old_rest, lengths, met, reset,
        y, longest, T, B, Y, y_at, exchanged, tile, index, reverse, resetting, taping,
    ):  # fmt: skip
        shared = cuda.shared.array(0, kind, ALIGNMENT)
        held = cuda.local.array(held_values, kind)
        own_bias, sums = cuda.local.array(S, kind), cuda.local.array(S, kind)
        thread = cuda.threadIdx.x
        r = thread // U
        lane = thread - r * U
        if gridded:
            block, u, first_row, last_row = index, index * U + lane, 0, B
        else:
            block = index % cluster
            u, first_row = block * U + lane, index // cluster * rows
            last_row = min(B, first_row + rows)
        mine = r < rows and u < H

        start(held, shared, packed, block, thread)
        cuda.syncthreads()
        if clustered:  # before one writes into the operand of another
            come(thread)
            go_on(thread)
        if mine:
            for j in range(G):
                own_bias[j] = bias[j * H + u]
            for j in range(G, S):
                own_bias[j] = h_bias[(j - G) * H + u]
            for b in range(first_row + r, last_row, rows):
                place(shared, exchange, 0, r, b, u, start_h[b * H + u])
        cuda.syncthreads()
        if gridded and thread == 0:
            arrive(met, 0)
        if clustered:
            come(thread)
            if longest == 0:  # nothing waits below, and others may write to this block yet
                go_on(thread)

        for s in range(longest):
            now = s % 2 * exchanged
            for q in range(first_row, last_row, rows):
                b = q + r
                running = False
                if mine and b < last_row:
                    length = lengths[b]
                    running = s < length
                if running:
                    row = time_of(length, s, reverse) * B + b
                    at = b * H + u
                    for j in range(G):
                        sums[j] = x_sums[(row * G + j) * H + u]
                    for j in range(G, S):
                        sums[j] = 0
                    states = (h[at],) + load_rest(rest, at, B * H)
                if gridded and q == first_row:
                    if thread == 0:
                        wait_for(met, 0, (s + 1) * blocks)
                    cuda.syncthreads()
                if clustered:
                    go_on(thread)
                if filling:
                    fill(shared, exchange, now, q, thread)
                    cuda.syncthreads()
                multiply(held, shared, exchange, now, q, last_row, tile, thread)
                cuda.syncthreads()
                if running:
                    for j in range(S):
                        sums[j] += own_bias[j]
                    add_own(shared, sums_at + r * padded + lane, sums)
                    new, kept = forward(load_sums(sums, 0, 1), states + load_units(units, u, H))
                    ending = s == length - 1
                    if not ending:
                        next_h = new[0]
                        if begins_anew(reset, b, B, length, s + 1, reverse, resetting):
                            next_h = start_h[at]
                            store_rest(rest, at, B * H, load_rest(start_rest, at, B * H))
                        else:
                            store_rest(rest, at, B * H, new[1:])
                        place(shared, exchange, exchanged - now, r, b, u, next_h)
                        h[at] = next_h
                if clustered and s + 1 < longest:
                    come(thread)
                else:
                    cuda.syncthreads()
                if gridded and thread == 0 and q + rows >= last_row:
                    arrive(met, 0)
                if running:
                    y[row * Y + y_at + u] = new[0]
                    if taping:
                        store_saved(saved, row * K * H + u, H, kept)
                        old_h[row * H + u] = states[0]
                        store_rest(old_rest, row * H + u, T * B * H, states[1:])
                    if ending:
                        final_h[at] = new[0]
                        store_rest(final_rest, at, B * H, new[1:])

    def run(  # type: ignore[no-untyped-def]
        x_sums, packed, bias, h_bias, units, exchange, h, rest, start_h, start_rest, final_h,
        final_rest, saved, old_h, old_rest, lengths, met, reset,
        y, longest, T, B, Y, y_at, exchanged, tile, reverse, resetting, taping,
    ):  # fmt: skip
        one(
            x_sums, packed, bias, h_bias, units, exchange, h, rest, start_h, start_rest, final_h,
            final_rest, saved, old_h, old_rest, lengths, met, reset, y, longest, T, B, Y, y_at,
            exchanged, tile, cuda.blockIdx.x, reverse, resetting, taping,
        )  # fmt: skip

    def run_both(  # type: ignore[no-untyped-def]
        x_sums, packed, bias, h_bias, units, exchange, h, rest, start_h, start_rest, final_h,
        final_rest, saved, old_h, old_rest, lengths, met, reset,
        x_sums_2, packed_2, bias_2, h_bias_2, units_2, exchange_2, h_2, rest_2, start_h_2,
        start_rest_2, final_h_2, final_rest_2, saved_2, old_h_2, old_rest_2, lengths_2, met_2,
        reset_2,
        y, longest, T, B, Y, y_at, exchanged, tile, y_at_2, reverse, resetting, taping, reverse_2,
    ):  # fmt: skip
        index, each = cuda.blockIdx.x, cuda.gridDim.x // 2
        if index < each:
            one(
                x_sums, packed, bias, h_bias, units, exchange, h, rest, start_h, start_rest,
                final_h, final_rest, saved, old_h, old_rest, lengths, met, reset, y, longest, T, B,
                Y, y_at, exchanged, tile, index, reverse, resetting, taping,
            )  # fmt: skip
        else:
            one(
                x_sums_2, packed_2, bias_2, h_bias_2, units_2, exchange_2, h_2, rest_2, start_h_2,
                start_rest_2, final_h_2, final_rest_2, saved_2, old_h_2, old_rest_2, lengths_2,
                met_2, reset_2, y, longest, T, B, Y, y_at_2, exchanged, tile, index - each,
                reverse_2, resetting, taping,
            )  # fmt: skip

    arrays = "v" * 15 + "nnm"
    if both:
        return Kernel(run_both, dtype, arrays * 2 + "v" + "i" * 8 + "bbbb", division.threads)
    return Kernel(run, dtype, arrays + "v" + "i" * 7 + "bbb", division.threads)
