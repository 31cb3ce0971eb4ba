"""One step as kernels of a thread to a unit, between products that a library computes.

For any cell, size and batch; what the other paths compute in one launch, these do in a few.
T time steps, B batch, H hidden size, P width of h (H, or the projection's), G gates, S sums,
K saved values, N states; of the gates A stand apart and L are late (`cell.py`), E = G - L.
Arrays are flat:

    x_sums (T, B, G, H)   W x, gates in the order of `Cell.x_gates`; bias (G, H) goes with it
    h_sums (B, E, H)      R h, early gates in the order of `Cell.h_gates`; h_bias (A, H)
    late_sums (B, L, H)   the late gates' R times what `inner` gave
    h, start_h, final_h (B, P); rest, start_rest, final_rest (N - 1, B, H); full_h (B, H)
    y (T, B, Y), written from column y_at on where a row runs
    saved (T, B, K, H), old_h (T, B, P), old_rest (N - 1, T, B, H): the tape

At step s a row of some length is at its time s, or length - 1 - s in reverse.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, from_dtype

from fastrnn_kernels.cell import Cell
from fastrnn_kernels.cuda.kernel import Kernel
from fastrnn_kernels.cuda.values import device, load, store
from fastrnn_kernels.scalar import zero


@device
def time_of(length, s, reverse):  # type: ignore[no-untyped-def]
    """The time of a row's step."""
    return length - 1 - s if reverse else s


@device
def begins_anew(reset, b, B, length, s, reverse, resetting):  # type: ignore[no-untyped-def]
    """Whether a boundary lies right before a row's step: the reverse comes from behind it."""
    if not resetting or s == 0:
        return False
    t = time_of(length, s, reverse)
    return reset[(t + 1 if reverse else t) * B + b] != 0


class ForwardKernels(NamedTuple):
    """Of a step: the value that late gates multiply; the gates; h after a projection."""

    inner: Kernel
    gates: Kernel
    keep: Kernel


