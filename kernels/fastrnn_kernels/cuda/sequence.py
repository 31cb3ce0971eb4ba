"""A whole sequence through one direction of one layer on the GPU, forward and backward.

`start_forward` and `start_backward` prepare a pass, as those of the CPU do; nothing waits for
the GPU. The product for all x and the gradients of the weights are the library's; what depends
on time is `stepwise/forward.py`'s, or a path's that does all of it in one launch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastrnn_kernels.cuda import choice
from fastrnn_kernels.cuda.data import passes
from fastrnn_kernels.cuda.data.tape import new_tape
from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.gradients import gradients
from fastrnn_kernels.cuda.launch.arrays import Array, take, xp
from fastrnn_kernels.draws import Draws
from fastrnn_kernels.gradients import NO_CLIP, Clip, Gradients
from fastrnn_kernels.rows import Rows
from fastrnn_kernels.tape import Tape


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What runs a pass."""

    given: passes.ForwardArguments | passes.BackwardArguments

    def __call__(self) -> None:
        """Run it by itself."""
        run([self], 0.0)


@dataclass(slots=True, eq=False)
class Forward:
    """A forward pass: what runs it, and what the backward pass needs of it."""

    job: Job
    work: float  # multiply-adds
    tape: Tape[Weights] | None


@dataclass(slots=True, eq=False)
class Backward:
    """A backward pass through time: what runs it, then `finish(onto)` for the gradients."""

    job: Job
    work: float  # multiply-adds
    finish: Callable[[Array | None], Gradients]


def _work(weights: Weights, rows: Rows) -> float:
    depth = weights.input_size + weights.state_size
    return float(rows.steps) * weights.cell.G * weights.hidden_size * depth


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
    reset: Any = None,
    taping: bool = False,
    share: int = 1,
    draws: Draws | None = None,
) -> Forward:
    """Prepare a forward pass.

    All arrays on the GPU and C-contiguous, but for `rows` and `reset`: x (T, B, I), y (T, B, Y)
    and all states; h goes to the columns of y from y_at on, zeros where a row is padding.
    start_h and final_h (B, P), start_rest and final_rest (states but h, B, H); the pass writes
    the final ones. `share` passes will run together. draws: what is drawn, where the cell has drawn
    values or h a mask; such a pass goes step by step.
    """
    cell = weights.cell
    if cell.reads_h and weights.w_hr is not None:
        raise ValueError(f"cell {cell.name} reads h of its own unit, which a projection has not")
    if len(draws.of if draws is not None else ()) != cell.D:
        raise ValueError(f"cell {cell.name} has {cell.D} drawn values, draws is {draws}")
    tape = new_tape(weights, rows, x, reverse, reset) if taping else None
    if draws is not None and draws.h_mask is not None:
        draws = replace(draws, h_mask=take(draws.h_mask))
        if tape is not None:
            tape.h_mask = draws.h_mask
    given = passes.ForwardArguments(
        weights, x, start_h, start_rest, final_h, final_rest, rows, y, y_at,
        reverse, None if reset is None else take(reset), tape, draws,
    )  # fmt: skip
    return Forward(Job(given), _work(weights, rows), tape)


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

    inputs: whether the gradient of x is wanted. clip: has to be none, which layers see to.
    """
    weights, rows = tape.weights, tape.rows
    T, B, H, P = rows.T, rows.B, weights.hidden_size, weights.state_size
    dtype = weights.dtype
    # Where a row has ended nothing is written, and the products over all steps add it up.
    make = xp.zeros if rows.ragged else xp.empty
    found = passes.BackwardArguments(
        tape, dy, y_at, d_final_h, d_final_rest,
        d_start_h=xp.zeros((B, P), dtype),
        d_start_rest=xp.zeros((weights.cell.N - 1, B, H), dtype),
        d_sums=make((T, B, weights.cell.S, H), dtype),
        dh_tape=make((T, B, P) if weights.w_hr is not None else (0, 0, 0), dtype),
        d_units=xp.zeros((B, weights.cell.Q, H), dtype),
    )  # fmt: skip

    def finish(onto: Array | None = None) -> Gradients:
        start = found.d_start_h, found.d_start_rest
        return gradients(tape, found.d_sums, found.dh_tape, found.d_units, *start, inputs, onto)

    return Backward(Job(found), 2 * _work(weights, rows), finish)


def finish(given: Sequence[Backward], onto: Sequence[Array | None]) -> list[Gradients]:
    """The gradients of several passes that have run, one after the other."""
    return [one.finish(to) for one, to in zip(given, onto, strict=True)]


def run(jobs: list[Job], work: float) -> None:
    """Run the passes of a layer's directions, on the caller's stream."""
    forward = [job.given for job in jobs if isinstance(job.given, passes.ForwardArguments)]
    backward = [job.given for job in jobs if isinstance(job.given, passes.BackwardArguments)]
    if forward:
        choice.run_forward(*forward)
    if backward:
        choice.run_backward(*backward)


def scratch_bytes(weights: Weights, T: int, B: int, share: int) -> int:
    """Bytes of GPU memory that a forward pass takes beside its results and tape.

    Most are the products of all x, which grow with T.
    """
    cell, H, P = weights.cell, weights.hidden_size, weights.state_size
    each_step = cell.G * H
    states = 2 * P + (cell.N - 1) * H
    return (T * B * each_step + B * (each_step + states + 2 * H)) * weights.dtype.itemsize
