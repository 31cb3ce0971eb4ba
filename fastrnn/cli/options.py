"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click


def prefix(told: str) -> Callable[[Any], Any]:
    """--prefix, of a part of a model file."""
    return click.option("--prefix", metavar="NAME", default="", help=told)


def cells(choices: Sequence[str]) -> Callable[[Any], Any]:
    """--cell, as often as one likes."""
    return click.option(
        "--cell",
        "cells",
        type=click.Choice(choices),
        multiple=True,
        help="Only this cell; may be repeated.",
    )
