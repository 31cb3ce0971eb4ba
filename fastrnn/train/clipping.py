"""Clipping of the gradients of a whole model, before an optimiser's step."""

import math
from collections.abc import Mapping

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array


def clip_by_norm(gradients: Mapping[str, Array], most: float) -> tuple[dict[str, Array], float]:
    """Scale all gradients together, so that their norm is at most `most`.

    gradients: by the parameters' names, as `backward(...).parameters` has them.
    most: the largest norm, of all gradients as one vector.

    Returns the gradients, new arrays where they were scaled, and the norm before. Where that is
    infinite or NaN nothing is scaled: a step with such gradients is to be left out.
    Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks",
    Algorithm 1.

        gradients, norm = clip_by_norm(model.backward(tape, dy).parameters, 1.0)
    """
    limit = check.clip("most", most)
    if not limit:
        raise TypeError("most is None, wanted a number")
    norm = norm_of(gradients)
    if not math.isfinite(norm) or norm <= limit:
        return dict(gradients), norm
    scale = limit / norm
    return {name: g * g.dtype.type(scale) for name, g in gradients.items()}, norm


def clip_by_value(gradients: Mapping[str, Array], most: float) -> dict[str, Array]:
    """Clip each value of all gradients to at most `most` in magnitude; NaN stays.

    Returns new arrays.
    """
    limit = check.clip("most", most)
    if not limit:
        raise TypeError("most is None, wanted a number")
    return {name: np.clip(g, -limit, limit) for name, g in gradients.items()}


def norm_of(gradients: Mapping[str, Array]) -> float:
    """The Euclidean norm of all gradients as one vector, added up in float64."""
    squares = 0.0
    for g in gradients.values():
        flat = np.asarray(g).reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            one = float(np.dot(flat, flat))
        if not math.isfinite(one):  # too large for float32, or not finite
            wide = flat.astype(np.float64)
            one = float(np.dot(wide, wide))
        squares += one
    return math.sqrt(squares) if squares >= 0 else math.nan
