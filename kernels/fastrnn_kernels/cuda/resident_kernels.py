"""All steps in one launch, R resident in the multiprocessors' shared memory.

A block holds the rows of R of U units, of all gates, for the forward pass, or of U columns of
h for the backward pass, and takes all time steps of its rows of the batch. Where R of all H
units fits one block, tiles of rows are independent, and a step costs barriers of a block
alone. Else all blocks together hold R and exchange h through the second-level cache, with one
barrier of the grid to a step.

Thread (c, u) of a block sums the products of unit u with every C-th value of h, from c on, for
ROWS rows at a time; the first ROWS * U threads add these up, in one order, and apply the gates
of a row and unit each. So a row's bits depend on H and C alone.

Dynamic shared memory, in values:

    weights  forward (E, H, U), backward (E H, U): neighbours in a warp read neighbours
    operand  forward h, backward the gradients of the sums: (ROWS, H) or (ROWS, E H)
    parts    (C, ROWS * E, U) or (C, ROWS, U)

Other arrays and letters as in `stepwise_kernels.py`; cells without late gates, without projection.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda, from_dtype

from fastrnn_kernels.cell import Cell
from fastrnn_kernels.cuda.kernel import Kernel
from fastrnn_kernels.cuda.stepwise_kernels import begins_anew, time_of
from fastrnn_kernels.cuda.values import device, load, store
from fastrnn_kernels.scalar import zero


def forward_values(H: int, U: int, C: int, E: int, rows: int) -> int:
    """Values of shared memory that a forward block takes."""
    return E * H * U + rows * H + C * rows * E * U


def backward_values(H: int, U: int, C: int, E: int, rows: int) -> int:
    """Values of shared memory that a backward block takes."""
    return E * H * U + rows * E * H + C * rows * U


@cache
def forward_kernel(cell: Cell, dtype: np.dtype[Any], rows: int, gridded: bool) -> Kernel:
    """The forward pass, `rows` rows at a time; `gridded`, blocks share the units.

    Not gridded, a block takes `rows` rows; gridded, all of them, one group after the other.
    h (2, B, H): h of the step at hand and of the next, exchanged by the blocks.
    """
    G, S, K, N = len(cell.gates), len(cell.sums), len(cell.saved), len(cell.states)
    A, E = len(cell.apart), len(cell.gates)
    kind, many = from_dtype(dtype), E * rows
    forward = device(cell.forward)
    load_sums, load_rest = load(S), load(N - 1)
    store_saved, store_rest = store(K), store(N - 1)

    def run(  # type: ignore[no-untyped-def]
        x_sums, h_weights, bias, h_bias, h, rest, start_h, start_rest, final_h, final_rest,
        lengths, reset, y, saved, old_h, old_rest,
        longest, T, B, H, U, C, Y, y_at, reverse, resetting, taping,
    ):  # fmt: skip
        shared = cuda.shared.array(0, kind)
        operand_at = E * H * U
        parts_at = operand_at + rows * H
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        c = thread // U
        lane = thread - c * U
        if gridded:
            grid = cuda.cg.this_grid()
            first_unit, first_row, last_row = cuda.blockIdx.x * U, 0, B
        else:
            first_unit, first_row = 0, cuda.blockIdx.x * rows
            last_row = min(B, first_row + rows)
        sums = cuda.local.array(many, kind)
        acc = cuda.local.array(S, kind)

        for at in range(thread, E * H * U, threads):
            j = at // U
            g = j // H
            k = j - g * H
            u = first_unit + at - j * U
            if u < H:
                shared[at] = h_weights[(g * H + u) * H + k]
            else:
                shared[at] = 0
        cuda.syncthreads()

        for s in range(longest):
            now = s % 2 * B * H
            following = B * H - now
            for q in range(first_row, last_row, rows):
                for at in range(thread, rows * H, threads):
                    b = q + at // H
                    if b < last_row:
                        shared[operand_at + at] = h[now + q * H + at]
                cuda.syncthreads()

                if c < C:
                    for r in range(rows * E):
                        sums[r] = 0
                    for k in range(c, H, C):
                        for g in range(E):
                            weight = shared[(g * H + k) * U + lane]
                            for r in range(rows):
                                sums[r * E + g] += weight * shared[operand_at + r * H + k]
                    for r in range(rows * E):
                        shared[parts_at + (c * rows * E + r) * U + lane] = sums[r]
                cuda.syncthreads()

                b, u = q + c, first_unit + lane
                if c < rows and b < last_row and u < H:
                    length = lengths[b]
                    if s < length:
                        row = time_of(length, s, reverse) * B + b
                        for j in range(A):
                            acc[j] = x_sums[(row * G + j) * H + u] + bias[j * H + u]
                        for j in range(A, G):
                            acc[j] = x_sums[(row * G + j) * H + u] + bias[j * H + u]
                        for j in range(G, S):
                            acc[j] = h_bias[(j - G) * H + u]
                        for g in range(E):
                            total = shared[parts_at + (c * E + g) * U + lane]
                            for part in range(1, C):
                                total += shared[parts_at + ((part * rows + c) * E + g) * U + lane]
                            acc[A + g] += total
                        at = b * H + u
                        old = load_rest(rest, at, B * H)
                        states = (shared[operand_at + c * H + u],) + old
                        new, kept = forward(load_sums(acc, 0, 1), states)
                        if taping:
                            store_saved(saved, row * K * H + u, H, kept)
                            store_rest(old_rest, row * H + u, T * B * H, old)
                            old_h[row * H + u] = states[0]
                        y[row * Y + y_at + u] = new[0]
                        if s == length - 1:
                            final_h[at] = new[0]
                            store_rest(final_rest, at, B * H, new[1:])
                        elif begins_anew(reset, b, B, length, s + 1, reverse, resetting):
                            h[following + at] = start_h[at]
                            store_rest(rest, at, B * H, load_rest(start_rest, at, B * H))
                        else:
                            h[following + at] = new[0]
                            store_rest(rest, at, B * H, new[1:])
                cuda.syncthreads()
            if gridded:
                grid.sync()

    return Kernel(run, dtype, "vvvvvvvvvvnmvvvv" + "i" * 8 + "bbb")


@cache
def backward_kernel(cell: Cell, dtype: np.dtype[Any], rows: int, gridded: bool) -> Kernel:
    """Backpropagation through time, divided as the forward pass is.

    d_now (2, B, E H): gradients of the sums that go through R, of the step at hand, exchanged by
    the blocks; d_product (B, H): what came through R.
    """
    S, K, N = len(cell.sums), len(cell.saved), len(cell.states)
    A, E = len(cell.apart), len(cell.gates)
    kind = from_dtype(dtype)
    backward = device(cell.backward)
    load_saved, load_rest, store_rest = load(K), load(N - 1), store(N - 1)
    store_sums, store_now = store(S), store(E)

    def run(  # type: ignore[no-untyped-def]
        dy, h_weights, dh, d_rest, d_product, d_now, d_final_h, d_final_rest, d_start_h,
        d_start_rest, lengths, reset, saved, old_h, old_rest, d_sums,
        longest, T, B, H, U, C, Y, y_at, reverse, resetting,
    ):  # fmt: skip
        shared = cuda.shared.array(0, kind)
        width = E * H
        operand_at = width * U
        parts_at = operand_at + rows * width
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        c = thread // U
        lane = thread - c * U
        if gridded:
            grid = cuda.cg.this_grid()
            first_unit, first_row, last_row = cuda.blockIdx.x * U, 0, B
        else:
            first_unit, first_row = 0, cuda.blockIdx.x * rows
            last_row = min(B, first_row + rows)
        sums = cuda.local.array(rows, kind)

        for at in range(thread, width * U, threads):
            j = at // U
            u = first_unit + at - j * U
            if u < H:
                shared[at] = h_weights[j * H + u]
            else:
                shared[at] = 0

        u = first_unit + lane
        for s in range(longest - 1, -1, -1):
            now = s % 2 * B * width
            for b in range(first_row + c, last_row, C):
                length = lengths[b]
                if s < length and u < H:
                    row = time_of(length, s, reverse) * B + b
                    at = b * H + u
                    kept = load_saved(saved, row * K * H + u, H)
                    states = (old_h[row * H + u],) + load_rest(old_rest, row * H + u, T * B * H)
                    if s == length - 1:
                        own = d_final_h[at]
                        others = load_rest(d_final_rest, at, B * H)
                    else:
                        own = dh[at] + d_product[at]
                        others = load_rest(d_rest, at, B * H)
                        if begins_anew(reset, b, B, length, s + 1, reverse, resetting):
                            d_start_h[at] += own
                            own = zero(own)
                            for j in range(N - 1):
                                d_start_rest[j * B * H + at] += d_rest[j * B * H + at]
                                d_rest[j * B * H + at] = 0
                            others = load_rest(d_rest, at, B * H)
                    own += dy[row * Y + y_at + u]
                    new_sums, d_old = backward((own,) + others, kept, states)
                    store_sums(d_sums, row * S * H + u, H, new_sums)
                    store_now(d_now, now + b * width + u, H, new_sums[A:])
                    dh[at] = d_old[0]
                    store_rest(d_rest, at, B * H, d_old[1:])
            if gridded:
                grid.sync()
            else:
                cuda.syncthreads()

            for q in range(first_row, last_row, rows):
                for at in range(thread, rows * width, threads):
                    b = q + at // width
                    if b < last_row:
                        shared[operand_at + at] = d_now[now + q * width + at]
                cuda.syncthreads()
                if c < C:
                    for r in range(rows):
                        sums[r] = 0
                    for j in range(c, width, C):
                        weight = shared[j * U + lane]
                        for r in range(rows):
                            sums[r] += weight * shared[operand_at + r * width + j]
                    for r in range(rows):
                        shared[parts_at + (c * rows + r) * U + lane] = sums[r]
                cuda.syncthreads()
                b = q + c
                if c < rows and b < last_row and u < H:
                    total = shared[parts_at + c * U + lane]
                    for part in range(1, C):
                        total += shared[parts_at + (part * rows + c) * U + lane]
                    d_product[b * H + u] = total
                cuda.syncthreads()

    return Kernel(run, dtype, "vvvvvvvvvvnmvvvv" + "i" * 8 + "bb")
