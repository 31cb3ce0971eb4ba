"""The functions that equations of cells are written in, float32 and float64.

What stands here is their meaning, for plain Python; each device brings its own compiled
form (`cpu/isa/functions.py`), vectorisable and rounded the same in every lane. All of them give
NaN at NaN.
"""

import math
from typing import Any


def exp(x: Any) -> Any:
    """e^x; 0 at -inf, inf at inf and past the range, NaN at NaN."""
    try:
        return type(x)(math.exp(x))
    except OverflowError:
        return type(x)(math.inf)


def expm1(x: Any) -> Any:
    """e^x - 1, good near 0, too; -1 at -inf, inf at inf and past the range."""
    try:
        return type(x)(math.expm1(x))
    except OverflowError:
        return type(x)(math.inf)


def log(x: Any) -> Any:
    """The natural logarithm; -inf at 0, NaN below."""
    if x <= 0:
        return type(x)(math.nan if x < 0 else -math.inf)
    return type(x)(math.log(x))


def log1p(x: Any) -> Any:
    """log(1 + x), good near 0, too; -inf at -1, NaN below."""
    if x <= -1:
        return type(x)(math.nan if x < -1 else -math.inf)
    return type(x)(math.log1p(x))


def sqrt(x: Any) -> Any:
    """The square root, the nearest number to it; -0 at -0, NaN below."""
    return type(x)(math.nan if x < 0 else math.sqrt(x))


def sin(x: Any) -> Any:
    """The sine of x radians; odd, NaN at infinities."""
    return type(x)(math.nan if math.isinf(x) else math.sin(x))


def cos(x: Any) -> Any:
    """The cosine of x radians; NaN at infinities."""
    return type(x)(math.nan if math.isinf(x) else math.cos(x))


def sigmoid(x: Any) -> Any:
    """σ(x) = 1 / (1 + e^-x)."""
    return type(x)(1) / (type(x)(1) + exp(-x))


def tanh(x: Any) -> Any:
    """Hyperbolic tangent; odd."""
    return type(x)(math.tanh(x))


def erf(x: Any) -> Any:
    """The error function, 2 / sqrt(π) times the integral of e^-t² from 0 to x; odd."""
    return type(x)(math.erf(x))


def absolute(x: Any) -> Any:
    """|x|."""
    return abs(x)


def softplus(x: Any) -> Any:
    """log(1 + e^x), as max(x, 0) + log(1 + e^-|x|)."""
    return relu(x) + log1p(exp(-absolute(x)))


def relu(x: Any) -> Any:
    """max(x, 0), NaN at NaN."""
    return type(x)(0) if x < 0 else x


def where_at_most(a: Any, b: Any, then: Any, otherwise: Any) -> Any:
    """`then` where a <= b, else `otherwise`, as where a or b is NaN.

    Equations choose with this, not with `if`: a device computes many units at a time.
    """
    return then if a <= b else otherwise


def number(x: Any, value: float) -> Any:
    """A number of Python's in the type of x: a bare 0.2 would widen float32 to float64."""
    return type(x)(value)


def one(x: Any) -> Any:
    """1 in the type of x."""
    return type(x)(1)


def zero(x: Any) -> Any:
    """0 in the type of x."""
    return type(x)(0)
