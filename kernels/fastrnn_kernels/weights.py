"""The weights of one direction of one layer, as every device is given them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn_kernels.cells.cell import Cell

Array = NDArray[Any]
#: What keeps the scale of a norm finite.
EPSILON = 1e-5


@dataclass(frozen=True, eq=False)
class Weights:
    """One direction of one layer, never changed; a device lays them out when they are first used.

    NumPy arrays w_ih (G H, I), w_hh (GH H, P), b_ih (G H,) and b_hh (GH H,) or None, w_hr (P, H)
    or None; compute: the type that products are computed in, of the weights if not given; units
    (Q, H), the parameters per unit, or None.

    blocks: n, of a block-diagonal R: w_hh is then (GH H, P / n), and a unit of block k, one of
    H / n, multiplies the columns of h that are the k-th of n parts.

    norm: "layer" or "rms", of W x and of R h before they are added, each over all units of all its
    gates; "" for none. norm_ih (G H,) and norm_hh (GH H,) are its gains.
    """

    cell: Cell
    w_ih: Array
    w_hh: Array
    b_ih: Array | None = None
    b_hh: Array | None = None
    w_hr: Array | None = None
    compute: str = ""
    units: Array | None = None
    blocks: int = 1
    norm: str = ""
    norm_ih: Array | None = None
    norm_hh: Array | None = None

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
        return int(self.w_hh.shape[1]) * self.blocks

    @property
    def projected(self) -> bool:
        """Whether h is projected."""
        return self.w_hr is not None

    def positions(self, gates: Sequence[str]) -> tuple[int, ...]:
        """Where some gates stand among the rows of w_ih and b_ih."""
        return tuple(map(self.cell.gates.index, gates))

    def h_positions(self, gates: Sequence[str]) -> tuple[int, ...]:
        """Where some gates stand among the rows of w_hh and b_hh."""
        return tuple(map(self.cell.recurrent.index, gates))

    def rows(self, matrix: Array, positions: Sequence[int]) -> Array:
        """The rows of the gates at some positions, one after the other."""
        H = self.hidden_size
        none = matrix[:0]
        return np.concatenate([none, *(matrix[g * H : (g + 1) * H] for g in positions)])

    def whole_w_hh(self) -> Array:
        """R (GH H, P), with the zeros that are between blocks."""
        if self.blocks == 1:
            return self.w_hh
        n, width = self.blocks, int(self.w_hh.shape[1])
        whole = np.zeros((self.cell.GH, n, width, n, width), self.dtype)
        own = np.arange(n)
        whole[:, own, :, own] = self.w_hh.reshape(-1, n, width, width).swapaxes(0, 1)
        return whole.reshape(-1, n * width)

    def of_blocks(self, xp: Any, whole: Any) -> Any:
        """Of an array like R, (GH H, P), what stands in its blocks, as w_hh; of a device's own."""
        if self.blocks == 1:
            return whole
        n, width = self.blocks, int(self.w_hh.shape[1])
        own = xp.arange(n)
        parts = whole.reshape(-1, n, width, n, width)[:, own, :, own]  # (n, GH, width, width)
        return xp.ascontiguousarray(parts.swapaxes(0, 1)).reshape(-1, width)

    def biases(self) -> tuple[Array, Array]:
        """The bias of the x-parts (G H,), and that of the h-parts, which gates apart have (GH H,).

        A gate that stands apart keeps its two biases apart; the others' are one, in the first.
        """
        cell, H = self.cell, self.hidden_size
        b_ih = np.zeros(cell.G * H, self.dtype) if self.b_ih is None else self.b_ih
        b_hh = np.zeros(cell.GH * H, self.dtype) if self.b_hh is None else self.b_hh
        if cell.GH == cell.G and not cell.apart:
            return b_ih + b_hh, b_hh
        both = np.copy(b_ih)
        both[_whole(cell, H)] += self.rows(b_hh, self.h_positions(_whole_gates(cell)))
        return both, b_hh


@cache
def _whole_gates(cell: Cell) -> tuple[str, ...]:
    return tuple(gate for gate in cell.recurrent if gate not in cell.apart)


@cache
def _whole(cell: Cell, H: int) -> NDArray[np.bool_]:
    """Of each row of the weights, whether it is a gate's whose two parts are one sum."""
    return np.repeat([gate in _whole_gates(cell) for gate in cell.gates], H)
