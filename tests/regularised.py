"""The plain truth of dropout inside of layers and of zoneout: NumPy, step by step.

Masks come from `philox.py`, equations from the papers that `fastrnn.LSTM` cites. As in
`reference.py`, arrays may have axes more in front. Nothing is shared with the library.
"""

import numpy as np

import philox
from reference import sigmoid, weights_of


def rnn(w, x, met, state, left):
    """h' = tanh(W x + R met)."""
    return (np.tanh(x @ w["weight_ih"] + w["bias_ih"] + met @ w["weight_hh"] + w["bias_hh"]),)


def lstm(w, x, met, state, left):
    """c' = f c + i (left g), h' = o tanh(c'), projected if there is a projection."""
    a = x @ w["weight_ih"] + w["bias_ih"] + met @ w["weight_hh"] + w["bias_hh"]
    i, f, g, o = np.split(a, 4, axis=-1)
    c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g) * left
    h = sigmoid(o) * np.tanh(c)
    return (h @ w["weight_hr"] if "weight_hr" in w else h), c


def gru(w, x, met, state, left, reset_after=True):
    """h' = (1 - z) (left n) + z h."""
    xr, xz, xn = np.split(x @ w["weight_ih"] + w["bias_ih"], 3, axis=-1)
    R_r, R_z, R_n = np.split(w["weight_hh"], 3, axis=-1)
    b_r, b_z, b_n = np.split(w["bias_hh"], 3, axis=-1)
    r, z = sigmoid(xr + met @ R_r + b_r), sigmoid(xz + met @ R_z + b_z)
    n = np.tanh(xn + (r * (met @ R_n + b_n) if reset_after else (r * met) @ R_n + b_n))
    return ((1 - z) * n * left + z * state[0],)


STEPS = {"RNN": rnn, "LSTM": lstm, "GRU": gru}


class Regularised:
    """A layer as its arguments have it; a call in training has the key, another one None."""

    def __init__(self, layer, key, **options):
        self.layer, self.key, self.options = layer, key, options
        rates = layer.zoneout if isinstance(layer.zoneout, tuple) else (layer.zoneout,)
        many = len(layer._cell.states)
        self.zoneout = [*rates, *[0.0] * many][:many]

    def __call__(self, parameters, x, lengths):
        """y (..., T, B, D P), and the final states."""
        layer, D = self.layer, self.layer.directions
        for k in range(layer.num_layers):
            B, width = x.shape[-2:]
            if self.key is not None and layer.input_dropout:
                rate = layer.input_dropout
                x = x * philox.dropout(self.key, philox.INPUT, k * D, B, width, rate)
            found = [
                self.direction(weights_of(parameters, f"_l{k}{suffix}"), x, lengths, k * D + d)
                for d, suffix in enumerate(["", "_reverse"][:D])
            ]
            shape = np.broadcast_shapes(*(y.shape[:-1] for y in found))
            x = np.concatenate([np.broadcast_to(y, (*shape, y.shape[-1])) for y in found], -1)
        return x

    def direction(self, w, x, lengths, number):
        """One pass; a row that has ended shows 0."""
        layer, key = self.layer, self.key
        (*more, T, B, _), H, P = x.shape, layer.hidden_size, layer.state_size
        more = np.broadcast_shapes(more, *(v.shape[:-2] for v in w.values()))
        states = [np.zeros((*more, B, width)) for width in (P, H)][: len(self.zoneout)]
        rate, candidate = layer.recurrent_dropout, layer.recurrent_dropout_on == "candidate"
        met, left, kept = np.ones((B, P)), np.ones((T, B, H)), [*self.zoneout]
        if key is not None:
            if layer.weight_dropout:
                rows, width = w["weight_hh"].shape[-1], P
                mask = philox.dropout(key, philox.WEIGHT, number, rows, width, layer.weight_dropout)
                w = w | {"weight_hh": w["weight_hh"] * mask.T}
            what = philox.CELL
            if rate and candidate:
                drawn = philox.each_step(key, what, number, T, B, H, rate)
                left, what = np.where(drawn, 0, 1 / (1 - rate)), what + 1
            elif rate:
                met = philox.dropout(key, philox.RECURRENT, number, B, P, rate)
            for n, of_state in enumerate(self.zoneout):
                if of_state:
                    kept[n] = philox.each_step(key, what, number, T, B, H, of_state)
                    what += 1
        y = np.zeros((*more, T, B, P))
        for t in range(T) if number % layer.directions == 0 else reversed(range(T)):
            runs = (t < np.asarray(lengths))[:, None]
            new = STEPS[layer.kind](
                w, x[..., t, :, :], met * states[0], states, left[t], **self.options
            )
            for n, (fresh, keep) in enumerate(zip(new, kept, strict=True)):
                keep = keep if np.isscalar(keep) else keep[t]
                fresh = keep * states[n] + (1 - keep) * fresh if self.zoneout[n] else fresh
                states[n] = np.where(runs, fresh, states[n])
            y[..., t, :, :] = np.where(runs, states[0], 0)
        return y
