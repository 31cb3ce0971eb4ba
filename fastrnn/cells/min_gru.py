"""The minGRU: a GRU whose gates see x alone, plain and as it is run in log-space."""

from typing import Any

from fastrnn.define import cell
from fastrnn.equations import sigmoid, where


@cell(gates="z n")
def MinGRU(a: Any, s: Any) -> Any:
    """The minGRU.

        z = σ(W_z x + b_z)
        n = W_n x + b_n
        h' = (1 - z) h + z n

    L. Feng et al., "Were RNNs All We Needed?", arXiv:2410.01201, Sec. 3.1.
    """
    z = sigmoid(a.z.x)
    n = a.n.x
    return (1 - z) * s.h + z * n


@cell(gates="z n")
def MinGRULog(a: Any, s: Any) -> Any:
    """The minGRU as log-space has it: as MinGRU, with g(n) in place of n, which is positive.

        g(x) = x + 1/2 where x >= 0, else σ(x)

    L. Feng et al., arXiv:2410.01201, appendix B.2.1. What is computed step by step needs no
    logarithms: they keep a scan within float32's range.
    """
    z = sigmoid(a.z.x)
    n = where(a.n.x >= 0, a.n.x + 0.5, sigmoid(a.n.x))
    return (1 - z) * s.h + z * n
