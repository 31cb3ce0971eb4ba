"""Parity with torch.nn: outputs, final states and every gradient, over the whole grid."""

import numpy as np
import pytest

import torch_twin
from cases import CELLS_IN_TORCH, DTYPES, TOLERANCE, assert_results_close, make, problem, run

pytestmark = pytest.mark.filterwarnings(
    "ignore:LSTM with projections is not supported with oneDNN"  # torch says so once
)
BOOLS = [False, True]
LAYERS = {cell: (cell, {}) for cell in CELLS_IN_TORCH} | {
    "LSTM-projected": ("LSTM", {"proj_size": 3})
}


def strided(array):
    """The same values with a gap after each and rows that run backwards in memory."""
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[::-1, :, ::2] = array
    view = wide[::-1, :, ::2]
    assert not view.flags.c_contiguous
    return view


def check(layer, p, lengths=None):
    wanted = torch_twin.run(torch_twin.twin(layer), p, lengths)
    found = run(layer, p, lengths=lengths)
    assert_results_close(found, wanted, TOLERANCE[np.dtype(layer.dtype).name])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bias", BOOLS, ids=["no bias", "bias"])
@pytest.mark.parametrize("bidirectional", BOOLS, ids=["one way", "both ways"])
@pytest.mark.parametrize("batch_first", BOOLS, ids=["time first", "batch first"])
@pytest.mark.parametrize("num_layers", [1, 2], ids=["1 layer", "2 layers"])
@pytest.mark.parametrize("lengths", [None, (2, 4, 1, 3, 4)], ids=["full", "packed"])
@pytest.mark.parametrize("layout", [np.ascontiguousarray, strided], ids=["dense", "strided"])
def test_grid(name, dtype, bias, bidirectional, batch_first, num_layers, lengths, layout):
    cell, extra = LAYERS[name]
    layer = make(
        cell,
        5,
        7,
        num_layers,
        bias=bias,
        bidirectional=bidirectional,
        batch_first=batch_first,
        dtype=dtype,
        **extra,
    )
    p = problem(layer, 4, 5)
    if batch_first:
        p = p.swap()
    p.x, p.dy = layout(p.x), layout(p.dy)
    check(layer, p, None if lengths is None else np.array(lengths))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS_IN_TORCH)
@pytest.mark.parametrize(("I", "H"), [(1, 1), (5, 7), (1, 17), (5, 63), (1, 65)])
@pytest.mark.parametrize("T", [1, 6])
@pytest.mark.parametrize("B", [1, 5, 13])
def test_odd_sizes(cell, dtype, I, H, T, B):
    layer = make(cell, I, H, dtype=dtype)
    check(layer, problem(layer, T, B))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_larger_than_any_block(name, dtype):
    """Several register blocks, several chunks of time steps, ragged, two layers both ways."""
    cell, extra = LAYERS[name]
    layer = make(cell, 33, 70, 2, bidirectional=True, dtype=dtype, **extra)
    lengths = np.random.default_rng(0).integers(1, 51, 33)
    check(layer, problem(layer, 50, 33), lengths)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS_IN_TORCH)
@pytest.mark.parametrize("bidirectional", BOOLS)
def test_inference_equals_torch(cell, dtype, bidirectional):
    """The call without a tape takes a path of its own, in torch and here."""
    layer = make(cell, 5, 63, 2, bidirectional=bidirectional, dtype=dtype)
    p = problem(layer, 7, 5)
    wanted = torch_twin.infer(torch_twin.twin(layer), p)
    y, _ = layer(p.x, p.state if len(p.state) > 1 else p.state[0])
    np.testing.assert_allclose(y, wanted, rtol=0, atol=TOLERANCE[dtype])
