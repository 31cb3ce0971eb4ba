"""Options that several commands have."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from fastrnn_kernels.cells import registry


def prefix(told: str) -> Callable[[Any], Any]:
    """--prefix, of a part of a model file."""
    return click.option("--prefix", metavar="NAME", default="", help=told)


class _Cell(click.ParamType):  # type: ignore[type-arg]
    """A name of a cell; modules are looked for in the current folder, too."""

    name = "cell"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it was given."""
        from fastrnn.models.classes import entry_of

        name = str(value)
        here = os.getcwd()
        if ":" in name and here not in sys.path:
            sys.path.insert(0, here)
        try:
            entry_of(name)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return name


def _built_in() -> list[str]:
    return [name for name, entry in registry.CELLS.items() if not entry.defined]


def cells() -> Callable[[Any], Any]:
    """--cell, as often as one likes."""
    return click.option(
        "--cell",
        "cells",
        type=_Cell(),
        metavar="NAME",
        multiple=True,
        help=f"Only this cell, of {', '.join(_built_in())}, a name of fastrnn.cells, as MinGRU, "
        "or module:Name for one that your own module defines; may be repeated.",
    )
