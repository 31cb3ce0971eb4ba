"""A call of a layer, or of several models at once, taken through stacks by the kernels."""

from collections.abc import Iterable, Iterator, Sequence
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
from fastrnn_kernels.draws import Draws
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
        """Time first with a batch axis -> laid out as the user's input; an axis of models stays."""
        array = self.kernels.give(array, self.host)
        if not self.batched:
            return array[..., 0, :]
        return array.swapaxes(-3, -2) if self.batch_first else array

    def joined(self, states: tuple[Array, ...]) -> Any:
        """The state as the user has it: an array, or a tuple of them."""
        given = tuple(self.kernels.give(state, self.host) for state in states)
        shaped = given if self.batched else tuple(state[..., 0, :] for state in given)
        return shaped[0] if len(shaped) == 1 else shaped


def time_first(array: Array, batched: bool, batch_first: bool) -> Array:
    """Laid out as the user's input -> time first with a batch axis."""
    if not batched:
        return array[:, None]
    return array.swapaxes(0, 1) if batch_first else array


#: Models whose passes run together on the CPU: more would gain nothing, and take memory.
_TOGETHER = 64


def _of_pass(kernels: Kernels, states: Sequence[Array], index: int) -> tuple[Array, Array]:
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


def _keep(states: Sequence[Array], index: int, h: Array, rest: Array) -> None:
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
    """Run passes of a layer; with checkpoints, a segment a turn."""
    for runs in turns:
        kernels.run([run.job for run in runs], sum(run.work for run in runs))


def _groups(kernels: Kernels, M: int, D: int) -> Iterator[list[tuple[int, int]]]:
    """The passes of a layer that run together: of each its model and its direction."""
    each = _TOGETHER if kernels.ON_HOST else 1
    for first in range(0, M, each):
        yield [(m, d) for m in range(first, min(M, first + each)) for d in range(D)]


def _draws(drawn: Drawn | None, number: int, B: int, P: int, stack: Stack) -> Draws | None:
    """What the kernels draw, or are given, in a pass."""
    return None if drawn is None else drawn.of_pass(number, B, P, stack.dtype)


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
    ys, final, (tapes,) = run_forwards(
        stack, [call], [masks], taping=taping, every=every, drawn=[drawn]
    )
    return ys[0], tuple(state[0] for state in final), tapes


def run_forwards(
    stack: Stack,
    calls: Sequence[Call],
    masks: Sequence[Sequence[Array | None] | None],
    *,
    taping: bool,
    every: int | None = None,
    drawn: Sequence[Drawn | None] | None = None,
) -> tuple[Array, tuple[Array, ...], list[list[PassTape[Any] | Checkpoints]]]:
    """The same of M models' calls at once, of one shape: y (M, T, B, D * P), final states, tapes.

    Of states as of y, models are the first axis; tapes are those of each model.
    """
    first = calls[0]
    drawn = drawn or [None] * len(calls)
    kernels = first.kernels
    try:
        M, T, B, D, P = len(calls), first.rows.T, first.rows.B, stack.directions, stack.state_size
        final = tuple(kernels.xp.empty((M, *state.shape), state.dtype) for state in first.states)
        ends = [tuple(state[m] for state in final) for m in range(M)]
        tapes: list[list[PassTape[Any] | Checkpoints]] = [[] for _ in calls]
        xs = [call.x for call in calls]
        for k in range(stack.num_layers):
            for m, of in enumerate(masks):
                mask = None if of is None else of[k]
                if mask is not None:
                    xs[m] = xs[m] * mask
            y = kernels.empty((M, T, B, D * P), stack.dtype)
            for group in _groups(kernels, M, D):
                begin = [_of_pass(kernels, calls[m].states, k * D + d) for m, d in group]
                end = [_of_pass(kernels, ends[m], k * D + d) for m, d in group]
                draws = [_draws(drawn[m], k * D + d, B, P, stack) for m, d in group]
                if every is None:
                    runs = [
                        kernels.start_forward(
                            calls[m].weights[k * D + d],
                            xs[m],
                            *begin[n],
                            *end[n],
                            calls[m].rows,
                            y[m],
                            d * P,
                            reverse=d == 1,
                            reset=calls[m].reset,
                            taping=taping,
                            share=len(group),
                            draws=draws[n],
                        )
                        for n, (m, d) in enumerate(group)
                    ]
                    _run_together(kernels, [runs])
                    kept: list[Any] = [run.tape for run in runs]
                else:
                    kept = [
                        new_checkpoints(
                            calls[m].weights[k * D + d], calls[m].rows, xs[m], d == 1,
                            calls[m].reset, every, draws=draws[n],
                        )
                        for n, (m, d) in enumerate(group)
                    ]  # fmt: skip
                    parts = [
                        forward_segments(kept[n], begin[n], end[n], y[m], d * P, len(group))
                        for n, (m, d) in enumerate(group)
                    ]
                    _run_together(kernels, zip(*parts, strict=True))
                for n, (m, d) in enumerate(group):
                    if kept[n] is not None:
                        tapes[m].append(kept[n])
                    if len(final) > 2:  # else the passes have written to views of it
                        _keep(ends[m], k * D + d, *end[n])
            xs = list(y)
        return y, final, tapes
    except MemoryError as error:
        raise _told(stack, first, error) from None


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
    how: Any = {"inputs": inputs, "clip": clip}
    (dx,), d_start, (gradients,) = run_backwards(stack, [tapes], [masks], [call], **how)
    return dx, tuple(state[0] for state in d_start), gradients


