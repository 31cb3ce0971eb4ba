"""A whole sequence through one direction of one layer, forward and backward.

`start_forward` and `start_backward` allocate what a pass needs and make a job of it; a
caller may gather the jobs of both directions, and of several models, and run them together
(`threads.run`), then read the results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.memory import Array, Empty
from fastrnn_kernels.cpu.product.pairs import VALUES
from fastrnn_kernels.cpu.product.panels import VECTORS, padded
from fastrnn_kernels.cpu.product.weights import Weights, lanes_of
from fastrnn_kernels.cpu.sequence import backward, forward
from fastrnn_kernels.cpu.sequence.form import Form
from fastrnn_kernels.cpu.sequence.gradients import Unfinished, gradients
from fastrnn_kernels.cpu.sequence.normed import (
    NormGradient,
    backward_arguments,
    forward_arguments,
    new_normed,
)
from fastrnn_kernels.cpu.sequence.plan import backward_plan, forward_plan
from fastrnn_kernels.cpu.threads.job import Job
from fastrnn_kernels.draws import CELL, Draws, levels_of, words_of
from fastrnn_kernels.gradients import NO_CLIP, Clip, Gradients
from fastrnn_kernels.rows import Rows
from fastrnn_kernels.tape import Tape

_NOTHING = {
    dtype: tuple(np.empty((0,) * ndim, dtype) for ndim in (3, 4))
    for dtype in (np.dtype(np.float32), np.dtype(np.float64))
}
_NO_MASK = {dtype: np.empty((0, 0), dtype) for dtype in _NOTHING}
_NO_WORDS = np.empty(0, np.uint64)
_NO_RESET = np.empty((0, 0), np.bool_)


#: What forward passes are given where nothing is drawn, by their type.
NOTHING_DRAWN: dict[np.dtype[Any], dict[str, Any]] = {
    dtype: {"words": _NO_WORDS, "levels": none, "h_mask": none, "draw_kind": 0, "draw_first": 0}
    for dtype, none in _NO_MASK.items()
}


def _drawn(weights: Weights, draws: Draws) -> dict[str, Any]:
    """The same where something is."""
    if len(draws.of) != weights.cell.D:
        raise ValueError(f"{len(draws.of)} draws, cell {weights.cell.name} has {weights.cell.D}")
    return {
        "words": words_of(draws.key.key, draws.of),
        "levels": levels_of(draws.of, weights.dtype),
        "h_mask": mask_panels(draws.h_mask, weights.dtype),
        "draw_kind": draws.key.kind(CELL),
        "draw_first": draws.first,
    }


def mask_panels(h_mask: Array | None, dtype: np.dtype[Any]) -> Array:
    """A mask (B, P) of h in whole panels, as tapes have it; ones behind it, nothing for None."""
    if h_mask is None:
        return _NO_MASK[dtype]
    B, P = h_mask.shape
    found = np.ones((B, padded(P, VECTORS * lanes_of(dtype))), dtype)
    found[:, :P] = h_mask
    return found


@dataclass(slots=True, eq=False)
class Forward:
    """A forward pass: the job that does it, and what the backward pass needs of it."""

    job: Job
    work: float  # multiply-adds
    tape: Tape[Weights] | None


def new_tape(
    weights: Weights,
    rows: Rows,
    x: Array,
    reverse: bool,
    reset: NDArray[np.bool_] | None = None,
    empty: Empty = memory.empty,
) -> Tape[Weights]:
    """A tape to be written."""
    cell, dtype, lanes = weights.cell, weights.dtype, lanes_of(weights.dtype)
    T, B, H, P = rows.T, rows.B, weights.hidden_size, weights.state_size
    HL, PL = padded(H, lanes), padded(P, lanes)
    projected = weights.w_hr is not None
    return Tape(
        weights,
        rows,
        x,
        reverse,
        reset,
        saved=empty((T, B, cell.K, HL), dtype),
        old_h=empty((T, B, PL), dtype),
        old_rest=empty((cell.N - 1, T, B, HL), dtype),
        inner=empty((T, B, HL) if cell.late else (0, 0, 0), dtype),
        full_h=empty((T, B, HL) if projected else (0, 0, 0), dtype),
        normed=new_normed(weights, T, B, empty) if weights.norm else None,
    )


def tape_bytes(weights: Weights, T: int, B: int) -> int:
    """Bytes of the tape of a forward pass, without its input."""
    return memory.bytes_of(
        lambda empty: new_tape(
            weights, Rows.whole(T, B), _NOTHING[weights.dtype][0], False, None, empty
        )
    )


def start_forward(
    weights: Weights,
    x: Array,
    start_h: Array,
    start_rest: Array,
    final_h: Array,
    final_rest: Array,
    rows: Rows,
    y: Array,
    y_at: int,
    *,
    reverse: bool = False,
    reset: NDArray[np.bool_] | None = None,
    taping: bool = False,
    share: int = 1,
    begin: tuple[Array, Array] | None = None,
    tape: Tape[Weights] | None = None,
    draws: Draws | None = None,
    kept: Empty = memory.empty,
    empty: Empty = memory.empty,
) -> Forward:
    """Prepare a forward pass.

    x (T, B, I), y (T, B, Y) and all states C-contiguous; h goes to the columns of y from y_at
    on, zeros where a row is padding. start_h and final_h (B, P), start_rest and final_rest
    (states but h, B, H); the pass writes the final ones. `share` passes will run together.
    begin: the states before the first step, where they are not those that resets go back to.
    tape: one to be written, if not a new one.
    draws: what is drawn, where the cell has drawn values or h a mask.
    kept, empty: give the memory of the tape, and that in which the pass works.
    """
    cell, values = weights.cell, VALUES[weights.compute]
    if cell.reads_h and weights.w_hr is not None:
        raise ValueError(f"cell {cell.name} reads h of its own unit, which a projection has not")
    if taping and values > 1:
        raise ValueError(f"products in {weights.compute} are for inference: they keep no tape")
    drawn = NOTHING_DRAWN[weights.dtype] if draws is None else _drawn(weights, draws)
    if cell.D and draws is None:
        raise ValueError(f"cell {cell.name} has drawn values, and draws is None")
    masked = draws is not None and draws.h_mask is not None
    panels, plan = weights.forward(), forward_plan(weights, rows, share, masked=masked)
    scratch, indices = plan.scratch(empty)
    operands = scratch.view(np.int32) if values > 1 else scratch
    if tape is None and taping:
        tape = new_tape(weights, rows, x, reverse, reset, kept)
    if tape is not None and masked:
        tape.h_mask = drawn["h_mask"]
    begin_h, begin_rest = begin or (start_h, start_rest)
    if tape is None:
        small, large = _NOTHING[weights.dtype]
        saved, old_h, old_rest, inner, full_h = large, small, large, small, small
    else:
        saved, old_h, old_rest = tape.saved, tape.old_h, tape.old_rest
        inner, full_h = tape.inner, tape.full_h
    given = forward.Arguments(
        x=x, y=y, reset=_NO_RESET if reset is None else reset,
        order=rows.order, lengths=rows.lengths, valid=rows.valid,
        x_panels=panels.x, bias=panels.bias, h_panels=panels.h, h_bias=panels.h_bias,
        late_panels=panels.late, p_panels=panels.projection, units=panels.units,
        start_h=start_h, start_rest=start_rest, begin_h=begin_h, begin_rest=begin_rest,
        final_h=final_h, final_rest=final_rest, saved=saved, old_h=old_h, old_rest=old_rest,
        inner=inner, full_h=full_h,
        pieces=plan.pieces, scratch=scratch, operands=operands, indices=indices,
        H=weights.hidden_size, P=weights.state_size, y_at=y_at, reverse=reverse,
        resetting=reset is not None, projected=weights.projected, taping=taping, **drawn,
    )  # fmt: skip
    more: tuple[object, ...] = ()
    if weights.blocks > 1:
        more = weights.gate_reach.elements(values), weights.depth
    if weights.norm:
        more += forward_arguments(weights, rows.B, None if tape is None else tape.normed, empty)
    make = forward.forward_job(cell, values, Form.of(weights, masked))
    job = make(plan.count, plan.team, *given, *more)
    job.steps = rows.T
    return Forward(job, plan.work, tape)


@dataclass(slots=True, eq=False)
class Backward:
    """A backward pass through time: its job, then `finish(onto)` for the gradients."""

    job: Job
    work: float  # multiply-adds
    then: Unfinished

    def finish(self, onto: Array | None = None) -> Gradients:
        """The gradients, when the job has run."""
        return gradients([self.then], [onto])[0]


def finish(passes: Sequence[Backward], onto: Sequence[Array | None]) -> list[Gradients]:
    """The gradients of several passes whose jobs have run, computed together."""
    return gradients([one.then for one in passes], onto)


def start_backward(
    tape: Tape[Weights],
    dy: Array,
    y_at: int,
    d_final_h: Array,
    d_final_rest: Array,
    *,
    share: int = 1,
    inputs: bool = True,
    clip: Clip = NO_CLIP,
) -> Backward:
    """Prepare a backward pass: dy (T, B, Y) C-contiguous, read from column y_at on.

    inputs: whether the gradient of x is wanted.
    """
    through = through_time(tape, dy, y_at, d_final_h, d_final_rest, share, clip=clip)
    sums = through.d_sums, through.dh_tape, through.d_units
    start = through.d_start_h, through.d_start_rest
    of_all = Unfinished(tape, *sums, *start, inputs, through.normed)
    return Backward(through.job, through.work, of_all)


@dataclass(slots=True, eq=False)
class Through:
    """A backward pass through time, and what it writes.

    Gradients of sums, h and initial states; and (B, Q, HL) of the parameters per unit.
    """

    job: Job
    work: float  # multiply-adds
    d_sums: Array
    dh_tape: Array
    d_units: Array
    d_start_h: Array
    d_start_rest: Array
    normed: NormGradient | None = None


def through_time(
    tape: Tape[Weights],
    dy: Array,
    y_at: int,
    d_final_h: Array,
    d_final_rest: Array,
    share: int,
    start: tuple[Array, Array] | None = None,
    empty: Empty = memory.empty,
    zeros: Empty = memory.zeros,
    clip: Clip = NO_CLIP,
    begin: tuple[Array, Array] | None = None,
    written: tuple[Array, Array, Array] | None = None,
    d_parts: Array | None = None,
) -> Through:
    """Prepare the loop over time of a backward pass.

    start: zeros, to which the gradients of the initial h and other states are added. empty, zeros:
    give all other memory, and that of sums. begin: as `start`, of the states before the first step
    where they are not those that resets go back to. written: d_sums, dh_tape and d_units, if they
    are there. d_parts: as `NormGradient` has it, if there is a norm and it is there.
    """
    weights, rows = tape.weights, tape.rows
    cell, dtype = weights.cell, weights.dtype
    T, B, H, P = rows.T, rows.B, weights.hidden_size, weights.state_size
    projected = weights.w_hr is not None
    if start is None:
        start = np.zeros((B, P), dtype), np.zeros((cell.N - 1, B, H), dtype)
    d_start_h, d_start_rest = start
    d_begin_h, d_begin_rest = begin or start
    if written is None:
        make = zeros if cell.Q else empty
        written = (
            empty((T, B, cell.S, H), dtype),
            empty((T, B, P) if projected else (0, 0, 0), dtype),
            make((B, cell.Q, padded(H, lanes_of(dtype))), dtype),
        )
    d_sums, dh_tape, d_units = written
    masked = tape.h_mask is not None
    panels, plan = weights.backward(), backward_plan(weights, rows, share, masked=masked)
    scratch, indices = plan.scratch(empty)
    given = backward.Arguments(
        dy=dy, d_sums=d_sums, reset=_NO_RESET if tape.reset is None else tape.reset,
        order=rows.order, lengths=rows.lengths, valid=rows.valid,
        h_panels=panels.h, late_panels=panels.late, p_panels=panels.projection, units=panels.units,
        d_final_h=d_final_h, d_final_rest=d_final_rest,
        d_start_h=d_start_h, d_start_rest=d_start_rest,
        d_begin_h=d_begin_h, d_begin_rest=d_begin_rest, d_units=d_units,
        saved=tape.saved, old_h=tape.old_h, old_rest=tape.old_rest, dh_tape=dh_tape,
        pieces=plan.pieces, scratch=scratch, indices=indices, H=H, P=P, y_at=y_at,
        reverse=tape.reverse, resetting=tape.reset is not None, projected=projected,
        clip_value=clip.value, clip_norm=clip.norm,
        h_mask=_NO_MASK[dtype] if tape.h_mask is None else tape.h_mask,
    )  # fmt: skip
    more: tuple[object, ...] = weights.column_reach if weights.blocks > 1 else ()
    normed = None
    if weights.norm:
        if d_parts is None:
            d_parts = empty((T, B, cell.E, H), dtype)
        normed = NormGradient(tape, d_sums, d_parts)
        more += backward_arguments(tape, normed.d_h)
    make_job = backward.backward_job(cell, Form.of(weights, masked))
    job = make_job(plan.count, plan.team, *given, *more)
    job.steps = T
    return Through(job, plan.work, d_sums, dh_tape, d_units, d_start_h, d_start_rest, normed)
