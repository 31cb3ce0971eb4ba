"""Layers and cells whose products are in bfloat16."""

import pickle

import numpy as np
import pytest

import fastrnn
import reference
from cases import CELLS, as_state, make, make_cell, problem, states

#: Measured over T = 30 at these sizes: at most 1.1e-2, in the relu RNN, 3e-3 in the LSTM. A
#: factor rounded to 8 bits is off by up to 2^-9; sums of such errors feed back.
TOLERANCE = 2e-2


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sizes", [(3, 1, 1), (5, 4, 7), (30, 7, 65), (2, 3, 128)])
def test_values_are_those_of_the_reference_but_for_bfloat16(cell, sizes):
    T, B, H = sizes
    layer = make(cell, 11, H, 2, bidirectional=True, dtype="bfloat16")
    p = problem(layer, T, B)
    lengths = np.random.default_rng(H).integers(0, T + 1, B)
    y, state = layer(p.x, as_state(p.state), lengths)
    kind, options = CELLS[cell]
    wanted = reference.layer(kind, layer.state_dict(), p.x, p.state, lengths=lengths, **options)
    scale = max(1.0, np.abs(wanted[0]).max())
    np.testing.assert_allclose(y, wanted[0], atol=TOLERANCE * scale)
    for mine, its in zip(states(state), wanted[1], strict=True):
        np.testing.assert_allclose(mine, its, atol=TOLERANCE * max(1.0, np.abs(its).max()))
    assert y.dtype == np.float32
    assert not np.array_equal(y, make(cell, 11, H, 2, bidirectional=True)(p.x)[0])


def test_a_projection_too():
    layer = make("LSTM", 11, 33, proj_size=9, dtype="bfloat16")
    p = problem(layer, 12, 5)
    y, _ = layer(p.x, as_state(p.state))
    wanted = reference.layer("LSTM", layer.state_dict(), p.x, p.state)
    np.testing.assert_allclose(y, wanted[0], atol=TOLERANCE)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("I", "H"), [(5, 7), (16, 64)])
def test_steps_blocks_and_batches_have_the_same_bits(cell, I, H):
    layer, one = (f(cell, I, H, dtype="bfloat16") for f in (make, make_cell))
    one.load_state_dict({n.removesuffix("_l0"): a for n, a in layer.state_dict().items()})
    p = problem(layer, 9, 8)
    whole, _ = layer(p.x, as_state(p.state))
    rows = [6, 0, 3]
    some, _ = layer(p.x[:, rows], as_state([s[:, rows] for s in p.state]))
    assert np.array_equal(some, whole[:, rows])
    state = as_state(tuple(s[0] for s in p.state))
    for t in range(9):
        state = one(p.x[t], state)
        assert np.array_equal(states(state)[0], whole[t])


def test_training_is_refused_and_says_what_to_do():
    layer, cell = (make_one("GRU", 3, 5, dtype="bfloat16") for make_one in (make, make_cell))
    with pytest.raises(ValueError, match=r"bfloat16.*inference.*float32"):
        layer.forward(np.zeros((2, 1, 3), np.float32))
    with pytest.raises(ValueError, match=r"bfloat16.*inference.*float32"):
        cell.forward(np.zeros((1, 3), np.float32))


def test_parameters_stay_float32_and_a_trained_model_moves_over():
    trained, quick = make("LSTM", 3, 5), make("LSTM", 3, 5, dtype="bfloat16")
    quick.load_state_dict(trained.state_dict())
    for name, value in trained.state_dict().items():
        assert np.array_equal(quick.parameters[name], value)
        assert quick.parameters[name].dtype == np.float32
    assert "dtype='bfloat16'" in repr(quick)


@pytest.mark.parametrize("how", ["pickle", "file"])
def test_a_copy_is_a_bfloat16_layer_too(how, tmp_path):
    layer = make("GRU", 3, 5, dtype="bfloat16")
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    if how == "pickle":
        other = pickle.loads(pickle.dumps(layer))
    else:
        layer.save(tmp_path / "m.safetensors")
        other = fastrnn.load(tmp_path / "m.safetensors")
    assert np.array_equal(other(x)[0], layer(x)[0])


def test_nan_passes_and_stays_in_its_row():
    layer = make("RNN-relu", 3, 5, dtype="bfloat16")
    x = np.ones((4, 2, 3), np.float32)
    x[1, 0, 2] = np.nan
    y, _ = layer(x)
    assert np.isnan(y[1:, 0]).all()
    assert np.isfinite(y[:, 1]).all()
    assert np.isfinite(y[0]).all()
