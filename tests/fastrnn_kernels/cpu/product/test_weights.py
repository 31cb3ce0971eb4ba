"""Panels are laid out as docs/architecture.md draws them."""

import numpy as np
import pytest

from fastrnn_kernels.cells.gru import GRU
from fastrnn_kernels.cells.lstm import LSTM
from fastrnn_kernels.cells.rnn import RNN_TANH
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.product.panels import VECTORS, vectors_per_gate
from fastrnn_kernels.cpu.product.weights import Weights, panels_of

H, K = 20, 3


def numbered(rows, columns):
    """A matrix of which no two values are alike, and none is 0."""
    return np.arange(1, rows * columns + 1, dtype=np.float32).reshape(rows, columns)


@pytest.mark.parametrize("cell", [LSTM, GRU, RNN_TANH])
def test_a_forward_panel_has_the_columns_of_all_gates_of_its_units(cell):
    G = len(cell.gates)
    W, U = numbered(G * H, K), vectors_per_gate(cell) * current().lanes(4)
    panels = Weights(cell, W, numbered(G * H, H)).forward().x.reshape(-1, K, G, U)
    assert len(panels) == -(-H // U)
    for n, k, position, u in np.ndindex(panels.shape):
        gate = cell.gates.index(cell.x_gates[position])
        unit = n * U + u
        wanted = W[gate * H + unit, k] if unit < H else 0
        assert panels[n, k, position, u] == wanted


def test_other_panels_have_four_registers_of_columns():
    matrix, width = numbered(K, 70), VECTORS * current().lanes(4)
    panels = panels_of(matrix).reshape(-1, K, width)
    joined = np.concatenate(list(panels), axis=1)
    np.testing.assert_array_equal(joined[:, :70], matrix)
    assert not joined[:, 70:].any()
