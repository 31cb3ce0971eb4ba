"""Layers against the reference: outputs, final states and gates, in both dtypes."""

import numpy as np
import pytest

import reference
from cases import (
    CELLS,
    DTYPES,
    TOLERANCE,
    Problem,
    as_state,
    assert_close,
    expected,
    make,
    problem,
    states,
)

#: States that stand beside the gates.
STATES = {"LSTM": ("c",)}


def reset_mask(T, B):
    """About every third step of every row starts anew, the steps 0 and T - 1 among them."""
    mask = np.random.default_rng(5).random((T, B)) < 0.3
    mask[[0, -1], 0] = True
    return mask


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("I", "H"), [(1, 1), (5, 7), (3, 17), (1, 63), (5, 65)])
@pytest.mark.parametrize(("T", "B"), [(1, 1), (6, 1), (1, 5), (6, 13)])
def test_sizes(cell, dtype, I, H, T, B):
    layer = make(cell, I, H, dtype=dtype)
    p = problem(layer, T, B)
    y, state = layer(p.x, as_state(p.state))
    wanted_y, wanted_state, _ = expected(cell, layer, p)
    assert y.dtype == np.dtype(dtype)
    assert_close(y, wanted_y, TOLERANCE[dtype], "y")
    for mine, wanted in zip(states(state), wanted_state, strict=True):
        assert mine.dtype == np.dtype(dtype)
        assert_close(mine, wanted, TOLERANCE[dtype], "state")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("lengths", [None, (0, 6, 1, 4, 3)])
@pytest.mark.parametrize("reset", [False, True])
def test_stacks_directions_lengths_and_resets(
    cell, dtype, bidirectional, num_layers, lengths, reset
):
    layer = make(cell, 5, 7, num_layers, bidirectional=bidirectional, dtype=dtype)
    p = problem(layer, 6, 5)
    arguments = {
        "lengths": None if lengths is None else np.array(lengths),
        "reset": reset_mask(6, 5) if reset else None,
    }
    y, state = layer(p.x, as_state(p.state), **arguments)
    wanted_y, wanted_state, _ = expected(cell, layer, p, **arguments)
    assert_close(y, wanted_y, TOLERANCE[dtype], "y")
    for mine, wanted in zip(states(state), wanted_state, strict=True):
        assert_close(mine, wanted, TOLERANCE[dtype], "state")
    if lengths is not None:
        for b, length in enumerate(lengths):
            assert not y[length:, b].any()
        for mine, initial in zip(states(state), p.state, strict=True):
            assert np.array_equal(mine[:, 0], initial[:, 0])  # length 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("H", "P"), [(7, 1), (7, 3), (65, 17)])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, (3, 0, 6, 2, 5)])
def test_projection(dtype, H, P, bidirectional, lengths):
    layer = make("LSTM", 5, H, 2, proj_size=P, bidirectional=bidirectional, dtype=dtype)
    p = problem(layer, 6, 5)
    reset = reset_mask(6, 5)
    y, (h, c) = layer(p.x, p.state, lengths=lengths and np.array(lengths), reset=reset)
    wanted_y, (wanted_h, wanted_c), _ = expected("LSTM", layer, p, lengths=lengths, reset=reset)
    assert_close(y, wanted_y, TOLERANCE[dtype], "y")
    assert_close(h, wanted_h, TOLERANCE[dtype], "h")
    assert_close(c, wanted_c, TOLERANCE[dtype], "c")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_state_means_zeros(cell, bidirectional):
    layer = make(cell, 5, 7, 2, bidirectional=bidirectional, dtype="float64")
    p = problem(layer, 4, 3)
    reset = reset_mask(4, 3)
    y, state = layer(p.x, reset=reset)
    zeros = Problem(p.x, tuple(np.zeros_like(s) for s in p.state), p.dy, p.dstate)
    wanted, wanted_state, _ = expected(cell, layer, zeros, reset=reset)
    assert_close(y, wanted, TOLERANCE["float64"], "y")
    for mine, its in zip(states(state), wanted_state, strict=True):
        assert_close(mine, its, TOLERANCE["float64"], "state")


