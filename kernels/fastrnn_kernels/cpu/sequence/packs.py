"""Recipes that copy and pack the weights of a stack: a training step has new ones each time.

One piece of memory gets, of each pass, copies of its weights and the panels that `Weights` would
pack of them, at the same places in each call.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.product.panels import padded, vectors_per_gate
from fastrnn_kernels.cpu.product.weights import (
    BackwardPanels,
    ForwardPanels,
    Weights,
    columns_of,
    lanes_of,
)
from fastrnn_kernels.cpu.sequence import exchange, stacks, stacks_backward
from fastrnn_kernels.cpu.sequence.stacks import Stacked
from fastrnn_kernels.cpu.threads.job import Job
from fastrnn_kernels.cpu.threads.recipe import MOST_SLOTS, Recipe, Slot

#: Where an array begins, values behind the memory's first, how many it has, and its shape.
_Place = tuple[int, int, tuple[int, ...]]
#: Multiply-adds that take as long as to copy a value (measured: 0.3 ns).
VALUE = 16
#: What stands in the memory of each pass.
COPIES, FORWARD, BACKWARD, INPUTS = range(4)


@dataclass(frozen=True)
class Pack:
    """Slots: each pass's weights, in the order w_ih, w_hh, b_ih, b_hh, w_hr, each per unit; memory.

    places: of each pass's copies, forward panels, backward panels, and panels for the gradient of
    its input; the last two where they are packed.
    """

    recipe: Recipe
    of: Stacked
    values: int
    places: list[list[list[_Place]]]

    @cached_property
    def offsets(self) -> list[list[int | None]]:
        """Where forward panels, backward ones and those of inputs begin, in bytes, of each pass."""
        size = np.dtype(self.of.dtype).itemsize
        return [
            [of_pass[n][0][0] * size if of_pass[n] else None for of_pass in self.places]
            for n in (FORWARD, BACKWARD, INPUTS)
        ]

    def run(self, addresses: Sequence[int]) -> "Packs":
        """The weights at these addresses, packed."""
        whole = memory.aligned(self.values, np.dtype(self.of.dtype))
        address: int = whole.__array_interface__["data"][0]
        self.recipe.run([*addresses, address])
        return Packs(self, whole, address)


class Packs:
    """Weights of a stack, packed.

    Who calls recipes asks for addresses alone; arrays are made for who asks for them.
    """

    def __init__(self, made: Pack, whole: Array, address: int) -> None:
        self._made, self._whole, self._address = made, whole, address

    def panels(self, kind: int) -> list[int]:
        """Where the FORWARD, BACKWARD or INPUTS panels of each pass begin."""
        return [
            address_of_panels(self.weights[k], kind) if at is None else self._address + at
            for k, at in enumerate(self._made.offsets[kind - 1])
        ]

    @cached_property
    def weights(self) -> tuple[Weights, ...]:
        """Of each direction of each layer."""
        of, first = self._made.of, self._address
        forward, backward, _ = self._made.offsets
        made = []
        for k, (parts, copies) in enumerate(zip(self._made.places, self._copies, strict=True)):
            given: dict[str, Any] = dict.fromkeys(of.slots) | dict(
                zip(of.slots, copies, strict=False)
            )
            given.setdefault("w_hh", np.empty((0, of.P), of.dtype))
            weights = Weights(of.cell, **given, compute=of.dtype)
            panels, at = [*map(self._arrays, parts)], (forward[k] or 0, backward[k] or 0)
            weights.keep("forward", ForwardPanels.of(panels[FORWARD], first + at[0]))
            if panels[BACKWARD]:
                weights.keep("backward", BackwardPanels.of(panels[BACKWARD], first + at[1]))
            if panels[INPUTS]:
                weights.keep("inputs", panels[INPUTS][0])
            made.append(weights)
        return tuple(made)

    def copies(self) -> list[Array]:
        """Of what was packed, an array a slot."""
        many = self._made.of.slots["units"]
        found: list[Array] = []
        for of_pass in self._copies:
            found.extend(of_pass[:many])
            for units in of_pass[many:]:
                found.extend(units)
        return found

    @cached_property
    def _copies(self) -> list[list[Array]]:
        return [self._arrays(parts[0]) for parts in self._made.places]

    def _arrays(self, places: Sequence[_Place]) -> list[Array]:
        return [self._whole[at : at + size].reshape(shape) for at, size, shape in places]


def address_of_panels(weights: Weights, kind: int) -> int:
    """Where panels begin that weights have packed, or pack now."""
    if kind == INPUTS:
        return int(weights.input_panels().__array_interface__["data"][0])
    return (weights.backward() if kind == BACKWARD else weights.forward()).address


class _Pass:
    """The jobs that copy and pack the weights of one pass.

    slot: of its first weight; here: the memory; work: the workspace; places: of what is in the
    memory, by kind.
    """

    def __init__(self, of: Stacked, weights: Weights, slot: int, here: Slot, work: Slot) -> None:
        self._of, self._weights, self._here, self._work = of, weights, here, work
        self._dtype, self._slot = np.dtype(of.dtype), slot
        self.places: list[list[_Place]] = [[] for _ in range(4)]
        #: Of each stage: copies, then what is made of them for panels, then panels.
        self.jobs: list[list[Job]] = [[] for _ in range(3)]
        self._w_ih = self._copied("w_ih", weights.w_ih.shape)
        self._w_hh = weights.w_hh
        if of.cell.GH:
            self._w_hh = self._copied("w_hh", weights.w_hh.shape)

    @property
    def values(self) -> int:
        """Of its weights."""
        return self._w_ih.size + self._w_hh.size

    def _empty(self, kind: int, shape: tuple[int, ...]) -> Array:
        at = self._here.size // self._dtype.itemsize
        array = self._here.empty(shape, self._dtype)
        self.places[kind].append((at, array.size, shape))
        return array

    def _panels(self, kind: int, sizes: Sequence[int]) -> list[Array]:
        return [self._empty(kind, (size,)) for size in sizes]

    def _given(self, name: str, shape: tuple[int, ...], of_units: int = 0) -> Array:
        number = self._of.slots[name] + of_units
        return Slot(self._slot + number).empty(shape, self._dtype)

    def _copy(self, given: Array, to: Array) -> None:
        self.jobs[0].append(exchange.copied(1, False, given.reshape(-1), to.reshape(-1)))

    def _copied(self, name: str, shape: tuple[int, ...]) -> Array:
        to = self._empty(COPIES, shape)
        self._copy(self._given(name, shape), to)
        return to

    def _gates(self, matrix: Array, some: Sequence[int], out: Array) -> None:
        if some:
            of, positions = self._of, np.array(some, np.int64)
            U = vectors_per_gate(of.cell) * lanes_of(self._dtype)
            self.jobs[2].append(exchange.gate_rows(1, False, matrix, positions, of.H, U, out))

    def _plain(
        self, matrix: Array, some: Sequence[int], height: int, out: Array, width: int = 0
    ) -> None:
        if some:
            positions, width = np.array(some, np.int64), width or columns_of(self._dtype)
            self.jobs[2].append(
                exchange.plain_rows(1, False, matrix, positions, height, width, out)
            )

    def _per_unit(self, width: int, out: Array) -> None:
        if self._of.cell.Q:
            whole = padded(self._of.H, width)
            self._plain(self._units, range(self._of.cell.Q), 1, out, whole)

    def forward(self) -> None:
        """Copies, and forward panels."""
        of, cell, dtype, weights = self._of, self._of.cell, self._dtype, self._weights
        x_gates = weights.positions(cell.x_gates)
        sums, rows = cell.G * of.H, 2 * of.biased
        bias = self._work.empty((rows, sums), dtype)
        if of.biased:
            self._copied("b_ih", (sums,))
            self._copy(self._given("b_ih", (sums,)), bias[0])
        if of.biased and cell.GH:
            self._copied("b_hh", (cell.GH * of.H,))
            places = bias[1].reshape(cell.G, of.H), weights.positions(cell.recurrent)
            for row, at in zip(self._given("b_hh", (cell.GH, of.H)), places[1], strict=True):
                self._copy(row, places[0][at])
        x_bias, h_bias = (self._work.empty((sums, 1), dtype) for _ in range(2))
        # Of a gate without an h-part nobody reads the second bias, which is anything.
        apart = np.array([gate in cell.apart + cell.x_only for gate in cell.gates])
        both = x_bias.reshape(-1), h_bias.reshape(-1)
        self.jobs[1].append(exchange.biases(1, False, bias, apart, *both))
        if of.projected:
            self._w_hr = self._copied("w_hr", (of.P, of.H))
        if cell.Q:
            self._units = self._empty(COPIES, (cell.Q, of.H))
            for q, row in enumerate(self._units):
                self._copy(self._given("units", (of.H,), q), row)
        panels = self._panels(FORWARD, self._weights.forward_sizes)
        self._gates(self._w_ih, x_gates, panels[0])
        self._gates(x_bias, x_gates, panels[1])
        self._gates(self._w_hh, weights.h_positions(cell.early), panels[2])
        self._gates(h_bias, weights.positions(cell.apart), panels[3])
        self._gates(self._w_hh, weights.h_positions(cell.late), panels[4])
        if of.projected:
            given, turned = self._w_hr.reshape(of.P, of.H, 1), (of.H, of.P, 1)
            matrix = self._work.empty(turned, dtype)
            self.jobs[1].append(exchange.axes(1, False, given, matrix, False, False))
            self._plain(matrix.reshape(of.H, of.P), (0,), of.H, panels[5])
        self._per_unit(vectors_per_gate(cell) * lanes_of(dtype), panels[6])

    def backward(self, inputs: bool) -> None:
        """Panels of the backward pass; inputs: and for the gradient of its input."""
        of, cell, weights = self._of, self._of.cell, self._weights
        panels = self._panels(BACKWARD, weights.backward_sizes)
        self._plain(self._w_hh, weights.h_positions(cell.early), of.H, panels[0])
        self._plain(self._w_hh, weights.h_positions(cell.late), of.H, panels[1])
        if of.projected:
            self._plain(self._w_hr, (0,), of.P, panels[2])
        self._per_unit(columns_of(self._dtype), panels[3])
        if inputs:
            (out,) = self._panels(INPUTS, (weights.size_of_input_panels,))
            self._plain(self._w_ih, weights.positions(cell.x_gates), of.H, out)


def _pack(of: Stacked, backward: bool, inputs: bool) -> Pack:
    slots = of.passes * of.each + 2
    work, here, passes = Slot(slots - 1), Slot(slots - 2), []
    for k in range(of.passes):
        one = _Pass(of, of.weights(k // of.directions), k * of.each, here, work)
        one.forward()
        if backward:
            one.backward(inputs or k >= of.directions)
        passes.append(one)
    recipe, weight = Recipe(work, slots), sum(one.values for one in passes)
    for stage in range(3):
        jobs = [job for one in passes for job in one.jobs[stage]]
        recipe.stage(jobs, 0.0 if stage == 1 else float(VALUE * weight))
    values = here.size // np.dtype(of.dtype).itemsize
    return Pack(recipe.done(), of, values, [one.places for one in passes])


def can_be(of: Stacked) -> bool:
    """Whether there is a recipe for a stack."""
    return of.passes * of.each + 2 < MOST_SLOTS


def pack(of: Stacked, backward: bool, inputs: bool) -> Pack:
    """The recipe for a stack, whatever its T and B.

    backward: with the panels of backward passes; inputs: with those for the gradient of x.
    """
    of = replace(of, T=1, B=1)
    made: Pack = stacks.kept((of, "pack", backward, inputs), lambda: _pack(of, backward, inputs))
    return made


def prepare(cell: Cell, dtype: str) -> None:
    """Compile all that a cell's recipes have beside the passes themselves."""
    for projected in (False, True) if not cell.reads_h else (False,):
        of = Stacked(cell, 2, 2, 2, 3, 2 if projected else 3, 1, 1, dtype, True, projected)
        pack(of, True, True)
        stacks.forward(of, True)
        for lies in (stacks_backward.TIME_FIRST, stacks_backward.BATCH_FIRST):
            stacks_backward.backward(of, stacks_backward.Wanted(lies, True, True, True))
