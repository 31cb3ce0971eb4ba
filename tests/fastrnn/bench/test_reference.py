"""The benchmark's truth against finite differences of itself, and against the equations by hand."""

from unittest import mock

import numpy as np
import pytest

from fastrnn.bench import reference
from fastrnn.cells import FILES
from fastrnn.models.classes import entry_of
from fastrnn_kernels.cells import registry

#: Truths by hand and by the kernels' equations.
CELLS = [*(name for name, entry in registry.CELLS.items() if not entry.defined), *FILES]
T, B, I, H = 4, 3, 2, 5
STEP = 1e-6


def gates(cell):
    return entry_of(cell).cell.G


def problem(cell):
    draw = np.random.default_rng(3)
    equations = entry_of(cell).cell
    rows, of_h = equations.G * H, equations.GH * H
    arrays = {
        "weight_ih": draw.normal(size=(rows, I)),
        "weight_hh": draw.normal(size=(of_h, H)),
        "bias_ih": draw.normal(size=rows),
        "bias_hh": draw.normal(size=of_h),
        **{name: draw.normal(size=H) for name in equations.per_unit},
        "x": draw.normal(size=(T, B, I)),
        # an sLSTM divides by its state n
        **{f"{s}0": abs(draw.normal(size=(B, H))) + (s == "n") for s in equations.states},
    }
    dy = draw.normal(size=(T, B, H))
    dstate = tuple(draw.normal(size=(B, H)) for _ in equations.states)
    return arrays, dy, dstate


def parts(arrays):
    names = list(arrays)
    at = names.index("x")
    weights = {name: arrays[name] for name in names[:at]}
    state = tuple(arrays[name] for name in names[at + 1 :])
    return weights, arrays["x"], state


def objective(cell, arrays, dy, dstate, lengths):
    y, state, _ = reference.forward(cell, *parts(arrays), lengths)
    return np.sum(y * dy) + sum(np.sum(a * b) for a, b in zip(state, dstate, strict=True))


@pytest.mark.parametrize("lengths", [None, np.array([4, 0, 2])], ids=["full", "ragged"])
@pytest.mark.parametrize("cell", CELLS)
def test_every_gradient_equals_finite_differences(cell, lengths):
    arrays, dy, dstate = problem(cell)
    weights, x, state = parts(arrays)
    _, _, tape = reference.forward(cell, weights, x, state, lengths)
    dx, dstate0, gradients = reference.backward(cell, weights, tape, dy, dstate)
    states = [f"{name}0" for name in entry_of(cell).cell.states]
    found = gradients | {"x": dx} | dict(zip(states, dstate0, strict=True))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        expected = np.empty_like(array)
        for at in np.ndindex(array.shape):
            value = array[at]
            array[at] = value + STEP
            above = objective(cell, arrays, dy, dstate, lengths)
            array[at] = value - STEP
            below = objective(cell, arrays, dy, dstate, lengths)
            array[at] = value
            expected[at] = (above - below) / (2 * STEP)
        # central differences: truncation STEP^2, rounding 1e-16 / STEP times values of some 10
        scale = max(1, np.max(np.abs(expected), initial=0))
        np.testing.assert_allclose(found[name] / scale, expected / scale, rtol=0, atol=1e-7)


def test_padding_is_zero_and_keeps_the_state():
    arrays, _, _ = problem("lstm")
    weights, x, state = parts(arrays)
    lengths = np.array([4, 0, 2])
    y, state_n, _ = reference.forward("lstm", weights, x, state, lengths)
    assert not y[:, 1].any()
    assert not y[2:, 2].any()
    np.testing.assert_array_equal(state_n[1][1], state[1][1])
    short, short_n, _ = reference.forward("lstm", weights, x[:2], state)
    np.testing.assert_array_equal(y[:2, 2], short[:, 2])
    np.testing.assert_array_equal(state_n[0][2], short_n[0][2])


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def step(cell, weights, x, h, c):
    """One unit's equations, with scalars, straight from the papers."""
    W, R = weights["weight_ih"], weights["weight_hh"]
    new_h, new_c = np.zeros(H), np.zeros(H)
    for unit in range(H):
        rows = [gate * H + unit for gate in range(gates(cell))]
        a = [W[row] @ x + weights["bias_ih"][row] for row in rows]
        b = [R[row] @ h + weights["bias_hh"][row] for row in rows]
        if cell == "rnn":
            new_h[unit] = np.tanh(a[0] + b[0])
        elif cell == "rnn-relu":
            new_h[unit] = max(a[0] + b[0], 0)
        elif cell == "lstm":
            i, f, o = (sigmoid(a[k] + b[k]) for k in (0, 1, 3))
            new_c[unit] = f * c[unit] + i * np.tanh(a[2] + b[2])
            new_h[unit] = o * np.tanh(new_c[unit])
        else:
            r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
            new_h[unit] = (1 - z) * np.tanh(a[2] + r * b[2]) + z * h[unit]
    return new_h, new_c


@pytest.mark.parametrize("cell", reference.CELLS)
def test_the_kernels_equations_by_numpy_are_those_by_hand(cell):
    arrays, dy, dstate = problem(cell)
    weights, x, state = parts(arrays)
    found = []
    for one in (reference.CELLS[cell], reference.of_equations(registry.CELLS[cell].cell)):
        with mock.patch.dict(reference.CELLS, {cell: one}):
            y, final, tape = reference.forward(cell, weights, x, state)
            dx, d_start, gradients = reference.backward(cell, weights, tape, dy, dstate)
        found.append([y, *final, dx, *d_start, *gradients.values()])
    for mine, its in zip(*found, strict=True):
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-12)  # sums of some 10 values of 10


@pytest.mark.parametrize("cell", ["rnn", "rnn-relu", "lstm", "gru"])
def test_outputs_equal_the_equations_unit_by_unit(cell):
    arrays, _, _ = problem(cell)
    weights, x, state = parts(arrays)
    y, _, _ = reference.forward(cell, weights, x, state)
    for b in range(B):
        h, c = state[0][b], state[-1][b]
        for t in range(T):
            h, c = step(cell, weights, x[t, b], h, c)
            np.testing.assert_allclose(y[t, b], h, rtol=0, atol=1e-14)
