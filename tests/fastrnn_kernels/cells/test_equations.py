"""The cells' scalar equations: each backward against differences of its forward."""

import numpy as np
import pytest

import fastrnn_kernels.cpu  # noqa: F401  (registers the CPU's forms of exp, sigmoid, tanh)
from fastrnn_kernels.cells import registry
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.gru import GRU, GRU_RESET_BEFORE
from fastrnn_kernels.cells.lstm import LSTM

CELLS = [entry.cell for entry in registry.CELLS.values() if not entry.defined]
STEP = 1e-6
#: Central differences in float64: STEP² of truncation and 1e-16 / STEP of rounding.
TOLERANCE = 1e-8


def loss(cell, sums, states, weights):
    new, _ = cell.forward(tuple(sums), tuple(states))
    return float(np.dot(weights, new))


def differences(function, values):
    gradient = np.zeros(len(values))
    for k in range(len(values)):
        up, down = list(values), list(values)
        up[k] += STEP
        down[k] -= STEP
        gradient[k] = (function(up) - function(down)) / (2 * STEP)
    return gradient


@pytest.mark.smoke
@pytest.mark.parametrize("cell", [c for c in CELLS if not c.late], ids=lambda cell: cell.name)
def test_backward_is_the_derivative_of_forward(cell):
    rng = np.random.default_rng(0)
    for _ in range(20):
        sums, states = rng.normal(size=cell.S), rng.normal(size=cell.N + cell.Q)
        weights = rng.normal(size=len(cell.states))
        new, saved = cell.forward(tuple(sums), tuple(states))
        assert len(new) == len(cell.states)
        assert len(saved) == len(cell.saved)
        d_sums, d_states = cell.backward(tuple(weights), saved, tuple(states))
        by_sums = differences(lambda s: loss(cell, s, states, weights), sums)  # noqa: B023
        by_states = differences(lambda s: loss(cell, sums, s, weights), states)  # noqa: B023
        np.testing.assert_allclose(d_sums, by_sums, atol=TOLERANCE)
        np.testing.assert_allclose(d_states, by_states, atol=TOLERANCE)


def test_backward_in_two_steps_is_the_derivative_too():
    """Reset before the product, with R = (1) of one unit: a_n = b + r h."""
    cell, rng = GRU_RESET_BEFORE, np.random.default_rng(1)

    def run(values):
        a_r, a_z, b, h = values
        inner = cell.inner((a_r, a_z), (h,))
        return cell.forward((a_r, a_z, b + inner), (h,))

    for _ in range(20):
        values = rng.normal(size=4)
        _, saved = run(values)
        (da_n,) = cell.late_backward((1.0,), saved, (values[3],))
        (da_r, da_z), (dh,) = cell.backward((1.0,), saved, (values[3],), da_n)
        expected = differences(lambda v: run(v)[0][0], values)
        np.testing.assert_allclose([da_r, da_z, da_n, dh], expected, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_equations_stay_in_their_float_type(cell, dtype):
    """A bare 1.0 would widen float32 to float64, at twice the cost on a CPU, 32 times on a GPU."""
    from numba import typeof

    value = typeof(dtype(0))
    signature = (_tuple(value, cell.S), _tuple(value, cell.N + cell.Q))
    cell.forward.compile(signature)
    new, saved = cell.forward.overloads[signature].signature.return_type.types
    assert set(new.types) == {value}
    assert set(saved.types) == {value}


def _tuple(value, count):
    from numba import types

    return types.UniTuple(value, count)


def test_order_of_sums():
    assert LSTM.sums == ("i", "f", "g", "o")
    assert GRU.sums == ("n_x", "r", "z", "n_h")
    assert (GRU.x_gates, GRU.h_gates) == (("n", "r", "z"), ("r", "z", "n"))
    assert GRU_RESET_BEFORE.sums == ("r", "z", "n")


def test_a_cell_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="apart or late"):
        Cell("x", ("a", "b"), ("h",), (), None, None, apart=("a",), late=("b",))
    with pytest.raises(ValueError, match="name gates"):
        Cell("x", ("a",), ("h",), (), None, None, apart=("b",))
    with pytest.raises(ValueError, match="go together"):
        Cell("x", ("a", "b"), ("h",), (), None, None, late=("a",))
    with pytest.raises(ValueError, match="one state and an early gate"):
        Cell("x", ("a",), ("h",), (), None, None, late=("a",))
    with pytest.raises(ValueError, match="one state and an early gate"):
        Cell("x", ("a", "b"), ("h", "c"), (), None, None, late=("a",))


def test_the_key_follows_the_equations():
    def other(sums, states):
        return states, ()

    keys = {cell.key for cell in CELLS}
    assert len(keys) == len(CELLS)
    changed = Cell(LSTM.name, LSTM.gates, LSTM.states, LSTM.saved, other, LSTM.backward)
    assert changed.key not in keys
    same = Cell(LSTM.name, LSTM.gates, LSTM.states, LSTM.saved, LSTM.forward, LSTM.backward)
    assert same.key == LSTM.key
