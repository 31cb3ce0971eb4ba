"""The sLSTM: exponential gates, kept within range."""

from typing import Any

from fastrnn.define import cell
from fastrnn.equations import exp, logsigmoid, maximum, sigmoid, tanh


@cell(gates="i f z o", states="h c n m")
def SLSTM(a: Any, s: Any) -> Any:
    """The sLSTM of xLSTM, with exponential input gates and a stabiliser m.

        m' = max(log σ(a_f) + m, a_i)
        i = exp(a_i - m'),  f = exp(log σ(a_f) + m - m')
        c' = f c + i tanh(a_z)
        n' = f n + i
        h' = σ(a_o) c' / n'

    a = W x + R h + b, each with its own rows.

    M. Beck et al., "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517, Sec. 2.2, eqs. 8 to
    17. As n begins with 0, it begins with m = 0, not with minus infinity.
    """
    log_f = logsigmoid(a.f) + s.m
    m = maximum(log_f, a.i)
    i = exp(a.i - m)
    f = exp(log_f - m)
    z = tanh(a.z)
    o = sigmoid(a.o)
    c = f * s.c + i * z
    n = f * s.n + i
    return o * (c / n), c, n, m