@pytest.mark.parametrize("cell", CELLS)
def test_no_bias(cell):
    layer = make(cell, 5, 7, 2, bias=False, bidirectional=True, dtype="float64")
    assert not [name for name in layer.state_dict() if "bias" in name]
    p = problem(layer, 4, 3)
    y, _ = layer(p.x, as_state(p.state))
    assert_close(y, expected(cell, layer, p)[0], TOLERANCE["float64"], "y")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_batch_first(cell, bidirectional):
    sizes = {"bidirectional": bidirectional, "dtype": "float64"}
    layer = make(cell, 5, 7, 2, batch_first=True, **sizes)
    p = problem(layer, 6, 3)
    lengths, reset = np.array([4, 0, 6]), reset_mask(6, 3)
    y, state = layer(p.x.swapaxes(0, 1), as_state(p.state), lengths=lengths, reset=reset.T)
    wanted, wanted_state, _ = expected(cell, layer, p, lengths=lengths, reset=reset)
    assert_close(y, wanted.swapaxes(0, 1), TOLERANCE["float64"], "y")
    for mine, its in zip(states(state), wanted_state, strict=True):
        assert_close(mine, its, TOLERANCE["float64"], "state")


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_unbatched_equals_a_batch_of_one(cell, batch_first):
    layer = make(cell, 5, 7, 2, bidirectional=True, batch_first=batch_first)
    p = problem(layer, 6, 1)
    reset = reset_mask(6, 1)
    row = 0 if batch_first else (slice(None), 0)
    x, dy = (p.swap().x, p.swap().dy) if batch_first else (p.x, p.dy)
    first = as_state([s[:, 0] for s in p.state])
    dfirst = as_state([s[:, 0] for s in p.dstate])

    y, state, tape = layer.forward(
        x, as_state(p.state), reset=reset.T if batch_first else reset, return_gates=True
    )
    gradients = layer.backward(tape, dy, as_state(p.dstate))
    one_y, one_state, one_tape = layer.forward(x[row], first, reset=reset[:, 0], return_gates=True)
    one_gradients = layer.backward(one_tape, dy[row], dfirst)

    assert np.array_equal(one_y, y[row])
    assert np.array_equal(layer(x[row], first, reset=reset[:, 0])[0], one_y)
    assert np.array_equal(one_gradients.x, gradients.x[row])
    for mine, its in zip(states(one_state), states(state), strict=True):
        assert np.array_equal(mine, its[:, 0])
    for mine, its in zip(states(one_gradients.state), states(gradients.state), strict=True):
        assert np.array_equal(mine, its[:, 0])
    for name, gradient in gradients.parameters.items():
        assert np.array_equal(one_gradients.parameters[name], gradient), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gates(cell, dtype, bidirectional):
    layer = make(cell, 5, 7, 2, bidirectional=bidirectional, dtype=dtype)
    p = problem(layer, 6, 3)
    arguments = {"lengths": np.array([4, 6, 0]), "reset": reset_mask(6, 3)}
    _, _, tape = layer.forward(p.x, as_state(p.state), return_gates=True, **arguments)
    _, _, wanted = expected(cell, layer, p, **arguments)
    assert len(tape.gates) == len(wanted) == 2 * (1 + bidirectional)
    real = np.arange(6)[:, None] < arguments["lengths"]  # (T, B)
    for mine, its in zip(tape.gates, wanted, strict=True):
        assert sorted(mine) == sorted(layer._cell.gates + STATES.get(cell, ()))
        assert sorted(mine) == sorted(its)
        for name in its:
            assert mine[name].dtype == np.dtype(dtype)
            assert_close(mine[name][real], its[name][real], TOLERANCE[dtype], name)


def test_gates_of_a_projected_lstm():
    layer = make("LSTM", 5, 7, proj_size=3, dtype="float64")
    p = problem(layer, 6, 3)
    _, _, tape = layer.forward(p.x, p.state, return_gates=True)
    (wanted,) = expected("LSTM", layer, p)[2]
    for name in wanted:
        assert_close(tape.gates[0][name], wanted[name], TOLERANCE["float64"], name)


def test_gates_are_kept_only_when_asked_for():
    layer = make("LSTM", 5, 7)
    p = problem(layer, 6, 3)
    assert layer.forward(p.x)[2].gates is None


@pytest.mark.parametrize("cell", CELLS)
def test_forward_gives_what_the_call_gives(cell):
    layer = make(cell, 5, 7, 2, bidirectional=True)
    p = problem(layer, 6, 5)
    arguments = {"lengths": np.array([4, 6, 0, 1, 5]), "reset": reset_mask(6, 5)}
    y, state = layer(p.x, as_state(p.state), **arguments)
    for gates in (False, True):
        taped, taped_state, _ = layer.forward(
            p.x, as_state(p.state), return_gates=gates, **arguments
        )
        assert np.array_equal(taped, y)
        for mine, its in zip(states(taped_state), states(state), strict=True):
            assert np.array_equal(mine, its)


def test_lengths_of_any_integer_kind():
    layer = make("GRU", 5, 7)
    p = problem(layer, 6, 3)
    wanted, _ = layer(p.x, lengths=np.array([4, 0, 6]))
    for lengths in ([4, 0, 6], (4, 0, 6), np.array([4, 0, 6], np.uint8), np.int32([4, 0, 6])):
        assert np.array_equal(layer(p.x, lengths=lengths)[0], wanted)


def test_long_sequences_stay_accurate():
    """256 steps of a float32 LSTM: errors are fed back, and forgotten, not added up."""
    layer = make("LSTM", 5, 17, bidirectional=True)
    p = problem(layer, 256, 2)
    y, _ = layer(p.x, p.state)
    assert_close(y, expected("LSTM", layer, p)[0], TOLERANCE["float32"], "y")


def test_saturated_gates_are_exact():
    """Pre-activations of 1e4: sigmoid and tanh are 0, 1 and -1, not merely near them."""
    layer = make("LSTM", 2, 3, dtype="float64")
    layer.update({name: np.zeros_like(a) for name, a in layer.state_dict().items()})
    bias = np.repeat([1e4, 1e4, -1e4, 1e4], 3)  # i = f = o = 1, g = -1
    layer.update({"bias_ih_l0": bias})
    y, (_, c) = layer(np.zeros((4, 1, 2)))
    assert np.array_equal(c, np.full((1, 1, 3), -4.0))
    assert_close(y[:, 0, 0], np.tanh(-np.arange(1.0, 5.0)), 1e-15, "y")


def test_reference_cells_are_the_ones_tested():
    assert {kind for kind, _ in CELLS.values()} == set(reference.STEPS)
