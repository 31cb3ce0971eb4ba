"""sin and cos of float32 for CUDA, without NVIDIA's own, which for large numbers use float64.

x = r + n π with |r| <= π / 2, so sin x = (-1)^n sin r; of x = r + (n - 1/2) π, cos x is that. π is
taken in three parts, and sin r is the library's sine of multiples of π, of r / π. That is within
4 units in the last place for |x| up to 1e5; beyond, the error of r grows with x, to any number
within [-1, 1] in the end.
"""

from typing import Any

import numpy as np

#: -π as a sum, the largest part first.
_MINUS_PI = (-3.141592502593994, -1.5099578831723193e-07, -1.078060505991553e-14)


def sin_and_cos(operations: Any, jitted: Any) -> tuple[Any, Any]:
    """Two functions of one number, of a library's fmaf, rintf and sinpif."""
    fma, rint, sinpi = operations.fmaf, operations.rintf, operations.sinpif
    part_0, part_1, part_2 = map(np.float32, _MINUS_PI)
    per_pi, zero, half = np.float32(1 / np.pi), np.float32(0), np.float32(0.5)

    @jitted
    def sin_without(x, n, multiple):  # type: ignore[no-untyped-def]
        """(-1)^n sin(x - multiple π)."""
        r = fma(multiple, part_2, fma(multiple, part_1, fma(multiple, part_0, x)))
        r = x if multiple == zero else r  # a zero keeps its sign
        found, half_n = sinpi(r * per_pi), n * half
        return found if rint(half_n) == half_n else -found

    @jitted
    def sin(x):  # type: ignore[no-untyped-def]
        n = rint(x * per_pi)
        return sin_without(x, n, n)

    @jitted
    def cos(x):  # type: ignore[no-untyped-def]
        n = rint(fma(x, per_pi, half))
        return sin_without(x, n, n - half)

    return sin, cos
