"""Layers and single steps of cells that a program has defined by their equations."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from fastrnn.models.cells import RecurrentCell
from fastrnn.models.layer import Layer
from fastrnn.models.recurrent import Recurrent
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.equations.check import Check, check
from fastrnn_kernels.equations.define import Derived


class Defined(Recurrent):
    """What both have of their equations."""

    #: the functions that were written for the cell, as Python
    source: ClassVar[str]
    _derived: ClassVar[Derived]
    _cell: ClassVar[Cell]  # its own, whatever comes to have its name

    @classmethod
    def check(cls, points: int = 100, seed: int = 0) -> Check:
        """Compare the derivatives with differences of the equations, in float64, and print it.

        points: how many, drawn from a normal distribution by `seed`. The result has `errors`, the
        largest of each gate's sum, state and parameter, relative to the gradients; `passed`, and
        as text a line for each.
        """
        found = check(cls._derived.cell, points, seed)
        print(found)
        return found

    @property
    def _equations(self) -> Derived:
        return self._derived

    def _written(self) -> dict[str, Any]:
        return {**super()._written(), "equations": self._derived.digest}

    @classmethod
    def _blank(cls, config: Mapping[str, Any]) -> Self:
        own = cls._derived.digest
        told = config.get("equations", own)
        if told != own:
            raise ValueError(
                f"its {cls.kind} had other equations (digest {told!r}) than the one that is "
                f"defined now ({own!r}): define it as it was when the model was saved"
            )
        rest = {name: value for name, value in config.items() if name != "equations"}
        return super()._blank(rest)


class DefinedCell(Defined, RecurrentCell[Any]):
    """One step of a cell that a program has defined."""


class DefinedLayer(Defined, Layer[Any]):
    """A stack of recurrent layers of a cell that a program has defined."""

    #: the class of its single step
    Cell: ClassVar[type[DefinedCell]]
