"""The weights of one direction of one layer, on the GPU, laid out for its products."""

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cuda.launch.arrays import Array, take, wait
from fastrnn_kernels.cuda.launch.launch import Readers
from fastrnn_kernels.cuda.launch.recent import Plans

#: Held by whoever copies weights to the GPU.
_making = threading.RLock()


class Matrices(NamedTuple):
    """What products and kernels read; shapes as in `stepwise_kernels.py`, of early and late gates.

    x (G H, I), bias (G H,); h (E H, P), h_bias (A H,); late (L H, H); projection (P, H).
    """

    x: Array
    bias: Array
    h: Array
    h_bias: Array
    late: Array
    projection: Array


@dataclass(frozen=True, eq=False)
class Weights:
    """One direction of one layer, never changed; copied to the GPU when first used.

    NumPy arrays w_ih (G H, I), w_hh (G H, P), b_ih and b_hh (G H,) or None, w_hr (P, H) or
    None; products: the type that products are computed in, of the weights if not given.
    """

    cell: Cell
    w_ih: Any
    w_hh: Any
    b_ih: Any = None
    b_hh: Any = None
    w_hr: Any = None
    products: str = ""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        dtype: np.dtype[Any] = self.w_ih.dtype
        return dtype

    @property
    def input_size(self) -> int:
        """I, the width of x."""
        return int(self.w_ih.shape[1])

    @property
    def hidden_size(self) -> int:
        """H, the units."""
        return int(self.w_ih.shape[0]) // len(self.cell.gates)

    @property
    def state_size(self) -> int:
        """P, the width of h."""
        return int(self.w_hh.shape[1])

    def rows(self, matrix: Any, gates: tuple[str, ...]) -> Any:
        """The rows of some gates, one after the other."""
        H = self.hidden_size
        parts = [self.cell.gates.index(gate) for gate in gates]
        none = matrix[:0]
        return np.concatenate([none, *(matrix[g * H : (g + 1) * H] for g in parts)])

    @cached_property
    def plans(self) -> Plans:
        """What paths prepare for shapes, dropped with the weights."""
        made: Plans = self.__dict__.setdefault("plans", Plans())  # threads' first use makes one
        return made

    @cached_property
    def matrices(self) -> Matrices:
        """The weights on the GPU.

        Recordings keep the addresses of one set, so threads that use them first make no two.
        """
        with _making:
            found: Matrices | None = self.__dict__.get("matrices")
            if found is None:
                self.__dict__["matrices"] = found = self._copied()
            return found

    def note(self) -> None:
        """The caller's stream may have been given work that reads the weights."""
        readers: Readers | None = self.__dict__.get("readers")
        if readers is not None:
            readers.note()

    def _copied(self) -> Matrices:
        cell, H = self.cell, self.hidden_size
        zeros = np.zeros(len(cell.gates) * H, self.dtype)
        b_ih = zeros if self.b_ih is None else self.b_ih
        b_hh = zeros if self.b_hh is None else self.b_hh
        # A gate that stands apart keeps its two biases apart; the others' are one.
        apart = np.repeat([gate in cell.apart for gate in cell.gates], H)
        early = cell.h_gates[: len(cell.gates) - len(cell.late)]
        projection = self.w_hh[:0] if self.w_hr is None else self.w_hr
        made = Matrices(
            x=take(self.rows(self.w_ih, cell.x_gates)),
            bias=take(self.rows(np.where(apart, b_ih, b_ih + b_hh), cell.x_gates)),
            h=take(self.rows(self.w_hh, early)),
            h_bias=take(self.rows(b_hh, cell.apart)),
            late=take(self.rows(self.w_hh, cell.late)),
            projection=take(projection),
        )
        wait()  # another stream may be the next to read them
        self.__dict__["readers"] = Readers(self)
        return made
