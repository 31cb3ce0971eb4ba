"""The leaky network, whose units are slow; untrained, an echo state network's reservoir."""

from typing import Any

from fastrnn.define import cell
from fastrnn.equations import sigmoid, tanh


@cell(gates="n", per_unit="rate")
def LeakyRNN(a: Any, s: Any, p: Any) -> Any:
    """The leaky integrator.

        α = σ(rate)                               of each unit, so that it stays from 0 to 1
        h' = (1 - α) h + α tanh(W x + R h + b)

    H. Jaeger et al., "Optimization and applications of echo state networks with leaky-integrator
    neurons", Neural Networks 20 (2007), Sec. 2.
    """
    alpha = sigmoid(p.rate)
    return (1 - alpha) * s.h + alpha * tanh(a.n)
