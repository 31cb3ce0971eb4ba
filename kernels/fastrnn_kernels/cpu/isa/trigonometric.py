"""sin and cos for the CPU.

x = r + n π with |r| <= π / 2, so sin x = (-1)^n sin r; of x = r + (n - 1/2) π, cos x is that.
Multiples of π are taken from x in parts, the largest first (Cody and Waite), so many that r is
good to its last place even where x lies next to one of them. Where multiply and add round once, a
part may be as long as a float; where they do not, it has so few bits that its product is exact.
sin r = r + r³ S(r²), where S is a minimax polynomial (Remez) for the relative error of sin r:
2^-27 of degree 3 in float32, 2^-61 of degree 7 in float64.

What is said of units in the last place holds for |x| up to 1e5 in float32 and 1e6 in float64.
Beyond, the error of r grows with x, to any number within [-1, 1] in the end.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from fastrnn_kernels.cells import functions
from fastrnn_kernels.cpu.isa.bits import negated_where_negative, negated_where_odd
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.isa.inlined import INLINED, inlined
from fastrnn_kernels.cpu.isa.polynomials import format_of, polynomial
from fastrnn_kernels.cpu.isa.vector import absolute, fma, where_at_most

#: floor(2^190 π).
_PI = 0xC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74
_PI_BITS_BEHIND = 190


class _Format(NamedTuple):
    number: Any
    fused_parts: tuple[int, ...]  # bits of the parts of π
    parts: tuple[int, ...]  # of as many bits as leave a float 16 for n, 20 in float64
    round_to_integer: float  # 1.5 * 2^mantissa: adding it rounds to an integer
    largest: float  # |r|, and what rounding n for the largest x adds
    s: tuple[float, ...]


_FORMATS = {
    types.float32: _Format(
        np.float32, (24, 24, 24), (8, 8, 8, 8, 8, 24), 12582912.0, 1.58,
        (-0.16666664, 0.008333156, -0.00019814874, 2.6155037e-06),
    ),
    types.float64: _Format(
        np.float64, (53, 53, 53), (33, 33, 33, 53), 6755399441055744.0, 1.5712,
        (-0.16666666666666666, 0.008333333333333194, -0.0001984126984120903,
         2.75573192111039e-06, -2.5052106869666735e-08, 1.6058939544452475e-10,
         -7.64298719259965e-13, 2.7211287595989825e-15),
    ),
}  # fmt: skip


def _parts_of_pi(bits: tuple[int, ...]) -> list[float]:
    """π as a sum of floats of so many bits, each rounded down."""
    left, parts = _PI, []
    for count in bits:
        behind = left.bit_length() - count
        parts.append(math.ldexp(left >> behind, behind - _PI_BITS_BEHIND))
        left &= (1 << behind) - 1
    return parts


def _minus(number: Any, parts: list[float]) -> Any:
    """(x, n) -> x - n times the sum of parts."""
    minus_part = number(-parts[0])
    if len(parts) == 1:
        return inlined(lambda x, n: fma(n, minus_part, x))
    minus_rest = _minus(number, parts[1:])
    return inlined(lambda x, n: minus_rest(fma(n, minus_part, x), n))


def _sin_of(f: _Format) -> Any:
    """(x, n, shifted) -> the sine of x - n π, with its sign changed where shifted is odd."""
    number, s = f.number, polynomial(f.number, f.s)
    minus_pi = _minus(number, _parts_of_pi(f.fused_parts if current().fused else f.parts))
    largest, one = number(f.largest), number(1)

    def within(r, limit):  # type: ignore[no-untyped-def]
        r = where_at_most(limit, r, limit, r)  # NaN passes
        return where_at_most(r, -limit, -limit, r)

    limited = inlined(within)

    def sin_of(x, n, shifted):  # type: ignore[no-untyped-def]
        r = negated_where_odd(limited(minus_pi(x, n), largest), shifted)
        z = r * r
        return limited(fma(r * z, s(z), r), one)

    return inlined(sin_of)


@overload(functions.sin, jit_options=INLINED)
def _sin(x):  # type: ignore[no-untyped-def]
    f = format_of(x, _FORMATS)
    if f is None:
        return None
    number, sin_of = f.number, _sin_of(f)
    shift, per_pi = number(f.round_to_integer), number(1 / math.pi)

    def sin(x):  # type: ignore[no-untyped-def]
        size = absolute(x)  # rounding n where x is large knows no symmetry
        shifted = fma(size, per_pi, shift)
        return negated_where_negative(sin_of(size, shifted - shift, shifted), x)

    return sin


@overload(functions.cos, jit_options=INLINED)
def _cos(x):  # type: ignore[no-untyped-def]
    f = format_of(x, _FORMATS)
    if f is None:
        return None
    number, sin_of = f.number, _sin_of(f)
    shift, per_pi, half = number(f.round_to_integer), number(1 / math.pi), number(0.5)

    def cos(x):  # type: ignore[no-untyped-def]
        shifted = fma(x, per_pi, half) + shift
        return sin_of(x, (shifted - shift) - half, shifted)

    return cos
