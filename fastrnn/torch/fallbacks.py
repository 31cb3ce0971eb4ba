"""When torch's own kernels run in the place of fastrnn's: the whole list, each with its reason."""

import os
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, TypeVar

import torch
from torch.autograd import forward_ad

from fastrnn.adapting import level_of_user
from fastrnn.torch.devices import device_of, missing_on

#: Reasons by name. What is not on this list runs on fastrnn's kernels, or raises torch's errors.
FALLBACKS = {
    "dtype": "fastrnn takes float32, float64 and, on the CPU, bfloat16 and float16, not {}",
    "autocast": "on a GPU under autocast torch chooses the float type of each operation",
    "device": "{}",
    "traced": "a trace is made of torch's own operations",
    "subclass": "{} is a tensor class of its own, and may change what operations do",
    "mode": "a dispatch mode that looks at torch's own operations is active",
    "forward-mode": "fastrnn's kernels have derivatives in reverse mode alone",
    "second derivative": "fastrnn's kernels have first derivatives alone",
}

Made = TypeVar("Made", bound=Callable[..., Any])

PLAIN = (torch.Tensor, torch.nn.Parameter)
#: What kernels take, and what is widened for them on the CPU (`precision.py`).
FLOATS = (torch.float32, torch.float64)
LOW = (torch.bfloat16, torch.float16)
_told: set[str] = set()
#: Folders of code that stands between a user's line and a warning.
_BETWEEN = tuple(os.path.dirname(file) + os.sep for file in (__file__, torch.__file__))


def at_once(function: Made) -> Made:
    """A function of constants that is called, not traced, where torch.compile traces its call."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@at_once
def tell(name: str, detail: str = "") -> None:
    """Warn, once in a process for each reason, that torch's own kernels run."""
    why = FALLBACKS[name].format(detail)
    if why not in _told:
        _told.add(why)
        warnings.warn(f"torch's own kernels run: {why}", UserWarning, level_of_user(_between))


def _between(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_BETWEEN)


def falls_back(tensors: Sequence[Any]) -> bool:
    """Whether a call on these tensors, alike, is for torch's own kernels; warns if so."""
    found = _reason(tensors)
    if found is None:
        return False
    tell(*found)
    return True


def falls_back_in_graph(tensors: Sequence[Any]) -> bool:
    """The same of a call that is traced."""
    found = _reason_in_graph(tensors)
    if found is None:
        return False
    tell(*found)
    return True


def _reason_in_graph(tensors: Sequence[Any]) -> tuple[str, str] | None:
    first = tensors[0]
    for tensor in tensors:
        kind = type(tensor)
        if kind not in PLAIN and not kind.__module__.startswith("torch._subclasses"):
            return "subclass", kind.__name__
    on_cpu = first.device.type == "cpu"
    if not _takes(first.dtype, on_cpu):
        return "dtype", str(first.dtype)
    if not on_cpu and autocasts(first):
        return "autocast", ""
    missing = _missing_on(first.device.type, first.device.index)
    if missing:
        return "device", missing
    return ("forward-mode", "") if forward_ad._current_level >= 0 else None


def _takes(dtype: Any, on_cpu: bool) -> bool:
    """Whether parameters may be of a type."""
    return dtype in FLOATS or (on_cpu and dtype in LOW)


def autocasts(tensor: Any) -> bool:
    """Whether torch chooses the float types of operations on a tensor."""
    if not torch._C._is_any_autocast_enabled():
        return False
    enabled: bool = torch.is_autocast_enabled(tensor.device.type)
    return enabled


def _reason(tensors: Sequence[Any]) -> tuple[str, str] | None:
    first = tensors[0]
    for tensor in tensors:
        if type(tensor) not in PLAIN:
            return "subclass", type(tensor).__name__
    if not _takes(first.dtype, first.is_cpu):
        return "dtype", str(first.dtype)
    if not first.is_cpu and autocasts(first):
        return "autocast", ""
    if torch.jit.is_tracing():
        return "traced", ""
    if torch._C._len_torch_dispatch_stack():
        return "mode", ""
    if forward_ad._current_level >= 0:
        return "forward-mode", ""
    missing = device_of(first)[1]
    return ("device", missing) if missing else None


def same_kind(first: Any, tensors: Sequence[Any]) -> bool:
    """Whether all are tensors like the first: of its float type, on its device, strided."""
    dtype, strided, on_cpu = first.dtype, torch.strided, first.is_cpu
    device = None if on_cpu else first.device  # to ask for it takes longer
    for one in tensors:
        if (
            not isinstance(one, torch.Tensor)
            or one.dtype is not dtype
            or one.layout is not strided
            or not (one.is_cpu if on_cpu else one.device == device)
        ):
            return False
    return True


def castable(first: Any, tensors: Sequence[Any]) -> bool:
    """Whether all are tensors that autocast takes beside the first: on its device, strided.

    float64 is not for it: beside another type torch raises.
    """
    return all(
        isinstance(one, torch.Tensor)
        and (one.dtype is torch.float32 or one.dtype in LOW)
        and one.device == first.device
        and one.layout is torch.strided
        for one in tensors
    )


_missing_on = at_once(missing_on)
