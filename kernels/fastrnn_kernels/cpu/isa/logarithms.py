"""log and log1p for the CPU.

x = m 2^k with sqrt(1/2) <= m < sqrt(2), by the bits of x, so log x = k ln 2 + log m. With f = m - 1
and s = f / (2 + f), log(1 + f) = 2 artanh s = 2 s + s R, where R = s² (2/3 + 2/5 s² + ...); as
2 s = f - s f, it is f - s (f - R), whose largest part is exact. R / s² is a minimax polynomial in
s² (Remez) for the relative error of log m: 2^-30 of degree 2 in float32, 2^-59 of degree 6 in
float64.

1 + x rounds; what it loses is exact too, c, and log1p adds c 2^-k to f. So where k = 0, f is x.
"""

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from fastrnn_kernels.cells import functions
from fastrnn_kernels.cpu.isa.bits import exponent, mantissa, two_over_power
from fastrnn_kernels.cpu.isa.exponentials import FORMATS
from fastrnn_kernels.cpu.isa.inlined import INLINED, inlined
from fastrnn_kernels.cpu.isa.polynomials import format_of, polynomial
from fastrnn_kernels.cpu.isa.vector import absolute, dtype_of, fma, where_at_most

#: The polynomials of R / s².
_R = {
    types.float32: (0.66666776, 0.39977497, 0.29873073),
    types.float64: (
        0.6666666666666735, 0.39999999999411096, 0.285714287432624, 0.22222198475997734,
        0.18183569739753733, 0.1531390323954635, 0.14797507831675977,
    ),
}  # fmt: skip


def _sum_of(x: types.Type) -> Any:
    """(f, k) -> log((1 + f) 2^k)."""
    f = FORMATS[dtype_of(x)]
    r = polynomial(f.number, _R[dtype_of(x)])
    high, minus_low, two = f.number(f.ln2_high), f.number(-f.ln2_low), f.number(2)

    def sum_of(fraction, k):  # type: ignore[no-untyped-def]
        s = fraction / (fraction + two)
        z = s * s
        taken = fma(s, fma(-z, r(z), fraction), k * minus_low)
        return fma(k, high, fraction - taken)

    return inlined(sum_of)


def _ends(number: Any) -> Any:
    """(x, its logarithm if it is a positive number) -> its logarithm."""
    largest, zero = np.finfo(number).max, number(0)
    minus_infinity, nan = number(-math.inf), number(math.nan)

    def ends(x, found):  # type: ignore[no-untyped-def]
        found = where_at_most(x, largest, found, x)  # NaN, too, is its own logarithm
        return where_at_most(x, zero, where_at_most(zero, x, minus_infinity, nan), found)

    return inlined(ends)


@overload(functions.log, jit_options=INLINED)
def _log(x):  # type: ignore[no-untyped-def]
    f = format_of(x, FORMATS)
    if f is None:
        return None
    number, sum_of, ends = f.number, _sum_of(x), _ends(f.number)
    smallest, one, zero = np.finfo(number).tiny, number(1), number(0)
    # Denormal numbers are scaled to normal ones.
    scale, less = 1 / np.finfo(number).eps, number(-np.finfo(number).nmant)

    def log(x):  # type: ignore[no-untyped-def]
        normal = where_at_most(smallest, x, x, x * scale)
        k = exponent(normal) + where_at_most(smallest, x, zero, less)
        return ends(x, sum_of(mantissa(normal) - one, k))

    return log


@overload(functions.log1p, jit_options=INLINED)
def _log1p(x):  # type: ignore[no-untyped-def]
    f = format_of(x, FORMATS)
    if f is None:
        return None
    number, sum_of, ends = f.number, _sum_of(x), _ends(f.number)
    one, half, tiny = number(1), number(0.5), number(np.finfo(number).eps / 4)

    def log1p(x):  # type: ignore[no-untyped-def]
        above = x + one
        x_of_it = above - one
        lost = (one - (above - x_of_it)) + (x - x_of_it)
        m = mantissa(above)
        fraction = fma(half * lost, two_over_power(above, m), m - one)
        found = ends(above, sum_of(fraction, exponent(above)))
        return where_at_most(absolute(x), tiny, x, found)  # a zero keeps its sign

    return log1p
