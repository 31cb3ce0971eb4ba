"""Panels packed from the weights of one direction of one layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from fastrnn_kernels import weights
from fastrnn_kernels.cpu.arrays.memory import Array, on_line
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.isa.instruction_set import InstructionSet
from fastrnn_kernels.cpu.product.packing import gate_panels, plain_panels
from fastrnn_kernels.cpu.product.pairs import VALUES, paired
from fastrnn_kernels.cpu.product.panels import VECTORS, vectors_per_gate
from fastrnn_kernels.cpu.product.storage import BF16, FULL, stored

_Panels = TypeVar("_Panels")


def lanes_of(dtype: np.dtype[Any]) -> int:
    """Values of a type in one vector register."""
    return current().lanes(dtype.itemsize)


def columns_of(dtype: np.dtype[Any]) -> int:
    """Columns of a panel that does not hold gates."""
    return VECTORS * lanes_of(dtype)


def panels_of(matrix: Array) -> Array:
    """(K, N) -> [panel][K][4 vectors], columns padded with zeros."""
    return plain_panels(matrix, (0,), len(matrix), columns_of(matrix.dtype))


@dataclass(frozen=True, eq=False)
class ForwardPanels:
    """What the forward kernel reads; shapes stand there."""

    x: Array
    bias: Array
    h: Array
    h_bias: Array
    late: Array
    projection: Array


@dataclass(frozen=True, eq=False)
class BackwardPanels:
    """What the backward kernel reads, for the gradient of h."""

    h: Array
    late: Array
    projection: Array


@dataclass(frozen=True, eq=False)
class Weights(weights.Weights):
    """One direction of one layer, and the panels packed from it when they are first used."""

    #: by instruction set and what they are for
    _packed: dict[tuple[InstructionSet, str], Any] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def operand_dtype(self) -> np.dtype[Any]:
        """Of the arrays that products read: pairs of bfloat16 are integers of 32 bits."""
        return np.dtype(np.int32) if VALUES[self.compute] > 1 else self.dtype

    def forward(self) -> ForwardPanels:
        """Packed for the forward kernel, when first asked for."""

        def operands(name: str, panels: Array, K: int, width: int) -> Array:
            return paired(panels, K, width) if VALUES[self.compute] > 1 else panels

        return self._kept("forward", lambda: self._pack_forward(operands))

    def stream(self, storage: str) -> tuple[Array, ...]:
        """Packed for a stream, when first asked for, in the order of `CellStage.SLOTS`."""
        return self._kept(f"stream {storage}", lambda: self._pack_stream(storage))

    def backward(self) -> BackwardPanels:
        """Packed for the backward kernel, when first asked for."""
        return self._kept("backward", self._pack_backward)

    def input_panels(self) -> Array:
        """Packed for the gradient of x, when first asked for."""
        return self._kept("inputs", lambda: self._plain(self.w_ih, self.cell.x_gates))

    def _plain(self, matrix: Array, gates: Sequence[str]) -> Array:
        width = columns_of(self.dtype)
        return plain_panels(matrix, self.positions(gates), self.hidden_size, width)

    def _kept(self, name: str, pack: Callable[[], _Panels]) -> _Panels:
        # No lock, which a forked child could inherit locked: two threads that come first
        # both pack, and get the same.
        key = current(), name
        if key not in self._packed:
            self._packed[key] = pack()
        panels: _Panels = self._packed[key]
        return panels

    def _pack_stream(self, storage: str) -> tuple[Array, ...]:
        scales: dict[str, Array] = {}

        def operands(name: str, panels: Array, K: int, width: int) -> Array:
            panels, scales[name] = stored(panels, K, width, storage)
            return panels

        if storage == (BF16 if VALUES[self.compute] > 1 else FULL):
            panels = self.forward()
        else:
            panels = self._pack_forward(operands)
        parts = panels.x, panels.bias, panels.h, panels.h_bias, panels.late, panels.projection
        none = np.empty(0, self.dtype)
        return *parts, *(scales.get(name, none) for name in ("x", "h", "late", "projection"))

    def _pack_forward(self, operands: Callable[[str, Array, int, int], Array]) -> ForwardPanels:
        cell, H, dtype = self.cell, self.hidden_size, self.dtype
        U = vectors_per_gate(cell) * lanes_of(dtype)
        nothing = np.empty(0, dtype)
        bias, h_bias = self.biases()
        x_gates, h_gates = self.positions(cell.x_gates), self.positions(cell.early)
        late, apart_gates = self.positions(cell.late), self.positions(cell.apart)

        def of_gates(name: str, matrix: Array, gates: tuple[int, ...]) -> Array:
            panels = gate_panels(matrix, gates, H, U)
            return on_line(operands(name, panels, matrix.shape[1], len(gates) * U))

        none = np.empty(0, self.operand_dtype)
        projection = none
        if self.w_hr is not None:
            panels = panels_of(self.w_hr.T)
            projection = on_line(operands("projection", panels, H, columns_of(dtype)))
        return ForwardPanels(
            x=of_gates("x", self.w_ih, x_gates),
            bias=on_line(gate_panels(bias[:, None], x_gates, H, U)),
            h=of_gates("h", self.w_hh, h_gates),
            h_bias=on_line(gate_panels(h_bias[:, None], apart_gates, H, U))
            if apart_gates
            else nothing,
            late=of_gates("late", self.w_hh, late) if late else none,
            projection=projection,
        )

    def _pack_backward(self) -> BackwardPanels:
        cell, nothing = self.cell, np.empty(0, self.dtype)
        return BackwardPanels(
            h=self._plain(self.w_hh, cell.early),
            late=self._plain(self.w_hh, cell.late) if cell.late else nothing,
            projection=nothing if self.w_hr is None else panels_of(self.w_hr),
        )
