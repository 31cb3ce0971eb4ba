"""One step forward as kernels of a thread to a unit, between products that a library computes.

For any cell, size and batch; what the other paths compute in one launch, these do in a few.
T time steps, B batch, H hidden size, P width of h (H, or the projection's), G gates, S sums,
K saved values, N states; of the gates X have no h-part, A stand apart, L are late, and E early
(`cells/cell.py`).
Arrays are flat:

    x_sums (T, B, G, H)   W x, gates in the order of `Cell.x_gates`; bias (G, H) goes with it
    h_sums (B, E, H)      R h, early gates in the order of `Cell.h_gates`; h_bias (A, H)
    late_sums (B, L, H)   the late gates' R times what `inner` gave
    units (Q, H)          parameters per unit
    h, start_h, final_h (B, P); rest, start_rest, final_rest (N - 1, B, H); full_h (B, H)
    y (T, B, Y), written from column y_at on where a row runs
    saved (T, B, K, H), old_h (T, B, P), old_rest (N - 1, T, B, H): the tape
    h_mask (B, P): what h is multiplied by before R, where kernels are `masked`; met (B, P): what
        it leaves
    drawn: the key's two words, the kind of the first draw, the time of the first step, and the D
        thresholds; levels (D, 2) (`draws.py`)

At step s a row of some length is at its time s, or length - 1 - s in reverse.

The arrays of a call come by a table (`table.py`), in the places that are named here: of values
(`vs`), integers (`ns`) and masks (`ms`); and T and the step that a recording begins with, in
`words`. The others belong to the recording, and stay.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, from_dtype

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cuda.isa.times import begins_anew, time_of
from fastrnn_kernels.cuda.isa.values import device, load, store
from fastrnn_kernels.cuda.launch.kernel import Kernel
from fastrnn_kernels.draws import philox

counted = device(philox)

#: Places in the table of either pass.
STEPS, FIRST, LENGTHS, RESET, SAVED, OLD_H, OLD_REST, H_MASK = range(8)
#: Places in the forward pass's.
X_SUMS, Y_OUT, START_H, START_REST, FINAL_H, FINAL_REST, INNER, FULL_H = range(8, 16)
DRAWN, LEVELS = range(16, 18)


@cache
def advance_kernel() -> Kernel:
    """Moves the step that a recording begins with."""

    def advance(words, steps):  # type: ignore[no-untyped-def]
        if cuda.grid(1) == 0:
            words[FIRST] += steps

    return Kernel(advance, np.dtype(np.int64), "ni")


@cache
def begin_kernel(dtype: np.dtype[Any], masked: bool = False) -> Kernel:
    """Goes to the states at the start."""

    def begin(vs, h, met, rest, many_h, many_rest):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i < many_h:
            h[i] = vs[START_H][i]
            if masked:
                met[i] = h[i] * vs[H_MASK][i]
        if i < many_rest:
            rest[i] = vs[START_REST][i]

    return Kernel(begin, dtype, "Vvvvii")


def drawing(count: int) -> Any:
    """A function `(out, vs, ns, b, u, t)` that draws a unit's values of a row's time."""

    @device
    def draw(out, vs, ns, b, u, t):  # type: ignore[no-untyped-def]
        words, levels, place = ns[DRAWN], vs[LEVELS], u % 4
        key, other_key = np.uint64(words[0]), np.uint64(words[1])
        unit, row, time = np.uint64(u // 4), np.uint64(b), np.uint64(t + words[3])
        for d in range(count):
            first, second, third, fourth = counted(
                unit, row, time, np.uint64(words[2] + d), key, other_key
            )
            low = first if place == 0 else second
            high = third if place == 2 else fourth
            word = low if place < 2 else high
            below = word < np.uint64(words[4 + d])
            out[d] = levels[2 * d] if below else levels[2 * d + 1]

    @device
    def nothing(out, vs, ns, b, u, t):  # type: ignore[no-untyped-def]
        pass

    return draw if count else nothing


class ForwardKernels(NamedTuple):
    """Of a step the value that late gates multiply, the gates, h if projected."""

    inner: Kernel
    gates: Kernel
    keep: Kernel


@cache
def forward_kernels(
    cell: Cell, dtype: np.dtype[Any], projected: bool, masked: bool = False
) -> ForwardKernels:
    """The kernels of a step forward; those that a cell has no need of are never compiled."""
    G, A, L, E, S, N, K, Q = cell.G, cell.A, cell.L, cell.E, cell.S, cell.N, cell.K, cell.Q
    D = cell.D  # drawn values stand in front of the sums
    many = D + S
    Z = cell.X + A  # the first sum that h has a part in
    kind = from_dtype(dtype)
    forward = device(cell.forward)
    inner_value = device(cell.inner) if cell.inner else forward
    load_sums, load_early = load(many), load(D + G - L)
    load_rest, load_units = load(N - 1), load(Q)
    draw = drawing(D)
    store_saved, store_rest = store(K), store(N - 1)

    @device
    def add_early(acc, x_sums, h_sums, bias, row, b, u, H):  # type: ignore[no-untyped-def]
        for j in range(Z):
            acc[D + j] = x_sums[(row * G + j) * H + u] + bias[j * H + u]
        for j in range(Z, G - L):
            part = x_sums[(row * G + j) * H + u] + bias[j * H + u]
            acc[D + j] = part + h_sums[(b * E + j - Z) * H + u]

    @device
    def states_of(h, rest, b, u, B, H):  # type: ignore[no-untyped-def]
        # Of a projected h no value belongs to the unit, and its cell reads none.
        own = h[0] if projected else h[b * H + u]
        return (own,) + load_rest(rest, b * H + u, B * H)

    def inner(  # type: ignore[no-untyped-def]
        vs, ns, words, h_sums, bias, units, h, rest, inner_now, step, B, H, reverse, taping
    ):
        i = cuda.grid(1)
        if i < B * H:
            b = i // H
            u = i - b * H
            s, length = words[FIRST] + step, ns[LENGTHS][b]
            if s < length:
                t = time_of(length, s, reverse)
                row = t * B + b
                acc = cuda.local.array(many, kind)
                draw(acc, vs, ns, b, u, t)
                add_early(acc, vs[X_SUMS], h_sums, bias, row, b, u, H)
                states = states_of(h, rest, b, u, B, H)
                value = inner_value(load_early(acc, 0, 1), states + load_units(units, u, H))
                if masked:
                    value = value * vs[H_MASK][i]
                inner_now[i] = value
                if taping:
                    vs[INNER][row * H + u] = value

    def gates(  # type: ignore[no-untyped-def]
        vs, ns, ms, words, h_sums, late_sums, bias, h_bias, units, h, met, rest, full_h,
        step, B, H, Y, y_at, reverse, resetting, taping,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i < B * H:
            b = i // H
            u = i - b * H
            s, length = words[FIRST] + step, ns[LENGTHS][b]
            if s < length:
                x_sums = vs[X_SUMS]
                t = time_of(length, s, reverse)
                row = t * B + b
                acc = cuda.local.array(many, kind)
                draw(acc, vs, ns, b, u, t)
                add_early(acc, x_sums, h_sums, bias, row, b, u, H)
                for j in range(G - L, G):
                    part = x_sums[(row * G + j) * H + u] + bias[j * H + u]
                    acc[D + j] = part + late_sums[(b * L + j - G + L) * H + u]
                for j in range(G, S):
                    acc[D + j] = h_sums[(b * E + j - Z) * H + u] + h_bias[(j - G) * H + u]
                states = states_of(h, rest, b, u, B, H)
                new, kept = forward(load_sums(acc, 0, 1), states + load_units(units, u, H))
                if taping:
                    store_saved(vs[SAVED], row * K * H + u, H, kept)
                    store_rest(vs[OLD_REST], row * H + u, words[STEPS] * B * H, states[1:])
                    if not projected:
                        vs[OLD_H][row * H + u] = states[0]
                last = s == length - 1
                anew = not last and begins_anew(ms[RESET], b, B, length, s + 1, reverse, resetting)
                if projected:
                    full_h[i] = new[0]
                    if taping:
                        vs[FULL_H][row * H + u] = new[0]
                else:
                    vs[Y_OUT][row * Y + y_at + u] = new[0]
                    h[i] = vs[START_H][i] if anew else new[0]
                    if masked:
                        met[i] = h[i] * vs[H_MASK][i]
                    if last:
                        vs[FINAL_H][i] = new[0]
                if anew:
                    store_rest(rest, i, B * H, load_rest(vs[START_REST], i, B * H))
                else:
                    store_rest(rest, i, B * H, new[1:])
                if last:
                    store_rest(vs[FINAL_REST], i, B * H, new[1:])

    def keep(  # type: ignore[no-untyped-def]
        vs, ns, ms, words, new_h, h, met, step, B, P, Y, y_at, reverse, resetting, taping
    ):
        i = cuda.grid(1)
        if i < B * P:
            b = i // P
            p = i - b * P
            s, length = words[FIRST] + step, ns[LENGTHS][b]
            if s < length:
                row = time_of(length, s, reverse) * B + b
                if taping:
                    vs[OLD_H][row * P + p] = h[i]
                value = new_h[i]
                vs[Y_OUT][row * Y + y_at + p] = value
                if s == length - 1:
                    vs[FINAL_H][i] = value
                elif begins_anew(ms[RESET], b, B, length, s + 1, reverse, resetting):
                    h[i] = vs[START_H][i]
                else:
                    h[i] = value
                if masked:
                    met[i] = h[i] * vs[H_MASK][i]

    return ForwardKernels(
        Kernel(inner, dtype, "VNnvvvvvviiibb"),
        Kernel(gates, dtype, "VNMnvvvvvvvvviiiiibbb"),
        Kernel(keep, dtype, "VNMnvvviiiiibbb"),
    )
