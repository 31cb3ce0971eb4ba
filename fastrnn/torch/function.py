"""The kernels as functions that torch's autograd and torch.func can differentiate."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fastrnn.torch.call import TIME_FIRST, ModuleCall
from fastrnn.torch.fallbacks import tell
from fastrnn.torch.modes import own_of
from fastrnn.torch.outside import outside_of_graphs
from fastrnn.torch.prepared import prepare
from fastrnn_kernels.cpu.arrays.memory import LEAST
from fastrnn_kernels.gradients import NO_CLIP
from fastrnn_kernels.rows import Rows


def run(call: ModuleCall, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """y and the final states, with a tape only if a gradient may be asked for.

    Where there is one, x and y have been brought to time first out here.
    """
    transformed = torch._C._are_functorch_transforms_active()
    wanted = torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
    if not wanted and not transformed:
        prepare(call, tensors)
        return call.forward(tensors, taping=False)
    x, *rest = tensors
    batch_first = call.layout.batch_first
    if batch_first:
        # What is kept for the backward pass is a copy, as in torch: the user may write into x.
        swapped = x.transpose(0, 1)
        own = x.requires_grad or transformed or not x.is_cpu or swapped.is_contiguous()
        if own or x.nbytes < LEAST:
            x = swapped.contiguous()
        else:  # without a node, and into memory that is used again
            x = call.device.tensor(call.device.kernels.take(call.device.array(swapped)))
        call.layout = TIME_FIRST
    # Who computes a forward pass again, as checkpoints do, counts the tensors that it saves.
    hooked = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    whole = call.every is None and call.clip == NO_CLIP  # as what is prepared does it
    if whole and not transformed and not hooked:
        prepare(call, tensors)
    found: tuple[Any, ...] = (_Forward if transformed else _Plain).apply(call, x, *rest)
    y, *final = found[: 1 + len(call.packed.cell.states)]
    return y.transpose(0, 1) if batch_first else y, *final


def _mapped(function: Any, info: Any, dims: Sequence[Any], call: ModuleCall, *given: Any) -> Any:
    """Run under vmap, one after the other: the parameters may differ as well."""
    results = []
    for k in range(info.batch_size):
        tensors = [
            one if dim is None else one.select(dim, k)
            for one, dim in zip(given, dims[1:], strict=True)
        ]
        results.append(function.apply(replace(call, packs=None), *tensors))
    stacked = tuple(
        None if parts[0] is None else torch.stack(parts) for parts in zip(*results, strict=True)
    )
    return stacked, tuple(None if one is None else 0 for one in stacked)


class _Forward(torch.autograd.Function):  # type: ignore[misc]
    """(call, *tensors) -> y, final states, tape."""

    @staticmethod
    def forward(call: ModuleCall, *tensors: Any) -> tuple[Any, ...]:
        return call.forward(tensors, taping=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        call, *tensors = inputs
        ctx.call = call
        ctx.results = 1 + len(call.packed.cell.states)
        tape = output[ctx.results :]
        ctx.save_for_backward(*tensors, *tape)
        ctx.mark_non_differentiable(*tape)
        ctx.set_materialize_grads(False)

    @staticmethod
    @outside_of_graphs
    def backward(ctx: Any, *d_outputs: Any) -> tuple[Any, ...]:
        d_results, tensors = d_outputs[: ctx.results], ctx.saved_tensors
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            gradients = _Backward.apply(ctx.call, *d_results, *tensors)
        else:
            older = torch._C._functorch.is_legacy_batchedtensor
            if any(d is not None and older(d) for d in d_results):
                raise NotImplementedError(
                    "is_grads_batched=True maps in a way that fastrnn's kernels cannot be mapped "
                    "in: use torch.func.vmap over torch.func.vjp"
                )
            wanted = ctx.needs_input_grad
            starts = any(wanted[2 : 2 + ctx.call.states])
            gradients = ctx.call.backward(d_results, tensors, wanted[1], starts)
        return None, *gradients

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
        return _mapped(_Forward, info, in_dims, *args)


class _Plain(_Forward):
    """(call, *tensors) -> y, final states: torch's older form, quicker, but for transforms."""

    @staticmethod
    def forward(ctx: Any, call: ModuleCall, *tensors: Any) -> tuple[Any, ...]:  # type: ignore[override]
        output = call.forward(tensors, taping=True)
        ctx.call = call
        ctx.results = 1 + len(call.packed.cell.states)
        ctx.save_for_backward(*tensors, *output[ctx.results :])
        ctx.set_materialize_grads(False)
        return output[: ctx.results]

    setup_context = torch.autograd.Function.setup_context


