"""exp, expm1, sigmoid and tanh for the CPU.

e^x - 1 = 2^n (e^r - 1) + (2^n - 1) with n = round(x / ln 2) and |r| <= ln(2) / 2, where
e^r - 1 = r + r² q(r); q is a minimax polynomial (Remez) for the relative error of
e^r - 1: 1.6e-8 of degree 4 in float32, 2.3e-17 of degree 9 in float64. Working from
e^r - 1, not e^r, tanh keeps its last bits near 0 without a second formula:
tanh(x) = t / (t + 2) with t = e^2x - 1. expm1 is 2 (2^n / 2 (e^r - 1) + (2^n / 2 - 1/2)), as 2^n
itself may be too large where the result is not.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from fastrnn_kernels.cells import functions
from fastrnn_kernels.cpu.isa.bits import power_of_two, times_power_of_two
from fastrnn_kernels.cpu.isa.inlined import INLINED, inlined
from fastrnn_kernels.cpu.isa.polynomials import format_of
from fastrnn_kernels.cpu.isa.vector import absolute, copysign, fma, where_at_most


class _Format(NamedTuple):
    number: Any
    log2_e: float
    ln2_high: float  # few enough bits that n * ln2_high is exact
    ln2_low: float
    round_to_integer: float  # 1.5 * 2^mantissa bits: adding it rounds to an integer
    exp_low: float  # e^x rounds to 0 below
    exp_high: float  # and to inf above
    expm1_low: float  # e^x - 1 rounds to -1 below
    tanh_high: float  # tanh rounds to 1 above
    q: tuple[float, ...]


FORMATS = {
    types.float32: _Format(
        np.float32, 1.4426950408889634, 0.693359375, -2.12194440054690583e-4, 12582912.0,
        -104.0, 89.0, -18.0, 9.2,
        (0.5, 0.16666540503501892, 0.04166627675294876, 0.008367007598280907,
         0.0013947152765467763),
    ),
    types.float64: _Format(
        np.float64, 1.4426950408889634, 0.693147180369123816490, 1.90821492927058770002e-10,
        6755399441055744.0, -746.0, 710.0, -38.0, 19.2,
        (0.5000000000000006, 0.16666666666666685, 0.04166666666657506, 0.008333333333314197,
         0.001388888893270245, 0.0001984126990453827, 2.4801503432893333e-05,
         2.7557226124835326e-06, 2.762690991479762e-07, 2.5115179683654064e-08),
    ),
}  # fmt: skip


def reduction(f: _Format, times: int = 1) -> Any:
    """(x, times x) -> (e^r - 1, n, n + round_to_integer) with times x = r + n ln 2.

    Steps wait for these results, so what can be computed beside is: x before it is
    multiplied, and the polynomial by pairs, not from one end to the other.
    """
    number = f.number
    log2_e, shift = number(times * f.log2_e), number(f.round_to_integer)
    minus_high, minus_low = number(-f.ln2_high), number(-f.ln2_low)
    if number is np.float32:
        q0, q1, q2, q3, q4 = map(number, f.q)

        def q(r: Any, rr: Any) -> Any:
            return fma(fma(q4, rr, fma(q3, r, q2)), rr, fma(q1, r, q0))
    else:
        q0, q1, q2, q3, q4, q5, q6, q7, q8, q9 = map(number, f.q)

        def q(r: Any, rr: Any) -> Any:
            low = fma(fma(q3, r, q2), rr, fma(q1, r, q0))
            high = fma(fma(q9, r, q8), rr, fma(q7, r, q6))
            return fma(fma(high, rr, fma(q5, r, q4)), rr * rr, low)

    q = inlined(q)

    def reduced(x, many_x):  # type: ignore[no-untyped-def]
        shifted = fma(x, log2_e, shift)
        n = shifted - shift
        r = fma(n, minus_low, fma(n, minus_high, many_x))
        rr = r * r
        return fma(rr, q(r, rr), r), n, shifted

    return inlined(reduced)


@overload(functions.exp, jit_options=INLINED)
def _exp(x):  # type: ignore[no-untyped-def]
    f = format_of(x, FORMATS)
    if f is None:
        return None
    reduced, shift = reduction(f), f.number(f.round_to_integer)
    low, high, one = f.number(f.exp_low), f.number(f.exp_high), f.number(1)

    def exp(x):  # type: ignore[no-untyped-def]
        x = where_at_most(x, low, low, x)  # a comparison with NaN is false: it passes through
        x = where_at_most(high, x, high, x)
        e, n, shifted = reduced(x, x)
        return times_power_of_two(e + one, n, shifted, shift)

    return exp


@overload(functions.expm1, jit_options=INLINED)
def _expm1(x):  # type: ignore[no-untyped-def]
    f = format_of(x, FORMATS)
    if f is None:
        return None
    number, reduced = f.number, reduction(f)
    shift_and_one, half = number(f.round_to_integer + 1), number(0.5)
    low, high, tiny = number(f.expm1_low), number(f.exp_high), number(np.finfo(number).eps / 4)

    def expm1(x):  # type: ignore[no-untyped-def]
        limited = where_at_most(x, low, low, x)
        limited = where_at_most(high, limited, high, limited)
        e, _, shifted = reduced(limited, limited)
        half_power = power_of_two(shifted, shift_and_one)
        found = fma(half_power, e, half_power - half)
        return where_at_most(absolute(x), tiny, x, found + found)  # a zero keeps its sign

    return expm1


@overload(functions.sigmoid, jit_options=INLINED)
def _sigmoid(x):  # type: ignore[no-untyped-def]
    f = format_of(x, FORMATS)
    if f is None:
        return None
    reduced, shift = reduction(f), f.number(f.round_to_integer)
    low, one, zero = f.number(f.exp_low), f.number(1), f.number(0)

    def sigmoid(x):  # type: ignore[no-untyped-def]
        down = -absolute(x)  # e^down is at most 1, so neither tail overflows or is cut off
        down = where_at_most(down, low, low, down)
        e, n, shifted = reduced(down, down)
        e = times_power_of_two(e + one, n, shifted, shift)
        return where_at_most(x, zero, e, one) / (e + one)

    return sigmoid


@overload(functions.tanh, jit_options=INLINED)
def _tanh(x):  # type: ignore[no-untyped-def]
    f = format_of(x, FORMATS)
    if f is None:
        return None
    reduced, shift = reduction(f, 2), f.number(f.round_to_integer)
    high, one, two = f.number(f.tanh_high), f.number(1), f.number(2)

    def tanh(x):  # type: ignore[no-untyped-def]
        size = absolute(x)
        size = where_at_most(high, size, high, size)
        e, _, shifted = reduced(size, size + size)
        power = power_of_two(shifted, shift)
        t = fma(power, e, power - one)
        return copysign(t / (t + two), x)

    return tanh
