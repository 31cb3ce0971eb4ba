"""Streaming: cells fed step by step give what the layer gives, to the last bit."""

import numpy as np
import pytest

from cases import CELLS, DTYPES, as_state, make, make_cell, problem, states


def cell_of(cell, layer, suffix="_l0"):
    """A cell with the weights of one layer and direction."""
    width = layer.state_dict()["weight_ih" + suffix].shape[1]
    one = make_cell(cell, width, layer.hidden_size, bias=layer.bias, dtype=layer.dtype)
    one.load_state_dict({name: layer.parameters[name + suffix] for name in one.state_dict()})
    return one


def stream(one, x, state):
    """All steps of x (T, ...), one call each."""
    outputs = []
    for step in x:
        state = one(step, state)
        outputs.append(states(state)[0])
    return np.stack(outputs), state


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("B", [1, 3, 8, 17])
@pytest.mark.parametrize(("I", "H"), [(1, 1), (5, 7), (3, 17), (40, 64), (1, 65)])
def test_step_by_step_equals_the_layer(cell, dtype, bias, B, I, H):
    layer = make(cell, I, H, bias=bias, dtype=dtype)
    p = problem(layer, 9, B)
    y, state = layer(p.x, as_state(p.state))
    streamed, last = stream(cell_of(cell, layer), p.x, as_state([s[0] for s in p.state]))
    assert np.array_equal(streamed, y)
    for mine, its in zip(states(last), states(state), strict=True):
        assert np.array_equal(mine, its[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_unbatched_steps(cell, dtype):
    layer = make(cell, 5, 33, dtype=dtype)
    p = problem(layer, 20, 1)
    y, _ = layer(p.x, as_state(p.state))
    initial = as_state([s[0, 0] for s in p.state])
    streamed, _ = stream(cell_of(cell, layer), p.x[:, 0], initial)
    assert np.array_equal(streamed, y[:, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_long_enough_for_threads_and_chunks(cell, dtype):
    """The layer shares this out among threads and works through it in chunks; cells do not."""
    layer = make(cell, 64, 128, dtype=dtype)
    p = problem(layer, 40, 16)
    y, _ = layer(p.x, as_state(p.state))
    taped, _, _ = layer.forward(p.x, as_state(p.state))
    streamed, _ = stream(cell_of(cell, layer), p.x, as_state([s[0] for s in p.state]))
    assert np.array_equal(streamed, y)
    assert np.array_equal(taped, y)


@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_of_a_stack(cell):
    layer = make(cell, 5, 17, 2, bidirectional=True)
    p = problem(layer, 9, 3)
    wanted, _ = layer(p.x, as_state(p.state))
    y = p.x
    for k in range(2):
        forth, back = (as_state([s[2 * k + d] for s in p.state]) for d in range(2))
        forwards, _ = stream(cell_of(cell, layer, f"_l{k}"), y, forth)
        backwards, _ = stream(cell_of(cell, layer, f"_l{k}_reverse"), y[::-1], back)
        y = np.concatenate([forwards, backwards[::-1]], axis=-1)
    assert np.array_equal(y, wanted)


@pytest.mark.parametrize("cell", CELLS)
def test_training_through_cells_equals_training_the_layer(cell):
    """Taped steps, and their gradients in reverse order, against the layer's."""
    layer = make(cell, 5, 7, dtype="float64")
    one = cell_of(cell, layer)
    p = problem(layer, 6, 3)
    y, _, whole = layer.forward(p.x, as_state(p.state))
    wanted = layer.backward(whole, p.dy, as_state(p.dstate))

    state, tapes = as_state([s[0] for s in p.state]), []
    for t in range(6):
        state, tape = one.forward(p.x[t], state)
        assert np.array_equal(states(state)[0], y[t])
        tapes.append(tape)
    dstate, totals, dx = [d[0] for d in p.dstate], {}, []
    for t in reversed(range(6)):
        arriving = as_state([dstate[0] + p.dy[t], *dstate[1:]])
        gradients = one.backward(tapes[t], arriving)
        dstate = list(states(gradients.state))
        dx.insert(0, gradients.x)
        for name, gradient in gradients.parameters.items():
            totals[name] = totals.get(name, 0) + gradient

    # The same sums in another order: rounding of float64 values of order 1 to 10.
    np.testing.assert_allclose(np.stack(dx), wanted.x, rtol=0, atol=1e-13)
    for mine, its in zip(dstate, states(wanted.state), strict=True):
        np.testing.assert_allclose(mine, its[0], rtol=0, atol=1e-13)
    for name, total in totals.items():
        np.testing.assert_allclose(total, wanted.parameters[name + "_l0"], rtol=0, atol=1e-12)
