"""The simple recurrent unit: all products are of x."""

from typing import Any

from fastrnn.define import cell
from fastrnn.equations import sigmoid


@cell(gates="n f r k", states="h c", per_unit="v_f v_r")
def SRU(a: Any, s: Any, p: Any) -> Any:
    """The simple recurrent unit.

        f = σ(W_f x + v_f c + b_f)
        c' = f c + (1 - f) (W_n x + b_n)
        r = σ(W_r x + v_r c + b_r)
        h' = r c' + (1 - r) (W_k x + b_k)

    T. Lei et al., "Simple Recurrent Units for Highly Parallelizable Recurrence", arXiv:1709.02755,
    Sec. 3, eqs. 1 to 4. W_k is the identity there, where x is as wide as h.
    """
    f = sigmoid(a.f.x + p.v_f * s.c)
    r = sigmoid(a.r.x + p.v_r * s.c)
    c = f * s.c + (1 - f) * a.n.x
    return r * c + (1 - r) * a.k.x, c