class _Backward(torch.autograd.Function):  # type: ignore[misc]
    """(call, *gradients of y and the final states, *tensors, *tape) -> gradients of tensors.

    Its own derivative is torch's.
    """

    @staticmethod
    def forward(call: ModuleCall, *given: Any) -> tuple[Any, ...]:
        results = 1 + len(call.packed.cell.states)
        return call.backward(given[:results], given[results:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        call, *given = inputs
        ctx.call, ctx.given = call, len(given)
        results = 1 + len(call.packed.cell.states)
        x, states, masks, parameters, _ = call.split(given[results:])
        ctx.save_for_backward(*given[:results], x, *states, *masks, *parameters)
        ctx.set_materialize_grads(False)

    @staticmethod
    @outside_of_graphs
    def backward(ctx: Any, *d_gradients: Any) -> tuple[Any, ...]:
        d_given = second(ctx.call, ctx.saved_tensors, d_gradients)
        return None, *d_given, *[None] * (ctx.given - len(d_given))

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
        return _mapped(_Backward, info, in_dims, *args)


def second(call: ModuleCall, given: Sequence[Any], d_gradients: Sequence[Any]) -> list[Any]:
    """The derivative of a backward pass, by torch's own kernels.

    given: gradients of the results, then x, states, masks, parameters; d_gradients: what the
    gradients of these last got. Returns gradients of all that is given.
    """
    if call.clip != NO_CLIP:
        raise RuntimeError(
            "gradients were clipped between steps (clip_value, clip_norm): they have no derivative"
        )
    if call.cell is not None or (call.drawn is not None and call.drawn.rates.recurrent):
        raise NotImplementedError(
            "second derivatives are computed by torch's own kernels, which have no zoneout and no "
            "dropout inside of their loop"
        )
    tell("second derivative")
    results = 1 + len(call.packed.cell.states)
    there = [one for one in given if one is not None]

    def gradients(*there: Any) -> list[Any]:
        """What the backward pass computes, of what is not None."""
        filled = iter(there)
        d_results = [None if one is None else next(filled) for one in given[:results]]
        found, pull = torch.func.vjp(lambda *tensors: own(call, tensors), *filled)
        return list(pull(_filled(d_results, found)))

    found, pull = torch.func.vjp(gradients, *there)
    d_there = iter(pull(list(_filled(d_gradients, found))))
    return [None if one is None else next(d_there) for one in given]


def _filled(gradients: Sequence[Any], of: Sequence[Any]) -> tuple[Any, ...]:
    """Zeros where there is no gradient."""
    pairs = zip(gradients, of, strict=True)
    return tuple(torch.zeros_like(value) if one is None else one for one, value in pairs)


@contextmanager
def _differentiable(kind: str) -> Iterator[None]:
    """Without oneDNN, whose backward pass has no derivative, and in the types of what is given."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with torch.autocast(kind, enabled=False):
            yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


def own(call: ModuleCall, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """y and the final states by torch's own kernels, which can be differentiated twice."""
    if call.batch_sizes is None:
        return _own_padded(call, tensors)
    # Row by row: torch.func takes no packed data through torch's kernels.
    x, states, masks, parameters, _ = call.split(tensors)
    results, places = [], []
    for b, length in enumerate(call.rows.lengths):
        at = torch.from_numpy(np.flatnonzero(call.rows.running % call.rows.B == b)).to(x.device)
        places.append(at)
        row = [x[at, None], *(one[:, b : b + 1] for one in states), *(m[at, None] for m in masks)]
        of_row = replace(call, batch_sizes=None, rows=Rows.whole(int(length), 1))
        results.append(_own_padded(of_row, [*row, *parameters]))
    ys, *finals = zip(*results, strict=True)
    packed = torch.cat([y[:, 0] for y in ys])[torch.argsort(torch.cat(places))]
    return packed, *(torch.cat(parts, 1) for parts in finals)


def _own_padded(call: ModuleCall, tensors: Sequence[Any]) -> tuple[Any, ...]:
    x, states, masks, parameters, _ = call.split(tensors)
    layout, each = call.layout, call.packed.each * call.directions
    layer, many = own_of(call.mode), call.num_layers * call.directions
    y, ends = x[layout.into], []
    states = [one[layout.into] for one in states] or [
        x.new_zeros(many, y.shape[1], width) for width in call.widths
    ]
    together = 1 if masks else call.num_layers
    parameters = [one.to(x.dtype) for one in parameters]
    with _differentiable(x.device.type):
        for k in range(0, call.num_layers, together):
            if k:
                y = y * masks[k - 1]
            of_layers = slice(k * call.directions, (k + together) * call.directions)
            starts = [one[of_layers] for one in states]
            hx = starts if len(starts) > 1 else starts[0]
            weights = parameters[k * each : (k + together) * each]
            both = call.directions == 2
            y, *final = layer(y, hx, weights, call.biased, together, 0.0, False, both, False)
            ends.append(final)
    return y[layout.out], *(torch.cat(parts)[layout.out] for parts in zip(*ends, strict=True))
