"""The light recurrent unit: its candidate does not see h."""

from typing import Any

from fastrnn.define import cell
from fastrnn.equations import sigmoid, tanh


@cell(gates="f n")
def LightRU(a: Any, s: Any) -> Any:
    """The light recurrent unit.

        f = σ(W_f x + R_f h + b_f)
        n = tanh(W_n x + b_n)
        h' = (1 - f) h + f n

    H. Ye et al., "Light Recurrent Unit: Towards an Interpretable Recurrent Neural Network for
    Modeling Long-Range Dependency", Electronics 13 (2024), 3204, Sec. 3.
    """
    f = sigmoid(a.f)
    n = tanh(a.n.x)
    return (1 - f) * s.h + f * n
