"""A module's call in a graph of torch.compile or torch.export: one operator, and views around it.

What stands here is traced. So are the checks: they are those of a call outside of graphs, but for
what values say, which the operator looks at when it runs.
"""

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from fastrnn.torch.fallbacks import at_once, autocasts, castable, falls_back_in_graph, same_kind
from fastrnn.torch.operands import tapes
from fastrnn.torch.precision import low_of, types_of, widened


def layer(module: Any, given: Any, hx: Any) -> Any:
    """What a layer gives, or NotImplemented."""
    x, states = given, module._given(hx)
    packed = isinstance(given, PackedSequence)
    if packed:
        x, batch_sizes, order, original = given
    weights = [getattr(module, name) for name in module._flat_weights_names]
    if not _taken(weights, x, states) or x.dim() not in ((2,) if packed else (2, 3)):
        return NotImplemented
    one_row = x.dim() == 2 and not packed
    if one_row:
        x = x.unsqueeze(1)
        if any(one.dim() != 2 for one in states):
            return NotImplemented
        states = [one.unsqueeze(1) for one in states]
    elif module.batch_first and not packed:
        x = x.transpose(0, 1)
    x = x.contiguous()  # what is kept for the backward pass, as outside of graphs
    many, widths = module.num_layers * module._directions, module._widths
    if packed and not states:
        B = batch_sizes[0].item() if order is None else order.shape[0]
        states = [x.new_zeros(many, B, width) for width in widths]
    elif packed and order is not None:
        states = [one.index_select(1, order) for one in states]
    B = states[0].shape[1] if packed else x.shape[1]
    fitting = all(one.shape == (many, B, width) for one, width in zip(states, widths, strict=False))
    if not fitting or x.shape[-1] != module.input_size or x.shape[0] == 0:
        return NotImplemented
    low = low_of(x)
    y, final = torch.ops.fastrnn.forward(
        widened(x), [widened(one) for one in states], module._masks(x, x.shape[:-1]), weights,
        batch_sizes if packed else None, module._mode, module.num_layers, module.bidirectional,
        _tapes(), low is torch.bfloat16,
    )  # fmt: skip
    if low is not None:
        projected = module._state_size != module.hidden_size
        types = types_of(module._mode, not packed, projected, low, x, states)
        y, *final = (one.to(dtype) for one, dtype in zip((y, *final), types, strict=True))
    if packed:
        if original is not None:
            final = [one.index_select(1, original) for one in final]
        return PackedSequence(y, batch_sizes, order, original), as_hidden(final)
    if one_row:
        return y.squeeze(1), as_hidden([one.squeeze(1) for one in final])
    return y.transpose(0, 1) if module.batch_first else y, as_hidden(final)


def cell(module: Any, x: Any, hx: Any) -> Any:
    """What a cell gives, or NotImplemented."""
    states, weights = module._given(hx), module._weights()
    if not _taken(weights, x, states) or x.dim() not in (1, 2):
        return NotImplemented
    fitting = all(one.shape == (*x.shape[:-1], module.hidden_size) for one in states)
    if not fitting or x.shape[-1] != module.input_size:
        return NotImplemented
    into = (None,) if x.dim() == 2 else (None, None)
    low = low_of(x)
    _, final = torch.ops.fastrnn.forward(
        widened(x[into].contiguous()), [widened(one[into]) for one in states], [], weights, None,
        module._mode, 1, False, _tapes(), low is torch.bfloat16,
    )  # fmt: skip
    if low is not None:
        _, *types = types_of(module._mode, False, False, low, x, states)
        final = [one.to(dtype) for one, dtype in zip(final, types, strict=True)]
    return as_hidden([one[0] if x.dim() == 2 else one[0, 0] for one in final])


def _taken(weights: Any, x: Any, states: Any) -> bool:
    """Whether fastrnn's kernels take these tensors."""
    if states is None:
        return False
    every = (*weights, x, *states)
    if not all(isinstance(one, torch.Tensor) for one in every) or falls_back_in_graph(every):
        return False
    first = weights[0]
    return same_kind(first, every) or (autocasts(first) and castable(first, every))


@at_once
def _tapes() -> str:
    """Nothing in programs that are exported: those run on any processor."""
    return "" if is_exporting() else tapes()


#: torch has it since 2.7.
is_exporting = getattr(torch.compiler, "is_exporting", bool)


@at_once
def differentiated() -> bool:
    """Whether torch.func differentiates here, which it cannot do with operators of others."""
    mapping = torch._C._functorch.TransformType.Vmap
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return any(one.key() != mapping for one in stack)


@at_once
def breaks() -> bool:
    """Whether torch.compile breaks its graph at torch's own layers."""
    return not torch._dynamo.config.allow_rnn


def as_hidden(final: list[Any]) -> Any:
    """The states as torch gives them: a tensor, or a pair."""
    return tuple(final) if len(final) > 1 else final[0]
