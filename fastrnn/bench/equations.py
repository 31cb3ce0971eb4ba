"""The equations of any cell, as the kernels have them, in the functions of NumPy or of torch."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from fastrnn_kernels.cells import functions
from fastrnn_kernels.cells.cell import Cell

#: What a library computes a function of equations with, by its name there.
Functions = Mapping[str, Callable[..., Any]]


def written_with(library: Functions, function: Any) -> Callable[..., Any]:
    """A jitted function of numbers as a plain one of a library's arrays, with what it calls."""
    plain = function.py_func
    found: dict[str, Any] = {"__builtins__": builtins}  # without which torch does not trace it
    for name in plain.__globals__.keys() & plain.__code__.co_names:
        value = plain.__globals__[name]
        if hasattr(value, "py_func"):
            value = written_with(library, value)
        elif getattr(functions, name, None) is value:
            value = library[name]
        found[name] = value
    return FunctionType(plain.__code__, found, plain.__name__, closure=plain.__closure__)


def sums(cell: Cell, x: Mapping[str, Any], h: Mapping[str, Any]) -> tuple[Any, ...]:
    """The gates' sums in the order of `Cell.sums`, of those gates that h has a part of.

    x: W x + b by gate; h: R h + b by gate. Where h has none of the late gates, these, the last of
    all, are left out.
    """
    parts = {gate: x[gate] for gate in cell.x_only}
    parts |= {f"{gate}_x": x[gate] for gate in cell.apart}
    parts |= {f"{gate}_h": h[gate] for gate in cell.apart}
    parts |= {gate: x[gate] + h[gate] for gate in h if gate not in cell.apart}
    return tuple(parts[name] for name in cell.sums if name in parts)
