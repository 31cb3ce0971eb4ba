"""The minLSTM: an LSTM whose gates see x alone, plain and as it is run in log-space."""

from typing import Any

from fastrnn.define import cell
from fastrnn.equations import sigmoid, where


@cell(gates="f i n")
def MinLSTM(a: Any, s: Any) -> Any:
    """The minLSTM.

        f, i = σ(W x + b)                         each with its own rows
        n = W_n x + b_n
        h' = f / (f + i) h + i / (f + i) n

    L. Feng et al., "Were RNNs All We Needed?", arXiv:2410.01201, Sec. 3.2.
    """
    f = sigmoid(a.f.x)
    i = sigmoid(a.i.x)
    return (f * s.h + i * a.n.x) / (f + i)


@cell(gates="f i n")
def MinLSTMLog(a: Any, s: Any) -> Any:
    """The minLSTM as log-space has it: as MinLSTM, with g(n) in place of n, which is positive.

        g(x) = x + 1/2 where x >= 0, else σ(x)

    L. Feng et al., arXiv:2410.01201, appendix B.2.2.
    """
    f = sigmoid(a.f.x)
    i = sigmoid(a.i.x)
    n = where(a.n.x >= 0, a.n.x + 0.5, sigmoid(a.n.x))
    return (f * s.h + i * n) / (f + i)
