"""Any cell as one writes it in PyTorch: its equations on tensors, in a loop over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.functional import linear, softplus

from fastrnn.bench.equations import sums, written_with
from fastrnn_kernels.cells.cell import Cell

_NAMES = "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "erf", "sigmoid", "tanh", "relu"
_FUNCTIONS: dict[str, Callable[..., Any]] = {name: getattr(torch, name) for name in _NAMES} | {
    "absolute": torch.abs,
    # from 20 on torch's own is x, which float64 tells from what it should be
    "softplus": lambda x: softplus(x, threshold=40),
    "where_at_most": lambda a, b, then, otherwise: torch.where(a <= b, then, otherwise),
    "number": lambda like, value: value,
    "one": lambda like: 1.0,
    "zero": lambda like: 0.0,
}


class Step(torch.nn.Module):  # type: ignore[misc]
    """A single step of a cell."""

    def __init__(self, cell: Cell, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in weights.items():
            self.register_parameter(name, torch.nn.Parameter(value))
        self.cell = cell
        self.equations = written_with(_FUNCTIONS, cell.forward)
        self.inner = written_with(_FUNCTIONS, cell.inner) if cell.inner else None
        #: whether the sums of all gates are whole, so that one addition makes them
        self.whole = cell.sums == cell.recurrent and not cell.late

    def forward(self, x: Any, state: Any) -> Any:
        """The next state; as torch's, a tuple where there are several."""
        old = state if isinstance(state, tuple) else (state,)
        new = self.step(linear(x, self.weight_ih, self.bias_ih), old)
        return new if len(new) > 1 else new[0]

    def step(self, from_x: Any, old: tuple[Any, ...]) -> tuple[Any, ...]:
        """The new states, of W x + b of all gates."""
        cell, given = self.cell, old + tuple(getattr(self, name) for name in self.cell.per_unit)
        if self.whole:
            from_h = linear(old[0], self.weight_hh, self.bias_hh)
            return tuple(self.equations((from_x + from_h).chunk(cell.G, -1), given)[0])
        x = dict(zip(cell.gates, from_x.chunk(cell.G, -1), strict=True))
        early = [gate for gate in cell.recurrent if gate not in cell.late]
        h = self._products(early, old[0])
        if self.inner is not None:
            h |= self._products(cell.late, self.inner(sums(cell, x, h), given))
        return tuple(self.equations(sums(cell, x, h), given)[0])

    def _products(self, gates: Any, value: Any) -> dict[str, Any]:
        """R value + b of some gates."""
        if not gates:
            return {}
        R, b = self.weight_hh, self.bias_hh
        if len(gates) < self.cell.GH:
            R, b = self._rows(R, gates), self._rows(b, gates)
        return dict(zip(gates, linear(value, R, b).chunk(len(gates), -1), strict=True))

    def _rows(self, values: Any, gates: Any) -> Any:
        """The rows of some gates; where they follow one another, not copied."""
        every, first = self.cell.recurrent, self.cell.recurrent.index(gates[0])
        if every[first : first + len(gates)] == tuple(gates):
            H = len(values) // len(every)
            return values[first * H : (first + len(gates)) * H]
        parts = dict(zip(every, values.chunk(len(every)), strict=True))
        return torch.cat([parts[gate] for gate in gates])


class Loop(Step):
    """A cell over sequences: the product with x of all steps at once, then step by step."""

    def forward(self, x: Any, state: Any, lengths: Any = None) -> Any:
        """y (T, B, H) and the final state, each (1, B, H), as torch's layers give them."""
        now = tuple(one[0] for one in (state if isinstance(state, tuple) else (state,)))
        ys = []
        for t, from_x in enumerate(linear(x, self.weight_ih, self.bias_ih)):
            new = self.step(from_x, now)
            if lengths is None:
                now, y = new, new[0]
            else:
                runs = (t < lengths)[:, None]
                now = tuple(torch.where(runs, a, b) for a, b in zip(new, now, strict=True))
                y = torch.where(runs, new[0], 0)
            ys.append(y)
        final = tuple(one[None] for one in now)
        return torch.stack(ys), final if len(final) > 1 else final[0]
