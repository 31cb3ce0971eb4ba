"""The values of a unit, between tuples, which equations take, and arrays.

Functions for a count that is known when a kernel is compiled: loops over it are written out,
so that arrays of a thread's own become registers.
"""

from collections.abc import Callable
from typing import Any

from numba import cuda


def device(function: Callable[..., Any]) -> Any:
    """A function that kernels call, put into its callers."""
    return cuda.jit(device=True, inline="always")(function)


def load(count: int) -> Any:
    """A function `(array, at, step)`: a tuple of `count` values, `step` apart."""
    if count == 0:
        return device(lambda array, at, step: ())
    if count == 1:
        return device(lambda array, at, step: (array[at],))
    before, last = load(count - 1), count - 1

    @device
    def loaded(array, at, step):  # type: ignore[no-untyped-def]
        return before(array, at, step) + (array[at + last * step],)

    return loaded


def store(count: int) -> Any:
    """A function `(array, at, step, values)` that stores a tuple of `count` values."""
    if count == 0:

        @device
        def nothing(array, at, step, values):  # type: ignore[no-untyped-def]
            pass

        return nothing
    before, last = store(count - 1), count - 1

    @device
    def stored(array, at, step, values):  # type: ignore[no-untyped-def]
        before(array, at, step, values)
        array[at + last * step] = values[last]

    return stored


def add(count: int) -> Any:
    """As `store`, but each value is added to what stands there."""
    if count == 0:
        return store(0)
    before, last = add(count - 1), count - 1

    @device
    def added(array, at, step, values):  # type: ignore[no-untyped-def]
        before(array, at, step, values)
        array[at + last * step] += values[last]

    return added
