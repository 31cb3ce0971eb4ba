"""A cell's derivatives against differences of its equations, in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.equations.errors import EquationError

#: Central differences: STEP² of truncation and 1e-16 / STEP of rounding.
STEP = 1e-5
#: What these leave of the gradients, relative to the largest of them, if all is right.
TOLERANCE = 1e-7
#: Near a pole differences are far off: by about as much as half the step changes them.
UNCERTAIN = 3


@dataclass(frozen=True)
class Check:
    """The largest errors of a cell's gradients, by the sum, state or parameter they are in."""

    cell: str
    errors: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether all are as small as differences can tell."""
        return all(error <= TOLERANCE for error in self.errors.values())

    def __str__(self) -> str:
        """A line for each."""
        width = max(map(len, self.errors))
        lines = [f"{self.cell}: {'right' if self.passed else 'WRONG'}, largest relative error in"]
        return "\n".join(lines + [f"  {n:{width}}  {e:.1e}" for n, e in self.errors.items()])


def check(cell: Cell, points: int = 100, seed: int = 0) -> Check:
    """Compare at some points, drawn from a normal distribution.

    Points where an equation bends, as ReLU's at 0, tell nothing, and are hardly ever drawn.
    """
    rng = np.random.default_rng(seed)
    late = len(cell.sums) - len(cell.late)
    names = [*(f"a_{name}" for name in cell.sums), *cell.states, *cell.per_unit]
    forward, inner = _plain(cell.forward), _plain(cell.inner)
    many, new = len(cell.sums), len(cell.states)

    def loss(values: Any, weights: Any) -> float:
        sums, old = [*map(float, values[:many])], tuple(map(float, values[many:]))
        if inner is not None:  # R = 1 of one unit: what stands in place of h is added to the sum
            given = inner(tuple(sums[:late]), old)
            sums[late:] = [one + given for one in sums[late:]]
        return float(np.dot(weights, forward(tuple(sums), old)[0]))

    largest, compared = np.zeros(len(names)), 0
    for _ in range(points):
        values = rng.normal(size=len(names))
        weights = rng.normal(size=new)
        if not np.isfinite(loss(values, weights)):
            continue  # outside of what an equation is defined for, as a logarithm's below 0
        compared += 1
        found = _gradient(cell, values, weights, late, inner)
        expected = _differences(lambda v: loss(v, weights), values, STEP / 2)  # noqa: B023
        coarse = _differences(lambda v: loss(v, weights), values, STEP)  # noqa: B023
        doubt = UNCERTAIN * np.abs(expected - coarse)
        scale = max(1.0, float(np.abs(expected).max()))
        wrong = np.maximum(np.abs(found - expected) - doubt, 0) / scale
        wrong[~np.isfinite(found)] = np.inf
        largest = np.fmax(largest, wrong)
    if not compared:
        raise EquationError(f"{cell.name} has no finite value at any of {points} points")
    return Check(cell.name, dict(zip(names, map(float, largest), strict=True)))


def _differences(function: Callable[[Any], float], values: Any, step: float) -> Any:
    """Central differences in each value."""
    found = np.empty(len(values))
    for k in range(len(values)):
        up, down = values.copy(), values.copy()
        up[k] += step
        down[k] -= step
        found[k] = (function(up) - function(down)) / (2 * step)
    return found


def _gradient(
    cell: Cell, values: Any, weights: Any, late: int, inner: Callable[..., Any] | None
) -> Any:
    """By the cell's own functions."""
    many = len(cell.sums)
    sums, old = [*map(float, values[:many])], tuple(map(float, values[many:]))
    backward, d_new = _plain(cell.backward), tuple(map(float, weights))
    if inner is None:
        _, saved = _plain(cell.forward)(tuple(sums), old)
        d_sums, d_old = backward(d_new, saved, old)
        return np.array([*d_sums, *d_old])
    given = inner(tuple(sums[:late]), old)
    sums[late:] = [one + given for one in sums[late:]]
    _, saved = _plain(cell.forward)(tuple(sums), old)
    d_late = _plain(cell.late_backward)(d_new, saved, old)
    d_early, d_old = backward(d_new, saved, old, float(sum(d_late)))
    return np.array([*d_early, *d_late, *d_old])


def _plain(function: Any) -> Any:
    """A function as Python runs it, on float64."""
    return getattr(function, "py_func", function)
