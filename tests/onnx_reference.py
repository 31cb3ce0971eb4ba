"""ONNX's recurrent operators as its text has them, in float64 and step by step."""

import numpy as np

ACTIVATIONS = {
    "Sigmoid": lambda x, alpha, beta: 1 / (1 + np.exp(-x)),
    "Tanh": lambda x, alpha, beta: np.tanh(x),
    "Relu": lambda x, alpha, beta: np.maximum(x, 0),
    "Affine": lambda x, alpha, beta: alpha * x + beta,
    "LeakyRelu": lambda x, alpha, beta: np.where(x >= 0, x, alpha * x),
    "ThresholdedRelu": lambda x, alpha, beta: np.where(x >= alpha, x, 0),
    "ScaledTanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "HardSigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "Elu": lambda x, alpha, beta: np.where(x >= 0, x, alpha * np.expm1(x)),
    "Softsign": lambda x, alpha, beta: x / (1 + np.abs(x)),
    "Softplus": lambda x, alpha, beta: np.logaddexp(0, x),
}


def step(kind, x, states, w, r, b, p, functions, clip, option):
    """New states of one row; w, r, b, p of one direction, with ONNX's gates in its order."""

    def k(a):
        return a if clip is None else np.clip(a, -clip, clip)

    b_w, b_r = np.split(b, 2)
    from_x = np.split(w @ x + b_w, len(w) // len(states[0]))
    if kind == "RNN":
        return (functions[0](k(from_x[0] + r @ states[0] + b_r)),)
    if kind == "LSTM":
        f, g, act = functions
        h, c = states
        i, o, F, n = np.split(np.concatenate(from_x) + r @ h + b_r, 4)
        p_i, p_o, p_f = np.split(p, 3)
        i = f(k(i + p_i * c))
        F = 1 - i if option else f(k(F + p_f * c))
        c = F * c + i * g(k(n))
        return f(k(o + p_o * c)) * act(c), c
    f, g = functions
    (h,) = states
    R_z, R_r, R_h = np.split(r, 3)
    b_z, b_r, b_h = np.split(b_r, 3)
    z = f(k(from_x[0] + R_z @ h + b_z))
    reset = f(k(from_x[1] + R_r @ h + b_r))
    inner = reset * (R_h @ h + b_h) if option else R_h @ (reset * h) + b_h
    return ((1 - z) * g(k(from_x[2] + inner)) + z * h,)


def run(kind, x, w, r, b, lengths, states, p, functions, clip, reverse, option):
    """Y (T, D, B, H) and the final states (D, B, H); `functions` and `reverse` by directions."""
    T, B, _ = x.shape
    D, _, H = r.shape
    y, final = np.zeros((T, D, B, H)), [np.array(s, np.float64) for s in states]
    for d in range(D):
        for row in range(B):
            now = tuple(s[d, row] for s in final)
            times = range(lengths[row])
            for t in reversed(times) if reverse[d] else times:
                own = w[d], r[d], b[d], p[d], functions[d]
                now = step(kind, x[t, row], now, *own, clip, option)
                y[t, d, row] = now[0]
            for s, value in zip(final, now, strict=True):
                s[d, row] = value
    return y, final
