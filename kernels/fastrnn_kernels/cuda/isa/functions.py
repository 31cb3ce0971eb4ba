"""The functions of equations for CUDA: those of NVIDIA's library, in the type of their argument.

exp and tanh of that library are good to 2 ulp in float32 and 1 in float64; its faster ones
(2^-11 and worse) are not used.
"""

import math
from typing import Any

from numba import config, types

from fastrnn_kernels.cells import functions

_FLOATS = (types.float32, types.float64)


def _register() -> None:
    from numba.cuda.extending import overload

    def form(function: Any) -> Any:
        """Register what `choose` gives for a float type as CUDA's form of a function."""

        def decorate(choose: Any) -> Any:
            # Numba asks with the parameters' own names.
            return overload(function, target="cuda", jit_options={"forceinline": True})(choose)

        return decorate

    @form(functions.exp)
    def _exp(x):  # type: ignore[no-untyped-def]
        return (lambda x: math.exp(x)) if x in _FLOATS else None

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

    @form(functions.where_at_most)
    def _where_at_most(a, b, then, otherwise):  # type: ignore[no-untyped-def]
        return lambda a, b, then, otherwise: then if a <= b else otherwise

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
