"""The plain truth: RNN, LSTM and GRU in NumPy, one step and one row at a time.

Nothing here is fast and nothing is shared with the library. Every test of a value compares
with these functions (in float64), every test of a gradient with `finite_differences` of them.
States are tuples: `(h,)` for RNN and GRU, `(h, c)` for LSTM. To a step a weight is as it multiplies
a row, `x @ w["weight_ih"]`.

Any array may have an axis more in front, for problems that differ in it alone: all results then
have it. So a finite difference moves every element of an array in one call.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
State = tuple[Array, ...]

#: Half the step of a central difference. With values and third derivatives of order 1 the
#: error is step² / 6 = 2e-11 from the formula and 1e-16 / step = 1e-11 from rounding.
STEP = 1e-5


def sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), from the smaller exponential, which cannot overflow."""
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1 / (1 + e), e / (1 + e))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
}


def rnn_step(w: dict[str, Array], x: Array, state: State, nonlinearity: str = "tanh") -> Any:
    """Elman 1990: h' = tanh(W x + b_ih + R h + b_hh)."""
    (h,) = state
    a = x @ w["weight_ih"] + w["bias_ih"] + h @ w["weight_hh"] + w["bias_hh"]
    h = ACTIVATIONS[nonlinearity](a)
    return (h,), {"h": h}


