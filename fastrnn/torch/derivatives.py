"""Derivatives of the operators: what fastrnn's kernels have not is computed by torch's own."""

from typing import Any

import torch
from torch.autograd import forward_ad

from fastrnn.torch.fallbacks import tell
from fastrnn.torch.function import own, second
from fastrnn.torch.operands import Operands, Tensors


def register(library: Any) -> None:
    """Register them, of operators that are defined."""
    library.impl("forward", _forward, "Autograd")
    of_record, of_backward = "fastrnn::record", "fastrnn::backward"
    torch.library.register_autograd(of_record, _gradients, setup_context=_save, lib=library)
    torch.library.register_autograd(of_backward, _second, setup_context=_save_second, lib=library)
    # A program that was exported has this operator under autocast, too.
    name, register_autocast = "fastrnn::forward", getattr(torch.library, "register_autocast", None)
    for device in ("cpu", "cuda"):
        if register_autocast and torch.amp.is_autocast_available(device):
            register_autocast(name, device, torch.float32, lib=library)


def _forward(*given: Any) -> tuple[Any, Tensors]:
    """Recorded if there may be a gradient."""
    operands = Operands(*given)
    given = given[0], operands.states, operands.masks, *given[3:]
    if forward_ad._current_level >= 0:
        tell("forward-mode")
        y, *final = own(operands.call_of_torch(), operands.tensors)
        return y, final
    if torch.is_grad_enabled() and any(one.requires_grad for one in operands.tensors):
        y, final, _ = torch.ops.fastrnn.record.default(*given)
        return y, final
    with torch._C._AutoDispatchBelowAutograd():
        y, final = torch.ops.fastrnn.forward.default(*given)
        return y, final


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    x, states, masks, parameters, batch_sizes, *ctx.how = inputs
    tape = output[2]
    ctx.counts = len(states), len(masks), len(parameters), len(tape)
    ctx.save_for_backward(batch_sizes, x, *states, *masks, *parameters, *tape)
    ctx.mark_non_differentiable(*tape)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dy: Any, d_final: Tensors, _: Any) -> tuple[Any, ...]:
    batch_sizes, x, *rest = ctx.saved_tensors
    states, masks, parameters, tape = _split(rest, ctx.counts)
    d_results = [dy, *d_final]
    dx, d_states, d_parameters = torch.ops.fastrnn.backward.default(
        [one for one in d_results if one is not None], [one is not None for one in d_results],
        tape, x, states, masks, parameters, batch_sizes, *ctx.how,
    )  # fmt: skip
    return dx, d_states, [None] * len(masks), d_parameters, *_NO_GRADIENT


#: Of batch_sizes, and of what is no tensor.
_NO_GRADIENT = (None,) * 4


def _save_second(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    d_results, ctx.there, tape, x, states, masks, parameters, batch_sizes, *ctx.how = inputs
    ctx.counts, ctx.tape = (len(d_results), len(states), len(masks), len(parameters)), len(tape)
    ctx.save_for_backward(batch_sizes, x, *d_results, *states, *masks, *parameters)
    ctx.set_materialize_grads(False)


def _second(ctx: Any, ddx: Any, dd_states: Tensors, dd_parameters: Tensors) -> tuple[Any, ...]:
    batch_sizes, x, *rest = ctx.saved_tensors
    d_results, states, masks, parameters = _split(rest, ctx.counts)
    operands = Operands(x, states, masks, parameters, batch_sizes, *ctx.how)
    given = [*operands.spread(d_results, ctx.there), *operands.tensors]
    d_gradients = [ddx, *dd_states, *[None] * len(masks), *dd_parameters]
    found = second(operands.call_of_torch(), given, d_gradients)
    many = len(ctx.there)
    dd_results = [one for one, there in zip(found[:many], ctx.there, strict=True) if there]
    dx, parts = found[many], _split(found[many + 1 :], ctx.counts[1:])
    return dd_results, None, [None] * ctx.tape, dx, *parts, *_NO_GRADIENT


def _split(tensors: Tensors, counts: tuple[int, ...]) -> list[Tensors]:
    """Tensors in parts of so many each."""
    parts, at = [], 0
    for count in counts:
        parts.append(tensors[at : at + count])
        at += count
    return parts
