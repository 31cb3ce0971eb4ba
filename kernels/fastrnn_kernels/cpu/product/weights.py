"""The weights of one direction of one layer, and the panels packed from them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.memory import Array, on_line
from fastrnn_kernels.cpu.isa.host import VECTOR_BYTES
from fastrnn_kernels.cpu.product.pairs import VALUES, paired
from fastrnn_kernels.cpu.product.panels import VECTORS, vectors_per_gate
from fastrnn_kernels.cpu.product.storage import BF16, FULL, stored

_Panels = TypeVar("_Panels")


def lanes_of(dtype: np.dtype[Any]) -> int:
    """Values of a type in one vector register of the host."""
    return VECTOR_BYTES // dtype.itemsize


def _gate_panels(weights: Array, gates: list[int], H: int, U: int) -> Array:
    """(gates * H, K), gates as listed -> [unit block][K][gate][U], units padded with zeros."""
    K = weights.shape[1]
    blocks = -(-H // U)
    make = memory.zeros if H % U else memory.empty
    panels = make((blocks * K * len(gates) * U,), weights.dtype)
    view = panels.reshape(blocks, K, len(gates), U)
    for position, gate in enumerate(gates):
        rows = weights[gate * H : (gate + 1) * H]
        for n in range(blocks):
            part = rows[n * U : (n + 1) * U]
            view[n, :, position, : len(part)] = part.T
    return panels


def plain_panels(matrix: Array) -> Array:
    """(K, N) -> [column block][K][4 vectors], columns padded with zeros."""
    K, N = matrix.shape
    width = VECTORS * lanes_of(matrix.dtype)
    blocks = -(-N // width)
    make = memory.zeros if N % width else memory.empty
    panels = make((blocks * K * width,), matrix.dtype)
    view = panels.reshape(blocks, K, width)
    for n in range(blocks):
        part = matrix[:, n * width : (n + 1) * width]
        view[n, :, : part.shape[1]] = part
    return panels


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
    """What the backward kernels read: `x` for the gradient of x, the others for that of h."""

    x: Array
    h: Array
    late: Array
    projection: Array


@dataclass(frozen=True, eq=False)
class Weights:
    """One direction of one layer, never changed; packed when first used.

    w_ih (G H, I), w_hh (G H, P), b_ih and b_hh (G H,) or None, w_hr (P, H) or None;
    products: the type of the products' operands, of the weights if not given.
    """

    cell: Cell
    w_ih: Array
    w_hh: Array
    b_ih: Array | None = None
    b_hh: Array | None = None
    w_hr: Array | None = None
    products: str = ""  # the type that products are computed in, if not that of the weights
    _packed: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    #: how passes over batches of some sizes are divided (`plan.py`)
    plans: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.products:
            object.__setattr__(self, "products", str(self.dtype))

    @property
    def operand_dtype(self) -> np.dtype[Any]:
        """Of the arrays that products read: pairs of bfloat16 are integers of 32 bits."""
        return np.dtype(np.int32) if VALUES[self.products] > 1 else self.dtype

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
        return int(self.w_ih.shape[0]) // len(self.cell.gates)

    @property
    def state_size(self) -> int:
        """P, the width of h."""
        return int(self.w_hh.shape[1])

    def rows_of(self, gates: tuple[str, ...]) -> list[int]:
        """Positions of some gates among the weights' rows."""
        return [self.cell.gates.index(gate) for gate in gates]

    def _rows(self, matrix: Array, gates: tuple[str, ...]) -> Array:
        """The rows of some gates, one after the other."""
        H = self.hidden_size
        return np.concatenate([matrix[g * H : (g + 1) * H] for g in self.rows_of(gates)])

    def forward(self) -> ForwardPanels:
        """Packed for the forward kernel, when first asked for."""

        def operands(name: str, panels: Array, K: int, width: int) -> Array:
            return paired(panels, K, width) if VALUES[self.products] > 1 else panels

        return self._kept("forward", lambda: self._pack_forward(operands))

    def stream(self, weights: str) -> tuple[Array, ...]:
        """Packed for a stream, when first asked for, in the order of `CellStage.SLOTS`."""
        return self._kept(f"stream {weights}", lambda: self._pack_stream(weights))

    def backward(self) -> BackwardPanels:
        """Packed for the backward kernels, when first asked for."""
        return self._kept("backward", self._pack_backward)

    def _kept(self, name: str, pack: Callable[[], _Panels]) -> _Panels:
        # No lock, which a forked child could inherit locked: two threads that come first
        # both pack, and get the same.
        if name not in self._packed:
            self._packed[name] = pack()
        panels: _Panels = self._packed[name]
        return panels

    def _pack_stream(self, weights: str) -> tuple[Array, ...]:
        scales: dict[str, Array] = {}

        def operands(name: str, panels: Array, K: int, width: int) -> Array:
            panels, scales[name] = stored(panels, K, width, weights)
            return panels

        if weights == (BF16 if VALUES[self.products] > 1 else FULL):
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
        zeros = np.zeros(len(cell.gates) * H, dtype)
        b_ih = zeros if self.b_ih is None else self.b_ih
        b_hh = zeros if self.b_hh is None else self.b_hh
        # A gate that stands apart keeps its two biases apart; the others' are one.
        apart = np.repeat([gate in cell.apart for gate in cell.gates], H)
        bias = np.where(apart, b_ih, b_ih + b_hh)
        early = cell.h_gates[: len(cell.gates) - len(cell.late)]
        x_gates, h_gates = self.rows_of(cell.x_gates), self.rows_of(early)
        late, apart_gates = self.rows_of(cell.late), self.rows_of(cell.apart)

        def of_gates(name: str, matrix: Array, gates: list[int]) -> Array:
            panels = _gate_panels(matrix, gates, H, U)
            return on_line(operands(name, panels, matrix.shape[1], len(gates) * U))

        none = np.empty(0, self.operand_dtype)
        projection = none
        if self.w_hr is not None:
            width = VECTORS * lanes_of(dtype)
            projection = on_line(operands("projection", plain_panels(self.w_hr.T), H, width))
        return ForwardPanels(
            x=of_gates("x", self.w_ih, x_gates),
            bias=on_line(_gate_panels(bias[:, None], x_gates, H, U)),
            h=of_gates("h", self.w_hh, h_gates),
            h_bias=on_line(_gate_panels(b_hh[:, None], apart_gates, H, U))
            if apart_gates
            else nothing,
            late=of_gates("late", self.w_hh, late) if late else none,
            projection=projection,
        )

    def _pack_backward(self) -> BackwardPanels:
        cell = self.cell
        early = cell.h_gates[: len(cell.gates) - len(cell.late)]
        nothing = np.empty(0, self.dtype)
        return BackwardPanels(
            x=plain_panels(self._rows(self.w_ih, cell.x_gates)),
            h=plain_panels(self._rows(self.w_hh, early)),
            late=plain_panels(self._rows(self.w_hh, cell.late)) if cell.late else nothing,
            projection=nothing if self.w_hr is None else plain_panels(self.w_hr),
        )
