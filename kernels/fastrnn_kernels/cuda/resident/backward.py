"""All steps back in one launch, R resident on the multiprocessors: see `forward.py`."""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda, from_dtype

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.functions import zero
from fastrnn_kernels.cuda.isa.operations import ALIGNMENT, arrive, wait_for
from fastrnn_kernels.cuda.isa.times import begins_anew, time_of
from fastrnn_kernels.cuda.isa.values import add, device, load, store
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
def backward_kernel(cell: Cell, dtype: np.dtype[Any], division: Division, both: bool) -> Kernel:
    """Backpropagation through time, divided as the forward pass is; of one direction or both."""
    E, S, N, K, Q = cell.E, cell.S, cell.N, cell.K, cell.Q
    Z = cell.X + cell.A  # the first sum that h has a part in
    kind = from_dtype(dtype)
    backward = device(cell.backward)
    load_saved, load_rest, store_rest, store_sums = load(K), load(N - 1), store(N - 1), store(S)
    load_units, add_units = load(Q), add(Q)
    H, U, rows, gridded = division.H, division.units, division.rows, division.gridded
    blocks, held_values = division.blocks, max(1, division.held * division.vector)
    start, fill, multiply = started(division), filled(division), multiplied(division)
    filling = gridded and not division.compute
    cluster, clustered = division.cluster, division.cluster > 1
    come, go_on = cluster_barrier(division)
    add_own, place = add_parts(division, 0), put(division)
    padded, sums_at = division.padded_width, division.sums_at

    @cuda.jit(device=True)
    def one(  # type: ignore[no-untyped-def]
        packed, units, exchange, dh, d_rest, d_product, d_final_h, d_final_rest, d_start_h,
        d_start_rest, saved, old_h, old_rest, d_sums, d_units, lengths, met, reset,
        dy, longest, T, B, Y, y_at, exchanged, tile, index, reverse, resetting,
    ):  # fmt: skip
        shared = cuda.shared.array(0, kind, ALIGNMENT)
        held = cuda.local.array(held_values, kind)
        sums, came = cuda.local.array(S, kind), cuda.local.array(1, kind)
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
        # One product more than there are steps: what comes through to the state at the start.
        for done in range(longest + 1):
            s = longest - 1 - done
            now = done % 2 * exchanged
            for q in range(first_row, last_row, rows):
                b = q + r
                at = b * H + u
                owner = mine and b < last_row
                running = False
                if owner and s >= 0:
                    length = lengths[b]
                    running = s < length
                if running:
                    row = time_of(length, s, reverse) * B + b
                    kept = load_saved(saved, row * K * H + u, H)
                    states = (old_h[row * H + u],) + load_rest(old_rest, row * H + u, T * B * H)
                    d_y = dy[row * Y + y_at + u]
                    ending = s == length - 1
                    if ending:
                        own = d_final_h[at]
                        others = load_rest(d_final_rest, at, B * H)
                    else:
                        own = dh[at]
                        others = load_rest(d_rest, at, B * H)
                if done > 0:
                    if gridded and q == first_row:
                        if thread == 0:
                            wait_for(met, 0, done * blocks)
                        cuda.syncthreads()
                    if clustered:
                        go_on(thread)
                    if filling:
                        fill(shared, exchange, now, q, thread)
                        cuda.syncthreads()
                    multiply(held, shared, exchange, now, q, last_row, tile, thread)
                    cuda.syncthreads()
                    if owner:
                        came[0] = 0
                        add_own(shared, sums_at + r * padded + lane, came)
                        if s < 0:
                            d_product[at] = came[0]
                    if running and not ending:
                        own += came[0]
                if running:
                    if not ending and begins_anew(reset, b, B, length, s + 1, reverse, resetting):
                        d_start_h[at] += own
                        own = zero(own)
                        for j in range(N - 1):
                            d_start_rest[j * B * H + at] += d_rest[j * B * H + at]
                            d_rest[j * B * H + at] = 0
                        others = load_rest(d_rest, at, B * H)
                    values = states + load_units(units, u, H)
                    new_sums, d_old = backward((own + d_y,) + others, kept, values)
                    store_sums(sums, 0, 1, new_sums)
                    for e in range(E):
                        place(shared, exchange, exchanged - now, r, b, e * H + u, sums[Z + e])
                if clustered and s >= 0:
                    come(thread)
                else:
                    cuda.syncthreads()
                if gridded and thread == 0 and s >= 0 and q + rows >= last_row:
                    arrive(met, 0)
                if running:
                    store_sums(d_sums, row * S * H + u, H, new_sums)
                    dh[at] = d_old[0]
                    store_rest(d_rest, at, B * H, d_old[1:N])
                    add_units(d_units, b * Q * H + u, H, d_old[N:])

    def run(  # type: ignore[no-untyped-def]
        packed, units, exchange, dh, d_rest, d_product, d_final_h, d_final_rest, d_start_h,
        d_start_rest, saved, old_h, old_rest, d_sums, d_units, lengths, met, reset,
        dy, longest, T, B, Y, y_at, exchanged, tile, reverse, resetting,
    ):  # fmt: skip
        one(
            packed, units, exchange, dh, d_rest, d_product, d_final_h, d_final_rest, d_start_h,
            d_start_rest, saved, old_h, old_rest, d_sums, d_units, lengths, met, reset, dy,
            longest, T, B, Y, y_at, exchanged, tile, cuda.blockIdx.x, reverse, resetting,
        )  # fmt: skip

    def run_both(  # type: ignore[no-untyped-def]
        packed, units, exchange, dh, d_rest, d_product, d_final_h, d_final_rest, d_start_h,
        d_start_rest, saved, old_h, old_rest, d_sums, d_units, lengths, met, reset,
        packed_2, units_2, exchange_2, dh_2, d_rest_2, d_product_2, d_final_h_2, d_final_rest_2,
        d_start_h_2, d_start_rest_2, saved_2, old_h_2, old_rest_2, d_sums_2, d_units_2, lengths_2,
        met_2, reset_2,
        dy, longest, T, B, Y, y_at, exchanged, tile, y_at_2, reverse, resetting, reverse_2,
    ):  # fmt: skip
        index, each = cuda.blockIdx.x, cuda.gridDim.x // 2
        if index < each:
            one(
                packed, units, exchange, dh, d_rest, d_product, d_final_h, d_final_rest, d_start_h,
                d_start_rest, saved, old_h, old_rest, d_sums, d_units, lengths, met, reset, dy,
                longest, T, B, Y, y_at, exchanged, tile, index, reverse, resetting,
            )  # fmt: skip
        else:
            one(
                packed_2, units_2, exchange_2, dh_2, d_rest_2, d_product_2, d_final_h_2,
                d_final_rest_2, d_start_h_2, d_start_rest_2, saved_2, old_h_2, old_rest_2,
                d_sums_2, d_units_2, lengths_2, met_2, reset_2, dy, longest, T, B, Y, y_at_2,
                exchanged, tile, index - each, reverse_2, resetting,
            )  # fmt: skip

    arrays = "v" * 15 + "nnm"
    if both:
        return Kernel(run_both, dtype, arrays * 2 + "v" + "i" * 8 + "bbb", division.threads)
    return Kernel(run, dtype, arrays + "v" + "i" * 7 + "bb", division.threads)
