"""A call of a layer, taken through its stack and directions by the kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.arrays import Array, Shape
from fastrnn_kernels.device import Device as Kernels
from fastrnn_kernels.gradients import Gradients as PassGradients
from fastrnn_kernels.rows import Rows
from fastrnn_kernels.tape import Tape as PassTape
from fastrnn_kernels.weights import Weights


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
    weights: tuple[Weights, ...]
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
    stack: Stack, call: Call, dropout: float, rng: np.random.Generator
) -> list[Array | None]:
    """The dropout masks in front of each layer of a stack; none in front of the first."""
    try:
        shape = (call.rows.T, call.rows.B, stack.directions * stack.state_size)
        above = range(1, stack.num_layers)
        return [None, *(_mask(call.kernels, shape, stack.dtype, dropout, rng) for _ in above)]
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


def run_forward(
    stack: Stack, call: Call, masks: Sequence[Array | None] | None = None, *, taping: bool
) -> tuple[Array, tuple[Array, ...], list[PassTape[Any]]]:
    """All layers and directions: y (T, B, D * P), final states, and what backward needs.

    masks: in front of each layer, None for no dropout.
    """
    try:
        kernels, weights = call.kernels, call.weights
        T, B, D, P = call.rows.T, call.rows.B, stack.directions, stack.state_size
        final = tuple(kernels.xp.empty_like(state) for state in call.states)
        tapes: list[PassTape[Any]] = []
        x = call.x
        for k in range(stack.num_layers):
            mask = None if masks is None else masks[k]
            if mask is not None:
                x = x * mask
            y = kernels.empty((T, B, D * P), stack.dtype)
            runs, ends = [], [_of_pass(kernels, final, k * D + d) for d in range(D)]
            for d in range(D):
                runs.append(
                    kernels.start_forward(
                        weights[k * D + d],
                        x,
                        *_of_pass(kernels, call.states, k * D + d),
                        *ends[d],
                        call.rows,
                        y,
                        d * P,
                        reverse=d == 1,
                        reset=call.reset,
                        taping=taping,
                        share=D,
                    )
                )
            kernels.run([run.job for run in runs], sum(run.work for run in runs))
            if len(final) > 2:  # else the passes have written to views of it
                for d, end in enumerate(ends):
                    _keep(final, k * D + d, *end)
            if taping:
                tapes += [run.tape for run in runs if run.tape is not None]
            x = y
        return x, final, tapes
    except MemoryError as error:
        raise _told(stack, call, error) from None


def run_backward(
    stack: Stack,
    tapes: Sequence[PassTape[Any]],
    masks: Sequence[Array | None] | None,
    call: Call,
    *,
    inputs: bool = True,
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
            runs = []
            for d in range(D):
                h, rest = _of_pass(kernels, call.states, k * D + d)
                runs.append(
                    kernels.start_backward(
                        tapes[k * D + d], dy, d * P, h, rest, share=D, inputs=inputs or k > 0
                    )
                )
            kernels.run([run.job for run in runs], sum(run.work for run in runs))
            dy, found = None, []
            for d, run in enumerate(runs):
                found.append(run.finish(dy))
                dy = found[d].x
                _keep(d_start, k * D + d, found[d].start_h, found[d].start_rest)
            gradients = found + gradients
            mask = None if masks is None else masks[k]
            if mask is not None:
                with np.errstate(all="ignore"):  # of what stands behind a row's end
                    dy *= mask
        return dy, d_start, gradients
    except MemoryError as error:
        raise _told(stack, call, error) from None
