"""Inputs and weights of a model, drawn from fixed seeds, so that every process has the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn.bench.data import Array
from fastrnn.bench.loop.models import Model


class Batch(NamedTuple):
    """One input. Batch first; who wants time first turns it.

    Attributes:
        x (B, T): words, int64, of a model with a vocabulary, else (B, T, I), float64.
        wanted: of a model with one output numbers (B, 1), else classes (B,), each_step (B, T).
        lengths (B,): int64, or None where all sequences have T steps.
    """

    x: NDArray[Any]
    wanted: NDArray[Any]
    lengths: NDArray[np.int64] | None


def batch(model: Model, index: int) -> Batch:
    """Input number `index`."""
    draw = np.random.default_rng((3, index))
    B, T = model.B, model.T
    x: NDArray[Any] = draw.standard_normal((B, T, model.inputs))
    if model.vocabulary:
        x = draw.integers(model.vocabulary, size=(B, T))
    wanted: NDArray[Any] = draw.standard_normal((B, 1))
    if model.outputs > 1:
        wanted = draw.integers(model.outputs, size=(B, T) if model.each_step else (B,))
    lengths = None
    if model.lengths is not None:
        shortest, longest = model.lengths
        lengths = draw.integers(shortest, longest + 1, size=B)
    return Batch(x, wanted, lengths)


def weights(shapes: list[tuple[int, ...]], seed: int) -> list[Array]:
    """Values of parameters of these shapes, U(-a, a) with a = 1 / sqrt(the last axis)."""
    draw = np.random.default_rng((4, seed))
    return [draw.uniform(-1, 1, shape) / max(shape[-1], 1) ** 0.5 for shape in shapes]
