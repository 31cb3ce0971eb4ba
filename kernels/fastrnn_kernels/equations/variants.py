"""RNN, LSTM and GRU with activations of choice, a bound on sums, peepholes and coupled gates.

k(a) keeps a sum within the bound, if there is one; f, g and h are activations.

    RNN     h' = f(k(W x + R h + b))

    LSTM    i = f(k(W_i x + R_i h + p_i c + b_i))
            F = f(k(W_f x + R_f h + p_f c + b_f)), or 1 - i where the gates are coupled
            c' = F c + i g(k(W_g x + R_g h + b_g))
            o = f(k(W_o x + R_o h + p_o c' + b_o))
            h' = o h(c')

    GRU     as in `cells/gru.py`, with f for σ and g for tanh

Such a cell is compiled when it is first used, once for a machine.

F. A. Gers, N. N. Schraudolph, J. Schmidhuber, "Learning Precise Timing with LSTM Recurrent
Networks", Journal of Machine Learning Research 3 (2002), Sec. 2.2, has the peepholes; K. Greff et
al., "LSTM: A Search Space Odyssey", arXiv:1503.04069, Sec. 3, the coupled gates.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from fastrnn_kernels.cells.activations import Activation
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.equations import functions
from fastrnn_kernels.equations.define import define

Function = Callable[[Any], Any]

#: Functions of an argument and the parameters of an activation, by its name.
_FUNCTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "sigmoid": lambda x, alpha, beta: functions.sigmoid(x),
    "tanh": lambda x, alpha, beta: functions.tanh(x),
    "relu": lambda x, alpha, beta: functions.relu(x),
    "affine": lambda x, alpha, beta: x * alpha + beta,
    "leakyrelu": lambda x, alpha, beta: functions.leaky_relu(x, alpha),
    "thresholdedrelu": lambda x, alpha, beta: functions.where(
        x <= alpha,
        functions.where(x >= x, 0, x),
        x,  # NaN passes
    ),
    "scaledtanh": lambda x, alpha, beta: functions.tanh(x * beta) * alpha,
    "hardsigmoid": functions.hard_sigmoid,
    "elu": lambda x, alpha, beta: functions.elu(x, alpha),
    "softsign": lambda x, alpha, beta: functions.softsign(x),
    "softplus": lambda x, alpha, beta: functions.softplus(x),
}


def _function(activation: Activation) -> Function:
    function = _FUNCTIONS[activation.name]
    return lambda x: function(x, activation.alpha, activation.beta)


def _clipped(bound: float | None) -> Function:
    return (lambda a: a) if bound is None else (lambda a: functions.clip(a, -bound, bound))


def _named(function: Any, kind: str, clip: float | None, *parts: object) -> Any:
    bound = [] if clip is None else [f"clip_{clip:.9g}"]
    function.__name__ = "-".join([kind, *map(str, parts), *bound])
    return function


@cache
def rnn(f: Activation, clip: float | None = None) -> Cell:
    """The simple recurrent network."""
    act, k = _function(f), _clipped(clip)

    def equations(a: Any, s: Any) -> Any:
        return act(k(a.h))

    return define(_named(equations, "rnn", clip, f), ("h",), ("h",)).cell


@cache
def lstm(
    f: Activation,
    g: Activation,
    h: Activation,
    clip: float | None = None,
    peepholes: bool = False,
    coupled: bool = False,
) -> Cell:
    """The LSTM; with peepholes, its parameters of each unit are p_i, p_o and p_f."""
    gate, cell_input, output, k = _function(f), _function(g), _function(h), _clipped(clip)

    def with_peepholes(a: Any, s: Any, p: Any) -> Any:
        def seen(name: str, c: Any) -> Any:
            return getattr(a, name) if p is None else getattr(a, name) + getattr(p, f"p_{name}") * c

        i = gate(k(seen("i", s.c)))
        F = 1 - i if coupled else gate(k(seen("f", s.c)))
        c = F * s.c + i * cell_input(k(a.g))
        o = gate(k(seen("o", c)))
        return o * output(c), c

    def without(a: Any, s: Any) -> Any:
        return with_peepholes(a, s, None)

    own = [word for word, on in (("peepholes", peepholes), ("coupled", coupled)) if on]
    return define(
        _named(with_peepholes if peepholes else without, "lstm", clip, f, g, h, *own),
        ("i", "f", "g", "o"),
        ("h", "c"),
        ("p_i", "p_o", "p_f") if peepholes else (),
    ).cell


@cache
def gru(f: Activation, g: Activation, clip: float | None = None, reset_after: bool = True) -> Cell:
    """The GRU, its reset gate after or before the product."""
    gate, candidate, k = _function(f), _function(g), _clipped(clip)

    def equations(a: Any, s: Any) -> Any:
        r = gate(k(a.r))
        z = gate(k(a.z))
        n = candidate(k(a.n.x + r * a.n.h if reset_after else a.n(r * s.h)))
        return (1 - z) * n + z * s.h

    kind = "gru" if reset_after else "gru_reset_before"
    return define(_named(equations, kind, clip, f, g), ("r", "z", "n"), ("h",)).cell
