"""A stack of a cell of one's own by torch's operations: step by step, as the equations stand."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import dropout, linear, softplus

from fastrnn.torch.kinds import kinds_of
from fastrnn_kernels.equations.define import Derived
from fastrnn_kernels.equations.evaluate import Equations


def _where_at_most(a: Any, b: Any, then: Any, otherwise: Any) -> Any:
    like = a if isinstance(a, torch.Tensor) else b
    then, otherwise = (
        one if isinstance(one, torch.Tensor) else torch.full_like(like, one)
        for one in (then, otherwise)
    )
    return torch.where(a <= b, then, otherwise)


_NAMES = "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "erf", "sigmoid", "tanh", "relu"
_FUNCTIONS = {name: getattr(torch, name) for name in _NAMES} | {
    "absolute": torch.abs,
    # from 20 on torch's own is x, which float64 tells from what it should be
    "softplus": lambda x: softplus(x, threshold=40),
    "where_at_most": _where_at_most,
}


class Evaluated:
    """A cell of one's own, and its equations by torch's operations."""

    def __init__(self, derived: Derived) -> None:
        self.cell, self.derived = derived.cell, derived
        self.equations = Equations(derived.traced, _FUNCTIONS)

    def direction(
        self, x: Any, sizes: Sequence[int], states: Sequence[Any], weights: Any, reverse: bool
    ) -> tuple[Any, list[Any]]:
        """y and the final states of one direction of a layer.

        x, y: the data of all steps, one behind the other, of which step t has the first sizes[t]
        rows; states (B, H); weights: parameters by kind.
        """
        equations = self.equations
        traced = equations.traced
        units = [weights[name] for name in traced.per_unit]
        entered = linear(x, weights["weight_ih"], weights.get("bias_ih")).split(sizes)
        early = _Product(equations.recurrent, equations.early, weights)
        late = _Product(equations.recurrent, traced.late, weights)
        steps, now = [*range(len(sizes))], [*states]
        ys = [*entered]
        for t in reversed(steps) if reverse else steps:
            many = sizes[t]
            old = [one[:many] for one in now]
            gates = entered[t].chunk(len(traced.gates), -1)
            from_x = dict(zip(traced.gates, gates, strict=True))
            new = equations.step(from_x, early(old[0]), late, old, units)
            new = [_whole(one, like) for one, like in zip(new, old, strict=True)]
            ys[t] = new[0]
            # rows that have ended, or have not begun, stay as they are
            now = [
                one if many == len(all_) else torch.cat((one, all_[many:]))
                for one, all_ in zip(new, now, strict=True)
            ]
        return torch.cat(ys), now


class _Product:
    """R value + b of some gates."""

    def __init__(self, every: Sequence[str], gates: Sequence[str], weights: Any) -> None:
        self._gates = gates
        self._weight, self._bias = (
            _rows(weights[name], every, gates) if gates and name in weights else None
            for name in ("weight_hh", "bias_hh")
        )

    def __call__(self, value: Any) -> dict[str, Any]:
        if not self._gates:
            return {}
        found = linear(value, self._weight, self._bias).chunk(len(self._gates), -1)
        return dict(zip(self._gates, found, strict=True))


def _rows(matrix: Any, every: Sequence[str], gates: Sequence[str]) -> Any:
    """The rows of some gates."""
    if len(gates) == len(every):
        return matrix
    parts = dict(zip(every, matrix.chunk(len(every)), strict=True))
    return torch.cat([parts[gate] for gate in gates])


def _whole(value: Any, like: Any) -> Any:
    """A new state in the shape of the old one, where it is a number or the same in each row."""
    if isinstance(value, torch.Tensor):
        return value if value.shape == like.shape else value.expand_as(like)
    return torch.full_like(like, value)


def run(
    of: Evaluated, x: Any, sizes: Sequence[int], states: Sequence[Any], weights: Sequence[Any],
    biased: bool, num_layers: int, probability: float, training: bool, bidirectional: bool,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """y and the final states (layers * D, B, H) of a stack; x, y and sizes as of a direction."""
    if not sizes:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    kinds, D, ends = kinds_of(of.cell, biased, False), 2 if bidirectional else 1, []
    for k in range(num_layers):
        if k:
            x = dropout(x, probability, training)
        ys = []
        for d in range(D):
            n = k * D + d
            own = dict(zip(kinds, weights[n * len(kinds) : (n + 1) * len(kinds)], strict=True))
            y, final = of.direction(x, sizes, [one[n] for one in states], own, d == 1)
            ys.append(y)
            ends.append(final)
        x = torch.cat(ys, -1) if D > 1 else ys[0]
    return x, [*map(torch.stack, zip(*ends, strict=True))]


def stack(
    of: Evaluated, x: Any, hx: Any, weights: Sequence[Any], biased: bool, num_layers: int,
    probability: float, training: bool, bidirectional: bool, batch_first: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """y and the final states, as `torch._VF.lstm` takes and gives them."""
    states = hx if isinstance(hx, tuple | list) else [hx]
    x = x.transpose(0, 1) if batch_first else x
    T, B = x.shape[:2]
    how = biased, num_layers, probability, training, bidirectional
    y, final = run(of, x.flatten(0, 1), [B] * T, states, weights, *how)
    y = y.unflatten(0, (T, B))
    return y.transpose(0, 1) if batch_first else y, *final
