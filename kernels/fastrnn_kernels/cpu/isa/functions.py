"""The functions of `cells/functions.py` for the CPU: choices, constants and single instructions.

All of them take a number or a register of them (`vector.py`); branch-free and of basic operations
only, they round alike in every lane, in a vector of any width and alone. Importing this module
registers also those that are computed, and stand in modules of their own.
"""

import numpy as np
from numba import types
from numba.extending import overload

import fastrnn_kernels.cpu.isa.error_function
import fastrnn_kernels.cpu.isa.exponentials
import fastrnn_kernels.cpu.isa.logarithms
import fastrnn_kernels.cpu.isa.trigonometric  # noqa: F401
from fastrnn_kernels.cells import functions
from fastrnn_kernels.cpu.isa.inlined import INLINED
from fastrnn_kernels.cpu.isa.polynomials import format_of
from fastrnn_kernels.cpu.isa.vector import absolute, like, square_root, where_at_most

_NUMBERS = {types.float32: np.float32, types.float64: np.float64}


@overload(functions.sqrt, jit_options=INLINED)
def _sqrt(x):  # type: ignore[no-untyped-def]
    return (lambda x: square_root(x)) if format_of(x, _NUMBERS) else None


@overload(functions.absolute, jit_options=INLINED)
def _absolute(x):  # type: ignore[no-untyped-def]
    return (lambda x: absolute(x)) if format_of(x, _NUMBERS) else None


@overload(functions.relu, jit_options=INLINED)
def _relu(x):  # type: ignore[no-untyped-def]
    number = format_of(x, _NUMBERS)
    if number is None:
        return None
    zero = number(0)
    return lambda x: where_at_most(x, zero, zero, x)


@overload(functions.softplus, jit_options=INLINED)
def _softplus(x):  # type: ignore[no-untyped-def]
    if format_of(x, _NUMBERS) is None:
        return None
    relu, log1p, exp = functions.relu, functions.log1p, functions.exp
    return lambda x: relu(x) + log1p(exp(-absolute(x)))


@overload(functions.where_at_most, jit_options=INLINED)
def _where_at_most(a, b, then, otherwise):  # type: ignore[no-untyped-def]
    return lambda a, b, then, otherwise: where_at_most(a, b, then, otherwise)


@overload(functions.number, jit_options=INLINED)
def _number(x, value):  # type: ignore[no-untyped-def]
    number = format_of(x, _NUMBERS)
    if number is None:
        return None
    return lambda x, value: like(x, number(value))


@overload(functions.one, jit_options=INLINED)
def _one(x):  # type: ignore[no-untyped-def]
    number = format_of(x, _NUMBERS)
    if number is None:
        return None
    one = number(1)
    return lambda x: like(x, one)


@overload(functions.zero, jit_options=INLINED)
def _zero(x):  # type: ignore[no-untyped-def]
    number = format_of(x, _NUMBERS)
    if number is None:
        return None
    zero = number(0)
    return lambda x: like(x, zero)
