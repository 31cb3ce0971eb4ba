"""Values of mean 0 and standard deviation 1, as networks learn them best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.arrays import Array


@dataclass(frozen=True, eq=False)
class Scaling:
    """(value - mean) / scale, for each of the values of a step; mean (I,), scale (I,)."""

    mean: Array
    scale: Array

    @classmethod
    def of(
        cls, name: str, rows: Sequence[Array], weight: Array | None, wanted: bool = True
    ) -> "Scaling":
        """That of all steps (T_i, I), each counted as its sequence is; if not wanted, none."""
        width = rows[0].shape[1]
        if not wanted:
            return cls(np.zeros(width), np.ones(width))
        counts = None if weight is None else np.repeat(weight, [len(one) for one in rows])
        values = np.concatenate(rows)
        with np.errstate(all="ignore"):
            mean = np.average(values, axis=0, weights=counts)
            scale = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=counts))
        if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
            raise ValueError(f"{name} holds values too large to be standardised: divide them")
        constant = scale <= 1e-12 * np.abs(mean)  # but for rounding
        return cls(mean, np.where(constant | (scale == 0), 1.0, scale))

    def apply(self, name: str, rows: Sequence[Array], dtype: np.dtype[Any]) -> list[Array]:
        """Scaled values of a float type; ValueError for those that it cannot hold."""
        with np.errstate(over="ignore"):
            found = [((one - self.mean) / self.scale).astype(dtype) for one in rows]
        for k, one in enumerate(found):
            if not np.isfinite(one).all():
                raise ValueError(f"sequence {k} of {name} holds values too large for {dtype}")
        return found

    def undo(self, values: Array) -> Array:
        """Values (..., I) as they were given, in float64."""
        found: Array = values.astype(np.float64) * self.scale + self.mean
        return found
