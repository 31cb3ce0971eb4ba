"""The GRU, in both of its published forms.

    r = σ(W_r x + R_r h + b_r)          reset gate
    z = σ(W_z x + R_z h + b_z)          update gate
    h' = (1 - z) n + z h

with the reset gate applied after the product, as in cuDNN and PyTorch,

    n = tanh(W_n x + b_in + r (R_n h + b_hn))

or before it, as first published,

    n = tanh(W_n x + R_n (r h) + b_n)

K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (2014),
arXiv:1406.1078, Sec. 2.3, eqs. 5 to 8; its v1 has the form after the product. z keeps h there, too.
"""

from typing import Any

from numba import njit

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.functions import one, sigmoid, tanh


@njit
def _forward(sums: Any, states: Any) -> Any:
    n_x, a_r, a_z, n_h = sums
    (h,) = states
    r = sigmoid(a_r)
    z = sigmoid(a_z)
    n = tanh(n_x + r * n_h)
    h_new = (one(z) - z) * n + z * h
    return (h_new,), (r, z, n, n_h)


@njit
def _backward(d_states: Any, saved: Any, states: Any) -> Any:
    (dh_new,) = d_states
    r, z, n, n_h = saved
    (h,) = states
    dn_x = dh_new * (one(z) - z) * (one(n) - n * n)
    da_z = dh_new * (h - n) * z * (one(z) - z)
    da_r = dn_x * n_h * r * (one(r) - r)
    return (dn_x, da_r, da_z, dn_x * r), (dh_new * z,)


GRU = Cell(
    "gru", ("r", "z", "n"), ("h",), ("r", "z", "n", "n_h"), _forward, _backward, apart=("n",)
)


@njit
def _reset_state(early_sums: Any, states: Any) -> Any:
    a_r, _ = early_sums
    (h,) = states
    return sigmoid(a_r) * h


@njit
def _before_forward(sums: Any, states: Any) -> Any:
    a_r, a_z, a_n = sums
    (h,) = states
    r = sigmoid(a_r)
    z = sigmoid(a_z)
    n = tanh(a_n)
    h_new = (one(z) - z) * n + z * h
    return (h_new,), (r, z, n)


@njit
def _before_late_backward(d_states: Any, saved: Any, states: Any) -> Any:
    (dh_new,) = d_states
    _, z, n = saved
    return (dh_new * (one(z) - z) * (one(n) - n * n),)


@njit
def _before_backward(d_states: Any, saved: Any, states: Any, d_reset_state: Any) -> Any:
    (dh_new,) = d_states
    r, z, n = saved
    (h,) = states
    da_z = dh_new * (h - n) * z * (one(z) - z)
    da_r = d_reset_state * h * r * (one(r) - r)
    return (da_r, da_z), (dh_new * z + d_reset_state * r,)


GRU_RESET_BEFORE = Cell(
    "gru_reset_before",
    ("r", "z", "n"),
    ("h",),
    ("r", "z", "n"),
    _before_forward,
    _before_backward,
    late=("n",),
    inner=_reset_state,
    late_backward=_before_late_backward,
)
