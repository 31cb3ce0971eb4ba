"""The functions that users write equations with, on symbols; each with its derivative.

Those of `PRIMITIVES` are single operations of kernels (`cells/functions.py`); the others are made
of them.
"""

import math
from typing import Any

from fastrnn_kernels.cells import functions as kernels
from fastrnn_kernels.equations.errors import error
from fastrnn_kernels.equations.symbols import DERIVATIVES, Condition, Graph, Symbol


def _of(name: str) -> Any:
    def function(x: Any) -> Any:
        if isinstance(x, Symbol):
            return x.graph.call(name, x)
        return _number(name, x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = getattr(getattr(kernels, name, None), "__doc__", None)
    return function


def _number(name: str, x: Any) -> float:
    if isinstance(x, bool) or not isinstance(x, int | float):
        raise error(f"{name} of a {type(x).__name__}: wanted a gate's sum, a state or a number")
    return float(getattr(kernels, name)(float(x)))


exp, expm1, log, log1p = map(_of, ("exp", "expm1", "log", "log1p"))
sqrt, sin, cos, erf = map(_of, ("sqrt", "sin", "cos", "erf"))
sigmoid, tanh, relu, softplus = map(_of, ("sigmoid", "tanh", "relu", "softplus"))
_absolute = _of("absolute")


def where(condition: Any, then: Any, otherwise: Any) -> Any:
    """`then` where a condition holds, `a <= b` or another comparison, else `otherwise`.

    A comparison with NaN does not hold. No gradient flows through the condition.
    """
    if isinstance(condition, bool):
        return then if condition else otherwise
    if not isinstance(condition, Condition):
        raise error(f"where's condition is a {type(condition).__name__}, wanted a comparison")
    graph: Graph = condition.a.graph
    return condition.choose(graph.symbol(then), graph.symbol(otherwise))


#: Function by function, its derivative in its argument and value.
PRIMITIVES: dict[str, Any] = {
    "exp": lambda x, y: y,
    "expm1": lambda x, y: y + 1,
    "log": lambda x, y: 1 / x,
    "log1p": lambda x, y: 1 / (x + 1),
    "sqrt": lambda x, y: 0.5 / y,
    "sin": lambda x, y: cos(x),
    "cos": lambda x, y: -sin(x),
    "erf": lambda x, y: exp(-(x * x)) * (2 / math.sqrt(math.pi)),
    "sigmoid": lambda x, y: y * (1 - y),
    "tanh": lambda x, y: 1 - y * y,
    "softplus": lambda x, y: sigmoid(x),
    "relu": lambda x, y: where(y <= 0, 0, 1),
    # as torch has it, 0 at 0
    "absolute": lambda x, y: where(x <= 0, where(x >= 0, 0, -1), 1),
}
DERIVATIVES.update(PRIMITIVES)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two values; NaN where one is NaN."""
    pair = _symbols(a, b)
    if pair is None:
        return min(a, b)
    a, b = pair
    if b.op == "number":
        a, b = b, a
    either = b if a.op == "number" else where(b <= a, b, a + b)  # a sum with NaN is NaN
    return where(a <= b, a, either)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two values; NaN where one is NaN."""
    pair = _symbols(a, b)
    if pair is None:
        return max(a, b)
    a, b = pair
    if b.op == "number":
        a, b = b, a
    either = b if a.op == "number" else where(a <= b, b, a + b)
    return where(b <= a, a, either)


def clip(x: Any, low: Any, high: Any) -> Any:
    """X kept between two bounds; NaN passes."""
    return minimum(maximum(x, low), high)


def absolute(x: Any) -> Any:
    """|x|, also written abs(x); its derivative at 0 is 0."""
    return _absolute(x)


def hard_sigmoid(x: Any, slope: float = 1 / 6, offset: float = 0.5) -> Any:
    """Min(max(slope x + offset, 0), 1): Keras's; ONNX's has slope 0.2."""
    return clip(x * slope + offset, 0, 1)


def hard_tanh(x: Any) -> Any:
    """X kept between -1 and 1."""
    return clip(x, -1, 1)


def leaky_relu(x: Any, slope: float = 0.01) -> Any:
    """X, or slope x below 0."""
    return where(_symbol(x) <= 0, x * slope, x)


def elu(x: Any, alpha: float = 1.0) -> Any:
    """X, or alpha (e^x - 1) below 0."""
    return where(_symbol(x) <= 0, expm1(minimum(x, 0)) * alpha, x)


def selu(x: Any) -> Any:
    """Scale times elu, G. Klambauer et al., arXiv:1706.02515, eq. 2."""
    return elu(x, 1.6732632423543772) * 1.0507009873554805


def softsign(x: Any) -> Any:
    """X / (1 + |x|)."""
    return x / (1 + absolute(x))


def silu(x: Any) -> Any:
    """X σ(x), also called swish."""
    return x * sigmoid(x)


def mish(x: Any) -> Any:
    """X tanh(softplus(x)), D. Misra, arXiv:1908.08681."""
    return x * tanh(softplus(x))


def gelu(x: Any) -> Any:
    """X Φ(x), D. Hendrycks, K. Gimpel, arXiv:1606.08415, Sec. 2."""
    return x * (erf(x * math.sqrt(0.5)) * 0.5 + 0.5)


def logsigmoid(x: Any) -> Any:
    """Log σ(x) = -softplus(-x)."""
    return -softplus(-x)


def _symbol(x: Any) -> Symbol:
    if not isinstance(x, Symbol):
        raise error(f"a {type(x).__name__} where a gate's sum, a state or what they give is wanted")
    return x


def _symbols(*values: Any) -> list[Symbol] | None:
    graph = next((value.graph for value in values if isinstance(value, Symbol)), None)
    return None if graph is None else [graph.symbol(value) for value in values]


#: All of them, by name.
NAMES = (
    "absolute", "clip", "cos", "elu", "erf", "exp", "expm1", "gelu", "hard_sigmoid", "hard_tanh",
    "leaky_relu", "log", "log1p", "logsigmoid", "maximum", "minimum", "mish", "relu", "selu",
    "sigmoid", "silu", "sin", "softplus", "softsign", "sqrt", "tanh", "where",
)  # fmt: skip