@cache
def forward_kernels(cell: Cell, dtype: np.dtype[Any], projected: bool) -> ForwardKernels:
    """The kernels of a step forward; those that a cell has no need of are never compiled."""
    G, S, K, N = len(cell.gates), len(cell.sums), len(cell.saved), len(cell.states)
    A, L = len(cell.apart), len(cell.late)
    E = G - L
    kind = from_dtype(dtype)
    forward = device(cell.forward)
    inner_value = device(cell.inner) if cell.inner else forward
    load_sums, load_early, load_rest = load(S), load(E), load(N - 1)
    store_saved, store_rest = store(K), store(N - 1)

    @device
    def add_early(acc, x_sums, h_sums, bias, row, b, u, H):  # type: ignore[no-untyped-def]
        for j in range(A):
            acc[j] = x_sums[(row * G + j) * H + u] + bias[j * H + u]
        for j in range(A, E):
            part = x_sums[(row * G + j) * H + u] + bias[j * H + u]
            acc[j] = part + h_sums[(b * E + j - A) * H + u]

    @device
    def states_of(h, rest, b, u, B, H):  # type: ignore[no-untyped-def]
        # Of a projected h no value belongs to the unit, and its cell reads none.
        own = h[0] if projected else h[b * H + u]
        return (own,) + load_rest(rest, b * H + u, B * H)

    def inner(  # type: ignore[no-untyped-def]
        x_sums, h_sums, bias, h, rest, lengths, inner_now, inner_tape, s, B, H, reverse, taping
    ):
        i = cuda.grid(1)
        if i < B * H:
            b = i // H
            u = i - b * H
            length = lengths[b]
            if s < length:
                row = time_of(length, s, reverse) * B + b
                acc = cuda.local.array(S, kind)
                add_early(acc, x_sums, h_sums, bias, row, b, u, H)
                value = inner_value(load_early(acc, 0, 1), states_of(h, rest, b, u, B, H))
                inner_now[i] = value
                if taping:
                    inner_tape[row * H + u] = value

    def gates(  # type: ignore[no-untyped-def]
        x_sums, h_sums, late_sums, bias, h_bias, h, rest, start_h, start_rest,
        final_h, final_rest, lengths, reset, y, saved, old_h, old_rest, full_h, full_tape,
        s, T, B, H, Y, y_at, reverse, resetting, taping,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i < B * H:
            b = i // H
            u = i - b * H
            length = lengths[b]
            if s < length:
                row = time_of(length, s, reverse) * B + b
                acc = cuda.local.array(S, kind)
                add_early(acc, x_sums, h_sums, bias, row, b, u, H)
                for j in range(E, G):
                    part = x_sums[(row * G + j) * H + u] + bias[j * H + u]
                    acc[j] = part + late_sums[(b * L + j - E) * H + u]
                for j in range(G, S):
                    acc[j] = h_sums[(b * E + j - A) * H + u] + h_bias[(j - G) * H + u]
                states = states_of(h, rest, b, u, B, H)
                new, kept = forward(load_sums(acc, 0, 1), states)
                if taping:
                    store_saved(saved, row * K * H + u, H, kept)
                    store_rest(old_rest, row * H + u, T * B * H, states[1:])
                    if not projected:
                        old_h[row * H + u] = states[0]
                last = s == length - 1
                anew = not last and begins_anew(reset, b, B, length, s + 1, reverse, resetting)
                if projected:
                    full_h[i] = new[0]
                    if taping:
                        full_tape[row * H + u] = new[0]
                else:
                    y[row * Y + y_at + u] = new[0]
                    h[i] = start_h[i] if anew else new[0]
                    if last:
                        final_h[i] = new[0]
                if anew:
                    store_rest(rest, i, B * H, load_rest(start_rest, i, B * H))
                else:
                    store_rest(rest, i, B * H, new[1:])
                if last:
                    store_rest(final_rest, i, B * H, new[1:])

    def keep(  # type: ignore[no-untyped-def]
        new_h, h, start_h, final_h, lengths, reset, y, old_h,
        s, B, P, Y, y_at, reverse, resetting, taping,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i < B * P:
            b = i // P
            p = i - b * P
            length = lengths[b]
            if s < length:
                row = time_of(length, s, reverse) * B + b
                if taping:
                    old_h[row * P + p] = h[i]
                value = new_h[i]
                y[row * Y + y_at + p] = value
                if s == length - 1:
                    final_h[i] = value
                elif begins_anew(reset, b, B, length, s + 1, reverse, resetting):
                    h[i] = start_h[i]
                else:
                    h[i] = value

    return ForwardKernels(
        Kernel(inner, dtype, "vvvvvnvviiibb"),
        Kernel(gates, dtype, "vvvvvvvvvvvnmvvvvvviiiiiibbb"),
        Kernel(keep, dtype, "vvvvnmvviiiiibbb"),
    )


class BackwardKernels(NamedTuple):
    """Of a step: the gradient of h before a projection; of late gates; of the others."""

    hidden: Kernel
    late: Kernel
    gates: Kernel


@cache
def backward_kernels(cell: Cell, dtype: np.dtype[Any], projected: bool) -> BackwardKernels:
    """The kernels of a step backward; those that a cell has no need of are never compiled.

        dh (B, P), d_rest (N - 1, B, H): gradients of the states behind the step that is next,
            without what comes through the product, which is d_product (B, P)
        d_sums (T, B, S, H), and of this step those that the products take:
            d_now (B, E, H), d_late_now (B, L, H)
        d_full, d_inner (B, H): what the products give for h before a projection, and for the
            value that late gates multiply

    A late gate's cell has one state, h, and is not projected.
    """
    S, K, N = len(cell.sums), len(cell.saved), len(cell.states)
    A, L = len(cell.apart), len(cell.late)
    E = len(cell.gates) - L
    backward = device(cell.backward)
    late_backward = device(cell.late_backward) if cell.late_backward else backward
    load_saved, load_rest, store_rest = load(K), load(N - 1), store(N - 1)
    store_sums, store_late = store(S - L), store(L)
    store_now = store(E)

    @device
    def dh_of(  # type: ignore[no-untyped-def]
        dh, d_product, d_final_h, d_start_h, dy, dy_at, i, last, anew
    ):
        """The whole gradient of h behind a step; what belongs to a start goes there."""
        if last:
            value = d_final_h[i]
        else:
            value = dh[i] + d_product[i]
            if anew:
                d_start_h[i] += value
                value = zero(value)
        return value + dy[dy_at]

    def hidden(  # type: ignore[no-untyped-def]
        dy, d_product, dh, d_final_h, d_start_h, lengths, reset, dh_now, dh_tape,
        s, B, P, Y, y_at, reverse, resetting,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i < B * P:
            b = i // P
            p = i - b * P
            length = lengths[b]
            if s < length:
                row = time_of(length, s, reverse) * B + b
                last = s == length - 1
                anew = not last and begins_anew(reset, b, B, length, s + 1, reverse, resetting)
                value = dh_of(
                    dh, d_product, d_final_h, d_start_h, dy, row * Y + y_at + p, i, last, anew
                )
                dh[i] = 0  # its cell reads no h: the product alone goes on
                dh_now[i] = value
                dh_tape[row * P + p] = value

    def late(  # type: ignore[no-untyped-def]
        dy, d_product, dh, d_final_h, d_start_h, lengths, reset, saved, old_h, d_sums, d_late_now,
        s, B, H, Y, y_at, reverse, resetting,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i < B * H:
            b = i // H
            u = i - b * H
            length = lengths[b]
            if s < length:
                row = time_of(length, s, reverse) * B + b
                last = s == length - 1
                anew = not last and begins_anew(reset, b, B, length, s + 1, reverse, resetting)
                value = dh_of(
                    dh, d_product, d_final_h, d_start_h, dy, row * Y + y_at + u, i, last, anew
                )
                dh[i] = value
                kept = load_saved(saved, row * K * H + u, H)
                found = late_backward((value,), kept, (old_h[row * H + u],))
                store_late(d_sums, (row * S + E) * H + u, H, found)
                store_late(d_late_now, b * L * H + u, H, found)

    def gates(  # type: ignore[no-untyped-def]
        dy, d_product, dh, d_rest, d_final_h, d_final_rest, d_start_h, d_start_rest,
        d_full, d_inner, lengths, reset, saved, old_h, old_rest, d_sums, d_now,
        s, T, B, H, Y, y_at, reverse, resetting,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i < B * H:
            b = i // H
            u = i - b * H
            length = lengths[b]
            if s < length:
                row = time_of(length, s, reverse) * B + b
                last = s == length - 1
                anew = not last and begins_anew(reset, b, B, length, s + 1, reverse, resetting)
                kept = load_saved(saved, row * K * H + u, H)
                old = load_rest(old_rest, row * H + u, T * B * H)
                if anew:
                    for j in range(N - 1):
                        d_start_rest[j * B * H + i] += d_rest[j * B * H + i]
                        d_rest[j * B * H + i] = 0
                elif last:
                    for j in range(N - 1):
                        d_rest[j * B * H + i] = d_final_rest[j * B * H + i]
                rest = load_rest(d_rest, i, B * H)
                if projected:
                    states = (old_h[0],) + old
                    new_sums, d_old = backward((d_full[i],) + rest, kept, states)
                elif L > 0:
                    states = (old_h[row * H + u],) + old
                    value = (dh[i],) + rest
                    new_sums, d_old = backward(value, kept, states, d_inner[i])
                else:
                    states = (old_h[row * H + u],) + old
                    own = dh_of(
                        dh, d_product, d_final_h, d_start_h, dy, row * Y + y_at + u, i, last, anew
                    )
                    new_sums, d_old = backward((own,) + rest, kept, states)
                store_sums(d_sums, row * S * H + u, H, new_sums)
                store_now(d_now, b * E * H + u, H, new_sums[A:])
                store_rest(d_rest, i, B * H, d_old[1:])
                if not projected:
                    dh[i] = d_old[0]

    return BackwardKernels(
        Kernel(hidden, dtype, "vvvvvnmvviiiiibb"),
        Kernel(late, dtype, "vvvvvnmvvvviiiiibb"),
        Kernel(gates, dtype, "vvvvvvvvvvnmvvvvviiiiiibb"),
    )
