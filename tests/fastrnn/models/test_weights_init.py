"""Fresh weights: torch's names, shapes, order and distribution, from a seed."""

import numpy as np
import pytest

import fastrnn
import torch_twin
from cases import CELLS, CELLS_IN_TORCH, DTYPES, make, make_cell


@pytest.mark.parametrize("cell", [*CELLS_IN_TORCH, "LSTM-projected"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_names_shapes_and_order_are_torchs(cell, bias, bidirectional):
    name = cell.removesuffix("-projected")
    extra = {"proj_size": 3} if name != cell else {}
    layer = make(name, 5, 7, 2, bias=bias, bidirectional=bidirectional, **extra)
    wanted = torch_twin.twin(layer).state_dict()
    assert {key: a.shape for key, a in layer.state_dict().items()} == {
        key: tuple(a.shape) for key, a in wanted.items()
    }
    assert list(layer.state_dict()) == list(layer.parameters) == list(wanted)


@pytest.mark.parametrize("cell", CELLS)
def test_cells_have_torchs_names(cell):
    gates = len(make_cell(cell, 5, 7)._cell.gates)
    shapes = {"weight_ih": (gates * 7, 5), "weight_hh": (gates * 7, 7)}
    biases = {"bias_ih": (gates * 7,), "bias_hh": (gates * 7,)}
    for bias in (False, True):
        found = make_cell(cell, 5, 7, bias=bias).state_dict()
        wanted = shapes | biases if bias else shapes
        assert {name: a.shape for name, a in found.items()} == wanted
        assert list(found) == list(wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_distribution(cell, dtype):
    """U(-1/sqrt(H), 1/sqrt(H)) for every parameter, biases too."""
    H = 64
    bound = 1 / np.sqrt(H)
    for layer in (make(cell, 40, H, 2, dtype=dtype), make_cell(cell, 40, H, dtype=dtype)):
        for name, a in layer.state_dict().items():
            assert a.dtype == np.dtype(dtype), name
            assert np.abs(a).max() <= bound, name
            # The largest of n draws comes within 10/n of the bound (but for e^-10); mean and
            # variance deviate by bound * sqrt(1/3n) and bound² * sqrt(4/45n), five times at most.
            assert np.abs(a).max() > bound * (1 - 10 / a.size), name
            assert abs(a.mean()) < 5 * bound / np.sqrt(3 * a.size), name
            assert abs(a.var() - bound**2 / 3) < 5 * bound**2 * np.sqrt(4 / 45 / a.size), name


@pytest.mark.parametrize("build", [make, make_cell])
def test_the_seed_decides(build):
    first, again = build("LSTM", 5, 7, seed=3), build("LSTM", 5, 7, seed=3)
    other = build("LSTM", 5, 7, seed=4)
    for name, a in first.state_dict().items():
        assert np.array_equal(a, again.parameters[name])
        assert not np.array_equal(a, other.parameters[name])


def test_without_a_seed_layers_differ():
    first, second = fastrnn.GRU(5, 7), fastrnn.GRU(5, 7)
    assert not np.array_equal(first.parameters["weight_ih_l0"], second.parameters["weight_ih_l0"])


def test_parameters_of_one_layer_differ():
    layer = make("GRU", 7, 7, 2, bidirectional=False)
    arrays = [a for name, a in layer.state_dict().items() if name.startswith("weight")]
    for k, a in enumerate(arrays):
        assert not any(np.array_equal(a, b) for b in arrays[k + 1 :])


def test_attributes():
    layer = fastrnn.LSTM(
        5, 7, 2, bias=False, batch_first=True, dropout=0.5, bidirectional=True, proj_size=3
    )
    found = {
        name: getattr(layer, name)
        for name in (
            "input_size",
            "hidden_size",
            "num_layers",
            "bias",
            "batch_first",
            "dropout",
            "bidirectional",
            "proj_size",
        )
    }
    assert found == {
        "input_size": 5,
        "hidden_size": 7,
        "num_layers": 2,
        "bias": False,
        "batch_first": True,
        "dropout": 0.5,
        "bidirectional": True,
        "proj_size": 3,
    }
    assert layer.dtype == np.dtype("float32")
    assert fastrnn.GRU(5, 7, dtype="float64").dtype == np.dtype("float64")
    assert fastrnn.RNN(5, 7, nonlinearity="relu").nonlinearity == "relu"
    assert fastrnn.GRU(5, 7, reset_after=False).reset_after is False


def test_arguments_stand_in_torchs_order():
    layer = fastrnn.RNN(5, 7, 2, "relu", False, True, 0.5, True)
    assert (layer.nonlinearity, layer.bias, layer.batch_first) == ("relu", False, True)
    assert (layer.dropout, layer.bidirectional) == (0.5, True)
    layer = fastrnn.LSTM(5, 7, 2, False, True, 0.5, True, 3)
    assert (layer.bias, layer.batch_first, layer.dropout) == (False, True, 0.5)
    assert (layer.bidirectional, layer.proj_size) == (True, 3)
    layer = fastrnn.GRU(5, 7, 2, False, True, 0.5, True)
    assert (layer.bias, layer.batch_first, layer.dropout) == (False, True, 0.5)
    assert layer.bidirectional is True
    cell = fastrnn.RNNCell(5, 7, False, "relu")
    assert (cell.bias, cell.nonlinearity) == (False, "relu")
