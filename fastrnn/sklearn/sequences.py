"""Inputs of the estimators, whatever form they have, as a list of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from fastrnn.arrays import Array
from fastrnn.sklearn.frames import Groups, groups_of
from fastrnn_kernels import handlers


@dataclass(frozen=True, eq=False)
class Sequences:
    """Checked sequences.

    rows: of each its values (T_i, I) in float64, or its tokens (T_i,).
    stacked: whether they came as one array, so that what is given at each step is one, too.
    flat: whether values had no axis of their own, as in (N, T).
    groups: of a frame, which of its rows belong to each.
    """

    rows: list[Array]
    stacked: bool
    flat: bool
    groups: Groups | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> Array:
        """The steps of each."""
        return np.array([len(one) for one in self.rows])


def read(estimator: Any, X: Any, reset: bool, least: int = 1) -> Sequences:
    """The sequences that an estimator was given; `reset` says that they are those of a fit.

    least: the fewest steps that each must have. Sets or checks `n_features_in_`,
    `feature_names_in_` and `_width`, the values of a step.
    """
    if estimator.group is not None:
        found = _grouped(estimator, X, reset)
    elif estimator.embedding is None and _is_table(X):
        if reset or estimator._tabular:  # T is then that of all that come
            table = _validated(estimator, X, reset, least if reset else 1)
        else:
            table = _plain_table(X)
        found = Sequences(list(_floats("X", table)[..., None]), True, True)
        if reset:
            estimator._tabular = True
    else:
        found = rows_of("X", X, estimator.embedding is not None)
        if reset:
            estimator._tabular = False
            estimator.n_features_in_ = _width(found)
            vars(estimator).pop("feature_names_in_", None)
    found = _cut("X", found, estimator.padding)
    width = _width(found)
    if not width:
        raise ValueError("X has 0 values a step, wanted at least 1")
    for k, one in enumerate(found.rows):
        if one.ndim == 2 and one.shape[1] != width:
            raise ValueError(
                f"sequence {k} of X has {one.shape[1]} values a step, sequence 0 has {width}"
            )
        if len(one) < least:
            raise ValueError(
                f"sequence {k} of X has {_steps(len(one))}, wanted at least {least}: leave it out"
            )
    check_finite("X", found.rows, estimator.padding)
    if reset:
        estimator._width = width
    elif estimator._width != width:
        raise ValueError(
            f"X has {width} values a step, {type(estimator).__name__} was fitted on "
            f"{estimator._width}"
        )
    return found


def rows_of(name: str, given: Any, tokens: bool = False) -> Sequences:
    """Sequences of an array (N, T, I) or (N, T), or of arrays (T_i, I) or (T_i,)."""
    if not _is_many(given):
        raise TypeError(
            f"{name} is a {type(given).__name__}, wanted an array of sequences, or a list of them"
        )
    if not len(given):
        raise ValueError(f"{name} has no sequences, wanted at least one")
    whole = _as_one(given)
    if whole is None or (tokens and whole.ndim == 1):
        rows = [_one(name, k, one, tokens) for k, one in enumerate(given)]
        axes = {one.ndim for one in rows}
        if len(axes) > 1:
            raise ValueError(
                f"{name} has sequences of one axis and of two, wanted all (T,), or all (T, I)"
            )
        flat = axes == {1}
        return Sequences([_axis(one, tokens) for one in rows], False, flat)
    if whole.ndim not in ((2,) if tokens else (2, 3)):
        wanted = "(N, T) of tokens" if tokens else "(N, T, I), or (N, T) for one value a step"
        raise ValueError(
            f"{name} has shape {whole.shape}, wanted {wanted}; one sequence is [{name}]. Reshape "
            "your data, or give a list of arrays"
        )
    rows = [_one(name, k, one, tokens) for k, one in enumerate(whole)]
    return Sequences([_axis(one, tokens) for one in rows], True, whole.ndim == 2)


def check_finite(name: str, rows: Sequence[Array], padding: Any = None) -> None:
    """Raise ValueError where a sequence holds NaN or infinity."""
    for k, one in enumerate(rows):
        if one.dtype.kind == "f" and not np.isfinite(one).all():
            step = int(np.flatnonzero(~np.isfinite(one).reshape(len(one), -1).all(1))[0])
            what = "NaN" if np.isnan(one[step]).any() else "infinity (inf)"
            remedy = "fill in what is missing"
            if what == "NaN" and padding is None:
                remedy += ", or say padding=numpy.nan where it only fills up the ends of sequences"
            raise ValueError(f"sequence {k} of {name} holds {what} at step {step}: {remedy}")


def _validated(estimator: Any, X: Any, reset: bool, least: int = 1) -> Array:
    """A table of numbers, by scikit-learn's check of columns and their names."""
    try:
        found: Array = validate_data(
            estimator, X, reset=reset, dtype="numeric", ensure_all_finite=False,
            ensure_min_features=least,
        )  # fmt: skip
    except OverflowError as error:
        handlers.pass_on(error)
        raise ValueError(f"X holds a number that is too large: {error}") from None
    return found


def _is_table(X: Any) -> bool:
    """Whether scikit-learn's own check is the one to ask: of (N, T), and of what is nothing."""
    if not _is_many(X):
        return True
    whole = _as_one(X)
    empty = isinstance(X, list | tuple) and not len(X)
    return whole is not None and whole.ndim < 3 and not empty


def _is_many(given: Any) -> bool:
    """Whether something has a number of things in it, in an order."""
    told = getattr(given, "shape", (1,)) != () and not hasattr(given, "tocsr")
    return told and hasattr(given, "__len__") and not isinstance(given, str | bytes | dict | set)


