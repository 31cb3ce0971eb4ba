"""The functions of `scalar` for the CPU.

They are branch-free, so that a loop over units becomes vector code, and of basic
operations only, so that every lane rounds alike.

e^x - 1 = 2^n (e^r - 1) + (2^n - 1) with n = round(x / ln 2) and |r| <= ln(2) / 2, where
e^r - 1 = r + r² q(r); q is a minimax polynomial (Remez) for the relative error of
e^r - 1: 1.6e-8 of degree 4 in float32, 2.3e-17 of degree 9 in float64. Working from
e^r - 1, not e^r, tanh keeps its last bits near 0 without a second formula:
tanh(x) = t / (t + 2) with t = e^2x - 1.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from fastrnn_kernels import scalar
from fastrnn_kernels.cpu.simd import fma

_INLINED = {"forceinline": True, "error_model": "numpy"}
_inlined = njit(**_INLINED)


class _Format(NamedTuple):
    number: Any
    log2_e: float
    ln2_high: float  # few enough bits that n * ln2_high is exact
    ln2_low: float
    round_to_integer: float  # 1.5 * 2^mantissa bits: adding it rounds to an integer
    exp_low: float  # e^x rounds to 0 below
    exp_high: float  # and to inf above
    tanh_high: float  # tanh rounds to 1 above
    q: tuple[float, ...]


_FORMATS = {
    types.float32: _Format(
        np.float32, 1.4426950408889634, 0.693359375, -2.12194440054690583e-4, 12582912.0,
        -104.0, 89.0, 9.2,
        (0.5, 0.16666540503501892, 0.04166627675294876, 0.008367007598280907,
         0.0013947152765467763),
    ),
    types.float64: _Format(
        np.float64, 1.4426950408889634, 0.693147180369123816490, 1.90821492927058770002e-10,
        6755399441055744.0, -746.0, 710.0, 19.2,
        (0.5000000000000006, 0.16666666666666685, 0.04166666666657506, 0.008333333333314197,
         0.001388888893270245, 0.0001984126990453827, 2.4801503432893333e-05,
         2.7557226124835326e-06, 2.762690991479762e-07, 2.5115179683654064e-08),
    ),
}  # fmt: skip


@intrinsic
def _powers_of_two(typingctx, rounded, round_to_integer):  # type: ignore[no-untyped-def]
    """2^a and 2^b with a + b = n and both in range, from n + round_to_integer.

    The sum's lowest bits are those of n, so n comes without a conversion.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        bits, mantissa, bias = (
            (32, 23, 127) if signature.args[0] == types.float32 else (64, 52, 1023)
        )
        integer = ir.IntType(bits)
        n = builder.sub(builder.bitcast(args[0], integer), builder.bitcast(args[1], integer))
        half = builder.ashr(n, integer(1))
        powers = [
            builder.bitcast(
                builder.shl(builder.add(part, integer(bias)), integer(mantissa)), args[0].type
            )
            for part in (half, builder.sub(n, half))
        ]
        return context.make_tuple(builder, signature.return_type, powers)

    return types.UniTuple(rounded, 2)(rounded, rounded), codegen


def _reduced(kind: types.Type) -> Any:
    """x -> (e^r - 1, 2^a, 2^b) with x = r + (a + b) ln 2."""
    f = _FORMATS[kind]
    number = f.number
    log2_e, shift = number(f.log2_e), number(f.round_to_integer)
    minus_high, minus_low = number(-f.ln2_high), number(-f.ln2_low)
    if kind == types.float32:
        q0, q1, q2, q3, q4 = map(number, f.q)

        def q(r: Any) -> Any:
            return fma(fma(fma(fma(q4, r, q3), r, q2), r, q1), r, q0)
    else:
        q0, q1, q2, q3, q4, q5, q6, q7, q8, q9 = map(number, f.q)

        def q(r: Any) -> Any:
            high = fma(fma(fma(fma(q9, r, q8), r, q7), r, q6), r, q5)
            return fma(fma(fma(fma(fma(high, r, q4), r, q3), r, q2), r, q1), r, q0)

    q = _inlined(q)

    def reduced(x):  # type: ignore[no-untyped-def]
        rounded = x * log2_e + shift
        n = rounded - shift
        r = fma(n, minus_low, fma(n, minus_high, x))
        a, b = _powers_of_two(rounded, shift)
        return fma(r * r, q(r), r), a, b

    return _inlined(reduced)


@overload(scalar.exp, jit_options=_INLINED)
def _exp(x):  # type: ignore[no-untyped-def]
    if x not in _FORMATS:
        return None
    f, reduced = _FORMATS[x], _reduced(x)
    low, high, one = f.number(f.exp_low), f.number(f.exp_high), f.number(1)

    def exp(x):  # type: ignore[no-untyped-def]
        x = low if x < low else x  # comparisons are false at NaN, which so passes through
        x = high if x > high else x
        e, a, b = reduced(x)
        return (one + e) * a * b

    return exp


@overload(scalar.sigmoid, jit_options=_INLINED)
def _sigmoid(x):  # type: ignore[no-untyped-def]
    if x not in _FORMATS:
        return None
    one, zero = _FORMATS[x].number(1), _FORMATS[x].number(0)

    def sigmoid(x):  # type: ignore[no-untyped-def]
        e = scalar.exp(-abs(x))  # at most 1, so neither tail overflows or is cut off
        return (e if x < zero else one) / (one + e)

    return sigmoid


@overload(scalar.tanh, jit_options=_INLINED)
def _tanh(x):  # type: ignore[no-untyped-def]
    if x not in _FORMATS:
        return None
    f, reduced = _FORMATS[x], _reduced(x)
    high, one, two, zero = f.number(f.tanh_high), f.number(1), f.number(2), f.number(0)

    def tanh(x):  # type: ignore[no-untyped-def]
        size = abs(x)
        size = high if size > high else size
        e, a, b = reduced(two * size)
        power = a * b
        t = fma(power, e, power - one)
        y = t / (t + two)
        return x if x == zero else (-y if x < zero else y)  # keeps the sign of -0

    return tanh


@overload(scalar.relu, jit_options=_INLINED)
def _relu(x):  # type: ignore[no-untyped-def]
    if x not in _FORMATS:
        return None
    zero = _FORMATS[x].number(0)
    return lambda x: zero if x < zero else x


@overload(scalar.one, jit_options=_INLINED)
def _one(x):  # type: ignore[no-untyped-def]
    if x not in _FORMATS:
        return None
    one = _FORMATS[x].number(1)
    return lambda x: one


@overload(scalar.zero, jit_options=_INLINED)
def _zero(x):  # type: ignore[no-untyped-def]
    if x not in _FORMATS:
        return None
    zero = _FORMATS[x].number(0)
    return lambda x: zero
