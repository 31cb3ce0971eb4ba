"""The truth that every contender is compared with: one layer in plain NumPy, and its gradient.

T time steps, B batch, I input size, H hidden size, G gates. Every cell here is two functions
of the halves of its gates' pre-activations, (B, G*H) each:

    from_x = W x_t + b_ih          from_h = R h_{t-1} + b_hh

which are kept apart because the GRU's candidate scales one of them. Names, gate order and
weight layout are PyTorch's. Computed in whatever dtype the arrays have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn_kernels.cells import functions, registry
from fastrnn_kernels.cells.cell import Cell as Equations

Array = NDArray[np.floating[Any]]
State = tuple[Array, ...]


def _sigmoid(a: Array) -> Array:
    # 1 / (1 + exp(-a)) without the overflow
    sigmoid: Array = 0.5 * (1 + np.tanh(0.5 * a))
    return sigmoid


def _split(a: Array, gates: int) -> list[Array]:
    return np.split(a, gates, axis=-1)


def rnn(from_x: Array, from_h: Array, state: State) -> tuple[State, State]:
    """Elman 1990: h' = tanh(from_x + from_h)."""
    h = np.tanh(from_x + from_h)
    return (h,), (h,)


def rnn_backward(saved: State, dstate: State) -> tuple[Array, Array, State]:
    """Through tanh: da = dh' (1 - h'^2); h reaches h' by `from_h` only."""
    (h,) = saved
    (dh,) = dstate
    da = dh * (1 - h**2)
    return da, da, (np.zeros_like(dh),)


def lstm(from_x: Array, from_h: Array, state: State) -> tuple[State, State]:
    """Gers et al. 2000, Sec. 3: i, f, o = sigmoid, g = tanh; c' = f c + i g, h' = o tanh(c')."""
    _, c = state
    i, f, g, o = _split(from_x + from_h, 4)
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    c_new = f * c + i * g
    tanh_c = np.tanh(c_new)
    return (o * tanh_c, c_new), (i, f, g, o, c, tanh_c)


def lstm_backward(saved: State, dstate: State) -> tuple[Array, Array, State]:
    """What comes through h' = o tanh(c') joins dc; then each gate through its activation."""
    i, f, g, o, c, tanh_c = saved
    dh, dc = dstate
    dc = dc + dh * o * (1 - tanh_c**2)
    di = dc * g * i * (1 - i)
    df = dc * c * f * (1 - f)
    dg = dc * i * (1 - g**2)
    do = dh * tanh_c * o * (1 - o)
    da = np.concatenate([di, df, dg, do], axis=-1)
    return da, da, (np.zeros_like(dh), dc * f)


def gru(from_x: Array, from_h: Array, state: State) -> tuple[State, State]:
    """Cho et al. 2014, Sec. 2.3: r, z = sigmoid, n = tanh(n_x + r n_h); h' = (1 - z) n + z h."""
    (h,) = state
    r_x, z_x, n_x = _split(from_x, 3)
    r_h, z_h, n_h = _split(from_h, 3)
    r, z = _sigmoid(r_x + r_h), _sigmoid(z_x + z_h)
    n = np.tanh(n_x + r * n_h)
    return ((1 - z) * n + z * h,), (r, z, n, n_h, h)


def gru_backward(saved: State, dstate: State) -> tuple[Array, Array, State]:
    """The candidate's two halves part here: n_h meets n only through r."""
    r, z, n, n_h, h = saved
    (dh,) = dstate
    dn = dh * (1 - z) * (1 - n**2)
    dr = dn * n_h * r * (1 - r)
    dz = dh * (h - n) * z * (1 - z)
    from_x = np.concatenate([dr, dz, dn], axis=-1)
    from_h = np.concatenate([dr, dz, dn * r], axis=-1)
    return from_x, from_h, (dh * z,)


class Cell(NamedTuple):
    """A cell's equations and their derivative."""

    forward: Callable[[Array, Array, State], tuple[State, State]]
    backward: Callable[[State, State], tuple[Array, Array, State]]


#: The cells whose truth is written by hand; the others' are the equations of the kernels.
CELLS = {
    "rnn": Cell(rnn, rnn_backward),
    "lstm": Cell(lstm, lstm_backward),
    "gru": Cell(gru, gru_backward),
}


def cell_of(name: str) -> Cell:
    """The truth of a cell of the registry without late gates or parameters per unit."""
    return CELLS.get(name) or of_equations(registry.CELLS[name].cell)


def of_equations(cell: Equations) -> Cell:
    """The kernels' own equations, computed by NumPy.

    What the kernels do around them is compared with this; the equations are the tests' to hold.
    """
    step, derivative = _in_numpy(cell.forward), _in_numpy(cell.backward)
    G, saves = len(cell.gates), len(cell.saved)

    def forward(from_x: Array, from_h: Array, state: State) -> tuple[State, State]:
        x, h = (dict(zip(cell.gates, _split(a, G), strict=True)) for a in (from_x, from_h))
        parts = {f"{g}_x": x[g] for g in cell.apart} | {f"{g}_h": h[g] for g in cell.apart}
        sums = {g: x[g] + h[g] for g in cell.gates} | parts
        new, saved = step(tuple(sums[name] for name in cell.sums), state)
        return tuple(new), (*saved, *state)

    def backward(saved: State, dstate: State) -> tuple[Array, Array, State]:
        d_sums, d_old = derivative(dstate, saved[:saves], saved[saves:])
        by_name = dict(zip(cell.sums, d_sums, strict=True))

        def side(part: str) -> Array:
            names = [f"{g}_{part}" if g in cell.apart else g for g in cell.gates]
            return np.concatenate([by_name[name] for name in names], axis=-1)

        return side("x"), side("h"), tuple(d_old)

    return Cell(forward, backward)


