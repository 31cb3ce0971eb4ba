"""The LSTM with coupled input and forget gates."""

from typing import Any

from fastrnn.define import cell
from fastrnn.equations import sigmoid, tanh


@cell(gates="i g o", states="h c")
def CoupledLSTM(a: Any, s: Any) -> Any:
    """The LSTM whose input gate tells how much to forget (CIFG).

        i, o = σ(W x + R h + b)                   each with its own rows
        g = tanh(W_g x + R_g h + b_g)
        c' = (1 - i) c + i g
        h' = o tanh(c')

    K. Greff et al., "LSTM: A Search Space Odyssey", arXiv:1503.04069, Sec. 3 (CIFG).
    """
    i = sigmoid(a.i)
    g = tanh(a.g)
    o = sigmoid(a.o)
    c = (1 - i) * s.c + i * g
    return o * tanh(c), c
