"""Recipes of whole sequences through a stack of layers; backward: `stacks_backward.py`.

Who calls a stack with the same sizes again finds all that depends on them prepared: what is left is
to allocate results, and to hand over addresses. A recipe makes the same jobs as `start_forward` and
`start_backward`, so its results are theirs, bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.product.weights import ForwardPanels, Weights
from fastrnn_kernels.cpu.sequence.start import new_tape, start_forward
from fastrnn_kernels.cpu.threads.pool import LONG, get_num_threads
from fastrnn_kernels.cpu.threads.recipe import MOST_SLOTS, Recipe, Slot
from fastrnn_kernels.rows import Rows
from fastrnn_kernels.tape import Tape


@dataclass(frozen=True)
class Stacked:
    """What recipes are made for: sequences of T steps each, through layers of a cell."""

    cell: Cell
    T: int
    B: int
    I: int
    H: int
    P: int
    num_layers: int
    directions: int
    dtype: str
    biased: bool
    projected: bool

    @property
    def passes(self) -> int:
        """Directions of all layers."""
        return self.num_layers * self.directions

    @cached_property
    def slots(self) -> dict[str, int]:
        """Where the arrays of weights stand among those of a pass; of those per unit, the first."""
        with_h, names = self.cell.GH > 0, ["w_ih"]
        names += ["w_hh"] * with_h
        names += ["b_ih", *["b_hh"] * with_h] * self.biased
        names += ["w_hr"] * self.projected
        return {name: number for number, name in enumerate([*names, "units"])}

    @property
    def each(self) -> int:
        """How many arrays of weights a pass has."""
        return self.slots["units"] + self.cell.Q

    @property
    def width(self) -> int:
        """Of y."""
        return self.directions * self.P

    @cached_property
    def rows(self) -> Rows:
        """All rows, in whole."""
        return Rows.whole(self.T, self.B)

    @property
    def states(self) -> list[tuple[int, int, int]]:
        """The shape of each state, h first."""
        widths = [self.P, *[self.H] * (self.cell.N - 1)]
        return [(self.passes, self.B, width) for width in widths]

    def weights(self, layer: int) -> Weights:
        """Of the sizes of a layer's; their values are nobody's, and they are not packed."""
        zero, P, H = np.zeros((), self.dtype), self.P, self.H
        rows, h_rows = self.cell.G * H, self.cell.GH * H

        def some(*shape: int) -> Array:
            return np.broadcast_to(zero, shape)

        b_ih, b_hh = (some(rows), some(h_rows)) if self.biased else (None, None)
        projection = some(P, H) if self.projected else None
        units = some(self.cell.Q, H) if self.cell.Q else None
        w_ih, w_hh = some(rows, self.width if layer else self.I), some(h_rows, P)
        return Weights(self.cell, w_ih, w_hh, b_ih, b_hh, projection, units=units)


def parts_of_pass(states: Sequence[Array], index: int) -> tuple[Array, Array]:
    """h, and the other states, of one layer and direction: views of all of them."""
    h, *rest = states
    if rest:
        return h[index], rest[0][index : index + 1]
    return h[index], np.empty((0, *h.shape[1:]), h.dtype)


def panels_in(slot: Slot, sizes: Sequence[int], dtype: str) -> list[Array]:
    """Panels of so many values each, one behind the other."""
    return [slot.empty((size,), dtype) for size in sizes]


@dataclass(frozen=True)
class Forward:
    """A forward pass.

    Slots: x (T, B, I), the states, each pass's forward panels; y (T, B, D P), the final states, the
    tape. tape_bytes: 0 where none is kept, and then there is no slot for it.
    """

    recipe: Recipe
    tape_bytes: int


def _forward(of: Stacked, taping: bool) -> Forward:
    N, D, P, dtype = of.cell.N, of.directions, of.P, np.dtype(of.dtype)
    results = 1 + N + of.passes
    slots = results + 1 + N + taping + 1
    work = Slot(slots - 1)
    tape, recipe = Slot(slots - 2) if taping else work, Recipe(work, slots)
    start = [Slot(1 + n).empty(shape, dtype) for n, shape in enumerate(of.states)]
    final = [Slot(results + 1 + n).empty(shape, dtype) for n, shape in enumerate(of.states)]
    x = Slot(0).empty((of.T, of.B, of.I), dtype)
    for layer in range(of.num_layers):
        y = _output(of, layer, Slot(results), tape)
        runs = []
        for d in range(D):
            k, weights = layer * D + d, of.weights(layer)
            panels = panels_in(Slot(1 + N + k), weights.forward_sizes, of.dtype)
            weights.keep("forward", ForwardPanels.of(panels))
            runs.append(
                start_forward(
                    weights, x, *parts_of_pass(start, k), *parts_of_pass(final, k), of.rows, y,
                    d * P, reverse=d == 1, taping=taping, share=D, kept=tape.empty,
                    empty=work.empty,
                )
            )  # fmt: skip
        recipe.stage([run.job for run in runs], sum(run.work for run in runs))
        x = y
    return Forward(recipe.done(), tape.size if taping else 0)


def _output(of: Stacked, layer: int, shown: Slot, tape: Slot) -> Array:
    """y (T, B, D P) of a layer, which is the next one's x: on the tape, but for the last one's."""
    last = layer == of.num_layers - 1
    return (shown if last else tape).empty((of.T, of.B, of.width), of.dtype)


def tapes(of: Stacked, x: Slot, tape: Slot) -> list[list[Tape[Weights]]]:
    """The tapes of each layer's passes, as a forward recipe has them."""
    found, given = [], x.empty((of.T, of.B, of.I), of.dtype)
    for layer in range(of.num_layers):
        y = _output(of, layer, Slot(0), tape)
        found.append(
            [
                new_tape(of.weights(layer), of.rows, given, d == 1, empty=tape.empty)
                for d in range(of.directions)
            ]
        )
        given = y
    return found


#: Recipes that were asked for, and the most that are kept.
_made: dict[tuple[object, ...], Any] = {}
_MOST = 128


def surroundings() -> tuple[object, ...]:
    """What recipes depend on beside what they are made for."""
    return get_num_threads(), current()


def can_be(of: Stacked) -> bool:
    """Whether there are recipes: not for calls of so much work that signals are answered between.

    Nor for cells of many states, whose arrays are not parts of what is given.
    """
    many = of.passes * (of.each + 2) + 2 * of.cell.N + 8
    width = max(of.I, of.width)
    work = float(of.T) * of.B * of.cell.G * of.H * (2 * width + of.P) * of.passes
    return 0 < work < LONG and many < MOST_SLOTS and of.cell.N <= 2


def forward(of: Stacked, taping: bool) -> Forward:
    """The forward pass."""
    made: Forward = kept((of, taping), lambda: _forward(of, taping))
    return made


def kept(key: tuple[object, ...], make: Callable[[], Any]) -> Any:
    """What was made for a key, here and now, or is made."""
    key = *key, *surroundings()
    found = _made.get(key)
    if found is None:
        found = make()
        if key[-2:] == surroundings():  # else it may be one for others
            if len(_made) >= _MOST:
                _made.clear()
            _made[key] = found
    return found
