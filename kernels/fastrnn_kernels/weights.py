"""The weights of one direction of one layer, as every device is given them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn_kernels.cells.cell import Cell

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Weights:
    """One direction of one layer, never changed; a device lays them out when they are first used.

    NumPy arrays w_ih (G H, I), w_hh (G H, P), b_ih and b_hh (G H,) or None, w_hr (P, H) or None,
    units (Q, H) of a cell with parameters per unit; compute: the type that products are computed
    in, of the weights if not given.
    """

    cell: Cell
    w_ih: Array
    w_hh: Array
    b_ih: Array | None = None
    b_hh: Array | None = None
    w_hr: Array | None = None
    units: Array | None = None
    compute: str = ""

    def __post_init__(self) -> None:
        """Name the type that products are computed in."""
        if not self.compute:
            compute = "float64" if self.dtype.itemsize == 8 else "float32"
            object.__setattr__(self, "compute", compute)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.w_ih.dtype

    @property
    def input_size(self) -> int:
        """I, the width of x."""
        return int(self.w_ih.shape[1])

    @property
    def hidden_size(self) -> int:
        """H, the units."""
        return int(self.w_ih.shape[0]) // self.cell.G

    @property
    def state_size(self) -> int:
        """P, the width of h."""
        return int(self.w_hh.shape[1])

    @property
    def projected(self) -> bool:
        """Whether h is projected."""
        return self.w_hr is not None

    def positions(self, gates: Sequence[str]) -> tuple[int, ...]:
        """Where some gates stand among the weights' rows."""
        return tuple(map(self.cell.gates.index, gates))

    def rows(self, matrix: Array, gates: Sequence[str]) -> Array:
        """The rows of some gates, one after the other."""
        H = self.hidden_size
        none = matrix[:0]
        return np.concatenate([none, *(matrix[g * H : (g + 1) * H] for g in self.positions(gates))])

    def biases(self) -> tuple[Array, Array]:
        """The bias of the x-parts (G H,), and that of the h-parts, which gates apart have (G H,).

        A gate that stands apart keeps its two biases apart; the others' are one, in the first.
        """
        b_ih, b_hh = self.b_ih, self.b_hh
        if b_ih is None or b_hh is None:
            zeros = np.zeros(self.cell.G * self.hidden_size, self.dtype)
            b_ih, b_hh = (zeros if one is None else one for one in (b_ih, b_hh))
        if not self.cell.apart:
            return b_ih + b_hh, b_hh
        return np.where(_apart(self.cell, self.hidden_size), b_ih, b_ih + b_hh), b_hh


@cache
def _apart(cell: Cell, H: int) -> NDArray[np.bool_]:
    """Of each row of the weights, whether it is a gate's that stands apart."""
    return np.repeat([gate in cell.apart for gate in cell.gates], H)
