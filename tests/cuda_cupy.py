"""Stands in for CuPy, with arrays of the host that have an address as CuPy's have."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


class Array(np.ndarray):
    """An array whose `data` is an object with its address."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)


def _made(name: str) -> Any:
    return lambda *args, **kwargs: getattr(np, name)(*args, **kwargs).view(Array)


@contextmanager
def cupy(stream: int = 0) -> Iterator[Any]:
    """Put it in CuPy's place for modules that are first imported meanwhile; forget these after.

    `stream`: the address of the current stream, `module.now` changes it.
    """
    module: Any = ModuleType("cupy")
    for name in ("empty", "zeros", "full", "asarray", "array", "ascontiguousarray"):
        setattr(module, name, _made(name))
    module.matmul = np.matmul
    module.now = SimpleNamespace(ptr=stream, synchronize=lambda: None)
    module.cuda = SimpleNamespace(
        get_current_stream=lambda: module.now, Device=lambda: SimpleNamespace(id=0)
    )
    before = set(sys.modules)
    sys.modules["cupy"] = module
    try:
        yield module
    finally:
        new = set(sys.modules) - before
        ours = [name for name in new if name.startswith("fastrnn_kernels.cuda.")]
        for name in ["cupy", *ours]:
            parent, _, last = name.rpartition(".")
            if parent in sys.modules and hasattr(sys.modules[parent], last):
                delattr(sys.modules[parent], last)
            del sys.modules[name]
