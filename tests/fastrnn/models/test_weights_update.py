"""Changing weights: update and load_state_dict, what follows them, and what does not."""

import numpy as np
import pytest

from cases import (
    CELLS,
    DTYPES,
    TOLERANCE,
    as_state,
    assert_close,
    expected,
    make,
    make_cell,
    problem,
    run,
    states,
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_output_and_gradients_follow_an_update(cell, dtype):
    """Of every parameter in turn: whatever was packed from it is packed anew."""
    layer = make(cell, 5, 7, 2, bidirectional=True, dtype=dtype)
    p = problem(layer, 4, 3)
    run(layer, p)
    layer(p.x, as_state(p.state))
    for name, array in layer.state_dict().items():
        layer.update({name: array + 0.25})
        assert np.array_equal(layer.parameters[name], array + array.dtype.type(0.25))
        wanted, _, _ = expected(cell, layer, p)
        assert_close(layer(p.x, as_state(p.state))[0], wanted, TOLERANCE[dtype], name)
        fresh = make(cell, 5, 7, 2, bidirectional=True, dtype=dtype, seed=1)
        fresh.load_state_dict(layer.state_dict())
        found, its = run(layer, p), run(fresh, p)
        assert np.array_equal(found.dx, its.dx)
        assert np.array_equal(found.y, its.y)


def test_a_projection_is_packed_anew():
    layer = make("LSTM", 5, 7, proj_size=3)
    p = problem(layer, 4, 3)
    layer(p.x)
    layer.update({"weight_hr_l0": 2 * layer.parameters["weight_hr_l0"]})
    y, _ = layer(p.x, p.state)
    assert_close(y, expected("LSTM", layer, p)[0], TOLERANCE["float32"], "y")


@pytest.mark.parametrize("cell", CELLS)
def test_a_tape_keeps_the_weights_it_was_made_with(cell):
    layer = make(cell, 5, 7, 2, bidirectional=True)
    p = problem(layer, 4, 3)
    wanted = run(layer, p)
    _, _, tape = layer.forward(p.x, as_state(p.state))
    layer.update({name: -a for name, a in layer.state_dict().items()})
    found = layer.backward(tape, p.dy, as_state(p.dstate))
    assert np.array_equal(found.x, wanted.dx)
    for mine, its in zip(states(found.state), wanted.dstate, strict=True):
        assert np.array_equal(mine, its)
    for name, gradient in wanted.parameters.items():
        assert np.array_equal(found.parameters[name], gradient), name


@pytest.mark.parametrize("cell", CELLS)
def test_a_cells_tape_keeps_its_weights_too(cell):
    layer = make_cell(cell, 5, 7)
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    state, tape = layer.forward(x)
    wanted = layer.backward(tape, state)
    layer.update({name: -a for name, a in layer.state_dict().items()})
    found = layer.backward(tape, state)
    assert np.abs(wanted.x).max() > 0
    assert np.array_equal(found.x, wanted.x)
    assert not np.array_equal(states(layer(x))[0], states(state)[0])


def test_update_copies():
    """The array that was handed in may be changed afterwards."""
    layer = make("GRU", 5, 7)
    p = problem(layer, 4, 3)
    array = 2 * layer.parameters["weight_hh_l0"]
    layer.update({"weight_hh_l0": array})
    wanted, _ = layer(p.x)
    kept = array.copy()
    array[:] = np.nan
    assert np.array_equal(layer.parameters["weight_hh_l0"], kept)
    assert np.array_equal(layer(p.x)[0], wanted)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2]])
def test_update_from_any_layout(layout):
    layer, twin = make("GRU", 5, 7), make("GRU", 5, 7)
    p = problem(layer, 4, 3)
    array = 2 * layer.parameters["weight_hh_l0"]
    layer.update({"weight_hh_l0": layout(array)})
    twin.update({"weight_hh_l0": array})
    assert np.array_equal(layer(p.x)[0], twin(p.x)[0])


def test_update_of_nothing_changes_nothing():
    layer = make("GRU", 5, 7)
    before = layer.state_dict()
    layer.update({})
    for name, array in layer.state_dict().items():
        assert np.array_equal(array, before[name])


def test_state_dict_is_a_copy():
    layer = make("GRU", 5, 7)
    p = problem(layer, 4, 3)
    wanted, _ = layer(p.x)
    for array in layer.state_dict().values():
        array[:] = np.nan
    assert np.array_equal(layer(p.x)[0], wanted)
    assert not any(np.isnan(a).any() for a in layer.parameters.values())


@pytest.mark.parametrize("build", [make, make_cell])
def test_parameters_cannot_be_written(build):
    layer = build("LSTM", 5, 7)
    before = layer.state_dict()
    for name, array in layer.parameters.items():
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
        with pytest.raises(TypeError):
            layer.parameters[name] = np.zeros_like(array)
        with pytest.raises(TypeError):
            del layer.parameters[name]
    for name, array in layer.state_dict().items():
        assert np.array_equal(array, before[name])


@pytest.mark.parametrize("build", [make, make_cell])
@pytest.mark.parametrize("cell", CELLS)
def test_state_dict_round_trip(cell, build):
    layer, other = build(cell, 5, 7, seed=1), build(cell, 5, 7, seed=2)
    other.load_state_dict(layer.state_dict())
    for name, array in layer.state_dict().items():
        assert np.array_equal(other.parameters[name], array)
    rows = (3,) if build is make_cell else (4, 3)
    x = np.random.default_rng(0).standard_normal((*rows, 5)).astype(np.float32)
    mine, its = states(layer(x))[0], states(other(x))[0]
    assert np.array_equal(mine, its)
    layer.load_state_dict(dict(reversed(other.state_dict().items())))  # in any order
    assert np.array_equal(states(layer(x))[0], its)


@pytest.mark.smoke
def test_gradient_descent_with_update():
    """The loop of a user: the loss of fitting a running mean falls tenfold."""
    layer = make("GRU", 1, 8, dtype="float64")
    x = np.random.default_rng(0).uniform(-1, 1, (12, 16, 1))
    target = np.cumsum(x, axis=0) / np.arange(1, 13)[:, None, None]
    losses = []
    for _ in range(300):
        y, _, tape = layer.forward(x)
        error = y[..., :1] - target  # the first unit is the answer, the others only remember
        losses.append(float(np.mean(error**2)))
        dy = np.zeros_like(y)
        dy[..., :1] = 2 * error / error.size
        gradients = layer.backward(tape, dy).parameters
        layer.update({name: w - 2.0 * gradients[name] for name, w in layer.parameters.items()})
    assert losses[-1] < losses[0] / 10
