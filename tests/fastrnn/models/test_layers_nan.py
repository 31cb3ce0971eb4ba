"""NaN and infinity pass through as in torch: same places, same values elsewhere."""

import numpy as np
import pytest

import torch_twin
from cases import CELLS, CELLS_IN_TORCH, DTYPES, TOLERANCE, as_state, make, problem, run

POISON = {"nan": [np.nan], "inf": [np.inf], "-inf": [-np.inf], "all": [np.nan, np.inf, -np.inf]}


def assert_same(name, mine, its, tolerance):
    """NaN and infinities stand in the same places, and the rest is equal within tolerance."""
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(its), err_msg=f"{name}: NaN")
    np.testing.assert_array_equal(mine == np.inf, its == np.inf, err_msg=f"{name}: inf")
    np.testing.assert_array_equal(mine == -np.inf, its == -np.inf, err_msg=f"{name}: -inf")
    finite = np.isfinite(its)
    scale = max(1.0, float(np.abs(its[finite]).max(initial=0)))
    np.testing.assert_allclose(
        mine[finite], its[finite], rtol=0, atol=tolerance * scale, err_msg=name
    )


def poisoned(layer, T, B, values, place):
    """A problem with the values in x or in the first state, each in a row of its own."""
    p = problem(layer, T, B)
    for b, value in enumerate(values):
        if place == "x":
            p.x[1, b, 0] = value
        else:
            p.state[0][0, b, 0] = value
    return p


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS_IN_TORCH)
@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("place", ["x", "state"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_as_in_torch(cell, dtype, poison, place, bidirectional):
    layer = make(cell, 5, 7, bidirectional=bidirectional, dtype=dtype)
    p = poisoned(layer, 4, 5, POISON[poison], place)
    found, wanted = run(layer, p), torch_twin.run(torch_twin.twin(layer), p)
    inferred, _ = layer(p.x, as_state(p.state))
    assert_same("y without a tape", inferred, wanted.y, TOLERANCE[dtype])
    arrays = wanted.arrays()
    for name, array in found.arrays().items():
        assert_same(name, array, arrays[name], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS_IN_TORCH)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_in_the_weights_as_in_torch(cell, dtype, value):
    layer = make(cell, 5, 7, dtype=dtype)
    bias = layer.state_dict()["bias_ih_l0"]
    bias[3] = value
    layer.update({"bias_ih_l0": bias})
    p = problem(layer, 4, 3)
    found, wanted = run(layer, p), torch_twin.run(torch_twin.twin(layer), p)
    assert_same("y", found.y, wanted.y, TOLERANCE[dtype])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_other_rows_and_earlier_steps_are_untouched(cell, dtype):
    layer = make(cell, 5, 33, dtype=dtype)
    p = problem(layer, 6, 9)
    clean, _ = layer(p.x, as_state(p.state))
    p.x[3, 4] = np.nan
    y, _ = layer(p.x, as_state(p.state))
    assert np.isnan(y[3:, 4]).all()
    y[3:, 4] = clean[3:, 4]
    assert np.array_equal(y, clean)


@pytest.mark.parametrize("cell", CELLS)
def test_a_nan_gradient_reaches_all_it_should(cell):
    layer = make(cell, 5, 7, dtype="float64")
    p = problem(layer, 6, 3)
    p.dy[2, 1] = np.nan
    found = run(layer, p)
    assert np.isnan(found.dx[:3, 1]).any(axis=-1).all()  # back in time, its own row
    assert np.isfinite(found.dx[3:]).all()
    assert np.isfinite(found.dx[:, [0, 2]]).all()
    assert np.isnan(found.parameters["weight_ih_l0"]).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_huge_finite_input_saturates(dtype):
    """The largest finite input gives gates of 0, 1 and -1, and no NaN, as in torch."""
    layer = make("LSTM", 1, 7, dtype=dtype)
    p = problem(layer, 3, 2)
    p.x[:] = np.finfo(dtype).max
    found, wanted = run(layer, p), torch_twin.run(torch_twin.twin(layer), p)
    assert np.isfinite(found.y).all()
    assert_same("y", found.y, wanted.y, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS_IN_TORCH)
def test_denormal_input(cell, dtype):
    layer = make(cell, 5, 7, dtype=dtype, bias=False)
    p = problem(layer, 3, 2)
    p.x[:] = np.finfo(dtype).smallest_subnormal
    for part in p.state:
        part[:] = -np.finfo(dtype).smallest_subnormal
    found, wanted = run(layer, p), torch_twin.run(torch_twin.twin(layer), p)
    arrays = wanted.arrays()
    for name, array in found.arrays().items():
        assert_same(name, array, arrays[name], TOLERANCE[dtype])
