"""The path for any shape: to each step a product with R and a kernel of a thread to a unit.

Some steps are recorded once for a shape, with the products' arrays that belong to the recording;
the arrays of a call come by a table. Each replay ends by moving on the step that it began with, so
a pass is as many replays as it takes; steps past the end find no row that runs.
"""

import threading
from typing import Any, NamedTuple

import numpy as np

from fastrnn_kernels.cuda.data import passes
from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.launch.arrays import Array, take, xp
from fastrnn_kernels.cuda.launch.blas import product
from fastrnn_kernels.cuda.launch.graph import Graph
from fastrnn_kernels.cuda.launch.launch import caller_key, launch
from fastrnn_kernels.cuda.stepwise import backward as back
from fastrnn_kernels.cuda.stepwise import forward as ahead
from fastrnn_kernels.cuda.stepwise.table import Table
from fastrnn_kernels.draws import CELL, Draws, levels_of, words_of

#: Steps of a recording at most.
MOST_STEPS = 64


def divided(T: int) -> tuple[int, int]:
    """Replays that T steps take, and steps to a replay."""
    replays = -(-T // MOST_STEPS)
    return replays, -(-T // max(1, replays))


class Shape(NamedTuple):
    """What a recording follows from, beside the weights and the caller's stream."""

    B: int
    steps: int  # to a replay
    Y: int
    y_at: int
    reverse: bool
    resetting: bool
    taping: bool = True
    masked: bool = False


class _Recorded:
    """What passes in both directions of time share."""

    def __init__(self, weights: Weights, shape: Shape) -> None:
        cell = weights.cell
        self.weights, self.shape = weights, shape
        self.E, self.L, self.N = cell.E, cell.L, cell.N
        self.table = Table()
        self.lock = threading.Lock()  # a call's table is not to be changed by another thread
        H, dtype = weights.hidden_size, weights.dtype
        name = f"{type(self).__name__} of {cell.name}, H={H}, {dtype}, {shape}"
        self.graph = Graph(self._calls, name)
        words = self.table.words
        self._tables = words, words, words, words

    def _calls(self) -> None:
        steps = self.shape.steps
        for step in range(steps):
            self.step(step)
        launch(ahead.advance_kernel(), 1, self.table.words, self._forward_in_time * steps)

    _forward_in_time = 1

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(one.nbytes for one in vars(self).values() if hasattr(one, "nbytes"))

    def _product(self, a: Array, b: Array, out: Array, transposed: bool = False) -> None:
        product(a, b, out, transposed, self.weights.compute)

    def step(self, step: int) -> None:
        """The launches and products of one step of a replay."""
        raise NotImplementedError


class RecordedForward(_Recorded):
    """Some steps forward, with their arrays, as a recording."""

    def __init__(self, weights: Weights, shape: Shape) -> None:
        super().__init__(weights, shape)
        dtype, B, H, P = weights.dtype, shape.B, weights.hidden_size, weights.state_size
        projected = weights.w_hr is not None
        self._kernels = ahead.forward_kernels(weights.cell, dtype, projected, shape.masked)
        self.h, self.rest = xp.empty((B, P), dtype), xp.empty((self.N - 1, B, H), dtype)
        self._met = xp.empty((B, P), dtype) if shape.masked else None
        self._h_sums = xp.empty((B, self.E * H), dtype)
        self._late_sums = xp.empty((B, self.L * H), dtype)
        # Rows that have ended keep theirs, which are multiplied and then not read.
        self._full_h, self._inner = xp.zeros((2, B, H), dtype)
        self._new_h = xp.empty((B, P), dtype)

    @property
    def _multiplied(self) -> Array:
        """What R multiplies: h, or what a mask has left of it."""
        return self.h if self._met is None else self._met

    def begin(self) -> None:
        """Go to the states at the start of the arrays in the table."""
        many = self.h.size, self.rest.size
        kernel = ahead.begin_kernel(self.weights.dtype, self.shape.masked)
        launch(kernel, max(many), self.table.words, self.h, self._met, self.rest, *many)

    def step(self, step: int) -> None:
        """The launches and products of one step of a replay."""
        shape, weights, kernels = self.shape, self.weights, self._kernels
        matrices, B, H, P = weights.matrices, shape.B, weights.hidden_size, weights.state_size
        vs, ns, ms, words = self._tables
        if self.E:
            self._product(self._multiplied, matrices.h, self._h_sums, transposed=True)
        if self.L:
            launch(
                kernels.inner, B * H, vs, ns, words, self._h_sums, matrices.bias, matrices.units,
                self.h, self.rest, self._inner, step, B, H, shape.reverse, shape.taping,
            )  # fmt: skip
            self._product(self._inner, matrices.late, self._late_sums, transposed=True)
        place = (shape.Y, shape.y_at, shape.reverse, shape.resetting, shape.taping)
        launch(
            kernels.gates, B * H, vs, ns, ms, words, self._h_sums, self._late_sums,
            matrices.bias, matrices.h_bias, matrices.units, self.h, self._met, self.rest,
            self._full_h, step, B, H, *place,
        )  # fmt: skip
        if weights.w_hr is not None:
            self._product(self._full_h, matrices.projection, self._new_h, transposed=True)
            launch(
                kernels.keep, B * P, vs, ns, ms, words, self._new_h, self.h, self._met, step, B, P,
                *place,
            )  # fmt: skip


class RecordedBackward(_Recorded):
    """Some steps back, with their arrays, as a recording."""

    _forward_in_time = -1

    def __init__(self, weights: Weights, shape: Shape) -> None:
        super().__init__(weights, shape)
        dtype, B, H, P = weights.dtype, shape.B, weights.hidden_size, weights.state_size
        projected = weights.w_hr is not None
        self._kernels = back.backward_kernels(weights.cell, dtype, projected, shape.masked)
        self.dh, self.d_product, self._dh_now = xp.zeros((3, B, P), dtype)
        self.d_rest = xp.empty((self.N - 1, B, H), dtype)
        self._d_now = xp.zeros((B, self.E * H), dtype)
        self._d_late_now = xp.zeros((B, self.L * H), dtype)
        self._d_full, self._d_inner = xp.empty((2, B, H), dtype)

    def begin(self) -> None:
        """Zeros in the gradients of the states."""
        many = self.dh.size, self.d_rest.size
        kernel = back.begin_kernel(self.weights.dtype)
        launch(kernel, max(many), self.dh, self.d_product, self.d_rest, *many)

    def step(self, step: int) -> None:
        """The launches and products of one step of a replay."""
        shape, weights, kernels = self.shape, self.weights, self._kernels
        matrices, B, H, P = weights.matrices, shape.B, weights.hidden_size, weights.state_size
        tables = self._tables
        place = (shape.Y, shape.y_at, shape.reverse, shape.resetting)
        if weights.w_hr is not None:
            launch(
                kernels.hidden, B * P, *tables, self.d_product, self.dh, self._dh_now, step, B, P,
                *place,
            )  # fmt: skip
            self._product(self._dh_now, matrices.projection, self._d_full)
        if self.L:
            launch(
                kernels.late, B * H, *tables, matrices.units, self.d_product, self.dh,
                self._d_late_now, step, B, H, *place,
            )  # fmt: skip
            self._product(self._d_late_now, matrices.late, self._d_inner)
        launch(
            kernels.gates, B * H, *tables, matrices.units, self.d_product, self.dh, self.d_rest,
            self._d_full, self._d_inner, self._d_now, step, B, H, *place,
        )  # fmt: skip
        if self.E:
            self._product(self._d_now, matrices.h, self.d_product)


def _recorded(kind: Any, weights: Weights, shape: Shape) -> Any:
    key = kind, shape, caller_key()
    return weights.recent.get(key, lambda: kind(weights, shape))


def forward(given: passes.ForwardArguments) -> None:
    """Run a forward pass."""
    rows, tape, draws = given.rows, given.tape, given.draws
    replays, steps = divided(rows.T)
    shape = Shape(
        rows.B, steps, given.y.shape[2], given.y_at, given.reverse, given.reset is not None,
        tape is not None, draws is not None and draws.h_mask is not None,
    )  # fmt: skip
    recorded = _recorded(RecordedForward, given.weights, shape)
    x_sums, lengths = passes.x_sums(given), passes.lengths_of(rows)
    values = {
        ahead.STEPS: rows.T, ahead.FIRST: 0, ahead.LENGTHS: lengths, ahead.RESET: given.reset,
        ahead.X_SUMS: x_sums, ahead.Y_OUT: given.y, ahead.START_H: given.start_h,
        ahead.START_REST: given.start_rest, ahead.FINAL_H: given.final_h,
        ahead.FINAL_REST: given.final_rest,
    }  # fmt: skip
    if tape is not None:
        values |= {
            ahead.SAVED: tape.saved, ahead.OLD_H: tape.old_h, ahead.OLD_REST: tape.old_rest,
            ahead.INNER: tape.inner, ahead.FULL_H: tape.full_h,
        }  # fmt: skip
    if draws is not None:
        values[ahead.H_MASK] = draws.h_mask
        values |= _drawn(draws, given.weights.dtype)
    with recorded.lock:
        recorded.table.fill(values)
        recorded.begin()
        for _ in range(replays):
            recorded.graph.run()


def _drawn(draws: Draws, dtype: Any) -> dict[int, Array]:
    key, other_key, *thresholds = words_of(draws.key.key, draws.of).tolist()
    words = [key, other_key, draws.key.kind(CELL), draws.first, *thresholds]
    levels = levels_of(draws.of, dtype)
    return {ahead.DRAWN: take(np.array(words, np.int64)), ahead.LEVELS: take(levels)}


def backward(given: passes.BackwardArguments) -> None:
    """Run a backward pass."""
    tape = given.tape
    rows = tape.rows
    replays, steps = divided(rows.T)
    shape = Shape(
        rows.B, steps, given.dy.shape[2], given.y_at, tape.reverse, tape.reset is not None,
        masked=tape.h_mask is not None,
    )  # fmt: skip
    recorded = _recorded(RecordedBackward, tape.weights, shape)
    values = {
        ahead.STEPS: rows.T, ahead.FIRST: replays * steps - 1,
        ahead.LENGTHS: passes.lengths_of(rows), ahead.RESET: tape.reset,
        ahead.SAVED: tape.saved, ahead.OLD_H: tape.old_h, ahead.OLD_REST: tape.old_rest,
        back.DY: given.dy, back.D_FINAL_H: given.d_final_h, back.D_FINAL_REST: given.d_final_rest,
        back.D_START_H: given.d_start_h, back.D_START_REST: given.d_start_rest,
        back.D_SUMS: given.d_sums, back.DH_TAPE: given.dh_tape, back.D_UNITS: given.d_units,
        ahead.H_MASK: tape.h_mask,
    }  # fmt: skip
    with recorded.lock:
        recorded.table.fill(values)
        recorded.begin()
        for _ in range(replays):
            recorded.graph.run()
        through = recorded.d_product
        if tape.h_mask is not None:
            through = through * tape.h_mask
        passes.finish_backward(given, recorded.dh, through, recorded.d_rest)
