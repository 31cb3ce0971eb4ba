"""Functions whose code is put into what calls them."""

from collections.abc import Callable
from typing import Any

from numba import njit

#: How what other kernels call is compiled. Nobody calls it from Python or C, and each wrapper takes
#: time to compile: a quarter of a stream's. A call from Python would end the process; tests call
#: `py_func`.
NO_WRAPPERS: dict[str, Any] = {
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
INLINED = {"forceinline": True, **NO_WRAPPERS}


def inlined(function: Callable[..., Any]) -> Any:
    """A function, or what Numba has made of it, for the CPU and put into its callers."""
    return njit(**INLINED)(getattr(function, "py_func", function))
