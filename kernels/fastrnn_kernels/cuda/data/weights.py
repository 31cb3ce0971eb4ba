"""The weights of one direction of one layer on the GPU, laid out for its products."""

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fastrnn_kernels import weights
from fastrnn_kernels.cuda.launch.arrays import Array, take, wait
from fastrnn_kernels.cuda.launch.launch import Readers
from fastrnn_kernels.cuda.launch.recent import Recent

#: Held by whoever copies weights to the GPU.
_making = threading.RLock()


class Matrices(NamedTuple):
    """What products and kernels read; shapes as in `stepwise/forward.py`, of early and late gates.

    x (G H, I), bias (G H,); h (E H, P), h_bias (A H,); late (L H, H); projection (P, H);
    units (Q, H).
    """

    x: Array
    bias: Array
    h: Array
    h_bias: Array
    late: Array
    projection: Array
    units: Array


@dataclass(frozen=True, eq=False)
class Weights(weights.Weights):
    """One direction of one layer, copied to the GPU when first used."""

    @cached_property
    def recent(self) -> Recent:
        """What paths prepare for shapes, dropped with the weights."""
        made: Recent = self.__dict__.setdefault("recent", Recent())  # threads' first use makes one
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
        cell, w_hh = self.cell, self.whole_w_hh()
        x_gates, (bias, h_bias) = self.positions(cell.x_gates), self.biases()
        projection = w_hh[:0] if self.w_hr is None else self.w_hr
        units = np.empty(0, self.dtype) if self.units is None else self.units
        made = Matrices(
            x=take(self.rows(self.w_ih, x_gates)),
            bias=take(self.rows(bias, x_gates)),
            h=take(self.rows(w_hh, self.h_positions(cell.early))),
            h_bias=take(self.rows(h_bias, self.h_positions(cell.apart))),
            late=take(self.rows(w_hh, self.h_positions(cell.late))),
            projection=take(projection),
            units=take(units),
        )
        wait()  # another stream may be the next to read them
        self.__dict__["readers"] = Readers(self)
        return made