#: The functions that equations are written in, of arrays.
_FUNCTIONS: dict[Any, Any] = {
    functions.exp: np.exp,
    functions.sigmoid: _sigmoid,
    functions.tanh: np.tanh,
    functions.relu: lambda a: np.maximum(a, 0),
    functions.where_at_most: lambda a, b, then, otherwise: np.where(a <= b, then, otherwise),
    functions.one: np.ones_like,
    functions.zero: np.zeros_like,
}


def _in_numpy(function: Any) -> Callable[..., Any]:
    """A jitted function of numbers as a plain one of arrays, with what it calls."""
    plain = function.py_func
    found = {}
    for name in plain.__globals__.keys() & plain.__code__.co_names:
        value = plain.__globals__[name]
        known = _in_numpy(value) if hasattr(value, "py_func") else _FUNCTIONS.get(value, value)
        found[name] = known
    return FunctionType(plain.__code__, found, plain.__name__, closure=plain.__closure__)


class Tape(NamedTuple):
    """What the backward pass needs: the inputs, h before every step, what each step saved."""

    x: Array
    h_before: list[Array]
    saved: list[State]
    lengths: NDArray[np.int64] | None


def forward(
    cell: str,
    weights: Mapping[str, Array],
    x: Array,
    state: State,
    lengths: NDArray[np.int64] | None = None,
) -> tuple[Array, State, Tape]:
    """Run one layer over whole sequences.

    Args:
        cell: its name, "lstm".
        weights: weight_ih (G*H, I), weight_hh (G*H, H), bias_ih (G*H,), bias_hh (G*H,).
        x (T, B, I): the sequences.
        state: initial h (B, H), and c for an LSTM.
        lengths (B,): steps of each sequence; beyond them y is 0 and the state stays.

    Returns:
        y (T, B, H), the final state, and the tape for `backward`.
    """
    T, B, I = x.shape
    H = weights["weight_hh"].shape[1]
    step = cell_of(cell).forward
    from_x = x.reshape(T * B, I) @ weights["weight_ih"].T + weights["bias_ih"]
    from_x = from_x.reshape(T, B, -1)
    y = np.zeros((T, B, H), x.dtype)
    tape = Tape(x, [], [], lengths)
    for t in range(T):
        from_h = state[0] @ weights["weight_hh"].T + weights["bias_hh"]
        new, saved = step(from_x[t], from_h, state)
        tape.h_before.append(state[0])
        tape.saved.append(saved)
        if lengths is None:
            state, y[t] = new, new[0]
        else:
            runs = (t < lengths)[:, None]
            state = tuple(np.where(runs, a, b) for a, b in zip(new, state, strict=True))
            y[t] = np.where(runs, new[0], 0)
    return y, state, tape


def backward(
    cell: str, weights: Mapping[str, Array], tape: Tape, dy: Array, dstate: State
) -> tuple[Array, State, dict[str, Array]]:
    """Backpropagate through time (Werbos 1990).

    Args:
        cell: its name, "lstm".
        weights: as in `forward`.
        tape: what `forward` gave.
        dy (T, B, H): gradient that arrives at the outputs; ignored beyond a sequence's length.
        dstate: gradient that arrives at the final state.

    Returns:
        Gradients of x (T, B, I), of the initial state, and of each weight by its name.
    """
    T, B, I = tape.x.shape
    rows, H = weights["weight_hh"].shape
    step = cell_of(cell).backward
    da_x = np.zeros((T, B, rows), dy.dtype)
    da_h = np.zeros((T, B, rows), dy.dtype)
    for t in reversed(range(T)):
        da_x[t], da_h[t], old = step(tape.saved[t], (dstate[0] + dy[t], *dstate[1:]))
        old = (old[0] + da_h[t] @ weights["weight_hh"], *old[1:])
        if tape.lengths is None:
            dstate = old
        else:
            runs = (t < tape.lengths)[:, None]
            da_x[t] *= runs
            da_h[t] *= runs
            dstate = tuple(np.where(runs, a, b) for a, b in zip(old, dstate, strict=True))
    all_x, all_h = da_x.reshape(T * B, rows), da_h.reshape(T * B, rows)
    gradients = {
        "weight_ih": all_x.T @ tape.x.reshape(T * B, I),
        "weight_hh": all_h.T @ np.concatenate(tape.h_before).reshape(T * B, H),
        "bias_ih": all_x.sum(axis=0),
        "bias_hh": all_h.sum(axis=0),
    }
    return (all_x @ weights["weight_ih"]).reshape(T, B, I), dstate, gradients