def run_backwards(
    stack: Stack,
    tapes: Sequence[Sequence[Any]],
    masks: Sequence[Sequence[Array | None] | None],
    calls: Sequence[Call],
    *,
    inputs: bool = True,
    clip: Clip = NO_CLIP,
) -> tuple[list[Array], tuple[Array, ...], list[list[PassGradients]]]:
    """The same of M models at once: dx of each, d_start with an axis of models first, gradients."""
    first = calls[0]
    try:
        kernels = first.kernels
        M, D, P = len(calls), stack.directions, stack.state_size
        d_start = tuple(kernels.xp.empty((M, *state.shape), state.dtype) for state in first.states)
        starts = [tuple(state[m] for state in d_start) for m in range(M)]
        gradients: list[list[PassGradients]] = [[] for _ in calls]
        dys = [kernels.take(call.x, "dy") for call in calls]
        for k in reversed(range(stack.num_layers)):
            through = inputs or k > 0
            for group in _groups(kernels, M, D):
                here = [tapes[m][k * D + d] for m, d in group]
                ends = [_of_pass(kernels, calls[m].states, k * D + d) for m, d in group]
                into = [dys[m] for m, _ in group]
                found = _layer_backward(kernels, here, into, ends, through, clip, D, P)
                for at in range(0, len(group), D):
                    m, of_model = group[at][0], found[at : at + D]
                    dys[m] = of_model[-1].x
                    for d, of in enumerate(of_model):
                        _keep(starts[m], k * D + d, of.start_h, of.start_rest)
                    gradients[m] = of_model + gradients[m]
            for m, some in enumerate(masks):
                mask = None if some is None else some[k]
                if mask is not None:
                    with np.errstate(all="ignore"):  # of what stands behind a row's end
                        dys[m] *= mask
        return dys, d_start, gradients
    except MemoryError as error:
        raise _told(stack, first, error) from None


def _layer_backward(
    kernels: Kernels,
    tapes: Sequence[Any],
    dys: Sequence[Array],
    ends: Sequence[tuple[Array, Array]],
    inputs: bool,
    clip: Clip,
    D: int,
    P: int,
) -> list[PassGradients]:
    """The passes of a layer backwards, D of a model; x of the last of them is that of all."""
    if isinstance(tapes[0], Checkpoints):
        return _segments_backward(kernels, tapes, dys, ends, inputs, clip, D)
    runs = [
        kernels.start_backward(
            tape, dys[n], n % D * P, *ends[n], share=len(tapes), inputs=inputs, clip=clip
        )
        for n, tape in enumerate(tapes)
    ]
    _run_together(kernels, [runs])
    found: list[PassGradients] = []
    onto: list[Array | None] = [None] * (len(runs) // D)
    by_direction = []
    for d in range(D):
        of_all = kernels.finish(runs[d::D], onto)
        by_direction.append(of_all)
        onto = [of.x for of in of_all]
    for of_model in zip(*by_direction, strict=True):
        found += of_model
    return found


def _segments_backward(
    kernels: Kernels,
    kept: Sequence[Checkpoints],
    dys: Sequence[Array],
    ends: Sequence[tuple[Array, Array]],
    inputs: bool,
    clip: Clip,
    D: int,
) -> list[PassGradients]:
    """The passes of a layer backwards, by their checkpoints; x in each is that of its model."""
    P = kept[0].weights.state_size
    passes = []
    dx = None
    for n, one in enumerate(kept):
        d = n % D
        if inputs and d == 0:
            dx = kernels.empty(one.x.shape, dys[n].dtype)
            if D > 1:  # both add to it: to zeros that leave even the sign of a zero
                dx.fill(-0.0)
        passes.append(BackwardSegments(one, dys[n], d * P, ends[n], dx, D > 1, len(kept), clip))
    _run_together(kernels, zip(*passes, strict=True))
    return [one.finish() for one in passes]