def lstm_step(w: dict[str, Array], x: Array, state: State) -> Any:
    """Gers, Schmidhuber and Cummins 2000, without peepholes; projection as in Sak et al. 2014.

    i, f, o = sigmoid(...), g = tanh(...), c' = f c + i g, h' = o tanh(c')
    """
    h, c = state
    a = x @ w["weight_ih"] + w["bias_ih"] + h @ w["weight_hh"] + w["bias_hh"]
    i, f, g, o = np.split(a, 4, axis=-1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    c = f * c + i * g
    h = o * np.tanh(c)
    if "weight_hr" in w:
        h = h @ w["weight_hr"]
    return (h, c), {"i": i, "f": f, "g": g, "o": o, "c": c}


def gru_step(w: dict[str, Array], x: Array, state: State, reset_after: bool = True) -> Any:
    """Cho et al. 2014, h' = (1 - z) n + z h, with the reset gate applied

    after the product:   n = tanh(W_n x + b_in + r (R_n h + b_hn))
    or before it:        n = tanh(W_n x + b_in + R_n (r h) + b_hn)
    """
    (h,) = state
    xr, xz, xn = np.split(x @ w["weight_ih"] + w["bias_ih"], 3, axis=-1)
    R_r, R_z, R_n = np.split(w["weight_hh"], 3, axis=-1)
    b_hr, b_hz, b_hn = np.split(w["bias_hh"], 3, axis=-1)
    r = sigmoid(xr + h @ R_r + b_hr)
    z = sigmoid(xz + h @ R_z + b_hz)
    recurrent = r * (h @ R_n + b_hn) if reset_after else (r * h) @ R_n + b_hn
    n = np.tanh(xn + recurrent)
    h = (1 - z) * n + z * h
    return (h,), {"r": r, "z": z, "n": n}


STEPS = {"RNN": rnn_step, "LSTM": lstm_step, "GRU": gru_step}
#: How many states there are beside h, where there are any.
MORE_STATES = {"LSTM": 1}


def weights_of(parameters: dict[str, Array], suffix: str = "") -> dict[str, Array]:
    """The weights of one direction of one layer (suffix `_l0`, `_l0_reverse`) or of a cell.

    As a step takes them: matrices with a column to a unit. A bias that is not there is zero.
    """
    w = {}
    for name, value in parameters.items():
        if name.endswith(suffix):
            name, value = name.removesuffix(suffix), value.astype(np.float64)
            if name in ("weight_ih", "weight_hh", "weight_hr"):
                w[name] = value.swapaxes(-1, -2)
            else:
                w[name] = value if value.ndim == 1 else value[:, None]
    for name in ("ih", "hh"):  # there is no R where no gate has one
        matrix = w.get(f"weight_{name}", np.empty((0, 0)))
        w.setdefault(f"bias_{name}", np.zeros(matrix.shape[-1]))
    return w


def segments(length: int, reset: Array) -> list[range]:
    """The time steps of one row, cut right before every step that `reset` marks."""
    starts = [0, *(t for t in range(1, length) if reset[t])]
    ends = [*starts[1:], length]
    return [range(start, end) for start, end in zip(starts, ends, strict=True)]


def direction(
    step: Callable[..., Any],
    w: dict[str, Array],
    x: Array,
    initial: State,
    lengths: Sequence[int],
    reset: Array,
    reverse: bool,
    **options: Any,
) -> tuple[Array, State, dict[str, Array]]:
    """One direction of one layer: x (..., T, B, I), initial states (..., B, H), reset (T, B).

    Every segment of a row starts from the row's initial state, at the segment's first
    step, or at its last when `reverse`. What is padding stays 0.
    """
    *more, T, B, _ = x.shape
    y = np.zeros((*more, T, B, initial[0].shape[-1]))
    final = tuple(np.zeros((*more, *s.shape[-2:])) for s in initial)
    gates: dict[str, Array] = {}
    for b in range(B):
        pieces = segments(lengths[b], reset[:, b])
        row = slice(b, b + 1)
        for piece in reversed(pieces) if reverse else pieces:
            state = tuple(s[..., row, :] for s in initial)
            for t in reversed(piece) if reverse else piece:
                state, values = step(w, x[..., t, row, :], state, **options)
                y[..., t, row, :] = state[0]
                for name, value in values.items():
                    kept = gates.setdefault(name, np.zeros((*more, T, B, value.shape[-1])))
                    kept[..., t, row, :] = value
        for whole, last in zip(final, state, strict=True):
            whole[..., row, :] = last
    return y, final, gates


def layer(
    kind: str,
    parameters: dict[str, Array],
    x: Array,
    state: State | None = None,
    lengths: Sequence[int] | None = None,
    reset: Array | None = None,
    masks: Sequence[Array] = (),
    **options: Any,
) -> tuple[Array, State, list[dict[str, Array]]]:
    """A stack of layers in one or two directions, named as in `state_dict`; x (T, B, I).

    `masks[k]` (T, B, D*H) multiplies the output of layer k before layer k + 1 reads it;
    `options` are the cell's own. Returns the output (T, B, D*H), the final states
    (layers*D, B, H) and the gates of each layer and direction.
    """
    T, B = x.shape[-3:-1]
    suffixes = [""] + ["_reverse"] * ("weight_ih_l0_reverse" in parameters)
    num_layers = sum(f"weight_ih_l{k}" in parameters for k in range(len(parameters)))
    if state is None:
        state = zero_state(kind, parameters, num_layers * len(suffixes), B)
    lengths = [T] * B if lengths is None else lengths
    reset = np.zeros((T, B), bool) if reset is None else reset

    weights = [weights_of(parameters, f"_l{k}{s}") for k in range(num_layers) for s in suffixes]
    more = np.broadcast_shapes(
        *(array.shape[:-3] for array in (x, *state)),
        *(array.shape[:-2] for w in weights for array in w.values()),
    )
    y = np.broadcast_to(x.astype(np.float64), (*more, *x.shape[-3:]))
    finals, gates = [], []
    for k in range(num_layers):
        outputs = []
        for suffix in suffixes:
            output, final, values = direction(
                STEPS[kind],
                weights[len(finals)],
                y,
                tuple(s[..., len(finals), :, :].astype(np.float64) for s in state),
                lengths,
                reset,
                reverse=suffix != "",
                **options,
            )
            outputs.append(output)
            finals.append(final)
            gates.append(values)
        y = np.concatenate(outputs, axis=-1)  # (T, B, D*H)
        if k < len(masks):
            y = y * masks[k]
    return y, tuple(np.stack(parts, axis=-3) for parts in zip(*finals, strict=True)), gates


def zero_state(kind: str, parameters: dict[str, Array], count: int, B: int) -> State:
    """Zeros for h (count, B, P) and, for an LSTM, c (count, B, H)."""
    P = parameters["weight_hh_l0"].shape[-1]
    H = parameters["weight_hr_l0"].shape[-1] if "weight_hr_l0" in parameters else P
    more = MORE_STATES.get(kind, 0)
    return np.zeros((count, B, P)), *(np.zeros((count, B, H)) for _ in range(more))


def finite_differences(
    loss: Callable[[dict[str, Array]], Any], given: dict[str, Array]
) -> dict[str, Array]:
    """The gradients of `loss(given)`, for every element of every array.

    (loss(a + step) - loss(a - step)) / (2 step); all elements of an array are moved in one call,
    each along a place of its own of an axis in front, which the losses have, too.
    """
    found = {}
    for name, array in given.items():
        steps = STEP * np.eye(array.size).reshape(array.size, *array.shape)
        above, below = (loss(given | {name: array + moved}) for moved in (steps, -steps))
        found[name] = ((above - below) / (2 * STEP)).reshape(array.shape)
    return found


def inner(values: Sequence[Array], others: Sequence[Array]) -> Any:
    """The sum of all products, a loss whose gradients of the values are the others."""
    pairs = zip(values, others, strict=True)
    return sum(np.sum(a * d, axis=tuple(range(-d.ndim, 0))) for a, d in pairs)
