"""Derivatives of `fastrnn::forward`: the other operators, and torch's own where there are none."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from fastrnn.torch.fallbacks import tell
from fastrnn.torch.function import own, second
from fastrnn.torch.operands import Operands, Tensors
from fastrnn.torch.precision import widened


def register(library: Any) -> None:
    """Register them, of operators that are defined."""
    library.impl("forward", _forward, "Autograd")
    # Those two stand in graphs that have their derivatives in them.
    library.impl("record", torch.library.fallthrough_kernel, "Autograd")
    library.impl("backward", torch.library.fallthrough_kernel, "Autograd")
    # A program that was exported has this operator under autocast, too.
    for device in ("CPU", "CUDA"):
        library.impl("forward", _autocast(f"Autocast{device}"), f"Autocast{device}")


def _autocast(key: str) -> Any:
    """Kernels are given what they take; parameters are widened where they are packed."""
    itself = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def forward(x: Any, states: Any, masks: Any, *rest: Any) -> tuple[Any, Tensors]:
        with torch._C._ExcludeDispatchKeyGuard(itself):
            y, final = torch.ops.fastrnn.forward.default(
                widened(x), [*map(widened, states or ())], [*map(widened, masks or ())], *rest
            )
        return y, final

    return forward


def _forward(*given: Any) -> tuple[Any, Tensors]:
    """Recorded if there may be a gradient."""
    x, states, masks, parameters, batch_sizes, *how = given
    states, masks = states or [], masks or []  # AOTInductor's packages have None
    tensors = x, *states, *masks, *parameters
    if forward_ad._current_level >= 0:
        tell("forward-mode")
        operands = Operands(*given)
        y, *final = own(operands.call_of_torch(), operands.tensors)
    elif torch.is_grad_enabled() and any(one.requires_grad for one in tensors):
        counts = 1, len(states), len(masks), len(parameters)
        y, *final = _Record.apply(counts, how, batch_sizes, *tensors)
    else:
        with torch._C._AutoDispatchBelowAutograd():
            y, final = torch.ops.fastrnn.forward.default(
                x, states, masks, parameters, batch_sizes, *how
            )
    return y, final


class _Record(torch.autograd.Function):  # type: ignore[misc]
    """(counts, how, batch_sizes, *tensors) -> y, final states.

    counts: how many of the tensors are x, states, masks and parameters; how: the operators' last
    arguments.
    """

    @staticmethod
    def forward(ctx: Any, counts: Any, how: Any, batch_sizes: Any, *tensors: Any) -> Any:
        (x,), *parts, _ = _split(tensors, counts)
        y, final, tape = torch.ops.fastrnn.record.default(x, *parts, batch_sizes, *how)
        ctx.counts, ctx.how = counts, how
        ctx.save_for_backward(batch_sizes, *tensors, *tape)
        ctx.set_materialize_grads(False)
        return y, *final

    @staticmethod
    def backward(ctx: Any, *d_results: Any) -> Any:
        batch_sizes, *saved = ctx.saved_tensors
        there = [one is not None for one in d_results]
        d_results = tuple(one for one in d_results if one is not None)
        run = _Backward.apply if torch.is_grad_enabled() else _gradients
        what = there, ctx.needs_input_grad[3]
        return None, None, None, *run(what, ctx.counts, ctx.how, batch_sizes, *d_results, *saved)


def _gradients(what: Any, counts: Any, how: Any, batch_sizes: Any, *tensors: Any) -> Any:
    """Of x, states, masks (None) and parameters.

    what: which d_results there are, and whether that of x is wanted; tensors: d_results, those,
    and the tape.
    """
    there, inputs = what
    d_results, (x,), *parts, tape = _split(tensors, (sum(there), *counts))
    given = d_results, there, inputs, tape, x, *parts, batch_sizes, *how
    dx, d_states, d_parameters = torch.ops.fastrnn.backward.default(*given)
    return dx if inputs else None, *d_states, *[None] * len(parts[1]), *d_parameters


class _Backward(torch.autograd.Function):  # type: ignore[misc]
    """`_gradients`, whose own derivative is torch's."""

    @staticmethod
    def forward(ctx: Any, what: Any, counts: Any, how: Any, sizes: Any, *tensors: Any) -> Any:
        there, _ = what
        ctx.there, ctx.counts, ctx.how, ctx.given = there, counts, how, len(tensors)
        ctx.save_for_backward(sizes, *tensors[: sum(there) + sum(counts)])  # but for the tape
        ctx.set_materialize_grads(False)
        return _gradients(what, counts, how, sizes, *tensors)

    @staticmethod
    def backward(ctx: Any, *d_gradients: Any) -> Any:
        batch_sizes, *saved = ctx.saved_tensors
        d_results, (x,), states, masks, parameters, _ = _split(saved, (sum(ctx.there), *ctx.counts))
        operands = Operands(x, states, masks, parameters, batch_sizes, *ctx.how)
        given = [*operands.spread(d_results, ctx.there), *operands.tensors]
        found = second(operands.call_of_torch(), given, d_gradients)
        places = [place for place, is_there in enumerate(ctx.there) if is_there]
        d_given = [*(found[place] for place in places), *found[len(ctx.there) :]]
        return *[None] * 4, *d_given, *[None] * (ctx.given - len(d_given))


def _split(tensors: Sequence[Any], counts: Sequence[int]) -> list[Tensors]:
    """Tensors in parts of so many each, and the rest."""
    parts, at = [], 0
    for count in counts:
        parts.append([*tensors[at : at + count]])
        at += count
    return [*parts, [*tensors[at:]]]
