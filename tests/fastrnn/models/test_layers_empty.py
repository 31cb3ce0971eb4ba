"""No steps, or no rows: results are empty and gradients are what an empty sum is, zero."""

import numpy as np
import pytest

from cases import CELLS, DTYPES, as_state, make, problem, run, states


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_steps(cell, dtype, bidirectional):
    """The state goes through, and so does its gradient."""
    layer = make(cell, 5, 7, 2, bidirectional=bidirectional, dtype=dtype)
    p = problem(layer, 0, 3)
    found = run(layer, p)
    inferred, _ = layer(p.x, as_state(p.state))
    assert inferred.shape == found.y.shape == (0, 3, 7 * (1 + bidirectional))
    assert found.dx.shape == (0, 3, 5)
    assert found.y.dtype == found.dx.dtype == inferred.dtype == np.dtype(dtype)
    for mine, its in zip(found.state + found.dstate, p.state + p.dstate, strict=True):
        assert np.array_equal(mine, its)
    for name, array in layer.state_dict().items():
        assert np.array_equal(found.parameters[name], np.zeros_like(array)), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_rows(cell, dtype, bidirectional):
    layer = make(cell, 5, 7, 2, bidirectional=bidirectional, dtype=dtype)
    p = problem(layer, 4, 0)
    found = run(layer, p, lengths=np.zeros(0, int), reset=np.zeros((4, 0), bool))
    inferred, state = layer(p.x)
    assert inferred.shape == found.y.shape == (4, 0, 7 * (1 + bidirectional))
    assert found.dx.shape == (4, 0, 5)
    for mine, its in zip(states(state) + found.state + found.dstate, p.state * 3, strict=True):
        assert mine.shape == its.shape
    for name, array in layer.state_dict().items():
        assert np.array_equal(found.parameters[name], np.zeros_like(array)), name


def test_neither_steps_nor_rows():
    layer = make("LSTM", 5, 7, proj_size=3)
    p = problem(layer, 0, 0)
    found = run(layer, p)
    assert found.y.shape == (0, 0, 3)
    assert not any(gradient.any() for gradient in found.parameters.values())


@pytest.mark.parametrize("batch_first", [False, True])
def test_no_steps_of_a_single_sequence(batch_first):
    layer = make("GRU", 5, 7, batch_first=batch_first)
    state = np.ones((1, 7), np.float32)
    y, final = layer(np.zeros((0, 5), np.float32), state)
    assert y.shape == (0, 7)
    assert np.array_equal(final, state)


def test_no_steps_gives_a_state_of_its_own():
    layer = make("GRU", 5, 7)
    state = np.ones((1, 2, 7), np.float32)
    _, final = layer(np.zeros((0, 2, 5), np.float32), state)
    final += 1
    assert np.array_equal(state, np.ones((1, 2, 7)))


def test_no_steps_batch_first():
    layer = make("GRU", 5, 7, 2, batch_first=True, bidirectional=True)
    p = problem(layer, 0, 3).swap()
    found = run(layer, p)
    assert found.y.shape == (3, 0, 14)
    assert found.dx.shape == (3, 0, 5)
    assert np.array_equal(found.dstate[0], p.dstate[0])


def test_no_steps_return_empty_gates():
    layer = make("LSTM", 5, 7)
    _, _, tape = layer.forward(np.zeros((0, 2, 5), np.float32), return_gates=True)
    assert {name: gate.shape for name, gate in tape.gates[0].items()} == dict.fromkeys(
        "ifgoc", (0, 2, 7)
    )
