"""Autocast, and modules of bfloat16 and float16: what kernels are given, and what comes out.

Kernels take float32 and float64. Where torch computes in less, the input, the states and the masks
are widened to float32, the parameters when they are packed (`packed.py`), and results are narrowed
to the types that torch gives: so sums, states and tapes are of float32 between them, and what is
rounded is rounded once. Gradients come in the types of what they are of.
"""

from collections.abc import Sequence
from typing import Any

import torch

from fastrnn.torch import function
from fastrnn.torch import small as prepared
from fastrnn.torch.call import CELL, UNBATCHED_CELL, ModuleCall
from fastrnn.torch.fallbacks import LOW, PLAIN, at_once, autocasts, castable, same_kind
from fastrnn.torch.modes import cell_of
from fastrnn.torch.packed import fastest
from fastrnn_kernels.cpu.threads.pool import MIN_WORK

Types = tuple[Any, ...]


def run(call: ModuleCall, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """y and the final states, of the types that torch gives, with a tape if it may be asked for."""
    x = tensors[0]
    low = low_of(x)
    if low is None:
        return function.run(call, tensors)
    count = 1 + call.states
    padded = call.batch_sizes is None and call.layout not in (CELL, UNBATCHED_CELL)
    projected = call.state_size != call.hidden_size
    types = types_of(call.mode, padded, projected, low, x, tensors[1:count])
    call.bfloat16 = low is torch.bfloat16
    count += call.masks
    found = function.run(call, [*map(widened, tensors[:count]), *tensors[count:]])
    return tuple(_narrowed(found, types))


def small(module: Any, x: Any, states: Any) -> Any:
    """What `small.small` gives, of the types that torch gives."""
    if states is None or type(x) not in PLAIN:
        return None
    low = low_of(x)
    if low is None:
        return prepared.small(module, x, states)
    # Of more work than this no call is small: its input is not widened here in vain.
    if not x.is_cpu or x.numel() * module.hidden_size >= MIN_WORK or prepared.looked_at():
        return None
    every, autocast = (x, *states), autocasts(x)
    if not (castable(x, every) if autocast else same_kind(x, states)):
        return None
    of_parameters = (torch.float32, *LOW) if autocast else (low,)
    wide, *starts = [widened(one) for one in every]
    compute = fastest(low is torch.bfloat16)
    found = prepared.small(module, wide, starts, of_parameters, compute)
    if found is None:
        return None
    layer = isinstance(module, torch.nn.RNNBase)
    projected = layer and module.proj_size > 0
    types = types_of(module._mode, layer, projected, low, x, states)
    return _narrowed(found, types if layer else types[1:])


def _narrowed(found: Sequence[Any], types: Types) -> list[Any]:
    return [one.to(dtype) for one, dtype in zip(found, types, strict=True)]


def widened(tensor: Any) -> Any:
    """As kernels take it."""
    return tensor.to(torch.float32) if tensor.dtype in LOW else tensor


def low_of(x: Any) -> Any:
    """The type that torch would compute the products of a call on x in; None if that is of x."""
    dtype = x.dtype
    if autocasts(x) and dtype is not torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return dtype if dtype in LOW else None


def types_of(
    mode: str, padded: bool, projected: bool, low: Any, x: Any, states: Sequence[Any]
) -> Types:
    """Of y and the final states, as torch's own module gives them.

    mode: torch's name of the cell; padded: whether it is a layer's, and x no PackedSequence's;
    low: `low_of` x; states: none for zeros, which torch makes of the type of x. Packed rows that
    are all of one length have the types of others, though torch 2.13 has oneDNN take them as
    padded ones: types are not to depend on values, which graphs do not know.
    """
    results = 1 + len(cell_of(mode).states)
    # torch's operations, one by one: products come out in the low type, and what is computed
    # element by element in the wider type of its operands, the states among them.
    wide = torch.promote_types(low, (states[-1] if states else x).dtype)
    if mode == "LSTM":
        if projected:
            return low, low, wide
        if padded and x.numel() and by_onednn(x.dtype, torch.is_grad_enabled()):
            return (low,) * results
    return (low if mode in ("RNN_TANH", "RNN_RELU") else wide,) * results


@at_once
def by_onednn(dtype: Any, gradients: bool) -> bool:
    """Whether torch has oneDNN compute an LSTM, on an input of this type: as one operation.

    In float32 it tries to on any CPU; where oneDNN has no bfloat16, that ends in an error of its.
    """
    if not (torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()):
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32 or (
        not gradients and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    )
