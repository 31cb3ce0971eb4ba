"""Functions whose code is put into what calls them."""

from collections.abc import Callable
from typing import Any

from numba import njit

#: How they are compiled. Nobody calls them from C, and each wrapper takes time to compile.
INLINED = {"forceinline": True, "error_model": "numpy", "no_cfunc_wrapper": True}


def inlined(function: Callable[..., Any]) -> Any:
    """A function, or what Numba has made of it, for the CPU and put into its callers."""
    return njit(**INLINED)(getattr(function, "py_func", function))
