"""Paths of files, as callers give them."""

import os
from pathlib import Path
from typing import Any


def path_of(path: Any) -> Path:
    """A path; raises TypeError for what is none."""
    try:
        return Path(os.fsdecode(path))
    except TypeError:
        raise TypeError(f"path is {path!r}, wanted a path") from None
