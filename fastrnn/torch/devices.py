"""Where tensors lie: the kernels that take them there, and arrays over the same memory."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, cast

import torch

from fastrnn.adapting import threads_of
from fastrnn.arrays import Array
from fastrnn.device import kernels_for
from fastrnn_kernels.device import Device as Kernels


@dataclass(frozen=True, eq=False)
class Device:
    """The kernels of a device, and how its arrays and tensors become each other, uncopied.

    on_current_stream: in its context, kernels run on torch's current stream; on the CPU, on the
    threads of torch's own OpenMP runtime, if it has one.
    """

    kernels: Kernels
    array: Callable[[Any], Array]
    tensor: Callable[[Array], Any]
    on_current_stream: Callable[[], AbstractContextManager[Any]]


def _numpy(tensor: Any) -> Array:
    array: Array = tensor.numpy(force=True)  # copies nothing that lies in the CPU's memory
    return array


@cache
def _cpu() -> Device:
    own_threads = threads_of(torch, "libtorch_cpu")
    return Device(kernels_for("cpu"), _numpy, torch.from_numpy, lambda: own_threads)


@cache
def _cuda(index: int) -> tuple[Device | None, str]:
    if index != _first_gpu(index):
        return None, f"fastrnn uses one GPU of a process, {_first_gpu(index)} here, not {index}"
    try:
        kernels = kernels_for("cuda")
    except RuntimeError as error:
        return None, str(error)
    cupy = import_module("cupy")

    def array(tensor: Any) -> Array:
        taken: Array = cupy.from_dlpack(tensor.detach())
        return taken

    def on_current_stream() -> AbstractContextManager[Any]:
        # The kernels' work is torch's next: so nothing waits, and no memory is used too early.
        stream: Any = cupy.cuda.ExternalStream(torch.cuda.current_stream(index).cuda_stream)
        return cast(AbstractContextManager[Any], stream)

    return Device(kernels, array, torch.from_dlpack, on_current_stream), ""


_gpus: list[int] = []


def _first_gpu(index: int) -> int:
    """The GPU that a tensor lay on when fastrnn was first given one."""
    _gpus.append(index)
    return _gpus[0]


def device_of(tensor: Any) -> tuple[Device | None, str]:
    """What runs on a tensor, or None and why nothing of fastrnn's does."""
    if tensor.is_cpu:
        return _cpu(), ""
    return _not_cpu(tensor.device)


def _not_cpu(device: Any) -> tuple[Device | None, str]:
    if device.type != "cuda":
        return None, f"fastrnn has no kernels for device {device.type!r}"
    if device.index != torch.cuda.current_device():
        return None, f"{device} is not the current GPU"
    return _cuda(device.index)


def missing_on(kind: str, index: int | None) -> str:
    """Why nothing of fastrnn's runs on a device, or nothing."""
    return "" if kind == "cpu" else _not_cpu(torch.device(kind, index))[1]
