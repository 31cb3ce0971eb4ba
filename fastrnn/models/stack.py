"""A call of a layer, taken through its stack and directions by the kernels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.arrays import Array, Shape
from fastrnn.models.regularised import Drawn
from fastrnn_kernels.cpu.device import (
    BackwardSegments,
    Checkpoints,
    forward_segments,
    new_checkpoints,
)
from fastrnn_kernels.device import Device as Kernels
from fastrnn_kernels.gradients import NO_CLIP, Clip
from fastrnn_kernels.gradients import Gradients as PassGradients
from fastrnn_kernels.rows import Rows
from fastrnn_kernels.tape import Tape as PassTape


@dataclass(frozen=True, slots=True)
class Stack:
    """What a pass has to know of the layers that it goes through.

    owner: how errors call whoever they belong to; state_size: P, the width of h.
    """

    owner: str
    num_layers: int
    directions: int
    state_size: int
    dtype: np.dtype[Any]


@dataclass(slots=True)
class Call:
    """The checked arguments of a pass, time first and with a batch axis.

    x (T, B, width): the input, or in the backward pass the gradient of y; states
    (num_layers * D, B, width) each, h first; reset (T, B) or None; host: whether the caller's
    arrays, and so the results, are NumPy's; kernels, weights: what runs it, with the weights of
    the stack in a forward pass.
    """

    kernels: Kernels
    weights: tuple[Any, ...]
    x: Array
    states: tuple[Array, ...]
    rows: Rows
    reset: Array | None
    batched: bool
    batch_first: bool
    host: bool

    def as_given(self, array: Array) -> Array:
        """Time first with a batch axis -> laid out as the user's input."""
        array = self.kernels.give(array, self.host)
        if not self.batched:
            return array[:, 0]
        return array.swapaxes(0, 1) if self.batch_first else array

    def joined(self, states: tuple[Array, ...]) -> Any:
        """The state as the user has it: an array, or a tuple of them."""
        given = tuple(self.kernels.give(state, self.host) for state in states)
        shaped = given if self.batched else tuple(state[:, 0] for state in given)
        return shaped[0] if len(shaped) == 1 else shaped


def time_first(array: Array, batched: bool, batch_first: bool) -> Array:
    """Laid out as the user's input -> time first with a batch axis."""
    if not batched:
        return array[:, None]
    return array.swapaxes(0, 1) if batch_first else array


def _of_pass(kernels: Kernels, states: tuple[Array, ...], index: int) -> tuple[Array, Array]:
    """h (B, P) and the other states (states but h, B, H) of one layer and direction.

    Of two states these are views; several beside h are copied into one array.
    """
    h, *rest = states
    if len(rest) == 1:
        return h[index], rest[0][index : index + 1]
    others = kernels.xp.empty((len(rest), *states[-1].shape[1:]), h.dtype)
    for k, state in enumerate(rest):
        others[k] = state[index]
    return h[index], others


def _keep(states: tuple[Array, ...], index: int, h: Array, rest: Array) -> None:
    states[0][index] = h
    for state, value in zip(states[1:], rest, strict=True):
        state[index] = value


def draw_masks(
    stack: Stack, call: Call, dropout: float, rng: np.random.Generator, drawn: Drawn | None = None
) -> list[Array | None]:
    """The masks in front of each layer of a stack, of dropout between them and of their inputs'."""
    try:
        T, B, D = call.rows.T, call.rows.B, stack.directions
        width = D * stack.state_size
        masks: list[Array | None] = [None] * stack.num_layers
        if dropout:
            shape = T, B, width
            for k in range(1, stack.num_layers):
                masks[k] = _mask(call.kernels, shape, stack.dtype, dropout, rng)
        for k in range(stack.num_layers if drawn is not None else 0):
            assert drawn is not None
            own = drawn.inputs(k * D, B, width if k else call.x.shape[2], stack.dtype)
            if own is not None:
                own, before = call.kernels.take(own), masks[k]
                masks[k] = own if before is None else before * own
        return masks
    except MemoryError as error:
        raise _told(stack, call, error) from None


def _mask(
    kernels: Kernels, shape: Shape, dtype: np.dtype[Any], dropout: float, rng: np.random.Generator
) -> Array:
    """A dropout mask, scaled so that the expectation stays: 0 or 1 / (1 - dropout)."""
    mask: Array
    if dropout == 1:
        mask = kernels.xp.zeros(shape, dtype)
        return mask
    drawn = rng.random(shape, "float32")
    mask = (drawn >= dropout).astype(dtype)
    mask /= 1 - dropout
    mask = kernels.take(mask)
    return mask


def _told(stack: Stack, call: Call, error: MemoryError) -> MemoryError:
    """The error, on the GPU with what memory there is."""
    room = call.kernels.room()
    if room is None:
        return error
    free, total = room
    return MemoryError(
        f"{stack.owner}, T={call.rows.T}, B={call.rows.B}: {error}; {free:,} of the GPU's "
        f"{total:,} bytes are free"
    )


def _run_together(kernels: Kernels, turns: Iterable[Sequence[Any]]) -> None:
    """Run the passes of all directions of a layer; with checkpoints, a segment a turn."""
    for runs in turns:
        kernels.run([run.job for run in runs], sum(run.work for run in runs))


