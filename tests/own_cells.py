"""Cells that the package does not have, for what its own have no use for.

As a plugin (`pytest -p own_cells`) they stand in the registry, and so in all grids of the tests.
"""

import numpy as np
from numba import njit

import reference
from fastrnn_kernels.cells import registry
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.functions import one, relu, sigmoid, tanh, where_at_most, zero


@njit
def _peephole_lstm(sums, states):
    a_i, a_f, a_g, a_o = sums
    _, c, p_i, p_f, p_o = states
    i = sigmoid(a_i + p_i * c)
    f = sigmoid(a_f + p_f * c)
    g = tanh(a_g)
    c_new = f * c + i * g
    o = sigmoid(a_o + p_o * c_new)
    return (o * tanh(c_new), c_new), (i, f, g, o)


@njit
def _peephole_lstm_backward(d_states, saved, states):
    dh, dc_new = d_states
    i, f, g, o = saved
    _, c, p_i, p_f, p_o = states
    c_new = f * c + i * g
    tanh_c = tanh(c_new)
    da_o = dh * tanh_c * o * (one(o) - o)
    dc_new = dc_new + dh * o * (one(o) - tanh_c * tanh_c) + da_o * p_o
    da_i = dc_new * g * i * (one(i) - i)
    da_f = dc_new * c * f * (one(f) - f)
    da_g = dc_new * i * (one(g) - g * g)
    dc = dc_new * f + da_i * p_i + da_f * p_f
    return (da_i, da_f, da_g, da_o), (zero(dh), dc, da_i * c, da_f * c, da_o * c_new)


PEEPHOLE_LSTM = Cell(
    "peepholelstm",
    ("i", "f", "g", "o"),
    ("h", "c"),
    ("i", "f", "g", "o"),
    _peephole_lstm,
    _peephole_lstm_backward,
    reads_h=False,
    per_unit=("p_i", "p_f", "p_o"),
)


def peephole_lstm_step(w, x, state):
    """Gers et al. 2002: i, f see c, o sees c'."""
    h, c = state
    a = x @ w["weight_ih"] + w["bias_ih"] + h @ w["weight_hh"] + w["bias_hh"]
    i, f, g, o = np.split(a, 4, axis=-1)
    i = reference.sigmoid(i + w["p_i"] * c)
    f = reference.sigmoid(f + w["p_f"] * c)
    g = np.tanh(g)
    c = f * c + i * g
    o = reference.sigmoid(o + w["p_o"] * c)
    h = o * np.tanh(c)
    if "weight_hr" in w:
        h = h @ w["weight_hr"]
    return (h, c), {"i": i, "f": f, "g": g, "o": o}


@njit
def _peephole_gru_inner(early_sums, states):
    h, p_r, _, _ = states
    return sigmoid(early_sums[1] + p_r * h) * h


@njit
def _peephole_gru(sums, states):
    a_z, a_r, a_n = sums
    h, p_r, p_z, p_n = states
    r = sigmoid(a_r + p_r * h)
    z = sigmoid(a_z + p_z * h)
    n = tanh(a_n + p_n * h)
    return ((one(z) - z) * n + z * h,), (r, z, n)


@njit
def _peephole_gru_late_backward(d_states, saved, states):
    (dh,) = d_states
    _, z, n = saved
    return (dh * (one(z) - z) * (one(n) - n * n),)


@njit
def _peephole_gru_backward(d_states, saved, states, d_inner):
    (dh,) = d_states
    r, z, n = saved
    h, p_r, p_z, p_n = states
    da_n = dh * (one(z) - z) * (one(n) - n * n)
    da_z = dh * (h - n) * z * (one(z) - z)
    da_r = d_inner * h * r * (one(r) - r)
    dh_old = dh * z + d_inner * r + da_r * p_r + da_z * p_z + da_n * p_n
    return (da_z, da_r), (dh_old, da_r * h, da_z * h, da_n * h)


PEEPHOLE_GRU = Cell(
    "peepholegru",
    ("r", "z", "n"),
    ("h",),
    ("r", "z", "n"),
    _peephole_gru,
    _peephole_gru_backward,
    late=("n",),
    inner=_peephole_gru_inner,
    late_backward=_peephole_gru_late_backward,
    per_unit=("p_r", "p_z", "p_n"),
    x_only=("z",),
)


