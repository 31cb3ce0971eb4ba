"""The kernels as functions that torch's autograd and torch.func can differentiate."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from fastrnn.torch.call import Call
from fastrnn.torch.fallbacks import tell

_OWN = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}


def run(call: Call, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """y and the final states, with a tape only if a gradient may be asked for."""
    transformed = torch._C._are_functorch_transforms_active()
    wanted = torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
    if not wanted and not transformed:
        return call.forward(tensors, taping=False)
    results: tuple[Any, ...] = _Forward.apply(call, *tensors)
    return results[: 1 + len(call.packed.cell.states)]


def _mapped(function: Any, info: Any, dims: Sequence[Any], call: Call, *given: Any) -> Any:
    """Run under vmap, one after the other: the parameters may differ as well."""
    results = []
    for k in range(info.batch_size):
        tensors = [
            one if dim is None else one.select(dim, k)
            for one, dim in zip(given, dims[1:], strict=True)
        ]
        results.append(function.apply(replace(call, weights=()), *tensors))
    stacked = tuple(
        None if parts[0] is None else torch.stack(parts) for parts in zip(*results, strict=True)
    )
    return stacked, tuple(None if one is None else 0 for one in stacked)


class _Forward(torch.autograd.Function):  # type: ignore[misc]
    """(call, *tensors) -> y, final states, tape."""

    @staticmethod
    def forward(call: Call, *tensors: Any) -> tuple[Any, ...]:
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
    def backward(ctx: Any, *d_outputs: Any) -> tuple[Any, ...]:
        d_results, tensors = d_outputs[: ctx.results], ctx.saved_tensors
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            gradients = _Backward.apply(ctx.call, *d_results, *tensors)
        else:
            gradients = ctx.call.backward(d_results, tensors)
        return None, *gradients

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
        return _mapped(_Forward, info, in_dims, *args)


class _Backward(torch.autograd.Function):  # type: ignore[misc]
    """(call, *gradients of y and the final states, *tensors, *tape) -> gradients of tensors.

    Its own derivative is torch's.
    """

    @staticmethod
    def forward(call: Call, *given: Any) -> tuple[Any, ...]:
        results = 1 + len(call.packed.cell.states)
        return call.backward(given[:results], given[results:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        call, *given = inputs
        ctx.call, ctx.given = call, len(given)
        results = 1 + len(call.packed.cell.states)
        ctx.results = results
        x, states, masks, parameters, _ = call.split(given[results:])
        ctx.save_for_backward(*given[:results], x, *states, *masks, *parameters)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *d_gradients: Any) -> tuple[Any, ...]:
        tell("second derivative")
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            saved = [None if one is None else _apart(one, again) for one in ctx.saved_tensors]
            d_results, tensors = saved[: ctx.results], saved[ctx.results :]
            outputs = own(ctx.call, tensors)
            ends, d_ends = zip(
                *[(y, d) for y, d in zip(outputs, d_results, strict=True) if d is not None],
                strict=True,
            )
            gradients = torch.autograd.grad(
                ends, tensors, d_ends, create_graph=True, materialize_grads=True
            )
            firsts, seconds = zip(
                *[(g, d) for g, d in zip(gradients, d_gradients, strict=True) if d is not None],
                strict=True,
            )
            wanted = [one for one in saved if one is not None]
            second = iter(
                torch.autograd.grad(
                    firsts, wanted, seconds, create_graph=again, materialize_grads=True
                )
            )
        found = [None if one is None else next(second) for one in saved]
        return None, *found, *[None] * (ctx.given - len(found))

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
        return _mapped(_Backward, info, in_dims, *args)


def _apart(tensor: Any, again: bool) -> Any:
    """The tensor as an input of its own: one may have been computed from another.

    again: still one that gradients go through.
    """
    if again and tensor.requires_grad:
        return tensor.view_as(tensor)
    return tensor.detach().requires_grad_()


def own(call: Call, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """y and the final states by torch's own kernels, which can be differentiated twice."""
    x, states, masks, parameters, _ = call.split(tensors)
    layout, each = call.layout, call.packed.each * call.directions
    layer = getattr(torch._VF, _OWN[call.mode])
    many = call.num_layers * call.directions
    widths = (call.state_size, call.hidden_size)[: len(call.packed.cell.states)]
    states = [one[layout.into] for one in states] or [
        x.new_zeros(many, call.rows.B, width) for width in widths
    ]
    y, ends = x if call.batch_sizes is not None else x[layout.into], []
    if layout.batch_first:
        y = y.transpose(0, 1)
    sizes = () if call.batch_sizes is None else (call.batch_sizes,)
    with torch.backends.mkldnn.flags(enabled=False):  # whose backward has no derivative
        for k in range(call.num_layers):
            if k and masks:
                y = y * masks[k - 1]
            of_layer = slice(k * call.directions, (k + 1) * call.directions)
            starts = [one[of_layer] for one in states]
            y, *final = layer(
                y, *sizes, starts if len(starts) > 1 else starts[0],
                list(parameters[k * each : (k + 1) * each]),
                call.biased, 1, 0.0, False, call.directions == 2,
                *(() if sizes else (False,)),
            )  # fmt: skip
            ends.append(final)
    if layout.batch_first:
        y = y.transpose(0, 1)
    finals = [torch.cat(parts)[layout.out] for parts in zip(*ends, strict=True)]
    return y if sizes else y[layout.out], *finals
