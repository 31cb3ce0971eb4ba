"""The cells: torch's own modules, whose step runs on fastrnn's kernels."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastrnn.torch.call import CELL, UNBATCHED_CELL, ModuleCall
from fastrnn.torch.devices import device_of
from fastrnn.torch.fallbacks import falls_back
from fastrnn.torch.graph import as_hidden, cell
from fastrnn.torch.kinds import Shapes, kinds_of, shapes_of
from fastrnn.torch.module import Module, alike
from fastrnn.torch.packed import packed_of
from fastrnn.torch.precision import run, small
from fastrnn.torch.small import Form
from fastrnn.torch.types import CellCall, Pair
from fastrnn_kernels.rows import Rows


class CellModule(Module):
    """What a cell does in torch's place."""

    def _shapes(self) -> tuple[Shapes, tuple[str, ...]]:
        kinds, H = kinds_of(self._cell, self.bias, False), self.hidden_size
        return shapes_of(self._cell, kinds, self.input_size, H, H), kinds

    def _weights(self) -> list[Any]:
        return [getattr(self, kind) for kind in kinds_of(self._cell, self.bias, False)]

    def _in_graph(self, x: Any, hx: Any) -> Any:
        return cell(self, x, hx)

    def _form(self, x: Any, states: Any) -> Form | None:
        batch = tuple(x.shape[:-1])
        shapes = [(*batch, self.hidden_size)] * len(self._cell.states)
        fitting = not states or [tuple(one.shape) for one in states] == shapes
        if not fitting or x.dim() not in (1, 2) or x.shape[-1] != self.input_size:
            return None
        return Form(1, x.shape[0] if batch else 1, 1, None, shapes)

    def _run(self, x: Any, hx: Any) -> Any:
        states = self._given(hx)
        final = small(self, x, states)
        if final is not None:
            return as_hidden(final)
        weights = self._weights()
        if states is None or not alike(weights, x, states):
            return NotImplemented
        batch = x.shape[:-1]
        fitting = all(one.shape == (*batch, self.hidden_size) for one in states)
        if not fitting or x.dim() not in (1, 2) or x.shape[-1] != self.input_size:
            return NotImplemented
        if falls_back((*weights, x, *states)):
            return NotImplemented
        device, _ = device_of(x)
        assert device is not None  # else the call had fallen back
        call = ModuleCall(
            self._mode, 1, 1, self.hidden_size, self.hidden_size, 0, len(states),
            CELL if batch else UNBATCHED_CELL, Rows.whole(1, *batch or (1,)), None,
            packed_of(self), device,
        )  # fmt: skip
        _, *final = run(call, (x, *states, *weights))
        return as_hidden(final)


class RNNCell(CellModule, torch.nn.RNNCell):  # type: ignore[misc]
    """`torch.nn.RNNCell` on fastrnn's kernels: arguments, parameters and errors are torch's."""

    if TYPE_CHECKING:
        __call__: CellCall[Tensor]

    @property
    def _mode(self) -> str:
        return f"RNN_{self.nonlinearity.upper()}"


class LSTMCell(CellModule, torch.nn.LSTMCell):  # type: ignore[misc]
    """`torch.nn.LSTMCell` on fastrnn's kernels: arguments, parameters and errors are torch's."""

    if TYPE_CHECKING:
        __call__: CellCall[Pair]

    @property
    def _mode(self) -> str:
        return "LSTM"


class GRUCell(CellModule, torch.nn.GRUCell):  # type: ignore[misc]
    """`torch.nn.GRUCell` on fastrnn's kernels: arguments, parameters and errors are torch's."""

    if TYPE_CHECKING:
        __call__: CellCall[Tensor]

    @property
    def _mode(self) -> str:
        return "GRU"
