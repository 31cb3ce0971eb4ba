"""What equations of cells are written with: functions of gates' sums, states and parameters.

    import fastrnn
    from fastrnn.equations import sigmoid, tanh

    @fastrnn.cell(gates="z n")
    def MinimalGated(a, s):
        z = sigmoid(a.z)
        n = tanh(a.n)
        return (1 - z) * s.h + z * n

Beside these there are + - * / ** and abs; `where(a <= b, then, otherwise)` chooses. Numbers of
Python are constants.
"""

from fastrnn_kernels.equations.errors import EquationError
from fastrnn_kernels.equations.functions import (
    absolute,
    clip,
    cos,
    elu,
    erf,
    exp,
    expm1,
    gelu,
    hard_sigmoid,
    hard_tanh,
    leaky_relu,
    log,
    log1p,
    logsigmoid,
    maximum,
    minimum,
    mish,
    relu,
    selu,
    sigmoid,
    silu,
    sin,
    softplus,
    softsign,
    sqrt,
    tanh,
    where,
)

__all__ = [
    "EquationError",
    "absolute",
    "clip",
    "cos",
    "elu",
    "erf",
    "exp",
    "expm1",
    "gelu",
    "hard_sigmoid",
    "hard_tanh",
    "leaky_relu",
    "log",
    "log1p",
    "logsigmoid",
    "maximum",
    "minimum",
    "mish",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "sin",
    "softplus",
    "softsign",
    "sqrt",
    "tanh",
    "where",
]