def _as_one(given: Any) -> Array | None:
    """What is one array; None of a list of sequences."""
    if isinstance(given, list | tuple):
        if any(hasattr(one, "__array__") and np.ndim(one) for one in given):
            return None
        try:
            found = np.asarray(given)
        except ValueError as error:  # lists of different lengths
            handlers.pass_on(error)
            return None
    else:
        _check_unmasked(given)
        found = given if isinstance(given, np.ndarray) else np.asarray(given)
    lists = found.dtype == object and found.ndim == 1
    return None if lists and any(np.ndim(one) for one in found) else found


def _plain_table(X: Any) -> Array:
    found = np.asarray(X)
    if found.ndim != 2:
        raise ValueError(f"X has shape {found.shape}, wanted sequences. Reshape your data")
    return found


def _one(name: str, k: int, given: Any, tokens: bool) -> Array:
    """A sequence of a list."""
    if isinstance(given, str | bytes):
        raise TypeError(
            f"sequence {k} of {name} is {given!r}, wanted a list of tokens: split it, as "
            "text.split()"
        )
    _check_unmasked(given)
    try:
        found = np.asarray(given)
    except ValueError as error:
        handlers.pass_on(error)
        raise ValueError(f"sequence {k} of {name} is no array: {error}") from None
    if tokens:
        if found.ndim != 1:
            raise ValueError(f"sequence {k} of {name} has shape {found.shape}, wanted (T,) tokens")
        if found.dtype == object and all(isinstance(one, str) for one in found):
            found = found.astype(str)
        if found.dtype == object and all(type(one) is int and abs(one) < 2**63 for one in found):
            found = found.astype(np.int64)
        if found.dtype.kind not in "iuU" and len(found):
            raise TypeError(
                f"sequence {k} of {name} has dtype {found.dtype}, wanted tokens: integers or "
                "strings"
            )
        return found
    if found.ndim not in (1, 2):
        raise ValueError(f"sequence {k} of {name} has shape {found.shape}, wanted (T, I) or (T,)")
    return _floats(f"sequence {k} of {name}", found)


def _floats(name: str, given: Array) -> Array:
    if given.dtype == object:
        try:
            return given.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            handlers.pass_on(error)
            raise ValueError(f"{name} holds what is no number: {error}") from None
    if given.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {given.dtype}, wanted numbers")
    return given.astype(np.float64, copy=False)


def _check_unmasked(given: Any) -> None:
    if isinstance(given, np.ma.MaskedArray):
        raise TypeError(
            "X has masked arrays, wanted plain ones: masks are not applied. For steps at the ends "
            "x.filled(numpy.nan) and padding=numpy.nan leave them out"
        )


def _axis(one: Array, tokens: bool) -> Array:
    return one if tokens or one.ndim == 2 else one[:, None]


def _width(found: Sequences) -> int:
    return found.rows[0].shape[1] if found.rows[0].ndim == 2 else 1


def _steps(many: int) -> str:
    return f"{many} step" if many == 1 else f"{many or 'no'} steps"


def _cut(name: str, found: Sequences, padding: Any) -> Sequences:
    """Sequences without the steps at their ends that are padding alone."""
    if padding is None:
        return found
    tokens = found.rows[0].ndim == 1
    kinds = str | int | np.integer if tokens else int | float | np.integer | np.floating
    if isinstance(padding, bool | np.bool_) or not isinstance(padding, kinds):
        wanted = "a token" if tokens else "a number, numpy.nan for one"
        raise TypeError(f"padding is {padding!r}, wanted {wanted}, or None")
    nan = padding != padding
    rows = []
    for one in found.rows:
        same = np.isnan(one) if nan else np.broadcast_to(one == padding, one.shape)
        inside = np.flatnonzero(~(same if one.ndim == 1 else same.all(1)))
        rows.append(one[: inside[-1] + 1] if len(inside) else one[:0])
    return Sequences(rows, False, found.flat, found.groups)


def _grouped(estimator: Any, X: Any, reset: bool) -> Sequences:
    """The sequences of a frame."""
    groups, frame = groups_of("X", X, estimator.group)
    if reset:
        estimator._tabular = False
    if estimator.embedding is None:
        table = _validated(estimator, frame, reset)
        return Sequences(groups.split(_floats("X", table)), False, False, groups)
    if frame.shape[1] != 1:
        raise ValueError(
            f"X has columns {[*X.columns]}, wanted {estimator.group!r} and one of tokens"
        )
    if reset:
        estimator.n_features_in_ = 1
        vars(estimator).pop("feature_names_in_", None)
    tokens = _one("X", 0, np.asarray(frame).reshape(-1), True)
    return Sequences(groups.split(tokens), False, True, groups)


def beside(name: str, given: Any, x: Sequences, group: Any) -> list[Array]:
    """Values (T, E) that belong to sequences: of a frame those of the groups of the same names."""
    if x.groups is None or not hasattr(given, "columns"):
        rows = rows_of(name, given).rows
    else:
        groups, frame = groups_of(name, given, group)
        for one, other, what in (
            (x.groups.names, groups.names, f"{name} has no"),
            (groups.names, x.groups.names, "X has no"),
        ):
            lost = [key for key in one if key not in set(other)]
            if lost:
                raise ValueError(f"{what} rows of group {lost[0]!r}")
        found = groups.split(_floats(name, np.asarray(frame)))
        rows = [found[groups.names.index(key)] for key in x.groups.names]
    if len(rows) != len(x):
        raise ValueError(f"{name} has {len(rows)} sequences, X has {len(x)}")
    return rows
