"""The cells that there are. All who need to know them read this table, and none has another.

Layers and their single steps, files, streams, the bench, `fastrnn warmup` and `tune`, the adapters,
CUDA's device functions and the tests' grids follow from a line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.gru import GRU, GRU_RESET_BEFORE
from fastrnn_kernels.cells.lstm import LSTM
from fastrnn_kernels.cells.rnn import RNN_RELU, RNN_TANH


@dataclass(frozen=True, eq=False)
class Entry:
    """A cell, and what it is called.

    name: on command lines, as "gru-reset-before".
    kind: the class of its layers, as "GRU"; that of single steps is "GRUCell".
    options: what a layer's configuration says to get this cell of its kind: for each option a
        word, or True or False. All cells of a kind have the same options, and the first that is
        registered is what a layer has where none is said.
    torch: torch's name for it, a recurrent module's `mode`; empty if torch has no such cell.
    defined: whether a program has defined it, and may define it anew.
    """

    name: str
    cell: Cell
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    torch: str = ""
    defined: bool = False


#: By name, in the order of their registration.
CELLS: dict[str, Entry] = {}


def register(entry: Entry) -> None:
    """Make a cell known; one that a program defines anew takes the place of the old one.

    Raises ValueError for a name that is taken, a kind that is no name of a class, and options
    that do not tell the cell from the others of its kind.
    """
    old = CELLS.get(entry.name)
    if entry.defined and old is not None and old.defined and old.kind == entry.kind:
        CELLS[entry.name] = entry
        return
    others = of_kind(entry.kind)
    if old is not None:
        raise ValueError(f"cell {entry.name!r} is registered already")
    if not entry.kind.isidentifier() or entry.kind.endswith("Cell"):
        raise ValueError(f"kind of {entry.name!r} is {entry.kind!r}, wanted the name of a layer")
    for other in others:
        if entry.options.keys() != other.options.keys() or entry.options == other.options:
            raise ValueError(
                f"options of {entry.name!r} are {entry.options}, and {other.name!r}, of the same "
                f"kind, has {other.options}: wanted other values of the same options"
            )
    CELLS[entry.name] = entry


def called(cell: Cell) -> str:
    """What users call a cell: "LSTM", or "gru-reset-before" where there is a more usual one."""
    for entry in CELLS.values():
        if entry.cell is cell:
            return entry.kind if of_kind(entry.kind)[0] is entry else entry.name
    return cell.name


def kinds() -> tuple[str, ...]:
    """The classes of layers, in the order of their registration."""
    return tuple(dict.fromkeys(entry.kind for entry in CELLS.values()))


def of_kind(kind: str) -> list[Entry]:
    """The cells of a kind, the usual one first; none if there is no such kind."""
    return [entry for entry in CELLS.values() if entry.kind == kind]


def options_of(kind: str) -> dict[str, tuple[Any, ...]]:
    """The options of a kind, and the values of each, the usual one first."""
    found: dict[str, dict[Any, None]] = {}
    for entry in of_kind(kind):
        for name, value in entry.options.items():
            found.setdefault(name, {})[value] = None
    return {name: tuple(values) for name, values in found.items()}


def cell_of(kind: str, **options: Any) -> Cell:
    """The cell of a kind with these options; raises ValueError where there is none."""
    for entry in CELLS.values():
        if entry.kind == kind and entry.options == options:
            return entry.cell
    raise ValueError(f"{kind} has no cell with {options}")


for _entry in (
    Entry("rnn", RNN_TANH, "RNN", {"nonlinearity": "tanh"}, torch="RNN_TANH"),
    Entry("rnn-relu", RNN_RELU, "RNN", {"nonlinearity": "relu"}, torch="RNN_RELU"),
    Entry("lstm", LSTM, "LSTM", torch="LSTM"),
    Entry("gru", GRU, "GRU", {"reset_after": True}, torch="GRU"),
    Entry("gru-reset-before", GRU_RESET_BEFORE, "GRU", {"reset_after": False}),
):
    register(_entry)
