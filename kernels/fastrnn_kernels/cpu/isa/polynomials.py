"""Polynomials of numbers or registers of them, and formats of floats that functions differ in."""

from collections.abc import Sequence
from typing import Any, TypeVar

from numba import types

from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.vector import dtype_of, fma

_Format = TypeVar("_Format")


def format_of(x: types.Type, formats: dict[types.Type, _Format]) -> _Format | None:
    """What a function is made with for the floats of x, a number or a vector; None for others."""
    return formats.get(dtype_of(x))


def _chain(number: Any, coefficients: Sequence[float]) -> Any:
    """A function `z`: the polynomial from its highest coefficient to the first one."""
    first = number(coefficients[0])
    if len(coefficients) == 1:
        return inlined(lambda z: first)
    rest = _chain(number, coefficients[1:])
    return inlined(lambda z: fma(rest(z), z, first))


def polynomial(number: Any, coefficients: Sequence[float]) -> Any:
    """A function `z`: c[0] + c[1] z + c[2] z² + ..., of three coefficients at least.

    Even and odd powers are two chains, which do not wait for each other.
    """
    even, odd = _chain(number, coefficients[::2]), _chain(number, coefficients[1::2])

    def of(z):  # type: ignore[no-untyped-def]
        zz = z * z
        return fma(odd(zz), z, even(zz))

    return inlined(of)
