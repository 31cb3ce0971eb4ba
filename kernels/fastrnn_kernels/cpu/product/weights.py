"""Panels packed from the weights of one direction of one layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from fastrnn_kernels import weights
from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.memory import Array, on_line
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.isa.instruction_set import InstructionSet
from fastrnn_kernels.cpu.product.blocks import Reach, block_gate_panels, block_plain_panels
from fastrnn_kernels.cpu.product.packing import gate_panels, gate_size, plain_panels, plain_size
from fastrnn_kernels.cpu.product.pairs import VALUES, paired
from fastrnn_kernels.cpu.product.panels import VECTORS, padded, vectors_per_gate
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


@dataclass(slots=True, eq=False)  # frozen ones take longer to make
class ForwardPanels:
    """What the forward kernel reads; shapes stand there.

    address: where all of them lie, one behind the other in this order, or 0 where they do not.
    """

    x: Array
    bias: Array
    h: Array
    h_bias: Array
    late: Array
    projection: Array
    units: Array
    address: int = 0

    @classmethod
    def of(cls, panels: Sequence[Array], address: int = 0) -> "ForwardPanels":
        """Of panels in this order."""
        x, bias, h, h_bias, late, projection, units = panels
        return cls(x, bias, h, h_bias, late, projection, units, address)


@dataclass(slots=True, eq=False)
class BackwardPanels:
    """What the backward kernel reads, for the gradient of h; address: as of forward panels."""

    h: Array
    late: Array
    projection: Array
    units: Array
    address: int = 0

    @classmethod
    def of(cls, panels: Sequence[Array], address: int = 0) -> "BackwardPanels":
        """Of panels in this order."""
        h, late, projection, units = panels
        return cls(h, late, projection, units, address)


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

    @property
    def gate_reach(self) -> Reach:
        """What forward panels read of h where R is made of blocks."""
        U = vectors_per_gate(self.cell) * lanes_of(self.dtype)
        return self._kept("gate reach", lambda: Reach.of(self.hidden_size, self._block, U))

    @property
    def column_reach(self) -> Reach:
        """Which units those of the backward pass read where R is made of blocks."""
        U = columns_of(self.dtype)
        return self._kept("column reach", lambda: Reach.of(self.hidden_size, self._block, U))

    @property
    def _block(self) -> int:
        return self.state_size // self.blocks

    @property
    def norm_gains(self) -> tuple[Array, Array]:
        """The gains of a norm, (G H,) and (E H,), gates in the order of the sums."""
        assert self.norm_ih is not None
        assert self.norm_hh is not None
        early = self.rows(self.norm_hh, self.h_positions(self.cell.early))
        return self.rows(self.norm_ih, self.positions(self.cell.x_gates)), early

    @property
    def norm_panels(self) -> tuple[Array, Array]:
        """The same in forward panels, [panel][gate][U]."""
        return self._kept("norm", self._pack_norm)

    def _pack_norm(self) -> tuple[Array, Array]:
        U, H = vectors_per_gate(self.cell) * lanes_of(self.dtype), self.hidden_size
        x, h = (
            gate_panels(gains[:, None], tuple(range(gains.size // H)), H, U)
            for gains in self.norm_gains
        )
        return x, h

    @property
    def depth(self) -> int:
        """Rows of h that forward panels hold."""
        return self.state_size if self.blocks == 1 else self.gate_reach.depth

    @property
    def forward_sizes(self) -> tuple[int, ...]:
        """Values of forward panels, but for those of pairs."""
        cell, H, P, lanes = self.cell, self.hidden_size, self.state_size, lanes_of(self.dtype)
        U, W4 = vectors_per_gate(cell) * lanes, VECTORS * lanes
        return (
            gate_size(self.input_size, cell.G, H, U),
            gate_size(1, cell.G, H, U),
            gate_size(self.depth, cell.E, H, U),
            gate_size(1, cell.A, H, U),
            gate_size(P, cell.L, H, U),
            plain_size(P, 1, H, W4) if self.projected else 0,
            cell.Q * padded(H, U),
        )

    @property
    def backward_sizes(self) -> tuple[int, ...]:
        """Values of backward panels."""
        cell, H, P, W4 = self.cell, self.hidden_size, self.state_size, columns_of(self.dtype)
        depth = H if self.blocks == 1 else self.column_reach.depth
        return (
            plain_size(P, cell.E, depth, W4),
            plain_size(P, cell.L, H, W4),
            plain_size(H, 1, P, W4) if self.projected else 0,
            cell.Q * padded(H, W4),
        )

    @property
    def size_of_input_panels(self) -> int:
        """Values of `input_panels`."""
        return plain_size(self.input_size, self.cell.G, self.hidden_size, columns_of(self.dtype))

    def forward(self) -> ForwardPanels:
        """Packed for the forward kernel, when first asked for."""
        if VALUES[self.compute] > 1:
            return self._kept("forward", lambda: self._pack_otherwise(self._paired))
        return self._kept("forward", self._pack_forward)

    @staticmethod
    def _paired(name: str, panels: Array, K: int, width: int) -> Array:
        return paired(panels, K, width)

    def stream(self, storage: str) -> tuple[Array, ...]:
        """Packed for a stream, when first asked for, as `CellStage.SLOTS` has it."""
        return self._kept(f"stream {storage}", lambda: self._pack_stream(storage))

    def backward(self) -> BackwardPanels:
        """Packed for the backward kernel, when first asked for."""
        return self._kept("backward", self._pack_backward)

    def input_panels(self) -> Array:
        """Packed for the gradient of x, when first asked for."""
        return self._kept("inputs", self._pack_inputs)

    def _pack_inputs(self) -> Array:
        width, positions = columns_of(self.dtype), self.positions(self.cell.x_gates)
        return plain_panels(self.w_ih, positions, self.hidden_size, width)

    def _pack_units(self, width: int, out: Array) -> None:
        """The parameters per unit [parameter][units], padded to whole panels."""
        if self.units is not None:
            H, every = self.hidden_size, tuple(range(self.cell.Q))
            plain_panels(self.units, every, 1, padded(H, width), out)

    def keep(self, name: str, panels: Any) -> None:
        """Have panels for what they are for, which somebody else packs."""
        self._packed[current(), name] = panels

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
            panels = self._pack_otherwise(operands)
        parts = panels.x, panels.bias, panels.h, panels.h_bias, panels.late, panels.projection
        none = np.empty(0, self.dtype)
        found = (scales.get(name, none) for name in ("x", "h", "late", "projection"))
        every = [*parts, *found, panels.units]
        if self.blocks > 1:
            every.append(np.array([self.depth, *self.gate_reach.panels.flat], np.int64))
        return *every, *(self.norm_panels if self.norm else ())

    def _pack_forward(self) -> ForwardPanels:
        cell, H, given = self.cell, self.hidden_size, (self.w_ih, self.w_hh)
        U = vectors_per_gate(cell) * lanes_of(self.dtype)
        address, parts = memory.parts(self.forward_sizes, self.dtype)
        x, bias, h, h_bias, late, projection, units = parts
        of_x, of_h = self.biases()
        for matrix, positions, out in (
            (given[0], self.positions(cell.x_gates), x),
            (of_x[:, None], self.positions(cell.x_gates), bias),
            (given[1], self.h_positions(cell.early) if self.blocks == 1 else (), h),
            (of_h[:, None], self.h_positions(cell.apart), h_bias),
            (given[1], self.h_positions(cell.late), late),
        ):
            if positions:
                gate_panels(matrix, positions, H, U, out)
        if self.blocks > 1:
            positions = self.h_positions(cell.early)
            block_gate_panels(self.w_hh, positions, H, U, self.gate_reach, h)
        if self.w_hr is not None:
            plain_panels(self.w_hr.T, (0,), H, columns_of(self.dtype), projection)
        self._pack_units(U, units)
        return ForwardPanels(x, bias, h, h_bias, late, projection, units, address)

    def _pack_otherwise(self, operands: Callable[[str, Array, int, int], Array]) -> ForwardPanels:
        """Forward panels of other values: `operands` makes them of a name, panels, K and width."""
        cell, U = self.cell, vectors_per_gate(self.cell) * lanes_of(self.dtype)
        packed, none = self._pack_forward(), np.empty(0, self.operand_dtype)

        def of(name: str, panels: Array, K: int, width: int) -> Array:
            return on_line(operands(name, panels, K, width)) if panels.size else none

        return ForwardPanels(
            x=of("x", packed.x, self.input_size, cell.G * U),
            bias=packed.bias,
            h=of("h", packed.h, self.depth, cell.E * U),
            h_bias=packed.h_bias,
            late=of("late", packed.late, self.state_size, cell.L * U),
            projection=of(
                "projection", packed.projection, self.hidden_size, columns_of(self.dtype)
            ),
            units=packed.units,
        )

    def _pack_backward(self) -> BackwardPanels:
        cell, H, U = self.cell, self.hidden_size, columns_of(self.dtype)
        address, (h, late, projection, units) = memory.parts(self.backward_sizes, self.dtype)
        if self.blocks > 1:
            positions = self.h_positions(cell.early)
            block_plain_panels(self.w_hh, positions, H, U, self.column_reach, h)
        elif cell.early:
            plain_panels(self.w_hh, self.h_positions(cell.early), H, U, h)
        if cell.late:
            plain_panels(self.w_hh, self.h_positions(cell.late), H, U, late)
        if self.w_hr is not None:
            plain_panels(self.w_hr, (0,), self.state_size, U, projection)
        self._pack_units(U, units)
        return BackwardPanels(h, late, projection, units, address)
