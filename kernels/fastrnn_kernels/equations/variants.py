"""RNN, LSTM and GRU with activations of choice, a bound on sums, peepholes and coupled gates.

Of all of them there are the equations, too, for what is derived from these (`regularised.py`).

k(a) keeps a sum within the bound, if there is one; f, g and h are activations.

    RNN     h' = f(k(W x + R h + b))

    LSTM    i = f(k(W_i x + R_i h + p_i c + b_i))
            F = f(k(W_f x + R_f h + p_f c + b_f)), or 1 - i where the gates are coupled
            c' = F c + i g(k(W_g x + R_g h + b_g))
            o = f(k(W_o x + R_o h + p_o c' + b_o))
            h' = o h(c')

    GRU     as in `cells/gru.py`, with f for σ and g for tanh

The usual ones are those written by hand; another is compiled when it is first used, once for a
machine.

F. A. Gers, N. N. Schraudolph, J. Schmidhuber, "Learning Precise Timing with LSTM Recurrent
Networks", Journal of Machine Learning Research 3 (2002), Sec. 2.2, has the peepholes; K. Greff et
al., "LSTM: A Search Space Odyssey", arXiv:1503.04069, Sec. 3, the coupled gates.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.gru import GRU, GRU_RESET_BEFORE
from fastrnn_kernels.cells.lstm import LSTM
from fastrnn_kernels.cells.rnn import RNN_RELU, RNN_TANH
from fastrnn_kernels.equations.activations import RELU, SIGMOID, TANH, Activation
from fastrnn_kernels.equations.define import Derived, define
from fastrnn_kernels.equations.functions import clip

Function = Callable[[Any], Any]


def _within(bound: float | None) -> Function:
    return (lambda a: a) if bound is None else (lambda a: clip(a, -bound, bound))


def _named(function: Any, kind: str, bound: float | None, *parts: object) -> Any:
    end = [] if bound is None else [f"clip_{bound:.9g}"]
    function.__name__ = "-".join([kind, *map(str, parts), *end])
    return function


@cache
def rnn(activation: Activation, bound: float | None, /) -> Cell:
    """The simple recurrent network."""
    if bound is None and activation in (TANH, RELU):
        return RNN_TANH if activation == TANH else RNN_RELU
    return rnn_equations(activation, bound).cell


@cache
def rnn_equations(activation: Activation, bound: float | None, /) -> Derived:
    """The same by its equations, also where it is written by hand."""
    k = _within(bound)

    def equations(a: Any, s: Any) -> Any:
        return activation(k(a.h))

    return define(_named(equations, "rnn", bound, activation), ("h",), ("h",))


@cache
def lstm(
    gate: Activation,
    cell_input: Activation,
    output: Activation,
    bound: float | None,
    peepholes: bool,
    coupled: bool,
    /,
) -> Cell:
    """The LSTM; with peepholes, its parameters of each unit are p_i, p_f and p_o.

    Where its gates are coupled it has no gate f, and no p_f.
    """
    usual = (gate, cell_input, output) == (SIGMOID, TANH, TANH) and bound is None
    if usual and not peepholes and not coupled:
        return LSTM
    return lstm_equations(gate, cell_input, output, bound, peepholes, coupled).cell


@cache
def lstm_equations(
    gate: Activation,
    cell_input: Activation,
    output: Activation,
    bound: float | None,
    peepholes: bool,
    coupled: bool,
    /,
) -> Derived:
    """The same by its equations, also where it is written by hand."""
    k = _within(bound)

    def with_peepholes(a: Any, s: Any, p: Any) -> Any:
        i = gate(k(a.i + p.p_i * s.c))
        f = 1 - i if coupled else gate(k(a.f + p.p_f * s.c))
        g = cell_input(k(a.g))
        c = f * s.c + i * g
        o = gate(k(a.o + p.p_o * c))
        return o * output(c), c

    def without(a: Any, s: Any) -> Any:
        i = gate(k(a.i))
        f = 1 - i if coupled else gate(k(a.f))
        g = cell_input(k(a.g))
        c = f * s.c + i * g
        o = gate(k(a.o))
        return o * output(c), c

    own = [word for word, on in (("peepholes", peepholes), ("coupled", coupled)) if on]
    gates = ("i", "g", "o") if coupled else ("i", "f", "g", "o")
    return define(
        _named(
            with_peepholes if peepholes else without,
            "lstm", bound, gate, cell_input, output, *own,
        ),
        gates,
        ("h", "c"),
        tuple(f"p_{one}" for one in gates if one != "g") if peepholes else (),
    )  # fmt: skip


@cache
def gru(gate: Activation, candidate: Activation, bound: float | None, reset_after: bool, /) -> Cell:
    """The GRU, its reset gate after or before the product."""
    if (gate, candidate, bound) == (SIGMOID, TANH, None):
        return GRU if reset_after else GRU_RESET_BEFORE
    return gru_equations(gate, candidate, bound, reset_after).cell


@cache
def gru_equations(
    gate: Activation, candidate: Activation, bound: float | None, reset_after: bool, /
) -> Derived:
    """The same by its equations, also where it is written by hand."""
    k = _within(bound)

    def equations(a: Any, s: Any) -> Any:
        r = gate(k(a.r))
        z = gate(k(a.z))
        n = candidate(k(a.n.x + r * a.n.h if reset_after else a.n(r * s.h)))
        return (1 - z) * n + z * s.h

    kind = "gru" if reset_after else "gru_reset_before"
    named = _named(equations, kind, bound, gate, candidate)
    return define(named, ("r", "z", "n"), ("h",))
