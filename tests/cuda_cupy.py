"""Stands in for CuPy: arrays that have an address, and do not mix with NumPy's.

As with CuPy, NumPy's functions given such arrays answer with such arrays, and an array of NumPy's
among them, or assigned to one, is an error.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


def _plain(value: Any) -> Any:
    """What NumPy computes with, of what CuPy would."""
    if isinstance(value, Array):
        return value.held
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("an array of NumPy's among those of CuPy's")
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value


def _wrapped(value: Any) -> Any:
    return Array(value) if isinstance(value, np.ndarray | np.generic) else value


class _Place:
    """The memory of an array, from its first value on."""

    def __init__(self, ptr: int) -> None:
        self.ptr = ptr

    def copy_from_device_async(self, other: "_Place", size: int) -> None:
        ctypes.memmove(self.ptr, other.ptr, size)


class Array(np.lib.mixins.NDArrayOperatorsMixin):
    """An array on a GPU that is not there."""

    device = SimpleNamespace(id=0)
    __cuda_array_interface__ = None  # that there is one says where it is

    def __init__(self, held: Any) -> None:
        self.held = np.asarray(held)
        self.data = _Place(self.held.ctypes.data if self.held.size else 0)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        out = options.pop("out", None)
        if out is not None:
            options["out"] = tuple(map(_plain, out))
        result = getattr(ufunc, method)(*map(_plain, inputs), **options)
        return _wrapped(result) if out is None else out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _wrapped(function(*map(_plain, args), **kwargs))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a copy to the host that was not asked for")

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "size", "ndim", "nbytes", "itemsize", "flags", "strides"):
            return getattr(self.held, name)
        if name == "T":
            return Array(self.held.T)
        if name in ("reshape", "swapaxes", "copy", "astype", "sum"):
            return lambda *args, **kwargs: _wrapped(getattr(self.held, name)(*args, **kwargs))
        raise AttributeError(name)

    def __len__(self) -> int:
        return len(self.held)

    def __iter__(self) -> Iterator["Array"]:
        return (Array(one) for one in self.held)

    def __getitem__(self, place: Any) -> "Array":
        return Array(self.held[_plain(place)])

    def __setitem__(self, place: Any, value: Any) -> None:
        self.held[_plain(place)] = _plain(value)

    def set(self, value: Any) -> None:
        """From an array of NumPy's."""
        assert isinstance(value, np.ndarray)
        assert (value.shape, value.dtype) == (self.shape, self.dtype)
        assert value.flags.c_contiguous
        self.held[...] = value

    def get(self, out: Any = None) -> Any:
        """As an array of NumPy's."""
        if out is None:
            return self.held.copy()
        assert out.flags.c_contiguous
        out[...] = self.held
        return out


def _made(name: str) -> Any:
    def make(*args: Any, **kwargs: Any) -> Array:
        return Array(getattr(np, name)(*map(_plain, args), **kwargs))

    return make


def _moved(name: str) -> Any:
    """A function that takes arrays of either kind."""

    def move(value: Any, *args: Any, **kwargs: Any) -> Array:
        held = value.held if isinstance(value, Array) else value
        if isinstance(value, Array) and name == "asarray":
            return value
        return Array(getattr(np, name)(held, *args, **kwargs))

    return move


class _Event:
    """Of a stream; `told` of the module has what was recorded and waited for."""

    def __init__(self, module: Any) -> None:
        self._module, self.done = module, False

    def record(self) -> None:
        self._stream = self._module.now.ptr
        self._module.told.append(("record", self._stream))

    def synchronize(self) -> None:
        self._module.told.append(("wait", self._stream))


@contextmanager
def cupy(stream: int = 0) -> Iterator[Any]:
    """Put it in CuPy's place for modules that are first imported meanwhile; forget these after.

    `stream`: the address of the current stream; it is `module.now.ptr`.
    """
    module: Any = ModuleType("cupy")
    for name in (
        "empty",
        "zeros",
        "full",
        "empty_like",
        "concatenate",
        "where",
        "stack",
        "indices",
    ):
        setattr(module, name, _made(name))
    for name in ("asarray", "array", "ascontiguousarray"):
        setattr(module, name, _moved(name))
    module.ndarray, module.asnumpy, module.from_dlpack = Array, Array.get, lambda array: array
    module.matmul = np.matmul
    module.now = SimpleNamespace(ptr=stream, synchronize=lambda: None)
    module.told = []
    module.cuda = SimpleNamespace(
        Event=lambda **options: _Event(module),
        get_current_stream=lambda: module.now,
        Device=lambda: SimpleNamespace(id=0),
        runtime=SimpleNamespace(memGetInfo=lambda: (1 << 33, 1 << 34)),
    )
    module.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0)
    before = set(sys.modules)
    sys.modules["cupy"] = module
    try:
        yield module
    finally:
        new = set(sys.modules) - before
        ours = [
            name
            for name in new
            if name.startswith(("fastrnn_kernels.cuda.", "fastrnn.cuda", "fastrnn.streams.cuda"))
        ]
        for name in ["cupy", *ours]:
            parent, _, last = name.rpartition(".")
            if parent in sys.modules and hasattr(sys.modules[parent], last):
                delattr(sys.modules[parent], last)
            del sys.modules[name]
