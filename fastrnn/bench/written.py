"""LSTM and GRU as one writes them with `fastrnn.cell`, to be measured beside those built in."""

from __future__ import annotations

from typing import Any

from fastrnn.define import cell
from fastrnn.equations import sigmoid, tanh


@cell(gates="i f g o", states="h c")
def WrittenLSTM(a: Any, s: Any) -> Any:  # noqa: N802 (named as the class that it becomes)
    """The LSTM."""
    i, f, g, o = sigmoid(a.i), sigmoid(a.f), tanh(a.g), sigmoid(a.o)
    c = f * s.c + i * g
    return o * tanh(c), c


@cell(gates="r z n")
def WrittenGRU(a: Any, s: Any) -> Any:  # noqa: N802
    """The GRU, reset after the product."""
    r, z = sigmoid(a.r), sigmoid(a.z)
    n = tanh(a.n.x + r * a.n.h)
    return (1 - z) * n + z * s.h
