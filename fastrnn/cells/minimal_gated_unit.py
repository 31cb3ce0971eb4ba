"""The minimal gated unit: a GRU of one gate."""

from typing import Any

from fastrnn.define import cell
from fastrnn.equations import sigmoid, tanh


@cell(gates="f n")
def MGU(a: Any, s: Any) -> Any:
    """The minimal gated unit.

        f = σ(W_f x + R_f h + b_f)
        n = tanh(W_n x + R_n (f h) + b_n)
        h' = (1 - f) h + f n

    G.-B. Zhou et al., "Minimal Gated Unit for Recurrent Neural Networks", arXiv:1603.09420, Sec. 3.
    """
    f = sigmoid(a.f)
    n = tanh(a.n(f * s.h))
    return (1 - f) * s.h + f * n
