"""Arrays that say they lie on a GPU, on Numba's simulator, where a GPU's memory is the host's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

#: DLPack's numbers of devices.
CUDA, MANAGED, METAL = 2, 13, 8


class GpuArray(np.ndarray):
    """As CuPy's: both protocols, and no NumPy array to whoever asks by them."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.__array_interface__, "version": 3, "stream": None}

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, 0

    def get(self) -> Any:
        return np.array(self)


def gpu(array: Any) -> GpuArray:
    """The same memory, on the GPU."""
    return np.ascontiguousarray(array).view(GpuArray)


class OfDlpack:
    """An array of a library that has DLPack alone."""

    def __init__(self, array: Any, device: int = CUDA) -> None:
        self.array, self.device = array, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)


class OfInterface:
    """An array of a library that has `__cuda_array_interface__` alone."""

    def __init__(self, array: Any) -> None:
        self.__cuda_array_interface__ = {**array.__array_interface__, "version": 3}
        self._array = array  # keeps the memory alive


class _OnHost:
    """What stands there for the host to read."""

    def __init__(self, array: Any) -> None:
        self.__array_interface__ = array.__cuda_array_interface__


@contextmanager
def arrays_on_the_gpu() -> Iterator[None]:
    """Take such arrays in, and give them back, as CuPy does with a GPU's."""
    from fastrnn_kernels.cuda import device
    from fastrnn_kernels.cuda.launch import arrays

    def adopt(array: Any) -> GpuArray:
        if isinstance(array, GpuArray):
            return array
        found = array.array if isinstance(array, OfDlpack) else np.asarray(_OnHost(array))
        return found.view(GpuArray)

    def give(array: Any, host: bool) -> Any:
        return np.asarray(array) if host else array.view(GpuArray)

    with mock.patch.object(arrays, "adopt", adopt), mock.patch.object(device, "give", give):
        yield
