"""Sequences whose sizes are known before their memory: what recipes are made for, and their tapes.

The arrays are a framework's that lays out weights as Keras does: kernel (I, G H), recurrent kernel
(H, G H), bias (G H,), (2, G H) or none, and sequences (B, T, ...).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.product.panels import padded
from fastrnn_kernels.cpu.product.weights import Weights, lanes_of
from fastrnn_kernels.cpu.threads.recipe import Slot
from fastrnn_kernels.rows import Indices, Rows


class Masked(NamedTuple):
    """What steps show that do not run.

    zeros: zeros, else the output before. holds_start: where there is none, the initial h, else
    zeros.
    """

    zeros: bool
    holds_start: bool


@dataclass(frozen=True)
class Sequences:
    """What recipes are made for: sequences of T steps, of which a mask may tell which ones run.

    places: of the cell's gates among the framework's. biases: rows of its bias, 0, 1 or 2.
    sequences: whether the output is that of every step, else of the last. masked: None where all
    steps run.
    """

    cell: Cell
    places: tuple[int, ...]
    T: int
    B: int
    I: int
    H: int
    dtype: str
    biases: int
    go_backwards: bool
    sequences: bool
    masked: Masked | None = None

    @property
    def shown(self) -> tuple[int, ...]:
        """The shape of the output."""
        return (self.B, self.T, self.H) if self.sequences else (self.B, self.H)

    @property
    def bias(self) -> tuple[int, ...]:
        """The shape of the bias as an array of rows."""
        return self.biases, self.cell.G * self.H

    @cached_property
    def rows(self) -> Rows:
        """All rows, in whole: with a mask, what there may be at most."""
        return Rows(self.T, self.B)

    @cached_property
    def weights(self) -> Weights:
        """Weights of these sizes, for plans; their values are nobody's."""
        one, rows = np.zeros((), self.dtype), self.cell.G * self.H
        kernel, recurrent = (np.broadcast_to(one, (rows, width)) for width in (self.I, self.H))
        return Weights(self.cell, kernel, recurrent)

    def positions(self, gates: Sequence[str]) -> Indices:
        """Where some gates stand among the framework's."""
        return np.array([self.places[self.cell.gates.index(gate)] for gate in gates], np.int64)


@dataclass(frozen=True)
class TapeParts:
    """The tape of `tape.py` as parts of one slot."""

    x: Array
    saved: Array
    old_h: Array
    old_rest: Array
    inner: Array


def tape_in(of: Sequences, slot: Slot, taping: bool = True) -> TapeParts:
    """The parts of a tape in a slot; without `taping` the kernels' own input alone."""
    cell, dtype = of.cell, np.dtype(of.dtype)
    HL = padded(of.H, lanes_of(dtype))
    late = bool(cell.late)

    def part(*shape: int, kept: bool = True) -> Array:
        return slot.empty(shape, dtype) if kept else np.empty((0,) * len(shape), dtype)

    return TapeParts(
        x=part(of.T, of.B, of.I),
        saved=part(of.T, of.B, cell.K, HL, kept=taping),
        old_h=part(of.T, of.B, HL, kept=taping),
        old_rest=part(cell.N - 1, of.T, of.B, HL, kept=taping),
        inner=part(of.T, of.B, HL, kept=taping and late),
    )


def tape_bytes(of: Sequences) -> int:
    """The size of a tape."""
    slot = Slot(0)
    tape_in(of, slot)
    return slot.size
