"""One direction of one layer in NumPy, and its gradients: what kernels are compared with.

The steps are those of `fastrnn.bench.reference`; here are the loops over time with lengths,
resets and the other direction, the projection, and the GRU that resets before its product.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastrnn.bench import reference

Weights = Mapping[str, Any]
State = tuple[Any, ...]


class Linear:
    """A cell whose gates all read R h: its step takes W x + b_ih and R h + b_hh."""

    def __init__(self, cell: reference.Cell) -> None:
        self._cell = cell

    def forward(self, w: Weights, from_x: Any, state: State) -> tuple[State, Any]:
        from_h = state[0] @ w["weight_hh"].T + w["bias_hh"]
        new, saved = self._cell.forward(from_x, from_h, state)
        if "weight_hr" not in w:
            return new, (saved, state[0], None)
        return (new[0] @ w["weight_hr"].T, *new[1:]), (saved, state[0], new[0])

    def backward(self, w: Weights, saved: Any, d_new: State, into: Weights) -> tuple[Any, State]:
        values, h, full = saved
        dh, *others = d_new
        if full is not None:
            into["weight_hr"][...] += dh.T @ full
            dh = dh @ w["weight_hr"]
        from_x, from_h, d_old = self._cell.backward(values, (dh, *others))
        into["weight_hh"][...] += from_h.T @ h
        into["bias_hh"][...] += from_h.sum(axis=0)
        through = from_h @ w["weight_hh"]
        return from_x, (through if full is not None else d_old[0] + through, *d_old[1:])


def _relu(from_x: Any, from_h: Any, state: State) -> tuple[State, State]:
    h = np.maximum(from_x + from_h, 0)
    return (h,), (h,)


def _relu_backward(saved: State, d_new: State) -> tuple[Any, Any, State]:
    da = d_new[0] * (saved[0] > 0)
    return da, da, (np.zeros_like(da),)


class GruBefore:
    """n = tanh(W_n x + b_in + R_n (r h) + b_hn); h' = (1 - z) n + z h."""

    def forward(self, w: Weights, from_x: Any, state: State) -> tuple[State, Any]:
        (h,) = state
        H = h.shape[1]
        R, b = w["weight_hh"], w["bias_hh"]
        r, z = np.split(from_x[:, : 2 * H] + h @ R[: 2 * H].T + b[: 2 * H], 2, axis=1)
        r, z = (0.5 * (1 + np.tanh(0.5 * a)) for a in (r, z))
        n = np.tanh(from_x[:, 2 * H :] + (r * h) @ R[2 * H :].T + b[2 * H :])
        return ((1 - z) * n + z * h,), (r, z, n, h)

    def backward(self, w: Weights, saved: Any, d_new: State, into: Weights) -> tuple[Any, State]:
        r, z, n, h = saved
        (dh,) = d_new
        H = h.shape[1]
        R = w["weight_hh"]
        dn = dh * (1 - z) * (1 - n**2)
        d_inner = dn @ R[2 * H :]  # of r h
        dr = d_inner * h * r * (1 - r)
        dz = dh * (h - n) * z * (1 - z)
        both = np.concatenate([dr, dz], axis=1)
        into["weight_hh"][: 2 * H] += both.T @ h
        into["weight_hh"][2 * H :] += dn.T @ (r * h)
        from_x = np.concatenate([both, dn], axis=1)
        into["bias_hh"][...] += from_x.sum(axis=0)
        return from_x, (dh * z + d_inner * r + both @ R[: 2 * H],)


STEPS: dict[str, Any] = {
    "rnn": Linear(reference.CELLS["rnn"]),
    "rnn-relu": Linear(reference.Cell(_relu, _relu_backward)),
    "lstm": Linear(reference.CELLS["lstm"]),
    "gru": Linear(reference.CELLS["gru"]),
    "gru-reset-before": GruBefore(),
}


class Found(NamedTuple):
    """y (T, B, P), the final states, and what gives the gradients for dy and d_final."""

    y: Any
    final: State
    backward: Callable[[Any, State], tuple[Any, State, dict[str, Any]]]


def run(
    cell: str, w: Weights, x: Any, start: State, lengths: Any, reset: Any, reverse: bool
) -> Found:
    """A direction: x (T, B, I), start (B, width) each, lengths (B,), reset (T, B)."""
    step = STEPS[cell]
    T, B, I = x.shape
    rows = np.arange(B)
    y = np.zeros((T, B, start[0].shape[1]))
    from_x = x.reshape(-1, I) @ w["weight_ih"].T + w["bias_ih"]
    from_x = from_x.reshape(T, B, from_x.shape[1])
    state, kept = start, []
    for s in range(T):
        running = s < lengths
        t = np.where(running, lengths - 1 - s if reverse else s, 0)
        # Coming from the end, a row is in another sequence once it has passed that one's start.
        edge = reset[np.minimum(t + 1, T - 1), rows] if reverse else reset[t, rows]
        anew = (edge & running & (s > 0))[:, None]
        old = tuple(np.where(anew, a, b) for a, b in zip(start, state, strict=True))
        new, saved = step.forward(w, from_x[t, rows], old)
        runs = running[:, None]
        state = tuple(np.where(runs, a, b) for a, b in zip(new, state, strict=True))
        y[t[running], rows[running]] = new[0][running]
        kept.append((running, t, anew, saved))

    def backward(dy: Any, d_final: State) -> tuple[Any, State, dict[str, Any]]:
        gradients = {name: np.zeros_like(value) for name, value in w.items()}
        sums = np.zeros_like(from_x)
        d_start = tuple(np.zeros_like(part) for part in start)
        d_state = d_final
        for running, t, anew, saved in reversed(kept):
            runs = running[:, None]
            arrived = (d_state[0] + dy[t, rows], *d_state[1:])
            arrived = tuple(np.where(runs, part, 0) for part in arrived)
            d_sums, d_old = step.backward(w, saved, arrived, gradients)
            sums[t[running], rows[running]] = d_sums[running]
            for part, d in zip(d_start, d_old, strict=True):
                part += np.where(anew & runs, d, 0)
            d_old = tuple(np.where(anew, 0, d) for d in d_old)
            d_state = tuple(np.where(runs, a, b) for a, b in zip(d_old, d_state, strict=True))
        flat = sums.reshape(T * B, -1)
        gradients["weight_ih"] = flat.T @ x.reshape(T * B, I)
        gradients["bias_ih"] = flat.sum(axis=0)
        d_start = tuple(a + b for a, b in zip(d_start, d_state, strict=True))
        return (flat @ w["weight_ih"]).reshape(x.shape), d_start, gradients

    return Found(y, state, backward)
