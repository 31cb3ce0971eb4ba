"""Calls of little work without gradients: prepared once for a module and a shape.

What has to be asked before each call is asked here in as few words as possible; a call of which
anything is not as it was goes the way of all others (`call.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import forward_ad

from fastrnn.torch.devices import device_of
from fastrnn.torch.fallbacks import FLOATS, PLAIN
from fastrnn.torch.packed import Packed, packed_of
from fastrnn_kernels.cpu.arrays.compare import Copies
from fastrnn_kernels.cpu.sequence.small import SmallCall, is_small

#: Kinds of calls that are kept for a module, those that were seen once among them.
_MOST = 16
_TORCH = torch._C


@dataclass(frozen=True)
class Form:
    """Of a call whose arrays lie as kernels have them: sizes, and the shapes of results.

    y: None where nobody is given it.
    """

    T: int
    B: int
    directions: int
    y: tuple[int, ...] | None
    states: list[tuple[int, ...]]


class _Prepared:
    """A call that has been prepared."""

    def __init__(
        self, packed: Packed, parameters: Sequence[Any], form: Form, dtype: Any, compute: str
    ) -> None:
        device, _ = device_of(parameters[0])
        assert device is not None
        packs = packed.packs(device, parameters, compute=compute)
        weights, copies = packs.weights, packed.copies_of(packs)
        self.good = copies is not None and is_small(weights, form.T, form.B)
        if copies is None or not self.good:
            return
        self._copies: Copies = copies
        self._places = [*map(_place, parameters)]
        self._call = SmallCall(weights, form.T, form.B, form.directions)
        self._form, self._dtype = form, dtype

    def current(self, parameters: Sequence[Any]) -> bool:
        """Whether no parameter has changed."""
        return [*map(_place, parameters)] == self._places and self._copies.current()

    def run(self, x: Any, states: Sequence[Any]) -> Any:
        """y and the final states, or the latter; None while another thread is at it."""
        empty, dtype, call, form = torch.empty, self._dtype, self._call, self._form
        found = [empty(shape, dtype=dtype) for shape in form.states]
        final = [one.data_ptr() for one in found]
        if form.y is None:
            y = call.y
        else:
            shown = empty(form.y, dtype=dtype)
            y = shown.data_ptr()
            found.insert(0, shown)
        start = [one.data_ptr() for one in states] if states else call.zeros
        return found if call.run((x.data_ptr(), y, *start, *final)) else None


def _place(parameter: Any) -> tuple[Any, ...]:
    """What tells of a parameter, but for its values, that it is as it was."""
    if type(parameter) not in PLAIN or parameter.is_inference():
        return ()
    return parameter.data_ptr(), parameter._version, parameter.shape, parameter.stride()


def _plain(tensor: Any) -> bool:
    return (
        type(tensor) in PLAIN
        and tensor.is_cpu
        and tensor.is_contiguous()
        and not tensor.is_neg()  # whose memory has another sign
    )


def looked_at() -> bool:
    """Whether gradients are asked for, or something looks at operations and may change them."""
    return bool(
        torch.is_grad_enabled()
        or _TORCH._len_torch_dispatch_stack()
        or _TORCH._are_functorch_transforms_active()
        or _TORCH._get_tracing_state() is not None
        or forward_ad._current_level >= 0
    )


def small(module: Any, x: Any, states: Any, types: tuple[Any, ...] = (), compute: str = "") -> Any:
    """y and the final states, of a cell the latter; None for calls that are not prepared.

    A call is prepared when it comes for the second time. types: those that parameters may have, if
    they are other than that of x, which was widened then, and `looked_at` asked before; compute:
    the type that products are computed in, as `Packed.packs` takes it.
    """
    if (not types and looked_at()) or states is None or not _plain(x):
        return None
    dtype = x.dtype
    for state in states:
        if not _plain(state) or state.dtype is not dtype:
            return None
    packed = packed_of(module)
    key = (module._how(), x.shape, dtype, types, compute, *(one.shape for one in states))
    found = packed.small.get(key, packed)
    if found is False:
        return None
    try:
        parameters = [module._parameters[name] for name in packed.shapes]
    except KeyError:  # parametrised
        return None
    if found is packed:  # seen for the first time
        if len(packed.small) >= _MOST:
            packed.small.clear()
        packed.small[key] = None
        return None
    if found is None:
        form = module._form(x, states) if _fit(parameters, dtype, types or (dtype,)) else None
        found = form is not None and _Prepared(packed, parameters, form, dtype, compute)
        packed.small[key] = found if found and found.good else False
        if not packed.small[key]:
            return None
    if not found.current(parameters):
        packed.small.pop(key, None)
        return None
    return found.run(x, states)


def _fit(parameters: Sequence[Any], dtype: Any, types: tuple[Any, ...]) -> bool:
    """Whether all parameters are of these types, and can be read where they lie."""
    return dtype in FLOATS and all(
        _plain(one) and one.dtype in types and not one.is_inference() for one in parameters
    )
