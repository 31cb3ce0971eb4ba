"""Activations by name, for cells that are given theirs (`variants.py`).

They are those that ONNX names for its recurrent operators. Parameters are part of the compiled
code; they are float32, as ONNX stores them, so that they widen no float32 beside them.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from fastrnn_kernels.cache.disk import named
from fastrnn_kernels.cells.functions import exp, one, relu, sigmoid, tanh, where_at_most, zero

Function = Callable[..., Any]


class Activation(NamedTuple):
    """An activation and its parameters, None where it takes none."""

    name: str
    alpha: float | None = None
    beta: float | None = None

    def __str__(self) -> str:
        parameters = [f"{value:.9g}" for value in self[1:] if value is not None]
        return "_".join([self.name, *parameters])


SIGMOID, TANH, RELU = map(Activation, ("sigmoid", "tanh", "relu"))


def jitted(function: Function, name: str) -> Any:
    """A function made in a closure, compiled into what calls it."""
    return njit(forceinline=True, error_model="numpy")(named(function, name))


def _affine(alpha: Any, beta: Any) -> Function:
    return lambda x: x * alpha + beta


def _leaky_relu(alpha: Any, beta: Any) -> Function:
    return lambda x: where_at_most(x, zero(x), x * alpha, x)


def _thresholded_relu(alpha: Any, beta: Any) -> Function:
    def function(x: Any) -> Any:
        threshold = zero(x) + alpha
        below = where_at_most(x, threshold, zero(x), x)  # NaN passes
        return where_at_most(threshold, x, x, below)

    return function


def _scaled_tanh(alpha: Any, beta: Any) -> Function:
    return lambda x: tanh(x * beta) * alpha


def _hard_sigmoid(alpha: Any, beta: Any) -> Function:
    def function(x: Any) -> Any:
        line = x * alpha + beta
        line = where_at_most(line, zero(x), zero(x), line)
        return where_at_most(one(x), line, one(x), line)

    return function


def _elu(alpha: Any, beta: Any) -> Function:
    two = np.float32(2)

    def function(x: Any) -> Any:
        # e^x - 1 = 2 t / (1 - t), without a difference of like numbers
        half = tanh(where_at_most(x, zero(x), x, zero(x)) / two)
        below = half * two / (one(x) - half) * alpha
        return where_at_most(x, zero(x), below, x)

    return function


def _softsign(alpha: Any, beta: Any) -> Function:
    return lambda x: x / (one(x) + where_at_most(x, zero(x), -x, x))


def _softplus(alpha: Any, beta: Any) -> Function:
    """log(1 + e^x) = max(x, 0) + log(1 + e), e = e^-|x|, log(1 + e) = 2 artanh(e / (2 + e)).

    The argument of artanh is a third at most: its series ends, for float64, with the power 33.
    """
    two = np.float32(2)

    def function(x: Any) -> Any:
        e = exp(where_at_most(x, zero(x), x, -x))
        s = e / (e + two)
        square, total = s * s, zero(x)
        for k in range(33, 0, -2):
            total = total * square + one(x) / np.float32(k)
        return where_at_most(x, zero(x), zero(x), x) + s * total * two

    return function


#: Those without parameters, which linear layers have too.
PLAIN: dict[str, Function] = {"tanh": tanh, "sigmoid": sigmoid, "relu": relu}
_MADE: dict[str, Callable[[Any, Any], Function]] = {
    "affine": _affine,
    "leakyrelu": _leaky_relu,
    "thresholdedrelu": _thresholded_relu,
    "scaledtanh": _scaled_tanh,
    "hardsigmoid": _hard_sigmoid,
    "elu": _elu,
    "softsign": _softsign,
    "softplus": _softplus,
}
#: All there are, in lower case.
NAMES = (*PLAIN, *_MADE)


@cache
def function_of(activation: Activation) -> Any:
    """The function of one unit that equations call."""
    if activation.name in PLAIN:
        return PLAIN[activation.name]
    parameters = [None if value is None else np.float32(value) for value in activation[1:]]
    return jitted(_MADE[activation.name](*parameters), str(activation))


@cache
def clipped(bound: float | None) -> Any:
    """The function that keeps a pre-activation between -bound and bound; NaN passes."""
    if bound is None:
        return jitted(lambda a: a, "unclipped")
    limit = np.float32(bound)

    def clip(a: Any) -> Any:
        high = zero(a) + limit
        a = where_at_most(high, a, high, a)
        return where_at_most(a, -high, -high, a)

    return jitted(clip, f"clip_{bound:.9g}")
