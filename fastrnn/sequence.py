"""A call of a layer, taken through its stack and directions by the kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastrnn.check import Array
from fastrnn_kernels.cpu import Gradients as PassGradients
from fastrnn_kernels.cpu import Rows
from fastrnn_kernels.cpu import Tape as Pass

if TYPE_CHECKING:
    from fastrnn.layer import Layer


@dataclass(slots=True)
class Call:
    """The checked arguments of a pass, time first and with a batch axis.

    x (T, B, width): the input, or in the backward pass the gradient of y; states
    (num_layers * D, B, width) each, h first; reset (T, B) or None; host: whether the caller's
    arrays, and so the results, are NumPy's.
    """

    x: Array
    states: tuple[Array, ...]
    rows: Rows
    reset: Array | None
    batched: bool
    batch_first: bool
    host: bool


def _of_pass(kernels: Any, states: tuple[Array, ...], index: int) -> tuple[Array, Array]:
    """h (B, P) and the other states (states but h, B, H) of one layer and direction.

    Of up to two states, as for all cells here, these are views.
    """
    h, *rest = states
    if len(rest) == 1:
        return h[index], rest[0][index : index + 1]
    others = kernels.xp.empty((len(rest), *h.shape[1:]), h.dtype)
    for k, state in enumerate(rest):
        others[k] = state[index]
    return h[index], others


def _keep(states: tuple[Array, ...], index: int, h: Array, rest: Array) -> None:
    states[0][index] = h
    for state, value in zip(states[1:], rest, strict=True):
        state[index] = value


def _mask(layer: "Layer[Any]", shape: tuple[int, ...], dropout: float, rng: Any) -> Array:
    """A dropout mask, scaled so that the expectation stays: 0 or 1 / (1 - dropout)."""
    mask: Array
    if dropout == 1:
        mask = layer._kernels.xp.zeros(shape, layer.dtype)
        return mask
    drawn = rng.random(shape, "float32")
    mask = (drawn >= dropout).astype(layer.dtype)
    mask /= 1 - dropout
    mask = layer._kernels.take(mask)
    return mask


def run_forward(
    layer: "Layer[Any]", call: Call, *, taping: bool, dropout: float, rng: Any
) -> tuple[Array, tuple[Array, ...], list[Pass], list[Array | None]]:
    """All layers and directions: y (T, B, D * P), final states, and what backward needs."""
    kernels, weights = layer._kernels, layer._version.weights
    T, B, D, P = call.rows.T, call.rows.B, layer.directions, layer.state_size
    final = tuple(kernels.xp.empty_like(state) for state in call.states)
    passes: list[Pass] = []
    masks: list[Array | None] = []
    x = call.x
    if dropout > 0 and layer.num_layers > 1 and rng is None:
        rng = layer._dropout_generator()
    for k in range(layer.num_layers):
        mask = None
        if k > 0 and dropout > 0:
            mask = _mask(layer, x.shape, dropout, rng)
            x = x * mask
        masks.append(mask)
        y = kernels.empty((T, B, D * P), layer.dtype)
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
            passes += [run.tape for run in runs]
        x = y
    return x, final, passes, masks


def run_backward(
    layer: "Layer[Any]", passes: Sequence[Pass], masks: Sequence[Array | None], call: Call
) -> tuple[Array, tuple[Array, ...], list[PassGradients]]:
    """All layers and directions backwards: dx, d_start, and each pass's gradients."""
    kernels = layer._kernels
    D, P = layer.directions, layer.state_size
    d_start = tuple(kernels.xp.empty_like(state) for state in call.states)
    gradients: list[PassGradients] = []
    dy = kernels.take(call.x)
    for k in reversed(range(layer.num_layers)):
        runs = []
        for d in range(D):
            h, rest = _of_pass(kernels, call.states, k * D + d)
            runs.append(kernels.start_backward(passes[k * D + d], dy, d * P, h, rest, share=D))
        kernels.run([run.job for run in runs], sum(run.work for run in runs))
        found = [run.finish() for run in runs]
        for d, one in enumerate(found):
            _keep(d_start, k * D + d, one.start_h, one.start_rest)
        gradients = found + gradients
        dy = found[0].x if D == 1 else found[0].x + found[1].x
        mask = masks[k]
        if mask is not None:
            dy *= mask
    return dy, d_start, gradients