def run_forward(
    stack: Stack,
    call: Call,
    masks: Sequence[Array | None] | None = None,
    *,
    taping: bool,
    every: int | None = None,
    drawn: Drawn | None = None,
) -> tuple[Array, tuple[Array, ...], list[PassTape[Any] | Checkpoints]]:
    """All layers and directions: y (T, B, D * P), final states, and what backward needs.

    masks: in front of each layer, None for no dropout. every: steps between checkpoints, on the
    CPU, or None for a tape of all steps. drawn: what is drawn beside these masks.
    """
    try:
        kernels, weights = call.kernels, call.weights
        T, B, D, P = call.rows.T, call.rows.B, stack.directions, stack.state_size
        final = tuple(kernels.xp.empty_like(state) for state in call.states)
        tapes: list[PassTape[Any] | Checkpoints] = []
        x = call.x
        for k in range(stack.num_layers):
            mask = None if masks is None else masks[k]
            if mask is not None:
                x = x * mask
            y = kernels.empty((T, B, D * P), stack.dtype)
            starts = [_of_pass(kernels, call.states, k * D + d) for d in range(D)]
            ends = [_of_pass(kernels, final, k * D + d) for d in range(D)]
            draws = [
                None if drawn is None else drawn.of_pass(k * D + d, B, P, stack.dtype)
                for d in range(D)
            ]
            if every is None:
                runs = [
                    kernels.start_forward(
                        weights[k * D + d],
                        x,
                        *starts[d],
                        *ends[d],
                        call.rows,
                        y,
                        d * P,
                        reverse=d == 1,
                        reset=call.reset,
                        taping=taping,
                        share=D,
                        draws=draws[d],
                    )
                    for d in range(D)
                ]
                _run_together(kernels, [runs])
                tapes += [run.tape for run in runs if run.tape is not None]
            else:
                kept = [
                    new_checkpoints(
                        weights[k * D + d], call.rows, x, d == 1, call.reset, every, draws=draws[d]
                    )
                    for d in range(D)
                ]
                parts = [
                    forward_segments(kept[d], starts[d], ends[d], y, d * P, D) for d in range(D)
                ]
                _run_together(kernels, zip(*parts, strict=True))
                tapes += kept
            if len(final) > 2:  # else the passes have written to views of it
                for d, end in enumerate(ends):
                    _keep(final, k * D + d, *end)
            x = y
        return x, final, tapes
    except MemoryError as error:
        raise _told(stack, call, error) from None


def run_backward(
    stack: Stack,
    tapes: Sequence[Any],
    masks: Sequence[Array | None] | None,
    call: Call,
    *,
    inputs: bool = True,
    clip: Clip = NO_CLIP,
) -> tuple[Array, tuple[Array, ...], list[PassGradients]]:
    """All layers and directions backwards: dx, d_start, and each pass's gradients.

    inputs: whether dx is wanted; else it is None. It has anything where a row has ended.
    """
    try:
        kernels = call.kernels
        D, P = stack.directions, stack.state_size
        d_start = tuple(kernels.xp.empty_like(state) for state in call.states)
        gradients: list[PassGradients] = []
        dy = kernels.take(call.x, "dy")
        for k in reversed(range(stack.num_layers)):
            ends = [_of_pass(kernels, call.states, k * D + d) for d in range(D)]
            here, through = tapes[k * D : k * D + D], inputs or k > 0
            if isinstance(here[0], Checkpoints):
                found = _segments_backward(kernels, here, dy, ends, through, clip)
            else:
                runs = [
                    kernels.start_backward(
                        tape, dy, d * P, *ends[d], share=D, inputs=through, clip=clip
                    )
                    for d, tape in enumerate(here)
                ]
                _run_together(kernels, [runs])
                found = []
                for run in runs:
                    found.append(run.finish(found[-1].x if found else None))
            dy = found[-1].x
            for d, of in enumerate(found):
                _keep(d_start, k * D + d, of.start_h, of.start_rest)
            gradients = found + gradients
            mask = None if masks is None else masks[k]
            if mask is not None:
                with np.errstate(all="ignore"):  # of what stands behind a row's end
                    dy *= mask
        return dy, d_start, gradients
    except MemoryError as error:
        raise _told(stack, call, error) from None


def _segments_backward(
    kernels: Kernels,
    kept: Sequence[Checkpoints],
    dy: Array,
    ends: Sequence[tuple[Array, Array]],
    inputs: bool,
    clip: Clip,
) -> list[PassGradients]:
    """The directions of a layer backwards, by their checkpoints; x is that of all in each."""
    D, P = len(kept), kept[0].weights.state_size
    dx = None
    if inputs:
        dx = kernels.empty(kept[0].x.shape, dy.dtype)
        if D > 1:  # both add to it: to zeros that leave even the sign of a zero
            dx.fill(-0.0)
    passes = [
        BackwardSegments(one, dy, d * P, ends[d], dx, D > 1, D, clip) for d, one in enumerate(kept)
    ]
    _run_together(kernels, zip(*passes, strict=True))
    return [one.finish() for one in passes]
