"""Layer norm and RMS norm of one of the two products whose sum the gates are given.

Of a row, all units of all gates together, n values a:

    layer   y = (a - μ) / sqrt(σ² + ε),  μ = Σ a / n,  σ² = Σ (a - μ)² / n
    rms     y = a / sqrt(Σ a² / n + ε)

and what the gates are given of it is gain y, and the bias. J. L. Ba, J. R. Kiros, G. E. Hinton,
"Layer normalization", arXiv:1607.06450, Sec. 3.1, and the LSTM of the supplement, which has each
product normalised by itself; B. Zhang, R. Sennrich, "Root mean square layer normalization",
arXiv:1910.07467, eq. 4.

Sums go through a row in one order, whoever computes it: results do not depend on threads.
"""

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.vector import (
    Vector,
    first_lanes,
    fma,
    load,
    load_part,
    store,
    store_part,
)
from fastrnn_kernels.weights import EPSILON


@intrinsic
def _sum_of_lanes(typingctx, vector):  # type: ignore[no-untyped-def]
    """The sum of a vector's values, in float64, from the first to the last."""
    if not isinstance(vector, Vector):
        return None

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        double, total = ir.DoubleType(), ir.Constant(ir.DoubleType(), 0.0)
        for lane in range(vector.count):
            value = builder.extract_element(args[0], ir.Constant(ir.IntType(32), lane))
            wide = value if value.type == double else builder.fpext(value, double)
            total = builder.fadd(total, wide)
        return total

    return types.float64(vector), codegen


@intrinsic
def _first_values(typingctx, vector, many):  # type: ignore[no-untyped-def]
    """A vector with zeros in lanes from `many` on."""
    if not isinstance(vector, Vector):
        return None

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        zeros = ir.Constant(args[0].type, [0.0] * vector.count)
        return builder.select(first_lanes(builder, vector.count, args[1]), args[0], zeros)

    return vector(vector, types.int64), codegen


def normaliser(gates: int, units: int, norm: str, biased: bool) -> Any:
    """A function that normalises the sums of a row, in panels of `units` vectors of each gate.

        (sums, at, panel_step, H, W, gains, bias, tape, tape_at, HL, taping) -> 1 / sqrt(...)

    sums: [panel, panel_step apart][gate][units], which `gain y`, with the bias if `biased`, takes
    the place of; gains, bias: panels [panel][gate][units], one behind the other; tape [gate][HL]:
    where y goes, if `taping`. W: the values of a vector.
    """
    load_one, store_one, part = load(1), store(1), load_part()
    centred = norm == "layer"

    @inlined
    def normalise(sums, at, panel_step, H, W, gains, bias, tape, tape_at, HL, taping):  # type: ignore[no-untyped-def]
        U, many = W * units, gates * H
        panels = (H + U - 1) // U
        mean = 0.0
        if centred:
            total = part(sums, at, 0)
            for n in range(panels):
                for j in range(gates * units):
                    left = H - n * U - j % units * W
                    total = total + part(sums, at + n * panel_step + j * W, max(left, 0))
            mean = _sum_of_lanes(total) / many
        squares = part(sums, at, 0)
        for n in range(panels):
            for j in range(gates * units):
                left = H - n * U - j % units * W
                (value,) = load_one(sums, at + n * panel_step + j * W, 0)
                if centred:
                    value = value - mean
                value = _first_values(value, max(left, 0))
                squares = fma(value, value, squares)
        scale = 1.0 / math.sqrt(_sum_of_lanes(squares) / many + EPSILON)
        for n in range(panels):
            for j in range(gates * units):
                u = n * U + j % units * W
                to, panel = at + n * panel_step + j * W, (n * gates * units + j) * W
                (value,) = load_one(sums, to, 0)
                if centred:
                    value = value - mean
                value = value * scale
                if taping and u < H:
                    store_one(tape, tape_at + j // units * HL + u, 0, (value,))
                (gain,) = load_one(gains, panel, 0)
                if biased:
                    (offset,) = load_one(bias, panel, 0)
                    store_one(sums, to, 0, (fma(value, gain, offset),))
                else:
                    store_one(sums, to, 0, (value * gain,))
        return scale

    return normalise


def norm_backward(norm: str) -> Any:
    """A function for the gradient of what was normalised, of a row.

        (d, d_at, gates, H, W, gains, hats, hats_at, HL, scale, out, out_at)

    d [gate][H]: that of `gain y`; gains (gates H,); hats [gate][HL]: y; scale: 1 / sqrt(...); out
    [gate][H]. With g = gain d,

        layer   da = scale (g - Σ g / n - y Σ g y / n)
        rms     da = scale (g - y Σ g y / n)
    """
    part, store_one = load_part(), store_part(1)
    centred = norm == "layer"

    @inlined
    def backward(d, d_at, gates, H, W, gains, hats, hats_at, HL, scale, out, out_at):  # type: ignore[no-untyped-def]
        many = gates * H
        total, products = part(d, d_at, 0), part(d, d_at, 0)
        for k in range(gates):
            for u in range(0, H, W):
                g = part(d, d_at + k * H + u, H - u) * part(gains, k * H + u, H - u)
                total = total + g
                products = fma(g, part(hats, hats_at + k * HL + u, H - u), products)
        mean, along = 0.0, _sum_of_lanes(products) / many
        if centred:
            mean = _sum_of_lanes(total) / many
        for k in range(gates):
            for u in range(0, H, W):
                g = part(d, d_at + k * H + u, H - u) * part(gains, k * H + u, H - u)
                y = part(hats, hats_at + k * HL + u, H - u)
                value = (g - mean - y * along) * float(scale)
                store_one(out, out_at + k * H + u, 0, H - u, (value,))

    return backward
