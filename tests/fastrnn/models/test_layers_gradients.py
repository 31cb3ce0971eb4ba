"""Gradients of the layers against finite differences of the reference, in float64.

Every element of every parameter, of the input and of the initial state is moved.
"""

import numpy as np
import pytest

import fastrnn
import reference
from cases import CELLS, as_state, make, problem, states
from gradients import VARIANTS, B, H, I, T, check


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients(cell, variant):
    options = dict(VARIANTS[variant])
    arguments = {key: options.pop(key) for key in ("lengths", "reset") if key in options}
    layer = make(cell, I, H, **options, dtype="float64")
    p = problem(layer, T, B, seed=6)
    check(cell, layer, p, **arguments)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, np.array([2, 0, 4])])
def test_gradients_of_a_projected_lstm(bidirectional, lengths):
    layer = make("LSTM", I, 4, 2, proj_size=2, bidirectional=bidirectional, dtype="float64")
    check("LSTM", layer, problem(layer, T, B), lengths=lengths)


@pytest.mark.parametrize("cell", CELLS)
def test_no_dstate_means_zeros(cell):
    layer = make(cell, I, H, 2, bidirectional=True, dtype="float64")
    p = problem(layer, T, B)
    _, _, tape = layer.forward(p.x, as_state(p.state))
    without = layer.backward(tape, p.dy)
    zeros = layer.backward(tape, p.dy, as_state([np.zeros_like(d) for d in p.dstate]))
    assert np.abs(without.x).max() > 0
    assert np.array_equal(without.x, zeros.x)
    for mine, its in zip(states(without.state), states(zeros.state), strict=True):
        assert np.array_equal(mine, its)
    for name in without.parameters:
        assert np.array_equal(without.parameters[name], zeros.parameters[name])


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_flows_from_the_final_state_alone(cell):
    """dy=None means zeros, as for the state."""
    layer = make(cell, I, H, dtype="float64")
    p = problem(layer, T, B)
    p.dy[:] = 0
    lengths = np.array([4, 0, 1])
    check(cell, layer, p, lengths=lengths)
    _, _, tape = layer.forward(p.x, as_state(p.state), lengths=lengths)
    zeros, none = (layer.backward(tape, dy, as_state(p.dstate)) for dy in (p.dy, None))
    assert np.array_equal(none.x, zeros.x)


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_of_an_initial_state_that_was_not_given(cell):
    """Zeros are a state too: their gradient is that of zeros that were given."""
    layer = make(cell, I, H, dtype="float64")
    p = problem(layer, T, B)
    zeros = [np.zeros_like(s) for s in p.state]
    given = layer.backward(layer.forward(p.x, as_state(zeros))[2], p.dy, as_state(p.dstate))
    absent = layer.backward(layer.forward(p.x)[2], p.dy, as_state(p.dstate))
    for mine, its in zip(states(absent.state), states(given.state), strict=True):
        assert np.array_equal(mine, its)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_without_training_mode(cell):
    """training=False turns dropout off and nothing else."""
    layer = make(cell, I, H, 2, dtype="float64")
    p = problem(layer, T, B)
    trained = layer.backward(layer.forward(p.x)[2], p.dy)
    evaluated = layer.backward(layer.forward(p.x, training=False)[2], p.dy)
    assert np.array_equal(trained.x, evaluated.x)
    for name in trained.parameters:
        assert np.array_equal(trained.parameters[name], evaluated.parameters[name])


def test_gradients_through_many_blocks():
    """Directional derivatives where T, B, I and H are larger than any block of a kernel."""
    layer = make("LSTM", 37, 65, dtype="float64")
    p = problem(layer, 40, 19)
    random = np.random.default_rng(3)
    parameters = layer.state_dict()
    found = layer.backward(layer.forward(p.x, p.state)[2], p.dy, p.dstate)

    def loss(step, name, direction):
        moved = parameters | {name: parameters[name] + step * direction}
        y, final, _ = reference.layer("LSTM", moved, p.x, p.state)
        pairs = zip((y, *final), (p.dy, *p.dstate), strict=True)
        return float(sum(np.sum(value * d) for value, d in pairs))

    for name in parameters:
        direction = random.standard_normal(parameters[name].shape)
        direction /= np.linalg.norm(direction)
        step = reference.STEP
        wanted = (loss(step, name, direction) - loss(-step, name, direction)) / (2 * step)
        slope = float(np.sum(found.parameters[name] * direction))
        # The loss adds 50,000 terms: its rounding, 1e-13, over the step is 1e-8.
        assert slope == pytest.approx(wanted, rel=1e-6, abs=1e-6), name


def test_gradients_of_biases_keep_their_accuracy_over_many_steps():
    """A plain float32 sum of these values is off by 3.1e-6."""
    steps = 20_000
    dy = (1 + 0.1 * np.random.default_rng(1).normal(size=(steps, 1, 2))).astype(np.float32)
    found = []
    for dtype in ("float32", "float64"):
        layer = fastrnn.RNN(1, 2, dtype=dtype)
        # Without weights h stays 0, and the gradient of the bias is the sum of dy.
        layer.update({name: np.zeros_like(value) for name, value in layer.parameters.items()})
        _, _, tape = layer.forward(np.zeros((steps, 1, 1), dtype))
        found.append(layer.backward(tape, dy.astype(dtype)).parameters["bias_hh_l0"])
    # 128 roundings in a chain and 157 chains, each at most 6e-8 and of either sign:
    # 6e-8 * sqrt(285) = 1e-6.
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
