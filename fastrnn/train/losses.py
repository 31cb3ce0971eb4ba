"""Losses and their gradients, over outputs of any shape, with weights and masks.

Each is an object that is called with outputs and targets, and gives the mean loss and the gradient
of the outputs, ready for `model.backward`:

    loss, dy = MeanSquare()(y, target)

The mean is over all values that count: `mask` says which, `weight` how much each does.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array


class Loss(ABC):
    """What losses share: shapes are checked, values weighed, and the mean taken."""

    def __call__(
        self, y: Any, target: Any, *, weight: Any = None, mask: Any = None
    ) -> tuple[float, Array]:
        """The mean loss, and the gradient of y.

        y (..., O): outputs, float32 or float64, the axes in front as the model has them.
        target: as the loss tells.
        weight: how much each output counts, of the shape of y's front axes, or what broadcasts to
            it; the mean is divided by the sum of the weights.
        mask: True where an output counts, of the same shape, as False at padding. Targets there
            may be anything, NaN too.

        Raises TypeError or ValueError for what does not fit. Where nothing counts, the loss and
        the gradient are 0.
        """
        y = check.array("y", y, "an array of outputs")
        if y.dtype.kind != "f" or y.ndim < 1:
            raise TypeError(f"y has dtype {y.dtype} and shape {y.shape}, wanted floats (..., O)")
        wanted = self._target(y, check.array("target", target, "an array of targets"))
        counts = _counts(y.shape[:-1], weight, mask)
        inside = None if mask is None else counts > 0
        if inside is not None:
            wanted = self._without(wanted, inside)
        with np.errstate(all="ignore"):  # `fit` tells of what is not finite, and when
            values, slopes = self._values(y, wanted)  # (...,) and (..., O)
        total = float(counts.sum(dtype=np.float64))
        if total == 0:
            return 0.0, np.zeros_like(y)
        shares = (counts / total).astype(y.dtype)
        if inside is not None:  # what is masked may hold anything
            values = np.where(inside, values, 0)
            slopes = np.where(inside[..., None], slopes, 0)
        with np.errstate(all="ignore"):
            loss = float((values.astype(np.float64) * shares).sum())
            return loss, np.ascontiguousarray(slopes * shares[..., None], y.dtype)

    @abstractmethod
    def _target(self, y: Array, target: Array) -> Array:
        """The targets as `_values` wants them; raises for others."""

    @abstractmethod
    def _values(self, y: Array, target: Array) -> tuple[Array, Array]:
        """The loss of each output, (...,), and its slopes in y, (..., O)."""

    def _without(self, target: Array, inside: Array) -> Array:
        """The targets with zeros where the mask says that nothing counts."""
        if target.ndim > inside.ndim:
            inside = inside[..., None]
        return np.where(inside, target, np.zeros((), target.dtype))

    def __repr__(self) -> str:
        """The call that makes another one of the kind."""
        own = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({own})"


def _counts(shape: tuple[int, ...], weight: Any, mask: Any) -> Array:
    """How much each output counts, in float64."""
    counts = np.ones(shape)
    if weight is not None:
        given = check.array("weight", weight)
        if given.dtype.kind not in "fiu":
            raise TypeError(f"weight has dtype {given.dtype}, wanted numbers")
        if not (np.isfinite(given).all() and (given >= 0).all()):
            raise ValueError("weight holds values that are negative or not finite")
        counts *= _as_front("weight", given, shape)
    if mask is not None:
        given = check.array("mask", mask)
        if given.dtype != np.bool_:
            raise TypeError(f"mask has dtype {given.dtype}, wanted booleans")
        counts *= _as_front("mask", given, shape)
    return counts


def _as_front(name: str, given: Array, shape: tuple[int, ...]) -> Array:
    try:
        return np.broadcast_to(given, shape)
    except ValueError:
        raise ValueError(
            f"{name} has shape {given.shape}, wanted that of the outputs without their last "
            f"axis, {shape}, or what broadcasts to it"
        ) from None


def _same_shape(y: Array, target: Array, what: str = "targets") -> Array:
    """Targets of the shape of y; those without an axis of one value get it."""
    if target.dtype.kind not in "fiub":
        raise TypeError(f"target has dtype {target.dtype}, wanted numbers")
    if y.shape[-1] == 1 and target.shape == y.shape[:-1]:
        target = target[..., None]
    if target.shape != y.shape:
        raise ValueError(f"target has shape {target.shape}, wanted {what} for y, {y.shape}")
    return target.astype(y.dtype, copy=False)


class MeanSquare(Loss):
    """The square of the difference, mean over the O values of an output: (y - target)².

    target (..., O), or (...,) where O is 1.
    """

    def _target(self, y: Array, target: Array) -> Array:
        return _same_shape(y, target)

    def _values(self, y: Array, target: Array) -> tuple[Array, Array]:
        difference = y - target
        return (difference * difference).mean(-1), difference * y.dtype.type(2 / y.shape[-1])


class Huber(Loss):
    """Square near 0, straight beyond `delta`, so that outliers count less.

    d²/2 where |d| <= delta, else delta (|d| - delta/2), mean over the O values of an output; d is
    y - target. target (..., O), or (...,) where O is 1. Huber 1964, "Robust estimation of a
    location parameter".
    """

    def __init__(self, delta: float = 1.0) -> None:
        if not check.clip("delta", delta):
            raise TypeError("delta is None, wanted a number above 0")
        self.delta = float(delta)

    def _target(self, y: Array, target: Array) -> Array:
        return _same_shape(y, target)

    def _values(self, y: Array, target: Array) -> tuple[Array, Array]:
        difference, delta = y - target, y.dtype.type(self.delta)
        size = np.abs(difference)
        inner = np.minimum(size, delta)
        values = inner * (size - inner / 2)  # both cases in one
        slopes = np.clip(difference, -delta, delta)
        return values.mean(-1), slopes / y.dtype.type(y.shape[-1])


class Pinball(Loss):
    """The loss of quantiles: its minimum has a share q of the targets below y.

    q d where d = target - y is positive, else (q - 1) d, mean over the quantiles.
    quantiles: (O,) numbers between 0 and 1, one for each value of an output.
    target (..., 1) or (...,): the same for all quantiles. Koenker and Bassett 1978, "Regression
    quantiles".
    """

    def __init__(self, quantiles: Sequence[float] = (0.1, 0.5, 0.9)) -> None:
        given = check.array("quantiles", quantiles, "a sequence of numbers between 0 and 1")
        if given.ndim != 1 or not given.size or given.dtype.kind != "f":
            raise ValueError(f"quantiles is {quantiles!r}, wanted numbers between 0 and 1")
        if not ((given > 0) & (given < 1)).all():
            raise ValueError(f"quantiles is {quantiles!r}, wanted numbers between 0 and 1")
        self.quantiles = tuple(float(q) for q in given)

    def _target(self, y: Array, target: Array) -> Array:
        if y.shape[-1] != len(self.quantiles):
            raise ValueError(
                f"y has {y.shape[-1]} values an output, wanted one for each of "
                f"{len(self.quantiles)} quantiles"
            )
        if target.shape == y.shape[:-1]:
            target = target[..., None]
        if target.shape != (*y.shape[:-1], 1):
            raise ValueError(f"target has shape {target.shape}, wanted {(*y.shape[:-1], 1)}")
        return target.astype(y.dtype, copy=False)

    def _values(self, y: Array, target: Array) -> tuple[Array, Array]:
        q = np.array(self.quantiles, y.dtype)
        difference = target - y
        slopes = np.where(difference > 0, q, q - 1)
        return (slopes * difference).mean(-1), -slopes / y.dtype.type(y.shape[-1])


class BinaryCrossEntropy(Loss):
    """Cross-entropy of yes and no, from logits: -t log σ(y) - (1 - t) log σ(-y).

    Mean over the O values of an output. target (..., O), or (...,) where O is 1: 0 or 1, or a
    probability between. It is computed so that no logit overflows.
    """

    def _target(self, y: Array, target: Array) -> Array:
        return _same_shape(y, target, "probabilities")

    def _values(self, y: Array, target: Array) -> tuple[Array, Array]:
        if ((target < 0) | (target > 1)).any():
            raise ValueError("target holds values outside of 0 to 1, wanted probabilities")
        e = np.exp(-np.abs(y))  # at most 1: neither tail overflows
        values = np.maximum(y, 0) - y * target + np.log1p(e)
        sigmoid = np.where(y >= 0, 1, e) / (1 + e)
        return values.mean(-1), (sigmoid - target) / y.dtype.type(y.shape[-1])


class CrossEntropy(Loss):
    """Cross-entropy of one of O classes, from logits: -log softmax(y)[target].

    target: numbers of classes (...,), integers from 0 to O - 1; or probabilities (..., O).
    smoothing: the share of each target that is spread over all classes alike (Szegedy et al. 2016,
    "Rethinking the Inception architecture", section 7).
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = check.probability("smoothing", smoothing)

    def _target(self, y: Array, target: Array) -> Array:
        many = y.shape[-1]
        if target.dtype.kind in "iu" and target.shape == y.shape[:-1]:
            return target
        if target.dtype.kind == "f" and target.shape == y.shape:
            return target.astype(y.dtype, copy=False)
        raise ValueError(
            f"target has shape {target.shape} and dtype {target.dtype}, wanted numbers of classes "
            f"{y.shape[:-1]}, integers from 0 to {many - 1}, or probabilities {y.shape}"
        )

    def _values(self, y: Array, target: Array) -> tuple[Array, Array]:
        many = y.shape[-1]
        shifted = y - y.max(-1, keepdims=True)
        e = np.exp(shifted)
        sums = e.sum(-1, keepdims=True)
        softmax = e / sums
        if target.dtype.kind != "f":
            wrong = target[(target < 0) | (target >= many)]
            if wrong.size:
                raise ValueError(f"target holds class {wrong[0]}, wanted 0 to {many - 1}")
            if not self.smoothing:
                at = target[..., None].astype(np.intp)
                values = np.log(sums[..., 0]) - np.take_along_axis(shifted, at, -1)[..., 0]
                picked = np.take_along_axis(softmax, at, -1)
                np.put_along_axis(softmax, at, picked - 1, -1)
                return values, softmax
            target = np.eye(many, dtype=y.dtype)[target]
        if self.smoothing:
            target = target * y.dtype.type(1 - self.smoothing) + y.dtype.type(self.smoothing / many)
        log_softmax = shifted - np.log(sums)
        values = -(target * log_softmax).sum(-1)
        return values, softmax * target.sum(-1, keepdims=True) - target


def perplexity(loss: float) -> float:
    """e to a cross-entropy in nats: of how many classes a guess is as hard."""
    return math.exp(min(loss, 700.0))
