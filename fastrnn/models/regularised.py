"""Dropout inside of layers, and zoneout: their arguments, and what a call in training draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn_kernels import draws
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.device import Device as Kernels
from fastrnn_kernels.draws import Draws, Key
from fastrnn_kernels.gradients import Gradients as PassGradients
from fastrnn_kernels.weights import Weights

#: The arguments, and what they usually are.
ARGUMENTS: Mapping[str, Any] = {
    "input_dropout": 0.0,
    "recurrent_dropout": 0.0,
    "recurrent_dropout_on": "h",
    "zoneout": 0.0,
    "weight_dropout": 0.0,
}
#: Those that say nothing of what is computed outside of training.
IN_TRAINING = frozenset(ARGUMENTS) - {"zoneout"}
#: What the argument "candidate" means: the gates that add to the states, by kind.
CANDIDATES = {"LSTM": "g", "GRU": "n"}


def checked(name: str, value: Any) -> Any:
    """An argument as layers keep it; zoneout is a rate, or one of each state."""
    if name == "recurrent_dropout_on":
        return check.option(name, value, ("h", "candidate"))
    if name == "zoneout" and isinstance(value, tuple | list):
        return tuple(check.probability(f"zoneout[{n}]", rate) for n, rate in enumerate(value))
    return check.probability(name, value)


@dataclass(frozen=True)
class Rates:
    """The arguments of a layer.

    input, recurrent, weight: probabilities. candidate: the gate that recurrent dropout is on, or
    None for h. zoneout: probabilities by the names of states, those that are not 0.
    """

    input: float
    recurrent: float
    candidate: str | None
    zoneout: tuple[tuple[str, float], ...]
    weight: float

    @staticmethod
    def of(given: Mapping[str, Any], cell: Cell, kind: str, owner: str, proj_size: int) -> "Rates":
        """Checked arguments by name, of a layer of a cell; ValueError for what the cell has not."""
        zoneout = given["zoneout"]
        rates = zoneout if isinstance(zoneout, tuple) else (zoneout,)
        if len(rates) > len(cell.states):
            raise ValueError(
                f"zoneout has {len(rates)} probabilities, {owner} has {len(cell.states)} "
                f"states: {', '.join(cell.states)}"
            )
        of_states = tuple((s, r) for s, r in zip(cell.states, rates, strict=False) if r > 0)
        if rates and rates[0] > 0 and proj_size:
            raise ValueError(
                f"zoneout of h is {rates[0]} and proj_size {proj_size}: wanted zoneout of "
                f"the other states alone, as (0, {rates[0]}), for what is projected is no unit's"
            )
        candidate = None
        if given["recurrent_dropout_on"] == "candidate":
            candidate = CANDIDATES.get(kind)
            if candidate is None:
                wanted = " or ".join(CANDIDATES)
                raise ValueError(
                    f"recurrent_dropout_on is 'candidate', wanted 'h', as this is no {wanted}"
                )
        for name in ("recurrent_dropout", "weight_dropout"):
            if given[name] > 0 and not cell.GH:
                raise ValueError(f"{name} is {given[name]}, wanted 0: no gate of {owner} has an R")
        recurrent = given["recurrent_dropout"]
        candidate = candidate if recurrent > 0 else None
        return Rates(
            given["input_dropout"], recurrent, candidate, of_states, given["weight_dropout"]
        )

    @property
    def drawing(self) -> bool:
        """Whether a call in training draws anything."""
        return bool(self.input or self.recurrent or self.zoneout or self.weight)

    @property
    def derived(self) -> bool:
        """Whether its cell is derived from the equations of another."""
        return bool(self.zoneout or self.candidate)

    @property
    def states(self) -> tuple[str, ...]:
        """The states with zoneout."""
        return tuple(state for state, _ in self.zoneout)

    def units(self, H: int, dtype: Any) -> Array:
        """(states with zoneout, H): the rates, as parameters of each unit."""
        return np.array([np.full(H, rate) for _, rate in self.zoneout], dtype).reshape(-1, H)

    def drawn(self, rng: np.random.Generator) -> "Drawn":
        """What one call draws."""
        return Drawn(self, int(rng.integers(2**64, dtype=np.uint64)))


@dataclass(frozen=True)
class Drawn:
    """What one call in training draws, all of it following from a key of 64 bits."""

    rates: Rates
    key: int

    def inputs(self, number: int, B: int, width: int, dtype: Any) -> Array | None:
        """The mask (1, B, width) of the input of the layer whose first pass has this number."""
        rate = self.rates.input
        if not rate:
            return None
        mask: Array = Key(self.key, number).rows(draws.INPUT, B, width, rate, dtype)[None]
        return mask

    def left_of_weights(self, number: int, shape: tuple[int, ...], dtype: Any) -> Array | None:
        """What multiplies R in a pass."""
        rate = self.rates.weight
        if not rate:
            return None
        rows, width = shape
        return Key(self.key, number).rows(draws.WEIGHT, rows, width, rate, dtype)

    def of_pass(self, number: int, B: int, P: int, dtype: Any) -> Draws:
        """What the kernels draw, or are given, in a pass."""
        rates, key = self.rates, Key(self.key, number)
        of = [draws.dropout(rates.recurrent)] if rates.candidate else []
        of += [draws.zoneout(rate) for _, rate in rates.zoneout]
        h_mask = None
        if rates.recurrent and not rates.candidate:
            h_mask = key.rows(draws.RECURRENT, B, P, rates.recurrent, dtype)
        return Draws(key, tuple(of), h_mask)

    def weights(self, given: Sequence[Weights]) -> tuple[Weights, ...]:
        """Weights with what is left of R."""
        if not self.rates.weight:
            return tuple(given)
        return tuple(replace(one, w_hh=self._left(n, one.w_hh)) for n, one in enumerate(given))

    def mask_gradients(self, found: Sequence[PassGradients], kernels: Kernels) -> None:
        """Make the gradients of what was left of R those of R, where they are."""
        if self.rates.weight:
            for n, one in enumerate(found):
                one.w_hh = self._left(n, one.w_hh, kernels)

    def _left(self, number: int, w_hh: Array, kernels: Kernels | None = None) -> Array:
        mask = self.left_of_weights(number, w_hh.shape, w_hh.dtype)
        left: Array = w_hh * (mask if kernels is None else kernels.take(mask))
        return left


def with_rates(cell: Cell, given: Weights, rates: Array) -> Weights:
    """Weights of a cell that was derived from theirs, the rates among the parameters per unit."""
    units = given.units
    if cell.Q != given.cell.Q:
        units = rates if units is None else np.concatenate([units, rates])
    return replace(given, cell=cell, units=units)
