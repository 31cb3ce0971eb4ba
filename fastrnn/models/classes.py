"""The classes of layers and of single steps, found or made by what the registry calls them.

A kind whose classes nobody wrote out gets them here, from its line in the registry.
"""

import sys
from collections.abc import Callable
from typing import Any

from fastrnn.models import layers  # noqa: F401  (its classes are found here)
from fastrnn.models.cells import RecurrentCell
from fastrnn.models.layer import Layer
from fastrnn.models.recurrent import CLASSES, Recurrent
from fastrnn_kernels.cells import registry

#: What defines the cell of a name where nobody has yet; `fastrnn.cells`, above models, is one.
DEFINING: list[Callable[[str], Any]] = []


def class_of(kind: str) -> type[Recurrent]:
    """The class of a kind, as "GRU" of layers and "GRUCell" of single steps; KeyError for none."""
    if kind not in CLASSES and not registry.of_kind(kind.removesuffix("Cell")):
        for define in DEFINING:
            define(kind.removesuffix("Cell"))
    return CLASSES[kind] if kind in CLASSES else _made(kind)


def layer_of(name: str, *sizes: int, **arguments: Any) -> Layer[Any]:
    """A layer of the cell of a name, "gru-reset-before"."""
    entry = registry.CELLS[name]
    make: Any = class_of(entry.kind)
    layer: Layer[Any] = make(*sizes, **entry.options, **arguments)
    return layer


def step_of(name: str, *sizes: int, **arguments: Any) -> RecurrentCell[Any]:
    """A single step of the cell of a name."""
    entry = registry.CELLS[name]
    make: Any = class_of(f"{entry.kind}Cell")
    step: RecurrentCell[Any] = make(*sizes, **entry.options, **arguments)
    return step


def _made(kind: str) -> type[Recurrent]:
    """The class of a kind that is not written out; it stands in `fastrnn`, where pickles look."""
    entries = registry.of_kind(kind.removesuffix("Cell"))
    if not entries:
        raise KeyError(kind)
    base: Any = RecurrentCell if kind.endswith("Cell") else Layer
    equations = sys.modules[entries[0].cell.forward.__module__].__doc__
    like = "LSTMCell" if kind.endswith("Cell") else "LSTM, without proj_size"
    words = [
        f"{name} is {' or '.join(map(repr, values))}"
        for name, values in registry.options_of(entries[0].kind).items()
    ]
    told = "; ".join([f"Arguments as those of {like}", *words])
    namespace = {"kind": kind, "__module__": "fastrnn", "__doc__": f"{equations}\n{told}.\n"}
    made: type[Recurrent] = type(base)(kind, (base,), namespace)  # which puts itself in CLASSES
    return made
