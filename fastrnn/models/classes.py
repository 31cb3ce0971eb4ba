"""The classes of layers and of single steps, found or made by what the registry calls them.

A kind whose classes nobody wrote out gets them here, from its line in the registry. Cells on
command lines have names, too: those of the registry, of `fastrnn.cells`, or "module:Name".
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastrnn.models import layers  # noqa: F401  (its classes are found here)
from fastrnn.models.cells import RecurrentCell
from fastrnn.models.layer import Layer
from fastrnn.models.recurrent import CLASSES, Recurrent
from fastrnn_kernels.cells import registry

if TYPE_CHECKING:
    from fastrnn.models.defined import DefinedLayer

#: What gives the layers of a name, defined where nobody has yet, or None where it has none of the
#: name; `fastrnn.cells`, above models, is one.
DEFINING: list[Callable[[str], Any]] = []


def class_of(kind: str) -> type[Recurrent]:
    """The class of a kind, as "GRU" of layers and "GRUCell" of single steps; KeyError for none."""
    if kind not in CLASSES and not registry.of_kind(kind.removesuffix("Cell")):
        for define in DEFINING:
            define(kind.removesuffix("Cell"))
    return CLASSES[kind] if kind in CLASSES else _made(kind)


def entry_of(name: str) -> registry.Entry:
    """The cell of a name: "lstm", "MinGRU" of `fastrnn.cells`, or "module:PeepholeLSTM".

    Raises TypeError or ValueError, which says what is wrong with the name.
    """
    if not isinstance(name, str):
        raise TypeError(f"a cell is {name!r}, wanted its name, as 'lstm'")
    defined = _defined(name)
    if defined is not None:
        return registry.Entry(name, defined._cell, defined.kind, defined=True)
    if name not in registry.CELLS:
        known = ", ".join(registry.CELLS)
        raise ValueError(
            f"no cell {name!r}: there are {known}, those of fastrnn.cells, as MinGRU, and "
            "module:Name for your own"
        )
    return registry.CELLS[name]


def layer_of(name: str, *sizes: int, **arguments: Any) -> Layer[Any]:
    """A layer of the cell of a name, "gru-reset-before"."""
    entry = entry_of(name)
    make: Any = _defined(name) or class_of(entry.kind)
    layer: Layer[Any] = make(*sizes, **entry.options, **arguments)
    return layer


def step_of(name: str, *sizes: int, **arguments: Any) -> RecurrentCell[Any]:
    """A single step of the cell of a name."""
    entry, defined = entry_of(name), _defined(name)
    make: Any = class_of(f"{entry.kind}Cell") if defined is None else defined.Cell
    step: RecurrentCell[Any] = make(*sizes, **entry.options, **arguments)
    return step


def _defined(name: str) -> "type[DefinedLayer] | None":
    """The layers of a name that are defined by equations; None for others of the registry."""
    from fastrnn.models.defined import DefinedLayer

    module, colon, attribute = name.partition(":")
    if not colon:
        return next((found for define in DEFINING if (found := define(name)) is not None), None)
    try:
        place: Any = import_module(module)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise ValueError(f"cell {name!r}: {module!r} cannot be imported: {told}") from error
    if not hasattr(place, attribute):
        raise ValueError(f"cell {name!r}: {module!r} has no {attribute!r}")
    given = getattr(place, attribute)
    if not (isinstance(given, type) and issubclass(given, DefinedLayer)):
        raise ValueError(f"{name!r} is no cell: wanted what @fastrnn.cell(...) has made")
    return given


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
