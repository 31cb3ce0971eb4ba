"""The functions that equations of cells are written in, float32 and float64.

What stands here is their meaning, for plain Python; each device brings its own compiled
form (`cpu/isa/functions.py`), vectorisable and rounded the same in every lane.
"""

import math
from typing import Any


def exp(x: Any) -> Any:
    """e^x; 0 at -inf, inf at inf and past the range, NaN at NaN."""
    try:
        return type(x)(math.exp(x))
    except OverflowError:
        return type(x)(math.inf)


def sigmoid(x: Any) -> Any:
    """σ(x) = 1 / (1 + e^-x)."""
    return type(x)(1) / (type(x)(1) + exp(-x))


def tanh(x: Any) -> Any:
    """Hyperbolic tangent; odd."""
    return type(x)(math.tanh(x))


def relu(x: Any) -> Any:
    """max(x, 0), NaN at NaN."""
    return type(x)(0) if x < 0 else x


def where_at_most(a: Any, b: Any, then: Any, otherwise: Any) -> Any:
    """`then` where a <= b, else `otherwise`, as where a or b is NaN.

    Equations choose with this, not with `if`: a device computes many units at a time.
    """
    return then if a <= b else otherwise


def one(x: Any) -> Any:
    """1 in the type of x: a bare 1.0 would widen float32 to float64."""
    return type(x)(1)


def zero(x: Any) -> Any:
    """0 in the type of x."""
    return type(x)(0)