def peephole_gru_step(w, x, state):
    """A GRU that resets before its product; of h, z sees its unit's own alone."""
    (h,) = state
    x_r, x_z, x_n = np.split(x @ w["weight_ih"] + w["bias_ih"], 3, axis=-1)
    R_r, R_n = np.split(w["weight_hh"], 2, axis=-1)
    b_r, b_n = np.split(w["bias_hh"], 2, axis=-1)
    r = reference.sigmoid(x_r + h @ R_r + b_r + w["p_r"] * h)
    z = reference.sigmoid(x_z + w["p_z"] * h)
    n = np.tanh(x_n + (r * h) @ R_n + b_n + w["p_n"] * h)
    return ((1 - z) * n + z * h,), {"r": r, "z": z, "n": n}


@njit
def _indrnn(sums, states):
    (a,) = sums
    h, u = states
    h_new = relu(a + u * h)
    return (h_new,), (h_new,)


@njit
def _indrnn_backward(d_states, saved, states):
    (dh,) = d_states
    (h_new,) = saved
    h, u = states
    da = where_at_most(h_new, zero(h_new), zero(dh), dh)
    return (da,), (da * u, da * h)


INDRNN = Cell(
    "indrnn",
    ("h",),
    ("h",),
    ("h",),
    _indrnn,
    _indrnn_backward,
    per_unit=("weight_u",),
    x_only=("h",),
)


def indrnn_step(w, x, state):
    """Li et al. 2018: h' = relu(W x + b + u h)."""
    (h,) = state
    a = x @ w["weight_ih"] + w["bias_ih"]
    h = reference.ACTIVATIONS["relu"](a + w["weight_u"] * h)
    return (h,), {"h": h}


@njit
def _mingru(sums, states):
    a_z, a_n = sums
    (h,) = states
    z = sigmoid(a_z)
    return ((one(z) - z) * h + z * a_n,), (z, a_n)


@njit
def _mingru_backward(d_states, saved, states):
    (dh,) = d_states
    z, n = saved
    (h,) = states
    return (dh * (n - h) * z * (one(z) - z), dh * z), (dh * (one(z) - z),)


MINGRU = Cell(
    "mingru", ("z", "n"), ("h",), ("z", "n"), _mingru, _mingru_backward, x_only=("z", "n")
)


def mingru_step(w, x, state):
    """Feng et al. 2024: z = sigmoid(W_z x + b), h' = (1 - z) h + z (W_n x + b)."""
    (h,) = state
    z, n = np.split(x @ w["weight_ih"] + w["bias_ih"], 2, axis=-1)
    z = reference.sigmoid(z)
    return ((1 - z) * h + z * n,), {"z": z, "n": n}


@njit
def _xgru(sums, states):
    a_z, n_x, a_r, n_h = sums
    (h,) = states
    r = sigmoid(a_r)
    z = sigmoid(a_z)
    n = tanh(n_x + r * n_h)
    return ((one(z) - z) * n + z * h,), (r, z, n, n_h)


@njit
def _xgru_backward(d_states, saved, states):
    (dh,) = d_states
    r, z, n, n_h = saved
    (h,) = states
    dn = dh * (one(z) - z) * (one(n) - n * n)
    da_z = dh * (h - n) * z * (one(z) - z)
    da_r = dn * n_h * r * (one(r) - r)
    return (da_z, dn, da_r, dn * r), (dh * z,)


XGRU = Cell(
    "xgru",
    ("r", "z", "n"),
    ("h",),
    ("r", "z", "n", "n_h"),
    _xgru,
    _xgru_backward,
    apart=("n",),
    x_only=("z",),
)


def xgru_step(w, x, state):
    """A GRU whose z sees x alone."""
    (h,) = state
    x_r, x_z, x_n = np.split(x @ w["weight_ih"] + w["bias_ih"], 3, axis=-1)
    h_r, h_n = np.split(h @ w["weight_hh"] + w["bias_hh"], 2, axis=-1)
    r = reference.sigmoid(x_r + h_r)
    z = reference.sigmoid(x_z)
    n = np.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * h,), {"r": r, "z": z, "n": n}


#: Each kind: its cell, its step, and how many states it has beside h.
OWN = {
    "PeepholeLSTM": (PEEPHOLE_LSTM, peephole_lstm_step, 1),
    "PeepholeGRU": (PEEPHOLE_GRU, peephole_gru_step, 0),
    "IndRNN": (INDRNN, indrnn_step, 0),
    "MinGRU": (MINGRU, mingru_step, 0),
    "XGRU": (XGRU, xgru_step, 0),
}


def pytest_configure(config):
    """Make them known, before any test is collected."""
    for kind, (cell, step, more) in OWN.items():
        registry.register(registry.Entry(cell.name, cell, kind))
        reference.STEPS[kind] = step
        reference.MORE_STATES[kind] = more
