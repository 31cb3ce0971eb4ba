"""What the estimators are to learn: one label or value of each sequence, or of each step."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array

from fastrnn.arrays import Array
from fastrnn.sklearn.sequences import Sequences


def of_sequences(name: str, given: Any, x: Sequences) -> Array:
    """Values (N, ...) of sequences; of a frame those of its rows too, alike in each sequence."""
    values: Array = check_array(given, ensure_2d=False, dtype=None, input_name=name)
    if x.groups is not None and len(values) == len(x.groups.codes) != len(x):
        _, first = np.unique(x.groups.codes, return_index=True)
        same = values == values[first][x.groups.codes]
        if not np.all(same):
            row = int(np.flatnonzero(~same.reshape(len(values), -1).all(1))[0])
            raise ValueError(
                f"{name} differs within the sequence that row {row} of X belongs to: wanted one "
                "value of a sequence, or pooling=None for one at each step"
            )
        return values[first]
    if len(values) != len(x):
        raise ValueError(f"X has {len(x)} sequences, {name} has {len(values)}: wanted one of each")
    return values


def of_steps(name: str, given: Any, x: Sequences) -> list[Array]:
    """Values (T_i, ...) of the steps of each sequence."""
    if not hasattr(given, "__len__") or isinstance(given, str | bytes | dict):
        raise TypeError(f"{name} is a {type(given).__name__}, wanted a list of arrays")
    if x.groups is not None and len(given) == len(x.groups.codes):
        rows = x.groups.split(check_array(given, ensure_2d=False, dtype=None, input_name=name))
    else:
        rows = [np.asarray(one) for one in given]
    if len(rows) != len(x):
        raise ValueError(f"X has {len(x)} sequences, {name} has {len(rows)}: wanted one of each")
    for k, (one, its) in enumerate(zip(rows, x.rows, strict=True)):
        if one.ndim < 1 or len(one) != len(its):
            raise ValueError(
                f"sequence {k} of X has {len(its)} steps, {name} of it has shape {one.shape}: with "
                "pooling=None wanted one at each step"
            )
        if one.dtype.kind == "f" and not np.isfinite(one).all():
            raise ValueError(f"{name} of sequence {k} holds NaN or infinity")
    return rows


def mapped(function: Callable[[Array], Array], values: Any, lengths: Array) -> list[Array]:
    """A function of all values at once, of lists of arrays, and its results as such a list."""
    return np.split(function(np.concatenate(list(values))), np.cumsum(lengths)[:-1])


def weight_of(given: Any, x: Sequences) -> Array | None:
    """How much each sequence counts; None where all do alike."""
    if given is None:
        return None
    weight = of_sequences("sample_weight", given, x)
    if weight.ndim != 1 or weight.dtype.kind not in "fiub":
        raise ValueError(
            f"sample_weight has shape {weight.shape} and dtype {weight.dtype}, wanted ({len(x)},) "
            "numbers"
        )
    if (weight < 0).any():
        raise ValueError("sample_weight has negative weights, wanted none")
    if not weight.any():
        raise ValueError("sample_weight is zero everywhere: wanted a weight above zero")
    return weight.astype(np.float64) / float(weight.max())
