"""One step back as kernels of a thread to a unit, between products that a library computes.

Letters, arrays and the table as in `forward.py`.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.functions import zero
from fastrnn_kernels.cuda.isa.times import begins_anew, time_of
from fastrnn_kernels.cuda.isa.values import add, device, load, store
from fastrnn_kernels.cuda.launch.kernel import Kernel
from fastrnn_kernels.cuda.stepwise.forward import (
    FIRST,
    H_MASK,
    LENGTHS,
    OLD_H,
    OLD_REST,
    RESET,
    SAVED,
    STEPS,
)

#: Places in the backward pass's table.
DY, D_FINAL_H, D_FINAL_REST, D_START_H, D_START_REST, D_SUMS, DH_TAPE, D_UNITS = range(8, 16)


@cache
def begin_kernel(dtype: np.dtype[Any]) -> Kernel:
    """Clears what comes from the steps behind the last."""

    def begin(dh, d_product, d_rest, many_h, many_rest):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i < many_h:
            dh[i] = 0
            d_product[i] = 0
        if i < many_rest:
            d_rest[i] = 0

    return Kernel(begin, dtype, "vvvii")


class BackwardKernels(NamedTuple):
    """Of a step the gradients of h if projected, of late gates, of the others."""

    hidden: Kernel
    late: Kernel
    gates: Kernel


@cache
def backward_kernels(
    cell: Cell, dtype: np.dtype[Any], projected: bool, masked: bool = False
) -> BackwardKernels:
    """The kernels of a step backward; those that a cell has no need of are never compiled.

        dh (B, P), d_rest (N - 1, B, H): gradients of the states behind the step that is next,
            without what comes through the product, which is d_product (B, P)
        d_sums (T, B, S, H), and of this step those that the products take:
            d_now (B, E, H), d_late_now (B, L, H)
        d_full, d_inner (B, H): what the products give for h before a projection, and for the
            value that late gates multiply
        d_units (B, Q, H): what each row adds to the gradients of the parameters per unit

    A late gate's cell has one state, h, and is not projected.
    """
    G, L, E, S, N, K, Q = cell.G, cell.L, cell.E, cell.S, cell.N, cell.K, cell.Q
    Z = cell.X + cell.A  # the first sum that h has a part in
    backward = device(cell.backward)
    late_backward = device(cell.late_backward) if cell.late_backward else backward
    load_saved, load_rest, store_rest = load(K), load(N - 1), store(N - 1)
    load_units, add_units = load(Q), add(Q)
    store_sums, store_late = store(S - L), store(L)
    store_now = store(E)

    @device
    def dh_of(vs, d_product, dh, dy_at, i, last, anew):  # type: ignore[no-untyped-def]
        """The whole gradient of h behind a step; what belongs to a start goes there."""
        if last:
            value = vs[D_FINAL_H][i]
        else:
            through = d_product[i]
            if masked:
                through = through * vs[H_MASK][i]
            value = dh[i] + through
            if anew:
                vs[D_START_H][i] += value
                value = zero(value)
        return value + vs[DY][dy_at]

    def hidden(  # type: ignore[no-untyped-def]
        vs, ns, ms, words, d_product, dh, dh_now, step, B, P, Y, y_at, reverse, resetting
    ):
        i = cuda.grid(1)
        if i < B * P:
            b = i // P
            p = i - b * P
            s, length = words[FIRST] - step, ns[LENGTHS][b]
            if s < length:
                row = time_of(length, s, reverse) * B + b
                last = s == length - 1
                anew = not last and begins_anew(ms[RESET], b, B, length, s + 1, reverse, resetting)
                value = dh_of(vs, d_product, dh, row * Y + y_at + p, i, last, anew)
                dh[i] = 0  # its cell reads no h: the product alone goes on
                dh_now[i] = value
                vs[DH_TAPE][row * P + p] = value

    def late(  # type: ignore[no-untyped-def]
        vs, ns, ms, words, units, d_product, dh, d_late_now, step, B, H, Y, y_at, reverse, resetting
    ):
        i = cuda.grid(1)
        if i < B * H:
            b = i // H
            u = i - b * H
            s, length = words[FIRST] - step, ns[LENGTHS][b]
            if s < length:
                row = time_of(length, s, reverse) * B + b
                last = s == length - 1
                anew = not last and begins_anew(ms[RESET], b, B, length, s + 1, reverse, resetting)
                value = dh_of(vs, d_product, dh, row * Y + y_at + u, i, last, anew)
                dh[i] = value
                kept = load_saved(vs[SAVED], row * K * H + u, H)
                states = (vs[OLD_H][row * H + u],) + load_units(units, u, H)
                found = late_backward((value,), kept, states)
                store_late(vs[D_SUMS], (row * S + G - L) * H + u, H, found)
                store_late(d_late_now, b * L * H + u, H, found)

    def gates(  # type: ignore[no-untyped-def]
        vs, ns, ms, words, units, d_product, dh, d_rest, d_full, d_inner, d_now,
        step, B, H, Y, y_at, reverse, resetting,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i < B * H:
            b = i // H
            u = i - b * H
            s, length = words[FIRST] - step, ns[LENGTHS][b]
            if s < length:
                row = time_of(length, s, reverse) * B + b
                last = s == length - 1
                anew = not last and begins_anew(ms[RESET], b, B, length, s + 1, reverse, resetting)
                kept = load_saved(vs[SAVED], row * K * H + u, H)
                others = load_rest(vs[OLD_REST], row * H + u, words[STEPS] * B * H)
                old = others + load_units(units, u, H)
                if anew:
                    for j in range(N - 1):
                        vs[D_START_REST][j * B * H + i] += d_rest[j * B * H + i]
                        d_rest[j * B * H + i] = 0
                elif last:
                    for j in range(N - 1):
                        d_rest[j * B * H + i] = vs[D_FINAL_REST][j * B * H + i]
                rest = load_rest(d_rest, i, B * H)
                if projected:
                    states = (d_full[i],) + old  # its cell reads no h
                    new_sums, d_old = backward((d_full[i],) + rest, kept, states)
                elif L > 0:
                    states = (vs[OLD_H][row * H + u],) + old
                    value = (dh[i],) + rest
                    d_value = d_inner[i]
                    if masked:
                        d_value = d_value * vs[H_MASK][i]
                    new_sums, d_old = backward(value, kept, states, d_value)
                else:
                    states = (vs[OLD_H][row * H + u],) + old
                    own = dh_of(vs, d_product, dh, row * Y + y_at + u, i, last, anew)
                    new_sums, d_old = backward((own,) + rest, kept, states)
                store_sums(vs[D_SUMS], row * S * H + u, H, new_sums)
                store_now(d_now, b * E * H + u, H, new_sums[Z:])
                store_rest(d_rest, i, B * H, d_old[1:N])
                add_units(vs[D_UNITS], b * Q * H + u, H, d_old[N:])
                if not projected:
                    dh[i] = d_old[0]

    return BackwardKernels(
        Kernel(hidden, dtype, "VNMnvvviiiiibb"),
        Kernel(late, dtype, "VNMnvvvviiiiibb"),
        Kernel(gates, dtype, "VNMnvvvvvvviiiiibb"),
    )
