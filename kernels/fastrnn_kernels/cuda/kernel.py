"""A kernel and the types of its arguments, so that it is compiled before it is first launched."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import config, cuda, from_dtype, types
from numba.core.errors import NumbaPerformanceWarning

# A pass of few rows has few blocks: Numba's advice to launch more is not for it.
warnings.filterwarnings("ignore", message="Grid size", category=NumbaPerformanceWarning)

#: Threads to a block of kernels of a thread to a unit; the simulator's are Python's.
BLOCK = 8 if config.ENABLE_CUDASIM else 256


@dataclass(frozen=True, eq=False)
class Kernel:
    """A function for `cuda.jit`, and a letter to each of its arguments.

    v an array of the cell's float type, n one of integers, m a mask; i an integer, b a boolean.
    """

    function: Callable[..., Any]
    dtype: np.dtype[Any]
    arguments: str

    @property
    def signature(self) -> Any:
        """The types of the arguments, as Numba names them."""
        kinds = {
            "v": types.Array(from_dtype(self.dtype), 1, "C"),
            "n": types.Array(types.int64, 1, "C"),
            "m": types.Array(types.boolean, 1, "C"),
            "i": types.int64,
            "b": types.boolean,
        }
        return types.void(*(kinds[letter] for letter in self.arguments))

    @cached_property
    def compiled(self) -> Any:
        """The kernel for the current GPU; on the simulator, the function itself."""
        if config.ENABLE_CUDASIM:
            return cuda.jit(self.function)
        made = cuda.jit(self.signature)(self.function)
        self._allow_shared_memory(made)
        return made

    def _allow_shared_memory(self, made: Any) -> None:
        """Let a block ask for all the shared memory there is; without, 48 KiB are the most."""
        from cuda.bindings import driver

        device = cuda.get_current_device()
        most = device.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        for overload in made.overloads.values():
            handle = overload._codelibrary.get_cufunc().handle
            set_for = driver.cuFuncSetAttribute
            arguments: tuple[Any, ...] = (handle, attribute, most)
            if isinstance(handle, driver.CUkernel):
                set_for = driver.cuKernelSetAttribute
                arguments = (attribute, most, handle, driver.CUdevice(device.id))
            (status,) = set_for(*arguments)
            if status != driver.CUresult.CUDA_SUCCESS:
                raise RuntimeError(f"{self.function.__qualname__}: {most} bytes refused: {status}")
