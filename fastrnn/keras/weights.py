"""Keras's weights as the kernels': packed once, as long as they stay what they are."""

from dataclasses import dataclass

import numpy as np

from fastrnn.arrays import Array
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.arrays.compare import Copies
from fastrnn_kernels.cpu.device import Gradients, Weights

#: kernel (I, G H), recurrent_kernel (H, G H), bias (G H,), (2, G H) or None
KerasWeights = tuple[Array, Array, Array | None]


@dataclass(frozen=True)
class Layout:
    """How Keras lays out the weights of a cell whose gates are torch's.

    swapped: Keras has the first two gates the other way round (GRU: z, r against r, z).
    two_biases: the bias is (2, G H), for the products with x and with h.
    """

    swapped: bool = False
    two_biases: bool = False

    def _reordered(self, matrix: Array, gates: int) -> Array:
        """Columns in Keras's order of the gates -> in torch's, or back."""
        if not self.swapped:
            return matrix
        first, second, *others = np.split(matrix, gates, axis=-1)
        return np.concatenate([second, first, *others], axis=-1)

    def to_kernel(self, cell: Cell, weights: KerasWeights) -> Weights:
        """The kernels' weights. What is given must not change afterwards."""
        gates = len(cell.gates)
        kernel, recurrent = (self._reordered(matrix, gates).T for matrix in weights[:2])
        if weights[2] is None:
            return Weights(cell, kernel, recurrent)
        bias = self._reordered(weights[2], gates)
        return Weights(cell, kernel, recurrent, *(bias if self.two_biases else (bias, None)))

    def gradients(self, cell: Cell, found: Gradients, biased: bool) -> KerasWeights:
        """The gradients of Keras's weights."""
        gates = len(cell.gates)
        kernel, recurrent = (
            np.ascontiguousarray(self._reordered(matrix.T, gates))
            for matrix in (found.w_ih, found.w_hh)
        )
        if not biased:
            return kernel, recurrent, None
        bias = np.stack([found.b_ih, found.b_hh]) if self.two_biases else found.b_ih
        return kernel, recurrent, self._reordered(bias, gates)


class Packed:
    """The kernels' weights of one Keras cell, made again when Keras's have changed.

    No framework tells reliably when a variable has changed, so it is seen from the values:
    to compare them takes a tenth of the time of packing them. Threads may share one.
    """

    def __init__(self) -> None:
        self._kept: tuple[Cell, Layout, Copies, Weights] | None = None

    def __call__(self, cell: Cell, layout: Layout, given: KerasWeights) -> Weights:
        """The kernels' weights for the values given."""
        kept, arrays = self._kept, [array for array in given if array is not None]
        if kept is not None and kept[:2] == (cell, layout) and kept[2].equal(arrays):
            return kept[3]
        copies = Copies(arrays)
        kernel, recurrent, *bias = copies.arrays
        weights = layout.to_kernel(cell, (kernel, recurrent, bias[0] if bias else None))
        self._kept = cell, layout, copies, weights
        return weights
