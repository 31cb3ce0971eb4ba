"""The functions of equations for CUDA: those of NVIDIA's library, in the type of their argument.

They are good to 2 ulp in float32 and in float64; its faster ones (2^-11 and worse) are not used.
sin and cos of float32 stand in `trigonometric.py`.
"""

import math
from typing import Any

from numba import config, types

from fastrnn_kernels.cells import functions
from fastrnn_kernels.cuda.isa.trigonometric import sin_and_cos

_FLOATS = (types.float32, types.float64)


def _register() -> None:
    from numba import cuda
    from numba.cuda import libdevice
    from numba.cuda.extending import overload

    float32_sin, float32_cos = sin_and_cos(libdevice, cuda.jit(device=True, inline="always"))

    def form(function: Any) -> Any:
        """Register what `choose` gives for a float type as CUDA's form of a function."""

        def decorate(choose: Any) -> Any:
            # Numba asks with the parameters' own names.
            return overload(function, target="cuda", jit_options={"forceinline": True})(choose)

        return decorate

    @form(functions.exp)
    def _exp(x):  # type: ignore[no-untyped-def]
        return (lambda x: math.exp(x)) if x in _FLOATS else None

    @form(functions.expm1)
    def _expm1(x):  # type: ignore[no-untyped-def]
        return (lambda x: math.expm1(x)) if x in _FLOATS else None

    @form(functions.log)
    def _log(x):  # type: ignore[no-untyped-def]
        return (lambda x: math.log(x)) if x in _FLOATS else None

    @form(functions.log1p)
    def _log1p(x):  # type: ignore[no-untyped-def]
        return (lambda x: math.log1p(x)) if x in _FLOATS else None

    @form(functions.sqrt)
    def _sqrt(x):  # type: ignore[no-untyped-def]
        return (lambda x: math.sqrt(x)) if x in _FLOATS else None

    @form(functions.sin)
    def _sin(x):  # type: ignore[no-untyped-def]
        if x == types.float32:
            return lambda x: float32_sin(x)
        return (lambda x: math.sin(x)) if x in _FLOATS else None

    @form(functions.cos)
    def _cos(x):  # type: ignore[no-untyped-def]
        if x == types.float32:
            return lambda x: float32_cos(x)
        return (lambda x: math.cos(x)) if x in _FLOATS else None

    @form(functions.erf)
    def _erf(x):  # type: ignore[no-untyped-def]
        return (lambda x: math.erf(x)) if x in _FLOATS else None

    @form(functions.absolute)
    def _absolute(x):  # type: ignore[no-untyped-def]
        return (lambda x: math.fabs(x)) if x in _FLOATS else None

    @form(functions.sigmoid)
    def _sigmoid(x):  # type: ignore[no-untyped-def]
        if x not in _FLOATS:
            return None
        # e^-x overflows to infinity, and 1 / infinity is the 0 that is meant.
        return lambda x: functions.one(x) / (functions.one(x) + math.exp(-x))

    @form(functions.tanh)
    def _tanh(x):  # type: ignore[no-untyped-def]
        return (lambda x: math.tanh(x)) if x in _FLOATS else None

    @form(functions.relu)
    def _relu(x):  # type: ignore[no-untyped-def]
        if x not in _FLOATS:
            return None
        return lambda x: functions.zero(x) if x < functions.zero(x) else x

    @form(functions.softplus)
    def _softplus(x):  # type: ignore[no-untyped-def]
        if x not in _FLOATS:
            return None
        return lambda x: functions.relu(x) + functions.log1p(functions.exp(-functions.absolute(x)))

    @form(functions.where_at_most)
    def _where_at_most(a, b, then, otherwise):  # type: ignore[no-untyped-def]
        return lambda a, b, then, otherwise: then if a <= b else otherwise

    @form(functions.number)
    def _number(x, value):  # type: ignore[no-untyped-def]
        kind = x
        return (lambda x, value: kind(value)) if x in _FLOATS else None

    @form(functions.one)
    def _one(x):  # type: ignore[no-untyped-def]
        return _constant(x, 1)

    @form(functions.zero)
    def _zero(x):  # type: ignore[no-untyped-def]
        return _constant(x, 0)


def _constant(kind: Any, value: int) -> Any:
    """A function `x` that gives a number in the type of x."""
    if kind not in _FLOATS:
        return None
    number = kind(value)
    return lambda x: number


if not config.ENABLE_CUDASIM:  # there, kernels are Python, and so are their functions
    _register()
