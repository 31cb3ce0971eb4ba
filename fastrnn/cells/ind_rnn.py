"""The independently recurrent network: each unit sees its own past alone."""

from typing import Any

from fastrnn.define import cell
from fastrnn.equations import relu


@cell(gates="n", per_unit="u")
def IndRNN(a: Any, s: Any, p: Any) -> Any:
    """The independently recurrent network.

        h' = relu(W x + u h + b)                  u: a weight to a unit

    S. Li et al., "Independently Recurrent Neural Network (IndRNN)", arXiv:1803.04831, Sec. 3.
    """
    return relu(a.n.x + p.u * s.h)
