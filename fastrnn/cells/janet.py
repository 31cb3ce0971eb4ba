"""JANET: an LSTM with the forget gate alone."""

from typing import Any

from fastrnn.define import cell
from fastrnn.equations import sigmoid, tanh

#: What the input gate 1 - σ(s - BETA) is the more open by (the paper's choice).
BETA = 1.0


@cell(gates="f g")
def JANET(a: Any, s: Any) -> Any:
    """Just another network: an LSTM with the forget gate alone.

        s = W_f x + R_f h + b_f
        g = tanh(W_g x + R_g h + b_g)
        h' = σ(s) h + (1 - σ(s - β)) g,  β = 1

    J. van der Westhuizen, J. Lasenby, "The Unreasonable Effectiveness of the Forget Gate",
    arXiv:1804.04849, Sec. 3.
    """
    f = sigmoid(a.f)
    g = tanh(a.g)
    return f * s.h + (1 - sigmoid(a.f - BETA)) * g
