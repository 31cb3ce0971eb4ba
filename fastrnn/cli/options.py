"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click


def cells(choices: Sequence[str]) -> Callable[[Any], Any]:
    """--cell, as often as one likes."""
    return click.option(
        "--cell",
        "cells",
        type=click.Choice(choices),
        multiple=True,
        help="Only this cell; may be repeated.",
    )
