"""The LSTM with peepholes: its gates see the cell."""

from typing import Any

from fastrnn.define import cell
from fastrnn.equations import sigmoid, tanh


@cell(gates="i f g o", states="h c", per_unit="p_i p_f p_o")
def PeepholeLSTM(a: Any, s: Any, p: Any) -> Any:
    """The LSTM with peepholes.

        i = σ(W_i x + R_i h + p_i c + b_i)
        f = σ(W_f x + R_f h + p_f c + b_f)
        c' = f c + i tanh(W_g x + R_g h + b_g)
        o = σ(W_o x + R_o h + p_o c' + b_o)
        h' = o tanh(c')

    F. A. Gers, N. N. Schraudolph, J. Schmidhuber, "Learning Precise Timing with LSTM Recurrent
    Networks", Journal of Machine Learning Research 3 (2002), Sec. 2.2.
    """
    i = sigmoid(a.i + p.p_i * s.c)
    f = sigmoid(a.f + p.p_f * s.c)
    g = tanh(a.g)
    c = f * s.c + i * g
    o = sigmoid(a.o + p.p_o * c)
    return o * tanh(c), c
