"""RNN, LSTM and GRU with activations of choice, as ONNX has them; for inference.

k(a) keeps a pre-activation within the bound, if there is one.

    RNN     h' = f(k(W x + R h + b))

    LSTM    i = f(k(W_i x + R_i h + p_i c + b_i))
            F = f(k(W_f x + R_f h + p_f c + b_f)), or 1 - i where the gates are coupled
            c' = F c + i g(k(W_g x + R_g h + b_g))
            o = f(k(W_o x + R_o h + p_o c' + b_o))
            h' = o h(c')

    GRU     as in `gru.py`, with f for σ and g for tanh

A cell is compiled, in about as long as its sibling with fixed activations, when it is first used,
once for a machine.

F. A. Gers, N. N. Schraudolph, J. Schmidhuber, "Learning Precise Timing with LSTM Recurrent
Networks", Journal of Machine Learning Research 3 (2002), pages 115 to 143, has the peepholes;
K. Greff et al., "LSTM: A Search Space Odyssey", arXiv:1503.04069, the coupled gates.
"""

from functools import cache
from typing import Any

from fastrnn_kernels.cells.activations import Activation, clipped, function_of, jitted
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.functions import one
from fastrnn_kernels.cells.gru import GRU, GRU_RESET_BEFORE


def _no_backward(*arguments: Any) -> Any:
    raise NotImplementedError("cells with activations of choice are for inference")


def _name(kind: str, clip: float | None, *parts: object) -> str:
    bound = [] if clip is None else [f"clip_{clip:.9g}"]
    return "-".join([kind, *map(str, parts), *bound])


@cache
def rnn(f: Activation, clip: float | None) -> Cell:
    """The simple recurrent network."""
    name, act, k = _name("rnn", clip, f), function_of(f), clipped(clip)

    def forward(sums: Any, states: Any) -> Any:
        return (act(k(sums[0])),), ()

    return Cell(name, ("h",), ("h",), (), jitted(forward, name), _no_backward, reads_h=False)


@cache
def lstm(
    f: Activation,
    g: Activation,
    h: Activation,
    clip: float | None,
    peepholes: bool,
    coupled: bool,
) -> Cell:
    """The LSTM; with peepholes, its parameters per unit are p_i, p_o, p_f."""
    own = [word for word, on in (("peepholes", peepholes), ("coupled", coupled)) if on]
    name, k = _name("lstm", clip, f, g, h, *own), clipped(clip)
    gate, cell_input, output = function_of(f), function_of(g), function_of(h)

    def seen(position: int) -> Any:
        """A sum with what a gate sees of c."""
        if not peepholes:
            return jitted(lambda a, c, states: a, f"{name} blind {position}")
        return jitted(lambda a, c, states: a + states[position] * c, f"{name} seen {position}")

    seen_i, seen_o, seen_f = seen(2), seen(3), seen(4)
    if coupled:
        forget = jitted(lambda a_f, c, states, i: one(i) - i, f"{name} forget")
    else:
        forget = jitted(lambda a_f, c, states, i: gate(k(seen_f(a_f, c, states))), f"{name} forget")

    def forward(sums: Any, states: Any) -> Any:
        a_i, a_f, a_g, a_o = sums
        c = states[1]
        i = gate(k(seen_i(a_i, c, states)))
        c_new = forget(a_f, c, states, i) * c + i * cell_input(k(a_g))
        o = gate(k(seen_o(a_o, c_new, states)))
        return (o * output(c_new), c_new), ()

    return Cell(
        name,
        ("i", "f", "g", "o"),
        ("h", "c"),
        (),
        jitted(forward, name),
        _no_backward,
        reads_h=False,
        per_unit=("p_i", "p_o", "p_f") if peepholes else (),
    )


@cache
def gru(f: Activation, g: Activation, clip: float | None, reset_after: bool) -> Cell:
    """The GRU, its reset gate after or before the product."""
    name = _name("gru" if reset_after else "gru_reset_before", clip, f, g)
    gate, candidate, k = function_of(f), function_of(g), clipped(clip)

    def after(sums: Any, states: Any) -> Any:
        n_x, a_r, a_z, n_h = sums
        n = candidate(k(n_x + gate(k(a_r)) * n_h))
        z = gate(k(a_z))
        return ((one(z) - z) * n + z * states[0],), ()

    def before(sums: Any, states: Any) -> Any:
        _, a_z, a_n = sums
        n = candidate(k(a_n))
        z = gate(k(a_z))
        return ((one(z) - z) * n + z * states[0],), ()

    def reset_state(early_sums: Any, states: Any) -> Any:
        return gate(k(early_sums[0])) * states[0]

    if reset_after:
        return Cell(name, GRU.gates, ("h",), (), jitted(after, name), _no_backward, apart=GRU.apart)
    return Cell(
        name,
        GRU_RESET_BEFORE.gates,
        ("h",),
        (),
        jitted(before, name),
        _no_backward,
        late=GRU_RESET_BEFORE.late,
        inner=jitted(reset_state, f"{name} reset"),
        late_backward=_no_backward,
    )
