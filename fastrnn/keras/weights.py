"""Keras's weights as the kernels': packed once, as long as they stay what they are."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.adapting import Kept
from fastrnn.arrays import Array
from fastrnn.files.gates import from_format, places, to_format
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.device import Gradients, Weights

#: kernel (I, G H), recurrent_kernel (H, G H), bias (G H,), (2, G H) or None; the parameters that
#: each unit has of its own (Q, H), if there are any; what multiplies h (B, H) before the recurrent
#: kernel does, in training, which is no weight but goes the same way
KerasWeights = tuple[Array, Array, Array | None, Array | None, Array | None]


@dataclass(frozen=True)
class Layout:
    """How Keras lays out the weights of a cell whose gates are torch's.

    two_biases: the bias is (2, G H), for the products with x and with h. defined: gates are in the
    order of a cell that a program has defined, else in that of Keras's own.
    """

    two_biases: bool = False
    defined: bool = False

    def places(self, cell: Cell) -> tuple[int, ...]:
        """Where each gate of a cell stands in Keras's weights."""
        return tuple(range(cell.G)) if self.defined else places("keras", cell)

    def _ours(self, array: Array, gates: int) -> Array:
        return array if self.defined else from_format("keras", array, gates, -1)

    def _keras(self, array: Array, gates: int) -> Array:
        return array if self.defined else to_format("keras", array, gates, -1)

    def to_kernel(self, cell: Cell, weights: KerasWeights) -> Weights:
        """The kernels' weights. What is given must not change afterwards."""
        kernel, recurrent, bias, units, _ = weights
        w_ih, w_hh = self._ours(kernel, cell.G).T, self._ours(recurrent, cell.GH).T
        if bias is None:
            return Weights(cell, w_ih, w_hh, units=units)
        bias = self._ours(bias, cell.G)
        b_ih, b_hh = bias if self.two_biases else (bias, None)
        if b_hh is not None:  # columns of gates without an h-part come last, and nobody reads them
            b_hh = b_hh[: cell.GH * w_hh.shape[1]]
        return Weights(cell, w_ih, w_hh, b_ih, b_hh, units=units)

    def gradients(
        self, cell: Cell, found: Gradients, biased: bool, h_mask: Array | None
    ) -> KerasWeights:
        """The gradients of Keras's weights; of the mask, which is drawn, zeros."""
        kernel, recurrent = (
            np.ascontiguousarray(self._keras(matrix.T, gates))
            for matrix, gates in ((found.w_ih, cell.G), (found.w_hh, cell.GH))
        )
        of_mask = None if h_mask is None else np.zeros_like(h_mask)
        if not biased:
            return kernel, recurrent, None, found.units, of_mask
        bias = found.b_ih
        if self.two_biases:
            bias = np.zeros((2, len(bias)), bias.dtype)
            bias[0], bias[1, : len(found.b_hh)] = found.b_ih, found.b_hh
        return kernel, recurrent, self._keras(bias, cell.G), found.units, of_mask


class Packed:
    """The kernels' weights of one Keras cell, made again when Keras's have changed."""

    def __init__(self) -> None:
        self._kept: Kept[Weights] = Kept()

    def __call__(self, cell: Cell, layout: Layout, given: KerasWeights) -> Weights:
        """The kernels' weights for the values given; the mask is none of them."""
        given = (*given[:4], None)
        there = which(given)
        arrays = [array for array in given if array is not None]
        return self._kept.of(
            (cell, layout, there),
            lambda copies: copies.equal(arrays),
            lambda: arrays,
            lambda copies: layout.to_kernel(cell, spread(there, copies)),
        )


def which(weights: KerasWeights) -> tuple[bool, ...]:
    """Which of a layer's weights there are."""
    return tuple(one is not None for one in weights)


def spread(there: tuple[bool, ...], given: Iterable[Any]) -> Any:
    """Weights of which those are given that there are; None for the others."""
    left = iter(given)
    return tuple(next(left) if one else None for one in there)
