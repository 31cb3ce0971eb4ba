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
    """A function for `cuda.jit`, and a letter to each of its arguments, addresses first.

    Of an address: v of the cell's float type, n of integers, m of a mask's bytes, which are
    compared with 0, and V, N and M of tables of such addresses (`stepwise/table.py`); of a value: i
    an integer, b a boolean. All are 8 bytes but the last, which is one, so a launch needs no
    description of arrays. On the simulator, which is given arrays, an address is an array with
    one axis, or None where it is not read.
    """

    function: Callable[..., Any]
    dtype: np.dtype[Any]
    arguments: str
    threads: int | None = None  # of a block at most, so that their registers are there

    def __post_init__(self) -> None:
        """Refuse letters in another order, by which `launch` tells addresses from values."""
        if len(self.arguments.lstrip("vnmVNM").strip("ib")):
            raise ValueError(f"{self.name} has arguments {self.arguments!r}, addresses go first")

    @cached_property
    def name(self) -> str:
        """How errors call it."""
        return self.function.__qualname__.replace(".<locals>", "")

    @cached_property
    def addresses(self) -> int:
        """How many of the arguments are addresses."""
        return len(self.arguments.rstrip("ib"))

    @property
    def signature(self) -> Any:
        """The types of the arguments, as Numba names them."""
        kinds = {"i": types.int64, "b": types.boolean}
        of = {"v": from_dtype(self.dtype), "n": types.int64, "m": types.uint8}
        for letter, kind in of.items():
            kinds[letter] = types.CPointer(kind)
            kinds[letter.upper()] = types.CPointer(types.CPointer(kind))
        return types.void(*(kinds[letter] for letter in self.arguments))

    @cached_property
    def compiled(self) -> Any:
        """The kernel for the current GPU, a `Loaded`; on the simulator, Numba's stand-in."""
        if config.ENABLE_CUDASIM:
            return cuda.jit(self.function)
        from fastrnn_kernels.cuda.launch.loaded import Loaded

        (made,) = cuda.jit(self.signature, launch_bounds=self.threads)(
            self.function
        ).overloads.values()
        return Loaded(self.name, self.arguments, self.function.__code__.co_varnames, made)
