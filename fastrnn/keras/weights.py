"""Keras's weights as the kernels': packed once, as long as they stay what they are."""

from dataclasses import dataclass

import numpy as np

from fastrnn.adapting import Kept
from fastrnn.arrays import Array
from fastrnn.files.gates import from_format, to_format
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.device import Gradients, Weights

#: kernel (I, G H), recurrent_kernel (H, G H), bias (G H,), (2, G H) or None
KerasWeights = tuple[Array, Array, Array | None]


@dataclass(frozen=True)
class Layout:
    """How Keras lays out the weights of a cell whose gates are torch's.

    two_biases: the bias is (2, G H), for the products with x and with h.
    """

    two_biases: bool = False

    def to_kernel(self, cell: Cell, weights: KerasWeights) -> Weights:
        """The kernels' weights. What is given must not change afterwards."""
        gates = len(cell.gates)
        kernel, recurrent = (from_format("keras", matrix, gates, -1).T for matrix in weights[:2])
        if weights[2] is None:
            return Weights(cell, kernel, recurrent)
        bias = from_format("keras", weights[2], gates, -1)
        return Weights(cell, kernel, recurrent, *(bias if self.two_biases else (bias, None)))

    def gradients(self, cell: Cell, found: Gradients, biased: bool) -> KerasWeights:
        """The gradients of Keras's weights."""
        gates = len(cell.gates)
        kernel, recurrent = (
            np.ascontiguousarray(to_format("keras", matrix.T, gates, -1))
            for matrix in (found.w_ih, found.w_hh)
        )
        if not biased:
            return kernel, recurrent, None
        bias = np.stack([found.b_ih, found.b_hh]) if self.two_biases else found.b_ih
        return kernel, recurrent, to_format("keras", bias, gates, -1)


class Packed:
    """The kernels' weights of one Keras cell, made again when Keras's have changed."""

    def __init__(self) -> None:
        self._kept: Kept[Weights] = Kept()

    def __call__(self, cell: Cell, layout: Layout, given: KerasWeights) -> Weights:
        """The kernels' weights for the values given."""
        arrays = [array for array in given if array is not None]

        def make(copies: list[Array]) -> Weights:
            kernel, recurrent, *bias = copies
            return layout.to_kernel(cell, (kernel, recurrent, bias[0] if bias else None))

        return self._kept.of(
            (cell, layout), lambda copies: copies.equal(arrays), lambda: arrays, make
        )
