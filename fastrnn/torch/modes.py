"""Cells by what torch calls them, a recurrent module's mode; those of one's own have modes, too."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from fastrnn.models.classes import class_of
from fastrnn.models.defined import Defined
from fastrnn.torch.equations import Evaluated, stack
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.registry import CELLS
from fastrnn_kernels.equations import variants
from fastrnn_kernels.equations.activations import RELU, SIGMOID, TANH
from fastrnn_kernels.equations.define import Derived

_OF_TORCH = {entry.torch: entry.cell for entry in CELLS.values() if entry.torch}
#: Of torch's cells the equations, which are traced when they are first wanted.
_EQUATIONS: dict[str, Callable[[], Derived]] = {
    "RNN_TANH": partial(variants.rnn_equations, TANH, None),
    "RNN_RELU": partial(variants.rnn_equations, RELU, None),
    "LSTM": partial(variants.lstm_equations, SIGMOID, TANH, TANH, None, False, False),
    "GRU": partial(variants.gru_equations, SIGMOID, TANH, None, True),
}
#: Of cells that were defined, for good: a module goes on when its cell is defined anew.
_defined: dict[str, Evaluated] = {}


def mode_of(kind: str, derived: Derived) -> str:
    """The mode of a cell that a program has defined: its name, and what tells its equations."""
    mode = f"{kind}-{derived.digest}"
    _defined[mode] = Evaluated(derived)
    return mode


def cell_of(mode: str) -> Cell:
    """The kernels' cell; RuntimeError if there is none."""
    found = _OF_TORCH.get(mode)
    return evaluated(mode).cell if found is None else found


def own_of(mode: str) -> Callable[..., Any]:
    """What runs a stack by torch's own operations, called as `torch._VF.lstm` is."""
    if mode in _OF_TORCH:
        own: Callable[..., Any] = getattr(torch._VF, mode.lower())
        return own
    return partial(stack, evaluated(mode))


def equations_of(mode: str) -> Derived:
    """The equations of a cell, also where it is written by hand."""
    if mode in _EQUATIONS:
        return _EQUATIONS[mode]()
    return evaluated(mode).derived


def evaluated(mode: str) -> Evaluated:
    """A cell that was defined; in a program that another process has made, by its name."""
    if mode not in _defined:
        kind = mode.rpartition("-")[0]
        try:
            known: Any = class_of(kind)
        except KeyError:
            known = None
        if known is None or not issubclass(known, Defined) or mode_of(kind, known._derived) != mode:
            raise RuntimeError(
                f"mode is {mode!r}, wanted one of {sorted([*_OF_TORCH, *_defined])}; a cell of "
                "one's own is defined, with the same equations, before a program runs it"
            )
    return _defined[mode]
