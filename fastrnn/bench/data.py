"""Weights and inputs of a case, drawn from fixed seeds so that every process has the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.bench.cases import Case

Array = NDArray[np.floating[Any]]

#: Distinct inputs that a contender is given in turn, so that none can answer from memory.
ROTATION = 4


@dataclass(frozen=True)
class Sample:
    """One input. Where a call is one step, x is (B, I) and there is neither dy nor lengths.

    Attributes:
        x (T, B, I): the sequences.
        state: initial h, and c for an LSTM, each (B, H).
        dy (T, B, H): gradient that arrives at every output.
        dstate: gradient that arrives at the final state, as `state`.
        lengths (B,): int64, or None where all sequences have T steps.
    """

    x: Array
    state: tuple[Array, ...]
    dy: Array | None
    dstate: tuple[Array, ...]
    lengths: NDArray[np.int64] | None


def weights(case: Case) -> dict[str, Array]:
    """The parameters, named and laid out as in `torch.nn.LSTMCell`, U(-1/sqrt(H), 1/sqrt(H)).

    weight_hh and bias_hh are there for the gates that have an h-part; then the parameters (H,) of
    each unit.
    """
    _, _, I, H = case.shape
    cell = case.equations
    draw = np.random.default_rng(1)
    bound = H**-0.5
    shapes: dict[str, tuple[int, ...]] = {
        "weight_ih": (cell.G * H, I),
        "weight_hh": (cell.GH * H, H),
        "bias_ih": (cell.G * H,),
        "bias_hh": (cell.GH * H,),
        **dict.fromkeys(cell.per_unit, (H,)),
    }
    return {
        name: draw.uniform(-bound, bound, shape).astype(case.arrays)
        for name, shape in shapes.items()
        if 0 not in shape
    }


def sample(case: Case, index: int) -> Sample:
    """Input number `index` of a case, standard normal throughout."""
    T, B, I, H = case.shape
    draw = np.random.default_rng((2, index))

    def normal(*shape: int) -> Array:
        return draw.standard_normal(shape).astype(case.arrays)

    state = tuple(normal(B, H) for _ in range(case.states))
    dstate = tuple(normal(B, H) for _ in range(case.states))
    if case.stepwise:
        return Sample(normal(B, I), state, None, dstate, None)
    lengths = None if case.lengths is None else np.array(case.lengths, np.int64)
    return Sample(normal(T, B, I), state, normal(T, B, H), dstate, lengths)


def _letter(k: int) -> str:
    """What state number k is called, whatever its cell calls it."""
    return ("h", "c")[k] if k < 2 else f"s{k}"


def answer(
    y: Array | None,
    state: Sequence[Array],
    dx: Array | None = None,
    dstate: Sequence[Array] = (),
    parameters: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """What a call gave, under the names that it is compared by.

    Args:
        y (T, B, H): the outputs; None where a call is one step, whose output is the state.
        state: final h, and c for an LSTM, each (B, H).
        dx (T, B, I): gradient of x; None where there was no backward pass.
        dstate: gradient of the initial state.
        parameters: gradients by the names that `weights` uses.
    """
    found = {f"{_letter(k)}_n": value for k, value in enumerate(state)}
    found |= {f"d{_letter(k)}0": value for k, value in enumerate(dstate)}
    found |= {f"d{name}": value for name, value in (parameters or {}).items()}
    if y is not None:
        found["y"] = y
    if dx is not None:
        found["dx"] = dx
    return found
