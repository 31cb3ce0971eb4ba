"""Frames whose rows are steps of several sequences, told apart by a column."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.arrays import Array

#: What pandas has where a value is missing, beside NaN.
_MISSING = {"NoneType", "NAType", "NaTType"}


@dataclass(frozen=True, eq=False)
class Groups:
    """Which sequence each row belongs to: codes (rows,), numbers of names."""

    names: list[Hashable]
    codes: Array

    def split(self, values: Array) -> list[Array]:
        """The rows of each sequence, in the order they stand in."""
        order = np.argsort(self.codes, kind="stable")
        return np.split(values[order], np.cumsum(np.bincount(self.codes))[:-1])


def groups_of(name: str, X: Any, group: Any) -> tuple[Groups, Any]:
    """The groups of a frame, in the order of their first rows, and the frame without their column.

    Raises TypeError or ValueError where it is none, or has no such column, or values missing there.
    """
    if not hasattr(X, "columns"):
        raise TypeError(
            f"{name} is a {type(X).__name__}, wanted a DataFrame: group={group!r} names a column "
            "of it"
        )
    columns = list(X.columns)
    if group not in columns:
        raise ValueError(f"{name} has no column {group!r}, which group names: it has {columns}")
    if not len(X):
        raise ValueError(f"{name} has no rows, wanted at least one")
    seen: dict[Hashable, int] = {}
    values = np.asarray(X[group]).tolist()
    if any(type(value).__name__ in _MISSING or value != value for value in values):
        raise ValueError(f"column {group!r} of {name} has missing values: each row wants its group")
    codes = np.array([seen.setdefault(value, len(seen)) for value in values], np.intp)
    return Groups([*seen], codes), X[[one for one in columns if one != group]]
