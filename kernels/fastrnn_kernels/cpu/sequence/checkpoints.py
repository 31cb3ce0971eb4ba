"""Passes with checkpoints: a tape of the states before some steps, and the rest computed again.

The time is cut into segments of `every` steps. A forward pass takes them in turn, and keeps the
states with which each begins. The backward pass takes them the other way: each runs forward once
more, with a tape of its own, and then backwards. All computes what the whole does, bit for bit:

- a segment is a batch whose rows have what their lengths leave to it, so rows that end, or in the
  reverse direction begin, in the midst of it need nothing more;
- sums over time are made of chains of rows, which go over the edges of segments. What a segment has
  of a chain that goes on in the next is copied behind that one's rows.

Chen, Xu, Zhang and Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.memory import Array, Empty
from fastrnn_kernels.cpu.product.panels import padded
from fastrnn_kernels.cpu.product.weights import Weights, lanes_of
from fastrnn_kernels.cpu.sequence.gradients import Running, TimeProducts, add, gathered, input_job
from fastrnn_kernels.cpu.sequence.normed import NormGradient
from fastrnn_kernels.cpu.sequence.start import (
    Forward,
    Through,
    new_tape,
    start_forward,
    through_time,
)
from fastrnn_kernels.cpu.sequence.time_products import DEPTH
from fastrnn_kernels.cpu.threads import pool
from fastrnn_kernels.draws import Draws
from fastrnn_kernels.gradients import Clip, Gradients
from fastrnn_kernels.rows import Indices, Rows
from fastrnn_kernels.tape import Normed, Tape

States = tuple[Array, Array]  # h (B, P), and the others (states but h, B, H)


class Segment(NamedTuple):
    """Some steps of all rows: from `first` to before `last`, and what rows have of them."""

    first: int
    last: int
    rows: Rows

    @property
    def steps(self) -> slice:
        """The same as a slice of time."""
        return slice(self.first, self.last)


@dataclass(slots=True, eq=False)
class Checkpoints:
    """What a forward pass with checkpoints keeps: its input, and the states of each segment.

    h (segments, B, P) and rest (segments, states but h, B, H): before the segments' first steps,
    in the order of the pass. start: the states that resets go back to, and the pass begins with.
    """

    weights: Weights
    rows: Rows
    x: Array
    reverse: bool
    reset: NDArray[np.bool_] | None
    every: int
    start: States
    h: Array
    rest: Array
    draws: Draws | None = None

    def segments(self) -> list[Segment]:
        """In the order of the forward pass."""
        T, B, given = self.rows.T, self.rows.B, self.rows.given
        found = []
        for first in range(0, max(1, T), self.every):
            last = min(T, first + self.every)
            rows = Rows.whole(last - first, B)
            if self.rows.ragged:
                rows = Rows(last - first, B, np.clip(given - first, 0, last - first))
            found.append(Segment(first, last, rows))
        return found[::-1] if self.reverse else found

    def states(self, number: int) -> States:
        """Those that a segment begins with."""
        return self.h[number], self.rest[number]

    def draws_in(self, one: Segment) -> Draws | None:
        """What is drawn in a segment, as it would be in the whole."""
        return None if self.draws is None else self.draws.after(one.first)

    def reset_between(self, one: Segment) -> NDArray[np.bool_] | None:
        """Which rows (B,) a reset cuts between a segment and the one after it."""
        edge = one.first if self.reverse else one.last
        return None if self.reset is None else self.reset[edge] & (self.rows.given > edge)

    def reset_in(self, one: Segment) -> NDArray[np.bool_] | None:
        """The resets (T, B) of a segment."""
        return None if self.reset is None else self.reset[one.steps]


def new_checkpoints(
    weights: Weights,
    rows: Rows,
    x: Array,
    reverse: bool,
    reset: NDArray[np.bool_] | None,
    every: int,
    empty: Empty = memory.empty,
    draws: Draws | None = None,
) -> Checkpoints:
    """Those of a pass, to be written."""
    B, H, P, others = rows.B, weights.hidden_size, weights.state_size, weights.cell.N - 1
    many, dtype = -(-max(1, rows.T) // every), weights.dtype
    start = empty((B, P), dtype), empty((others, B, H), dtype)
    h, rest = empty((many, B, P), dtype), empty((many, others, B, H), dtype)
    return Checkpoints(weights, rows, x, reverse, reset, every, start, h, rest, draws)


def checkpoint_bytes(weights: Weights, T: int, B: int, every: int) -> int:
    """Bytes of those of a pass over whole sequences, without its input."""
    rows, x = Rows.whole(T, B), np.empty((0, 0, 0), weights.dtype)
    return memory.bytes_of(
        lambda empty: new_checkpoints(weights, rows, x, False, None, every, empty)
    )


def forward_segments(
    kept: Checkpoints, start: States, final: States, y: Array, y_at: int, share: int
) -> Iterator[Forward]:
    """A forward pass, segment by segment; each is to be run before the next is asked for."""
    for mine, given in zip(kept.start, start, strict=True):
        mine[:] = given
    segments = kept.segments()
    for mine, given in zip(kept.states(0), start, strict=True):
        mine[:] = given
    for number, one in enumerate(segments):
        last = number == len(segments) - 1
        end = final if last else kept.states(number + 1)
        yield start_forward(
            kept.weights, kept.x[one.steps], *kept.start, *end, one.rows, y[one.steps], y_at,
            reverse=kept.reverse, reset=kept.reset_in(one), share=share, begin=kept.states(number),
            draws=kept.draws_in(one),
        )  # fmt: skip
        cut = None if last else kept.reset_between(one)
        if cut is not None:
            for state, begin in zip(end, kept.start, strict=True):
                np.copyto(state, begin, where=cut[:, None])


class BackwardSegments:
    """A backward pass, segment by segment: what it yields is to be run before it is asked for more.

    dx: where the gradient of x goes, or is added if `adding`.
    """

    def __init__(
        self,
        kept: Checkpoints,
        dy: Array,
        y_at: int,
        d_final: States,
        dx: Array | None,
        adding: bool,
        share: int,
        clip: Clip,
    ) -> None:
        self._kept, self._dy, self._y_at, self._dx, self._adding = kept, dy, y_at, dx, adding
        self._share, self._clip = share, clip
        weights, rows = kept.weights, kept.rows
        cell, dtype = weights.cell, weights.dtype
        B, H, P = rows.B, weights.hidden_size, weights.state_size
        self._steps = min(kept.every, rows.T)
        # Room for what is left of a chain behind the rows of a segment.
        room = self._steps + (-(-(DEPTH - 1) // B) if B else 0)
        x = memory.empty((room, B, weights.input_size), dtype)
        rows_and_room = Rows.whole(room, B)
        self._tape = new_tape(weights, rows_and_room, x, kept.reverse, kept.reset)
        self._d_sums = memory.empty((room, B, cell.S, H), dtype)
        self._dh_tape = memory.empty((room, B, P) if weights.projected else (0, 0, 0), dtype)
        self._d_units = memory.zeros((B, cell.Q, padded(H, lanes_of(dtype))), dtype)
        h, rest = kept.start
        self._ends = np.empty_like(h), np.empty_like(rest)  # nobody reads them
        self._y = memory.empty((self._steps, B, P), dtype)
        written = self._d_sums, self._dh_tape, self._d_units
        self._normed = None
        if weights.norm:
            d_parts = memory.empty((room, B, cell.E, H), dtype)
            self._normed = NormGradient(self._tape, self._d_sums, d_parts)
        self._products = TimeProducts(self._tape, *written, None, False, normed=self._normed)
        #: positions, among all these, of rows of a chain that is not complete
        self._left: Indices = np.empty(0, np.int64)
        self._d_start = np.zeros((B, P), dtype), np.zeros((cell.N - 1, B, H), dtype)
        self._d_states = d_final

    def __iter__(self) -> Iterator[Forward | Through]:
        """The passes forward and backwards, in turn."""
        kept, segments = self._kept, self._kept.segments()
        for number in reversed(range(len(segments))):
            one = segments[number]
            tape, T = self._tape_of(one), one.rows.T
            ends = self._ends
            yield start_forward(
                kept.weights, tape.x, *kept.start, *ends, one.rows, self._y[:T], 0,
                reverse=kept.reverse, reset=tape.reset, taping=True, share=self._share,
                begin=kept.states(number), tape=tape, draws=kept.draws_in(one),
            )  # fmt: skip
            # Zeros that leave what is added to them as it is, also the sign of a zero.
            h, rest = kept.start
            begin = np.full_like(h, -0.0), np.full_like(rest, -0.0)
            yield through_time(
                tape, self._dy[one.steps], self._y_at, *self._d_states, self._share, self._d_start,
                clip=self._clip, begin=begin,
                written=(self._d_sums[:T], self._dh_tape[:T], self._d_units),
                d_parts=None if self._normed is None else self._normed.d_h[:T],
            )  # fmt: skip
            self._d_states = begin
            if number > 0:
                self._cut(segments[number - 1])
            self._add(one, last=number == 0)

    def finish(self) -> Gradients:
        """The gradients, when all has run."""
        for total, state in zip(self._d_start, self._d_states, strict=True):
            total += state
        return gathered(self._tape, self._products, self._dx, *self._d_start)

    def _tape_of(self, one: Segment) -> Tape[Weights]:
        """The tape of a segment, in the memory that all have in turn."""
        whole, T = self._tape, one.rows.T
        whole.x[:T] = self._kept.x[one.steps]
        others, _, *sizes = whole.old_rest.shape
        old_rest = whole.old_rest.reshape(-1)[: others * T * math.prod(sizes)]
        return replace(
            whole,
            rows=one.rows,
            x=whole.x[:T],
            reset=self._kept.reset_in(one),
            saved=whole.saved[:T],
            old_h=whole.old_h[:T],
            old_rest=old_rest.reshape(others, T, *sizes),
            inner=whole.inner[:T],
            full_h=whole.full_h[:T],
            normed=whole.normed and Normed(*(array[:T] for array in whole.normed)),
        )

    def _cut(self, before: Segment) -> None:
        """Give the gradient of a state that a reset has put in its place to where it came from."""
        cut = self._kept.reset_between(before)
        if cut is not None:
            for total, state in zip(self._d_start, self._d_states, strict=True):
                np.add(total, state, out=total, where=cut[:, None])
                np.copyto(state, 0, where=cut[:, None])

    def _add(self, one: Segment, *, last: bool) -> None:
        """Add what the segment has to the gradients, as far as the chains of sums are complete."""
        running, weights = one.rows.running, self._kept.weights
        self._mask(one)
        if self._dx is not None:
            H, cell = weights.hidden_size, weights.cell
            depth, panels = cell.G * H, weights.input_panels()
            given = self._d_sums, cell.S * H, depth, panels, Running.of(running)
            if self._normed is not None:
                pool.run([self._normed.job_of_inputs(running)], float(running.size) * depth)
                given = self._normed.d_x, depth, *given[2:]
            job = input_job(*given, self._dx[one.steps], self._adding)
            pool.run([job], float(running.size) * depth * weights.input_size)
        if self._kept.reverse:
            rows = np.concatenate([self._left, running])
            ready, left = np.split(rows, [rows.size if last else rows.size // DEPTH * DEPTH])
        else:
            rows = np.concatenate([running, self._left])
            before = int(np.minimum(self._kept.rows.given, one.first).sum())
            left, ready = np.split(rows, [min(rows.size, -before % DEPTH)])
        add([(self._products, ready)])
        self._leave(left)

    def _mask(self, one: Segment) -> None:
        """Leave in the place of the old h what R has multiplied, now that nobody else reads it."""
        draws = self._kept.draws
        if draws is not None and draws.h_mask is not None:
            h = self._tape.old_h[: one.rows.T, :, : draws.h_mask.shape[1]]
            with np.errstate(all="ignore"):  # of what stands where a row has ended
                h *= draws.h_mask

    def _leave(self, left: Indices) -> None:
        """Keep some rows behind those of the next segment."""
        at = self._steps * self._kept.rows.B
        tape = self._tape
        arrays = [self._d_sums, self._dh_tape, tape.x, tape.old_h, tape.inner, tape.full_h]
        if self._normed is not None:
            arrays += [self._normed.d_h, *(tape.normed or ())]
        for array in arrays:
            if array.size:
                flat = array.reshape(array.shape[0] * array.shape[1], -1)
                flat[at : at + left.size] = flat[left]
        self._left = np.arange(at, at + left.size)
