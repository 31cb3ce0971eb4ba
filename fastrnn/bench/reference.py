"""The truth that every contender is compared with: one layer in plain NumPy, and its gradient.

T time steps, B batch, I input size, H hidden size, G gates, GH of them with an h-part. Every cell
here is two functions of the halves of its gates' pre-activations, (B, G*H) and (B, GH*H):

    from_x = W x_t + b_ih          from_h = R h_{t-1} + b_hh

which are kept apart because the GRU's candidate scales one of them. Names, gate order and
weight layout are PyTorch's. Computed in whatever dtype the arrays have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn.bench.equations import sums, written_with
from fastrnn.models.classes import entry_of
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


class Late(NamedTuple):
    """The gates whose R multiplies another value than h.

    Attributes:
        places: theirs among the rows of weight_hh, counted in gates.
        inner: the value, of from_x, from_h of the other gates, and the old states.
        backward: the gradients of their sums, of what was saved and those of the new states.
    """

    places: tuple[int, ...]
    inner: Callable[[Array, Array, State], Array]
    backward: Callable[[State, State], Array]


class Cell(NamedTuple):
    """A cell's equations and their derivative.

    The parameters of each unit stand behind the old states, and their gradients behind those; the
    backward pass of a cell with late gates is also given the gradient of what those multiply.
    """

    forward: Callable[[Array, Array, State], tuple[State, State]]
    backward: Callable[..., tuple[Array, Array, State]]
    per_unit: tuple[str, ...] = ()
    late: Late | None = None


#: The cells whose truth is written by hand; the others' are the equations of the kernels.
CELLS = {
    "rnn": Cell(rnn, rnn_backward),
    "lstm": Cell(lstm, lstm_backward),
    "gru": Cell(gru, gru_backward),
}


def cell_of(name: str) -> Cell:
    """The truth of a cell."""
    return CELLS.get(name) or of_equations(entry_of(name).cell)


#: The functions that equations are written in, of arrays.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(np, name)
    for name in ("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "absolute")
} | {
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "sigmoid": _sigmoid,
    "relu": lambda a: np.maximum(a, 0),
    "softplus": lambda a: np.logaddexp(a, 0),
    "where_at_most": lambda a, b, then, otherwise: np.where(a <= b, then, otherwise),
    "number": lambda like, value: value,
    "one": lambda like: 1.0,
    "zero": lambda like: 0.0,
}


def of_equations(cell: Equations) -> Cell:
    """The kernels' own equations, computed by NumPy.

    What the kernels do around them is compared with this; the equations are the tests' to hold.
    """
    step, derivative = (written_with(_FUNCTIONS, f) for f in (cell.forward, cell.backward))
    saves, early = len(cell.saved), [gate for gate in cell.recurrent if gate not in cell.late]

    def given(from_x: Array, from_h: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        x = dict(zip(cell.gates, _split(from_x, cell.G), strict=True))
        h = _split(from_h, cell.GH) if cell.GH else []
        return x, dict(zip(cell.recurrent, h, strict=True))

    def forward(from_x: Array, from_h: Array, old: State) -> tuple[State, State]:
        new, saved = step(sums(cell, *given(from_x, from_h)), old)
        return tuple(_like(value, old[0]) for value in new), (*saved, *old)

    def backward(saved: State, dstate: State, *d_inner: Array) -> tuple[Array, Array, State]:
        kept, old = saved[:saves], saved[saves:]
        d_sums, d_old = derivative(dstate, kept, old, *d_inner)
        if cell.late:
            d_sums = (*d_sums, *late_sums(dstate, kept, old))
        by_name = {
            name: _like(value, old[0]) for name, value in zip(cell.sums, d_sums, strict=True)
        }

        def side(part: str, gates: tuple[str, ...]) -> Array:
            names = [f"{gate}_{part}" if gate in cell.apart else gate for gate in gates]
            none = np.zeros((len(old[0]), 0), old[0].dtype)
            return np.concatenate([none, *(by_name[name] for name in names)], axis=-1)

        found = tuple(_like(value, old[0]) for value in d_old)
        return side("x", cell.gates), side("h", cell.recurrent), found

    if not cell.late:
        return Cell(forward, backward, cell.per_unit)
    value, late_sums = (written_with(_FUNCTIONS, f) for f in (cell.inner, cell.late_backward))

    def inner(from_x: Array, from_h: Array, old: State) -> Array:
        x, h = given(from_x, from_h)
        found: Array = value(sums(cell, x, {gate: h[gate] for gate in early}), old)
        return found

    def late_backward(saved: State, dstate: State) -> Array:
        return np.concatenate(late_sums(dstate, saved[:saves], saved[saves:]), axis=-1)

    places = tuple(cell.recurrent.index(gate) for gate in cell.late)
    return Cell(forward, backward, cell.per_unit, Late(places, inner, late_backward))


def _like(value: Any, state: Array) -> Array:
    """A value for each row and unit, where equations have a number or one for each unit."""
    return np.broadcast_to(np.asarray(value, state.dtype), state.shape)


class _Products:
    """R, and which rows of it multiply h or, of late gates, another value."""

    def __init__(self, cell: Cell, weights: Mapping[str, Array], H: int) -> None:
        none = np.zeros((0, H), weights["weight_ih"].dtype)
        self.R, self.bias = weights.get("weight_hh", none), weights.get("bias_hh", none[:, 0])
        self.late = np.zeros(len(self.R), bool)
        for gate in cell.late.places if cell.late else ():
            self.late[gate * H : (gate + 1) * H] = True
        #: of all rows, or copies of some
        self.R_early = self.R[~self.late] if cell.late else self.R
        self.R_late = self.R[self.late]

    def early(self, h: Array) -> Array:
        """from_h; of late gates it has nothing yet."""
        if self.R_early is self.R:
            return h @ self.R.T + self.bias
        found = np.zeros((len(h), len(self.R)), h.dtype)
        found[:, ~self.late] = h @ self.R_early.T + self.bias[~self.late]
        return found


class Tape(NamedTuple):
    """What the backward pass needs: the inputs, h and what late gates multiply, and what is saved.

    The lists have an entry for each step; `inner` is empty for cells without late gates.
    """

    x: Array
    h_before: list[Array]
    inner: list[Array]
    saved: list[State]
    lengths: NDArray[np.int64] | None


def forward(
    name: str,
    weights: Mapping[str, Array],
    x: Array,
    state: State,
    lengths: NDArray[np.int64] | None = None,
) -> tuple[Array, State, Tape]:
    """Run one layer over whole sequences.

    Args:
        name: the cell's, "lstm".
        weights: weight_ih (G*H, I), weight_hh (GH*H, H), bias_ih (G*H,), bias_hh (GH*H,), and the
            parameters (H,) of each unit.
        x (T, B, I): the sequences.
        state: initial h (B, H), and c for an LSTM.
        lengths (B,): steps of each sequence; beyond them y is 0 and the state stays.

    Returns:
        y (T, B, H), the final state, and the tape for `backward`.
    """
    T, B, I = x.shape
    H = state[0].shape[1]
    cell = cell_of(name)
    products, units = _Products(cell, weights, H), tuple(weights[one] for one in cell.per_unit)
    from_x = x.reshape(T * B, I) @ weights["weight_ih"].T + weights["bias_ih"]
    from_x = from_x.reshape(T, B, -1)
    y = np.zeros((T, B, H), x.dtype)
    tape = Tape(x, [], [], [], lengths)
    for t in range(T):
        old = (*state, *units)
        from_h = products.early(state[0])
        if cell.late:
            inner = cell.late.inner(from_x[t], from_h, old)
            from_h[:, products.late] = inner @ products.R_late.T + products.bias[products.late]
            tape.inner.append(inner)
        new, saved = cell.forward(from_x[t], from_h, old)
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
    name: str, weights: Mapping[str, Array], tape: Tape, dy: Array, dstate: State
) -> tuple[Array, State, dict[str, Array]]:
    """Backpropagate through time (Werbos 1990).

    Args:
        name: the cell's, "lstm".
        weights: as in `forward`.
        tape: what `forward` gave.
        dy (T, B, H): gradient that arrives at the outputs; ignored beyond a sequence's length.
        dstate: gradient that arrives at the final state.

    Returns:
        Gradients of x (T, B, I), of the initial state, and of each weight by its name.
    """
    T, B, I = tape.x.shape
    H = dy.shape[2]
    cell = cell_of(name)
    products = _Products(cell, weights, H)
    da_x = np.zeros((T, B, len(weights["weight_ih"])), dy.dtype)
    da_h = np.zeros((T, B, len(products.R)), dy.dtype)
    d_units = np.zeros((len(cell.per_unit), H), dy.dtype)
    for t in reversed(range(T)):
        arriving = (dstate[0] + dy[t], *dstate[1:])
        d_inner = []
        if cell.late:
            d_inner = [cell.late.backward(tape.saved[t], arriving) @ products.R_late]
        da_x[t], da_h[t], d_old = cell.backward(tape.saved[t], arriving, *d_inner)
        to_h = da_h[t][:, ~products.late] if cell.late else da_h[t]
        old = (d_old[0] + to_h @ products.R_early, *d_old[1 : len(dstate)])
        more = d_old[len(dstate) :]
        if tape.lengths is None:
            dstate = old
        else:
            runs = (t < tape.lengths)[:, None]
            da_x[t] *= runs
            da_h[t] *= runs
            more = tuple(one * runs for one in more)
            dstate = tuple(np.where(runs, a, b) for a, b in zip(old, dstate, strict=True))
        for k, one in enumerate(more):
            d_units[k] += one.sum(axis=0)
    all_x, all_h = da_x.reshape(T * B, -1), da_h.reshape(T * B, -1)
    dR = all_h.T @ np.concatenate(tape.h_before).reshape(T * B, H)
    if cell.late:
        dR[products.late] = all_h[:, products.late].T @ np.concatenate(tape.inner)
    found = {
        "weight_ih": all_x.T @ tape.x.reshape(T * B, I),
        "weight_hh": dR,
        "bias_ih": all_x.sum(axis=0),
        "bias_hh": all_h.sum(axis=0),
        **dict(zip(cell.per_unit, d_units, strict=True)),
    }
    gradients = {one: value for one, value in found.items() if one in weights}
    return (all_x @ weights["weight_ih"]).reshape(T, B, I), dstate, gradients
