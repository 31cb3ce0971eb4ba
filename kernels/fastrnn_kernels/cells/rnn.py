"""The simple (Elman) recurrent network: h' = φ(W x + b + R h), φ = tanh or ReLU.

J. L. Elman, "Finding Structure in Time", Cognitive Science 14 (1990).
"""

from typing import Any

from numba import njit

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.functions import one, relu, tanh, where_at_most, zero


@njit
def _tanh_forward(sums: Any, states: Any) -> Any:
    (a,) = sums
    h = tanh(a)
    return (h,), (h,)


@njit
def _tanh_backward(d_states: Any, saved: Any, states: Any) -> Any:
    (dh,) = d_states
    (h,) = saved
    da = dh * (one(h) - h * h)
    return (da,), (zero(dh),)


@njit
def _relu_forward(sums: Any, states: Any) -> Any:
    (a,) = sums
    h = relu(a)
    return (h,), (h,)


@njit
def _relu_backward(d_states: Any, saved: Any, states: Any) -> Any:
    (dh,) = d_states
    (h,) = saved
    nothing = zero(dh)
    da = where_at_most(h, nothing, nothing, dh)  # NaN passes, as in torch
    return (da,), (nothing,)


RNN_TANH = Cell("rnn_tanh", ("h",), ("h",), ("h",), _tanh_forward, _tanh_backward, reads_h=False)
RNN_RELU = Cell("rnn_relu", ("h",), ("h",), ("h",), _relu_forward, _relu_backward, reads_h=False)
