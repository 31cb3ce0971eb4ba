"""The LSTM with forget gates.

    i = σ(W_i x + R_i h + b_i)      input gate
    f = σ(W_f x + R_f h + b_f)      forget gate
    g = tanh(W_g x + R_g h + b_g)   cell input
    o = σ(W_o x + R_o h + b_o)      output gate
    c' = f c + i g
    h' = o tanh(c')

S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9 (1997), Sec. 4;
F. A. Gers, J. Schmidhuber, F. Cummins, "Learning to Forget", Neural Computation 12 (2000), Sec. 3,
has the forget gate. Where these scale sigmoids, around g and c', all libraries have tanh.
"""

from typing import Any

from numba import njit

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.functions import one, sigmoid, tanh, zero


@njit
def _forward(sums: Any, states: Any) -> Any:
    a_i, a_f, a_g, a_o = sums
    _, c = states
    i = sigmoid(a_i)
    f = sigmoid(a_f)
    g = tanh(a_g)
    o = sigmoid(a_o)
    c_new = f * c + i * g
    h_new = o * tanh(c_new)
    return (h_new, c_new), (i, f, g, o)


@njit
def _backward(d_states: Any, saved: Any, states: Any) -> Any:
    # da_i is the gradient of gate i's sum, a_i, and so on; `_` stands for the old h, not read here.
    dh, dc_new = d_states
    i, f, g, o = saved
    _, c = states
    tanh_c = tanh(f * c + i * g)
    dc_new = dc_new + dh * o * (one(o) - tanh_c * tanh_c)
    da_i = dc_new * g * i * (one(i) - i)
    da_f = dc_new * c * f * (one(f) - f)
    da_g = dc_new * i * (one(g) - g * g)
    da_o = dh * tanh_c * o * (one(o) - o)
    return (da_i, da_f, da_g, da_o), (zero(dh), dc_new * f)


LSTM = Cell(
    "lstm",
    ("i", "f", "g", "o"),
    ("h", "c"),
    ("i", "f", "g", "o"),
    _forward,
    _backward,
    reads_h=False,
)
