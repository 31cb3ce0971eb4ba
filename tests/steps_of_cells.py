"""The cells of `fastrnn.cells` in NumPy, one step at a time, from their papers.

Nothing is shared with the library. w are the weights of one direction, as `reference.weights_of`
has them; R is there for the gates that have one, in their order.
"""

import numpy as np

from reference import sigmoid


def sums(w, x, h):
    """W x + b + R h + b of each gate, of cells all of whose gates have an R."""
    a = x @ w["weight_ih"] + w["bias_ih"] + h @ w["weight_hh"] + w["bias_hh"]
    return np.split(a, a.shape[-1] // h.shape[-1], axis=-1)


def inputs(w, x, h):
    """W x + b of each gate."""
    a = x @ w["weight_ih"] + w["bias_ih"]
    return np.split(a, a.shape[-1] // h.shape[-1], axis=-1)


def peephole_lstm(w, x, state):
    """Gers, Schraudolph and Schmidhuber 2002, Sec. 2.2."""
    h, c = state
    i, f, g, o = sums(w, x, h)
    i, f, g = sigmoid(i + w["p_i"] * c), sigmoid(f + w["p_f"] * c), np.tanh(g)
    c = f * c + i * g
    o = sigmoid(o + w["p_o"] * c)
    return (o * np.tanh(c), c), {"i": i, "f": f, "g": g, "o": o}


def coupled_lstm(w, x, state):
    """Greff et al. 2017, CIFG: f = 1 - i."""
    h, c = state
    i, g, o = sums(w, x, h)
    i, g, o = sigmoid(i), np.tanh(g), sigmoid(o)
    c = (1 - i) * c + i * g
    return (o * np.tanh(c), c), {"i": i, "g": g, "o": o}


def janet(w, x, state):
    """Van der Westhuizen and Lasenby 2018, with beta = 1."""
    (h,) = state
    s, g = sums(w, x, h)
    h = sigmoid(s) * h + (1 - sigmoid(s - 1)) * np.tanh(g)
    return (h,), {"f": sigmoid(s), "g": np.tanh(g)}


def mgu(w, x, state):
    """Zhou et al. 2016: the gate multiplies h before the product."""
    (h,) = state
    x_f, x_n = inputs(w, x, h)
    R_f, R_n = np.split(w["weight_hh"], 2, axis=-1)
    b_f, b_n = np.split(w["bias_hh"], 2, axis=-1)
    f = sigmoid(x_f + h @ R_f + b_f)
    n = np.tanh(x_n + (f * h) @ R_n + b_n)
    return ((1 - f) * h + f * n,), {"f": f, "n": n}


def ind_rnn(w, x, state):
    """Li et al. 2018: each unit sees its own past."""
    (h,) = state
    (a,) = inputs(w, x, h)
    return (np.maximum(a + w["u"] * h, 0),), {}


def light_ru(w, x, state):
    """Ye et al. 2024: the candidate does not see h."""
    (h,) = state
    x_f, x_n = inputs(w, x, h)
    f = sigmoid(x_f + h @ w["weight_hh"] + w["bias_hh"])
    n = np.tanh(x_n)
    return ((1 - f) * h + f * n,), {"f": f, "n": n}


def sru(w, x, state):
    """Lei et al. 2018, eqs. 1 to 4, the highway through a matrix of its own."""
    h, c = state
    n, f, r, k = inputs(w, x, h)
    f, r = sigmoid(f + w["v_f"] * c), sigmoid(r + w["v_r"] * c)
    c = f * c + (1 - f) * n
    return (r * c + (1 - r) * k, c), {"f": f, "r": r}


def positive(x):
    """Feng et al. 2024, appendix B.2: g(x) of log-space."""
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def min_gru(w, x, state, candidate=lambda n: n):
    """Feng et al. 2024, Sec. 3.1."""
    (h,) = state
    z, n = inputs(w, x, h)
    z = sigmoid(z)
    return ((1 - z) * h + z * candidate(n),), {"z": z}


def min_lstm(w, x, state, candidate=lambda n: n):
    """Feng et al. 2024, Sec. 3.2."""
    (h,) = state
    f, i, n = inputs(w, x, h)
    f, i = sigmoid(f), sigmoid(i)
    whole = f + i
    return (f / whole * h + i / whole * candidate(n),), {"f": f, "i": i}


def slstm(w, x, state):
    """Beck et al. 2024, eqs. 8 to 17, f = σ, with the stabiliser m."""
    h, c, n, m = state
    i, f, z, o = sums(w, x, h)
    log_f = np.log(sigmoid(f))
    m_new = np.maximum(log_f + m, i)
    i, f = np.exp(i - m_new), np.exp(log_f + m - m_new)
    c, n = f * c + i * np.tanh(z), f * n + i
    return (sigmoid(o) * c / n, c, n, m_new), {}


def leaky_rnn(w, x, state):
    """Jaeger et al. 2007, Sec. 2, each unit's rate the sigmoid of a parameter."""
    (h,) = state
    (a,) = sums(w, x, h)
    rate = sigmoid(w["rate"])
    return ((1 - rate) * h + rate * np.tanh(a),), {}


STEPS = {
    "CoupledLSTM": coupled_lstm,
    "IndRNN": ind_rnn,
    "JANET": janet,
    "LeakyRNN": leaky_rnn,
    "LightRU": light_ru,
    "MGU": mgu,
    "MinGRU": min_gru,
    "MinGRULog": lambda w, x, state: min_gru(w, x, state, positive),
    "MinLSTM": min_lstm,
    "MinLSTMLog": lambda w, x, state: min_lstm(w, x, state, positive),
    "PeepholeLSTM": peephole_lstm,
    "SLSTM": slstm,
    "SRU": sru,
}
MORE_STATES = {"CoupledLSTM": 1, "PeepholeLSTM": 1, "SLSTM": 3, "SRU": 1}
